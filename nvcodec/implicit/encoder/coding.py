"""From a tuned model to what is coded: symbols of weights and latents, their scales, and what all of it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nvcodec.core.gop import CodingUnit
from nvcodec.encoder.rate import laplace_bits, level_estimate
from nvcodec.entropy.context import ChannelLayout
from nvcodec.entropy.symbols import CountingChannel
from nvcodec.entropy.tables import SCALES
from nvcodec.exact.convolution import Conv2d
from nvcodec.exact.latents import Grid, Latent
from nvcodec.exact.operation import Shape
from nvcodec.implicit.latents import (
    SCALE_STEP,
    LatentModel,
    ReferenceView,
    code_latents,
    context_of_width_8,
    side_features,
)
from nvcodec.implicit.weights import ConvSymbols, code_convolution

__all__ = ["LevelSymbols", "conv_symbols", "counted_bits", "fitted_scales", "latent_symbols", "weight_bits"]


def conv_symbols(layer: Conv2d, fraction_in: int) -> ConvSymbols:
    """What is coded of a layer."""
    weight = layer.weight_symbols().cpu().numpy().astype(np.int32)
    exponent = layer.exponents(fraction_in).cpu().numpy().astype(np.int32)
    return ConvSymbols(weight, exponent, layer.bias_symbols().cpu().numpy().astype(np.int32), layer.bias_shift)


def weight_bits(layers: Sequence[Conv2d]) -> float:
    """Bits of all weights, scales and biases, as the coder will spend them."""
    channel = CountingChannel()
    for layer in layers:
        out, into, rows, columns = layer.weight.shape
        code_convolution(channel, (out, into, rows, columns), conv_symbols(layer, layer.fraction))
    return channel.bits


@dataclass(frozen=True)
class LevelSymbols:
    """The latents of a segment by level, (T, C, H, W) integers on the CPU, those that are coarser in time last."""

    latents: list[Tensor]
    grids: dict[int, Tensor]


def latent_symbols(layers: Sequence[Latent]) -> LevelSymbols:
    """What is coded of latents, as they are now."""
    latents = [layer.symbols().cpu() for layer in layers if not isinstance(layer, Grid)]
    grids = {layer.level: layer.symbols().cpu() for layer in layers if isinstance(layer, Grid)}
    return LevelSymbols(latents, grids)


def _of_unit(symbols: LevelSymbols, unit: CodingUnit) -> list[Tensor]:
    numbers = [frame.display for frame in unit.frames]
    return [level[numbers] for level in symbols.latents]


def fitted_scales(
    symbols: LevelSymbols, units: Sequence[CodingUnit], views: Sequence[ReferenceView | None], classes: int
) -> LatentModel:
    """The scale of each channel that takes the fewest bits. ``views``: what the references of each unit say."""
    costs = [np.zeros((classes, level.shape[1], SCALES)) for level in symbols.latents]
    for unit, view in zip(units, views, strict=True):
        known: Tensor | None = None
        for cost, level in zip(costs, _of_unit(symbols, unit), strict=True):
            here = min(int(unit.reference_count > 0), classes - 1)
            cost[here] += _costs_of_scales(level, known, view)
            known = level
    grids = [_costs_of_scales(grid, None, None)[None].repeat(classes, 0) for grid in symbols.grids.values()]
    return LatentModel(tuple(cost.argmin(2) for cost in (*costs, *grids)))


def _costs_of_scales(level: Tensor, coarser: Tensor | None, view: ReferenceView | None) -> np.ndarray:
    """(C, SCALES): bits of each channel of (B, C, H, W) symbols for every scale it may start from."""
    batch, channels = level.shape[:2]
    used = torch.from_numpy(np.flatnonzero(level.flatten(1).any(1).numpy()))
    total = np.zeros((channels, SCALES))
    if not len(used):
        return total
    side = side_features(Shape(*level.shape[1:]), batch, coarser, view)
    layout = ChannelLayout((0,) * channels)
    middle = torch.tensor([0.0, SCALE_STEP * SCALES / 2]).repeat(channels, 1)
    for b in used.tolist():
        location, scale = level_estimate(level[b], side[b], layout, context_of_width_8(), middle)
        for start in range(SCALES):
            bits = laplace_bits(level[b], location, (scale + (start - SCALES // 2)).clamp(0, SCALES - 1))
            total[:, start] += bits.flatten(1).sum(1).numpy()
    return total


def counted_bits(
    symbols: LevelSymbols, model: LatentModel, units: Sequence[CodingUnit], views: Sequence[ReferenceView | None]
) -> float:
    """Bits of all latents, as the coder will spend them."""
    channel = CountingChannel()
    for unit, view in zip(units, views, strict=True):
        levels = _of_unit(symbols, unit)
        shapes = [Shape(*level.shape[1:]) for level in levels]
        code_latents(channel, shapes, len(unit.frames), model, unit.reference_count > 0, view, levels, [])
    for k, grid in enumerate(symbols.grids.values()):
        shape = Shape(*grid.shape[1:])
        code_latents(channel, [shape], len(grid), model, False, None, [grid], [], first=len(symbols.latents) + k)
    return channel.bits
