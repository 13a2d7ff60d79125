"""The contexts of the bins of blocks: where each kind begins, and what each is at first."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from itertools import accumulate

import numpy as np

__all__ = [
    "ABOVE_ONE",
    "ABOVE_TWO",
    "ANY",
    "CHROMA",
    "CODED",
    "CONTEXTS",
    "KIND",
    "LAST",
    "LIKELY",
    "MODE",
    "PRESENT",
    "REST",
    "SPLIT",
    "STEP",
    "initial_probabilities",
]

_COUNTS = {
    "split": 9,  # size of the node, neighbours in smaller blocks
    "kind": 3,  # whether a node is predicted from references; neighbours that are not
    "any": 12,  # whether such a node has levels at all: size, neighbours that have
    "likely": 3,  # whether the mode is a likely one; which
    "mode": 31,  # nodes of a binary tree
    "chroma": 5,  # same as luma; linear; nodes of a binary tree
    "coded": 13,  # luma by size; U by size; V by size and that of U
    "last": 160,  # luma or chroma, size, axis, bin
    "present": 50,  # luma or chroma, zone, neighbours
    "above one": 40,
    "above two": 40,
    "rest": 64,
    "step": 8,  # whether the quantiser step changes; by how much
}
_STARTS = dict(zip(_COUNTS, accumulate(_COUNTS.values(), initial=0), strict=False))
SPLIT, KIND, ANY, LIKELY, MODE, CHROMA, CODED = (
    _STARTS[name] for name in ("split", "kind", "any", "likely", "mode", "chroma", "coded")
)
LAST, PRESENT, ABOVE_ONE, ABOVE_TWO, REST, STEP = (
    _STARTS[name] for name in ("last", "present", "above one", "above two", "rest", "step")
)
CONTEXTS = sum(_COUNTS.values())


def initial_probabilities(depth: int) -> np.ndarray:
    """int64 (CONTEXTS, 3): what frames at ``depth`` of the hierarchy begin with; see ``bins_cpu.new_coder``."""
    first = _first()[depth].astype(np.int64) * 256
    return np.stack([first, first, np.zeros_like(first)], axis=1)


@lru_cache(maxsize=1)
def _first() -> np.ndarray:
    """uint8 of each depth and context: how often in 256 a bin is 1, as ``tools/train_base.py`` has found it."""
    data = resources.files("nvcodec.hybrid.blocks").joinpath("contexts.bin").read_bytes()
    return np.frombuffer(data, np.uint8).reshape(-1, CONTEXTS)
