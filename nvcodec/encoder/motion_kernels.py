"""The motion search block by block, in compiled code.

Everything here works on plain arrays. Vectors are quarter luma samples, (y, x). A block has 8x8 luma samples; a cell of
motion level k covers 2**k x 2**k blocks. A correction is the vector, or for two references the two vectors, that the
grid adds to the predicted motion. Errors are squared 8-bit luma errors.
"""

from __future__ import annotations

import numpy as np

from nvcodec.core.compiled import compiled_loosely
from nvcodec.motion.levels import BLEND_CHANNEL, SYMBOL_BOUND
from nvcodec.motion.prediction import MERGE_SYMBOLS, VECTOR_BOUND
from nvcodec.motion.warp import BLOCK, MARGIN, OWN_SHARE

__all__ = ["expand_cells", "match_blocks", "polish_matches", "refine_overlapped", "search_cells"]

_HALF = BLOCK // 2
_REGION = 2 * BLOCK
"""Side of what a block's vector has a part in: the block and half a block around it."""
_CANDIDATES = len(MERGE_SYMBOLS)
_MERGE_SYMBOLS = np.array(MERGE_SYMBOLS, np.int64)
_SHARE = np.array(OWN_SHARE[BLOCK], np.float32)
_DIRECTIONS = np.array([(-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)])
_ERROR_UNIT = np.float32(1 / 16)
"""10-bit squared error to 8-bit."""
_BLENDS = np.array([0, 1, -1])
_FAR = np.float32(1e30)


@compiled_loosely
def match_blocks(wanted, there, predicted, reach, quarters, log_price, fields):
    """The whole-sample vector of each block that matches best, by itself and with the eight blocks around it.

    ``wanted``: (4 rows, 4 columns) of the working domain. ``there``: the same of the reference, ``reach`` more on every
    side. ``predicted``: (2, rows, columns); a vector away from it pays ``log_price[distance]``. ``quarters``: quarter
    luma samples in a sample of the working domain. ``fields``: (2, 2, rows, columns), the result, blocks alone first.
    """
    rows, columns = predicted.shape[1:]
    width = 4 * columns
    sums = np.zeros((rows + 2, columns + 2), np.float32)
    across = np.zeros((rows + 2, columns), np.float32)
    line = np.zeros(width, np.float32)
    least = np.full((2, rows, columns), _FAR, np.float32)
    for dy in range(2 * reach + 1):
        for dx in range(2 * reach + 1):
            for i in range(rows):
                line[:] = 0
                for y in range(4 * i, 4 * i + 4):
                    for x in range(width):
                        line[x] += abs(wanted[y, x] - there[y + dy, x + dx])
                for j in range(columns):
                    sums[i + 1, j + 1] = line[4 * j] + line[4 * j + 1] + line[4 * j + 2] + line[4 * j + 3]
            for i in range(1, rows + 1):
                for j in range(columns):
                    across[i, j] = sums[i, j] + sums[i, j + 1] + sums[i, j + 2]
            vy, vx = (dy - reach) * quarters, (dx - reach) * quarters
            for i in range(rows):
                for j in range(columns):
                    price = log_price[abs(vy - predicted[0, i, j]) + abs(vx - predicted[1, i, j])]
                    alone = sums[i + 1, j + 1] + price
                    if alone < least[0, i, j]:
                        least[0, i, j] = alone
                        fields[0, 0, i, j], fields[0, 1, i, j] = vy, vx
                    around = across[i, j] + across[i + 1, j] + across[i + 2, j] + price
                    if around < least[1, i, j]:
                        least[1, i, j] = around
                        fields[1, 0, i, j], fields[1, 1, i, j] = vy, vx


@compiled_loosely
def _start(vy, vx, top, left, size, height, width):
    """Index of the sample in an interpolated plane that the one at (top, left) is displaced to; far outside the picture
    all see the repeated border."""
    full_width = width + 2 * MARGIN
    row = min(max(top + (vy >> 2), -MARGIN), height + MARGIN - size) + MARGIN
    column = min(max(left + (vx >> 2), -MARGIN), width + MARGIN - size) + MARGIN
    return (((vx & 3) * 4 + (vy & 3)) * (height + 2 * MARGIN) + row) * full_width + column


@compiled_loosely
def _scaled(v, numerator, denominator):
    """As ``scale_vectors``; ``denominator`` > 0."""
    return min(max((2 * v * numerator + denominator) // (2 * denominator), -VECTOR_BOUND), VECTOR_BOUND)


@compiled_loosely
def _clipped(v):
    return min(max(v, -VECTOR_BOUND), VECTOR_BOUND)


@compiled_loosely
def _one_error(plane, start, stride, target, top, left, most):
    """Squared error of a block; of its upper half alone where that is beyond ``most``."""
    total = np.float32(0)
    for part in range(0, BLOCK, _HALF):
        for y in range(part, part + _HALF):
            for x in range(BLOCK):
                e = plane[start + y * stride + x] - target[top + y, left + x]
                total += e * e
        if total * _ERROR_UNIT > most:
            break
    return total * _ERROR_UNIT


@compiled_loosely
def _mean_error(first, start0, second, start1, stride, target, top, left, most):
    """The same of the mean of two blocks."""
    total = np.float32(0)
    half = np.float32(0.5)
    for part in range(0, BLOCK, _HALF):
        for y in range(part, part + _HALF):
            for x in range(BLOCK):
                place = y * stride + x
                e = (first[start0 + place] + second[start1 + place]) * half - target[top + y, left + x]
                total += e * e
        if total * _ERROR_UNIT > most:
            break
    return total * _ERROR_UNIT


@compiled_loosely
def _worth(error, knee):
    """What an error of the prediction will cost once the residual has mended it."""
    return error if error < knee else knee * (np.float32(1) + np.log(error / knee))


@compiled_loosely
def _error_worth(cost, knee):
    """Inverse of ``_worth``."""
    return cost if cost < knee else knee * np.exp(min(cost / knee - np.float32(1), np.float32(60)))


@compiled_loosely
def polish_matches(plane, height, width, target, log_price, steps, fields):
    """Move the vectors of ``fields``, (2, rows, columns), to the nearest minimum of the squared error of each block."""
    rows, columns = fields.shape[1:]
    stride = width + 2 * MARGIN
    for i in range(rows):
        for j in range(columns):
            from_y, from_x = fields[0, i, j], fields[1, i, j]
            best_y, best_x = from_y, from_x
            start = _start(best_y, best_x, BLOCK * i, BLOCK * j, BLOCK, height, width)
            least = _one_error(plane, start, stride, target, BLOCK * i, BLOCK * j, _FAR)
            for step in steps:
                centre_y, centre_x = best_y, best_x
                for d in range(len(_DIRECTIONS)):
                    y, x = centre_y + step * _DIRECTIONS[d, 0], centre_x + step * _DIRECTIONS[d, 1]
                    start = _start(y, x, BLOCK * i, BLOCK * j, BLOCK, height, width)
                    cost = _one_error(plane, start, stride, target, BLOCK * i, BLOCK * j, least)
                    cost += log_price[abs(y - from_y) + abs(x - from_x)]
                    if cost < least:
                        least, best_y, best_x = cost, y, x
            fields[0, i, j], fields[1, i, j] = best_y, best_x


@compiled_loosely
def _base(coarser, m, c, i, j):
    """Component ``c`` of what merge candidate ``m`` brings to cell (i, j), see ``MERGE_SYMBOLS``."""
    y, x = i >> 1, j >> 1
    if m & 1:
        y = min(max(y + 2 * (i & 1) - 1, 0), coarser.shape[1] - 1)
    if m & 2:
        x = min(max(x + 2 * (j & 1) - 1, 0), coarser.shape[2] - 1)
    return coarser[c, y, x]


@compiled_loosely
def _candidate_of(symbol):
    """Which merge candidate a merge symbol names."""
    if symbol == 0:
        return 0
    if symbol == 1:
        return 1
    return 2 if symbol == -1 else 3


@compiled_loosely
def expand_cells(symbols, coarser, merges, totals):
    """The corrections, (2 or 4, rows, columns), that the symbols of a level come to; ``coarser``: those of the next
    coarser level. ``merges``: whether this level has a merge choice."""
    for i in range(totals.shape[1]):
        for j in range(totals.shape[2]):
            for c in range(totals.shape[0]):
                totals[c, i, j] = symbols[c, i, j]
                if merges:
                    m = _candidate_of(symbols[totals.shape[0], i, j])
                    totals[c, i, j] += _base(coarser, m, c, i, j)


@compiled_loosely
def _neighbour_sum(symbols, c, i, j):
    """Sum of the eight neighbours, the border repeats."""
    rows, columns = symbols.shape[1:]
    total = -symbols[c, i, j]
    for dy in range(-1, 2):
        for dx in range(-1, 2):
            total += symbols[c, min(max(i + dy, 0), rows - 1), min(max(j + dx, 0), columns - 1)]
    return total


@compiled_loosely
def _symbol_bits(symbol, quarters, scale, around, laplace, near):
    """Bits of a symbol by the context model (location ``quarters``), or, beside others, by how much it is like them."""
    bits = laplace[scale, min(abs(4 * symbol - quarters), laplace.shape[1] - 1)]
    if around != 0:
        bits = min(bits, near[min(abs(8 * symbol - around), len(near) - 1)])
    return bits


@compiled_loosely
def _merge_bits(symbol, quarters, scale, laplace, most):
    bits = laplace[scale, min(abs(4 * symbol - quarters), laplace.shape[1] - 1)]
    return bits if symbol == 0 else min(bits, most + abs(symbol))


@compiled_loosely
def _cheapest(wanted, coarser, merges, i, j, location, scale, around, laplace, near, merge_most):
    """Bits of the cheapest way to the correction ``wanted``, and its merge candidate (-1: there is none)."""
    count = len(wanted)
    least, choice = _FAR, -1
    for m in range(_CANDIDATES if merges else 1):
        bits = np.float32(0)
        if merges:
            bits += _merge_bits(_MERGE_SYMBOLS[m], location[count, i, j], scale[count, i, j], laplace, merge_most)
        for c in range(count):
            symbol = wanted[c] - (_base(coarser, m, c, i, j) if merges else 0)
            if abs(symbol) > SYMBOL_BOUND:
                bits = _FAR
                break
            bits += _symbol_bits(symbol, location[c, i, j], scale[c, i, j], around[c], laplace, near)
            if bits >= least:
                break
        if bits < least:
            least, choice = bits, m
    return least, choice


@compiled_loosely
def _cell_error(
    first, second, height, width, target, predicted, distances, importance, blend, level, i, j, wanted, knee, most,
):  # fmt: skip
    """What the errors of the blocks of cell (i, j) cost, moved by the correction ``wanted``; _FAR beyond ``most``."""
    rows, columns = predicted.shape[1:]
    stride = width + 2 * MARGIN
    two = len(wanted) == 4
    follow_y = follow_x = 0
    if two:
        follow_y = _scaled(wanted[0], distances[1], distances[0]) + wanted[2]
        follow_x = _scaled(wanted[1], distances[1], distances[0]) + wanted[3]
    total = np.float32(0)
    for bi in range(i << level, min((i + 1) << level, rows)):
        for bj in range(j << level, min((j + 1) << level, columns)):
            top, left = BLOCK * bi, BLOCK * bj
            room = _error_worth(most - total, knee) / importance[bi, bj]
            y, x = _clipped(predicted[0, bi, bj] + wanted[0]), _clipped(predicted[1, bi, bj] + wanted[1])
            start0 = _start(y, x, top, left, BLOCK, height, width)
            if two:
                y, x = _clipped(predicted[2, bi, bj] + follow_y), _clipped(predicted[3, bi, bj] + follow_x)
                start1 = _start(y, x, top, left, BLOCK, height, width)
                if blend[bi, bj] == 0:
                    error = _mean_error(first, start0, second, start1, stride, target, top, left, room)
                elif blend[bi, bj] > 0:
                    error = _one_error(first, start0, stride, target, top, left, room)
                else:
                    error = _one_error(second, start1, stride, target, top, left, room)
            else:
                error = _one_error(first, start0, stride, target, top, left, room)
            total += _worth(importance[bi, bj] * error, knee)
            if total >= most:
                return _FAR
    return total


@compiled_loosely
def _proposals(merges, steps, count):
    """How many corrections ``_propose`` knows for a cell."""
    return (_CANDIDATES if merges else 1) + 4 + len(steps) * len(_DIRECTIONS) * (count // 2)


@compiled_loosely
def _propose(t, i, j, coarser, merges, totals, best, centre, steps, moves_second, wanted):
    """Set ``wanted`` to the correction number ``t`` to try for cell (i, j); False if there is no such one.

    What each merge candidate brings, the corrections of the four neighbours, then ``best`` moved by falling steps: both
    vectors, and (with ``moves_second``) the second one alone. ``centre`` keeps where a round of moves began.
    """
    count, rows, columns = totals.shape
    merge_count = _CANDIDATES if merges else 1
    if t < merge_count:
        for c in range(count):
            wanted[c] = _base(coarser, t, c, i, j) if merges else 0
        return True
    t -= merge_count
    if t < 4:
        y, x = i + _DIRECTIONS[t, 0], j + _DIRECTIONS[t, 1]
        if y < 0 or x < 0 or y >= rows or x >= columns:
            return False
        wanted[:] = totals[:, y, x]
        return True
    part, d = divmod(t - 4, len(_DIRECTIONS))
    if d == 0:
        centre[:] = best
    step, pair = steps[part // (count // 2)], 2 * (part % (count // 2))
    if pair == 2 and not moves_second:
        return False
    wanted[:] = centre
    wanted[pair] += step * _DIRECTIONS[d, 0]
    wanted[pair + 1] += step * _DIRECTIONS[d, 1]
    return True


@compiled_loosely
def search_cells(
    first, second, height, width, target, predicted, distances, importance, level, symbols, coarser, merges, seeds,
    location, scale, laplace, near, merge_most, lmbda, knee, steps, sweeps, blend, totals,
):  # fmt: skip
    """Choose the symbols of one motion level, cell by cell in raster order, ``sweeps`` times.

    ``first``, ``second``: interpolated luma. ``predicted``: (2 or 4, block rows, block columns). ``symbols``:
    (channels, rows, columns), changed in place, ``totals`` with them, and at level 0 ``blend``. ``importance``: (block
    rows, block columns), weight of the errors of each block. ``seeds``: (N, 2 or 4, rows, columns), corrections to try.
    ``location`` (in quarters), ``scale``: what the context model says.
    """
    count, rows, columns = totals.shape
    wanted = np.zeros(count, np.int64)
    best = np.zeros(count, np.int64)
    centre = np.zeros(count, np.int64)
    around = np.zeros(BLEND_CHANNEL + 1, np.int64)
    with_blend = level == 0 and count == 4
    kept_symbols = np.zeros(len(symbols), np.int64)
    last_change = np.zeros((rows + 2, columns + 2), np.int64)  # visits up to it, a cell of border around
    for sweep in range(sweeps):
        for i in range(rows):
            for j in range(columns):
                visit = (sweep * rows + i) * columns + j + 1
                if sweep and last_change[i : i + 3, j : j + 3].max() < visit - rows * columns:
                    continue  # the visit before, which changed nothing, found everything as it still is
                kept_symbols[:] = symbols[:, i, j]
                for c in range(count):
                    around[c] = _neighbour_sum(symbols, c, i, j)
                    best[c] = totals[c, i, j]
                bits, choice = _cheapest(
                    best, coarser, merges, i, j, location, scale, around, laplace, near, merge_most
                )
                error = _cell_error(
                    first, second, height, width, target, predicted, distances, importance, blend, level, i, j, best,
                    knee, _FAR,
                )  # fmt: skip
                least = error + lmbda * bits
                seed_count = len(seeds) if sweep == 0 else 0
                trials = seed_count + _proposals(merges, steps, count)
                for t in range(trials):
                    if t < seed_count:
                        wanted[:] = seeds[t, :, i, j]
                    elif not _propose(
                        t - seed_count, i, j, coarser, merges, totals, best, centre, steps,
                        not with_blend or blend[i, j] <= 0, wanted,
                    ):  # fmt: skip
                        continue
                    if _same(wanted, best):
                        continue
                    other_bits, other = _cheapest(
                        wanted, coarser, merges, i, j, location, scale, around, laplace, near, merge_most
                    )
                    room = least - lmbda * other_bits
                    if other < 0 or room <= 0:
                        continue
                    other_error = _cell_error(
                        first, second, height, width, target, predicted, distances, importance, blend, level, i, j,
                        wanted, knee, room,
                    )  # fmt: skip
                    if other_error < room:
                        least, bits, choice = other_error + lmbda * other_bits, other_bits, other
                        best[:] = wanted
                _set_cell(symbols, totals, coarser, merges, i, j, best, choice)
                if with_blend:
                    around[BLEND_CHANNEL] = _neighbour_sum(symbols, BLEND_CHANNEL, i, j)
                    kept, least = blend[i, j], _FAR
                    for value in _BLENDS:
                        blend[i, j] = value
                        cost = _cell_error(
                            first, second, height, width, target, predicted, distances, importance, blend, level, i, j,
                            best, knee, _FAR,
                        )  # fmt: skip
                        cost += lmbda * _symbol_bits(
                            value, location[BLEND_CHANNEL, i, j], scale[BLEND_CHANNEL, i, j], around[BLEND_CHANNEL],
                            laplace, near,
                        )  # fmt: skip
                        if cost < least:
                            kept, least = value, cost
                    blend[i, j] = kept
                    symbols[BLEND_CHANNEL, i, j] = kept
                if not _same(kept_symbols, symbols[:, i, j]):
                    last_change[i + 1, j + 1] = visit


@compiled_loosely
def _same(one, other):
    is_same = True
    for c in range(len(one)):
        is_same = is_same and one[c] == other[c]
    return is_same


@compiled_loosely
def _set_cell(symbols, totals, coarser, merges, i, j, wanted, choice):
    count = len(wanted)
    for c in range(count):
        totals[c, i, j] = wanted[c]
        symbols[c, i, j] = wanted[c] - (_base(coarser, choice, c, i, j) if merges else 0)
    if merges:
        symbols[count, i, j] = _MERGE_SYMBOLS[choice]


@compiled_loosely
def _moved(predicted, totals, distances, k, i, j):
    """The vector of block (i, j) into reference ``k``."""
    if k == 0:
        return _clipped(predicted[0, i, j] + totals[0, i, j]), _clipped(predicted[1, i, j] + totals[1, i, j])
    follow_y = _scaled(totals[0, i, j], distances[1], distances[0]) + totals[2, i, j]
    follow_x = _scaled(totals[1, i, j], distances[1], distances[0]) + totals[3, i, j]
    return _clipped(predicted[2, i, j] + follow_y), _clipped(predicted[3, i, j] + follow_x)


@compiled_loosely
def _others(plane, height, width, predicted, totals, distances, k, i, j, rest, share):
    """Around block (i, j): what the vectors of all other blocks bring, /64, to ``rest``; the part, /64, that its own
    has in every sample, to ``share``. Both (16, 16), 0 outside the blocks of the picture."""
    rows, columns = totals.shape[1:]
    stride = width + 2 * MARGIN
    rest[:] = 0
    share[:] = 0
    for hi in range(2 * i - 1, 2 * i + 3):
        for hj in range(2 * j - 1, 2 * j + 3):
            bi, bj = hi >> 1, hj >> 1
            if bi < 0 or bj < 0 or bi >= rows or bj >= columns:
                continue
            ry, rx = _HALF * (hi - 2 * i + 1), _HALF * (hj - 2 * j + 1)
            outer_i = min(max(bi + 2 * (hi & 1) - 1, 0), rows - 1)
            outer_j = min(max(bj + 2 * (hj & 1) - 1, 0), columns - 1)
            for down in range(2):
                for right in range(2):
                    si, sj = outer_i if down else bi, outer_j if right else bj
                    own = si == i and sj == j
                    start = 0
                    if not own:
                        vy, vx = _moved(predicted, totals, distances, k, si, sj)
                        start = _start(vy, vx, _HALF * hi, _HALF * hj, _HALF, height, width)
                    for y in range(_HALF):
                        wy = _SHARE[_HALF * (hi & 1) + y]
                        wy = 8 - wy if down else wy
                        for x in range(_HALF):
                            wx = _SHARE[_HALF * (hj & 1) + x]
                            weight = wy * (8 - wx if right else wx)
                            if own:
                                share[ry + y, rx + x] += weight
                            else:
                                rest[ry + y, rx + x] += weight * plane[start + y * stride + x]


@compiled_loosely
def _region_error(first, start0, second, start1, stride, wish, share0, share1, importance, knee, two, most):
    """What the errors in the region of a block cost: ``wish`` less the samples of its vectors, half block by half
    block. _FAR beyond ``most``."""
    total = np.float32(0)
    unit = importance * np.float32(_ERROR_UNIT / (128 * 128))
    sums = np.zeros(_REGION, np.float32)
    for part in range(_REGION // _HALF):
        sums[:] = 0
        for y in range(part * _HALF, (part + 1) * _HALF):
            for x in range(_REGION):
                place = y * stride + x
                e = wish[y, x] - share0[y, x] * first[start0 + place]
                if two:
                    e -= share1[y, x] * second[start1 + place]
                sums[x] += e * e
        for x in range(0, _REGION, _HALF):
            total += _worth((sums[x] + sums[x + 1] + sums[x + 2] + sums[x + 3]) * unit, knee)
        if total >= most:
            return _FAR
    return total


@compiled_loosely
def _block_error(
    first, second, height, width, predicted, totals, distances, target, importance, i, j, value, mixed, share, knee,
):  # fmt: skip
    """What the errors of block (i, j) alone cost with the blend ``value``. ``mixed``: (2, 16, 16), what all other
    blocks bring; ``share``: the part of its own vectors."""
    stride = width + 2 * MARGIN
    top, left = BLOCK * i, BLOCK * j
    y0, x0 = _moved(predicted, totals, distances, 0, i, j)
    y1, x1 = _moved(predicted, totals, distances, 1, i, j)
    start0 = _start(y0, x0, top, left, BLOCK, height, width)
    start1 = _start(y1, x1, top, left, BLOCK, height, width)
    total = np.float32(0)
    for y in range(BLOCK):
        for x in range(BLOCK):
            w = share[_HALF + y, _HALF + x]
            if w > 0:
                place = y * stride + x
                e = (1 + value) * (mixed[0, _HALF + y, _HALF + x] + w * first[start0 + place])
                e += (1 - value) * (mixed[1, _HALF + y, _HALF + x] + w * second[start1 + place])
                e -= 128 * target[_HALF + top + y, _HALF + left + x]
                total += e * e
    return _worth(importance[i, j] * total * np.float32(_ERROR_UNIT / (128 * 128)), knee)


@compiled_loosely
def refine_overlapped(
    first, second, height, width, target, predicted, distances, importance, symbols, coarser, location, scale,
    laplace, near, merge_most, lmbda, knee, steps, sweeps, blend, totals,
):  # fmt: skip
    """Choose the symbols of the finest level again, now under overlapped compensation, block by block.

    As ``search_cells``; ``target`` has half a block more on every side.
    """
    count, rows, columns = totals.shape
    two = count == 4
    stride = width + 2 * MARGIN
    wanted = np.zeros(count, np.int64)
    best = np.zeros(count, np.int64)
    centre = np.zeros(count, np.int64)
    around = np.zeros(BLEND_CHANNEL + 1, np.int64)
    mixed = np.zeros((2, _REGION, _REGION), np.float32)
    share = np.zeros((_REGION, _REGION), np.float32)
    wish = np.zeros((_REGION, _REGION), np.float32)
    share0 = np.zeros((_REGION, _REGION), np.float32)
    share1 = np.zeros((_REGION, _REGION), np.float32)
    for _sweep in range(sweeps):
        for i in range(rows):
            for j in range(columns):
                top, left = BLOCK * i - _HALF, BLOCK * j - _HALF
                _others(first, height, width, predicted, totals, distances, 0, i, j, mixed[0], share)
                if two:
                    _others(second, height, width, predicted, totals, distances, 1, i, j, mixed[1], share)
                for y in range(_REGION):
                    for x in range(_REGION):
                        bi, bj = (top + y) >> 3, (left + x) >> 3
                        inside = 0 <= top + y < height and 0 <= left + x < width
                        b = 1
                        if two and inside:
                            b = blend[bi, bj]
                        w = share[y, x] if inside else np.float32(0)
                        share0[y, x], share1[y, x] = w * (1 + b), w * (1 - b)
                        wish[y, x] = 0
                        if inside:
                            goal = 128 * target[_HALF + top + y, _HALF + left + x]
                            wish[y, x] = goal - (1 + b) * mixed[0, y, x] - (1 - b) * mixed[1, y, x]
                for c in range(count):
                    around[c] = _neighbour_sum(symbols, c, i, j)
                    best[c] = totals[c, i, j]
                least, choice = _FAR, 0
                trials = 1 + _proposals(True, steps, count)
                for t in range(trials):
                    if t == 0:
                        wanted[:] = best
                    elif not _propose(t - 1, i, j, coarser, True, totals, best, centre, steps, True, wanted):
                        continue
                    if t and _same(wanted, best):
                        continue
                    bits, other = _cheapest(
                        wanted, coarser, True, i, j, location, scale, around, laplace, near, merge_most
                    )
                    if other < 0 or lmbda * bits >= least:
                        continue
                    y0, x0 = _clipped(predicted[0, i, j] + wanted[0]), _clipped(predicted[1, i, j] + wanted[1])
                    start0 = _start(y0, x0, top, left, _REGION, height, width)
                    start1 = start0
                    if two:
                        y1 = _scaled(wanted[0], distances[1], distances[0]) + wanted[2]
                        x1 = _scaled(wanted[1], distances[1], distances[0]) + wanted[3]
                        y1, x1 = _clipped(predicted[2, i, j] + y1), _clipped(predicted[3, i, j] + x1)
                        start1 = _start(y1, x1, top, left, _REGION, height, width)
                    cost = lmbda * bits + _region_error(
                        first, start0, second, start1, stride, wish, share0, share1, importance[i, j], knee, two,
                        least - lmbda * bits,
                    )  # fmt: skip
                    if cost < least:
                        least, choice = cost, other
                        best[:] = wanted
                _set_cell(symbols, totals, coarser, True, i, j, best, choice)
                if two:
                    around[BLEND_CHANNEL] = _neighbour_sum(symbols, BLEND_CHANNEL, i, j)
                    kept, least = blend[i, j], _FAR
                    for value in _BLENDS:
                        cost = _block_error(
                            first, second, height, width, predicted, totals, distances, target, importance, i, j, value,
                            mixed, share, knee,
                        )  # fmt: skip
                        cost += lmbda * _symbol_bits(
                            value, location[BLEND_CHANNEL, i, j], scale[BLEND_CHANNEL, i, j], around[BLEND_CHANNEL],
                            laplace, near,
                        )  # fmt: skip
                        if cost < least:
                            kept, least = value, cost
                    blend[i, j] = kept
                    symbols[BLEND_CHANNEL, i, j] = kept
