"""What several models have in common: the head to 4:2:0, counts of weights, and the limits that widths must keep."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nvcodec.core.limits import PROGRAM_ELEMENTS_A_SAMPLE
from nvcodec.exact.arrangement import Fit, PixelUnshuffle
from nvcodec.exact.convolution import Conv2d
from nvcodec.exact.operation import Sizes
from nvcodec.exact.outputs import Samples
from nvcodec.exact.pointwise import Scale, Tanh

__all__ = ["HEAD_WEIGHTS", "Ending", "Head", "conv_weights", "largest", "widest"]


class Ending(nn.Module):
    """Six channels of the working domain to samples: tanh / 2, the part that the picture has."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.fit = Fit(*sizes.half)
        self.squash, self.halve, self.samples = Tanh(), Scale(-1), Samples()

    def forward(self, cells: Tensor) -> dict[str, Tensor]:
        return {"samples": self.samples(self.halve(self.squash(self.fit(cells))))}


class Head(nn.Module):
    """Features at full resolution to samples: Y, U and V of each pixel by a convolution 3x3, then one of 1x1 brings
    each 2x2 of them to the six samples of the working domain."""

    def __init__(self, channels: int, sizes: Sizes) -> None:
        super().__init__()
        self.head = Conv2d(channels, 3, 3)
        self.cells = PixelUnshuffle(2)
        self.subsample = Conv2d(12, 6)
        self.ending = Ending(sizes)
        with torch.no_grad():  # Y as it is, U and V each the mean of its four
            self.subsample.weight.zero_()
            for n in range(4):
                self.subsample.weight[n, n] = 1
            for n in range(8):
                self.subsample.weight[4 + n // 4, 4 + n] = 0.25
            self.subsample.bias.zero_()

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        made: dict[str, Tensor] = self.ending(self.subsample(self.cells(self.head(features))))
        return made


def conv_weights(into: int, out: int, kernel: int = 1, *, groups: int = 1) -> int:
    """Numbers of a convolution, its biases among them."""
    return out * (into // groups * kernel**2 + 1)


HEAD_WEIGHTS = conv_weights(12, 6)
"""Of ``Head`` beside its convolution 3x3."""


def largest(count: Callable[[int], float], budget: float, most: int, least: int = 1) -> int:
    """The largest width in ``least`` .. ``most`` whose count is within the budget, the least one where none is."""
    low, high = least, max(least, most)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count(middle) <= budget else (low, middle - 1)
    return low


def widest(sizes: Sizes, positions: int, at_once: float) -> int:
    """The most channels for values at so many positions of which ``at_once`` times as many are needed at once."""
    return max(1, int(PROGRAM_ELEMENTS_A_SAMPLE * sizes.limited_samples / (positions * at_once)) - 1)
