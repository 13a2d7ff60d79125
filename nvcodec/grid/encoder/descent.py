"""Coordinate descent on the residual symbols: one after the other, each with its exact error and all its bits.

Where the importance of blocks differs the bands are not orthogonal; the error that a symbol leaves is known to all that
follow. What the network adds is taken as given. Inside a level a symbol is weighed on the image that the level's bands
are added to: the synthesis from there on is nearly orthonormal, so its samples are as important as the picture is
there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nvcodec.core.fixedpoint import Rounding
from nvcodec.core.parallel import run_all
from nvcodec.encoder.rate import Neighbourhood, model_arrays, neighbourhood
from nvcodec.entropy.context import ChannelLayout, ContextWeights, log_table
from nvcodec.grid.encoder.transform import image_energies
from nvcodec.grid.levels import APPEARANCE_LEVELS, BANDS, channel_gains
from nvcodec.grid.side import AppearanceSide
from nvcodec.grid.wavelet import expand_steps, grid_filters, pack_planes

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
    count: int = APPEARANCE_LEVELS,
) -> list[Tensor]:
    """The levels after every symbol of the ``count`` finest ones was visited once, coarsest level first.

    ``rest``: (B, 6, h, w); the expanded grid added to it is the error. ``weights``: (B, 6, h, w), of the squared
    errors. ``lmbda``: weighted squared error per bit. Runs on the CPU.
    """
    visit = _Visit(levels, side, context, depth, lmbda)
    gains, rest, weights = gains.detach().cpu(), rest.cpu(), weights.cpu()
    curvatures = _curvatures(2 * weights)
    for level in reversed(range(count)):
        slopes = _slopes(visit.tensors(), gains, rest, weights)
        amplitudes = channel_gains(gains, level).flatten().numpy()
        if level == APPEARANCE_LEVELS - 1:
            visit.descend(level, BANDS, slopes[-1], curvatures[-1], amplitudes)
            slopes = _slopes(visit.tensors(), gains, rest, weights)
        visit.descend(level, 0, slopes[level], curvatures[level], amplitudes)
    return [level.to(like.device) for level, like in zip(visit.tensors(), levels, strict=True)]


def _curvatures(weights: Tensor) -> list[Tensor]:
    """Second derivatives of the error by the samples of the images that each level adds to, finest first, and last by
    the means: (B, planes, rows, columns) each. Outside the picture nothing counts."""
    energies = image_energies((weights.shape[2], weights.shape[3]))
    found = [F.pixel_shuffle(weights[:, :4], 2)]
    image = torch.cat([weights[:, :4].mean(1, keepdim=True), weights[:, 4:]], dim=1)
    for energy in energies[1:]:
        found.append(image * energy)
        image = F.avg_pool2d(F.pad(image, (0, image.shape[3] % 2, 0, image.shape[2] % 2)), 2)
    return found


def _slopes(levels: list[Tensor], gains: Tensor, rest: Tensor, weights: Tensor) -> list[Tensor]:
    """First derivatives of the error, as ``_curvatures``."""
    with torch.enable_grad():
        images = expand_steps([level.requires_grad_() for level in levels], gains, Rounding.NONE)
        error = ((pack_planes(images) + rest).square() * weights).sum()
        return list(torch.autograd.grad(error, images))


class _Visit:
    """The symbols of one unit, and what their bits depend on, as ``descent_kernels`` takes them."""

    def __init__(
        self, levels: list[Tensor], side: AppearanceSide, context: ContextWeights, depth: int, lmbda: float
    ) -> None:
        layouts = tuple(side.layout(k) for k in range(len(levels)))
        self._layout = tuple(_neighbourhoods(layouts))
        self._sizes = [level.shape[1:] for level in levels]
        self._shapes = _shapes(self._sizes)
        self._lmbda = np.float32(lmbda)
        biases = np.zeros((len(levels), max(map(len, layouts)), 2), np.float32)
        for k, layout in enumerate(layouts):
            biases[k, : len(layout)] = context.bias(depth, k, layout).detach().cpu().numpy()
        logarithms = log_table()
        frames = range(len(levels[0]))
        self._models = [
            (_in_a_row([side.fixed(k)[b].flatten(1) for k in range(len(levels))]), logarithms, *model_arrays(context),
             biases.reshape(-1, 2))
            for b in frames
        ]  # fmt: skip
        self._symbols = [_in_a_row([level[b].flatten() for level in levels]).astype(np.int32) for b in frames]
        self._sums = [np.zeros((len(symbols), 5), np.int32) for symbols in self._symbols]
        self._bits = [np.full(len(symbols), -1, np.float32) for symbols in self._symbols]
        run_all([partial(self._sum_up, b) for b in frames])

    def tensors(self) -> list[Tensor]:
        """The levels, finest first."""
        return [torch.from_numpy(level) for level in self._levels_of(self._symbols)]

    def descend(self, level: int, first: int, slopes: Tensor, curvatures: Tensor, gains: np.ndarray) -> None:
        """Visit the bands of a level, or its means where ``first`` says so."""
        run_all([partial(self._descend, b, level, first, slopes, curvatures, gains) for b in range(len(slopes))])

    def _descend(self, b: int, level: int, first: int, slopes: Tensor, curvatures: Tensor, gains: np.ndarray) -> None:
        from nvcodec.grid.encoder import descent_kernels as kernels  # brings a compiler: only where frames are encoded

        kernels.descend_level(
            level, first, slopes[b].numpy().copy(), curvatures[b].contiguous().numpy(), gains, grid_filters(),
            self._lmbda, self._shapes, self._layout, self._models[b], self._room(), self._symbols[b], self._sums[b],
            self._bits[b],
        )  # fmt: skip

    def _sum_up(self, b: int) -> None:
        from nvcodec.grid.encoder import descent_kernels as kernels

        kernels.sum_up(self._shapes, self._layout, self._room(), self._symbols[b], self._sums[b])

    def _room(self) -> tuple[np.ndarray, ...]:
        """For a symbol, all those of 5x5 or 3x3 around it in any channel, and of 6x6 in the next finer level."""
        most = 25 + 9 * self._layout[0].shape[1] + 36
        return np.zeros(most, np.int64), np.zeros((most, 5), np.int32), np.zeros((most, 3), np.int64)

    def _levels_of(self, rows: list[np.ndarray]) -> list[np.ndarray]:
        """What stands in a row for each frame, by level: (B, C, rows, columns), float32."""
        cuts = self._shapes[1:, 3].tolist()
        parts = np.split(np.stack(rows).astype(np.float32), cuts, axis=1)
        return [part.reshape(-1, *size) for part, size in zip(parts, self._sizes, strict=True)]


def _in_a_row(parts: list[Tensor]) -> np.ndarray:
    return torch.cat([part.detach().cpu() for part in parts], dim=-1).numpy()


def _shapes(sizes: Sequence[Sequence[int]]) -> np.ndarray:
    """(levels, 5): channels, rows and columns of each level, where its symbols begin and where its blocks do."""
    sides = np.array([tuple(size) for size in sizes], np.int64)
    starts = [np.cumsum(counts) - counts for counts in (sides.prod(1), sides[:, 1:].prod(1))]
    return np.column_stack([sides, *starts])


@cache
def _neighbourhoods(layouts: tuple[ChannelLayout, ...]) -> Neighbourhood:
    """Those of all levels, with a first axis of levels and as many channels as the one with most of them."""
    most = max(map(len, layouts))
    found = [neighbourhood(layout) for layout in layouts]
    more = [(0, most - len(layout)) for layout in layouts]
    return Neighbourhood(
        np.stack([np.pad(n.stage_at, (m, (0, 0), (0, 0))) for n, m in zip(found, more, strict=True)]),
        np.stack([np.pad(n.reaches, (m, m), constant_values=-1) for n, m in zip(found, more, strict=True)]),
        np.stack([np.pad(n.weights, ((0, 0), m, m, *[(0, 0)] * 3)) for n, m in zip(found, more, strict=True)]),
    )
