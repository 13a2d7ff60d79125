"""The latents of a coding unit in the bitstream: levels in the order of the program, by the integer context model that
motion has (``nvcodec.entropy.context``), with what the references say at the latents' own resolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from nvcodec.entropy.context import ChannelLayout, ContextWeights, log_table
from nvcodec.entropy.numbers import code_scales
from nvcodec.entropy.symbols import SymbolChannel, code_level
from nvcodec.exact.operation import Shape
from nvcodec.hybrid.base import starting_tensors
from nvcodec.hybrid.network import Network, NetworkShape

__all__ = ["SCALE_STEP", "LatentModel", "ReferenceView", "code_latents", "context_of_width_8"]

_LOG_BOUND = 4095
SCALE_STEP = 16
"""The outputs of the context model are sixteenths of a scale index."""


@cache
def context_of_width_8() -> ContextWeights:
    """The context model of the narrowest starting network: that of motion, and for latents with biases of their own."""
    return Network(NetworkShape(8), starting_tensors(8)).context()


@dataclass(frozen=True)
class LatentModel:
    """``scales``: of each level, (classes, channels): the scale index that a channel starts from in frames without
    references and, if the program knows such, in frames with them."""

    scales: tuple[np.ndarray, ...]

    @staticmethod
    def code(channel: SymbolChannel, shapes: list[Shape], classes: int, given: LatentModel | None) -> LatentModel:
        """Write ``given`` or read what was written."""
        scales = []
        for k, shape in enumerate(shapes):
            count = classes * shape.channels
            values = None if given is None else given.scales[k].reshape(-1)
            scales.append(code_scales(channel, values, count).reshape(classes, shape.channels))
        return LatentModel(tuple(scales))

    def bias(self, level: int, has_references: bool) -> Tensor:
        """(channels, 2): location and scale."""
        scales = self.scales[level]
        values = torch.from_numpy(scales[min(int(has_references), len(scales) - 1)] * SCALE_STEP)
        return torch.stack([torch.zeros_like(values), values], 1).float()


@dataclass(frozen=True)
class ReferenceView:
    """What the warped references say of B frames, int64 (B, h, w) in the working domain. ``mismatch``: how much they
    differ, summed over the six samples; ``activity``: the gradient of the first luma sample of the prediction."""

    mismatch: np.ndarray
    activity: np.ndarray

    @staticmethod
    def of(prediction: Tensor, difference: Tensor) -> ReferenceView:
        """``prediction``, ``difference``: (B, 6, h, w) integers."""
        luma = prediction[:, 0].cpu().numpy().astype(np.int64)
        activity = np.zeros_like(luma)
        activity[:, 1:] += np.abs(np.diff(luma, axis=1))
        activity[:, :, 1:] += np.abs(np.diff(luma, axis=2))
        return ReferenceView(difference.abs().sum(1).cpu().numpy().astype(np.int64), activity)


def _cells(size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """First sample, and the one behind the last, of each of ``count`` cells over ``size`` samples."""
    place = np.arange(count)
    first = np.minimum(place * size // count, size - 1)
    return first, np.minimum(np.maximum((place + 1) * size // count, first + 1), size)


def _pooled(plane: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(B, rows, columns): log feature of the mean, rounded down, of (B, h, w) over each cell."""
    sums = np.zeros((len(plane), plane.shape[1] + 1, plane.shape[2] + 1), np.int64)
    sums[:, 1:, 1:] = plane.cumsum(1).cumsum(2)
    (top, bottom), (left, right) = _cells(plane.shape[1], rows), _cells(plane.shape[2], columns)
    total = sums[:, bottom][:, :, right] - sums[:, top][:, :, right] - sums[:, bottom][:, :, left]
    total += sums[:, top][:, :, left]
    mean = total // ((bottom - top)[:, None] * (right - left))
    return log_table()[np.minimum(mean, _LOG_BOUND)]


def _parents(coarser: np.ndarray, shape: Shape) -> np.ndarray:
    """(B, C, rows, columns): of each symbol the log feature of four times this: eight times the magnitude of the symbol
    of the level before in the same place and channel (its last one, if it has fewer), plus those of the 3x3 around."""
    size = np.abs(coarser).astype(np.int64)
    padded = np.pad(size, ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows, columns = size.shape[2:]
    around = 8 * size
    for dy in range(3):
        for dx in range(3):
            around += padded[:, :, dy : dy + rows, dx : dx + columns]
    logs = log_table()[np.minimum(4 * around, _LOG_BOUND)]
    channel = np.minimum(np.arange(shape.channels), size.shape[1] - 1)
    row, column = np.arange(shape.rows) * rows // shape.rows, np.arange(shape.columns) * columns // shape.columns
    return logs[:, channel][:, :, row][:, :, :, column]


def side_features(shape: Shape, batch: int, coarser: Tensor | None, view: ReferenceView | None) -> Tensor:
    """(B, C + 2, rows, columns): parents, mismatch, activity; see ``nvcodec.entropy.context``."""
    side = np.zeros((batch, shape.channels + 2, shape.rows, shape.columns), np.float32)
    if coarser is not None:
        side[:, :-2] = _parents(coarser.numpy(), shape)
    if view is not None:
        side[:, -2] = _pooled(view.mismatch, shape.rows, shape.columns)
        side[:, -1] = _pooled(view.activity, shape.rows, shape.columns)
    return torch.from_numpy(side)


def code_latents(
    channel: SymbolChannel,
    shapes: list[Shape],
    batch: int,
    model: LatentModel,
    has_references: bool,
    view: ReferenceView | None,
    given: list[Tensor] | None,
    bits: list[float],
    *,
    first: int = 0,
) -> list[Tensor]:
    """The levels of a unit of ``batch`` frames, (B, C, rows, columns) float32 each, in order.

    A flag for each frame says whether a level holds anything but zeros. ``first``: the number of the first level in
    ``model``. Appends what each level cost to ``bits``.
    """
    levels: list[Tensor] = []
    for k, shape in enumerate(shapes):
        before = channel.bits
        level = torch.zeros(batch, *shape)
        flags = None if given is None else given[k].flatten(1).any(1).numpy().astype(np.int32)
        used = torch.from_numpy(np.flatnonzero(channel.exchange_flags(flags, batch)))
        if len(used):
            side = side_features(shape, batch, levels[-1] if levels else None, view)
            layout = ChannelLayout((0,) * shape.channels)
            symbols = None if given is None else given[k][used]
            bias = model.bias(first + k, has_references)
            level[used] = code_level(channel, symbols, layout, side[used], context_of_width_8(), bias)
        levels.append(level)
        bits.append(channel.bits - before)
    return levels
