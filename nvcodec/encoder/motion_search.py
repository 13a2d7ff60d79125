"""Motion search of a coding unit: the corrections that the grid adds to the predicted motion.

Top down through the motion levels (strides 128 to 8): at each level every cell of the grid looks for the merge choice
and the correction with the lowest rate-distortion cost given what the coarser levels already corrected. The distortion
is the squared error of the blended, exactly warped luma; a bit is priced as everywhere else. All cells of a level try
the same offset at once.
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
from nvcodec.model.motion import (
    MERGE_SYMBOLS,
    MotionPrediction,
    add_grid_motion,
    grid_vectors,
    merge_candidates,
    merged,
    scale_vectors,
)
from nvcodec.model.warp import BLOCK, Reference, unpack_luma

__all__ = ["LevelPrice", "search_motion"]

_DIRECTIONS = ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))
_COARSE = 3
"""From this level on only what the full search found is tried: what such a cell still lacks, finer levels code."""
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
_MERGE_BITS = 3.0
"""Most that a merge choice is believed to cost, beside its magnitude."""


@dataclass(frozen=True)
class LevelPrice:
    """What the context model makes of one level of one frame: (channels, rows, columns) each. ``merge``: the channel
    of the merge choice, None at the coarsest level."""

    location: Tensor
    scale: Tensor
    merge: int | None

    def bits(self, symbols: Tensor) -> Tensor:
        """Bits of all symbols of a level (channels, rows, columns), summed over channels: (rows, columns)."""
        priced = laplace_bits(symbols, self.location, self.scale)
        mean = _neighbour_mean(symbols)
        apart = (symbols - mean).abs()
        near = _NEAR_BITS + _APART_BITS * apart.clamp(max=1) + 2 * torch.log2(1 + apart)
        bits = torch.where(mean == 0, priced, torch.minimum(priced, near))
        if self.merge is not None:
            choice = symbols[self.merge]
            bits[self.merge] = torch.where(
                choice == 0, priced[self.merge], priced[self.merge].clamp(max=_MERGE_BITS + choice.abs())
            )
        return bits.sum(0)


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
        self._best = levels[0]
        self._cost = torch.zeros(())

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
        blend = levels[0][-1:].repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2)[0, :height, :width]
        mixed = 0.5 * (warped[0] * (1 + blend) + warped[1] * (1 - blend))
        return _block_sums((mixed - self.target).square())

    def worth(self, levels: list[Tensor]) -> Tensor:
        """What the errors of the prediction will cost once the residual has mended them, (block rows, columns)."""
        return self._worth(self.errors(levels), BLOCK)

    def _worth(self, errors: Tensor, side: int) -> Tensor:
        """The same for squared errors summed over ``side`` x ``side`` samples."""
        knee = _KNEE * self.lmbda * side * side
        return torch.where(errors < knee, errors, knee * (1 + torch.log(errors.clamp(min=knee) / knee)))

    def cost(self, level: int, candidate: Tensor) -> Tensor:
        """Cost of each cell of ``level`` if it took the symbols of ``candidate`` (channels, rows, columns)."""
        levels = list(self.levels)
        levels[level] = candidate
        errors = self.worth(levels)
        scale = 1 << level
        if level:
            errors = F.avg_pool2d(
                F.pad(errors, (0, -errors.shape[1] % scale, 0, -errors.shape[0] % scale))[None, None],
                scale,
                divisor_override=1,
            )[0, 0]
        return errors + self.lmbda * self.prices[level].bits(candidate)

    def improve(self, level: int, channels: slice, seeds: Sequence[Tensor] = ()) -> None:
        """Search ``channels`` (y, x) of one level: nothing, the merge choices, the seeds, offsets of falling size, the
        vectors of the neighbours. ``seeds``: (2, rows, columns), corrections to arrive at."""
        self._best = self.levels[level]
        self._cost = self.cost(level, self._best)
        self._try_symbols(level, channels, torch.zeros_like(self._best[channels]))
        self._try_merging(level)
        for seed in seeds:
            self._try_vectors(level, channels, seed)
        if level < _COARSE:
            self._try_around(level, channels)
        self._try_merging(level)
        self._try_symbols(level, channels, torch.zeros_like(self._best[channels]))
        self.levels[level] = self._best

    def _try_around(self, level: int, channels: slice) -> None:
        self._try_neighbours(level, channels)
        for step in _STEPS:
            centre = self._best[channels]
            for dy, dx in _DIRECTIONS:
                offset = torch.tensor([dy * step, dx * step], dtype=centre.dtype, device=centre.device)[:, None, None]
                self._try_symbols(level, channels, centre + offset)
        self._try_neighbours(level, channels)

    def seeds(self, level: int, found: list[Tensor]) -> list[tuple[Tensor, Tensor | None]]:
        """Corrections that make the cells of ``level`` move as the full search ``found``: common and own part."""
        common = _cell_choices(found[0] - self.prediction.fields[0], level)
        if len(found) == 1:
            return [(vectors, None) for vectors in common]
        distances = self.frame.distances
        follows = scale_vectors(found[0] - self.prediction.fields[0], distances[1], distances[0])
        own = _cell_choices(found[1] - self.prediction.fields[1] - follows, level)
        return list(zip(common, own, strict=True))

    def _bases(self, level: int, channels: slice) -> Tensor:
        """(4, 2, rows, columns): what each merge choice takes over from the coarser levels."""
        if level + 1 == MOTION_LEVELS:
            return torch.zeros_like(self._best[channels]).unsqueeze(0)
        coarser = grid_vectors(self.levels[level + 1 :])
        size = (self._best.shape[1], self._best.shape[2])
        return merge_candidates(coarser, size)[:, channels]

    def _vectors(self, level: int, channels: slice) -> Tensor:
        """(2, rows, columns): the corrections that the best symbols of this level come to."""
        return grid_vectors([self._best, *self.levels[level + 1 :]])[channels]

    def _try_vectors(self, level: int, channels: slice, wanted: Tensor) -> None:
        """Try to arrive at the corrections ``wanted``: by the present merge choice, and by the nearest one."""
        bases = self._bases(level, channels)
        if len(bases) == 1:
            self._try_symbols(level, channels, wanted)
            return
        apart = (wanted - bases).abs().sum(1)
        nearest = apart.argmin(0)
        candidate = self._best.clone()
        candidate[channels] = (wanted - _pick(bases, nearest)).clamp(-SYMBOL_BOUND, SYMBOL_BOUND)
        candidate[self.prices[level].merge] = torch.tensor(MERGE_SYMBOLS, device=nearest.device)[nearest]
        self._keep_better(level, candidate)

    def _try_merging(self, level: int) -> None:
        """Try to take over each of the coarser vectors as they are."""
        merge = self.prices[level].merge
        if merge is None:
            return
        for symbol in MERGE_SYMBOLS:
            candidate = self._best.clone()
            candidate[:merge] = 0
            candidate[merge] = symbol
            self._keep_better(level, candidate)

    def _try_neighbours(self, level: int, channels: slice) -> None:
        for reach in (1, 2):
            for dy, dx in _DIRECTIONS[:4]:
                vectors = self._vectors(level, channels)
                self._try_vectors(level, channels, torch.roll(vectors, (dy * reach, dx * reach), (1, 2)))

    def _try_symbols(self, level: int, channels: slice, symbols: Tensor) -> None:
        candidate = self._best.clone()
        candidate[channels] = symbols.clamp(-SYMBOL_BOUND, SYMBOL_BOUND)
        self._keep_better(level, candidate)

    def _keep_better(self, level: int, candidate: Tensor) -> None:
        cost = self.cost(level, candidate)
        better = cost < self._cost
        self._best = torch.where(better, candidate, self._best)
        self._cost = torch.where(better, cost, self._cost)

    def polish(self) -> None:
        """Move the vectors of a frame with one reference, now that neighbours are known, under overlapped compensation.

        A vector has its part in the samples half a block around its block. Every second block of every second row moves
        at once, so that these samples belong to one moving block alone.
        """
        channels = slice(0, 2)
        self._best = self.levels[0]
        rows, columns = self._best.shape[1:]
        for row, column in ((0, 0), (1, 1), (0, 1), (1, 0)):
            moving = torch.zeros(rows, columns, dtype=torch.bool, device=self._best.device)
            moving[row::2, column::2] = True
            self._cost = self._overlapped_cost(self._best)
            bases = merged(grid_vectors(self.levels[1:]), self._best[2])
            for dy, dx in _DIRECTIONS[:4]:
                vectors = self._vectors(0, channels)
                self._try_moving(moving, torch.roll(vectors, (dy, dx), (1, 2)) - bases)
            for step in _STEPS[1:]:
                centre = self._best[channels]
                for dy, dx in _DIRECTIONS:
                    offset = torch.tensor([dy * step, dx * step], dtype=centre.dtype, device=centre.device)
                    self._try_moving(moving, centre + offset[:, None, None])
        self.levels[0] = self._best

    def _try_moving(self, moving: Tensor, symbols: Tensor) -> None:
        candidate = self._best.clone()
        candidate[:2] = torch.where(moving, symbols.clamp(-SYMBOL_BOUND, SYMBOL_BOUND), candidate[:2])
        cost = self._overlapped_cost(candidate)
        better = moving & (cost < self._cost)
        self._best = torch.where(better, candidate, self._best)
        self._cost = torch.where(better, cost, self._cost)

    def _overlapped_cost(self, finest: Tensor) -> Tensor:
        """Cost of each block with half a block around it, if the finest level had the symbols ``finest``."""
        fields, _ = add_grid_motion(self.prediction.fields, [finest, *self.levels[1:]], self.frame.distances)
        error = (self.references[0].warp_luma(fields[0]) - self.target).square()
        rows, columns = finest.shape[1:]
        error = F.pad(error, (0, columns * BLOCK - error.shape[1], 0, rows * BLOCK - error.shape[0]))
        halves = F.avg_pool2d(error[None, None], BLOCK // 2, divisor_override=1) * _ERROR_UNIT
        # The knee of whole blocks, four times as high: where overlap has smoothed, the residual mends less of an error.
        around = F.avg_pool2d(self._worth(halves, BLOCK), 4, 2, 1, divisor_override=1)[0, 0]
        return around + self.lmbda * self.prices[0].bits(finest)

    def choose_blend(self) -> None:
        """Average, first or second reference for each block."""
        self._best = self.levels[0]
        self._cost = self.cost(0, self._best)
        for value in (0.0, 1.0, -1.0):
            candidate = self._best.clone()
            candidate[-1] = value
            self._keep_better(0, candidate)
        self.levels[0] = self._best


def _pick(planes: Tensor, index: Tensor) -> Tensor:
    """(N, C, rows, columns) and (rows, columns) to (C, rows, columns)."""
    return planes.gather(0, index.expand(1, planes.shape[1], -1, -1))[0]


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
        seeds = [seed for fields in found for seed in search.seeds(level, fields)]
        search.improve(level, common, [first for first, _ in seeds])
        if two:
            search.improve(level, own, [second for _, second in seeds if second is not None])
    if two:
        search.choose_blend()
        search.improve(0, common)
        search.improve(0, own)
        search.choose_blend()
    else:
        search.polish()
    return search.levels


def _cell_choices(field: Tensor, level: int) -> list[Tensor]:
    """(2, block rows, block columns) to some of (2, cells): the median of each cell, and some vectors in it."""
    side = 1 << level
    padded = F.pad(field[None], (0, -field.shape[2] % side, 0, -field.shape[1] % side), mode="replicate")[0]
    cells = padded.unfold(1, side, side).unfold(2, side, side)
    found = [cells.flatten(3).median(3).values]
    if level:
        low, high = side // 4, side - 1 - side // 4
        found += [cells[..., y, x] for y in (low, high) for x in (low, high)]
    return found


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
