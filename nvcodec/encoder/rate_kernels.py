"""What symbols cost and how that depends on everything, in compiled code: ``nvcodec.encoder.rate`` on a CPU.

One pass over the symbols of a level takes the context model forwards and, where it is wanted, backwards. Most symbols
lie in surroundings of zeros, whose features need no sums.
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
    STAGES,
    WEIGHT_SHIFT,
)
from nvcodec.entropy.context_cpu import occupied
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
def level_cost(
    symbols, rows, columns, side, taps, starts, phases, logarithms, hidden, hidden_bias, output, bias,
    backwards, signs, location, scale, by_symbol, by_hidden, by_hidden_bias, by_output, by_bias,
):  # fmt: skip
    """Bits of one level of one frame.

    ``symbols``: (C, even rows + 2 MARGIN, even columns + 2 MARGIN), int32, zeros around. ``rows``, ``columns``: of them
    inside. ``side``: (C + 2, even rows, even columns). ``taps``, ``starts``, ``phases``: of all stages, as
    ``context_cpu.stage_taps`` gives them, (stages, ...). ``hidden``: (FEATURES, HIDDEN). ``location`` (in symbols),
    ``scale``: (C, rows, columns), results. With ``backwards`` also the derivatives of the bits, added to the ``by_``
    arrays; those by symbols through the context alone. ``signs``: factors of the symbols' derivatives, like
    ``location``, or empty.
    """
    channels = symbols.shape[0]
    near_any = np.zeros((rows, columns), np.bool_)
    occupied(symbols, near_any)
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
                    is_near = near_any[y, x]
                    near, wide, cross, mean = 0, 0, 0, 0
                    if is_near:
                        for t in range(starts[stage, c], starts[stage, c + 1]):
                            value = symbols[taps[stage, t, 0], 2 * i + taps[stage, t, 1], 2 * j + taps[stage, t, 2]]
                            if value != 0:
                                size = abs(value)
                                near += taps[stage, t, 3] * size
                                wide += taps[stage, t, 4] * size
                                cross += taps[stage, t, 5] * size
                                mean += taps[stage, t, 6] * value
                        alone = near + wide + cross + abs(mean) == 0
                        is_near = not alone or symbols[c, y + MARGIN, x + MARGIN] != 0
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
                    apart = np.float32(symbols[c, y + MARGIN, x + MARGIN]) - place
                    distance = abs(apart)
                    mass, narrow, below, lower, share, tail = _probability(distance, inverse)
                    mass = max(mass, _LEAST)
                    total -= log2(mass)
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


@compiled_loosely
def laplace_cost(distance, inverse):
    """Bits at ``distance`` from the location, of a table with this inverse scale."""
    return -log2(max(_probability(distance, inverse)[0], _LEAST))
