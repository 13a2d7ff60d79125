"""The tensors of a program in the bitstream: of each convolution its scales, its bias, its weights.

::

    bias_shift (4 bits) | exponents: middle + 256 (9 bits), scale (6 bits), differences
                        | bias: scale (6 bits), symbols | weights: scales of the rows, symbols

Rows (output channels) of 64 weights and more have scales of their own. There is no mask of what was pruned: a pruned
weight is a zero symbol, and the scale of its row prices it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from nvcodec.core.errors import LimitError
from nvcodec.entropy.numbers import best_scale, code_number, code_scales, code_symbols
from nvcodec.entropy.symbols import SymbolChannel
from nvcodec.exact.arithmetic import EXPONENT_HIGH, EXPONENT_LOW
from nvcodec.exact.convolution import ConvTensors, largest_weight_sum

__all__ = ["ConvSymbols", "code_convolution"]

_BIAS_SHIFT_BITS = 4
_EXPONENT_BITS = 9
_MIN_ROW = 64


@dataclass(frozen=True)
class ConvSymbols:
    """What is coded of a convolution. ``weight``: (out, in / groups, k, k), int8 or int32. ``exponent``, ``bias``:
    (out,), int32; a bias counts ``2**bias_shift``."""

    weight: np.ndarray
    exponent: np.ndarray
    bias: np.ndarray
    bias_shift: int

    def tensors(self) -> ConvTensors:
        weight, exponent = torch.from_numpy(self.weight).float(), torch.from_numpy(self.exponent).float()
        return ConvTensors(weight, exponent, torch.from_numpy(self.bias << self.bias_shift).float())


def code_convolution(
    channel: SymbolChannel, shape: tuple[int, int, int, int], given: ConvSymbols | None, bound: int | None = None
) -> ConvSymbols:
    """Write ``given``, or read what was written. ``shape``: of the weights. ``bound``: of the magnitude of what is
    convolved, if the weights are to be held to it at once. Raises LimitError."""
    count, length = shape[0], shape[1] * shape[2] * shape[3]
    bias_shift = code_number(channel, given.bias_shift if given else None, _BIAS_SHIFT_BITS)
    middle = int(np.median(given.exponent)) if given else 0
    middle = code_number(channel, middle - EXPONENT_LOW if given else None, _EXPONENT_BITS) + EXPONENT_LOW
    exponent = middle + _scaled(channel, given.exponent - middle if given else None, (1, count)).reshape(-1).astype(
        np.int32
    )
    if exponent.min() < EXPONENT_LOW or exponent.max() > EXPONENT_HIGH:
        raise LimitError(f"exponent {exponent.min()} .. {exponent.max()}, allowed are {EXPONENT_LOW}..{EXPONENT_HIGH}")
    bias = _scaled(channel, given.bias if given else None, (1, count)).reshape(-1).astype(np.int32)
    rows = (count, length) if length >= _MIN_ROW else (1, count * length)
    largest = None if bound is None or length < _MIN_ROW else largest_weight_sum(bound)  # shorter rows cannot break it
    weight = _scaled(channel, given.weight if given else None, rows, largest).reshape(shape)
    return ConvSymbols(weight, exponent, bias, bias_shift)


def _scaled(
    channel: SymbolChannel, given: np.ndarray | None, rows: tuple[int, int], largest: int | None = None
) -> np.ndarray:
    """Rows of symbols, each with a scale."""
    symbols = None if given is None else given.reshape(rows)
    scales = code_scales(channel, None if symbols is None else best_scale(symbols), rows[0])
    return code_symbols(channel, symbols, rows, scales, largest)
