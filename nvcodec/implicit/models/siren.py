"""SIREN (Sitzmann, Martel, Bergman, Lindell, Wetzstein: "Implicit Neural Representations with Periodic Activation
Functions", NeurIPS 2020).

::

    y, x of each position -> 1x1 --+
                                   + -> sine -> (1x1 -> sine) three times -> 1x1 -> samples
    time -----------------> 1x1 --+

What differs from the paper: a position is a cell of 2x2 luma samples and has six outputs, as 4:2:0 is stored, so that
the network runs a quarter as often. Sine counts turns, and the factor omega, 30, lies in the weights: the paper keeps
it outside and takes smaller weights, which is the same network but for how fast it learns. The omega of time grows with
the number of frames: few of them differ less than a picture is wide. Where a program may not be wider, it is deeper.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nvcodec.core.limits import MULTIPLICATIONS_A_SAMPLE
from nvcodec.exact.convolution import MAX_CHANNELS, Conv2d
from nvcodec.exact.operation import FrameInputs, Sizes
from nvcodec.exact.outputs import Samples
from nvcodec.exact.pointwise import Add, Sine
from nvcodec.exact.position import Coordinates, Time
from nvcodec.implicit.models.parts import conv_weights, largest, widest

__all__ = ["SIREN"]

_DEPTH = 3, 8
"""Hidden layers; more of them only where they may not be wider."""
_OMEGA = 30.0
"""Of the first layer, radians over half the picture, at most."""
_FRAME_OMEGA = 0.3
"""Of time, radians from frame to frame."""
_TURN = 2 * math.pi


class SIREN(nn.Module):
    """``parameters``: about how many weights there are, as far as the limits of a program allow."""

    def __init__(self, sizes: Sizes, parameters: float) -> None:
        super().__init__()
        width, depth = _planned(sizes, parameters)
        self.coordinates, self.time = Coordinates(*sizes.half), Time()
        self.place, self.moment, self.both = Conv2d(2, width), Conv2d(1, width), Add()
        self.sine = Sine()
        self.hidden = nn.Sequential()
        for _ in range(depth):
            self.hidden += nn.Sequential(Conv2d(width, width), Sine())
        self.last, self.samples = Conv2d(width, 6), Samples()
        self._initialise(width, sizes.frames)

    @torch.no_grad()
    def _initialise(self, width: int, frames: int) -> None:
        """The paper's: phases spread evenly at first, then each sine has an argument of about deviation 1."""
        self.place.weight.uniform_(-_OMEGA / _TURN / 2, _OMEGA / _TURN / 2)
        of_time = min(_FRAME_OMEGA * frames / 2, _OMEGA) / _TURN
        self.moment.weight.uniform_(-of_time, of_time)
        self.moment.bias.zero_()  # that of ``place`` is enough
        self.place.bias.uniform_(-0.5, 0.5)
        bound = math.sqrt(6 / width)
        for layer in self.hidden:
            if isinstance(layer, Conv2d):
                layer.weight.uniform_(-bound / _TURN, bound / _TURN)
        self.last.weight.uniform_(-bound / _OMEGA, bound / _OMEGA)
        self.last.bias.zero_()

    def forward(self, frame: FrameInputs) -> dict[str, Tensor]:
        phases = self.both(self.place(self.coordinates(frame)), self.moment(self.time(frame)))
        return {"samples": self.samples(self.last(self.hidden(self.sine(phases))))}


def _planned(sizes: Sizes, parameters: float) -> tuple[int, int]:
    """Width, and how many hidden layers."""
    positions = sizes.half[0] * sizes.half[1]
    budget = min(parameters, 0.95 * MULTIPLICATIONS_A_SAMPLE * sizes.limited_samples / positions)
    most = min(MAX_CHANNELS, widest(sizes, positions, 2.2))

    def count(width: int, depth: int) -> int:
        ends = conv_weights(2, width) + conv_weights(1, width) + conv_weights(width, 6)
        return ends + depth * conv_weights(width, width)

    depth = largest(lambda n: count(most, n), budget, _DEPTH[1], _DEPTH[0])
    return largest(lambda n: count(n, depth), budget, most), depth
