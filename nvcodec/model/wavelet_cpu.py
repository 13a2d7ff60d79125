"""One level of the wavelet synthesis on a CPU, and its adjoint, in compiled code.

The same numbers as the convolutions of ``nvcodec.model.grid``: integers in float32, exact in any order of summation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from nvcodec.compiled import compiled

__all__ = ["SynthesisStep"]

_REACH = 2
"""Samples on either side that the filters see."""


@compiled
def _rounded(x: np.ndarray, step: np.float32, rounds: bool, bound: np.float32) -> None:
    """Scale by ``step``, round half up where ``rounds`` says so, and clip, in place."""
    for i in range(len(x)):
        value = x[i] * step
        if rounds:
            value = np.floor(value + np.float32(0.5))
        x[i] = min(max(value, -bound), bound)


@compiled
def _across(low: np.ndarray, high: np.ndarray, taps: np.ndarray, even: np.ndarray, odd: np.ndarray) -> None:
    """The even and odd samples of one line; ``low`` and ``high`` go on periodically for _REACH samples."""
    count = len(even)
    even[:] = 0
    odd[:] = 0
    for t in range(2 * _REACH + 1):
        for i in range(count):
            even[i] += taps[0, 0, t] * low[i + t] + taps[0, 1, t] * high[i + t]
            odd[i] += taps[1, 0, t] * low[i + t] + taps[1, 1, t] * high[i + t]


@compiled
def _around(line: np.ndarray, out: np.ndarray) -> None:
    """``line`` with _REACH samples more on both sides, periodically."""
    count = len(line)
    for i in range(count):
        out[_REACH + i] = line[i]
    for i in range(_REACH):
        out[i] = line[(i - _REACH) % count]
        out[_REACH + count + i] = line[i % count]


@compiled
def _synthesis(
    low: np.ndarray,
    bands: np.ndarray,
    taps: np.ndarray,
    step: np.float32,
    bound: np.float32,
    rounds: bool,
    out: np.ndarray,
) -> None:
    """low (N, r, c) and bands (N, 3, r, c) to out (N, rows, columns), at most twice as large."""
    count, rows, columns = low.shape
    height, width = out.shape[1:]
    wide_low = np.empty(columns + 2 * _REACH, np.float32)
    wide_high = np.empty(columns + 2 * _REACH, np.float32)
    even, odd = np.empty(columns, np.float32), np.empty(columns, np.float32)
    halves = np.empty((2, rows, width), np.float32)
    for n in range(count):
        for y in range(rows):
            for part in range(2):
                _around(bands[n, 1, y] if part else low[n, y], wide_low)
                _around(bands[n, 2, y] if part else bands[n, 0, y], wide_high)
                _across(wide_low, wide_high, taps, even, odd)
                line = halves[part, y]
                for x in range(width):
                    line[x] = odd[x // 2] if x & 1 else even[x // 2]
                _rounded(line, step, rounds, bound)
        for y in range(height):
            line = out[n, y]
            line[:] = 0
            for t in range(2 * _REACH + 1):
                source = (y // 2 + t - _REACH) % rows
                by_low, by_high = taps[y % 2, 0, t], taps[y % 2, 1, t]
                for x in range(width):
                    line[x] += by_low * halves[0, source, x] + by_high * halves[1, source, x]
            _rounded(line, step, rounds, bound)


@compiled
def _adjoint(slopes: np.ndarray, taps: np.ndarray, step: np.float32, low: np.ndarray, bands: np.ndarray) -> None:
    """The adjoint of ``_synthesis``: slopes (N, rows, columns) to low (N, r, c) and bands (N, 3, r, c)."""
    count, rows, columns = low.shape
    height, width = slopes.shape[1:]
    halves = np.zeros((2, rows, 2 * columns), np.float32)
    wide_even = np.empty(columns + 2 * _REACH, np.float32)
    wide_odd = np.empty(columns + 2 * _REACH, np.float32)
    for n in range(count):
        halves[:] = 0
        for y in range(height):
            for t in range(2 * _REACH + 1):
                source = (y // 2 + t - _REACH) % rows
                for part in range(2):
                    weight = taps[y % 2, part, t] * step
                    for x in range(width):
                        halves[part, source, x] += weight * slopes[n, y, x]
        for y in range(rows):
            for part in range(2):
                _around(halves[part, y, 0::2], wide_even)
                _around(halves[part, y, 1::2], wide_odd)
                of_low, of_high = (bands[n, 1, y], bands[n, 2, y]) if part else (low[n, y], bands[n, 0, y])
                of_low[:] = 0
                of_high[:] = 0
                for t in range(2 * _REACH + 1):
                    k = 2 * _REACH - t
                    for i in range(columns):
                        of_low[i] += taps[0, 0, t] * wide_even[i + k] + taps[1, 0, t] * wide_odd[i + k]
                        of_high[i] += taps[0, 1, t] * wide_even[i + k] + taps[1, 1, t] * wide_odd[i + k]
                for i in range(columns):
                    of_low[i] *= step
                    of_high[i] *= step


class SynthesisStep(torch.autograd.Function):
    """low (N, r, c) and bands (N, 3, r, c) to (N, rows, columns); gradients pass roundings and clips as if there were
    none."""

    @staticmethod
    def forward(
        ctx: Any, low: Tensor, bands: Tensor, taps: Tensor, size: tuple[int, int], shift: int, bound: int, rounds: bool
    ) -> Tensor:
        """``taps``: (2 output phases, low and high, 5), over ``2**shift``. ``bound``: magnitude of results."""
        ctx.taps, ctx.shift, ctx.shape = taps, shift, low.shape
        out = np.empty((len(low), *size), np.float32)
        arrays = (low.contiguous().numpy(), bands.contiguous().numpy(), taps.numpy())
        _synthesis(*arrays, np.float32(2.0**-shift), np.float32(bound), rounds, out)
        return torch.from_numpy(out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        count, rows, columns = ctx.shape
        low, bands = np.empty((count, rows, columns), np.float32), np.empty((count, 3, rows, columns), np.float32)
        _adjoint(grads[0].contiguous().numpy(), ctx.taps.numpy(), np.float32(2.0**-ctx.shift), low, bands)
        return torch.from_numpy(low), torch.from_numpy(bands), None, None, None, None, None
