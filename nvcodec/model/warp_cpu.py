"""Overlapped block motion compensation on a CPU, half block by half block, in compiled code."""

from __future__ import annotations

import numpy as np

from nvcodec.compiled import compiled

__all__ = ["overlap"]


@compiled
def overlap(
    samples: np.ndarray, height: int, width: int, margin: int, vectors: np.ndarray, share: np.ndarray, out: np.ndarray
) -> None:
    """The mean of what four vectors bring to every sample, rounded half up; see ``nvcodec.model.warp``.

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
                        upper = wx * source[start[0] + place] + (8 - wx) * source[start[2] + place]
                        lower = wx * source[start[1] + place] + (8 - wx) * source[start[3] + place]
                        total = wy * upper + (8 - wy) * lower
                        out[c, top + y, left + x] = np.floor(total * np.float32(1 / 64) + np.float32(0.5))
