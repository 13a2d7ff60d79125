"""The float twin of the entropy coder: what symbols cost, differentiably, all stages at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nvcodec.entropy.context import STAGES, ContextWeights, features, location_and_scale, stage_of
from nvcodec.entropy.symbols import pad_even
from nvcodec.entropy.tables import FRACTIONS, WIDE_SCALE, WIDE_SHARE_BITS
from nvcodec.fixedpoint import Rounding
from nvcodec.model.warprnn import AppearanceSide, MotionSide

__all__ = ["LevelRate", "laplace_bits", "level_rates"]

_ALL_STAGES = tuple(range(STAGES))
_MIN_PROBABILITY = 2.0**-24


def laplace_bits(symbols: Tensor, location: Tensor, scale: Tensor) -> Tensor:
    """Bits of integer symbols under a Laplace density integrated over +-1/2.

    ``location`` in symbols; ``scale``: (real-valued) scale index of nvcodec.entropy.tables.
    """
    inverse = 20.0 * torch.exp2(scale * (-1.0 / 7.0))
    distance = (symbols - location).abs()
    share = torch.exp(-0.5 * inverse) * (0.5**WIDE_SHARE_BITS)
    wide = 20.0 * 2.0 ** (-WIDE_SCALE / 7.0)
    probability = _probability(distance, inverse) * (1 - share) + _tail_probability(distance, wide) * share
    return -torch.log2(probability.clamp(min=_MIN_PROBABILITY))


def _probability(distance: Tensor, inverse: Tensor) -> Tensor:
    """Mass of a Laplace distribution over +-1/2 around ``distance``."""
    upper = (0.5 - distance) * inverse
    lower = (-0.5 - distance) * inverse
    below = 0.5 * torch.exp(-upper.abs())
    return torch.where(upper < 0, below, 1 - below) - 0.5 * torch.exp(lower)


def _tail_probability(distance: Tensor, inverse: float) -> Tensor:
    """The same for a wide distribution, by its density."""
    return 0.5 * inverse * torch.exp(distance * -inverse)


@dataclass
class LevelRate:
    """One level: total ``bits`` of each frame (B,), and what each symbol is coded with, (B, C, rows, columns)."""

    bits: Tensor
    location: Tensor
    scale: Tensor


def _from_stages(x: Tensor, rows: int, columns: int) -> Tensor:
    """Inverse of ``at_stages`` over all stages, cropped to (rows, columns)."""
    batch, _, channels, half_rows, half_columns = x.shape
    out = x.new_empty(batch, channels, 2 * half_rows, 2 * half_columns)
    for s, phases in enumerate(stage_of(channels)):
        for c, (row, column) in enumerate(phases):
            out[:, c, row::2, column::2] = x[:, s, c]
    return out[:, :, :rows, :columns]


def level_rates(
    levels: list[Tensor],
    side: AppearanceSide | MotionSide,
    weights: ContextWeights,
    depth: int,
    *,
    free_empty: bool = True,
) -> list[LevelRate]:
    """Rates of all levels (finest first) of a coding unit; integer ``levels``, (B, C, rows, columns).

    A level without symbols costs its flag only; with ``free_empty=False`` its zeros are priced as if they were
    coded, so that the model learns how likely they are. The gradient by ``levels`` is that of the context alone: what
    a symbol does to the bits of those that it is context of.
    """
    rates = []
    for k, level in enumerate(levels):
        rows, columns = level.shape[2:]
        padded = pad_even(level)
        known = pad_even(side(k, levels[k + 1 :]))
        layout = side.layout(k)
        inputs = features(padded, layout, _ALL_STAGES, known, Rounding.NONE)
        bias = weights.bias(depth, k, layout)
        location, scale = location_and_scale(inputs, weights, _ALL_STAGES, bias, Rounding.NONE)
        location = _from_stages(location, rows, columns) * (1.0 / FRACTIONS)
        scale = _from_stages(scale, rows, columns)
        bits = laplace_bits(level.detach(), location, scale).flatten(1).sum(1)
        if free_empty:
            bits = bits * level.detach().flatten(1).any(1)
        bits = bits + 1
        rates.append(LevelRate(bits, location, scale))
    return rates
