"""What a program gives: samples, the states that later frames see, corrections of motion; with the layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from nvcodec.exact.layer import Builder, ExactLayer, Traced
from nvcodec.exact.operation import Execution, Operation, Parameter, Shape, Sizes, operation
from nvcodec.exact.pointwise import rescaled

__all__ = [
    "GREY",
    "MAX_STATES",
    "SAMPLE_BITS",
    "Correct",
    "Correction",
    "Samples",
    "SamplesOutput",
    "StateOutput",
    "Store",
    "sample_shape",
]

GREY = 512
SAMPLE_BITS = 10
MAX_STATES = 8


def sample_shape(sizes: Sizes) -> Shape:
    return Shape(6, *sizes.half)


@dataclass(frozen=True)
class _Output(Operation):
    """Hands on its operand."""

    def multiplications(self, operands: Sequence[Shape], shape: Shape) -> int:
        return 0

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        return operands[0]


@operation
@dataclass(frozen=True)
class SamplesOutput(_Output):
    """The samples of the frame: ``Clip3(0, 1023, x + 512)``, the upper left part that the picture has."""

    CODE: ClassVar[int] = 64
    NAME: ClassVar[str] = "samples"

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        (x,) = operands
        enough = x.channels == 6 and x.rows >= sizes.half[0] and x.columns >= sizes.half[1]
        self.require(enough, f"{x} for a picture of {sample_shape(sizes)}")
        return x


@operation
@dataclass(frozen=True)
class StateOutput(_Output):
    """What later frames find as ``StateInput`` of the same index."""

    index: int = 0

    CODE: ClassVar[int] = 65
    NAME: ClassVar[str] = "store"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (Parameter("index", 0, MAX_STATES - 1),)

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        return operands[0]


@operation
@dataclass(frozen=True)
class Correction(_Output):
    """Added to the motion towards a reference, in quarter luma samples, before anything is warped by it."""

    slot: int = 0

    CODE: ClassVar[int] = 66
    NAME: ClassVar[str] = "correct"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (Parameter("slot", 0, 1),)

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        self.require(operands[0] == Shape(2, *sizes.blocks), f"{operands[0]}, blocks {sizes.blocks}")
        return operands[0]


class Samples(ExactLayer):
    """The end of a frame: (B, 6, h, w), -0.5 .. 0.5."""

    def choose_fraction(self, bound: int) -> None:
        self.fraction = SAMPLE_BITS

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(x)

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        x = rescaled(builder, operands[0], SAMPLE_BITS)
        return builder.add(SamplesOutput((x.number,)), SAMPLE_BITS)


class Store(ExactLayer):
    """Keeps a state for later frames, (channels, rows, columns)."""

    def __init__(self, index: int, channels: int, rows: int, columns: int) -> None:
        super().__init__()
        self.index, self.shape = index, Shape(channels, rows, columns)

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(x)

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        x = rescaled(builder, operands[0], self.fraction)
        return builder.add(StateOutput((x.number,), self.index), self.fraction)


class Correct(ExactLayer):
    """Adds to the motion towards a reference, (B, 2, block rows, block columns), in quarter luma samples."""

    def __init__(self, slot: int) -> None:
        super().__init__()
        self.slot = slot

    def choose_fraction(self, bound: int) -> None:
        self.fraction = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(x)

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        x = rescaled(builder, operands[0], 0)
        return builder.add(Correction((x.number,), self.slot), 0)
