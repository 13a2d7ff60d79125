"""Rate-distortion search of a frame of blocks, in compiled code: quadtree, modes and levels with the lowest cost.

Every node is tried as one block and, if that has levels or more is to be tried, as four. The modes of a block are
sifted by the Hadamard transform of what they leave; the best of them are coded, with levels that are chosen by their
cost, too, and the exact bits by the contexts as they stand where the root of the quadtree begins.
"""

from __future__ import annotations

import numpy as np

from nvcodec.core.compiled import compiled, compiled_loosely
from nvcodec.hybrid.blocks.bins_cpu import BITS, COST, PRICE_BITS, STEP_BEFORE, WRITE, price_of
from nvcodec.hybrid.blocks.contexts import CODED, LAST
from nvcodec.hybrid.blocks.layout import CHROMA_MODES, COMPENSATED, MODES, SKIPPED, scans
from nvcodec.hybrid.blocks.prediction_cpu import predict, smoothed, surroundings, wants_smoothing
from nvcodec.hybrid.blocks.rebuild_cpu import predict_chroma
from nvcodec.hybrid.blocks.syntax_cpu import (
    code_chroma_mode,
    code_coordinate,
    code_kind,
    code_mode,
    code_residual,
    code_root,
    level_contexts,
    likely_modes,
    split_context,
)
from nvcodec.hybrid.blocks.transform_cpu import add_inverse, matrices

__all__ = ["search_picture"]

_HADAMARD_SHARE = np.float32(0.6)
"""Of the square root of lambda over a sample's weight: price of a bit in sums of Hadamard coefficients."""
_UNARY = 12
_FAR = np.float32(1e30)


_SCANS = scans()
_REAL_MATRICES = np.stack(
    [rows / 2.0**13 * np.sqrt(2 / (4 << n)) for n, rows in enumerate(matrices().astype(np.float64))]
).astype(np.float32)
"""Orthonormal cosine transforms of 4, 8, 16 and 32 samples."""
_PRICE = np.float32(2.0**-PRICE_BITS)


@compiled
def _bits(coder, context, bit):
    return np.float32(price_of(coder, context, bit)) * _PRICE


@compiled_loosely
def _hadamard(block, top, left, side, room):
    """Sum of the magnitudes of the Hadamard transform of ``side`` (4 or 8) samples squared, in the scale of samples."""
    for y in range(side):
        for x in range(side):
            room[y, x] = block[top + y, left + x]
    step = 1
    while step < side:
        for y in range(side):
            for x in range(side):
                if x & step == 0:
                    a, b = room[y, x], room[y, x + step]
                    room[y, x], room[y, x + step] = a + b, a - b
        for y in range(side):
            if y & step == 0:
                for x in range(side):
                    a, b = room[y, x], room[y + step, x]
                    room[y, x], room[y + step, x] = a + b, a - b
        step *= 2
    total = 0
    for y in range(side):
        for x in range(side):
            total += abs(room[y, x])
    return np.float32(total) / np.float32(side)


@compiled_loosely
def _forward(block, log2, half, out):
    """The orthonormal cosine transform of ``block``."""
    side, matrix = 1 << log2, _REAL_MATRICES[log2 - 2]
    for k in range(side):
        for x in range(side):
            half[k, x] = 0
        for y in range(side):
            factor = matrix[k, y]
            for x in range(side):
                half[k, x] += factor * block[y, x]
    for y in range(side):
        for k in range(side):
            total = np.float32(0)
            for x in range(side):
                total += matrix[k, x] * half[y, x]
            out[y, k] = total


@compiled_loosely
def _level_bits(size, above_one, above_two, rest, coder):
    """Of a level that is not 0, with its sign."""
    bits = np.float32(1) + _bits(coder, above_one, int(size > 1))
    if size == 1:
        return bits
    bits += _bits(coder, above_two, int(size > 2))
    if size == 2:
        return bits
    size -= 3
    for k in range(min(size, _UNARY)):
        bits += _bits(coder, rest + min(k, 7), 1)
    if size < _UNARY:
        return bits + _bits(coder, rest + min(size, 7), 0)
    size -= _UNARY - 1
    length = 0
    while size >> (length + 1):
        length += 1
    return bits + np.float32(2 * length + 1)


@compiled_loosely
def _quantise(coefficients, log2, step, weight, lmbda, chroma, coded_context, levels, coder, room):
    """Fill ``levels`` (32, 32) from its corner on with the levels of lowest cost. ``weight``: of squared errors.
    ``room``: float32 (6, 1024)."""
    side = 1 << log2
    levels[:side, :side] = 0
    scan = _SCANS[log2 - 2]
    without, present_bits, costs = room[0], room[1], room[2]
    first = -1
    zeros = np.float32(0)
    for k in range(side * side - 1, -1, -1):
        y, x = scan[k, 0], scan[k, 1]
        size = abs(coefficients[y, x])
        without[k] = weight * size * size
        wanted = int(size / step + np.float32(0.5))
        if first < 0:
            zeros += without[k]
            if wanted == 0:
                continue
            first = k
            zeros -= without[k]
        present, above_one, above_two, rest = level_contexts(levels, 0, 0, side, y, x, chroma)
        absent_bits, there_bits = _bits(coder, present, 0), _bits(coder, present, 1)
        best, least = 0, without[k] + lmbda * absent_bits
        least_present = absent_bits
        for level in range(max(wanted - 1, 1), wanted + 1):
            rest_error = size - level * step
            cost = weight * rest_error * rest_error + lmbda * (
                there_bits + _level_bits(level, above_one, above_two, rest, coder)
            )
            if cost < least:
                best, least = level, cost
                least_present = there_bits
        levels[y, x] = -best if coefficients[y, x] < 0 else best
        costs[k] = least
        present_bits[k] = least_present
    if first < 0:
        return
    for value in range(side):
        for axis in range(2):
            coder[BITS] = 0
            code_coordinate(COST, value, LAST + 80 * chroma + 20 * (log2 - 2) + 10 * axis, log2, coder)
            room[3 + axis, value] = np.float32(coder[BITS]) * _PRICE
    run = np.float32(0)
    total = zeros
    for k in range(first + 1):
        run += costs[k]
        total += without[k]
    best, least = -1, total + lmbda * _bits(coder, coded_context, 0)
    coded_bits = _bits(coder, coded_context, 1)
    tail = zeros
    for k in range(first, -1, -1):
        y, x = scan[k, 0], scan[k, 1]
        if levels[y, x] != 0:
            cost = run - lmbda * present_bits[k] + tail + lmbda * (coded_bits + room[3, y] + room[4, x])
            if cost < least:
                best, least = k, cost
        run -= costs[k]
        tail += without[k]
    for k in range(best + 1, first + 1):
        levels[scan[k, 0], scan[k, 1]] = 0


@compiled_loosely
def _priced(lmbda, coder):
    """What the bins cost that were priced since the last call."""
    bits = np.float32(coder[BITS]) * _PRICE
    coder[BITS] = 0
    return lmbda * bits


@compiled_loosely
def _code_block(
    source, weights, top, left, log2, step, lmbda, chroma, coded_context, coder, prediction, levels, real, room
):
    """Code what ``prediction`` leaves of the block at (top, left) of ``source``; it becomes the reconstruction, and
    ``levels`` its levels, both from their corners on. The cost in squared errors and bits of the levels.

    ``real``: float32 (3, 32, 32), room; ``room``: see ``_quantise``."""
    side = 1 << log2
    weight = np.float32(0)
    for y in range(side):
        for x in range(side):
            real[0, y, x] = source[top + y, left + x] - prediction[y, x]
            weight += weights[top + y, left + x]
    weight /= side * side
    _forward(real[0], log2, real[1], real[2])
    _quantise(real[2], log2, np.float32(step), weight, lmbda, chroma, coded_context, levels, coder, room)
    add_inverse(levels, 0, 0, log2, step, prediction)
    error = np.float32(0)
    for y in range(side):
        for x in range(side):
            off = np.float32(source[top + y, left + x] - prediction[y, x])
            error += weights[top + y, left + x] * off * off
    coder[BITS] = 0
    code_residual(COST, chroma, coded_context, levels, 0, 0, log2, coder)
    return error + _priced(lmbda, coder)


@compiled_loosely
def _has_levels(levels, top, left, side):
    for y in range(top, top + side):
        for x in range(left, left + side):
            if levels[y, x] != 0:
                return 1
    return 0


@compiled_loosely
def _search_luma(row, column, log2, source, weights, plane, all_levels, modes, order, step, lmbda, coder, trials):
    """The best mode and levels of a luma block, which is rebuilt in ``plane``. Its cost."""
    side, top, left = 1 << log2, 4 * row, 4 * column
    line, smooth = np.empty(129, np.int32), np.empty(129, np.int32)
    block, best_block, levels = (
        np.empty((32, 32), np.int32), np.empty((32, 32), np.int32), np.zeros((32, 32), np.int32)
    )  # fmt: skip
    real, room, small = np.empty((3, 32, 32), np.float32), np.empty((6, 1024), np.float32), np.empty((8, 8), np.int32)
    surroundings(plane, order, order[row, column], top, left, side, 4, line)
    smoothed(line, side, smooth)
    first, second, third = likely_modes(modes, row, column)
    weight = np.float32(0)
    for y in range(side):
        for x in range(side):
            weight += weights[top + y, left + x]
    weight = weight / (side * side)
    price = _HADAMARD_SHARE * np.sqrt(lmbda / max(weight, np.float32(1e-9)))
    scores = np.empty(MODES, np.float32)
    part = min(side, 8)
    difference = levels
    for mode in range(MODES):
        predict(mode, smooth if wants_smoothing(mode, log2) else line, log2, block)
        for y in range(side):
            for x in range(side):
                difference[y, x] = source[top + y, left + x] - block[y, x]
        total = np.float32(0)
        for y in range(0, side, part):
            for x in range(0, side, part):
                total += _hadamard(difference, y, x, part, small)
        bits = 1 if mode == first else 2 if mode in (second, third) else 6
        scores[mode] = total + price * bits
    least, best_mode = _FAR, 0
    for n in range(trials[log2 - 2] + 2):
        if n < trials[log2 - 2]:
            mode = int(np.argmin(scores))
        else:
            mode = first if n == trials[log2 - 2] else second
        if scores[mode] >= _FAR:
            continue
        scores[mode] = _FAR
        predict(mode, smooth if wants_smoothing(mode, log2) else line, log2, block)
        cost = _code_block(
            source, weights, top, left, log2, step, lmbda, 0, CODED + log2 - 2, coder, block, levels, real, room
        )
        code_mode(COST, mode, modes, row, column, coder)
        cost += _priced(lmbda, coder)
        if cost < least:
            least, best_mode = cost, mode
            best_block[:side, :side] = block[:side, :side]
            all_levels[top : top + side, left : left + side] = levels[:side, :side]
    plane[top : top + side, left : left + side] = best_block[:side, :side]
    units = 1 << (log2 - 2)
    modes[row : row + units, column : column + units] = best_mode
    return least


@compiled_loosely
def _search_chroma(row, column, log2, source, weights, planes, levels, modes, choices, order, step, lmbda, coder):
    """The best chroma mode and levels of a node of 2**log2 luma samples. Their cost."""
    log2 -= 1
    side, top, left = 1 << log2, 2 * row, 2 * column
    line, block, found = np.empty(129, np.int32), np.empty((2, 32, 32), np.int32), np.zeros((2, 32, 32), np.int32)
    kept = np.empty((2, 32, 32), np.int32)
    real, room = np.empty((3, 32, 32), np.float32), np.empty((6, 1024), np.float32)
    least, best = _FAR, 0
    for choice in range(CHROMA_MODES):
        coder[BITS] = 0
        code_chroma_mode(COST, choice, coder)
        cost, context = _priced(lmbda, coder), CODED + 4 + log2 - 2
        for c in range(2):
            predict_chroma(
                choice, modes[row, column], planes[1 + c], planes[0], order, row, column, log2 + 1, line, block[c]
            )
            cost += _code_block(
                source[1 + c], weights, top, left, log2, step, lmbda, 1, context, coder, block[c], found[c], real, room
            )
            context = CODED + 7 + log2 - 2 + 3 * _has_levels(found[0], 0, 0, side)
        if cost < least:
            least, best = cost, choice
            kept[:, :side, :side] = block[:, :side, :side]
            levels[1:, top : top + side, left : left + side] = found[:, :side, :side]
    planes[1:, top : top + side, left : left + side] = kept[:, :side, :side]
    blocks = 1 << (log2 - 2)
    choices[row >> 1 : (row >> 1) + blocks, column >> 1 : (column >> 1) + blocks] = best
    return least


@compiled_loosely
def _copy_node(log2, row, column, from_planes, from_levels, to_planes, to_levels, to_row, to_column):
    """Copy samples and levels of a node of 2**log2 luma samples, whose first units are at these rows and columns."""
    for c in range(3):
        side = 1 << (log2 if c == 0 else log2 - 1)
        unit = 4 if c == 0 else 2
        top, left, to_top, to_left = unit * row, unit * column, unit * to_row, unit * to_column
        for i in range(side):
            for j in range(side):
                to_planes[c, to_top + i, to_left + j] = from_planes[c, top + i, left + j]
                to_levels[c, to_top + i, to_left + j] = from_levels[c, top + i, left + j]


@compiled_loosely
def _fill_node(log2, row, column, size, mode, choice, sizes, modes, choices):
    """Set what a node of 2**log2 luma samples in blocks of one kind is."""
    units = 1 << (log2 - 2)
    sizes[row : row + units, column : column + units] = size
    modes[row : row + units, column : column + units] = mode
    choices[row >> 1 : (row + units) >> 1, column >> 1 : (column + units) >> 1] = choice


@compiled_loosely
def _search_compensated(
    row, column, log2, source, weights, planes, levels, modes, luma_step, chroma_step, lmbda, coder, foreseen
):
    """A node predicted from other frames: what is left of it is coded, or skipped. Its cost."""
    block, found = np.empty((32, 32), np.int32), np.zeros((32, 32), np.int32)
    real, room = np.empty((3, 32, 32), np.float32), np.empty((6, 1024), np.float32)
    node, units = max(log2, 3), 1 << (max(log2, 3) - 2)
    coder[BITS] = 0
    modes[row : row + units, column : column + units] = SKIPPED
    code_kind(COST, row, column, log2, modes, True, coder)
    skipped = _priced(lmbda, coder)
    modes[row : row + units, column : column + units] = COMPENSATED
    code_kind(COST, row, column, log2, modes, True, coder)
    cost, is_coded = _priced(lmbda, coder), 0
    for part in range(4 if log2 == 2 else 1):
        side, top, left = 1 << log2, 4 * (row + part // 2), 4 * (column + part % 2)
        for i in range(side):
            for j in range(side):
                block[i, j] = foreseen[0, top + i, left + j]
                off = np.float32(source[0, top + i, left + j] - block[i, j])
                skipped += weights[0, top + i, left + j] * off * off
        cost += _code_block(
            source[0],
            weights[0],
            top,
            left,
            log2,
            luma_step,
            lmbda,
            0,
            CODED + log2 - 2,
            coder,
            block,
            found,
            real,
            room,
        )
        planes[0, top : top + side, left : left + side] = block[:side, :side]
        levels[0, top : top + side, left : left + side] = found[:side, :side]
        is_coded |= _has_levels(found, 0, 0, side)
    side, top, left, context = 1 << (node - 1), 2 * row, 2 * column, CODED + 4 + node - 3
    for c in range(1, 3):
        for i in range(side):
            for j in range(side):
                block[i, j] = foreseen[c, top + i, left + j]
                off = np.float32(source[c, top + i, left + j] - block[i, j])
                skipped += weights[1, top + i, left + j] * off * off
        cost += _code_block(
            source[c], weights[1], top, left, node - 1, chroma_step, lmbda, 1, context, coder, block, found, real, room
        )
        planes[c, top : top + side, left : left + side] = block[:side, :side]
        levels[c, top : top + side, left : left + side] = found[:side, :side]
        has_levels = _has_levels(found, 0, 0, side)
        context = CODED + 7 + node - 3 + 3 * has_levels
        is_coded |= has_levels
    if is_coded and cost < skipped:
        return cost
    modes[row : row + units, column : column + units] = SKIPPED
    _copy_node(node, row, column, foreseen, foreseen, planes, levels, row, column)
    for c in range(3):
        unit = 4 if c == 0 else 2
        levels[c, unit * row : unit * (row + units), unit * column : unit * (column + units)] = 0
    return skipped


@compiled_loosely
def _search_leaf(
    row,
    column,
    log2,
    source,
    weights,
    planes,
    levels,
    sizes,
    modes,
    choices,
    order,
    luma_step,
    chroma_step,
    lmbda,
    coder,
    foreseen,
    kept,
    trials,
):
    """A node as one block, or where log2 is 2 a node of 8x8 as four; its cost. ``kept``: room, (2, 3, 32, 32)."""
    refers, node = foreseen.shape[1] > 0, max(log2, 3)
    least, kind = _FAR, 0
    _fill_node(node, row, column, log2, 0, 0, sizes, modes, choices)
    if refers:
        least = _search_compensated(
            row, column, log2, source, weights, planes, levels, modes, luma_step, chroma_step, lmbda, coder, foreseen
        )
        kind = modes[row, column]
        if kind == SKIPPED:
            return least
        _copy_node(node, row, column, planes, levels, kept[0], kept[1], 0, 0)
        modes[row, column] = 0
    coder[BITS] = 0
    code_kind(COST, row, column, log2, modes, refers, coder)
    cost = _priced(lmbda, coder)
    for part in range(4 if log2 == 2 else 1):
        cost += _search_luma(
            row + part // 2, column + part % 2, log2, source[0], weights[0], planes[0], levels[0], modes, order,
            luma_step, lmbda, coder, trials,
        )  # fmt: skip
    if cost < least:
        cost += _search_chroma(
            row, column, node, source, weights[1], planes, levels, modes, choices, order, chroma_step, lmbda, coder
        )
    if cost < least:
        return cost
    _copy_node(node, 0, 0, kept[0], kept[1], planes, levels, row, column)
    _fill_node(node, row, column, log2, kind, 0, sizes, modes, choices)
    return least


@compiled_loosely
def _is_coded(row, column, log2, levels):
    side = 1 << log2
    return (
        _has_levels(levels[0], 4 * row, 4 * column, side)
        + _has_levels(levels[1], 2 * row, 2 * column, side // 2)
        + _has_levels(levels[2], 2 * row, 2 * column, side // 2)
    )


@compiled_loosely
def _search_root(
    root_row,
    root_column,
    source,
    weights,
    planes,
    levels,
    sizes,
    modes,
    choices,
    order,
    luma_step,
    chroma_step,
    lmbda,
    coder,
    foreseen,
    kept,
    trials,
):
    """The best way to code a root of the quadtree: every node as one block, then, where it pays to try, as four.

    The nodes on the way from the root down are those of ``log2`` .. 5, each with the part that it is at. ``kept``: room
    for a node of each size, (6, 2, 3, 32, 32).
    """
    rows, columns = np.zeros(6, np.int64), np.zeros(6, np.int64)
    parts, wholes, costs = np.zeros(6, np.int64), np.zeros(6, np.float32), np.zeros(6, np.float32)
    kept_modes, kept_choices = np.zeros(6, np.int32), np.zeros(6, np.int32)
    log2, size, entering, found = 5, 5, True, np.float32(0)
    rows[5], columns[5] = root_row, root_column
    while log2 <= 5:
        row, column, units = rows[log2], columns[log2], 1 << (log2 - 2)
        size = log2
        if entering:
            if row >= sizes.shape[0] or column >= sizes.shape[1]:
                found = np.float32(0)
                log2, entering = log2 + 1, False
                continue
            wholes[log2], costs[log2], parts[log2] = _FAR, 0, 0
            is_inside = row + units <= sizes.shape[0] and column + units <= sizes.shape[1]
            if is_inside:
                context = split_context(sizes, row, column, log2)
                wholes[log2] = lmbda * _bits(coder, context, 0)
                costs[log2] = lmbda * _bits(coder, context, 1)
            size = log2 if is_inside else 0
        else:
            costs[log2] += found
            parts[log2] += 1
            size = 0
        if size == 0 and log2 == 3:
            size = 2
        while size:
            cost = _search_leaf(
                row, column, size, source, weights, planes, levels, sizes, modes, choices, order, luma_step,
                chroma_step, lmbda, coder, foreseen, kept[2], trials,
            )  # fmt: skip
            if size == 2:
                costs[3] += cost
                break
            wholes[log2] += cost
            if log2 < 5 and not trials[4] and not _is_coded(row, column, log2, levels):
                break
            _copy_node(log2, row, column, planes, levels, kept[log2, 0], kept[log2, 1], 0, 0)
            kept_modes[log2], kept_choices[log2] = modes[row, column], choices[row >> 1, column >> 1]
            size = 2 if log2 == 3 else 0
        if size > 2 and log2 < 5:
            found = wholes[log2]
            log2, entering = log2 + 1, False
            continue
        if log2 > 3 and parts[log2] < 4 and costs[log2] < wholes[log2]:
            part = parts[log2]
            log2, entering = log2 - 1, True
            rows[log2], columns[log2] = row + units // 2 * (part // 2), column + units // 2 * (part % 2)
            continue
        found = costs[log2]
        if wholes[log2] <= found:
            found = wholes[log2]
            _copy_node(log2, 0, 0, kept[log2, 0], kept[log2, 1], planes, levels, row, column)
            _fill_node(log2, row, column, log2, kept_modes[log2], kept_choices[log2], sizes, modes, choices)
        log2, entering = log2 + 1, False


@compiled_loosely
def search_picture(
    source, weights, planes, levels, sizes, modes, choices, offsets, order, gain, steps, lmbda, coder, foreseen, trials
):
    """Fill in the symbols of a picture, and ``planes`` with what they come to.

    ``source``, ``foreseen``: int32, see ``layout.BlockLayout.unpacked``; ``foreseen`` is what other frames predict,
    without rows where there are none. ``weights``: float32 (2, rows, columns), of squared errors in luma and chroma.
    ``lmbda``: weighted squared error per bit. ``gain``, ``steps``, ``offsets``: see ``rebuild_cpu.rebuild_planes``; the
    offsets are given. ``trials``: how many modes of a block of 4, 8, 16, 32 samples are coded to see what they cost,
    and 1 to try the parts of nodes without levels, too. ``coder``: see ``bins_cpu.new_coder``; its probabilities are
    left as they are behind the picture.
    """
    coder[STEP_BEFORE] = 0
    kept = np.zeros((6, 2, 3, 32, 32), np.int32)
    for row in range(0, sizes.shape[0], 8):
        for column in range(0, sizes.shape[1], 8):
            luma_step, chroma_step = steps[min(max(gain + offsets[row >> 3, column >> 3], 0), len(steps) - 1)]
            _search_root(
                row, column, source, weights, planes, levels, sizes, modes, choices, order, luma_step, chroma_step,
                lmbda, coder, foreseen, kept, trials,
            )  # fmt: skip
            code_root(WRITE, row, column, sizes, modes, choices, offsets, levels, foreseen.shape[1] > 0, coder)
