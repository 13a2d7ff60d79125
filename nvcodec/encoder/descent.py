"""Coordinate descent on the residual symbols: one after the other, each with its exact error and all its bits.

``nvcodec.encoder.decisions.best_symbols`` moves many symbols at once by a model that takes the bands for orthogonal.
Where the importance of blocks differs they are not; here the error that a symbol leaves is known to all that follow.
What the cell adds is taken as given. Inside a level a symbol is weighed on the image that the level's bands are added
to: the synthesis from there on is nearly orthonormal, so its samples are as important as the picture is there.
"""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nvcodec.encoder.rate import all_taps, model_arrays, padded_even
from nvcodec.entropy.context import MARGIN, ChannelLayout, ContextWeights, log_table, stage_of
from nvcodec.fixedpoint import Rounding
from nvcodec.model.grid import APPEARANCE_LEVELS, BANDS, channel_gains, expand_steps, grid_filters, pack_planes
from nvcodec.model.warprnn import AppearanceSide
from nvcodec.parallel import run_all

__all__ = ["descended_levels"]


def descended_levels(
    levels: list[Tensor],
    gains: Tensor,
    rest: Tensor,
    weights: Tensor,
    side: AppearanceSide,
    context: ContextWeights,
    depth: int,
    lmbda: float,
) -> list[Tensor]:
    """The levels after every symbol was visited once, coarsest level first.

    ``rest``: (B, 6, h, w); the expanded grid added to it is the error. ``weights``: (B, 6, h, w), of the squared
    errors. ``lmbda``: weighted squared error per bit. Runs on the CPU.
    """
    visit = _Visit(levels, side, context, depth, lmbda)
    gains, rest, weights = gains.detach().cpu(), rest.cpu(), weights.cpu()
    curvatures = _curvatures(2 * weights, levels)
    for level in reversed(range(APPEARANCE_LEVELS)):
        slopes = _slopes(visit.tensors(), gains, rest, weights)
        amplitudes = channel_gains(gains, level).flatten().numpy()
        if level == APPEARANCE_LEVELS - 1:
            visit.descend(level, BANDS, slopes[-1], curvatures[-1], amplitudes)
            slopes = _slopes(visit.tensors(), gains, rest, weights)
        visit.descend(level, 0, slopes[level], curvatures[level], amplitudes)
    return [level.to(like.device) for level, like in zip(visit.tensors(), levels, strict=True)]


def _curvatures(weights: Tensor, levels: list[Tensor]) -> list[Tensor]:
    """Second derivatives of the error by the samples of the images that each level adds to, finest first, and last by
    the means: (B, planes, rows, columns) each. Outside the picture nothing counts."""
    found = [F.pixel_shuffle(weights[:, :4], 2)]
    image = torch.cat([weights[:, :4].mean(1, keepdim=True), weights[:, 4:]], dim=1)
    for _ in levels:
        found.append(image)
        image = F.avg_pool2d(F.pad(image, (0, image.shape[3] % 2, 0, image.shape[2] % 2)), 2)
    return found


def _slopes(levels: list[Tensor], gains: Tensor, rest: Tensor, weights: Tensor) -> list[Tensor]:
    """First derivatives of the error, as ``_curvatures``."""
    with torch.enable_grad():
        images = expand_steps([level.requires_grad_() for level in levels], gains, Rounding.NONE)
        error = ((pack_planes(images) + rest).square() * weights).sum()
        return list(torch.autograd.grad(error, images))


class _Visit:
    """The symbols of one unit, and what their bits depend on, as the compiled code takes them."""

    def __init__(
        self, levels: list[Tensor], side: AppearanceSide, context: ContextWeights, depth: int, lmbda: float
    ) -> None:
        self.levels = [level.detach().cpu().numpy().copy() for level in levels]
        self._sizes = np.array([level.shape[2:] for level in levels])
        self._lmbda = np.float32(lmbda)
        layouts = [side.layout(k) for k in range(len(levels))]
        self._stage_at, self._related = zip(*map(_relations, layouts), strict=True)
        self._taps, self._starts, _ = zip(*map(all_taps, layouts), strict=True)
        self._sides = [
            tuple(side.fixed(k)[b].cpu().numpy() for k in range(len(levels))) for b in range(len(self.levels[0]))
        ]
        self._bits = [tuple(np.full(level.shape[1:], -1, np.float32) for level in levels) for _ in self.levels[0]]
        self._model = model_arrays(context)
        self._biases = tuple(context.bias(depth, k, layout).detach().cpu().numpy() for k, layout in enumerate(layouts))

    def tensors(self) -> list[Tensor]:
        return [torch.from_numpy(level) for level in self.levels]

    def descend(self, level: int, first: int, slopes: Tensor, curvatures: Tensor, gains: np.ndarray) -> None:
        """Visit the bands of a level, or its means where ``first`` says so."""
        run_all([partial(self._descend, b, level, first, slopes, curvatures, gains) for b in range(len(slopes))])

    def _descend(self, b: int, level: int, first: int, slopes: Tensor, curvatures: Tensor, gains: np.ndarray) -> None:
        from nvcodec.encoder import descent_kernels as kernels  # brings a compiler: only where frames are encoded

        padded = tuple(padded_even(plane[b], MARGIN) for plane in self.levels)
        context = (
            self._sides[b], self._taps, self._starts, self._stage_at, self._related,
            log_table(torch.device("cpu")).numpy(), *self._model, self._biases,
        )  # fmt: skip
        kernels.descend_level(
            level, first, slopes[b].numpy().copy(), curvatures[b].contiguous().numpy(), gains, grid_filters(),
            self._sizes, self._lmbda, padded, self._bits[b], context,
        )  # fmt: skip
        rows, columns = self._sizes[level]
        self.levels[level][b] = padded[level][:, MARGIN : MARGIN + rows, MARGIN : MARGIN + columns]


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
