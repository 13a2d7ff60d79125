"""What symbols cost and how that depends on everything, in compiled code: ``nvcodec.encoder.rate`` on a CPU.

One pass over the symbols of a level takes the context model forwards and, where it is wanted, backwards. Most symbols
lie in surroundings of zeros, whose features need no sums.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from nvcodec.entropy.context import (
    FEATURE_BOUND,
    FEATURES,
    HIDDEN,
    HIDDEN_BOUND,
    LOCATION_BOUND,
    LOG_BOUND,
    LOG_STEP,
    OUTPUT_SHIFT,
    OUTPUT_STEP_BITS,
    SIDE_FEATURES,
    STAGES,
    WEIGHT_SHIFT,
)
from nvcodec.entropy.tables import FRACTIONS, SCALES, WIDE_SCALE, WIDE_SHARE_BITS

__all__ = ["REACH", "best_symbols", "level_cost", "sweep_symbols"]

REACH = 2
"""The features see symbols this far away."""
_KNOWN = FEATURES - SIDE_FEATURES
_LN2 = np.float32(math.log(2))
_HIDDEN_STEP = np.float32(2.0**-WEIGHT_SHIFT)
_OUTPUT_STEP = np.float32(2.0 ** -(OUTPUT_SHIFT + OUTPUT_STEP_BITS))
_BIAS_STEP = np.float32(2.0**-OUTPUT_STEP_BITS)
_QUARTER = np.float32(1.0 / FRACTIONS)
_WIDE = np.float32(20.0 * 2.0 ** (-WIDE_SCALE / 7.0))
_WIDE_SHARE = np.float32(0.5**WIDE_SHARE_BITS)
_LEAST = np.float32(2.0**-24)
_HALF = np.float32(0.5)
_ONE = np.float32(1)

_compiled = numba.njit(cache=True, nogil=True, fastmath=True)
_inlined = numba.njit(cache=True, nogil=True, fastmath=True, inline="always")


@_inlined
def _probability(distance, inverse):
    """As ``nvcodec.encoder.rate.laplace_bits``: mass over +-1/2, heavy tail included. Also the parts of it that the
    derivatives are made of."""
    upper = (_HALF - distance) * inverse
    below = _HALF * np.exp(-abs(upper))
    lower = _HALF * np.exp(-(_HALF + distance) * inverse)
    narrow = (below if upper < 0 else _ONE - below) - lower
    share = np.exp(-_HALF * inverse) * _WIDE_SHARE
    tail = _HALF * _WIDE * np.exp(-distance * _WIDE)
    return narrow * (_ONE - share) + tail * share, narrow, below, lower, share, tail


@_compiled
def _occupied(symbols, rows, columns, near):
    """Mark every place with a symbol that is not zero within the reach of the features, in any channel."""
    near[:] = False
    for c in range(symbols.shape[0]):
        for y in range(rows + 2 * REACH):
            for x in range(columns + 2 * REACH):
                if symbols[c, y, x] != 0:
                    for i in range(max(y - 2 * REACH, 0), min(y + 1, rows)):
                        for j in range(max(x - 2 * REACH, 0), min(x + 1, columns)):
                            near[i, j] = True


@_compiled
def level_cost(
    symbols, rows, columns, side, taps, starts, phases, logarithms, hidden, hidden_bias, output, bias,
    backwards, signs, location, scale, by_symbol, by_hidden, by_hidden_bias, by_output, by_bias,
):  # fmt: skip
    """Bits of one level of one frame.

    ``symbols``: (C, even rows + 2 REACH, even columns + 2 REACH), int32, zeros around. ``rows``, ``columns``: of them
    inside. ``side``: (C + 2, even rows, even columns). ``taps``, ``starts``, ``phases``: of all stages, as
    ``context_cpu.stage_taps`` gives them, (stages, ...). ``hidden``: (FEATURES, HIDDEN). ``location`` (in symbols),
    ``scale``: (C, rows, columns), results. With ``backwards`` also the derivatives of the bits, added to the ``by_``
    arrays; those by symbols through the context alone. ``signs``: factors of the symbols' derivatives, like
    ``location``, or empty.
    """
    channels = symbols.shape[0]
    near_any = np.zeros((rows, columns), np.bool_)
    _occupied(symbols, rows, columns, near_any)
    seen = np.zeros(FEATURES, np.float32)
    sums = np.zeros(HIDDEN, np.float32)
    back = np.zeros(HIDDEN, np.float32)
    sizes = np.zeros(_KNOWN, np.float32)
    step = np.float32(LOG_STEP) / _LN2
    total = 0.0
    for stage in range(STAGES):
        for c in range(channels):
            for y in range(phases[stage, c, 0], rows, 2):
                for x in range(phases[stage, c, 1], columns, 2):
                    i, j = y >> 1, x >> 1
                    occupied = near_any[y, x]
                    near, wide, cross, mean = 0, 0, 0, 0
                    if occupied:
                        for t in range(starts[stage, c], starts[stage, c + 1]):
                            value = symbols[taps[stage, t, 0], 2 * i + taps[stage, t, 1], 2 * j + taps[stage, t, 2]]
                            if value != 0:
                                size = abs(value)
                                near += taps[stage, t, 3] * size
                                wide += taps[stage, t, 4] * size
                                cross += taps[stage, t, 5] * size
                                mean += taps[stage, t, 6] * value
                        alone = near + wide + cross + abs(mean) == 0
                        occupied = not alone or symbols[c, y + REACH, x + REACH] != 0
                    clipped = min(max(mean, -FEATURE_BOUND), FEATURE_BOUND)
                    seen[0] = logarithms[min(near, LOG_BOUND)]
                    seen[1] = logarithms[min(wide, LOG_BOUND)]
                    seen[2] = logarithms[min(cross, LOG_BOUND)]
                    seen[3] = clipped
                    seen[4] = logarithms[abs(clipped)]
                    seen[5] = side[c, y, x]
                    seen[6] = side[channels, y, x]
                    seen[7] = side[channels + 1, y, x]
                    for u in range(HIDDEN):
                        sums[u] = hidden_bias[stage, u]
                    for f in range(0 if occupied else _KNOWN, FEATURES):
                        feature = seen[f] * _HIDDEN_STEP
                        for u in range(HIDDEN):
                            sums[u] += hidden[f, u] * feature
                    out0, out1 = np.float32(0), np.float32(0)
                    for u in range(HIDDEN):
                        unit = min(max(sums[u], np.float32(0)), np.float32(HIDDEN_BOUND))
                        out0 += output[0, u] * unit
                        out1 += output[1, u] * unit
                    out0 = out0 * _OUTPUT_STEP + bias[c, 0] * _BIAS_STEP
                    out1 = out1 * _OUTPUT_STEP + bias[c, 1] * _BIAS_STEP
                    place = min(max(out0, np.float32(-LOCATION_BOUND)), np.float32(LOCATION_BOUND)) * _QUARTER
                    width = min(max(out1, np.float32(0)), np.float32(SCALES - 1))
                    location[c, y, x] = place
                    scale[c, y, x] = width
                    inverse = np.float32(20) * np.exp(width * (-_LN2 / np.float32(7)))
                    apart = np.float32(symbols[c, y + REACH, x + REACH]) - place
                    distance = abs(apart)
                    mass, narrow, below, lower, share, tail = _probability(distance, inverse)
                    mass = max(mass, _LEAST)
                    total -= np.log(mass) / _LN2
                    if not backwards or mass <= _LEAST:
                        continue
                    by_mass = -_ONE / (_LN2 * mass)
                    if signs.size:
                        by_mass *= signs[c, y, x]
                    by_distance = inverse * (lower - below) * (_ONE - share) - _WIDE * tail * share
                    by_inverse = ((_HALF - distance) * below + (_HALF + distance) * lower) * (_ONE - share)
                    by_inverse -= _HALF * share * (tail - narrow)
                    by0 = -by_mass * by_distance * (_ONE if apart >= 0 else -_ONE) * _QUARTER
                    by1 = by_mass * by_inverse * inverse * (-_LN2 / np.float32(7))
                    if abs(out0) > LOCATION_BOUND:
                        by0 = np.float32(0)
                    if out1 < 0 or out1 > SCALES - 1:
                        by1 = np.float32(0)
                    by_bias[c, 0] += by0 * _BIAS_STEP
                    by_bias[c, 1] += by1 * _BIAS_STEP
                    by0 *= _OUTPUT_STEP
                    by1 *= _OUTPUT_STEP
                    for u in range(HIDDEN):
                        unit = min(max(sums[u], np.float32(0)), np.float32(HIDDEN_BOUND))
                        by_output[0, u] += by0 * unit
                        by_output[1, u] += by1 * unit
                        free = sums[u] >= 0 and sums[u] <= HIDDEN_BOUND
                        back[u] = by0 * output[0, u] + by1 * output[1, u] if free else np.float32(0)
                        by_hidden_bias[stage, u] += back[u]
                    for f in range(0 if occupied else _KNOWN, FEATURES):
                        feature = seen[f] * _HIDDEN_STEP
                        for u in range(HIDDEN):
                            by_hidden[f, u] += back[u] * feature
                    if not occupied:
                        continue
                    for f in range(_KNOWN):
                        value = np.float32(0)
                        for u in range(HIDDEN):
                            value += hidden[f, u] * back[u]
                        sizes[f] = value * _HIDDEN_STEP
                    by_near = sizes[0] * step / (1 + near) if near < LOG_BOUND else np.float32(0)
                    by_wide = sizes[1] * step / (1 + wide) if wide < LOG_BOUND else np.float32(0)
                    by_cross = sizes[2] * step / (1 + cross) if cross < LOG_BOUND else np.float32(0)
                    by_mean = np.float32(0)
                    if abs(mean) <= FEATURE_BOUND:
                        sign = 1 if mean > 0 else (-1 if mean < 0 else 0)
                        by_mean = sizes[3] + sign * sizes[4] * step / (1 + abs(mean))
                    for t in range(starts[stage, c], starts[stage, c + 1]):
                        k, row, column = taps[stage, t, 0], 2 * i + taps[stage, t, 1], 2 * j + taps[stage, t, 2]
                        value = symbols[k, row, column]
                        change = taps[stage, t, 6] * by_mean
                        if value != 0:
                            along = taps[stage, t, 3] * by_near + taps[stage, t, 4] * by_wide
                            along += taps[stage, t, 5] * by_cross
                            change += along if value > 0 else -along
                        by_symbol[k, row, column] += change
    return total


@_inlined
def _bits(distance, inverse):
    return -np.log(max(_probability(distance, inverse)[0], _LEAST)) / _LN2


@_compiled
def best_symbols(symbols, gradient, curvature, location, scale, lmbda, lots, share, bound, out):
    """The value of every symbol of a level, (C, rows, columns), with the lowest cost by the quadratic model of the
    error, of a few near the model's minimum; only where ``lots``, uniform in 0 .. 1, lie below ``share``.

    ``gradient``: of error and neighbours' bits by the symbols. ``curvature``: (C,).
    """
    channels, rows, columns = symbols.shape
    for c in range(channels):
        curve = curvature[c]
        for y in range(rows):
            for x in range(columns):
                level = symbols[c, y, x]
                out[c, y, x] = level
                if lots[c, y, x] >= share:
                    continue
                slope = gradient[c, y, x]
                goal = np.rint(level - slope / curve)
                place = location[c, y, x]
                # From zero the one other value is a step away: it costs half the curvature less the slope, and bits.
                if level == 0 and goal == 0 and abs(place) < _HALF and abs(slope) <= _HALF * curve:
                    continue
                inverse = np.float32(20) * np.exp(scale[c, y, x] * (-_LN2 / np.float32(7)))
                least = lmbda * _bits(abs(level - place), inverse)
                sign = np.float32(1 if slope > 0 else (-1 if slope < 0 else 0))
                toward = np.float32(1 if goal > 0 else (-1 if goal < 0 else 0))
                best = level
                for t in range(4):
                    if t == 0:
                        value = goal
                    elif t == 1:
                        value = goal - toward
                    elif t == 2:
                        value = level - sign
                    else:
                        value = np.float32(0)
                    value = min(max(value, -bound), bound)
                    delta = value - level
                    if delta == 0:
                        continue
                    cost = slope * delta + _HALF * curve * delta * delta
                    if cost >= least:
                        continue
                    cost += lmbda * _bits(abs(value - place), inverse)
                    if cost < least:
                        least, best = cost, value
                out[c, y, x] = best


@_compiled
def _bits_of(
    k, c, y, x, symbols, sides, taps, starts, stage_at, logarithms, hidden, hidden_bias, output, biases, around
):  # fmt: skip
    """Bits of one symbol by all that the decoder knows before it. ``around``: room for the hidden units."""
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
        py, px = (y >> 1) + REACH, (x >> 1) + REACH
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
    return _bits(abs(np.float32(level[c, y + REACH, x + REACH]) - place), inverse)


@_inlined
def _add_feature(sums, hidden, f, feature):
    if feature != 0:
        feature *= _HIDDEN_STEP
        for u in range(HIDDEN):
            sums[u] += hidden[f, u] * feature


@_compiled
def _bits_around(
    k, c, y, x, sizes, related, symbols, sides, taps, starts, stage_at, logarithms, hidden, hidden_bias, output,
    biases, room,
):  # fmt: skip
    """Bits of a symbol and of all those that it is context of."""
    total = _bits_of(
        k, c, y, x, symbols, sides, taps, starts, stage_at, logarithms, hidden, hidden_bias, output, biases, room
    )
    stage = stage_at[k][c, y & 1, x & 1]
    rows, columns = sizes[k, 0], sizes[k, 1]
    for other in range(symbols[k].shape[0]):
        if not related[k][c, other]:
            continue
        reach = 2 if other == c else 1
        for oy in range(max(y - reach, 0), min(y + reach + 1, rows)):
            for ox in range(max(x - reach, 0), min(x + reach + 1, columns)):
                if stage_at[k][other, oy & 1, ox & 1] > stage:
                    total += _bits_of(
                        k, other, oy, ox, symbols, sides, taps, starts, stage_at, logarithms, hidden, hidden_bias,
                        output, biases, room,
                    )  # fmt: skip
    if k > 0 and c < symbols[k - 1].shape[0]:
        for oy in range(max(2 * y - 2, 0), min(2 * y + 4, sizes[k - 1, 0])):
            for ox in range(max(2 * x - 2, 0), min(2 * x + 4, sizes[k - 1, 1])):
                total += _bits_of(
                    k - 1, c, oy, ox, symbols, sides, taps, starts, stage_at, logarithms, hidden, hidden_bias, output,
                    biases, room,
                )  # fmt: skip
    return total


@_compiled
def sweep_symbols(
    sizes, related, gradients, curvatures, lmbda, symbols, sides, taps, starts, stage_at, logarithms, hidden,
    hidden_bias, output, biases,
):  # fmt: skip
    """Visit the symbols of a frame one by one, coarsest level first, and take the value with the lowest cost, all bits
    counted that depend on it.

    Of a symbol that is not zero the next one towards zero and zero are tried, of others the next one downhill where
    that lowers the error. Everything is a tuple with an array for each level, finest first: ``symbols`` as in
    ``level_cost``, changed in place; ``sides``: mismatch and activity; ``gradients``: of the error alone;
    ``stage_at``: (C, 2, 2), the stage that reads each phase; ``related``: (C, C).
    """
    room = np.zeros(HIDDEN, np.float32)
    for k in range(len(symbols) - 1, -1, -1):
        level = symbols[k]
        for c in range(level.shape[0]):
            curve = curvatures[k][c]
            for y in range(sizes[k, 0]):
                for x in range(sizes[k, 1]):
                    value = level[c, y + REACH, x + REACH]
                    slope = gradients[k][c, y, x]
                    if value == 0 and abs(slope) <= _HALF * curve:
                        continue
                    before = _bits_around(
                        k, c, y, x, sizes, related, symbols, sides, taps, starts, stage_at, logarithms, hidden,
                        hidden_bias, output, biases, room,
                    )  # fmt: skip
                    best, least = value, np.float32(0)
                    for t in range(2):
                        if value == 0:
                            other = -1 if slope > 0 else 1
                        elif t == 0:
                            other = value - 1 if value > 0 else value + 1
                        else:
                            other = 0
                        if t == 1 and (value == 0 or abs(value) == 1):
                            break
                        delta = np.float32(other - value)
                        cost = slope * delta + _HALF * curve * delta * delta
                        level[c, y + REACH, x + REACH] = other
                        after = _bits_around(
                            k, c, y, x, sizes, related, symbols, sides, taps, starts, stage_at, logarithms, hidden,
                            hidden_bias, output, biases, room,
                        )  # fmt: skip
                        cost += lmbda * (after - before)
                        if cost < least:
                            best, least = other, cost
                    level[c, y + REACH, x + REACH] = best
