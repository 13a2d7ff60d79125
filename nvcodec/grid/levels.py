"""The appearance levels of the mixed residual grid: which symbols a frame has, and how large a step of each is.

With the motion levels (``nvcodec.motion.levels``, strides 8 to 128) they are one multi-resolution tensor of a frame.
The appearance levels have strides 2, 4, 8, 16, 32 luma samples and hold the bands of a wavelet transform: three bands
of luma at the finest level, three of each plane at the others, and the means at the coarsest. They are critically
sampled, one symbol a sample, and orthogonal enough that each symbol can be decided by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nvcodec.core.quantiser import CHROMA_GAIN_STEPS, GAIN_STEPS, gain_values
from nvcodec.entropy.context import ChannelLayout
from nvcodec.entropy.numbers import code_number
from nvcodec.entropy.symbols import SymbolChannel
from nvcodec.motion.levels import FrameGeometry

__all__ = [
    "APPEARANCE_CHANNELS",
    "APPEARANCE_GAINS",
    "APPEARANCE_LEVELS",
    "BANDS",
    "GRID_STRIDES",
    "QUANTISER_BITS",
    "Quantiser",
    "appearance_layout",
    "appearance_shapes",
    "channel_gains",
    "empty_levels",
]

APPEARANCE_CHANNELS = (3, 9, 9, 9, 12)
"""Channels of the appearance levels, finest first: bands of Y, then U, then V; at the coarsest also the means."""
GRID_STRIDES = (2, 4, 8, 16, 32)
"""Of the levels, in luma samples."""
BANDS = 9
"""Channels that are bands; those behind them are means."""
APPEARANCE_LEVELS = len(APPEARANCE_CHANNELS)
APPEARANCE_GAINS = APPEARANCE_LEVELS + 1
"""One gain for each level, and one for the means."""
QUANTISER_BITS = 6


@dataclass(frozen=True)
class Quantiser:
    """How large the steps of a segment's symbols are. ``least``: of each level, finest first, and of the means, the
    smallest gain index of luma: symbols are at most 127, and amplitudes of coarse levels are large."""

    least: tuple[int, ...] = (0,) * APPEARANCE_GAINS

    @staticmethod
    def code(channel: SymbolChannel, given: Quantiser | None) -> Quantiser:
        """Write ``given`` or read what was written."""
        values = given.least if given else (None,) * APPEARANCE_GAINS
        return Quantiser(tuple(code_number(channel, value, QUANTISER_BITS) for value in values))

    def gains(self, index: int) -> Tensor:
        """(2, APPEARANCE_GAINS): of luma and chroma the amplitude of symbol 1 at each level and, last, of the means,
        in a frame whose quantiser index is ``index``, 0 .. 63."""
        luma = np.maximum(self.least, index).clip(0, GAIN_STEPS - 1)
        both = np.stack([luma, (luma - CHROMA_GAIN_STEPS).clip(0)])
        return torch.from_numpy(np.array(gain_values(), np.float32)[both])


def appearance_shapes(geometry: FrameGeometry) -> list[tuple[int, int, int]]:
    """(channels, rows, columns) of each level, finest first."""
    rows, columns = geometry.half
    return [(c, -(-rows >> k), -(-columns >> k)) for k, c in enumerate(APPEARANCE_CHANNELS)]


def empty_levels(batch: int, geometry: FrameGeometry) -> list[Tensor]:
    """Of a frame whose residual is 0, finest first, (batch, channels, rows, columns) each."""
    return [torch.zeros(batch, *shape) for shape in appearance_shapes(geometry)]


def appearance_layout(level: int) -> ChannelLayout:
    """Channels of an appearance level: bands of Y, U and V, and the means of the coarsest level."""
    return ChannelLayout(tuple(c // 3 for c in range(APPEARANCE_CHANNELS[level])), bands=True)


def channel_gains(gains: Tensor, level: int) -> Tensor:
    """(channels, 1, 1): of ``gains``, (2, APPEARANCE_GAINS), what each channel of an appearance level takes."""
    channels = range(APPEARANCE_CHANNELS[level])
    planes = [c // 3 if c < BANDS else c - BANDS for c in channels]
    index = [level if c < BANDS else APPEARANCE_LEVELS for c in channels]
    return gains[[min(plane, 1) for plane in planes], index][:, None, None]
