"""Parts of CWRNN that ablations and training take out."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from nvcodec.exact.convolution import Conv2d
from nvcodec.implicit.models.cwrnn import CWRNN

__all__ = ["BLIND_START", "read_point", "silenced", "without_states"]

BLIND_START = Path(__file__).parent / "starts" / "blind16"
"""What the shipped start would be if it had been trained on without states (``train_cwrnn.py --no-states``)."""


@torch.no_grad()
def silenced(module: nn.Module, columns: dict[str, slice]) -> dict[str, Tensor]:
    """Make input channels of convolutions count no longer; their masks by name of the layer."""
    masks = {}
    for name, part in columns.items():
        layer = module.get_submodule(name)
        assert isinstance(layer, Conv2d)
        mask = torch.ones_like(layer.weight)
        mask[:, part] = 0
        layer.weight.mul_(mask)
        masks[name] = mask
    return masks


def without_states(module: nn.Module) -> dict[str, Tensor]:
    """Of a CWRNN: whatever it keeps, no layer reads it."""
    assert isinstance(module, CWRNN)
    widths = module.widths
    return silenced(
        module,
        {
            "motion.enter": slice(0, 8 * widths.quarter_state),
            "enter_quarter": slice(9, 9 + 2 * widths.quarter_state),
            "enter_states": slice(0, 2 * widths.half_state),
        },
    )


def read_point(path: Path) -> tuple[bytes, dict[str, int]]:
    """A start beside the shipped ones: as ``nvcodec.implicit.encoder.start.starting_point`` returns it."""
    return path.with_suffix(".bin").read_bytes(), json.loads(path.with_suffix(".json").read_text("utf-8"))
