"""The syntax of a frame of blocks, in compiled code: the same for reading, writing and pricing."""

from __future__ import annotations

import numpy as np

from nvcodec.core.compiled import compiled
from nvcodec.hybrid.blocks.bins_cpu import (
    COST,
    COUNT,
    FAILED,
    READ,
    STEP_BEFORE,
    STEP_NOW,
    STEP_PENDING,
    code_bin,
    code_plain,
)
from nvcodec.hybrid.blocks.contexts import (
    ABOVE_ONE,
    ABOVE_TWO,
    ANY,
    CHROMA,
    CODED,
    KIND,
    LAST,
    LIKELY,
    MODE,
    PRESENT,
    REST,
    SPLIT,
    STEP,
)
from nvcodec.hybrid.blocks.layout import CHROMA_LIST, COMPENSATED, LEVEL_BOUND, MODES, SKIPPED, STEP_BOUND, scans

__all__ = [
    "code_chroma_mode",
    "code_coordinate",
    "code_kind",
    "code_mode",
    "code_residual",
    "code_root",
    "code_roots",
    "level_contexts",
    "likely_modes",
    "split_context",
]

_SCANS = scans()
_GROUPS = np.array([0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7, 8, 8, 8, 8, 8, 8, 8, 8, 9, 9, 9, 9, 9, 9, 9, 9])
"""Of a coordinate of the last level."""
_GROUP_STARTS = np.array([0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32])
_GROUP_BITS = np.array([0, 0, 0, 0, 1, 1, 2, 2, 3, 3])
_UNARY = 12
"""Bins of what a level exceeds 3 by, before it goes on as an Exp-Golomb code."""
_PREFIX = 15
"""Most bins of the prefix of that code."""


@compiled
def likely_modes(modes, row, column):
    """Three modes that are likely for the block whose first unit is at (row, column)."""
    left = modes[row, column - 1] if column > 0 else 1
    above = modes[row - 1, column] if row > 0 else 1
    left, above = left if left < MODES else 1, above if above < MODES else 1
    if left == above:
        if left < 2:
            return 0, 1, 26
        return left, 2 + (left + 29) % 32, 2 + (left - 1) % 32
    if left != 0 and above != 0:
        return left, above, 0
    if left != 1 and above != 1:
        return left, above, 1
    return left, above, 26


@compiled
def code_mode(action, mode, modes, row, column, coder):
    """The mode of a luma block; returns it."""
    first, second, third = likely_modes(modes, row, column)
    is_likely = mode in (first, second, third)
    if code_bin(action, LIKELY, int(is_likely), coder):
        if not code_bin(action, LIKELY + 1, int(mode != first), coder):
            return first
        if not code_bin(action, LIKELY + 2, int(mode != second), coder):
            return second
        return third
    low, middle, high = min(first, second, third), first + second + third, max(first, second, third)
    middle -= low + high
    rest = mode - int(mode > low) - int(mode > middle) - int(mode > high)
    node = 1
    for k in range(5):
        bit = code_bin(action, MODE + node - 1, (rest >> (4 - k)) & 1, coder)
        node = 2 * node + bit
    rest = node - 32
    rest += int(rest >= low)
    rest += int(rest >= middle)
    rest += int(rest >= high)
    return rest


@compiled
def code_chroma_mode(action, choice, coder):
    """The choice of the chroma mode; returns it."""
    if not code_bin(action, CHROMA, int(choice != 0), coder):
        return 0
    if not code_bin(action, CHROMA + 1, int(choice != 1), coder):
        return 1
    node = 1
    for k in range(2):
        bit = code_bin(action, CHROMA + 1 + node, ((choice - CHROMA_LIST) >> (1 - k)) & 1, coder)
        node = 2 * node + bit
    return node - 4 + CHROMA_LIST


@compiled
def level_contexts(levels, top, left, side, y, x, chroma):
    """Contexts of a level by those of higher frequency around it: whether it is 0, above 1, above 2, and the rest."""
    total, count = 0, 0
    for k in range(5):
        dy = (0, 0, 1, 1, 2)[k]
        dx = (1, 2, 1, 0, 0)[k]
        if y + dy < side and x + dx < side:
            size = abs(levels[top + y + dy, left + x + dx])
            total += min(size, 5)
            count += int(size > 0)
    d = y + x
    zone = 0 if d == 0 else 1 if d == 1 else 2 if d < 5 else 3 if d < 10 else 4
    present = PRESENT + 25 * chroma + 5 * zone + min((total + 1) >> 1, 4)
    more = total - count
    zone = 0 if d == 0 else 1 if d < 3 else 2 if d < 10 else 3
    place = 20 * chroma + 5 * zone + min(more, 4)
    return present, ABOVE_ONE + place, ABOVE_TWO + place, REST + 32 * chroma + 8 * min(more >> 1, 3)


@compiled
def code_coordinate(action, value, context, log2, coder):
    last = _GROUPS[(1 << log2) - 1]
    group = _GROUPS[value]
    k = 0
    while k < last:
        if not code_bin(action, context + k, int(group > k), coder):
            break
        k += 1
    out = _GROUP_STARTS[k]
    for b in range(_GROUP_BITS[k] - 1, -1, -1):
        bit = code_plain(action, ((value - out) >> b) & 1 if action != READ else 0, coder)
        out += bit << b
    return out


@compiled
def _code_rest(action, rest, context, coder):
    """How far a level exceeds 3."""
    k = 0
    while k < _UNARY:
        if not code_bin(action, context + min(k, 7), int(rest > k), coder):
            return k
        k += 1
    rest = rest - _UNARY + 1
    length = 0
    while length < _PREFIX:
        if not code_plain(action, int(rest >> (length + 1) > 0), coder):
            break
        length += 1
    value = 1
    for b in range(length - 1, -1, -1):
        value = 2 * value + code_plain(action, (rest >> b) & 1, coder)
    return value - 1 + _UNARY


@compiled
def _code_step(action, coder):
    """How the quantiser step of a root differs from that of the frame, at its first block with levels."""
    difference = coder[STEP_NOW] - coder[STEP_BEFORE]
    size = 0
    if code_bin(action, STEP, int(difference != 0), coder):
        sign = code_plain(action, int(difference < 0), coder)
        size = 1
        while size < 2 * STEP_BOUND and code_bin(action, STEP + min(size, 7), int(abs(difference) > size), coder):
            size += 1
        size = -size if sign else size
    coder[STEP_PENDING] = 0
    coder[STEP_NOW] = coder[STEP_BEFORE] + size
    coder[STEP_BEFORE] = coder[STEP_NOW]
    if abs(coder[STEP_NOW]) > STEP_BOUND:
        coder[FAILED] = 1


@compiled
def code_residual(action, chroma, coded_context, levels, top, left, log2, coder):
    """The levels of one block, at (top, left) of ``levels``, which reading fills (0 before). Whether any is not 0."""
    side = 1 << log2
    last = -1
    if action != READ:
        for k in range(side * side - 1, -1, -1):
            if levels[top + _SCANS[log2 - 2, k, 0], left + _SCANS[log2 - 2, k, 1]] != 0:
                last = k
                break
    if not code_bin(action, coded_context, int(last >= 0), coder):
        return False
    if action != COST and coder[STEP_PENDING]:
        _code_step(action, coder)
    context = LAST + 80 * chroma + 20 * (log2 - 2)
    y, x = 0, 0
    if last >= 0:
        y, x = _SCANS[log2 - 2, last, 0], _SCANS[log2 - 2, last, 1]
    y = code_coordinate(action, y, context, log2, coder)
    x = code_coordinate(action, x, context + 10, log2, coder)
    if action == READ:
        last = 0
        while _SCANS[log2 - 2, last, 0] != y or _SCANS[log2 - 2, last, 1] != x:
            last += 1
    for k in range(last, -1, -1):
        y, x = _SCANS[log2 - 2, k, 0], _SCANS[log2 - 2, k, 1]
        level = levels[top + y, left + x]
        size = abs(level)
        present, above_one, above_two, rest = level_contexts(levels, top, left, side, y, x, chroma)
        if k < last and not code_bin(action, present, int(size > 0), coder):
            continue
        found = 1
        if code_bin(action, above_one, int(size > 1), coder):
            found = 2
            if code_bin(action, above_two, int(size > 2), coder):
                found = 3 + _code_rest(action, size - 3, rest, coder)
        sign = code_plain(action, int(level < 0), coder)
        if action == READ:
            levels[top + y, left + x] = -found if sign else found
        if found > LEVEL_BOUND or coder[FAILED]:
            coder[FAILED] = 1
            return True
    return True


@compiled
def code_kind(action, row, column, log2, modes, refers, coder):
    """What a node, whose blocks have 2**log2 samples, is: returns its mode, or 0 where each block has one of its own.
    ``refers``: whether there are other frames to predict from."""
    if not refers:
        return 0
    own, coded = 0, 0
    for part in range(2):
        if (column if part == 0 else row) == 0:
            continue
        mode = modes[row, column - 1] if part == 0 else modes[row - 1, column]
        own += int(mode < MODES)
        coded += int(mode != SKIPPED)
    mode = modes[row, column]
    if code_bin(action, KIND + own, int(mode < MODES), coder):
        return 0
    if code_bin(action, ANY + 3 * (log2 - 2) + coded, int(mode == COMPENSATED), coder):
        return COMPENSATED
    return SKIPPED


@compiled
def code_leaf(action, row, column, log2, modes, choices, levels, refers, coder):
    """A node that is not split, its first unit at (row, column); where log2 is 2 it is one of 8x8 in four blocks."""
    blocks, units = 4 if log2 == 2 else 1, 1 << (log2 - 2)
    kind = code_kind(action, row, column, log2, modes, refers, coder)
    if kind:
        modes[row : row + max(units, 2), column : column + max(units, 2)] = kind
    for part in range(blocks if kind != SKIPPED else 0):
        top, left = row + part // 2, column + part % 2
        if not kind:
            mode = code_mode(action, modes[top, left], modes, top, left, coder)
            modes[top : top + units, left : left + units] = mode
        code_residual(action, 0, CODED + log2 - 2, levels[0], 4 * top, 4 * left, log2, coder)
    log2 = max(log2, 3)
    half = 1 << (log2 - 3)
    if not kind:
        choice = code_chroma_mode(action, choices[row >> 1, column >> 1], coder)
        choices[row >> 1 : (row >> 1) + half, column >> 1 : (column >> 1) + half] = choice
    if kind == SKIPPED:
        return
    is_coded = code_residual(action, 1, CODED + 4 + log2 - 3, levels[1], 2 * row, 2 * column, log2 - 1, coder)
    code_residual(action, 1, CODED + 7 + log2 - 3 + 3 * int(is_coded), levels[2], 2 * row, 2 * column, log2 - 1, coder)


@compiled
def split_context(sizes, row, column, log2):
    """Context of whether a node of 2**log2 samples is split, by the blocks to its left and above."""
    smaller = 0
    if column > 0:
        smaller += int(sizes[row, column - 1] < log2)
    if row > 0:
        smaller += int(sizes[row - 1, column] < log2)
    return SPLIT + 3 * (log2 - 3) + smaller


@compiled
def code_root(action, row, column, sizes, modes, choices, offsets, levels, refers, coder):
    """One root of the quadtree, 32x32 luma samples from the unit (row, column) on, or what lies in the picture of it.

    A root without levels takes over the quantiser step of the one before."""
    coder[STEP_PENDING], coder[STEP_NOW] = 1, offsets[row >> 3, column >> 3]
    stack = np.zeros((16, 3), np.int64)
    stack[0] = row, column, 5
    height = 1
    while height:
        height -= 1
        top, left, log2 = stack[height]
        units = 1 << (log2 - 2)
        if top >= sizes.shape[0] or left >= sizes.shape[1]:
            continue
        is_split = True
        if top + units <= sizes.shape[0] and left + units <= sizes.shape[1]:
            is_split = code_bin(action, split_context(sizes, top, left, log2), int(sizes[top, left] < log2), coder) == 1
        if not is_split or log2 == 3:
            sizes[top : top + units, left : left + units] = 2 if is_split else log2
            code_leaf(action, top, left, 2 if is_split else log2, modes, choices, levels, refers, coder)
        else:
            for part in range(3, -1, -1):
                stack[height] = top + units // 2 * (part // 2), left + units // 2 * (part % 2), log2 - 1
                height += 1
        if coder[FAILED]:
            return
    offsets[row >> 3, column >> 3] = coder[STEP_BEFORE]


@compiled
def code_roots(action, sizes, modes, choices, offsets, levels, refers, coder):
    """All roots of a frame, in raster order; see ``layout.BlockSymbols`` and ``bins_cpu.code_bin``."""
    coder[FAILED], coder[COUNT], coder[STEP_BEFORE] = 0, 0, 0
    for row in range(0, sizes.shape[0], 8):
        for column in range(0, sizes.shape[1], 8):
            code_root(action, row, column, sizes, modes, choices, offsets, levels, refers, coder)
            if coder[FAILED]:
                return
