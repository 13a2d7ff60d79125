"""The context model of the appearance levels: the integers that every decoder has, as ``tools/train_cwrnn.py`` found
them."""

from __future__ import annotations

from functools import cache
from importlib import resources

import numpy as np
import torch

from nvcodec.core.gop import MAX_DEPTH
from nvcodec.entropy.context import FEATURES, GROUPS, HIDDEN, STAGES, ContextWeights
from nvcodec.grid.levels import APPEARANCE_LEVELS

__all__ = ["CONTEXT_SHAPES", "appearance_context", "context_of"]

CONTEXT_SHAPES = {
    "hidden": (HIDDEN, FEATURES),
    "hidden_bias": (STAGES, HIDDEN),
    "output": (2, HIDDEN),
    "output_bias": (MAX_DEPTH + 1, APPEARANCE_LEVELS, 2),
    "group_bias": (APPEARANCE_LEVELS, GROUPS, 2),
}
"""In the order in which the file has them, 16 bits each, little endian."""


def context_of(data: bytes) -> ContextWeights:
    """The weights in a file of theirs."""
    values = torch.from_numpy(np.frombuffer(data, "<i2").astype(np.float32))
    parts = values.split([int(np.prod(shape)) for shape in CONTEXT_SHAPES.values()])
    return ContextWeights(*(part.reshape(shape) for part, shape in zip(parts, CONTEXT_SHAPES.values(), strict=True)))


@cache
def appearance_context() -> ContextWeights:
    return context_of(resources.files("nvcodec.grid").joinpath("contexts.bin").read_bytes())
