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

from nvcodec.entropy.symbols import SymbolChannel
from nvcodec.entropy.tables import FRACTIONS, SCALES, table_bits

__all__ = ["STEPS", "TensorChange", "TensorSpec", "best_scales", "code_tensors", "row_length"]

STEPS = (1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256)
"""Steps of a tensor's symbols, in integer units of the tensor."""
_STEP_BITS = 4
_SCALE_BITS = 6
_ROW_TABLE = 28 * FRACTIONS
"""Table that codes how a row's scale differs from its tensor's (b = 0.8)."""
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
    costs = table_bits()[::FRACTIONS]  # location 0: (SCALES, symbols)
    rows = symbols.reshape(-1, row_length(spec)) + costs.shape[1] // 2
    return np.array([int(costs[:, row].sum(1).argmin()) for row in rows])


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
    step = _code_number(channel, change.step if change else None, _STEP_BITS)
    length = row_length(spec)
    rows = int(np.prod(spec.shape)) // length
    middle = _code_number(channel, int(np.median(change.scales)) if change else None, _SCALE_BITS)
    scales = np.full(rows, middle)
    if rows > 1:
        given = (change.scales - middle).astype(np.int32) if change else None
        scales = scales + channel.exchange(np.full(rows, _ROW_TABLE, dtype=np.uint8), given)
        scales = scales.clip(0, SCALES - 1)
    tables = np.repeat((scales * FRACTIONS).astype(np.uint8), length)
    symbols = channel.exchange(tables, change.symbols.reshape(-1).astype(np.int32) if change else None)
    return symbols, step


def _code_number(channel: SymbolChannel, value: int | None, bits: int) -> int:
    """An unsigned number, most significant bit first."""
    given = None if value is None else np.array([value >> (bits - 1 - i) & 1 for i in range(bits)])
    return int("".join(str(int(b)) for b in channel.exchange_flags(given, bits)), 2)
