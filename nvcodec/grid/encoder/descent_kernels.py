"""Coordinate descent on the symbols of a level in compiled code: ``nvcodec.grid.encoder.descent``.

Nearly all of the work is to say what a move does to the bits of the symbols around it. So the sums over what each
symbol sees are kept up, and so are its bits once they are known; a move is given up as soon as it cannot pay any more.

The symbols of a frame stand in one row: level by level, finest first, by channel, row and column in it. ``symbols``,
(N,) int32, and, kept up for each of them, ``sums``, (N, 5): near, wide, cross, mean and parent, before any logarithm;
``bits``, (N,), below 0 where they are not known. ``shapes``: (levels, 5), of each level its channels, rows and columns,
and where its symbols begin, and where its blocks do among those of all levels.

``layout``, a tuple: ``stage_at``, ``reaches`` and ``weights`` of ``rate.Neighbourhood`` for all levels, which are the
first axis. ``model``, a tuple: ``sides``, (2, M), mismatch and activity of all blocks; ``logarithms``, ``hidden``
(FEATURES, HIDDEN), ``hidden_bias``, ``output``; ``biases``, (levels * most channels of one, 2).

``places``, a tuple, is room for a symbol and all that it is context of: ``ids``, (R,), in the row; ``shares``, (R, 5),
its weight in their sums; ``labels``, (R, 3), their stages, rows of ``biases``, and blocks.
"""

from __future__ import annotations

import numpy as np

from nvcodec.core.compiled import compiled, compiled_loosely
from nvcodec.encoder.rate_kernels import inverse_scale, laplace_cost
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
from nvcodec.grid.wavelet_cpu import source_place
from nvcodec.motion.levels import SYMBOL_BOUND

__all__ = ["descend_level", "sum_up"]

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
_PARENT_OWN = 9
"""Weight in ``parent`` of the symbol right above; those around it have 1."""


@compiled_loosely
def _bits_of(stage, bias, block, value, near, wide, cross, mean, parent, model):
    """Bits of the symbol ``value`` by all that the decoder knows before it."""
    sides, logarithms, hidden, hidden_bias, output, biases = model
    mean = min(max(mean, -FEATURE_BOUND), FEATURE_BOUND)
    f0 = logarithms[min(near, LOG_BOUND)] * _HIDDEN_STEP
    f1 = logarithms[min(wide, LOG_BOUND)] * _HIDDEN_STEP
    f2 = logarithms[min(cross, LOG_BOUND)] * _HIDDEN_STEP
    f3 = np.float32(mean) * _HIDDEN_STEP
    f4 = logarithms[abs(mean)] * _HIDDEN_STEP
    f5 = logarithms[min(4 * parent, LOG_BOUND)] * _HIDDEN_STEP
    f6 = sides[0, block] * _HIDDEN_STEP
    f7 = sides[1, block] * _HIDDEN_STEP
    out0, out1 = np.float32(0), np.float32(0)
    for u in range(HIDDEN):
        unit = hidden_bias[stage, u] + hidden[0, u] * f0 + hidden[1, u] * f1 + hidden[2, u] * f2 + hidden[3, u] * f3
        unit += hidden[4, u] * f4 + hidden[5, u] * f5 + hidden[6, u] * f6 + hidden[7, u] * f7
        unit = min(max(unit, np.float32(0)), np.float32(HIDDEN_BOUND))
        out0 += output[0, u] * unit
        out1 += output[1, u] * unit
    out0 = out0 * _OUTPUT_STEP + biases[bias, 0] * _BIAS_STEP
    out1 = out1 * _OUTPUT_STEP + biases[bias, 1] * _BIAS_STEP
    place = min(max(out0, np.float32(-LOCATION_BOUND)), np.float32(LOCATION_BOUND)) * _QUARTER
    width = min(max(out1, np.float32(0)), np.float32(SCALES - 1))
    return laplace_cost(abs(np.float32(value) - place), inverse_scale(width))


@compiled_loosely
def _look_around(k, c, y, x, shapes, layout, places):
    """Fill ``places`` with a symbol, its own share 0, and all those that it is context of. How many they are."""
    stage_at, reaches, weights = layout
    ids, shares, labels = places
    channels, rows, columns, first, first_block = shapes[k, 0], shapes[k, 1], shapes[k, 2], shapes[k, 3], shapes[k, 4]
    most = stage_at.shape[1]
    stage = stage_at[k, c, y & 1, x & 1]
    ids[0] = first + (c * rows + y) * columns + x
    shares[0] = 0
    labels[0, 0], labels[0, 1], labels[0, 2] = stage, k * most + c, first_block + y * columns + x
    count = 1
    for other in range(channels):
        reach = reaches[k, c, other]
        for oy in range(max(y - reach, 0), min(y + reach + 1, rows)):
            for ox in range(max(x - reach, 0), min(x + reach + 1, columns)):
                at = stage_at[k, other, oy & 1, ox & 1]
                if at > stage:
                    ids[count] = first + (other * rows + oy) * columns + ox
                    row, column = y + MARGIN - 2 * (oy >> 1), x + MARGIN - 2 * (ox >> 1)
                    for n in range(4):
                        shares[count, n] = weights[k, at, other, c, row, column, n]
                    shares[count, 4] = 0
                    labels[count, 0], labels[count, 1] = at, k * most + other
                    labels[count, 2] = first_block + oy * columns + ox
                    count += 1
    if k > 0 and c < shapes[k - 1, 0]:
        rows, columns, first, first_block = shapes[k - 1, 1], shapes[k - 1, 2], shapes[k - 1, 3], shapes[k - 1, 4]
        for oy in range(max(2 * y - 2, 0), min(2 * y + 4, rows)):
            for ox in range(max(2 * x - 2, 0), min(2 * x + 4, columns)):
                ids[count] = first + (c * rows + oy) * columns + ox
                for n in range(4):
                    shares[count, n] = 0
                shares[count, 4] = _PARENT_OWN if oy >> 1 == y and ox >> 1 == x else 1
                labels[count, 0], labels[count, 1] = stage_at[k - 1, c, oy & 1, ox & 1], (k - 1) * most + c
                labels[count, 2] = first_block + oy * columns + ox
                count += 1
    return count


@compiled_loosely
def _move(count, value, other, sums, places):
    """The symbol at the first of ``places`` was ``value`` and is ``other`` now: bring the sums of the others up to
    date."""
    ids, shares, _ = places
    size, shift = abs(other) - abs(value), other - value
    for n in range(1, count):
        i = ids[n]
        sums[i, 0] += shares[n, 0] * size
        sums[i, 1] += shares[n, 1] * size
        sums[i, 2] += shares[n, 2] * size
        sums[i, 3] += shares[n, 3] * shift
        sums[i, 4] += shares[n, 4] * size


@compiled_loosely
def sum_up(shapes, layout, places, symbols, sums):
    """Set ``sums``, all zero, for the symbols that there are."""
    for k in range(len(shapes)):
        i = shapes[k, 3]
        for c in range(shapes[k, 0]):
            for y in range(shapes[k, 1]):
                for x in range(shapes[k, 2]):
                    if symbols[i] != 0:
                        _move(_look_around(k, c, y, x, shapes, layout, places), 0, symbols[i], sums, places)
                    i += 1


@compiled
def _bases(part, count, length, filters):
    """What each of ``count`` low (``part`` 0) or high (1) symbols along an axis adds to a line of ``length`` samples:
    how many samples, (count,), which, (count, most), and the weights, (count, most)."""
    reach = filters.shape[2] // 2
    most = min(2 * (4 * reach + 1), 2 * count)
    sizes, samples = np.zeros(count, np.int64), np.zeros((count, most), np.int64)
    weights = np.zeros((count, most), np.float32)
    for i in range(count):
        for j in range(max(i - 2 * reach, 0), min(i + 2 * reach + 1, count)):
            for phase in range(2):
                weight = np.float32(0)
                for t in range(filters.shape[2]):
                    if source_place(j + t - reach, part, length) == i:
                        weight += filters[phase, part, t]
                if weight != 0 and 2 * j + phase < length:
                    samples[i, sizes[i]], weights[i, sizes[i]] = 2 * j + phase, weight
                    sizes[i] += 1
    return sizes, samples, weights


@compiled
def _alone(count):
    """The same for means, each of which is the one sample that it adds to."""
    samples = np.arange(count).reshape(count, 1)
    return np.ones(count, np.int64), samples, np.ones((count, 1), np.float32)


@compiled_loosely
def _bits_before(count, symbols, sums, bits, model, places):
    """What the symbols at ``places`` take; ``bits`` learns those that it did not know."""
    ids, _, labels = places
    total = np.float32(0)
    for n in range(count):
        i = ids[n]
        if bits[i] < 0:
            bits[i] = _bits_of(
                labels[n, 0], labels[n, 1], labels[n, 2], symbols[i], sums[i, 0], sums[i, 1], sums[i, 2], sums[i, 3],
                sums[i, 4], model,
            )  # fmt: skip
        total += bits[i]
    return total


@compiled_loosely
def _price_after(cost, before, lmbda, count, value, other, symbols, sums, bits, model, places, after):
    """``cost``, and what the bits at ``places`` add to it, of which ``before`` are paid already, once the symbol at the
    first of them is ``other`` instead of ``value``; _FAR once it is clear that it stays above 0. ``after``: each of
    them."""
    ids, shares, labels = places
    size, shift = abs(other) - abs(value), other - value
    cost -= lmbda * before
    left = before
    for n in range(count):
        i = ids[n]
        after[n] = _bits_of(
            labels[n, 0], labels[n, 1], labels[n, 2], other if n == 0 else symbols[i],
            sums[i, 0] + shares[n, 0] * size, sums[i, 1] + shares[n, 1] * size, sums[i, 2] + shares[n, 2] * size,
            sums[i, 3] + shares[n, 3] * shift, sums[i, 4] + shares[n, 4] * size, model,
        )  # fmt: skip
        cost += lmbda * after[n]
        left -= bits[i]
        if cost + _LEAST_KEPT * lmbda * left >= 0:
            return _FAR
    return cost


@compiled_loosely
def descend_level(
    k, from_channel, slopes, curvatures, gains, filters, lmbda, shapes, layout, model, places, symbols, sums, bits
):
    """Visit the bands of level ``k`` of a frame one by one, or from channel ``from_channel`` > 0 on its means, and take
    the value with the lowest cost, all bits counted that depend on it.

    Tried are the neighbouring value downhill, where that lowers the error, the next one towards zero, and zero.
    ``slopes``, changed with every move, and ``curvatures``: (planes, rows, columns), first and second derivatives of
    the error by the samples of the image that the bands are added to, or that the means are. ``gains``: by channel.
    ``filters``: as ``grid_filters``. ``symbols`` are changed in place, ``sums`` and ``bits`` with them; see above.
    """
    ids = places[0]
    line_slopes, line_curves = np.zeros(slopes.shape[2], np.float32), np.zeros(slopes.shape[2], np.float32)
    after, best_after = np.zeros(len(ids), np.float32), np.zeros(len(ids), np.float32)
    channels, rows, columns, start, block_start = shapes[k, 0], shapes[k, 1], shapes[k, 2], shapes[k, 3], shapes[k, 4]
    last = channels if from_channel else 3 * slopes.shape[0]
    for c in range(from_channel, last):
        plane, band = (c - from_channel, 0) if from_channel else (c // 3, c % 3)
        gain = gains[c]
        if from_channel:
            highs, all_ys, all_by_y = _alone(rows)
            wides, all_xs, all_by_x = _alone(columns)
        else:
            highs, all_ys, all_by_y = _bases(0 if band == 0 else 1, rows, slopes.shape[1], filters)
            wides, all_xs, all_by_x = _bases(0 if band == 1 else 1, columns, slopes.shape[2], filters)
        for y in range(rows):
            high, ys, by_y = highs[y], all_ys[y], all_by_y[y]
            line_slopes[:] = 0
            line_curves[:] = 0
            for i in range(high):
                for x in range(slopes.shape[2]):
                    line_slopes[x] += slopes[plane, ys[i], x] * by_y[i]
                    line_curves[x] += curvatures[plane, ys[i], x] * by_y[i] * by_y[i]
            for x in range(columns):
                wide = wides[x]
                slope, curve = np.float32(0), np.float32(0)
                for j in range(wide):
                    weight = all_by_x[x, j]
                    slope += line_slopes[all_xs[x, j]] * weight
                    curve += line_curves[all_xs[x, j]] * weight * weight
                slope *= gain
                curve *= gain * gain
                here = start + (c * rows + y) * columns + x
                value = symbols[here]
                is_steep = abs(slope) > _HALF * curve
                if value == 0:
                    if not is_steep:
                        continue
                    own = np.float32(0)
                    for other in range(2):
                        own = -own + _bits_of(
                            layout[0][k, c, y & 1, x & 1], k * layout[0].shape[1] + c, block_start + y * columns + x,
                            -other if slope > 0 else other, sums[here, 0], sums[here, 1], sums[here, 2], sums[here, 3],
                            sums[here, 4], model,
                        )  # fmt: skip
                    if abs(slope) - _HALF * curve < _MOST_RETURNED * lmbda * own:
                        continue
                count = _look_around(k, c, y, x, shapes, layout, places)
                before = _bits_before(count, symbols, sums, bits, model, places)
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
                    cost = least + _price_after(
                        -gained, before, lmbda, count, value, other, symbols, sums, bits, model, places, after
                    )
                    if cost < least:
                        best, least = other, cost
                        best_after[:count] = after[:count]
                if best != value:
                    symbols[here] = best
                    _move(count, value, best, sums, places)
                    for n in range(count):
                        bits[ids[n]] = best_after[n]
                    moved = gain * np.float32(best - value)
                    for i in range(high):
                        for j in range(wide):
                            at, weight = all_xs[x, j], all_by_x[x, j]
                            slopes[plane, ys[i], at] += curvatures[plane, ys[i], at] * moved * by_y[i] * weight
                    for j in range(wide):
                        line_slopes[all_xs[x, j]] += line_curves[all_xs[x, j]] * moved * all_by_x[x, j]
