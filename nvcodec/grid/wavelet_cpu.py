"""One level of the wavelet synthesis on a CPU, and its adjoint, in compiled code.

The same numbers as the convolutions of ``nvcodec.grid.wavelet``: integers in float32, exact in any order of summation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from nvcodec.core.compiled import compiled

__all__ = ["SynthesisStep", "source_place"]

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
    """The even and odd samples of one line; ``low`` and ``high`` go on for _REACH samples at both ends."""
    count = len(even)
    even[:] = 0
    odd[:] = 0
    for t in range(2 * _REACH + 1):
        for i in range(count):
            even[i] += taps[0, 0, t] * low[i + t] + taps[0, 1, t] * high[i + t]
            odd[i] += taps[1, 0, t] * low[i + t] + taps[1, 1, t] * high[i + t]


@compiled
def source_place(i: int, phase: int, length: int) -> int:
    """Which low (phase 0) or high (phase 1) sample stands at place i, be it beyond an end of the line of ``length``."""
    position = 2 * i + phase
    if length == 1:
        return 0
    position %= 2 * (length - 1)
    return min(position, 2 * (length - 1) - position) >> 1


@compiled
def _continued(line: np.ndarray, phase: int, length: int, out: np.ndarray) -> None:
    """``line`` with _REACH samples more on both sides, see ``nvcodec.grid.wavelet._merge``."""
    count = len(line)
    for i in range(count):
        out[_REACH + i] = line[i]
    for i in range(_REACH):
        out[i] = line[source_place(i - _REACH, phase, length)]
    for i in range(count - 1, count + _REACH):
        out[_REACH + i] = line[source_place(i, phase, length)]


@compiled
def _folded(wide: np.ndarray, phase: int, length: int, out: np.ndarray) -> None:
    """The adjoint of ``_continued``."""
    count = len(out)
    for i in range(count):
        out[i] = wide[_REACH + i]
    for i in range(_REACH):
        out[source_place(i - _REACH, phase, length)] += wide[i]
    out[count - 1] -= wide[_REACH + count - 1]
    for i in range(count - 1, count + _REACH):
        out[source_place(i, phase, length)] += wide[_REACH + i]


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
                _continued(bands[n, 1, y] if part else low[n, y], 0, width, wide_low)
                _continued(bands[n, 2, y] if part else bands[n, 0, y], 1, width, wide_high)
                _across(wide_low, wide_high, taps, even, odd)
                line = halves[part, y]
                for x in range(width):
                    line[x] = odd[x // 2] if x & 1 else even[x // 2]
                _rounded(line, step, rounds, bound)
        for y in range(height):
            line = out[n, y]
            line[:] = 0
            for t in range(2 * _REACH + 1):
                from_low = source_place(y // 2 + t - _REACH, 0, height)
                from_high = source_place(y // 2 + t - _REACH, 1, height)
                by_low, by_high = taps[y % 2, 0, t], taps[y % 2, 1, t]
                for x in range(width):
                    line[x] += by_low * halves[0, from_low, x] + by_high * halves[1, from_high, x]
            _rounded(line, step, rounds, bound)


@compiled
def _adjoint(slopes: np.ndarray, taps: np.ndarray, step: np.float32, low: np.ndarray, bands: np.ndarray) -> None:
    """The adjoint of ``_synthesis``: slopes (N, rows, columns) to low (N, r, c) and bands (N, 3, r, c)."""
    count, rows, columns = low.shape
    height, width = slopes.shape[1:]
    halves = np.zeros((2, rows, 2 * columns), np.float32)
    wide_low = np.empty(columns + 2 * _REACH, np.float32)
    wide_high = np.empty(columns + 2 * _REACH, np.float32)
    for n in range(count):
        halves[:] = 0
        for y in range(height):
            for t in range(2 * _REACH + 1):
                for part in range(2):
                    source = source_place(y // 2 + t - _REACH, part, height)
                    weight = taps[y % 2, part, t] * step
                    for x in range(width):
                        halves[part, source, x] += weight * slopes[n, y, x]
        for y in range(rows):
            for part in range(2):
                even, odd = halves[part, y, 0::2], halves[part, y, 1::2]
                wide_low[:] = 0
                wide_high[:] = 0
                for t in range(2 * _REACH + 1):
                    for i in range(columns):
                        wide_low[i + t] += step * (taps[0, 0, t] * even[i] + taps[1, 0, t] * odd[i])
                        wide_high[i + t] += step * (taps[0, 1, t] * even[i] + taps[1, 1, t] * odd[i])
                _folded(wide_low, 0, width, bands[n, 1, y] if part else low[n, y])
                _folded(wide_high, 1, width, bands[n, 2, y] if part else bands[n, 0, y])


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
