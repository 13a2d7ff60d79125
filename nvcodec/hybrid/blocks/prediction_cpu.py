"""Prediction of a block from the samples around it, in compiled code. The directions are those of H.265 (8.4.4.2), with
the boundary filter of H.266 (8.4.5.2.15) for planar, DC, horizontal and vertical."""

from __future__ import annotations

import numpy as np

from nvcodec.core.compiled import compiled
from nvcodec.hybrid.blocks.layout import DC, HORIZONTAL, PLANAR, VERTICAL

__all__ = ["predict", "predict_linear", "smoothed", "surroundings", "wants_smoothing"]

_ANGLES = np.array(
    [0, 0, 32, 26, 21, 17, 13, 9, 5, 2, 0, -2, -5, -9, -13, -17, -21, -26, -32, -26, -21, -17, -13, -9, -5, -2, 0, 2, 5,
     9, 13, 17, 21, 26, 32]
)  # fmt: skip
"""Of each mode, in 1/32 of a sample for a row or column."""
_INVERSE = np.array([0, -4096, -1638, -910, -630, -482, -390, -315, -256])
"""256 * 32 over an angle below 0, by how many modes it lies from the axis."""
_MAX, _GREY = 1023, 512


@compiled
def surroundings(plane, order, place, top, left, side, unit, line):
    """Fill ``line`` (4 * side + 1,) with the samples around a block: from the lowest on its left, over the corner at
    2 * side, to the rightmost above.

    ``order``: the place of each unit of ``unit`` x ``unit`` samples of the plane in the order of decoding; those before
    ``place`` are known. What is not is the last that was known before it in the line, or the first one that is.
    """
    rows, columns = order.shape
    known = -1
    total = 4 * side + 1
    k = 0
    while k < total:
        if k < 2 * side:
            y, x, run = top + 2 * side - 1 - k, left - 1, unit
        elif k == 2 * side:
            y, x, run = top - 1, left - 1, 1
        else:
            y, x, run = top - 1, left + k - 2 * side - 1, unit
        is_known = y >= 0 and x >= 0 and y // unit < rows and x // unit < columns
        if is_known:
            is_known = order[y // unit, x // unit] < place
        if is_known:
            for i in range(run):
                if k < 2 * side:
                    line[k + i] = plane[y - i, x]
                else:
                    line[k + i] = plane[y, x + i]
            if known < 0:
                for i in range(k):
                    line[i] = line[k]
            known = k + run - 1
        elif known >= 0:
            for i in range(run):
                line[k + i] = line[known]
        k += run
    if known < 0:
        line[:total] = _GREY


@compiled
def smoothed(line, side, out):
    """``line`` through a filter of 1, 2, 1."""
    last = 4 * side
    out[0], out[last] = line[0], line[last]
    for k in range(1, last):
        out[k] = (line[k - 1] + 2 * line[k] + line[k + 1] + 2) >> 2


@compiled
def wants_smoothing(mode, log2):
    """Whether luma is predicted from a smoothed line."""
    if mode == DC or log2 == 2:
        return False
    distance = min(abs(mode - HORIZONTAL), abs(mode - VERTICAL))
    return distance > (7, 1, 0)[log2 - 3]


@compiled
def predict(mode, line, log2, out):
    """Fill ``out`` (side, side or more) with the prediction of a block by ``mode``. ``line``: see ``surroundings``."""
    side = 1 << log2
    corner = 2 * side
    if mode == PLANAR:
        right, below = line[corner + 1 + side], line[corner - 1 - side]
        for y in range(side):
            for x in range(side):
                out[y, x] = (
                    (side - 1 - x) * line[corner - 1 - y] + (x + 1) * right
                    + (side - 1 - y) * line[corner + 1 + x] + (y + 1) * below + side
                ) >> (log2 + 1)  # fmt: skip
    elif mode == DC:
        total = side
        for k in range(side):
            total += line[corner + 1 + k] + line[corner - 1 - k]
        out[:side, :side] = total >> (log2 + 1)
    else:
        _predict_along(mode, line, side, out)
    if mode in (PLANAR, DC, HORIZONTAL, VERTICAL):
        _blend_borders(mode, line, log2, out)


@compiled
def _predict_along(mode, line, side, out):
    angle = _ANGLES[mode]
    corner = 2 * side
    is_vertical = mode >= 18
    forward = 1 if is_vertical else -1
    start = side
    reference = np.empty(3 * side + 2, np.int32)
    for k in range(2 * side + 1):
        reference[start + k] = line[corner + forward * k]
    if angle < 0:
        inverse = _INVERSE[min(abs(mode - HORIZONTAL), abs(mode - VERTICAL))]
        for k in range(-1, (side * angle) >> 5, -1):
            reference[start + k] = line[corner - forward * ((k * inverse + 128) >> 8)]
    for j in range(side):
        whole, part = ((j + 1) * angle) >> 5, ((j + 1) * angle) & 31
        for i in range(side):
            at = start + i + whole + 1
            if part:
                value = ((32 - part) * reference[at] + part * reference[at + 1] + 16) >> 5
            else:
                value = reference[at]
            if is_vertical:
                out[j, i] = value
            else:
                out[i, j] = value


@compiled
def _blend_borders(mode, line, log2, out):
    """Towards its borders the prediction goes over into the samples there."""
    side = 1 << log2
    corner = 2 * side
    scale = (2 * log2 - 2) >> 2
    for y in range(side):
        by_y = 32 >> min((2 * y) >> scale, 31)
        for x in range(side):
            by_x = 32 >> min((2 * x) >> scale, 31)
            if by_x == 0 and by_y == 0:
                break
            above, beside = line[corner + 1 + x], line[corner - 1 - y]
            if mode == VERTICAL:
                value = out[y, x] + ((by_x * (beside - line[corner]) + 32) >> 6)
            elif mode == HORIZONTAL:
                value = out[y, x] + ((by_y * (above - line[corner]) + 32) >> 6)
            else:
                value = (by_x * beside + by_y * above + (64 - by_x - by_y) * out[y, x] + 32) >> 6
            out[y, x] = min(max(value, 0), _MAX)


@compiled
def predict_linear(luma, plane, top, left, side, out):
    """Fill ``out`` with the function of the luma samples of each chroma sample, that fits best in the row above and in
    the column on the left of the block at (top, left) of the chroma ``plane``."""
    count, sum_x, sum_y, sum_xx, sum_xy = 0, 0, 0, 0, 0
    for part in range(2):
        if (top if part == 0 else left) == 0:
            continue
        for k in range(side):
            y, x = (top - 1, left + k) if part == 0 else (top + k, left - 1)
            a = _mean_luma(luma, y, x)
            b = plane[y, x]
            count, sum_x, sum_y, sum_xx, sum_xy = count + 1, sum_x + a, sum_y + b, sum_xx + a * a, sum_xy + a * b
    slope, mean_x, mean_y = 0, 0, _GREY
    if count:
        spread = count * sum_xx - sum_x * sum_x
        if spread > 0:
            slope = min(max(((count * sum_xy - sum_x * sum_y) * 256) // spread, -1024), 1024)
        mean_x, mean_y = (sum_x + count // 2) // count, (sum_y + count // 2) // count
    for y in range(side):
        for x in range(side):
            value = mean_y + ((slope * (_mean_luma(luma, top + y, left + x) - mean_x) + 128) >> 8)
            out[y, x] = min(max(value, 0), _MAX)


@compiled
def _mean_luma(luma, y, x):
    """Of the four luma samples of the chroma sample at (y, x)."""
    total = np.int64(luma[2 * y, 2 * x]) + luma[2 * y, 2 * x + 1] + luma[2 * y + 1, 2 * x] + luma[2 * y + 1, 2 * x + 1]
    return (total + 2) >> 2
