"""NeRV (Chen, He, Wang, Ren, Lim, Shrivastava: "NeRV: Neural Representations for Videos", NeurIPS 2021).

::

    time in turns of 40 frequencies, 1.25 apart -> sine -> 1x1 -> GELU -> 1x1 -> GELU -> a small map
        -> blocks: conv 3x3, GELU, pixel shuffle by 5, 3, 2, 2, 2 -> conv 3x3 -> tanh / 2 -> samples

What differs from the paper: the picture is 4:2:0, and the head is that of HNeRV. GELU stands before the shuffle, which
changes nothing but the time it takes. The loss is the encoder's. The map has as many cells, and there are as many
blocks, as picture and size ask for; the paper's 9x16 and five blocks are what 1920x1080 with 3 million has. The last
blocks are narrower than the paper's, whose 96 channels at full resolution a decoder would have no memory for.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from nvcodec.exact.arrangement import PixelShuffle, Reshape
from nvcodec.exact.convolution import MAX_CHANNELS, Conv2d, Linear
from nvcodec.exact.operation import FrameInputs, Sizes
from nvcodec.exact.pointwise import GELU, Sine
from nvcodec.exact.position import Phases
from nvcodec.implicit.models.parts import HEAD_WEIGHTS, Head, conv_weights, largest, widest

__all__ = ["NeRV"]

_FREQUENCIES, _BASE = 40, 1.25
_STRIDES = tuple(
    (*first, *(2,) * more) for first in ((2,), (3, 2), (5, 2), (5, 3, 2)) for more in range(5)
)  # fmt: skip
"""Factors of the blocks; those are taken whose map comes nearest to the cells that are wanted."""
_CELLS = 4, 144
_OF_BLOCKS = 0.5
"""Share of the weights that the blocks have; the layers before the map have the rest."""


class NeRV(nn.Module):
    """``parameters``: about how many weights there are."""

    def __init__(self, sizes: Sizes, parameters: float) -> None:
        super().__init__()
        height, width = 2 * sizes.half[0], 2 * sizes.half[1]
        strides = _strides(height, width, min(max(math.sqrt(parameters) / 3, _CELLS[0]), _CELLS[1]))
        rows, columns = _map(height, width, strides)
        most = [widest(sizes, rows * columns * math.prod(strides[: n + 1]) ** 2, 2) for n in range(len(strides))]
        most = [min(m, MAX_CHANNELS // s**2) for m, s in zip(most, strides, strict=True)]
        channels, widths = _widths(strides, most, MAX_CHANNELS // (rows * columns), _OF_BLOCKS * parameters)

        left = parameters - _block_weights(strides, channels, widths)
        flat = channels * rows * columns
        hidden = largest(
            lambda n: conv_weights(2 * _FREQUENCIES, n) + conv_weights(n, flat), left, MAX_CHANNELS, least=4
        )
        self.phases, self.sine = Phases(_FREQUENCIES, _BASE), Sine()
        self.stem = nn.Sequential(Linear(2 * _FREQUENCIES, hidden), GELU(), Linear(hidden, flat), GELU())
        self.to_map = Reshape(channels, rows, columns)
        self.blocks = nn.Sequential()
        for stride, after in zip(strides, widths, strict=True):
            self.blocks += nn.Sequential(Conv2d(channels, after * stride**2, 3), GELU(), PixelShuffle(stride))
            channels = after
        self.head = Head(channels, sizes)

    def forward(self, frame: FrameInputs) -> dict[str, Tensor]:
        made: dict[str, Tensor] = self.head(self.blocks(self.to_map(self.stem(self.sine(self.phases(frame))))))
        return made


def _map(height: int, width: int, strides: tuple[int, ...]) -> tuple[int, int]:
    total = math.prod(strides)
    return -(-height // total), -(-width // total)


def _strides(height: int, width: int, cells: float) -> tuple[int, ...]:
    def distance(strides: tuple[int, ...]) -> float:
        padded = math.prod(_map(height, width, strides)) * math.prod(strides) ** 2 / (height * width)
        return abs(math.log(math.prod(_map(height, width, strides)) / cells)) + math.log(padded)

    return min(_STRIDES, key=distance)


def _widths(strides: tuple[int, ...], most: list[int], most_channels: int, weights: float) -> tuple[int, list[int]]:
    """Channels of the map and behind each block."""

    def of(width: int) -> tuple[int, list[int]]:
        return min(width, most_channels), [min(width, m) for m in most]

    return of(largest(lambda width: _block_weights(strides, *of(width)), weights, 512, least=2))


def _block_weights(strides: tuple[int, ...], channels: int, widths: list[int]) -> int:
    total = HEAD_WEIGHTS + conv_weights(widths[-1], 3, 3)
    for stride, after in zip(strides, widths, strict=True):
        total += conv_weights(channels, after * stride**2, 3)
        channels = after
    return total
