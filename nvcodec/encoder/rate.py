"""The float twin of the entropy coder: what symbols cost, and how that changes with the model.

``level_costs`` gives it and its derivatives from compiled code; ``level_rates`` says it in tensor operations that
autograd follows, to train the starting network and to compare with.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from nvcodec.core.fixedpoint import Rounding
from nvcodec.core.parallel import run_all
from nvcodec.entropy.context import (
    FEATURES,
    HIDDEN,
    MARGIN,
    STAGES,
    ChannelLayout,
    ContextWeights,
    features,
    location_and_scale,
    log_table,
    stage_kernels,
    stage_of,
)
from nvcodec.entropy.symbols import pad_even
from nvcodec.entropy.tables import FRACTIONS, WIDE_SCALE, WIDE_SHARE_BITS

__all__ = [
    "LevelRate",
    "ModelArrays",
    "Neighbourhood",
    "SideFeatures",
    "laplace_bits",
    "level_costs",
    "level_estimate",
    "level_rates",
    "model_arrays",
    "neighbourhood",
]

_ALL_STAGES = tuple(range(STAGES))
_MIN_PROBABILITY = 2.0**-24


class SideFeatures(Protocol):
    """What the context model sees of a unit's levels besides their symbols: ``MotionSide``, ``AppearanceSide``."""

    def layout(self, level: int) -> ChannelLayout: ...

    def __call__(self, level: int, coarser: list[Tensor]) -> Tensor:
        """(B, channels + 2, rows, columns). ``coarser``: the levels already read, the next one first."""


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
    side: SideFeatures,
    weights: ContextWeights,
    depth: int,
    *,
    free_empty: bool = True,
) -> list[LevelRate]:
    """Rates of all levels (finest first) of a coding unit; integer ``levels``, (B, C, rows, columns).

    A level without symbols costs its flag only; with ``free_empty=False`` its zeros are priced as if they were
    coded, so that the model learns how likely they are.
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


def level_costs(
    levels: list[Tensor],
    side: SideFeatures,
    weights: ContextWeights,
    depth: int,
    *,
    free_empty: bool = True,
    slopes: bool = False,
    signs: list[Tensor] | None = None,
) -> tuple[list[LevelRate], list[Tensor] | None]:
    """As ``level_rates``, without a graph; with ``slopes`` also the derivatives of all bits by the parameters of the
    context model, in the order of the bitstream.

    ``signs``: factors for the bits of each symbol in the derivatives, shaped like ``levels``.
    """
    model = model_arrays(weights)
    costs = []
    for k, level in enumerate(levels):
        layout, known = side.layout(k), side(k, levels[k + 1 :])
        bias = weights.bias(depth, k, layout).detach().numpy()
        for b in range(len(level)):
            cost = _FrameCost(level[b], known[b], layout, model, bias, k, slopes, signs[k][b] if signs else None)
            cost.is_counted = not free_empty or bool(level[b].any())
            costs.append(cost)
    run_all([cost.run for cost in costs])
    by_level = [[cost for cost in costs if cost.level == k] for k in range(len(levels))]
    rates = []
    for here in by_level:
        bits = torch.tensor([cost.bits + 1 for cost in here])
        rates.append(LevelRate(bits, _stacked([c.location for c in here]), _stacked([c.scale for c in here])))
    if not slopes:
        return rates, None
    return rates, _parameter_slopes([c for c in costs if c.is_counted], weights, depth)


def level_estimate(
    symbols: Tensor, side: Tensor, layout: ChannelLayout, weights: ContextWeights, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Location, in quarters of a symbol, and scale index, real numbers, of each symbol (C, rows, columns) of a level.

    ``side``: (C + 2, rows, columns). ``bias``: (C, 2).
    """
    cost = _FrameCost(symbols, side, layout, model_arrays(weights), bias.numpy(), 0, False, None)
    cost.run()
    return torch.from_numpy(cost.location), torch.from_numpy(cost.scale)


class ModelArrays(NamedTuple):
    """A context model as the compiled code takes it."""

    hidden: np.ndarray
    hidden_bias: np.ndarray
    output: np.ndarray


def model_arrays(weights: ContextWeights) -> ModelArrays:
    hidden, bias, output = (x.detach().numpy() for x in (weights.hidden, weights.hidden_bias, weights.output))
    return ModelArrays(np.ascontiguousarray(hidden.T), bias, output)


class Neighbourhood(NamedTuple):
    """Which symbols of a level know which, as the compiled code takes it. ``stage_at``: (C, 2, 2), the stage that reads
    each phase of a channel. ``reaches``: (C, C), how far a symbol of one channel counts in another one, -1 where it
    does not.
    ``weights``: (STAGES, C, C, 6, 6, 4), near, wide, cross and mean of ``stage_kernels``."""

    stage_at: np.ndarray
    reaches: np.ndarray
    weights: np.ndarray


@cache
def neighbourhood(layout: ChannelLayout) -> Neighbourhood:
    channels = len(layout)
    stage_at = np.zeros((channels, 2, 2), np.int64)
    weights = np.zeros((STAGES, channels, channels, 6, 6, 4), np.int32)
    for stage, phases in enumerate(stage_of(channels)):
        for c, (row, column) in enumerate(phases):
            stage_at[c, row, column] = stage
        magnitude, signed = stage_kernels(layout, stage)
        kernels = torch.cat([magnitude.reshape(3, channels, channels, 6, 6), signed[None]])
        weights[stage] = kernels.movedim(0, -1).numpy()
    reaches = [
        [MARGIN if other == c else (1 if layout.related(other, c) else -1) for other in range(channels)]
        for c in range(channels)
    ]
    return Neighbourhood(stage_at, np.array(reaches), weights)


class _FrameCost:
    """One level of one frame on its way through ``rate_kernels.level_cost``."""

    def __init__(
        self,
        symbols: Tensor,
        side: Tensor,
        layout: ChannelLayout,
        model: ModelArrays,
        bias: np.ndarray,
        level: int,
        slopes: bool,
        signs: Tensor | None,
    ) -> None:
        self.level = level
        self.layout = layout
        self.is_counted = True
        self.bits = 0.0
        self._slopes = slopes
        self._model = model
        self._bias = bias
        channels, rows, columns = symbols.shape
        shape = (channels, rows, columns)
        self._symbols = symbols.numpy().astype(np.int32)
        self._side = side.numpy()
        self._signs = np.empty((0, 0, 0), np.float32) if signs is None else signs.numpy()
        self.location, self.scale = np.empty(shape, np.float32), np.empty(shape, np.float32)
        self.by_hidden = np.zeros((FEATURES, HIDDEN), np.float32)
        self.by_hidden_bias = np.zeros((STAGES, HIDDEN), np.float32)
        self.by_output = np.zeros((2, HIDDEN), np.float32)
        self.by_bias = np.zeros((channels, 2), np.float32)

    def run(self) -> None:
        from nvcodec.encoder import rate_kernels as kernels  # brings a compiler: only where frames are encoded

        bits = kernels.level_cost(
            self._symbols, self._side, tuple(neighbourhood(self.layout)), log_table(),
            *self._model, self._bias, self._slopes and self.is_counted, self._signs, self.location, self.scale,
            self.by_hidden, self.by_hidden_bias, self.by_output, self.by_bias,
        )  # fmt: skip
        self.bits = bits if self.is_counted else 0.0


def _stacked(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


def _parameter_slopes(costs: list[_FrameCost], weights: ContextWeights, depth: int) -> list[Tensor]:
    """The derivatives of all levels and frames together."""
    total = ContextWeights(*(torch.zeros_like(getattr(weights, f.name)) for f in fields(weights)))
    for cost in costs:
        total.hidden += torch.from_numpy(cost.by_hidden.T)
        total.hidden_bias += torch.from_numpy(cost.by_hidden_bias)
        total.output += torch.from_numpy(cost.by_output)
        by_bias = torch.from_numpy(cost.by_bias)
        total.output_bias[depth, cost.level] += by_bias.sum(0)
        total.group_bias[cost.level].index_add_(0, torch.tensor(cost.layout.groups), by_bias)
    return [getattr(total, f.name) for f in fields(weights)]
