"""Motion search of a coding unit: the corrections that the grid adds to the predicted motion.

Top down through the motion levels (strides 32, 16, 8): at each level every cell of the grid looks for the
correction with the lowest rate-distortion cost given what the coarser levels already corrected. The distortion is
the squared error of the blended, exactly warped luma; a bit is priced as everywhere else. All cells of a
level try the same offset at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from nvcodec.encoder.rate import laplace_bits
from nvcodec.gop import CodedFrame
from nvcodec.model.grid import MOTION_LEVELS, SYMBOL_BOUND
from nvcodec.model.motion import MotionPrediction, add_grid_motion, scale_vectors
from nvcodec.model.warp import BLOCK, Reference, unpack_luma

__all__ = ["LevelPrice", "search_motion"]

_DIRECTIONS = ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))
_STEPS = (4, 2, 1)
_FULL_RANGE = 24
"""The full search covers this many samples of the working domain in every direction (twice as many of luma)."""
_WINDOWS = (1, 3)
"""Sides, in blocks, of the windows that the full search matches: single blocks, and blocks with their neighbours."""
_QUARTERS = 8
"""Quarter luma samples in one sample of the working domain."""
_CELL = 4
"""A block in samples of the working domain."""
_ERROR_UNIT = 1 / 16
"""10-bit squared error to 8-bit."""


_KNEE = 0.5
"""Of lambda: squared error a sample above which the residual mends most of it, so that more error matters less."""
_NEAR_BITS = 2.0
_APART_BITS = 4.0
"""A symbol like its neighbours costs about this, whatever the context model says while they are still zero."""


@dataclass(frozen=True)
class LevelPrice:
    """What the context model makes of one level of one frame: (channels, rows, columns) each."""

    location: Tensor
    scale: Tensor

    def bits(self, symbols: Tensor, channels: slice) -> Tensor:
        """Bits of a field of symbols (channels, rows, columns), summed over channels: (rows, columns)."""
        priced = laplace_bits(symbols, self.location[channels], self.scale[channels])
        mean = _neighbour_mean(symbols)
        apart = (symbols - mean).abs()
        near = _NEAR_BITS + _APART_BITS * apart.clamp(max=1) + 2 * torch.log2(1 + apart)
        return torch.where(mean == 0, priced, torch.minimum(priced, near)).sum(0)


def _neighbour_mean(symbols: Tensor) -> Tensor:
    """Mean of the eight neighbours, borders repeated, (channels, rows, columns)."""
    padded = F.pad(symbols[None], (1, 1, 1, 1), mode="replicate")
    return ((F.avg_pool2d(padded, 3, 1) * 9)[0] - symbols) / 8


class _Search:
    """The state of the search for one frame."""

    def __init__(
        self,
        target: Tensor,
        references: tuple[Reference, ...],
        prediction: MotionPrediction,
        frame: CodedFrame,
        levels: list[Tensor],
        lmbda: float,
        prices: list[LevelPrice],
    ) -> None:
        self.target = unpack_luma(target[:4])
        self.references = references
        self.prediction = prediction
        self.frame = frame
        self.levels = levels
        self.lmbda = lmbda
        self.prices = prices

    def warped(self, levels: list[Tensor]) -> list[Tensor]:
        """Luma of every reference, displaced by the motion that ``levels`` give."""
        fields, _ = add_grid_motion(self.prediction.fields, levels, self.frame.distances)
        return [r.luma.gather(f, BLOCK)[0] for r, f in zip(self.references, fields, strict=True)]

    def errors(self, levels: list[Tensor]) -> Tensor:
        """Squared error of each block under its blend, (block rows, block columns)."""
        warped = self.warped(levels)
        if len(warped) == 1:
            return _block_sums((warped[0] - self.target).square())
        height, width = self.target.shape
        blend = levels[0][4:5].repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2)[0, :height, :width]
        mixed = 0.5 * (warped[0] * (1 + blend) + warped[1] * (1 - blend))
        return _block_sums((mixed - self.target).square())

    def worth(self, levels: list[Tensor]) -> Tensor:
        """What the errors of the prediction will cost once the residual has mended them, (block rows, columns)."""
        knee = _KNEE * self.lmbda * BLOCK * BLOCK
        errors = self.errors(levels)
        return torch.where(errors < knee, errors, knee * (1 + torch.log(errors.clamp(min=knee) / knee)))

    def cost(self, level: int, channels: slice, candidate: Tensor) -> Tensor:
        """Cost of each cell of ``level`` if its ``channels`` took the values of ``candidate``."""
        levels = list(self.levels)
        changed = levels[level].clone()
        changed[channels] = candidate
        levels[level] = changed
        errors = self.worth(levels)
        scale = 1 << level
        if level:
            errors = F.avg_pool2d(
                F.pad(errors, (0, -errors.shape[1] % scale, 0, -errors.shape[0] % scale))[None, None],
                scale,
                divisor_override=1,
            )[0, 0]
        return errors + self.lmbda * self.prices[level].bits(candidate, channels)

    def improve(self, level: int, channels: slice, seeds: Sequence[Tensor] = ()) -> None:
        """Search ``channels`` (y, x) of one level: the seeds, offsets of falling size, the neighbours' values."""
        best = self.levels[level][channels].clone()
        cost = self.cost(level, channels, best)
        zero = torch.zeros_like(best)
        for start in (zero, *seeds):
            best, cost = self._keep_better(level, channels, best, cost, start)
        best, cost = self._from_neighbours(level, channels, best, cost)
        for step in _STEPS:
            centre = best
            for dy, dx in _DIRECTIONS:
                offset = torch.tensor([dy * step, dx * step], dtype=best.dtype, device=best.device)[:, None, None]
                candidate = (centre + offset).clamp(-SYMBOL_BOUND, SYMBOL_BOUND)
                best, cost = self._keep_better(level, channels, best, cost, candidate)
        best, cost = self._from_neighbours(level, channels, best, cost)
        best, cost = self._keep_better(level, channels, best, cost, zero)
        self.levels[level][channels] = best

    def seed(self, level: int, found: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """What ``level`` would have to hold for its cells to move as the full search ``found``: common and own part."""
        levels = [x if k > level else torch.zeros_like(x) for k, x in enumerate(self.levels)]
        levels[0] = torch.cat([levels[0][:4], self.levels[0][4:]])
        fields, _ = add_grid_motion(self.prediction.fields, levels, self.frame.distances)
        common = _cell_median(found[0] - fields[0], level)
        if len(found) == 1:
            return common, None
        followed = scale_vectors(common, self.frame.distances[1], self.frame.distances[0])
        return common, (_cell_median(found[1] - fields[1], level) - followed).clamp(-SYMBOL_BOUND, SYMBOL_BOUND)

    def _from_neighbours(self, level: int, channels: slice, best: Tensor, cost: Tensor) -> tuple[Tensor, Tensor]:
        for reach in (1, 2):
            centre = best
            for dy, dx in _DIRECTIONS[:4]:
                moved = torch.roll(centre, (dy * reach, dx * reach), (1, 2))
                best, cost = self._keep_better(level, channels, best, cost, moved)
        return best, cost

    def _keep_better(
        self, level: int, channels: slice, best: Tensor, cost: Tensor, candidate: Tensor
    ) -> tuple[Tensor, Tensor]:
        other = self.cost(level, channels, candidate)
        better = other < cost
        return torch.where(better, candidate, best), torch.where(better, other, cost)

    def choose_blend(self) -> None:
        """Average, first or second reference for each block."""
        costs = []
        for value in (0, 1, -1):
            blend = torch.full_like(self.levels[0][4:5], float(value))
            levels = [self.levels[0].clone(), *self.levels[1:]]
            levels[0][4:5] = blend
            costs.append(self.worth(levels) + self.lmbda * self.prices[0].bits(blend, slice(4, 5)))
        choice = torch.stack(costs).argmin(0)
        self.levels[0][4] = torch.tensor([0.0, 1.0, -1.0], device=choice.device)[choice]


def _block_sums(error: Tensor) -> Tensor:
    height, width = error.shape
    padded = F.pad(error, (0, -width % BLOCK, 0, -height % BLOCK))
    return F.avg_pool2d(padded[None, None], BLOCK, divisor_override=1)[0, 0] * _ERROR_UNIT


@torch.no_grad()
def search_motion(
    target: Tensor,
    references: tuple[Reference, ...],
    prediction: MotionPrediction,
    frame: CodedFrame,
    start: list[Tensor],
    lmbda: float,
    prices: list[LevelPrice],
) -> list[Tensor]:
    """Motion levels (finest first) for one frame.

    ``target``: (6, h, w) source samples with 10 bits. ``start``: levels to start from, each (channels, rows,
    columns). ``lmbda``: squared 8-bit luma error per bit. ``prices``: what the context model asks, for each level.
    """
    search = _Search(target, references, prediction, frame, [level.clone() for level in start], lmbda, prices)
    fresh = not any(bool(level.any()) for level in start)
    found: list[list[Tensor]] = []
    if fresh:
        for window in _WINDOWS:
            found.append(
                [
                    _polished(search.target, r, _full_search(target, r, f, lmbda, window), lmbda)
                    for r, f in zip(references, prediction.fields, strict=True)
                ]
            )
    common, own = slice(0, 2), slice(2, 4)
    two = len(references) == 2
    for level in reversed(range(MOTION_LEVELS)):
        seeds = [search.seed(level, fields) for fields in found]
        search.improve(level, common, [first for first, _ in seeds])
        if two:
            search.improve(level, own, [second for _, second in seeds if second is not None])
    if two:
        search.choose_blend()
        search.improve(0, common)
        search.improve(0, own)
        search.choose_blend()
    return search.levels


def _cell_median(field: Tensor, level: int) -> Tensor:
    """(2, block rows, block columns) to (2, cells): the median vector component of each cell, within symbol bounds."""
    side = 1 << level
    padded = F.pad(field[None], (0, -field.shape[2] % side, 0, -field.shape[1] % side), mode="replicate")[0]
    cells = padded.unfold(1, side, side).unfold(2, side, side).flatten(3)
    return cells.median(3).values.clamp(-SYMBOL_BOUND, SYMBOL_BOUND)


def _full_search(target: Tensor, reference: Reference, predicted: Tensor, lmbda: float, blocks: int) -> Tensor:
    """The vector of each block, whole samples of the working domain, that matches best in a window around it.

    Absolute differences of the mean luma over ``blocks`` by ``blocks`` blocks; a vector away from ``predicted`` pays.
    """
    wanted, there = target[:4].mean(0), reference.packed[:4].mean(0)
    rows, columns = wanted.shape
    reach = _FULL_RANGE
    padded = F.pad(there[None], (reach, reach, reach, reach), mode="replicate")[0]
    frame = (0, -columns % _CELL, 0, -rows % _CELL)
    price = 4.0 * lmbda**0.5
    best = predicted
    cost = torch.full(predicted.shape[1:], float("inf"), device=wanted.device)
    across = torch.arange(-reach, reach + 1, dtype=predicted.dtype, device=wanted.device) * _QUARTERS
    apart_x = (across[:, None, None] - predicted[1]).abs()
    for dy in range(-reach, reach + 1):
        band = padded[reach + dy : reach + dy + rows].unfold(1, columns, 1).transpose(0, 1)  # (offsets, rows, columns)
        sums = F.avg_pool2d(F.pad((band - wanted).abs(), frame)[None], _CELL, divisor_override=1)
        window = F.avg_pool2d(sums, blocks, 1, blocks // 2, divisor_override=1)[0]
        apart = apart_x + (dy * _QUARTERS - predicted[0]).abs()
        other, column = (window + price * torch.log2(1 + apart)).min(0)
        better = other < cost
        cost = torch.where(better, other, cost)
        vector = torch.stack([torch.full_like(cost, float(dy * _QUARTERS)), across[column]])
        best = torch.where(better, vector, best)
    return best


def _polished(wanted: Tensor, reference: Reference, field: Tensor, lmbda: float) -> Tensor:
    """``field`` moved to the nearest minimum of each block's squared error, in quarter samples of luma ``wanted``."""

    def cost(vectors: Tensor) -> Tensor:
        apart = (vectors - field).abs().sum(0)
        return _block_sums((reference.luma.gather(vectors, BLOCK)[0] - wanted).square()) + lmbda * torch.log2(1 + apart)

    best, least = field, cost(field)
    for step in (4, *_STEPS):
        centre = best
        for dy, dx in _DIRECTIONS:
            candidate = (
                centre + torch.tensor([dy * step, dx * step], dtype=field.dtype, device=field.device)[:, None, None]
            )
            other = cost(candidate)
            better = other < least
            best, least = torch.where(better, candidate, best), torch.where(better, other, least)
    return best
