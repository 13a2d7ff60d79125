"""Motion compensation on a CPU in compiled code: interpolation by rows, overlapped blocks by half blocks."""

from __future__ import annotations

import numpy as np

from nvcodec.core.compiled import compiled

__all__ = ["interpolate", "overlap"]


@compiled
def interpolate(padded: np.ndarray, taps: np.ndarray, column: int, shift: int, most: int, out: np.ndarray) -> None:
    """The planes at the column fraction ``column`` and all row fractions, rounded half up and clipped to 0 .. ``most``.

    ``padded``: (C, rows + taps - 1, columns + taps - 1). ``taps``: (4, taps), integers; their square scales the result
    by ``2**shift``. ``out``: (C, 16, rows, columns), int16, phase ``4 * column + row`` by phase. All sums are exact.
    """
    length = taps.shape[1]
    planes, _, rows, columns = out.shape
    across = np.empty((rows + length - 1, columns), np.float32)
    line = np.empty(columns, np.float32)
    unit, half = np.float32(2.0**-shift), np.float32(0.5)
    for c in range(planes):
        across[:] = 0
        for t in range(length):
            tap = taps[column, t]
            if tap != 0:
                for y in range(rows + length - 1):
                    for x in range(columns):
                        across[y, x] += tap * padded[c, y, x + t]
        for fraction in range(4):
            for y in range(rows):
                line[:] = 0
                for t in range(length):
                    tap = taps[fraction, t]
                    if tap != 0:
                        for x in range(columns):
                            line[x] += tap * across[y + t, x]
                for x in range(columns):
                    rounded = np.floor(line[x] * unit + half)
                    out[c, 4 * column + fraction, y, x] = np.int16(min(max(rounded, np.float32(0)), np.float32(most)))


@compiled
def overlap(
    samples: np.ndarray, height: int, width: int, margin: int, vectors: np.ndarray, share: np.ndarray, out: np.ndarray
) -> None:
    """The mean of what four vectors bring to every sample, rounded half up; see ``nvcodec.motion.warp``.

    ``samples``: (C, N), those of an ``InterpolatedPlane``. ``vectors``: (2, rows, columns), integers. ``share``: of a
    block's own vector along a row of the block, /8, as long as the block. ``out``: (C, height, width).
    """
    planes = len(out)
    rows, columns = vectors.shape[1:]
    half = len(share) // 2
    full_width = width + 2 * margin
    plane = full_width * (height + 2 * margin)
    start = np.empty(4, np.int64)
    for hi in range(min(2 * rows, (height + half - 1) // half)):
        own_i = hi // 2
        outer_i = min(max(own_i + 2 * (hi & 1) - 1, 0), rows - 1)
        for hj in range(min(2 * columns, (width + half - 1) // half)):
            own_j = hj // 2
            outer_j = min(max(own_j + 2 * (hj & 1) - 1, 0), columns - 1)
            top, left = half * hi, half * hj
            for part in range(4):
                i, j = outer_i if part & 1 else own_i, outer_j if part & 2 else own_j
                vy, vx = vectors[0, i, j], vectors[1, i, j]
                row = min(max(top + (vy >> 2), -margin), height + margin - half) + margin
                column = min(max(left + (vx >> 2), -margin), width + margin - half) + margin
                start[part] = ((vx & 3) * 4 + (vy & 3)) * plane + row * full_width + column
            for c in range(planes):
                source = samples[c]
                for y in range(min(half, height - top)):
                    wy = share[half * (hi & 1) + y]
                    for x in range(min(half, width - left)):
                        wx = share[half * (hj & 1) + x]
                        place = y * full_width + x
                        own, beside = np.float32(source[start[0] + place]), np.float32(source[start[2] + place])
                        outer, corner = np.float32(source[start[1] + place]), np.float32(source[start[3] + place])
                        upper = wx * own + (8 - wx) * beside
                        lower = wx * outer + (8 - wx) * corner
                        total = wy * upper + (8 - wy) * lower
                        out[c, top + y, left + x] = np.floor(total * np.float32(1 / 64) + np.float32(0.5))
