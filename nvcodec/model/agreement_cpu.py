"""How well two references agree on a motion field, on a CPU: block by block, in compiled code.

The search tries some sixty fields for each frame. As tensor operations, every trial copies whole pictures; here a
block reads its sixteen samples of both references, and nothing is kept but the sum.
"""

from __future__ import annotations

import numba
import numpy as np

__all__ = ["block_differences"]


@numba.njit(cache=True, nogil=True)
def block_differences(
    first: np.ndarray, second: np.ndarray, fields: np.ndarray, height: int, width: int, margin: int, sums: np.ndarray
) -> None:
    """Sums of absolute differences of every second sample of both directions, for blocks of 8x8.

    ``first``, ``second``: the samples of two ``InterpolatedPlane`` of ``height`` x ``width`` with ``margin`` around
    them. ``fields``: (2, 2, rows, columns), the vectors (y, x) into each of them, integers. ``sums``: (rows, columns).
    """
    full_width = width + 2 * margin
    plane = full_width * (height + 2 * margin)
    for i in range(sums.shape[0]):
        for j in range(sums.shape[1]):
            top, left = 8 * i, 8 * j
            start0 = _start(fields[0, 0, i, j], fields[0, 1, i, j], top, left, height, width, margin, plane, full_width)
            start1 = _start(fields[1, 0, i, j], fields[1, 1, i, j], top, left, height, width, margin, plane, full_width)
            total = np.float32(0)
            for y in range(0, min(8, height - top), 2):
                for x in range(0, min(8, width - left), 2):
                    place = y * full_width + x
                    total += abs(first[start0 + place] - second[start1 + place])
            sums[i, j] = total


@numba.njit(cache=True, nogil=True)
def _start(
    vy: int, vx: int, top: int, left: int, height: int, width: int, margin: int, plane: int, full_width: int
) -> int:
    """Index of the sample that the block's first one is displaced to; beyond the margin all see the repeated border."""
    row = min(max(top + (vy >> 2), -margin), height + margin - 8) + margin
    column = min(max(left + (vx >> 2), -margin), width + margin - 8) + margin
    return ((vx & 3) * 4 + (vy & 3)) * plane + row * full_width + column
