"""What symbols cost and how that depends on everything, in compiled code: ``nvcodec.encoder.rate`` on a CPU.

One pass over the symbols of a level takes the context model forwards and, where it is wanted, backwards. Most symbols
are zero, so the others say to their surroundings what these see.
"""

from __future__ import annotations

import math

import numpy as np

from nvcodec.compiled import compiled_loosely
from nvcodec.encoder.power_kernels import exp2, log2
from nvcodec.entropy.context import (
    FEATURE_BOUND,
    FEATURES,
    HIDDEN,
    HIDDEN_BOUND,
    LOCATION_BOUND,
    LOG_BOUND,
    LOG_STEP,
    MARGIN,
    OUTPUT_SHIFT,
    OUTPUT_STEP_BITS,
    SIDE_FEATURES,
    WEIGHT_SHIFT,
)
from nvcodec.entropy.tables import FRACTIONS, SCALES, WIDE_SCALE, WIDE_SHARE_BITS

__all__ = ["inverse_scale", "laplace_cost", "level_cost"]

_KNOWN = FEATURES - SIDE_FEATURES
_LN2 = np.float32(math.log(2))
_LOG2_E = np.float32(1 / math.log(2))
_HIDDEN_STEP = np.float32(2.0**-WEIGHT_SHIFT)
_OUTPUT_STEP = np.float32(2.0 ** -(OUTPUT_SHIFT + OUTPUT_STEP_BITS))
_BIAS_STEP = np.float32(2.0**-OUTPUT_STEP_BITS)
_QUARTER = np.float32(1.0 / FRACTIONS)
_WIDE = np.float32(20.0 * 2.0 ** (-WIDE_SCALE / 7.0))
_WIDE_SHARE = np.float32(0.5**WIDE_SHARE_BITS)
_LEAST = np.float32(2.0**-24)
_HALF = np.float32(0.5)
_ONE = np.float32(1)


@compiled_loosely
def inverse_scale(width):
    """1 / b of the (real-valued) scale index ``width``."""
    return np.float32(20) * exp2(width * np.float32(-1 / 7))


@compiled_loosely
def _probability(distance, inverse):
    """As ``nvcodec.encoder.rate.laplace_bits``: mass over +-1/2, heavy tail included. Also the parts of it that the
    derivatives are made of."""
    upper = (_HALF - distance) * inverse
    below = _HALF * exp2(-abs(upper) * _LOG2_E)
    lower = _HALF * exp2(-(_HALF + distance) * inverse * _LOG2_E)
    narrow = (below if upper < 0 else _ONE - below) - lower
    share = exp2(-_HALF * inverse * _LOG2_E) * _WIDE_SHARE
    tail = _HALF * _WIDE * exp2(-distance * (_WIDE * _LOG2_E))
    return narrow * (_ONE - share) + tail * share, narrow, below, lower, share, tail


@compiled_loosely
def _sum_up(symbols, neighbourhood, sums):
    """Add what each symbol brings to the sums of those that it is context of: (C, rows, columns, 4), near, wide, cross
    and mean."""
    stage_at, reaches, weights = neighbourhood
    channels, rows, columns = symbols.shape
    for c in range(channels):
        for y in range(rows):
            for x in range(columns):
                value = symbols[c, y, x]
                if value == 0:
                    continue
                stage, size = stage_at[c, y & 1, x & 1], abs(value)
                for other in range(channels):
                    reach = reaches[c, other]
                    for oy in range(max(y - reach, 0), min(y + reach + 1, rows)):
                        for ox in range(max(x - reach, 0), min(x + reach + 1, columns)):
                            at = stage_at[other, oy & 1, ox & 1]
                            if at > stage:
                                row, column = y + MARGIN - 2 * (oy >> 1), x + MARGIN - 2 * (ox >> 1)
                                for n in range(3):
                                    sums[other, oy, ox, n] += weights[at, other, c, row, column, n] * size
                                sums[other, oy, ox, 3] += weights[at, other, c, row, column, 3] * value


@compiled_loosely
def _slopes_of_symbols(symbols, neighbourhood, by_sums, by_symbol):
    """What the derivatives by ``sums`` come to by the symbols: zeros change ``mean`` alone."""
    stage_at, reaches, weights = neighbourhood
    channels, rows, columns = symbols.shape
    for c in range(channels):
        for y in range(rows):
            for x in range(columns):
                value, stage, total = symbols[c, y, x], stage_at[c, y & 1, x & 1], np.float32(0)
                for oy in range(max(y - 1, 0), min(y + 2, rows)):
                    for ox in range(max(x - 1, 0), min(x + 2, columns)):
                        at = stage_at[c, oy & 1, ox & 1]
                        if at > stage:
                            row, column = y + MARGIN - 2 * (oy >> 1), x + MARGIN - 2 * (ox >> 1)
                            total += weights[at, c, c, row, column, 3] * by_sums[c, oy, ox, 3]
                if value != 0:
                    sign = np.float32(1 if value > 0 else -1)
                    for other in range(channels):
                        reach = reaches[c, other]
                        for oy in range(max(y - reach, 0), min(y + reach + 1, rows)):
                            for ox in range(max(x - reach, 0), min(x + reach + 1, columns)):
                                at = stage_at[other, oy & 1, ox & 1]
                                if at > stage:
                                    row, column = y + MARGIN - 2 * (oy >> 1), x + MARGIN - 2 * (ox >> 1)
                                    for n in range(3):
                                        along = weights[at, other, c, row, column, n] * by_sums[other, oy, ox, n]
                                        total += sign * along
                by_symbol[c, y, x] = total


@compiled_loosely
def level_cost(
    symbols, side, neighbourhood, logarithms, hidden, hidden_bias, output, bias,
    backwards, learns, signs, location, scale, by_symbol, by_hidden, by_hidden_bias, by_output, by_bias,
):  # fmt: skip
    """Bits of one level of one frame.

    ``symbols``: (C, rows, columns), int32. ``side``: (C + 2, rows, columns) or more. ``neighbourhood``: as
    ``rate.neighbourhood`` gives it. ``hidden``: (FEATURES, HIDDEN). ``location`` (in symbols), ``scale``: (C, rows,
    columns), results. With ``backwards`` also the derivatives of the bits: by symbols, shaped like them, through the
    context alone; the others are added to the arrays. ``signs``: factors of the symbols' derivatives, like
    ``location``, or empty.
    """
    channels, rows, columns = symbols.shape
    stage_at = neighbourhood[0]
    around = np.zeros((channels, rows, columns, 4), np.int32)
    _sum_up(symbols, neighbourhood, around)
    by_around = np.zeros((channels, rows, columns, 4) if backwards else (0, 0, 0, 0), np.float32)
    seen = np.zeros(FEATURES, np.float32)
    sums = np.zeros(HIDDEN, np.float32)
    back = np.zeros(HIDDEN, np.float32)
    sizes = np.zeros(_KNOWN, np.float32)
    step = np.float32(LOG_STEP) / _LN2
    total = 0.0
    for c in range(channels):
        for y in range(rows):
            for x in range(columns):
                stage = stage_at[c, y & 1, x & 1]
                near, wide, cross = around[c, y, x, 0], around[c, y, x, 1], around[c, y, x, 2]
                mean = around[c, y, x, 3]
                is_near = near + wide + cross + abs(mean) + abs(symbols[c, y, x]) != 0
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
                for f in range(0 if is_near else _KNOWN, FEATURES):
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
                inverse = inverse_scale(width)
                apart = np.float32(symbols[c, y, x]) - place
                distance = abs(apart)
                mass, narrow, below, lower, share, tail = _probability(distance, inverse)
                mass = max(mass, _LEAST)
                total -= log2(mass)
                if not backwards or mass <= _LEAST or not (is_near or learns):
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
                if learns:
                    by_bias[c, 0] += by0 * _BIAS_STEP
                    by_bias[c, 1] += by1 * _BIAS_STEP
                by0 *= _OUTPUT_STEP
                by1 *= _OUTPUT_STEP
                for u in range(HIDDEN):
                    free = sums[u] >= 0 and sums[u] <= HIDDEN_BOUND
                    back[u] = by0 * output[0, u] + by1 * output[1, u] if free else np.float32(0)
                if learns:
                    for u in range(HIDDEN):
                        unit = min(max(sums[u], np.float32(0)), np.float32(HIDDEN_BOUND))
                        by_output[0, u] += by0 * unit
                        by_output[1, u] += by1 * unit
                        by_hidden_bias[stage, u] += back[u]
                    for f in range(0 if is_near else _KNOWN, FEATURES):
                        feature = seen[f] * _HIDDEN_STEP
                        for u in range(HIDDEN):
                            by_hidden[f, u] += back[u] * feature
                if not is_near:
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
                by_around[c, y, x, 0], by_around[c, y, x, 1] = by_near, by_wide
                by_around[c, y, x, 2], by_around[c, y, x, 3] = by_cross, by_mean
    if backwards:
        _slopes_of_symbols(symbols, neighbourhood, by_around, by_symbol)
    return total


@compiled_loosely
def laplace_cost(distance, inverse):
    """Bits at ``distance`` from the location, of a table with this inverse scale."""
    return -log2(max(_probability(distance, inverse)[0], _LEAST))
