"""Motion search of a coding unit: the corrections that the grid adds to the predicted motion.

A full search, or the pass before, says how each block moves. Then, top down through the motion levels (strides 128 to
8), every cell of the grid looks for the correction with the lowest rate-distortion cost given what the coarser levels
already corrected, and takes the cheapest way to write it. The distortion is the squared error of the blended,
exactly warped luma, in the end under overlapped compensation; a bit is priced as everywhere else. The search visits one
cell after the other, which is work for compiled code on a CPU (``motion_kernels``), wherever the model runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nvcodec.core.gop import CodedFrame
from nvcodec.encoder.rate import laplace_bits
from nvcodec.encoder.working_domain import CELL, LUMA_PLANES
from nvcodec.entropy.tables import FRACTIONS, SCALES, TABLE_BOUND
from nvcodec.motion.levels import BLEND_CHANNEL, MOTION_LEVELS, FrameGeometry
from nvcodec.motion.prediction import VECTOR_BOUND, MotionPrediction, add_grid_motion, scale_vectors
from nvcodec.motion.warp import BLOCK, Reference, unpack_luma

__all__ = ["LevelPrice", "matching_fields", "search_motion"]

_Array: TypeAlias = "np.ndarray"

_COARSE = 3
"""From this level on only what the full search found is tried: what such a cell still lacks, finer levels code."""
_STEPS = np.array([4, 2, 1])
_MATCH_STEPS = np.array([4, 4, 2, 1])
_OVERLAPPED_STEPS = np.array([2, 1])
_FULL_RANGE = 24
"""The full search covers this many samples of the working domain in every direction (twice as many of luma)."""
_QUARTERS = 8
"""Quarter luma samples in one sample of the working domain."""
_HALF = BLOCK // 2

_KNEE = 0.2
"""Of lambda: squared error a sample above which the residual mends most of it, so that more error matters less."""
_MATCHING_PRICE = 0.1
"""Share of lambda at which the vectors between source frames are found: they are not coded, only held together."""
_NEAR_BITS = 2.0
_APART_BITS = 4.0
"""A symbol like its neighbours costs about this, whatever the context model says while they are still zero."""
_MERGE_BITS = 3.0
"""Most that a merge choice is believed to cost, beside its magnitude."""


@dataclass(frozen=True)
class LevelPrice:
    """What the context model makes of one level of one frame: (channels, rows, columns) each."""

    location: Tensor
    scale: Tensor


@dataclass(frozen=True)
class _Scene:
    """What every level of the search of one frame looks at, as arrays."""

    planes: list[_Array]
    height: int
    width: int
    target: _Array
    predicted: _Array
    distances: _Array
    importance: _Array
    lmbda: float

    @property
    def references(self) -> int:
        return len(self.predicted) // 2


@torch.no_grad()
def search_motion(
    target: Tensor,
    references: tuple[Reference, ...],
    prediction: MotionPrediction,
    frame: CodedFrame,
    start: list[Tensor],
    lmbda: float,
    prices: list[LevelPrice],
    importance: Tensor,
) -> list[Tensor]:
    """Motion levels (finest first) for one frame.

    ``target``: (6, h, w), what the frame is made to look like, 10 bits. ``start``: levels to improve, each (channels,
    rows, columns); all zero where nothing is known. ``lmbda``: squared 8-bit luma error per bit. ``prices``: what the
    context model asks, for each level. ``importance``: (block rows, block columns), weight of the errors of each block.
    """
    from nvcodec.encoder import motion_kernels as kernels  # brings a compiler: only where frames are encoded

    scene = _scene(target, references, prediction, frame, importance, lmbda)
    if any(bool(level.any()) for level in start):
        found = [add_grid_motion(prediction.fields, start, frame.distances)[0]]
    else:
        found = _full_search(scene, target, references, prediction)
    seeds = [_corrections(prediction, fields, frame.distances) for fields in found]
    symbols = [_integers(level) for level in start]
    blend = np.ones(scene.predicted.shape[1:], np.int64)
    if scene.references == 2:
        blend[:] = symbols[0][BLEND_CHANNEL].clip(-1, 1)
    coarser = np.zeros((2 * scene.references, 1, 1), np.int64)
    before = [np.zeros((2 * scene.references, *level.shape[1:]), np.int64) for level in symbols]
    for k in reversed(range(MOTION_LEVELS)):
        above = before[k + 1] if k + 1 < MOTION_LEVELS else coarser
        kernels.expand_cells(symbols[k], above, k + 1 < MOTION_LEVELS, before[k])
    for k in reversed(range(MOTION_LEVELS)):
        merges = k + 1 < MOTION_LEVELS
        choices = [choice for field in seeds for choice in _cell_choices(field, k)]
        tried = np.stack([*choices, before[k]])
        totals = np.zeros_like(before[k])
        symbols[k][:] = 0
        kernels.expand_cells(symbols[k], coarser, merges, totals)
        location, scale = _quarters(prices[k])
        priced = (*_bit_tables(), _MERGE_BITS, lmbda, _KNEE * lmbda * BLOCK * BLOCK)
        steps = _STEPS if k < _COARSE else _STEPS[:0]
        if k == 0 and scene.references == 2:
            symbols[0][BLEND_CHANNEL] = blend
        kernels.search_cells(
            scene.planes[0], scene.planes[-1], scene.height, scene.width, scene.target[_HALF:, _HALF:], scene.predicted,
            scene.distances, scene.importance, k, symbols[k], coarser, merges, tried, location, scale, *priced, steps,
            2 if k < _COARSE else 1, blend, totals,
        )  # fmt: skip
        if k == 0:
            kernels.refine_overlapped(
                scene.planes[0], scene.planes[-1], scene.height, scene.width, scene.target, scene.predicted,
                scene.distances, scene.importance, symbols[0], coarser, location, scale, *priced, _OVERLAPPED_STEPS, 1,
                blend, totals,
            )  # fmt: skip
        coarser = totals
    return [torch.from_numpy(level).to(like.dtype) for level, like in zip(symbols, start, strict=True)]


def matching_fields(target: Tensor, reference: Reference, geometry: FrameGeometry, lmbda: float) -> list[Tensor]:
    """How the blocks of ``target`` (6, h, w) moved from ``reference``: two fields (2, block rows, block columns) of
    quarter luma samples, of blocks by themselves and of blocks with their neighbours."""
    zero = torch.zeros(2, *geometry.blocks)
    rest, even = MotionPrediction((zero,), zero[:1]), torch.ones(geometry.blocks)
    scene = _scene(target, (reference,), rest, CodedFrame(1, 1, (0,)), even, _MATCHING_PRICE * lmbda)
    return [field for (field,) in _full_search(scene, target, (reference,), rest)]


def _scene(
    target: Tensor,
    references: tuple[Reference, ...],
    prediction: MotionPrediction,
    frame: CodedFrame,
    importance: Tensor,
    lmbda: float,
) -> _Scene:
    luma = unpack_luma(target[:LUMA_PLANES])
    height, width = luma.shape
    rows, columns = prediction.fields[0].shape[1:]
    border = (_HALF, _HALF + columns * BLOCK - width, _HALF, _HALF + rows * BLOCK - height)
    sign = -1 if frame.distances[0] < 0 else 1
    return _Scene(
        [r.luma.samples[0].cpu().float().numpy() for r in references],
        height,
        width,
        F.pad(luma[None], border, mode="replicate")[0].cpu().numpy(),
        _integers(torch.cat(prediction.fields)),
        np.array([sign * d for d in frame.distances] * 2)[:2],
        importance.numpy(),
        lmbda,
    )


def _integers(x: Tensor) -> _Array:
    return x.numpy().astype(np.int64)


def _quarters(price: LevelPrice) -> tuple[_Array, _Array]:
    """Location in quarters of a symbol, and scale index, as the entropy coder rounds them."""
    scale = price.scale.round().clamp(0, SCALES - 1)
    return _integers((price.location * FRACTIONS).round()), _integers(scale)


@cache
def _bit_tables() -> tuple[_Array, _Array]:
    """Bits by scale index and distance from the location in quarters, (SCALES, N); and bits of a symbol by its distance
    from the mean of its neighbours in eighths."""
    distance = torch.arange(FRACTIONS * (2 * TABLE_BOUND + 1)) / FRACTIONS
    laplace = laplace_bits(distance, torch.zeros(()), torch.arange(SCALES)[:, None].float())
    apart = torch.arange(8 * (2 * TABLE_BOUND + 1)) / 8
    near = _NEAR_BITS + _APART_BITS * apart.clamp(max=1) + 2 * torch.log2(1 + apart)
    return laplace.numpy(), near.numpy()


@cache
def _log_prices() -> _Array:
    """log2(1 + distance) of two vectors by the sum of their components' distances."""
    return torch.log2(1.0 + torch.arange(8 * VECTOR_BOUND)).numpy()


def _full_search(
    scene: _Scene, target: Tensor, references: tuple[Reference, ...], prediction: MotionPrediction
) -> list[tuple[Tensor, ...]]:
    """The fields that match best: those of single blocks, and those of blocks with their neighbours."""
    from nvcodec.encoder import motion_kernels as kernels

    rows, columns = scene.predicted.shape[1:]
    wanted = target[:LUMA_PLANES].mean(0)
    rest = (0, columns * CELL - wanted.shape[1], 0, rows * CELL - wanted.shape[0])
    wide = tuple(_FULL_RANGE + side for side in rest)
    fields = np.zeros((len(references), 2, 2, rows, columns), np.int64)
    for reference, plane, predicted, out in zip(references, scene.planes, prediction.fields, fields, strict=True):
        there = reference.packed[:LUMA_PLANES].mean(0)
        kernels.match_blocks(
            _padded(wanted, rest), _padded(there, (_FULL_RANGE, wide[1], _FULL_RANGE, wide[3])), _integers(predicted),
            _FULL_RANGE, _QUARTERS, _log_prices() * np.float32(4.0 * scene.lmbda**0.5), out,
        )  # fmt: skip
        for field in out:
            kernels.polish_matches(
                plane, scene.height, scene.width, scene.target[_HALF:, _HALF:],
                _log_prices() * np.float32(scene.lmbda), _MATCH_STEPS, field,
            )  # fmt: skip
    return [tuple(torch.from_numpy(field) for field in fields[:, window]) for window in range(fields.shape[1])]


def _padded(plane: Tensor, border: Sequence[int]) -> _Array:
    return F.pad(plane[None], tuple(border), mode="replicate")[0].cpu().numpy()


def _corrections(prediction: MotionPrediction, found: Sequence[Tensor], distances: tuple[int, ...]) -> Tensor:
    """(2 or 4, block rows, block columns): what makes the predicted fields those that were ``found``."""
    common = found[0] - prediction.fields[0]
    if len(found) == 1:
        return common
    own = found[1] - prediction.fields[1] - scale_vectors(common, distances[1], distances[0])
    return torch.cat([common, own])


def _cell_choices(field: Tensor, level: int) -> list[_Array]:
    """(C, block rows, block columns) to some of (C, cells): the median of each cell, and some vectors in it."""
    side = 1 << level
    padded = F.pad(field[None].float(), (0, -field.shape[2] % side, 0, -field.shape[1] % side), mode="replicate")[0]
    cells = padded.unfold(1, side, side).unfold(2, side, side)
    found = [cells.flatten(3).median(3).values]
    if level:
        low, high = side // 4, side - 1 - side // 4
        found += [cells[..., y, x] for y in (low, high) for x in (low, high)]
    return [_integers(choice) for choice in found]
