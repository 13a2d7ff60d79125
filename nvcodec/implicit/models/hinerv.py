"""HiNeRV (Kwan, Gao, Zhang, Gower, Bull: "HiNeRV: Video Compression with Hierarchical Encoding-based Neural
Representation", NeurIPS 2023).

::

    base grids, a slice for 2 and for 4 frames -> conv 3x3 -> blocks -> stages -> conv 3x3 -> tanh / 2 -> samples

    stage:  1x1 to half the channels -> bilinear upsampling by 5, 3, 2 -> + -> blocks
            local grid, one number for each place in a cell -> 1x1 --------^
    block:  x + 1x1(GELU(1x1 to four times the channels(norm(depthwise 5x5(x)))))

What differs from the paper: the picture is 4:2:0, and the last stage has half the resolution and six outputs. It has a
wide block then, where at full resolution a decoder would have no memory for it. Channels are halved before the
upsampling, which is the same and cheaper. The norm's scale and shift are those of the convolution behind it. Frames are
whole, not patches with a border. Base grids have as many cells as size and number of frames ask for.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nvcodec.core.limits import LATENTS_A_SAMPLE, MAX_LATENT_CHANNELS
from nvcodec.exact.arrangement import Concat, PixelShuffle, PixelUnshuffle, Reshape, Upsample
from nvcodec.exact.convolution import MAX_CHANNELS, Conv2d
from nvcodec.exact.latents import Grid
from nvcodec.exact.normalisation import LayerNorm
from nvcodec.exact.operation import FrameInputs, Sizes
from nvcodec.exact.pointwise import GELU, Add
from nvcodec.implicit.models.parts import Ending, conv_weights, largest, widest

__all__ = ["HiNeRV"]

_STRIDES = ((2,), (3,), (2, 2), (3, 2), (2, 2, 2), (5, 2), (3, 2, 2), (5, 2, 2), (5, 3, 2), (5, 3, 2, 2), (5, 4, 3, 2))
"""Factors of the stages, from the base grids to half the resolution."""
_OF_BASE, _OF_LOCAL = 0.3, 0.05
"""Shares of the parameters that the base grids have, and at most the local ones."""
_CELLS = 4, 576
_BASE_CHANNELS = 4
_LOCAL_CHANNELS = 4
_KERNEL, _EXPANSION = 5, 4
_LEAST_WIDTH = 8
_ALIVE = 2 * _EXPANSION + 1.3
"""Values that a block needs at once, for each of its own."""


class HiNeRV(nn.Module):
    """``parameters``: about how many numbers a decoder needs, weights and grids."""

    def __init__(self, sizes: Sizes, parameters: float) -> None:
        super().__init__()
        plan = _planned(sizes, parameters)
        rows, columns = plan.base
        self.fine = Grid(plan.slices, plan.channels, rows, columns)
        self.coarse = Grid(_half(plan.slices), plan.channels, rows, columns)
        self.together, self.stem = Concat(), Conv2d(2 * plan.channels, plan.widths[0], 3)
        self.blocks = nn.Sequential(*(_Block(plan.widths[0]) for _ in range(plan.depth)))
        self.stages = nn.ModuleList()
        for n, stride in enumerate(plan.strides):
            depth = 1 if n + 1 == len(plan.strides) else plan.depth
            self.stages.append(_Stage(plan.widths[n], plan.widths[n + 1], stride, depth, plan.local_slices))
        self.head, self.ending = Conv2d(plan.widths[-1], 6, 3), Ending(sizes)

    def forward(self, frame: FrameInputs) -> dict[str, Tensor]:
        x = self.blocks(self.stem(self.together(self.fine(frame), self.coarse(frame))))
        for stage in self.stages:
            x = stage(x, frame)
        made: dict[str, Tensor] = self.ending(self.head(x))
        return made


class _Stage(nn.Module):
    """The local grid repeats over the map: one (C, stride, stride) for all cells, added where a shuffle is undone."""

    def __init__(self, before: int, after: int, stride: int, depth: int, slices: int) -> None:
        super().__init__()
        self.narrow, self.up = Conv2d(before, after), Upsample(stride)
        self.local = Grid(slices, _LOCAL_CHANNELS, stride, stride)
        self.widen, self.flat = Conv2d(_LOCAL_CHANNELS, after), Reshape(after * stride**2, 1, 1)
        self.apart, self.add, self.join = PixelUnshuffle(stride), Add(), PixelShuffle(stride)
        self.blocks = nn.Sequential(*(_Block(after) for _ in range(depth)))

    def forward(self, x: Tensor, frame: FrameInputs) -> Tensor:
        local = self.flat(self.widen(self.local(frame)))
        made: Tensor = self.blocks(self.join(self.add(self.apart(self.up(self.narrow(x))), local)))
        return made


class _Block(nn.Module):
    """ConvNeXt's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise, self.norm = Conv2d(width, width, _KERNEL, groups=width), LayerNorm()
        self.widen, self.act, self.narrow = Conv2d(width, _EXPANSION * width), GELU(), Conv2d(_EXPANSION * width, width)
        self.add = Add()
        with torch.no_grad():
            self.narrow.weight.mul_(0.3)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.add(x, self.narrow(self.act(self.widen(self.norm(self.depthwise(x))))))
        return made


class _Plan(NamedTuple):
    """``base``: rows and columns of the base grids, of ``channels`` each; the fine one has ``slices``. ``widths``:
    before the stages, and of each."""

    strides: tuple[int, ...]
    base: tuple[int, int]
    channels: int
    slices: int
    local_slices: int
    depth: int
    widths: list[int]


def _half(count: int) -> int:
    return -(-count // 2)


def _planned(sizes: Sizes, parameters: float) -> _Plan:
    most_slices = _half(sizes.frames)
    of_base = min(_OF_BASE * parameters, 0.8 * LATENTS_A_SAMPLE * sizes.limited_samples)
    wanted = min(max(of_base / (1.5 * most_slices * _BASE_CHANNELS), _CELLS[0]), _CELLS[1])

    def base(strides: tuple[int, ...]) -> tuple[int, int]:
        total = math.prod(strides)
        return -(-sizes.half[0] // total), -(-sizes.half[1] // total)

    strides = min(_STRIDES, key=lambda s: abs(math.log(math.prod(base(s)) / wanted)))
    cells, places = math.prod(base(strides)), sum(s**2 for s in strides)
    most_channels = min(MAX_LATENT_CHANNELS, max(_BASE_CHANNELS, round(math.sqrt(parameters) / 5)))
    channels = min(max(round(of_base / (1.5 * most_slices * cells)), 1), most_channels)
    slices = min(max(round(of_base / (1.5 * channels * cells)), 1), most_slices)
    local_slices = min(max(round(_OF_LOCAL * parameters / (_LOCAL_CHANNELS * places)), 1), most_slices)
    grids = channels * (slices + _half(slices)) * cells + _LOCAL_CHANNELS * local_slices * places
    left = parameters - grids
    depth = 1 if left < 1e5 else 2 if left < 1e6 else 3
    most = [
        min(MAX_CHANNELS // _EXPANSION, widest(sizes, cells * math.prod(strides[:n]) ** 2, _ALIVE))
        for n in range(len(strides) + 1)
    ]

    def widths(first: int) -> list[int]:
        return [min(max(first >> n, _LEAST_WIDTH), m) for n, m in enumerate(most)]

    def count(first: int) -> int:
        found = widths(first)
        total = conv_weights(2 * channels, found[0], 3) + conv_weights(found[-1], 6, 3) + depth * _weights(found[0])
        for n in range(len(strides)):
            before, after = found[n : n + 2]
            total += conv_weights(before, after) + conv_weights(_LOCAL_CHANNELS, after)
            total += (1 if n + 1 == len(strides) else depth) * _weights(after)
        return total

    first = largest(count, left, most[0])
    return _Plan(strides, base(strides), channels, slices, local_slices, depth, widths(first))


def _weights(width: int) -> int:
    """Of a block."""
    mixing = conv_weights(width, _EXPANSION * width) + conv_weights(_EXPANSION * width, width)
    return conv_weights(width, width, _KERNEL, groups=width) + mixing
