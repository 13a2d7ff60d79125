"""From the symbols of a frame to its samples, in compiled code."""

from __future__ import annotations

import numpy as np

from nvcodec.core.compiled import compiled
from nvcodec.hybrid.blocks.layout import (
    CHROMA_LINEAR,
    CHROMA_LIST,
    COMPENSATED,
    DC,
    HORIZONTAL,
    PLANAR,
    SKIPPED,
    VERTICAL,
)
from nvcodec.hybrid.blocks.prediction_cpu import predict, predict_linear, smoothed, surroundings, wants_smoothing
from nvcodec.hybrid.blocks.transform_cpu import add_inverse

__all__ = ["chroma_mode", "predict_chroma", "predict_luma", "rebuild_planes"]

_LISTED = np.array([PLANAR, VERTICAL, HORIZONTAL, DC])
_OTHER = 34
"""In the place of the listed mode that is luma's."""


@compiled
def chroma_mode(choice, luma_mode):
    """The mode that a choice stands for, where it is not CHROMA_LINEAR."""
    if choice < CHROMA_LIST:
        return luma_mode
    mode = _LISTED[choice - CHROMA_LIST]
    return _OTHER if mode == luma_mode else mode


@compiled
def predict_luma(mode, plane, order, row, column, log2, line, other, out):
    """``row``, ``column``: of the first 4x4 unit. ``line``, ``other``: room for 129 samples each."""
    side = 1 << log2
    surroundings(plane, order, order[row, column], 4 * row, 4 * column, side, 4, line)
    if wants_smoothing(mode, log2):
        smoothed(line, side, other)
        predict(mode, other, log2, out)
    else:
        predict(mode, line, log2, out)


@compiled
def predict_chroma(choice, luma_mode, plane, luma, order, row, column, log2, line, out):
    """Of a node of 2**log2 luma samples."""
    side = 1 << (log2 - 1)
    if choice == CHROMA_LINEAR:
        predict_linear(luma, plane, 2 * row, 2 * column, side, out)
    else:
        surroundings(plane, order, order[row, column], 2 * row, 2 * column, side, 2, line)
        predict(chroma_mode(choice, luma_mode), line, log2 - 1, out)


@compiled
def _rebuild_luma(mode, levels, plane, order, row, column, log2, step, line, other, block):
    top, left, side = 4 * row, 4 * column, 1 << log2
    if mode == SKIPPED:
        return
    if mode == COMPENSATED:
        block[:side, :side] = plane[top : top + side, left : left + side]
    else:
        predict_luma(mode, plane, order, row, column, log2, line, other, block)
    add_inverse(levels, top, left, log2, step, block)
    plane[top : top + side, left : left + side] = block[:side, :side]


@compiled
def rebuild_planes(sizes, modes, choices, offsets, levels, planes, order, gain, steps):
    """Fill ``planes``, int32, from ``layout.BlockSymbols``; ``levels`` and ``planes``: Y, U and V,
    see ``layout.BlockLayout.unpacked``. Before, ``planes`` hold what other frames predict. ``order``: of 4x4 luma
    units. ``gain``: index of the frame's quantiser step in ``steps``, which has one for each index, of luma and of
    chroma, (N, 2)."""
    line, other, block = np.empty(129, np.int32), np.empty(129, np.int32), np.empty((32, 32), np.int32)
    rows, columns = sizes.shape
    root_columns = (columns + 7) >> 3
    where = np.empty((root_columns * ((rows + 7) >> 3) * 64, 2), np.int32)
    where[:] = -1
    for row in range(rows):
        for column in range(columns):
            where[order[row, column]] = row, column
    for place in range(len(where)):
        row, column = where[place]
        if row < 0:
            continue
        log2 = sizes[row, column]
        units = 1 << (log2 - 2)
        luma_step, chroma_step = steps[min(max(gain + offsets[row >> 3, column >> 3], 0), len(steps) - 1)]
        if (row | column) & (units - 1) == 0:
            _rebuild_luma(
                modes[row, column], levels[0], planes[0], order, row, column, log2, luma_step, line, other, block
            )
            if log2 == 2:
                if not (row & 1 and column & 1):
                    continue
                row, column, log2 = row - 1, column - 1, 3
            mode, choice, side = modes[row, column], choices[row >> 1, column >> 1], 1 << (log2 - 1)
            if mode == SKIPPED:
                continue
            for c in range(1, 3):
                if mode == COMPENSATED:
                    block[:side, :side] = planes[c, 2 * row : 2 * row + side, 2 * column : 2 * column + side]
                else:
                    predict_chroma(choice, mode, planes[c], planes[0], order, row, column, log2, line, block)
                add_inverse(levels[c], 2 * row, 2 * column, log2 - 1, chroma_step, block)
                planes[c, 2 * row : 2 * row + side, 2 * column : 2 * column + side] = block[:side, :side]
