"""Parts of CWRNN that ablations and training take out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nvcodec.exact.convolution import Conv2d
from nvcodec.exact.operation import Sizes
from nvcodec.exact.tracing import trace
from nvcodec.implicit import starts
from nvcodec.implicit.encoder.coding import conv_symbols
from nvcodec.implicit.encoder.start import Start
from nvcodec.implicit.models.cwrnn import CWRNN

__all__ = ["adopted_start", "blind_point", "silenced", "without_states"]

_BLIND_START = Path(__file__).parent / "starts" / "blind16"
"""What the shipped start would be if it had been trained on without states (``train_cwrnn.py --no-states``). Its
directions, and the mean that it was moved by, are those of the shipped one in its own steps."""


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


def adopted_start(
    module: nn.Module, sizes: Sizes, bits: int, before: Mapping[str, Conv2d], start: Start, masks: Mapping[str, Tensor]
) -> Start:
    """A module as it stands, as a start that encoder and decoder of this process know. ``before``: the layers of
    ``start`` by name, from which those of the same name take their directions, as far as ``masks`` lets them."""
    traced = trace(module, sizes, bits)
    symbols = [conv_symbols(layer, fraction) for layer, fraction in traced.convolutions.values()]
    names = {id(layer): name for name, layer in module.named_modules()}
    numbers = {id(layer): number for number, layer in start.layers.items()}
    directions: list[list[np.ndarray]] = [[] for _ in range(start.tensors.count)]
    for layer, _ in traced.convolutions.values():
        name = names[id(layer)]
        count = layer.weight.numel()
        of_bias = np.zeros((start.tensors.count, len(layer.bias)), np.int8)
        of_weight = np.zeros((start.tensors.count, count), np.int8)
        if name in before:
            of_bias, of_weight = start.tensors.directions[numbers[id(before[name])]]
        if name in masks:
            of_weight = of_weight * masks[name].flatten().cpu().numpy().astype(np.int8)
        for k, found in enumerate(directions):
            found += [of_bias[k], of_weight[k]]
    data = starts.write_start(symbols, directions, start.tensors.shift)
    starts.shipped_starts()[starts.start_name(data)] = data
    tensors = starts.read_start(data, traced.program.convolutions(traced.shapes))
    return Start(
        starts.start_name(data), tensors, {number: layer for number, (layer, _) in traced.convolutions.items()}
    )


def blind_point() -> tuple[bytes, dict[str, int]]:
    """A start that was trained without states, in the form of ``nvcodec.implicit.encoder.start.starting_point``."""
    fractions = json.loads(_BLIND_START.with_suffix(".json").read_text("utf-8"))
    return _BLIND_START.with_suffix(".bin").read_bytes(), fractions
