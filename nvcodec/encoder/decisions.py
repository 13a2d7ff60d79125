"""Which values the symbols of a grid take: rate against distortion, symbol by symbol.

The distortion is modelled by its gradient and curvature, and many symbols move at once, each priced by itself.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from nvcodec.encoder.rate import LevelRate, laplace_bits
from nvcodec.model.grid import SYMBOL_BOUND
from nvcodec.parallel import run_all

__all__ = ["best_symbols"]


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
