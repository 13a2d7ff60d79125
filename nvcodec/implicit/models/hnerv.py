"""HNeRV (Chen, Gwilliam, Lim, Shrivastava: "HNeRV: A Hybrid Neural Representation for Videos", CVPR 2023).

::

    embedding of the frame (16, 2, 4) -> conv 1x1 -> blocks: conv, GELU, pixel shuffle -> conv 3x3 -> tanh / 2
                ^                                    kernels 1, 3, 5, 5, ...   channels / 1.2 each, at least 12
    a ConvNeXt encoder, while it is fitted; it is not stored

GELU stands before the shuffle, where it is the same and cheaper. What differs from the paper: the picture is 4:2:0.
The last convolution gives Y, U and V at full resolution, and one of 1x1 brings each 2x2 of them to the six samples of
the working domain.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nvcodec.exact.arrangement import PixelShuffle
from nvcodec.exact.convolution import Conv2d
from nvcodec.exact.latents import Latent
from nvcodec.exact.operation import FrameInputs, Sizes
from nvcodec.exact.pointwise import GELU
from nvcodec.implicit.models.parts import HEAD_WEIGHTS, Head, conv_weights, widest

__all__ = ["HNeRV"]

EMBEDDING_CHANNELS = 16
_REDUCTION = 1.2
_LEAST_WIDTHS = (12, 8, 6, 4, 3, 2)
"""Channels that no block goes below: the paper's, and less where there are few weights."""
_AT_ONCE = 3.0
"""Values of the last block that are needed at once."""
_STRIDES = ((5, 2, 2), (5, 4, 2), (5, 4, 2, 2), (5, 4, 4, 2), (5, 4, 4, 2, 2), (5, 4, 4, 4, 2))
"""Factors of the blocks; those are taken whose embedding comes nearest to ``_EMBEDDING_CELLS``."""
_EMBEDDING_CELLS = 8
_ENCODER_WIDTH = 64


class HNeRV(nn.Module):
    """``parameters``: about how many numbers a decoder needs, weights and embeddings of all frames."""

    def __init__(self, sizes: Sizes, parameters: float) -> None:
        super().__init__()
        height, width = 2 * sizes.half[0], 2 * sizes.half[1]
        strides = _strides(height, width)
        total = math.prod(strides)
        rows, columns = -(-height // total), -(-width // total)
        latents = sizes.frames * EMBEDDING_CHANNELS * rows * columns
        before, *widths = _chosen_widths(strides, parameters - latents, sizes, rows * columns)
        self.embedding = Latent(EMBEDDING_CHANNELS, rows, columns)
        layers: list[nn.Module] = [Conv2d(EMBEDDING_CHANNELS, before), GELU()]
        for kernel, stride, after in zip(_kernels(strides), strides, widths, strict=True):
            layers += [Conv2d(before, after * stride**2, kernel), GELU(), PixelShuffle(stride)]
            before = after
        self.blocks = nn.Sequential(*layers)
        self.head = Head(before, sizes)
        self.analysis = _Analysis(sizes, strides, (rows, columns))

    def forward(self, frame: FrameInputs) -> dict[str, Tensor]:
        made: dict[str, Tensor] = self.head(self.blocks(self.embedding(frame)))
        return made

    def analyse(self, samples: Tensor) -> dict[int, Tensor]:
        """The embeddings of frames, (B, 6, h, w) samples in -0.5 .. 0.5, by level."""
        return {0: self.analysis(samples)}


def _strides(height: int, width: int) -> tuple[int, ...]:
    def cells(strides: tuple[int, ...]) -> float:
        total = math.prod(strides)
        return -(-height // total) * -(-width // total)

    return min(_STRIDES, key=lambda strides: abs(math.log(cells(strides) / _EMBEDDING_CELLS)))


def _kernels(strides: tuple[int, ...]) -> list[int]:
    return [min(2 * n + 1, 5) for n in range(len(strides))]


def _widths(first: int, stages: int, least: int) -> list[int]:
    """Channels behind each block."""
    widths = []
    for _ in range(stages):
        first = max(round(first / _REDUCTION), least)
        widths.append(first)
    return widths


def _chosen_widths(strides: tuple[int, ...], weights: float, sizes: Sizes, cells: int) -> list[int]:
    """Channels before the first block and behind each one, with about so many weights: as many as the limits of a
    program allow, and fewer than the paper's 12 at the end where there are few weights. ``cells``: of the embedding."""

    def count(first: int, least: int) -> int:
        total, before = conv_weights(EMBEDDING_CHANNELS, first), first
        for kernel, stride, after in zip(_kernels(strides), strides, _widths(first, len(strides), least), strict=True):
            total += conv_weights(before, after * stride**2, kernel)
            before = after
        return total + conv_weights(before, 3, 3) + HEAD_WEIGHTS

    def fits(first: int, least: int) -> bool:
        positions = cells
        for stride, after in zip(strides, _widths(first, len(strides), least), strict=True):
            positions *= stride**2
            if after > widest(sizes, positions, _AT_ONCE):
                return False
        return True

    least = next((width for width in _LEAST_WIDTHS if count(width, width) <= weights), _LEAST_WIDTHS[-1])
    first = 1
    while first < 2048 and count(first + 1, least) <= weights and fits(first + 1, least):
        first += 1
    return [first, *_widths(first, len(strides), least)]


class _Analysis(nn.Module):
    """A ConvNeXt (Liu et al., "A ConvNet for the 2020s", 2022) of one block a stage that makes the embeddings."""

    def __init__(self, sizes: Sizes, strides: tuple[int, ...], embedding: tuple[int, int]) -> None:
        super().__init__()
        self.padded = (embedding[0] * math.prod(strides) // 2, embedding[1] * math.prod(strides) // 2)
        steps = [strides[0], *sorted(strides[1:], reverse=True)]
        steps[steps.index(2)] = 1  # the working domain has half the size
        channels = 6
        stages: list[nn.Module] = []
        for number, step in enumerate(s for s in steps if s > 1):
            is_last = number + 1 == len([s for s in steps if s > 1])
            width = EMBEDDING_CHANNELS if is_last else _ENCODER_WIDTH
            down = nn.Conv2d(channels, width, step, stride=step)
            stages += [_ChannelNorm(channels) if number else nn.Identity(), down]
            stages += [_ChannelNorm(width) if not number else nn.Identity(), _Block(width)]
            channels = width
        self.stages = nn.Sequential(*stages)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, samples: Tensor) -> Tensor:
        rows, columns = samples.shape[-2:]
        pad = (0, self.padded[1] - columns, 0, self.padded[0] - rows)
        made: Tensor = self.stages(F.pad(samples, pad, mode="replicate") + 0.5)
        return made


class _ChannelNorm(nn.Module):
    """Layer normalisation over channels with an affine map, (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        made = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, 1e-6)
        return made.permute(0, 3, 1, 2)


class _Block(nn.Module):
    """Depthwise 7x7, normalisation, 1x1 to four times the width, GELU, 1x1 back, added with a small factor."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = _ChannelNorm(width)
        self.widen, self.narrow = nn.Conv2d(width, 4 * width, 1), nn.Conv2d(4 * width, width, 1)
        self.factor = nn.Parameter(torch.full((width, 1, 1), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.factor * self.narrow(F.gelu(self.widen(self.norm(self.depthwise(x)))))
