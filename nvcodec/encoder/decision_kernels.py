"""Decisions on many symbols at once in compiled code: ``nvcodec.encoder.decisions`` on a CPU."""

from __future__ import annotations

import math

import numpy as np

from nvcodec.compiled import compiled_loosely
from nvcodec.encoder.rate_kernels import laplace_cost

__all__ = ["best_symbols"]

_LN2 = np.float32(math.log(2))
_HALF = np.float32(0.5)


@compiled_loosely
def best_symbols(symbols, gradient, curvature, location, scale, lmbda, lots, share, bound, out):
    """The value of every symbol of a level, (C, rows, columns), with the lowest cost by the quadratic model of the
    error, of a few near the model's minimum; only where ``lots``, uniform in 0 .. 1, lie below ``share``.

    ``gradient``: of error and neighbours' bits by the symbols. ``curvature``: of the error, for each symbol.
    """
    channels, rows, columns = symbols.shape
    for c in range(channels):
        for y in range(rows):
            for x in range(columns):
                level, curve = symbols[c, y, x], curvature[c, y, x]
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
                least = lmbda * laplace_cost(abs(level - place), inverse)
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
                    cost += lmbda * laplace_cost(abs(value - place), inverse)
                    if cost < least:
                        least, best = cost, value
                out[c, y, x] = best
