"""The transform of a block: cosines in integers, in compiled code."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from nvcodec.core.compiled import compiled

__all__ = ["add_inverse", "cosines", "matrices"]

_COSINE_BITS = 13
_FIRST_SHIFT = 9
_COEFFICIENT_BOUND = (1 << 19) - 1
_MAX = 1023


@lru_cache(maxsize=1)
def cosines() -> tuple[int, ...]:
    """``round(2**13 cos(j pi / 64))`` for j = 0 .. 32."""
    return tuple(round(8192 * float(np.cos(j * np.pi / 64))) for j in range(33))


@lru_cache(maxsize=1)
def matrices() -> np.ndarray:
    """int32 (4, 32, 32): row k of the matrix of 4, 8, 16, 32 samples is the cosine of frequency k, times 2**13 but for
    a common factor; the first one is 2**13 / sqrt(2)."""
    table = cosines()
    out = np.zeros((4, 32, 32), np.int32)
    for n in range(4):
        side = 4 << n
        for k in range(side):
            for i in range(side):
                angle = (2 * i + 1) * k * (32 // side) % 128  # of pi / 64
                angle = min(angle, 128 - angle)
                out[n, k, i] = (table[angle] if angle <= 32 else -table[64 - angle]) if k else table[16]
    return out


_MATRICES = matrices()


@compiled
def add_inverse(levels, top, left, log2, step, out):
    """Add what the levels of a block at (top, left), times ``step``, come to as samples to the prediction in ``out``,
    and clip."""
    side, matrix = 1 << log2, _MATRICES[log2 - 2]
    half = np.zeros((32, 32), np.int64)
    highest = -1
    for y in range(side):
        for x in range(side):
            level = np.int64(levels[top + y, left + x])
            if level == 0:
                continue
            highest = max(highest, x)
            value = min(max(level * step, -_COEFFICIENT_BOUND), _COEFFICIENT_BOUND)
            for i in range(side):
                half[i, x] += matrix[y, i] * value
    if highest < 0:
        return
    for y in range(side):
        for x in range(highest + 1):
            half[y, x] = (half[y, x] + (1 << (_FIRST_SHIFT - 1))) >> _FIRST_SHIFT
    shift = 2 * _COSINE_BITS - _FIRST_SHIFT + log2 - 1
    for y in range(side):
        for i in range(side):
            total = np.int64(1) << (shift - 1)
            for x in range(highest + 1):
                total += matrix[x, i] * half[y, x]
            out[y, i] = min(max(out[y, i] + (total >> shift), 0), _MAX)
