"""Tensors of a network in the bitstream: differences from those it starts from, in steps.

Each tensor is untouched (one flag), or has a step and a scale; ``value = start + step * symbol``. Long rows
(output channels) have scales of their own, so that rows and tensors without changes cost next to nothing.
There is no pruning mask: a pruned weight is a zero symbol, and the scale prices it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nvcodec.entropy.numbers import best_scale, code_number, code_scales, code_symbols
from nvcodec.entropy.symbols import SymbolChannel

__all__ = ["STEPS", "TensorChange", "TensorSpec", "best_scales", "code_tensors", "row_length"]

STEPS = (1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256)
"""Steps of a tensor's symbols, in integer units of the tensor."""
_STEP_BITS = 4
_MIN_ROW = 64
"""Tensors whose rows are shorter have one scale for all."""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a network; ``fraction_bits`` scales its real values to integers, |integer| <= bound."""

    name: str
    shape: tuple[int, ...]
    fraction_bits: int
    bound: int


@dataclass
class TensorChange:
    """``symbols``: integers of the tensor's shape. ``step``: index into STEPS. ``scales``: one for each row."""

    symbols: np.ndarray
    step: int
    scales: np.ndarray


def row_length(spec: TensorSpec) -> int:
    """Symbols that share a scale: a row (output channel) of the tensor, or all of it."""
    count = int(np.prod(spec.shape))
    row = count // spec.shape[0]
    return row if row >= _MIN_ROW else count


def best_scales(symbols: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """The scale index that codes each row in the fewest bits."""
    return best_scale(symbols.reshape(-1, row_length(spec)))


def code_tensors(
    channel: SymbolChannel,
    specs: Iterable[TensorSpec],
    start: Mapping[str, Tensor],
    changes: Mapping[str, TensorChange] | None = None,
) -> dict[str, Tensor]:
    """Write ``changes`` (absent tensors are untouched) or read them; returns the integer tensors in the order of
    ``specs``. ``start``: those that the changes are added to, by name."""
    tensors = {}
    for spec in specs:
        values = start[spec.name]
        change = None
        if changes is not None:
            change = changes.get(spec.name)
            if change is not None and not change.symbols.any():
                change = None
        touched = channel.exchange_flags(np.array([change is not None]) if changes is not None else None, 1)
        if touched[0]:
            symbols, step = _code_change(channel, spec, change)
            moved = torch.from_numpy(np.multiply(symbols, STEPS[step], dtype=np.float32)).reshape(spec.shape)
            values = moved.add_(values).clamp_(-spec.bound, spec.bound)
        tensors[spec.name] = values
    return tensors


def _code_change(channel: SymbolChannel, spec: TensorSpec, change: TensorChange | None) -> tuple[np.ndarray, int]:
    step = code_number(channel, change.step if change else None, _STEP_BITS)
    length = row_length(spec)
    rows = int(np.prod(spec.shape)) // length
    scales = code_scales(channel, change.scales if change else None, rows)
    given = change.symbols.reshape(rows, length) if change else None
    return code_symbols(channel, given, (rows, length), scales), step
