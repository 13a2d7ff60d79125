"""The context model: what the decoder knows about a symbol before it reads it.

A level is read in four stages. Stage s of channel c reads one of the four sample phases of each 2x2 cell;
the channels are staggered, so that after the first stage every symbol has read neighbours on all sides,
in its own channel or in the others. All symbols of a stage are independent given the earlier ones.

::

    channel 0   channel 1   channel 2   channel 3
      0 2         1 3         2 0         3 1        stage that reads the phase
      3 1         0 2         1 3         2 0

Of every symbol the model sees seven features (see ``FEATURES``); a two-layer integer network turns them
into the location (in quarters) and the scale index of a table of ``nvcodec.entropy.tables``.

Files are coded by ``context_cpu``, and ``encoder.rate_kernels`` says what they will cost. ``features`` and
``location_and_scale`` are the same in tensor operations that autograd follows, to train the starting network and to
compare with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nvcodec.core.fixedpoint import Rounding, conv2d, shift_right
from nvcodec.entropy.tables import SCALES

__all__ = [
    "FEATURES",
    "HIDDEN",
    "MARGIN",
    "SIDE_FEATURES",
    "STAGES",
    "ChannelLayout",
    "ContextWeights",
    "at_stages",
    "features",
    "location_and_scale",
    "log_feature",
    "log_table",
    "neighbour_kernels",
    "stage_kernels",
    "stage_of",
]

MARGIN = 2
"""The features see symbols this far away."""
STAGES = 4
_STAGE_PHASES = ((0, 0), (1, 1), (0, 1), (1, 0))
"""Phase (row, column) that stage s reads in channel 0; channel c is c stages behind."""

SIDE_FEATURES = 3
"""parent (magnitudes of the same channel at the coarser level), mismatch (of the warped references), activity (of the
prediction)."""
FEATURES = 5 + SIDE_FEATURES
"""near, wide, cross (magnitudes around, read so far), mean (signed), |mean|, then the side features."""
HIDDEN = 16
GROUPS = 4
"""Channels of a level share a bias by group, see ``ChannelLayout``."""

LOG_STEP = 16
"""Magnitude features are LOG_STEP * log2(1 + x)."""
LOG_BOUND = 4095
MEAN_STEP = 16
FEATURE_BOUND = 255

WEIGHT_SHIFT = 6
HIDDEN_BOUND = 1023
OUTPUT_SHIFT = 6
OUTPUT_STEP_BITS = 4
"""Network outputs are sixteenths of a scale step and of a quarter of a symbol."""
LOCATION_BOUND = 400


@dataclass(frozen=True)
class ChannelLayout:
    """The channels of a level. ``groups``: which bias each of them takes. ``bands``: channels of one group, or of one
    place in their groups of three, tell something about each other; otherwise all channels do."""

    groups: tuple[int, ...]
    bands: bool = False

    def __len__(self) -> int:
        return len(self.groups)

    def related(self, c: int, other: int) -> bool:
        """Whether channel ``other`` counts in the ``cross`` feature of channel ``c``."""
        return not self.bands or self.groups[c] == self.groups[other] or c % 3 == other % 3


@dataclass
class ContextWeights:
    """Integers (or their float twins). Shapes: hidden (HIDDEN, FEATURES), hidden_bias (STAGES, HIDDEN),
    output (2, HIDDEN), output_bias (depths, levels, 2), group_bias (levels, GROUPS, 2)."""

    hidden: Tensor
    hidden_bias: Tensor
    output: Tensor
    output_bias: Tensor
    group_bias: Tensor

    def bias(self, depth: int, level: int, layout: ChannelLayout) -> Tensor:
        """(channels, 2): the bias of the outputs for each channel of a level."""
        return self.output_bias[depth, level] + self.group_bias[level][list(layout.groups)]


@cache
def stage_of(channels: int) -> tuple[tuple[tuple[int, int], ...], ...]:
    """``stage_of(C)[s][c]`` is the phase (row, column) that stage s reads in channel c."""
    return tuple(tuple(_STAGE_PHASES[(s - c) % STAGES] for c in range(channels)) for s in range(STAGES))


@cache
def log_table() -> np.ndarray:
    """round(16 * log2(1 + i)) for i = 0 .. LOG_BOUND, from integer comparisons: the normative table."""
    values = []
    k = 0
    for i in range(LOG_BOUND + 1):
        # k is the rounded value while (1 + i)**32 >= 2**(2k + 1): compare exactly.
        while (1 + i) ** 32 >= 1 << (2 * k + 1):
            k += 1
        values.append(k)
    return np.array(values, np.float32)


def log_feature(x: Tensor, rounding: Rounding) -> Tensor:
    """Non-negative x to ``round(16 log2(1 + floor(x)))``, x capped at LOG_BOUND."""
    x = x.clamp(max=LOG_BOUND)
    if rounding is Rounding.EXACT:
        return torch.from_numpy(log_table())[x.round().long()]
    return LOG_STEP * torch.log2(1.0 + x)


@cache
def stage_kernels(layout: ChannelLayout, stage: int) -> tuple[Tensor, Tensor]:
    """``neighbour_kernels`` of what a stage reads, from all that earlier stages have read."""
    channels = range(len(layout))
    phases = stage_of(len(layout))
    read_at = {(c, phases[s][c]): s for s in range(STAGES) for c in channels}

    def is_read(c: int, other: int, dy: int, dx: int) -> bool:
        row, column = phases[stage][c]
        return read_at[other, ((row + dy) % 2, (column + dx) % 2)] < stage

    return neighbour_kernels(layout, stage, is_read)


def neighbour_kernels(
    layout: ChannelLayout, stage: int, is_read: Callable[[int, int, int, int], bool]
) -> tuple[Tensor, Tensor]:
    """Kernels over a level whose unread symbols are zero, at the phases of ``stage``.

    ``is_read(c, other, dy, dx)``: whether a symbol of channel c knows that of channel ``other`` at this distance.

    Magnitudes (3 * C, C, 6, 6): near, wide, cross of each channel, in 1/16 of a symbol and scaled for the
    number of neighbours already read. Signed (C, C, 6, 6): the mean, in 1/MEAN_STEP of a symbol.
    Applied with stride 2 to a level padded by 2; tap (r, s) sees row 2i + r - 2.
    """
    channels = len(layout)
    magnitude = torch.zeros(3, channels, channels, 6, 6)
    signed = torch.zeros(channels, channels, 6, 6)
    for c, (row, column) in enumerate(stage_of(channels)[stage]):
        for dy in range(-2, 3):
            for dx in range(-2, 3):
                reach = max(abs(dy), abs(dx))
                tap = (row + dy + 2, column + dx + 2)
                for other in range(channels):
                    if not is_read(c, other, dy, dx):
                        continue
                    if other == c:
                        magnitude[1, c, c, tap[0], tap[1]] = 1
                        if reach == 1:
                            magnitude[0, c, c, tap[0], tap[1]] = 1
                            signed[c, c, tap[0], tap[1]] = 1 if dy and dx else 2
                    elif reach <= 1 and layout.related(c, other):
                        magnitude[2, c, other, tap[0], tap[1]] = 2 if reach == 0 else 1
        for kind, unit in ((0, 64), (1, 128), (2, 64)):
            total = magnitude[kind, c].sum()
            if total:
                magnitude[kind, c] *= torch.floor(unit / total + 0.5)
        total = signed[c].sum()
        if total:
            signed[c] *= torch.floor(MEAN_STEP / total + 0.5)
    return magnitude.reshape(3 * channels, channels, 6, 6), signed


@cache
def _kernels(layout: ChannelLayout, stages: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    pairs = [stage_kernels(layout, stage) for stage in stages]
    return torch.cat([p[0] for p in pairs]), torch.cat([p[1] for p in pairs])


def at_stages(level: Tensor, stages: tuple[int, ...]) -> Tensor:
    """(B, C, rows, columns), even sizes, to (B, S, C, rows/2, columns/2): what each stage reads."""
    channels = level.shape[1]
    planes = [level[:, c, row::2, column::2] for s in stages for c, (row, column) in enumerate(stage_of(channels)[s])]
    return torch.stack(planes, dim=1).unflatten(1, (len(stages), channels))


def features(
    symbols: Tensor, layout: ChannelLayout, stages: tuple[int, ...], side: Tensor, rounding: Rounding
) -> Tensor:
    """Features of what the stages read: (B, S, C, FEATURES, rows/2, columns/2).

    ``symbols``: (B, C, rows, columns), even sizes; symbols of the same or a later stage are not looked at.
    ``side``: known before the level's first symbol, (B, C + 2, rows, columns): the parent of each channel, then
    mismatch and activity.
    """
    batch, channels, rows, columns = symbols.shape
    half = (rows // 2, columns // 2)
    magnitude_kernel, signed_kernel = _kernels(layout, stages)
    padded = F.pad(symbols, (2, 2, 2, 2))
    magnitude = conv2d(padded.abs(), magnitude_kernel, stride=2)
    magnitude = log_feature(magnitude.reshape(batch, len(stages), 3, channels, *half), rounding)
    mean = conv2d(padded, signed_kernel, stride=2).clamp(-FEATURE_BOUND, FEATURE_BOUND)
    mean = mean.reshape(batch, len(stages), channels, *half)
    around = [
        at_stages(plane.expand(-1, channels, -1, -1), stages)
        for plane in (side[:, :channels], side[:, channels : channels + 1], side[:, channels + 1 :])
    ]
    return torch.stack([*magnitude.unbind(2), mean, log_feature(mean.abs(), rounding), *around], dim=3)


def location_and_scale(
    inputs: Tensor, weights: ContextWeights, stages: tuple[int, ...], output_bias: Tensor, rounding: Rounding
) -> tuple[Tensor, Tensor]:
    """Features (B, S, C, FEATURES, h, w) to location and scale index, each (B, S, C, h, w).

    ``output_bias``: (C, 2), see ``ContextWeights.bias``. Location in quarters of a symbol; the scale index
    lies in 0 .. SCALES - 1. Both are integers unless ``rounding`` is NONE.
    """
    shape = inputs.shape
    x = inputs.movedim(3, -1).reshape(shape[0], len(stages), -1, FEATURES)
    hidden = x @ weights.hidden.t() + weights.hidden_bias[list(stages)][:, None] * (1 << WEIGHT_SHIFT)
    hidden = shift_right(hidden, WEIGHT_SHIFT, rounding).clamp(0, HIDDEN_BOUND)
    out = (hidden @ weights.output.t()).reshape(shape[0], len(stages), shape[2], -1, 2)
    out = shift_right(out + output_bias[:, None] * (1 << OUTPUT_SHIFT), OUTPUT_SHIFT + OUTPUT_STEP_BITS, rounding)
    out = out.reshape(shape[0], len(stages), shape[2], shape[4], shape[5], 2)
    return out[..., 0].clamp(-LOCATION_BOUND, LOCATION_BOUND), out[..., 1].clamp(0, SCALES - 1)
