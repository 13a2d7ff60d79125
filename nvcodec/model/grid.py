"""The mixed residual grid: which symbols a frame has, and how they reach the cell.

A frame's grid is a pyramid of integer tensors. The appearance levels have strides 2, 4, 8, 16, 32 luma
samples and hold the bands of a wavelet transform: three bands of luma at the finest level, three of each
plane at the others, and the means at the coarsest. They are critically sampled, one symbol a sample, and
orthogonal enough that each symbol can be decided by itself. The motion levels have strides
8 to 128.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nvcodec.entropy.context import ChannelLayout
from nvcodec.fixedpoint import Rounding, conv2d, shift_right

__all__ = [
    "APPEARANCE_CHANNELS",
    "APPEARANCE_GAINS",
    "APPEARANCE_LEVELS",
    "BANDS",
    "BAND_BOUND",
    "BLEND_CHANNEL",
    "MOTION_LEVELS",
    "RESIDUAL_BOUND",
    "SYMBOL_BOUND",
    "FrameGeometry",
    "appearance_layout",
    "channel_gains",
    "expand_grid",
    "expand_steps",
    "grid_filters",
    "merge_channel",
    "motion_layout",
    "pack_planes",
]

APPEARANCE_CHANNELS = (3, 9, 9, 9, 12)
"""Channels of the appearance levels, finest first: bands of Y, then U, then V; at the coarsest also the means."""
BANDS = 9
"""Channels that are bands; those behind them are means."""
APPEARANCE_LEVELS = len(APPEARANCE_CHANNELS)
APPEARANCE_GAINS = APPEARANCE_LEVELS + 1
"""One gain for each level, and one for the means."""

MOTION_LEVELS = 5
_FIRST_GROUP, _SECOND_GROUP, _MERGE_GROUP, _BLEND_GROUP = range(4)
BLEND_CHANNEL = 5
"""Of the finest motion level with two references."""

SYMBOL_BOUND = 127
"""Symbols lie in -SYMBOL_BOUND .. SYMBOL_BOUND."""

RESIDUAL_BOUND = 1023
"""Magnitude of the residual that the grid expands to."""

BAND_BOUND = 14336
"""Magnitude of a band sample: symbol times gain, and every intermediate plane."""
_LOW_TAPS = ((0, -21, 404, -21, 0), (0, -33, 214, 214, -33))
_HIGH_TAPS = ((12, -193, -193, 12, 0), (19, -57, 437, -57, 19))
"""Synthesis filters of the 9/7 wavelet (Cohen, Daubechies, Feauveau 1992) in their orthonormal scaling, /512:
contributions of five low (high) samples around i to the output samples 2i and 2i + 1."""
_TAP_SHIFT = 9


@dataclass(frozen=True)
class FrameGeometry:
    """Sizes of everything that belongs to a picture of ``width`` x ``height`` luma samples."""

    width: int
    height: int

    @property
    def half(self) -> tuple[int, int]:
        """(h, w) of the working domain."""
        return (self.height + 1) // 2, (self.width + 1) // 2

    @property
    def blocks(self) -> tuple[int, int]:
        """(rows, columns) of 8x8 luma blocks."""
        return (self.height + 7) // 8, (self.width + 7) // 8

    def appearance_size(self, level: int) -> tuple[int, int]:
        """(rows, columns) of appearance level ``level`` (0 is the finest)."""
        return _ceil_shift(self.half, level)

    def motion_size(self, level: int) -> tuple[int, int]:
        """(rows, columns) of motion level ``level`` (0 is the finest, one sample for a block)."""
        return _ceil_shift(self.blocks, level)


def appearance_layout(level: int) -> ChannelLayout:
    """Channels of an appearance level: bands of Y, U and V, and the means of the coarsest level."""
    return ChannelLayout(tuple(c // 3 for c in range(APPEARANCE_CHANNELS[level])), bands=True)


def motion_layout(references: int, level: int) -> ChannelLayout:
    """Channels of a motion level: correction of the first vector (y, x), of the second one (y, x), but for the coarsest
    level the merge choice, and at the finest level, with two references, the blend."""
    groups = [_FIRST_GROUP] * 2 + [_SECOND_GROUP] * 2 * (references - 1)
    if merge_channel(references, level) is not None:
        groups.append(_MERGE_GROUP)
    if level == 0 and references == 2:
        groups.append(_BLEND_GROUP)
    return ChannelLayout(tuple(groups), bands=False)


def merge_channel(references: int, level: int) -> int | None:
    """Channel of the merge choice, behind those of the vectors; the coarsest level has nothing to take over."""
    return 2 * references if level + 1 < MOTION_LEVELS else None


def _ceil_shift(size: tuple[int, int], bits: int) -> tuple[int, int]:
    return -(-size[0] >> bits), -(-size[1] >> bits)


def channel_gains(gains: Tensor, level: int) -> Tensor:
    """(channels, 1, 1): of ``gains``, (2, APPEARANCE_GAINS), what each channel of an appearance level takes."""
    channels = range(APPEARANCE_CHANNELS[level])
    planes = [c // 3 if c < BANDS else c - BANDS for c in channels]
    index = [level if c < BANDS else APPEARANCE_LEVELS for c in channels]
    return gains[[min(plane, 1) for plane in planes], index][:, None, None]


def _merge_kernel() -> Tensor:
    return torch.stack(
        [torch.tensor([low, high], dtype=torch.float32) for low, high in zip(_LOW_TAPS, _HIGH_TAPS, strict=True)]
    )  # (2 output phases, low and high, 5)


_MERGE_KERNEL = _merge_kernel()


@lru_cache(maxsize=64)
def _continued(columns: int, length: int, phase: int, device: torch.device) -> Tensor:
    """Which low (phase 0) or high (phase 1) samples of a line stand at -2 .. columns + 1."""
    from nvcodec.model.wavelet_cpu import source_place

    return torch.tensor([source_place(i, phase, length) for i in range(-2, columns + 2)], device=device)


def _merge(low: Tensor, high: Tensor, length: int, rounding: Rounding) -> Tensor:
    """(N, rows, columns) each to (N, rows, length): one wavelet synthesis step along the columns.

    Low samples belong to the even places of the line, high ones to the odd places. Both go on beyond its ends as they
    would if the line were mirrored there, so that its two ends have nothing to do with each other.
    """
    count, rows, columns = low.shape
    places = [_continued(columns, length, phase, low.device) for phase in range(2)]
    pair = torch.stack([x.index_select(2, at) for x, at in zip((low, high), places, strict=True)], dim=1)
    both = conv2d(pair, _MERGE_KERNEL.to(pair).unsqueeze(2))
    out = both.permute(0, 2, 3, 1).reshape(count, rows, 2 * columns)[:, :, :length]
    return shift_right(out, _TAP_SHIFT, rounding).clamp(-BAND_BOUND, BAND_BOUND)


def _synthesise(low: Tensor, bands: Tensor, size: tuple[int, int], rounding: Rounding) -> Tensor:
    """One level in two dimensions: low (N, r, c) and bands (N, 3, r, c) to (N, *size).

    Bands: high along columns, high along rows, high along both.
    """
    if low.device.type == "cpu":
        from nvcodec.model.wavelet_cpu import SynthesisStep  # brings a compiler: only where frames are made

        rounds = rounding is not Rounding.NONE
        return SynthesisStep.apply(low, bands, _MERGE_KERNEL, size, _TAP_SHIFT, BAND_BOUND, rounds)
    return _synthesise_anywhere(low, bands, size, rounding)


def _synthesise_anywhere(low: Tensor, bands: Tensor, size: tuple[int, int], rounding: Rounding) -> Tensor:
    """The same by tensor operations."""
    upper = _merge(low, bands[:, 0], size[1], rounding)
    lower = _merge(bands[:, 1], bands[:, 2], size[1], rounding)
    turned = _merge(upper.transpose(1, 2), lower.transpose(1, 2), size[0], rounding)
    return turned.transpose(1, 2)


def grid_filters() -> np.ndarray:
    """float32 (2 output phases, low and high, 5): the synthesis filters."""
    return (_MERGE_KERNEL * 2.0**-_TAP_SHIFT).numpy()


def expand_steps(levels: list[Tensor], gains: Tensor, rounding: Rounding = Rounding.EXACT) -> list[Tensor]:
    """The images on the way of ``expand_grid``: luma (B, 1, 2 h, 2 w), then the planes of Y, U, V, (B, 3, h, w) and
    smaller, to the means at last. Image k is what the bands of level k are added to."""
    amplitudes = [(level * channel_gains(gains, k)).clamp(-BAND_BOUND, BAND_BOUND) for k, level in enumerate(levels)]
    batch = levels[0].shape[0]
    images = [amplitudes[-1][:, BANDS:]]
    for k in reversed(range(1, APPEARANCE_LEVELS)):
        bands = amplitudes[k][:, :BANDS].unflatten(1, (3, 3)).flatten(0, 1)
        finer = (levels[k - 1].shape[2], levels[k - 1].shape[3])
        planes = _synthesise(images[0].flatten(0, 1), bands, finer, rounding)
        images.insert(0, planes.unflatten(0, (batch, 3)))
    size = (2 * images[0].shape[2], 2 * images[0].shape[3])
    luma = _synthesise(images[0][:, 0], amplitudes[0], size, rounding)
    return [luma.unsqueeze(1), *images]


def pack_planes(images: list[Tensor]) -> Tensor:
    """(B, 6, h, w) of the working domain from what ``expand_steps`` returned."""
    return torch.cat([F.pixel_unshuffle(images[0], 2), images[1][:, 1:]], dim=1)


def expand_grid(levels: list[Tensor], gains: Tensor, rounding: Rounding = Rounding.EXACT) -> Tensor:
    """Appearance levels (finest first), each (B, C_k, h_k, w_k), to the residual (B, 6, h, w).

    ``gains``: (2, APPEARANCE_GAINS), of luma and chroma the amplitude of symbol 1 at each level and, last, of the mean.
    The coarsest level ends with the three means; the finest level has luma bands only.
    """
    return pack_planes(expand_steps(levels, gains, rounding)).clamp(-RESIDUAL_BOUND, RESIDUAL_BOUND)
