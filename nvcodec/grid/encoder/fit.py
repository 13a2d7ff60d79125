"""The appearance levels of a coding unit by rate and distortion."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from nvcodec.core.gop import CodingUnit
from nvcodec.core.quantiser import GAIN_STEPS, GAIN_STEPS_PER_OCTAVE, LEAST_GAIN
from nvcodec.encoder.distortion import sample_weights
from nvcodec.encoder.rate import level_costs
from nvcodec.encoder.working_domain import SAMPLE_STEP
from nvcodec.entropy.context import ContextWeights
from nvcodec.grid.encoder.descent import descended_levels
from nvcodec.grid.encoder.transform import amplitudes
from nvcodec.grid.levels import APPEARANCE_LEVELS, channel_gains, empty_levels
from nvcodec.grid.side import AppearanceSide
from nvcodec.motion.compensation import Compensated
from nvcodec.motion.levels import SYMBOL_BOUND, FrameGeometry

__all__ = ["GridFit", "gain_index"]

_DEAD_ZONE = 0.66
_LAMBDA_OF_STEP = (0.15, 0.2, 0.235, 0.27)
"""Lambda over the squared quantiser step that goes best with it, by depth of the frames."""


def gain_index(lmbda: float, depth: int) -> int:
    """The quantiser index that suits ``lmbda``, squared 8-bit errors a bit."""
    square = lmbda / _LAMBDA_OF_STEP[min(depth, len(_LAMBDA_OF_STEP) - 1)]
    octaves = 0.5 * math.log2(square) + math.log2(SAMPLE_STEP / LEAST_GAIN)
    return min(max(round(GAIN_STEPS_PER_OCTAVE * octaves), 0), GAIN_STEPS - 1)


class GridFit:
    """The appearance levels of one unit while they are being fitted, finest first in ``levels``, on the CPU."""

    def __init__(
        self,
        unit: CodingUnit,
        geometry: FrameGeometry,
        target: Tensor,
        inputs: Compensated,
        importance: Tensor,
        context: ContextWeights,
        gains: Tensor,
    ) -> None:
        """``target``: (B, 6, h, w), what the frames are made to look like, 10 bits. ``inputs``: what the references
        say. ``importance``: (B, block rows, block columns), weight of the errors of each block. ``context``: prices
        the symbols. ``gains``: see ``nvcodec.grid.levels.Quantiser``."""
        self.unit, self.target, self.context, self.gains = unit, target.cpu(), context, gains
        self.weights = sample_weights(importance, geometry.half)
        self.side = AppearanceSide(inputs.prediction, inputs.difference, geometry)
        self.levels = empty_levels(len(target), geometry)

    def start(self, prediction: Tensor) -> None:
        """Begin with the transform of the prediction's error, every symbol rounded towards zero."""
        goal = amplitudes(self.target - prediction.cpu())
        levels = [level / channel_gains(self.gains, k) for k, level in enumerate(goal)]
        rounded = [torch.sign(x) * torch.floor(x.abs() + 1 - _DEAD_ZONE) for x in levels]
        self.levels = [x.clamp(-SYMBOL_BOUND, SYMBOL_BOUND) for x in rounded]

    def descend(
        self, made: Callable[[list[Tensor]], tuple[Tensor, Tensor]], lmbda: float, count: int = APPEARANCE_LEVELS
    ) -> None:
        """Visit every symbol of the ``count`` finest levels. ``made``: samples (B, 6, h, w) of levels, and the residual
        that they expand to; what the network adds to that is taken as given."""
        samples, residual = made(self.levels)
        rest = samples.cpu() - residual - self.target
        self.levels = descended_levels(
            self.levels, self.gains, rest, self.weights * (1 / SAMPLE_STEP**2), self.side, self.context,
            self.unit.depth, lmbda, count,
        )  # fmt: skip

    def bits(self) -> float:
        """What the levels cost."""
        rates, _ = level_costs(self.levels, self.side, self.context, self.unit.depth)
        return sum(float(rate.bits.sum()) for rate in rates)
