"""The search for the motion on which two references agree, on a CPU: block by block, in compiled code.

The search tries some hundred fields for each frame. As tensor operations, every trial copies whole pictures; here a
block reads its sixteen samples of both references, and not even those where the trial is what it has already.
"""

from __future__ import annotations

import numpy as np

from nvcodec.core.compiled import compiled

__all__ = ["search_agreement"]


@compiled
def search_agreement(
    first: np.ndarray, second: np.ndarray, height: int, width: int, margin: int, distances: np.ndarray,
    candidates: np.ndarray, neighbours: np.ndarray, neighbour_penalty: int, steps: np.ndarray, wide: np.ndarray,
    near: np.ndarray, bound: int, best: np.ndarray, cost: np.ndarray,
) -> None:  # fmt: skip
    """The search of ``nvcodec.motion.prediction._Agreement``, one field after the other (bitstream_spec.md, 10.4).

    ``first``, ``second``: the samples of two ``InterpolatedPlane`` of ``height`` x ``width`` with ``margin`` around
    them. ``distances``: of both in frames, the first one positive. ``candidates``: (N, 2, rows, columns).
    ``neighbours``: (8, 2). ``steps``: (M, 2), step and penalty of the refinement. ``wide``, ``near``: a row of each
    window, of odd length; the window is its product with itself. ``best``: (2, rows, columns), where to start, and the
    result. ``cost``: (rows, columns), what the result costs by the near window. All integers in int32.
    """
    trial = np.empty_like(best)
    centre = np.empty_like(best)
    kept = np.empty_like(cost)  # the sums of ``best``
    sums = np.empty_like(cost)
    down = np.empty_like(cost)
    other = np.empty_like(cost)
    places = (height, width, margin)
    kept[:] = -1
    _sums(first, second, places, distances, bound, best, best, kept, sums)
    kept[:] = sums
    _windowed(kept, wide, down, cost)
    for n in range(len(candidates)):
        _sums(first, second, places, distances, bound, candidates[n], best, kept, sums)
        _windowed(sums, wide, down, other)
        _keep_better(candidates[n], sums, other, 0, best, kept, cost)
    for n in range(len(candidates)):
        for reach in range(1, 3):
            for d in range(len(neighbours)):
                _shift(candidates[n], reach * neighbours[d, 0], reach * neighbours[d, 1], trial)
                _sums(first, second, places, distances, bound, trial, best, kept, sums)
                _windowed(sums, wide, down, other)
                _keep_better(trial, sums, other, neighbour_penalty, best, kept, cost)
    for window in (wide, near):
        if window is near:
            _windowed(kept, near, down, cost)
            for s in range(len(steps)):
                centre[:] = best
                for d in range(len(neighbours)):
                    _displace(centre, steps[s, 0] * neighbours[d, 0], steps[s, 0] * neighbours[d, 1], bound, trial)
                    _sums(first, second, places, distances, bound, trial, best, kept, sums)
                    _windowed(sums, near, down, other)
                    _keep_better(trial, sums, other, steps[s, 1], best, kept, cost)
        centre[:] = best
        for reach in range(1, 3):
            for d in range(4):
                _shift(centre, reach * neighbours[d, 0], reach * neighbours[d, 1], trial)
                _sums(first, second, places, distances, bound, trial, best, kept, sums)
                _windowed(sums, window, down, other)
                _keep_better(trial, sums, other, neighbour_penalty, best, kept, cost)
    _windowed(kept, near, down, cost)


@compiled
def _keep_better(trial, sums, other, penalty, best, kept, cost):
    """Keep the vectors of ``trial`` where they agree better, and what they cost: ``other`` and the penalty."""
    rows, columns = cost.shape
    for i in range(rows):
        for j in range(columns):
            if other[i, j] + penalty < cost[i, j]:
                cost[i, j] = other[i, j] + penalty
                kept[i, j] = sums[i, j]
                best[0, i, j], best[1, i, j] = trial[0, i, j], trial[1, i, j]


@compiled
def _windowed(sums, row, down, out):
    """Sums weighted by the window ``row`` times ``row``, zeros beyond the border. ``down``: room like ``out``."""
    rows, columns = out.shape
    reach = len(row) // 2
    for i in range(rows):
        down[i] = 0
        for y in range(max(-reach, -i), min(reach, rows - 1 - i) + 1):
            weight = row[y + reach]
            for j in range(columns):
                down[i, j] += weight * sums[i + y, j]
    for i in range(rows):
        out[i] = 0
        for x in range(-reach, reach + 1):
            weight = row[x + reach]
            for j in range(max(0, -x), min(columns, columns - x)):
                out[i, j] += weight * down[i, j + x]


@compiled
def _shift(field, dy, dx, out):
    """``out[y, x] = field[y - dy, x - dx]``, indices modulo the size."""
    rows, columns = field.shape[1:]
    cut = dx % columns
    for i in range(rows):
        row = (i - dy) % rows
        for c in range(2):
            for j in range(cut):
                out[c, i, j] = field[c, row, j + columns - cut]
            for j in range(cut, columns):
                out[c, i, j] = field[c, row, j - cut]


@compiled
def _displace(field, dy, dx, bound, out):
    """``field`` with (dy, dx) added to every vector, clipped."""
    rows, columns = field.shape[1:]
    for i in range(rows):
        for j in range(columns):
            out[0, i, j] = min(max(field[0, i, j] + dy, -bound), bound)
            out[1, i, j] = min(max(field[1, i, j] + dx, -bound), bound)


@compiled
def _sums(first, second, places, distances, bound, field, known, kept, sums):
    """Sums of absolute differences of every second sample of both directions, for blocks of 8x8.

    ``kept``: the sums of the field ``known``, or -1.
    """
    height, width, margin = places
    full_width = width + 2 * margin
    plane = full_width * (height + 2 * margin)
    for i in range(sums.shape[0]):
        for j in range(sums.shape[1]):
            vy, vx = field[0, i, j], field[1, i, j]
            if kept[i, j] >= 0 and vy == known[0, i, j] and vx == known[1, i, j]:
                sums[i, j] = kept[i, j]
                continue
            top, left = 8 * i, 8 * j
            wy, wx = _scaled(vy, distances, bound), _scaled(vx, distances, bound)
            start0 = _start(vy, vx, top, left, height, width, margin, plane, full_width)
            start1 = _start(wy, wx, top, left, height, width, margin, plane, full_width)
            total = np.int32(0)
            if top + 8 <= height and left + 8 <= width:
                for y in range(0, 8, 2):
                    row0, row1 = start0 + y * full_width, start1 + y * full_width
                    for x in range(8):  # every second one counts; it is quicker to read them all
                        total += (1 - (x & 1)) * abs(np.int32(first[row0 + x]) - np.int32(second[row1 + x]))
            else:
                for y in range(0, min(8, height - top), 2):
                    row0, row1 = start0 + y * full_width, start1 + y * full_width
                    for x in range(0, min(8, width - left), 2):
                        total += abs(np.int32(first[row0 + x]) - np.int32(second[row1 + x]))
            sums[i, j] = total


@compiled
def _scaled(v, distances, bound):
    """``scale_vectors``: floor(v * numerator / denominator + 1/2), clipped."""
    denominator = distances[0]
    if distances[1] == -denominator:
        return -v
    return min(max((2 * v * distances[1] + denominator) // (2 * denominator), -bound), bound)


@compiled
def _start(
    vy: int, vx: int, top: int, left: int, height: int, width: int, margin: int, plane: int, full_width: int
) -> int:
    """Index of the sample that the block's first one is displaced to; beyond the margin all see the repeated border."""
    row = min(max(top + (vy >> 2), -margin), height + margin - 8) + margin
    column = min(max(left + (vx >> 2), -margin), width + margin - 8) + margin
    return ((vx & 3) * 4 + (vy & 3)) * plane + row * full_width + column
