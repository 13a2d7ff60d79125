"""Which values the symbols of a grid take: rate against distortion, symbol by symbol.

The distortion is modelled by its gradient and curvature. ``best_symbols`` moves many symbols at once, each priced by
itself; ``swept_symbols`` visits them one after the other and counts all the bits that depend on each.
"""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from nvcodec.encoder.rate import LevelRate, all_taps, laplace_bits, model_arrays, padded_even
from nvcodec.entropy.context import MARGIN, ChannelLayout, ContextWeights, log_table, stage_of
from nvcodec.model.grid import SYMBOL_BOUND
from nvcodec.model.warprnn import AppearanceSide
from nvcodec.parallel import run_all

__all__ = ["best_symbols", "swept_symbols"]


@torch.no_grad()
def best_symbols(
    levels: list[Tensor],
    gradients: list[Tensor],
    curvatures: list[Tensor],
    rates: list[LevelRate],
    lmbda: float,
    share: float,
) -> list[Tensor]:
    """The levels after one round of moves: a random ``share`` of the symbols takes the value with the lowest cost.

    The error is modelled by its gradient and curvature, both of the shape of the levels. Of each symbol the values
    around the model's minimum are tried, its present value, the next one downhill, and zero.
    """
    lots = [torch.rand(level.shape, device=level.device) for level in levels]
    choose = _best_level_cpu if levels[0].device.type == "cpu" else _best_level
    results: list[Tensor] = [torch.empty_like(level) for level in levels]

    def task(k: int) -> None:
        results[k] = choose(levels[k], gradients[k], curvatures[k], rates[k], lmbda, lots[k], share)

    run_all([partial(task, k) for k in range(len(levels))])
    return results


def _best_level_cpu(
    level: Tensor, gradient: Tensor, curvature: Tensor, rate: LevelRate, lmbda: float, lots: Tensor, share: float
) -> Tensor:
    from nvcodec.encoder import decision_kernels as kernels

    out = np.empty(level.shape, np.float32)
    for b in range(len(level)):
        kernels.best_symbols(
            level[b].numpy(), gradient[b].numpy(), curvature[b].numpy(), rate.location[b].numpy(),
            rate.scale[b].numpy(), lmbda, lots[b].numpy(), share, SYMBOL_BOUND, out[b],
        )  # fmt: skip
    return torch.from_numpy(out)


def _best_level(
    level: Tensor, gradient: Tensor, curvature: Tensor, rate: LevelRate, lmbda: float, lots: Tensor, share: float
) -> Tensor:
    """The same by tensor operations, for other devices."""
    goal = torch.round(level - gradient / curvature)
    best = level
    cost = lmbda * laplace_bits(level, rate.location, rate.scale)
    for candidate in (goal, goal - torch.sign(goal), level - torch.sign(gradient), torch.zeros_like(level)):
        candidate = candidate.clamp(-SYMBOL_BOUND, SYMBOL_BOUND)
        delta = candidate - level
        bits = laplace_bits(candidate, rate.location, rate.scale)
        other = gradient * delta + 0.5 * curvature * delta * delta + lmbda * bits
        better = other < cost
        best, cost = torch.where(better, candidate, best), torch.where(better, other, cost)
    return torch.where(lots < share, best, level)


@torch.no_grad()
def swept_symbols(
    levels: list[Tensor],
    side: AppearanceSide,
    weights: ContextWeights,
    depth: int,
    gradients: list[Tensor],
    curvatures: list[Tensor],
    lmbda: float,
) -> list[Tensor]:
    """The levels after every symbol was visited once, in compiled code on the CPU.

    Where ``best_symbols`` prices a symbol by itself, here the bits of all those that it is context of count, exactly.
    ``gradients``: of the error alone.
    """
    from nvcodec.encoder import decision_kernels as kernels

    layouts = [side.layout(k) for k in range(len(levels))]
    taps, starts, _ = zip(*map(all_taps, layouts), strict=True)
    stage_at, related = zip(*map(_relations, layouts), strict=True)
    biases = tuple(weights.bias(depth, k, layout).detach().cpu().numpy() for k, layout in enumerate(layouts))
    sizes = np.array([level.shape[2:] for level in levels])
    model = model_arrays(weights)
    swept = [level.cpu().numpy().copy() for level in levels]

    def sweep(b: int) -> None:
        padded = tuple(padded_even(level[b], MARGIN) for level in swept)
        kernels.sweep_symbols(
            sizes, related, tuple(g[b].cpu().numpy() for g in gradients),
            tuple(c[b].cpu().numpy() for c in curvatures), lmbda, padded,
            tuple(side.fixed(k)[b].cpu().numpy() for k in range(len(levels))), taps, starts, stage_at,
            log_table(torch.device("cpu")).numpy(), *model, biases,
        )  # fmt: skip
        for level, result, (rows, columns) in zip(swept, padded, sizes, strict=True):
            level[b] = result[:, MARGIN : MARGIN + rows, MARGIN : MARGIN + columns]

    run_all([partial(sweep, b) for b in range(len(levels[0]))])
    return [torch.from_numpy(level).to(like.device) for level, like in zip(swept, levels, strict=True)]


@cache
def _relations(layout: ChannelLayout) -> tuple[np.ndarray, np.ndarray]:
    """(C, 2, 2): the stage that reads each phase of a channel. (C, C): whether a channel counts for another one."""
    channels = len(layout)
    stages = np.zeros((channels, 2, 2), np.int64)
    for stage, phases in enumerate(stage_of(channels)):
        for c, (row, column) in enumerate(phases):
            stages[c, row, column] = stage
    related = [[layout.related(other, c) for other in range(channels)] for c in range(channels)]
    return stages, np.array(related)
