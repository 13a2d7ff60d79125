"""What symbols cost and how that depends on the model, in compiled code, for ``nvcodec.encoder.rate``.

One pass over the symbols of a level takes the context model forwards and, where it is wanted, backwards. Most symbols
are zero, so the others say to their surroundings what these see.
"""

from __future__ import annotations

import math

import numpy as np

from nvcodec.core.compiled import compiled_loosely
from nvcodec.encoder.power_kernels import exp2, log2
from nvcodec.entropy.context import (
    FEATURE_BOUND,
    FEATURES,
    HIDDEN,
    HIDDEN_BOUND,
    LOCATION_BOUND,
    LOG_BOUND,
    MARGIN,
    OUTPUT_SHIFT,
    OUTPUT_STEP_BITS,
    WEIGHT_SHIFT,
)
from nvcodec.entropy.tables import FRACTIONS, SCALES, WIDE_SCALE, WIDE_SHARE_BITS

__all__ = ["inverse_scale", "laplace_cost", "level_cost"]

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
    narrow = below + np.float32(upper >= 0) * (_ONE - below - below) - lower
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
def _look(c, y, around, side, logarithms, seen):
    """The features of row ``y`` of a channel, (columns, FEATURES), times _HIDDEN_STEP."""
    channels, _, columns, _ = around.shape
    for x in range(columns):
        near, wide, cross, mean = around[c, y, x, 0], around[c, y, x, 1], around[c, y, x, 2], around[c, y, x, 3]
        mean = min(max(mean, -FEATURE_BOUND), FEATURE_BOUND)
        seen[x, 0] = logarithms[min(near, LOG_BOUND)] * _HIDDEN_STEP
        seen[x, 1] = logarithms[min(wide, LOG_BOUND)] * _HIDDEN_STEP
        seen[x, 2] = logarithms[min(cross, LOG_BOUND)] * _HIDDEN_STEP
        seen[x, 3] = np.float32(mean) * _HIDDEN_STEP
        seen[x, 4] = logarithms[abs(mean)] * _HIDDEN_STEP
        seen[x, 5] = side[c, y, x] * _HIDDEN_STEP
        seen[x, 6] = side[channels, y, x] * _HIDDEN_STEP
        seen[x, 7] = side[channels + 1, y, x] * _HIDDEN_STEP


@compiled_loosely
def _hidden_sum(u, stage, x, seen, hidden, hidden_bias):
    """What hidden unit ``u`` adds up."""
    total = hidden_bias[stage, u] + hidden[0, u] * seen[x, 0] + hidden[1, u] * seen[x, 1] + hidden[2, u] * seen[x, 2]
    total += hidden[3, u] * seen[x, 3] + hidden[4, u] * seen[x, 4] + hidden[5, u] * seen[x, 5]
    return total + hidden[6, u] * seen[x, 6] + hidden[7, u] * seen[x, 7]


@compiled_loosely
def _outputs(stages, seen, hidden, hidden_bias, output, bias0, bias1, out):
    """Both outputs of the model for a row, (2, columns). ``stages``: of even and odd columns."""
    for x in range(len(seen)):
        stage = stages[x & 1]
        out0, out1 = np.float32(0), np.float32(0)
        for u in range(HIDDEN):
            unit = _hidden_sum(u, stage, x, seen, hidden, hidden_bias)
            unit = min(max(unit, np.float32(0)), np.float32(HIDDEN_BOUND))
            out0 += output[0, u] * unit
            out1 += output[1, u] * unit
        out[0, x] = out0 * _OUTPUT_STEP + bias0 * _BIAS_STEP
        out[1, x] = out1 * _OUTPUT_STEP + bias1 * _BIAS_STEP


@compiled_loosely
def _price(symbols, out, location, scale, by_out):
    """Bits of a row, and ``by_out``, (2, columns), their derivatives by the outputs ``out``."""
    total = np.float32(0)
    for x in range(len(symbols)):
        out0, out1 = out[0, x], out[1, x]
        place = min(max(out0, np.float32(-LOCATION_BOUND)), np.float32(LOCATION_BOUND)) * _QUARTER
        width = min(max(out1, np.float32(0)), np.float32(SCALES - 1))
        location[x] = place
        scale[x] = width
        inverse = inverse_scale(width)
        apart = np.float32(symbols[x]) - place
        distance = abs(apart)
        mass, narrow, below, lower, share, tail = _probability(distance, inverse)
        counts = np.float32(mass > _LEAST)
        mass = max(mass, _LEAST)
        total -= log2(mass)
        by_mass = -counts / (_LN2 * mass)
        by_distance = inverse * (lower - below) * (_ONE - share) - _WIDE * tail * share
        by_inverse = ((_HALF - distance) * below + (_HALF + distance) * lower) * (_ONE - share)
        by_inverse -= _HALF * share * (tail - narrow)
        side = np.float32(2) * np.float32(apart >= 0) - _ONE
        is_inside = np.float32(abs(out0) <= LOCATION_BOUND)
        by_out[0, x] = -by_mass * by_distance * side * _QUARTER * is_inside
        is_inside = np.float32(abs(out1 - np.float32((SCALES - 1) / 2)) <= np.float32((SCALES - 1) / 2))
        by_out[1, x] = by_mass * by_inverse * inverse * (-_LN2 / np.float32(7)) * is_inside
    return total


@compiled_loosely
def _backwards(stages, seen, by_out, hidden, hidden_bias, output, back):
    """The derivatives by what each hidden unit adds up, then what it puts out: ``back``, (columns, 2 * HIDDEN).

    ``hidden`` and ``output`` in one row, so that a loop over units becomes a few vector instructions.
    """
    for x in range(len(seen)):
        stage, by0, by1 = stages[x & 1], by_out[0, x] * _OUTPUT_STEP, by_out[1, x] * _OUTPUT_STEP
        f0, f1, f2, f3 = seen[x, 0], seen[x, 1], seen[x, 2], seen[x, 3]
        f4, f5, f6, f7 = seen[x, 4], seen[x, 5], seen[x, 6], seen[x, 7]
        for u in range(HIDDEN):
            total = hidden_bias[stage, u] + hidden[u] * f0 + hidden[HIDDEN + u] * f1 + hidden[2 * HIDDEN + u] * f2
            total += hidden[3 * HIDDEN + u] * f3 + hidden[4 * HIDDEN + u] * f4 + hidden[5 * HIDDEN + u] * f5
            total += hidden[6 * HIDDEN + u] * f6 + hidden[7 * HIDDEN + u] * f7
            unit = min(max(total, np.float32(0)), np.float32(HIDDEN_BOUND))
            back[x, u] = (by0 * output[u] + by1 * output[HIDDEN + u]) * np.float32(unit == total)
            back[x, HIDDEN + u] = unit * _OUTPUT_STEP


@compiled_loosely
def _learn(stages, seen, by_out, back, by_model, by_hidden_bias):
    """Add the derivatives of a row by hidden weights, feature by feature, and output weights: ``by_model``, in a row;
    and by hidden biases."""
    for x in range(len(seen)):
        f0, f1, f2, f3 = seen[x, 0], seen[x, 1], seen[x, 2], seen[x, 3]
        f4, f5, f6, f7 = seen[x, 4], seen[x, 5], seen[x, 6], seen[x, 7]
        by0, by1 = by_out[0, x], by_out[1, x]
        for u in range(HIDDEN):
            by_sum, unit = back[x, u], back[x, HIDDEN + u]
            by_model[u] += f0 * by_sum
            by_model[HIDDEN + u] += f1 * by_sum
            by_model[2 * HIDDEN + u] += f2 * by_sum
            by_model[3 * HIDDEN + u] += f3 * by_sum
            by_model[4 * HIDDEN + u] += f4 * by_sum
            by_model[5 * HIDDEN + u] += f5 * by_sum
            by_model[6 * HIDDEN + u] += f6 * by_sum
            by_model[7 * HIDDEN + u] += f7 * by_sum
            by_model[8 * HIDDEN + u] += by0 * unit
            by_model[9 * HIDDEN + u] += by1 * unit
        stage = stages[x & 1]
        for u in range(HIDDEN):
            by_hidden_bias[stage, u] += back[x, u]


@compiled_loosely
def level_cost(
    symbols, side, neighbourhood, logarithms, hidden, hidden_bias, output, bias,
    backwards, signs, location, scale, by_hidden, by_hidden_bias, by_output, by_bias,
):  # fmt: skip
    """Bits of one level of one frame.

    ``symbols``: (C, rows, columns), int32. ``side``: (C + 2, rows, columns) or more. ``neighbourhood``: as
    ``rate.neighbourhood`` gives it. ``hidden``: (FEATURES, HIDDEN). ``location`` (in symbols), ``scale``: (C, rows,
    columns), results. With ``backwards`` the derivatives of the bits by the model are added to the other arrays.
    ``signs``: factors of the bits of each symbol in them, like ``location``, or empty.
    """
    channels, rows, columns = symbols.shape
    stage_at = neighbourhood[0]
    around = np.zeros((channels, rows, columns, 4), np.int32)
    _sum_up(symbols, neighbourhood, around)
    seen = np.zeros((columns, FEATURES), np.float32)
    out, by_out = np.zeros((2, columns), np.float32), np.zeros((2, columns), np.float32)
    back, by_model = np.zeros((columns, 2 * HIDDEN), np.float32), np.zeros((FEATURES + 2) * HIDDEN, np.float32)
    hidden_row, output_row = hidden.reshape(-1), output.reshape(-1)
    total = 0.0
    for c in range(channels):
        for y in range(rows):
            stages = stage_at[c, y & 1]
            _look(c, y, around, side, logarithms, seen)
            _outputs(stages, seen, hidden, hidden_bias, output, bias[c, 0], bias[c, 1], out)
            total += _price(symbols[c, y], out, location[c, y], scale[c, y], by_out)
            if not backwards:
                continue
            if signs.size:
                by_out *= signs[c, y]
            _backwards(stages, seen, by_out, hidden_row, hidden_bias, output_row, back)
            by_bias[c, 0] += by_out[0].sum() * _BIAS_STEP
            by_bias[c, 1] += by_out[1].sum() * _BIAS_STEP
            _learn(stages, seen, by_out, back, by_model, by_hidden_bias)
    by_hidden += by_model[: FEATURES * HIDDEN].reshape(FEATURES, HIDDEN)
    by_output += by_model[FEATURES * HIDDEN :].reshape(2, HIDDEN)
    return total


@compiled_loosely
def laplace_cost(distance, inverse):
    """Bits at ``distance`` from the location, of a table with this inverse scale."""
    return -log2(max(_probability(distance, inverse)[0], _LEAST))
