"""The motion half of the coupled WarpRNN: a frame's motion from its references' motion states.

The motion state of a decoded frame is its block field towards each of its references. For a new frame between two
references, their states are scaled by temporal distance and offered as candidates; what the warp reveals decides
between them: the candidate whose two warped references agree best wins and is then refined in the same way. None of
this costs a bit. With one reference nothing can be compared, and the field of the frame before, edges and all, lies in
the wrong place: such a frame starts from rest (docs/experiments/hybrid.md). The grid carries the remainder::

    reference states --scale--> candidates --agreement of the warped references--> predicted motion
                                                        grid (strides 128 .. 8) --(+)--> motion

The remainder is refined from level to level. A cell takes over the vector of the coarser cell above it or, where the
edge of a moving thing runs through that one, of a neighbour of it: the merge choice, one symbol instead of a vector.

Vectors and symbols lie in the CPU's memory, where symbols are coded, on whatever device the samples are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nvcodec.core.fixedpoint import conv2d
from nvcodec.motion.levels import FrameGeometry
from nvcodec.motion.warp import BLOCK, MARGIN, Reference

__all__ = [
    "MERGE_SYMBOLS",
    "VECTOR_BOUND",
    "MotionPrediction",
    "MotionState",
    "add_grid_motion",
    "grid_vectors",
    "merge_unrest",
    "predict_motion",
    "scale_vectors",
]

VECTOR_BOUND = 2047
"""Magnitude of a vector component, quarter luma samples."""

_CELL = 4
"""Agreement is measured on every second luma sample of both directions: 4x4 of them in a block."""
_WINDOW_WIDE = (1, 1, 1, 1, 1)
_WINDOW_NEAR = (1, 2, 1)
"""A row of each window in which agreement is summed up; the window is its product with itself."""
_NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))
_NEIGHBOUR_PENALTY = 64
"""Added to the agreement of a candidate taken from a neighbour, so that ties keep the simpler choice."""
_REFINEMENT = ((4, 128), (2, 91), (1, 64))
"""(step in quarter samples, penalty) of the search around the best candidate."""


_DISAGREEMENT_UNIT = 64
_AT_ONCE = 1 << 23
"""Samples that are gathered together where the search is done by tensor operations, unless one trial has more."""


@dataclass(frozen=True)
class MotionState:
    """Motion of a decoded frame. ``fields[k]``: (2, block rows, block columns) towards the k-th reference, which
    lies ``distances[k]`` frames away (signed). A key frame has none."""

    fields: tuple[Tensor, ...]
    distances: tuple[int, ...]


@dataclass(frozen=True)
class MotionPrediction:
    """``fields``: one (2, block rows, block columns) for each reference, integers. ``disagreement``: (1, block
    rows, block columns), how much the two warped references differ there (0 with one reference)."""

    fields: tuple[Tensor, ...]
    disagreement: Tensor

    def at_rest(self) -> MotionPrediction:
        """What is left of it where motion is not predicted: fields of zeros, and where the references disagree."""
        return replace(self, fields=tuple(torch.zeros_like(field) for field in self.fields))


def scale_vectors(vectors: Tensor, numerator: int, denominator: int) -> Tensor:
    """``floor(v * numerator / denominator + 1/2)``, clipped to VECTOR_BOUND; exact for integer vectors."""
    if denominator < 0:
        numerator, denominator = -numerator, -denominator
    doubled = vectors.to(torch.int32) * (2 * numerator) + denominator
    scaled = torch.div(doubled, 2 * denominator, rounding_mode="floor")
    return scaled.clamp(-VECTOR_BOUND, VECTOR_BOUND).to(vectors.dtype)


def predict_motion(
    references: tuple[Reference, ...],
    states: tuple[MotionState, ...],
    distances: tuple[int, ...],
    geometry: FrameGeometry,
) -> MotionPrediction:
    """Predict the block fields of one frame from its references (one or two) and their motion states."""
    zero = torch.zeros(2, *geometry.blocks)
    candidates = [
        scale_vectors(field, distances[0], distance)
        for state in states
        for field, distance in zip(state.fields, state.distances, strict=True)
    ]
    if len(references) == 1:
        return MotionPrediction((zero,), zero[:1])
    first, cost = _Agreement(references, distances, geometry).search(zero, candidates)
    disagreement = torch.floor(cost * (1.0 / _DISAGREEMENT_UNIT))
    return MotionPrediction((first, scale_vectors(first, distances[1], distances[0])), disagreement[None])


class _Agreement:
    """Searches the block field whose two warped references differ least (bilateral matching), where these lie."""

    def __init__(self, references: tuple[Reference, ...], distances: tuple[int, ...], geometry: FrameGeometry) -> None:
        self.planes = [r.luma for r in references]
        self.distances = distances
        self.rows, self.columns = geometry.half
        self.at_once = max(1, _AT_ONCE // (self.rows * self.columns))
        self.windows = [
            torch.outer(row, row)[None, None].to(references[0].packed)
            for row in (torch.tensor(_WINDOW_NEAR), torch.tensor(_WINDOW_WIDE))
        ]

    def search(self, start: Tensor, candidates: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The field, from ``start`` on, and what it costs in the near window.

        Wide window: the candidates, then their neighbours. Near window: refinement, then neighbours.
        """
        if self.planes[0].samples.device.type == "cpu":
            return self._search_cpu(start, candidates)
        return self._search_anywhere(start, candidates)

    def _search_cpu(self, start: Tensor, candidates: list[Tensor]) -> tuple[Tensor, Tensor]:
        """In compiled code."""
        from nvcodec.motion.agreement_cpu import search_agreement  # brings a compiler: only where frames are decoded

        first, second = self.planes
        sign = -1 if self.distances[0] < 0 else 1
        best = start.to(torch.int32).numpy().copy()
        cost = np.empty(best.shape[1:], np.int32)
        search_agreement(
            first.samples[0].numpy(), second.samples[0].numpy(), first.height, first.width, MARGIN,
            np.array([sign * d for d in self.distances], np.int32), _stacked(candidates, start),
            np.array(_NEIGHBOURS, np.int32), _NEIGHBOUR_PENALTY, np.array(_REFINEMENT, np.int32),
            np.array(_WINDOW_WIDE, np.int32), np.array(_WINDOW_NEAR, np.int32), VECTOR_BOUND, best, cost,
        )  # fmt: skip
        return torch.from_numpy(best).to(start.dtype), torch.from_numpy(cost).to(start.dtype)

    def _search_anywhere(self, start: Tensor, candidates: list[Tensor]) -> tuple[Tensor, Tensor]:
        """By tensor operations: together what does not look at each other's outcome."""
        fields = torch.stack([start, *candidates]).to(self.planes[0].samples.device)
        around = [_shifted(field, dy * reach, dx * reach)
                  for field in fields[1:] for reach in (1, 2) for dy, dx in _NEIGHBOURS]  # fmt: skip
        penalties = [0] * len(fields) + [_NEIGHBOUR_PENALTY] * len(around)
        best, cost = self._best(torch.stack([*fields, *around]), penalties, wide=True)
        best, _ = self._spread(best, cost, wide=True)
        cost = self._costs(best[None], wide=False)[0]
        around_once = torch.tensor(_NEIGHBOURS, dtype=best.dtype, device=best.device)[:, :, None, None]
        for step, penalty in _REFINEMENT:
            moved = (best + step * around_once).clamp(-VECTOR_BOUND, VECTOR_BOUND)
            best, cost = self._keep_better(best, cost, moved, penalty, wide=False)
        best, _ = self._spread(best, cost, wide=False)
        found = torch.cat([best, self._costs(best[None], wide=False)]).cpu()
        return found[:2], found[2]

    def _spread(self, best: Tensor, cost: Tensor, *, wide: bool) -> tuple[Tensor, Tensor]:
        moved = [_shifted(best, dy * reach, dx * reach) for reach in (1, 2) for dy, dx in _NEIGHBOURS[:4]]
        return self._keep_better(best, cost, torch.stack(moved), _NEIGHBOUR_PENALTY, wide=wide)

    def _keep_better(
        self, best: Tensor, cost: Tensor, trials: Tensor, penalty: int, *, wide: bool
    ) -> tuple[Tensor, Tensor]:
        """Of each block ``best``, or the first of the better ones of ``trials`` (N, 2, rows, columns); and its cost."""
        found, other = self._best(trials, [penalty] * len(trials), wide=wide)
        better = other < cost
        return torch.where(better, found, best), torch.where(better, other, cost)

    def _best(self, trials: Tensor, penalties: list[int], *, wide: bool) -> tuple[Tensor, Tensor]:
        """Of each block the first of the cheapest of ``trials`` (N, 2, rows, columns), and what it costs."""
        costs = torch.cat([self._costs(some, wide=wide) for some in trials.split(self.at_once)])
        costs = costs + torch.tensor(penalties, dtype=costs.dtype, device=costs.device)[:, None, None]
        least = costs.amin(0)
        number = torch.arange(len(trials), device=costs.device)[:, None, None]
        first = torch.where(costs == least, number, len(trials)).amin(0)
        return trials.gather(0, first.expand(1, 2, -1, -1))[0], least

    def _costs(self, trials: Tensor, *, wide: bool) -> Tensor:
        """(N, block rows, block columns): windowed sums of absolute differences of the references, warped by ``trials``
        (N, 2, block rows, block columns)."""
        pairs = trials, scale_vectors(trials, self.distances[1], self.distances[0])
        first, second = (plane.gather(some, BLOCK, step=2)[0] for plane, some in zip(self.planes, pairs, strict=True))
        pad = (0, -self.columns % _CELL, 0, -self.rows % _CELL)
        sums = F.avg_pool2d(F.pad((first - second).abs(), pad)[:, None], _CELL, divisor_override=1)
        window = self.windows[wide]
        return conv2d(sums, window, padding=window.shape[-1] // 2)[:, 0]


def _stacked(fields: list[Tensor], like: Tensor) -> np.ndarray:
    """(N, 2, rows, columns), also where N is 0."""
    stacked = torch.stack(fields) if fields else like[None][:0]
    return stacked.to(torch.int32).numpy()


def _shifted(field: Tensor, dy: int, dx: int) -> Tensor:
    """The field of the neighbour: ``out[y, x] = field[y - dy, x - dx]``, indices modulo the size."""
    return torch.roll(field, (dy, dx), (1, 2))


MERGE_SYMBOLS = (0, 1, -1, 2)
"""The symbol of each merge candidate, of what a cell can take over from the next coarser level: the vector of the cell
above it; of the nearest cell above or below that one; of the nearest one to its left or right; of the one in the corner
between them. The border repeats; every other symbol is the corner, too."""


def merge_unrest(coarser: list[Tensor], size: tuple[int, int]) -> Tensor:
    """(B, 1, *size): how far the candidates of each cell lie apart, by the levels ``coarser``, the next one first."""
    from nvcodec.motion import side_cpu  # brings a compiler: only where frames are decoded

    total = grid_vectors(coarser)
    out = np.empty((len(total), *size), np.float32)
    side_cpu.unrest(total.contiguous().numpy(), out)
    return torch.from_numpy(out).unsqueeze(1)


def grid_vectors(levels: list[Tensor]) -> Tensor:
    """The corrections that motion levels (..., channels, rows, columns), finest first, come to at the first of them.

    (..., 2 or 4, rows, columns): each level adds its symbols to what its merge choice takes over.
    """
    from nvcodec.motion import side_cpu  # brings a compiler: only where frames are decoded

    count = levels[-1].shape[-3]
    total = levels[-1]
    for level in reversed(levels[:-1]):
        out = np.empty((*level.shape[:-3], count, *level.shape[-2:]), np.float32)
        side_cpu.merge(
            total.reshape(-1, *total.shape[-3:]).contiguous().numpy(),
            level.reshape(-1, *level.shape[-3:]).contiguous().numpy(),
            out.reshape(-1, *out.shape[-3:]),
        )
        total = torch.from_numpy(out)
    return total


def add_grid_motion(
    predicted: tuple[Tensor, ...], levels: list[Tensor], distances: tuple[int, ...]
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Motion and blend of one frame from the prediction and the grid's motion levels (finest first).

    ``levels[k]``: (channels, rows >> k, columns >> k) integers, channels by ``motion_layout``. The corrections of
    ``grid_vectors``: 0-1 correct the first vector, and the second one in proportion to its distance; 2-3 correct the
    second vector alone. The blend is clipped to -1 .. 1 (0 averages the references, 1 takes the first, -1 the
    second). Returns the fields and the blend (1, block rows, block columns).
    """
    total = grid_vectors(levels)
    first = (predicted[0] + total[0:2]).clamp(-VECTOR_BOUND, VECTOR_BOUND)
    if len(predicted) == 1:
        return (first,), torch.ones_like(total[:1])
    second = predicted[1] + scale_vectors(total[0:2], distances[1], distances[0]) + total[2:4]
    return (first, second.clamp(-VECTOR_BOUND, VECTOR_BOUND)), levels[0][-1:].clamp(-1, 1)
