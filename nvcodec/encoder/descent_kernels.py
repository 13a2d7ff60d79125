"""Coordinate descent on the symbols of a level in compiled code: ``nvcodec.encoder.descent``.

Nearly all of the work is to say what a move does to the bits of the symbols around it. So bits are kept until one of
the symbols that they depend on moves, and a move is given up as soon as it cannot pay any more.

``context``, a tuple, is what the bits of symbols depend on beside the symbols. Of each level, finest first: ``sides``,
mismatch and activity of the references; ``taps`` and ``starts`` of all stages, as ``rate.all_taps`` gives them;
``stage_at``, (C, 2, 2), the stage that reads each phase; ``related``, (C, C), whether a channel counts for another one.
Then ``logarithms``, ``hidden`` (FEATURES, HIDDEN), ``hidden_bias``, ``output``, and of each level ``biases``, (C, 2).
"""

from __future__ import annotations

import math

import numpy as np

from nvcodec.compiled import compiled_loosely
from nvcodec.encoder.rate_kernels import laplace_cost
from nvcodec.entropy.context import (
    FEATURE_BOUND,
    HIDDEN,
    HIDDEN_BOUND,
    LOCATION_BOUND,
    LOG_BOUND,
    MARGIN,
    OUTPUT_SHIFT,
    OUTPUT_STEP_BITS,
    WEIGHT_SHIFT,
)
from nvcodec.entropy.tables import FRACTIONS, SCALES
from nvcodec.model.grid import SYMBOL_BOUND

__all__ = ["descend_level"]

_LN2 = np.float32(math.log(2))
_HIDDEN_STEP = np.float32(2.0**-WEIGHT_SHIFT)
_OUTPUT_STEP = np.float32(2.0 ** -(OUTPUT_SHIFT + OUTPUT_STEP_BITS))
_BIAS_STEP = np.float32(2.0**-OUTPUT_STEP_BITS)
_QUARTER = np.float32(1.0 / FRACTIONS)
_HALF = np.float32(0.5)
_FAR = np.float32(1e30)
_MOST_RETURNED = np.float32(0.5)
"""Of what a symbol itself costs more when it is not zero any longer: those around it give back less."""
_LEAST_KEPT = np.float32(0.6)
"""Of their bits, what symbols around one that moves are believed to take afterwards at the least."""


@compiled_loosely
def _bits_of(k, c, y, x, symbols, context, around):
    """Bits of one symbol by all that the decoder knows before it. ``around``: room for the hidden units."""
    sides, taps, starts, stage_at, _, logarithms, hidden, hidden_bias, output, biases = context
    level = symbols[k]
    side = sides[k]
    stage = stage_at[k][c, y & 1, x & 1]
    i, j = 2 * (y >> 1), 2 * (x >> 1)
    near, wide, cross, mean = 0, 0, 0, 0
    tap = taps[k]
    for t in range(starts[k][stage, c], starts[k][stage, c + 1]):
        value = level[tap[stage, t, 0], i + tap[stage, t, 1], j + tap[stage, t, 2]]
        if value != 0:
            size = abs(value)
            near += tap[stage, t, 3] * size
            wide += tap[stage, t, 4] * size
            cross += tap[stage, t, 5] * size
            mean += tap[stage, t, 6] * value
    mean = min(max(mean, -FEATURE_BOUND), FEATURE_BOUND)
    parent = 0
    if k + 1 < len(symbols) and c < symbols[k + 1].shape[0]:
        above = symbols[k + 1]
        py, px = (y >> 1) + MARGIN, (x >> 1) + MARGIN
        parent = 8 * abs(above[c, py, px])
        for dy in range(-1, 2):
            for dx in range(-1, 2):
                parent += abs(above[c, py + dy, px + dx])
    for u in range(HIDDEN):
        around[u] = hidden_bias[stage, u]
    _add_feature(around, hidden, 0, logarithms[min(near, LOG_BOUND)])
    _add_feature(around, hidden, 1, logarithms[min(wide, LOG_BOUND)])
    _add_feature(around, hidden, 2, logarithms[min(cross, LOG_BOUND)])
    _add_feature(around, hidden, 3, np.float32(mean))
    _add_feature(around, hidden, 4, logarithms[abs(mean)])
    _add_feature(around, hidden, 5, logarithms[min(4 * parent, LOG_BOUND)])
    _add_feature(around, hidden, 6, side[0, y, x])
    _add_feature(around, hidden, 7, side[1, y, x])
    out0, out1 = np.float32(0), np.float32(0)
    for u in range(HIDDEN):
        unit = min(max(around[u], np.float32(0)), np.float32(HIDDEN_BOUND))
        out0 += output[0, u] * unit
        out1 += output[1, u] * unit
    out0 = out0 * _OUTPUT_STEP + biases[k][c, 0] * _BIAS_STEP
    out1 = out1 * _OUTPUT_STEP + biases[k][c, 1] * _BIAS_STEP
    place = min(max(out0, np.float32(-LOCATION_BOUND)), np.float32(LOCATION_BOUND)) * _QUARTER
    width = min(max(out1, np.float32(0)), np.float32(SCALES - 1))
    inverse = np.float32(20) * np.exp(width * (-_LN2 / np.float32(7)))
    return laplace_cost(abs(np.float32(level[c, y + MARGIN, x + MARGIN]) - place), inverse)


@compiled_loosely
def _add_feature(sums, hidden, f, feature):
    if feature != 0:
        feature *= _HIDDEN_STEP
        for u in range(HIDDEN):
            sums[u] += hidden[f, u] * feature


@compiled_loosely
def _dependents(k, c, y, x, sizes, symbols, context, places):
    """Set ``places``, (N, 4): level, channel, row and column of a symbol, then of all those that it is context of. How
    many they are."""
    stage_at, related = context[3], context[4]
    places[0, 0], places[0, 1], places[0, 2], places[0, 3] = k, c, y, x
    count = 1
    stage = stage_at[k][c, y & 1, x & 1]
    rows, columns = sizes[k, 0], sizes[k, 1]
    for other in range(symbols[k].shape[0]):
        if not related[k][c, other]:
            continue
        reach = 2 if other == c else 1
        for oy in range(max(y - reach, 0), min(y + reach + 1, rows)):
            for ox in range(max(x - reach, 0), min(x + reach + 1, columns)):
                if stage_at[k][other, oy & 1, ox & 1] > stage:
                    places[count, 0], places[count, 1], places[count, 2], places[count, 3] = k, other, oy, ox
                    count += 1
    if k > 0 and c < symbols[k - 1].shape[0]:
        for oy in range(max(2 * y - 2, 0), min(2 * y + 4, sizes[k - 1, 0])):
            for ox in range(max(2 * x - 2, 0), min(2 * x + 4, sizes[k - 1, 1])):
                places[count, 0], places[count, 1], places[count, 2], places[count, 3] = k - 1, c, oy, ox
                count += 1
    return count


@compiled_loosely
def _basis(i, part, count, length, filters, places, weights):
    """Where a symbol goes along one axis, ``places`` and ``weights``, and how many they are. ``part``: 0 low, 1 high.
    ``count``: symbols along the axis, which goes on periodically, ``length``: samples."""
    found = 0
    for t in range(filters.shape[2]):
        j = (i - t + filters.shape[2] // 2) % count
        for phase in range(2):
            if 2 * j + phase < length:
                places[found], weights[found] = 2 * j + phase, filters[phase, part, t]
                found += 1
    return found


@compiled_loosely
def _bits_before(symbols, bits, context, places, around):
    """What the symbols at ``places`` take; ``bits`` learns those that it did not know."""
    total = np.float32(0)
    for n in range(len(places)):
        k, c, y, x = places[n, 0], places[n, 1], places[n, 2], places[n, 3]
        if bits[k][c, y, x] < 0:
            bits[k][c, y, x] = _bits_of(k, c, y, x, symbols, context, around)
        total += bits[k][c, y, x]
    return total


@compiled_loosely
def _price_after(cost, before, lmbda, symbols, bits, context, places, around):
    """``cost``, and what the bits at ``places`` add to it, of which ``before`` are paid already; _FAR once it is clear
    that it stays above 0."""
    cost -= lmbda * before
    left = before
    for n in range(len(places)):
        k, c, y, x = places[n, 0], places[n, 1], places[n, 2], places[n, 3]
        cost += lmbda * _bits_of(k, c, y, x, symbols, context, around)
        left -= bits[k][c, y, x]
        if cost + _LEAST_KEPT * lmbda * left >= 0:
            return _FAR
    return cost


@compiled_loosely
def descend_level(k, first, slopes, curvatures, gains, filters, sizes, lmbda, symbols, bits, context):
    """Visit the bands of level ``k`` of a frame one by one, or from channel ``first`` > 0 on its means, and take the
    value with the lowest cost, all bits counted that depend on it.

    Tried are the neighbouring value downhill, where that lowers the error, the next one towards zero, and zero.
    ``slopes``, changed with every move, and ``curvatures``: (planes, rows, columns), first and second derivatives of
    the error by the samples of the image that the bands are added to, or that the means are. ``gains``: by channel.
    ``filters``: as ``grid_filters``. ``sizes``: rows and columns of each level. Of each level, finest first, tuples of
    arrays: ``symbols`` as in ``level_cost``, changed in place; ``bits``, (C, rows, columns): those of each symbol where
    they are known, else below 0, kept up. ``context``: see above.
    """
    around = np.zeros(HIDDEN, np.float32)
    most = 2 * filters.shape[2]
    ys, xs = np.zeros(most, np.int64), np.zeros(most, np.int64)
    by_y, by_x = np.ones(most, np.float32), np.ones(most, np.float32)
    line_slopes, line_curves = np.zeros(slopes.shape[2], np.float32), np.zeros(slopes.shape[2], np.float32)
    level = symbols[k]
    room = np.zeros((25 + 9 * level.shape[0] + 36, 4), np.int64)
    rows, columns = sizes[k, 0], sizes[k, 1]
    last = level.shape[0] if first else 3 * slopes.shape[0]
    for c in range(first, last):
        plane, band = (c - first, 0) if first else (c // 3, c % 3)
        gain = gains[c]
        for y in range(rows):
            ys[0], high = y, 1
            if not first:
                high = _basis(y, 0 if band == 0 else 1, rows, slopes.shape[1], filters, ys, by_y)
            line_slopes[:] = 0
            line_curves[:] = 0
            for i in range(high):
                for x in range(slopes.shape[2]):
                    line_slopes[x] += slopes[plane, ys[i], x] * by_y[i]
                    line_curves[x] += curvatures[plane, ys[i], x] * by_y[i] * by_y[i]
            for x in range(columns):
                xs[0], wide = x, 1
                if not first:
                    wide = _basis(x, 0 if band == 1 else 1, columns, slopes.shape[2], filters, xs, by_x)
                slope, curve = np.float32(0), np.float32(0)
                for j in range(wide):
                    slope += line_slopes[xs[j]] * by_x[j]
                    curve += line_curves[xs[j]] * by_x[j] * by_x[j]
                slope *= gain
                curve *= gain * gain
                row, column = y + MARGIN, x + MARGIN
                value = level[c, row, column]
                is_steep = abs(slope) > _HALF * curve
                if value == 0:
                    if not is_steep:
                        continue
                    own = _bits_of(k, c, y, x, symbols, context, around)
                    level[c, row, column] = -1 if slope > 0 else 1
                    own = _bits_of(k, c, y, x, symbols, context, around) - own
                    level[c, row, column] = 0
                    if abs(slope) - _HALF * curve < _MOST_RETURNED * lmbda * own:
                        continue
                places = room[: _dependents(k, c, y, x, sizes, symbols, context, room)]
                before = _bits_before(symbols, bits, context, places, around)
                best, least = value, np.float32(0)
                for t in range(3):
                    if t == 0:
                        other = value - 1 if slope > 0 else value + 1
                        if not is_steep or abs(other) > SYMBOL_BOUND:
                            continue
                    elif t == 1:
                        other = value - 1 if value > 0 else value + 1
                        if value == 0 or (is_steep and (value > 0) == (slope > 0)):
                            continue
                    else:
                        other = 0
                        if abs(value) <= 1:
                            continue
                    delta = np.float32(other - value)
                    gained = least - slope * delta - _HALF * curve * delta * delta
                    level[c, row, column] = other
                    cost = least + _price_after(-gained, before, lmbda, symbols, bits, context, places, around)
                    if cost < least:
                        best, least = other, cost
                level[c, row, column] = best
                if best != value:
                    for n in range(len(places)):
                        bits[places[n, 0]][places[n, 1], places[n, 2], places[n, 3]] = -1
                    moved = gain * np.float32(best - value)
                    for i in range(high):
                        for j in range(wide):
                            slopes[plane, ys[i], xs[j]] += curvatures[plane, ys[i], xs[j]] * moved * by_y[i] * by_x[j]
                    for j in range(wide):
                        line_slopes[xs[j]] += line_curves[xs[j]] * moved * by_x[j]
