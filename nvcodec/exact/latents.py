"""What is learned of each frame and entropy-coded: latents, and grids that are coarser in time; with their layers.

Symbols lie in -127 .. 127. A program takes them times a power of two, so that what it makes of them can lie between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from nvcodec.exact.arithmetic import WEIGHT_BOUND
from nvcodec.exact.arrangement import MAX_SIDE
from nvcodec.exact.layer import Builder, InputLayer, Traced
from nvcodec.exact.operation import Execution, FrameInputs, InputOperation, Parameter, Shape, Sizes, operation
from nvcodec.exact.simulation import current, rounded_symbols

__all__ = [
    "Grid",
    "GridInput",
    "Latent",
    "LatentInput",
]

MAX_LEVELS = 16
MAX_SLICES = 1 << 10
_CHANNELS = Parameter("channels", 1, 1 << 12)
_SIDES = (Parameter("rows", 1, MAX_SIDE), Parameter("columns", 1, MAX_SIDE))
_GAIN = Parameter("gain", 0, 8)


@operation
@dataclass(frozen=True)
class LatentInput(InputOperation):
    """The latents of the frame at a level: ``symbol << gain``. Symbols lie in -127 .. 127."""

    level: int = 0
    channels: int = 1
    rows: int = 1
    columns: int = 1
    gain: int = 4

    CODE: ClassVar[int] = 32
    NAME: ClassVar[str] = "latent"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (Parameter("level", 0, MAX_LEVELS - 1), _CHANNELS, *_SIDES, _GAIN)

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        return Shape(self.channels, self.rows, self.columns)

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        symbols = execution.inputs.latents[self.level].to(execution.device)
        return (symbols * 2.0**self.gain).clamp(-execution.bound, execution.bound)


@operation
@dataclass(frozen=True)
class GridInput(InputOperation):
    """A grid that is coarser in time than the frames, between two of its slices.

    Frame t of T lies at ``p = t (slices - 1)`` in units of ``1 / d``, ``d = max(T - 1, 1)``: with ``i = p // d`` and
    ``f = p % d`` it is ``((symbol[i] << gain) (d - f) + (symbol[i + 1] << gain) f + d // 2) // d``.
    """

    level: int = 0
    slices: int = 1
    channels: int = 1
    rows: int = 1
    columns: int = 1
    gain: int = 4

    CODE: ClassVar[int] = 33
    NAME: ClassVar[str] = "grid"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("level", 0, MAX_LEVELS - 1),
        Parameter("slices", 1, MAX_SLICES),
        _CHANNELS,
        *_SIDES,
        _GAIN,
    )

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        return Shape(self.channels, self.rows, self.columns)

    def multiplications(self, operands: Sequence[Shape], shape: Shape) -> int:
        return 2 * shape.elements

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        grid = execution.inputs.grids[self.level]
        period, first, part = _between_slices(execution.inputs.numbers, self.slices, execution.sizes.frames)
        second = (first + 1).clamp(max=self.slices - 1)
        weight = part.double().to(execution.device).view(-1, 1, 1, 1)
        one, other = (
            grid[n.to(grid.device)].to(execution.device, torch.float64) * 2.0**self.gain for n in (first, second)
        )
        sums = one * (period - weight) + other * weight
        mixed = torch.div(sums + period // 2, period, rounding_mode="floor")
        return mixed.clamp(-execution.bound, execution.bound).float()


def _between_slices(numbers: Tensor, slices: int, frames: int) -> tuple[int, Tensor, Tensor]:
    """d, i and f of ``GridInput``."""
    period = max(frames - 1, 1)
    position = numbers * (slices - 1)
    return period, position // period, position % period


class Latent(InputLayer):
    """Learned numbers of each frame, (channels, rows, columns): what is entropy-coded.

    ``gain``: their integers are symbols times ``2**gain``, so that what is made of them can lie between symbols.
    A symbol is worth ``2**-step_bits``. ``values``: (frames, channels, rows, columns), in symbols, once ``allocate``
    has made them.
    """

    def __init__(self, channels: int, rows: int, columns: int, *, gain: int = 4, step_bits: int = 0) -> None:
        super().__init__()
        self.shape = Shape(channels, rows, columns)
        self.gain, self.step_bits, self.level = gain, step_bits, 0
        self.values = nn.Parameter(torch.zeros(0, *self.shape))

    @property
    def count(self) -> int:
        """Numbers in all frames."""
        return self.values.numel()

    def allocate(self, frames: int) -> None:
        self.values = nn.Parameter(torch.zeros(frames, *self.shape))

    def symbols(self) -> Tensor:
        """What is coded, integers."""
        return torch.floor(self.values.detach() + 0.5).clamp(-WEIGHT_BOUND, WEIGHT_BOUND)

    def rounded(self, x: Tensor) -> Tensor:
        """Symbols as the present simulation has them."""
        simulation = current()
        return rounded_symbols(x, simulation.latents, simulation).clamp(-WEIGHT_BOUND, WEIGHT_BOUND)

    def forward(self, frame: FrameInputs) -> Tensor:
        given = frame.latents.get(self.level)  # what an analysis network makes of the frame
        x = given if given is not None else self.values[frame.numbers]
        return self.rounded(x) * 2.0**-self.step_bits

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        return builder.add(LatentInput((), self.level, *self.shape, self.gain), self.gain + self.step_bits, self)

    def get_extra_state(self) -> dict[str, float]:
        return super().get_extra_state() | {"step_bits": self.step_bits}

    def set_extra_state(self, state: dict[str, float]) -> None:
        super().set_extra_state(state)
        self.step_bits = int(state["step_bits"])


class Grid(Latent):
    """Learned numbers that are coarser in time: ``slices`` of them over the segment, interpolated."""

    def __init__(
        self, slices: int, channels: int, rows: int, columns: int, *, gain: int = 4, step_bits: int = 0
    ) -> None:
        super().__init__(channels, rows, columns, gain=gain, step_bits=step_bits)
        self.slices = slices
        self.frames = 1

    def allocate(self, frames: int) -> None:
        self.frames = frames
        super().allocate(self.slices)

    def forward(self, frame: FrameInputs) -> Tensor:
        x = self.rounded(self.values)
        period, first, part = _between_slices(frame.numbers, self.slices, self.frames)
        weight = (part / period).to(x).view(-1, 1, 1, 1)
        mixed = x[first] * (1 - weight) + x[(first + 1).clamp(max=self.slices - 1)] * weight
        if current().bits is not None:  # the machine rounds what lies between slices
            steps = mixed.detach() * 2.0**self.gain
            mixed = mixed + (torch.floor(steps + 0.5) * 2.0**-self.gain - mixed).detach()
        return mixed * 2.0**-self.step_bits

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        node = GridInput((), self.level, self.slices, *self.shape, self.gain)
        return builder.add(node, self.gain + self.step_bits, self)
