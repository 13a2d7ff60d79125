"""What compiled code is compared with: the same by tensor operations, in as few words as that takes."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nvcodec.core.fixedpoint import Rounding, shift_right
from nvcodec.encoder.rate import LevelRate, laplace_bits, level_rates
from nvcodec.entropy.context import MARGIN, ChannelLayout, ContextWeights, features, location_and_scale, log_feature
from nvcodec.entropy.tables import FRACTIONS
from nvcodec.motion.prediction import MERGE_SYMBOLS
from nvcodec.motion.side import MotionSide


def merge_candidates(coarser: Tensor, size: tuple[int, int]) -> Tensor:
    """What a cell can take over from the next coarser level: (4, ..., C, *size) from ``coarser`` (..., C, r, c).

    The cell above it; the nearest cell above or below that one; the nearest one to its left or right; the one in the
    corner between them. The border repeats.
    """
    own, other = [], []
    for dim, length in ((-2, size[0]), (-1, size[1])):
        cell = torch.arange(length)
        own.append(cell >> 1)
        other.append(((cell >> 1) + 2 * (cell & 1) - 1).clamp(0, coarser.shape[dim] - 1))
    return torch.stack([coarser[..., y, :][..., x] for x in (own[1], other[1]) for y in (own[0], other[0])])


def merged(coarser: Tensor, choice: Tensor) -> Tensor:
    """(..., C, rows, columns): for each cell the candidate that ``choice`` (..., rows, columns) names.

    0 is the cell above, 1 its vertical neighbour, -1 its horizontal one, everything else the one in the corner.
    """
    candidates = merge_candidates(coarser, (choice.shape[-2], choice.shape[-1]))
    choice = choice.unsqueeze(-3)
    out = candidates[3]
    for candidate, symbol in zip(candidates[:3], MERGE_SYMBOLS, strict=False):
        out = torch.where(choice == symbol, candidate, out)
    return out


def unrest(total: Tensor, size: tuple[int, int]) -> Tensor:
    """``merge_unrest`` by the sums of the coarser levels, (B, C, r, c)."""
    candidates = merge_candidates(total, size)
    return (candidates[1:] - candidates[0]).abs().sum((0, 2)).unsqueeze(1)


def pool(plane: Tensor, level: int) -> Tensor:
    """(B, 1, h, w) to its level's size: ``Round2(sum over the 2**level x 2**level cell, 2 * level)``."""
    if level == 0:
        return plane
    side = 1 << level
    padded = F.pad(plane, (0, -plane.shape[3] % side, 0, -plane.shape[2] % side))
    return shift_right(F.avg_pool2d(padded, side, divisor_override=1), 2 * level)


def parent(coarser: Tensor, channels: int, size: tuple[int, int]) -> Tensor:
    """``side.parent_logs``."""
    out = torch.zeros(coarser.shape[0], channels, *size)
    shared = min(channels, coarser.shape[1])
    magnitude = coarser[:, :shared].abs()
    around = F.avg_pool2d(magnitude, 3, 1, 1, divisor_override=1) + 8 * magnitude
    logs = log_feature(4 * around, Rounding.EXACT)
    out[:, :shared] = logs.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, : size[0], : size[1]]
    return out


def gradient(plane: Tensor) -> Tensor:
    """``side.gradient``."""
    vertical = F.pad((plane[:, :, 1:] - plane[:, :, :-1]).abs(), (0, 0, 1, 0))
    horizontal = F.pad((plane[:, :, :, 1:] - plane[:, :, :, :-1]).abs(), (1, 0))
    return (vertical + horizontal).sum(1, keepdim=True)


@dataclass(frozen=True)
class TensorContext:
    """``LevelContext`` of ``side``, (B, C + 2, rows, columns)."""

    layout: ChannelLayout
    side: Tensor
    weights: ContextWeights
    output_bias: Tensor

    def stage(self, level: np.ndarray, stage: int) -> tuple[np.ndarray, np.ndarray]:
        """See ``LevelContext.stage``."""
        inner = torch.from_numpy(level[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN].astype(np.float32))
        inputs = features(inner, self.layout, (stage,), self.side, Rounding.EXACT)
        location, scale = location_and_scale(inputs, self.weights, (stage,), self.output_bias, Rounding.EXACT)
        whole = torch.floor(location * (1.0 / FRACTIONS))
        tables = (scale * FRACTIONS + location - whole * FRACTIONS)[:, 0].to(torch.uint8).numpy()
        return tables, whole[:, 0].to(torch.int32).numpy()


def costs_by_autograd(
    levels: list[Tensor],
    side: MotionSide,
    weights: ContextWeights,
    depth: int,
    free_empty: bool,
    slopes: bool,
    signs: list[Tensor] | None,
) -> tuple[list[LevelRate], list[Tensor] | None]:
    """``level_costs``."""
    parameters = [getattr(weights, f.name).detach().requires_grad_(slopes) for f in fields(weights)]
    rates = level_rates(levels, side, ContextWeights(*parameters), depth, free_empty=free_empty)
    found = None
    if slopes:
        total = torch.stack([r.bits.sum() for r in rates]).sum()
        if signs:
            total = torch.zeros(())
            for level, r, sign in zip(levels, rates, signs, strict=True):
                counted = level.flatten(1).any(1).reshape(-1, 1, 1, 1) if free_empty else 1
                total = total + (laplace_bits(level, r.location, r.scale) * sign * counted).sum()
        if total.requires_grad:
            found = list(torch.autograd.grad(total, parameters, materialize_grads=True))
        else:
            found = [torch.zeros_like(x) for x in parameters]
    return [LevelRate(r.bits.detach(), r.location.detach(), r.scale.detach()) for r in rates], found
