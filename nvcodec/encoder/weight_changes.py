"""Which changes of a network are worth their bits: pruning and quantising by rate and distortion.

The cost of moving a weight is second order: ``H/2 * delta**2``, H the sensitivity of the distortion (the diagonal of
the Gauss-Newton Hessian, estimated with random signs). For every tensor the step, the scales and each symbol are chosen
to minimise distortion over lambda plus bits; a weight goes back to its starting value (is pruned) when that is worth
more than what it brings.
"""

from __future__ import annotations

import numpy as np

from nvcodec.entropy.tables import FRACTIONS, SCALES, TABLE_BOUND, table_bits
from nvcodec.entropy.weights import STEPS, TensorChange, TensorSpec, best_scales, row_length

__all__ = ["best_change"]

_ROUNDS = 3
_SIDE_BITS_TENSOR = 11
_SIDE_BITS_ROW = 2.5
_COSTS = table_bits()[::FRACTIONS].astype(np.float64)  # (SCALES, 2 * TABLE_BOUND + 1)


def best_change(spec: TensorSpec, difference: np.ndarray, sensitivity: np.ndarray, price: float) -> TensorChange | None:
    """The change of a tensor that is worth the most, None where none is.

    ``difference``: from where it starts, in its integer units, real numbers. ``sensitivity``: bits lost per squared
    unit (H / 2 lambda). ``price``: weight of the change's own bits, 1 for the optimum.
    """
    length = row_length(spec)
    rows = difference.reshape(-1, length)
    sensitivity = sensitivity.reshape(rows.shape)
    best_cost = float((sensitivity * rows**2).sum())  # leaving the tensor untouched
    best: TensorChange | None = None
    for step_index, step in enumerate(STEPS):
        symbols, scales, cost = _choose_symbols(rows / step, sensitivity * step**2, price)
        if cost < best_cost and symbols.any():
            best_cost, best = cost, TensorChange(symbols.reshape(spec.shape), step_index, scales)
    if best is not None:
        best.scales = best_scales(best.symbols, spec)
    return best


def _choose_symbols(target: np.ndarray, sensitivity: np.ndarray, price: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Symbols for rows of real ``target`` in steps: alternate between scales and symbols."""
    nearest = np.rint(target).clip(-TABLE_BOUND, TABLE_BOUND)
    symbols = nearest
    cost = np.inf
    scales = np.zeros(len(target), dtype=int)
    for _ in range(_ROUNDS):
        histogram = np.stack(
            [np.bincount((row + TABLE_BOUND).astype(int), minlength=2 * TABLE_BOUND + 1) for row in symbols]
        )
        scales = (histogram @ _COSTS.T).argmin(1)
        scales = scales.clip(0, SCALES - 1)
        row_costs = _COSTS[scales] * price
        options = np.stack([nearest, nearest - np.sign(nearest), np.zeros_like(nearest)])
        bits = np.take_along_axis(row_costs[None].repeat(3, 0), (options + TABLE_BOUND).astype(int), axis=2)
        costs = sensitivity * (target - options) ** 2 + bits
        choice = costs.argmin(0)
        symbols = np.take_along_axis(options, choice[None], axis=0)[0]
        cost = float(np.take_along_axis(costs, choice[None], axis=0).sum())
    side = _SIDE_BITS_TENSOR + (_SIDE_BITS_ROW * len(target) if len(target) > 1 else 0)
    return symbols.astype(np.int32), scales, cost + side * price
