"""What a program sees of the frames that it refers to: warped pictures, motion, states; with the layers.

What an input gives of a reference that is not there is zero. Every input is clipped to ``-A .. A``. The layers take a
FrameInputs of real numbers: samples / 1024, less a half; vectors in quarter luma samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nvcodec.exact.arrangement import MAX_SIDE
from nvcodec.exact.layer import Builder, InputLayer, Traced
from nvcodec.exact.operation import Execution, FrameInputs, InputOperation, Parameter, Shape, Sizes, operation
from nvcodec.exact.outputs import GREY, MAX_STATES, SAMPLE_BITS, Store, sample_shape

__all__ = [
    "Depth",
    "DepthInput",
    "Difference",
    "DifferenceInput",
    "Distance",
    "DistanceInput",
    "Picture",
    "PictureInput",
    "Prediction",
    "PredictionInput",
    "Presence",
    "PresenceInput",
    "Quantiser",
    "QuantiserInput",
    "Residual",
    "ResidualInput",
    "State",
    "StateInput",
    "Vectors",
    "VectorsInput",
]

_SLOT = Parameter("slot", 0, 1)
MAX_RESIDUAL_LEVEL = 4
"""The appearance levels behind the finest."""


@operation
@dataclass(frozen=True)
class PredictionInput(InputOperation):
    """The blended warped references, less GREY."""

    CODE: ClassVar[int] = 37
    NAME: ClassVar[str] = "prediction"

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        return sample_shape(sizes)

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        given = execution.inputs.prediction
        return execution.zeros(shape) if given is None else (given - GREY).clamp(-execution.bound, execution.bound)


@operation
@dataclass(frozen=True)
class DifferenceInput(InputOperation):
    """The first warped reference less the second one."""

    CODE: ClassVar[int] = 38
    NAME: ClassVar[str] = "difference"

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        return sample_shape(sizes)

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        given = execution.inputs.difference
        return execution.zeros(shape) if given is None else given.clamp(-execution.bound, execution.bound)


@operation
@dataclass(frozen=True)
class PictureInput(InputOperation):
    """A warped reference, less GREY."""

    slot: int = 0

    CODE: ClassVar[int] = 39
    NAME: ClassVar[str] = "picture"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (_SLOT,)

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        return sample_shape(sizes)

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        given = execution.inputs.pictures[self.slot]
        return execution.zeros(shape) if given is None else (given - GREY).clamp(-execution.bound, execution.bound)


@operation
@dataclass(frozen=True)
class VectorsInput(InputOperation):
    """Motion towards a reference in quarter luma samples, one vector (y, x) a block of 8x8. ``final``: with what the
    program adds to it."""

    slot: int = 0
    final: int = 0

    CODE: ClassVar[int] = 40
    NAME: ClassVar[str] = "vectors"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (_SLOT, Parameter("final", 0, 1))

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        return Shape(2, *sizes.blocks)

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        inputs = execution.inputs
        given = (inputs.final_vectors if self.final else inputs.vectors)[self.slot]
        if given is None:
            return execution.zeros(shape)
        return given.to(execution.device, torch.float32).clamp(-execution.bound, execution.bound)


@operation
@dataclass(frozen=True)
class StateInput(InputOperation):
    """A state that a reference left, as it was stored: not warped."""

    slot: int = 0
    index: int = 0
    channels: int = 1
    rows: int = 1
    columns: int = 1

    CODE: ClassVar[int] = 41
    NAME: ClassVar[str] = "state"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        _SLOT,
        Parameter("index", 0, MAX_STATES - 1),
        Parameter("channels", 1, 1 << 12),
        Parameter("rows", 1, MAX_SIDE),
        Parameter("columns", 1, MAX_SIDE),
    )

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        return Shape(self.channels, self.rows, self.columns)

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        given = execution.inputs.states[self.slot]
        return execution.zeros(shape) if given is None else given[self.index]


@operation
@dataclass(frozen=True)
class PresenceInput(InputOperation):
    """``1 << (a - 2)`` if the frame has this reference, else 0."""

    slot: int = 0

    CODE: ClassVar[int] = 42
    NAME: ClassVar[str] = "presence"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (_SLOT,)

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        return Shape(1, 1, 1)

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        made = execution.zeros(shape)
        return made if execution.inputs.distances[self.slot] is None else made + 2.0 ** (execution.bits - 2)


@operation
@dataclass(frozen=True)
class DistanceInput(InputOperation):
    """Frames to a reference, signed, times 16."""

    slot: int = 0

    CODE: ClassVar[int] = 43
    NAME: ClassVar[str] = "distance"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (_SLOT,)

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        return Shape(1, 1, 1)

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        given = execution.inputs.distances[self.slot]
        return execution.zeros(shape) if given is None else execution.everywhere(given * 16)


@operation
@dataclass(frozen=True)
class DepthInput(InputOperation):
    """Depth of the frame in the hierarchy, times 16."""

    CODE: ClassVar[int] = 44
    NAME: ClassVar[str] = "depth"

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        return Shape(1, 1, 1)

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        return execution.everywhere(torch.full((execution.batch,), 16 * execution.inputs.depth))


@operation
@dataclass(frozen=True)
class QuantiserInput(InputOperation):
    """The quantiser index of the frame."""

    CODE: ClassVar[int] = 45
    NAME: ClassVar[str] = "quantiser"

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        return Shape(1, 1, 1)

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        return execution.everywhere(torch.full((execution.batch,), execution.inputs.quantiser))


@operation
@dataclass(frozen=True)
class ResidualInput(InputOperation):
    """What the appearance levels of the mixed residual grid come to: at level 0 six samples of each cell of the working
    domain, at level k > 0 the planes Y, U and V on their way there, at a stride of ``2**(k + 1)`` luma samples."""

    level: int = 0

    CODE: ClassVar[int] = 46
    NAME: ClassVar[str] = "residual"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (Parameter("level", 0, MAX_RESIDUAL_LEVEL),)

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        return residual_shape(self.level, sizes)

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        return execution.inputs.residual[self.level].to(execution.device).clamp(-execution.bound, execution.bound)


def residual_shape(level: int, sizes: Sizes) -> Shape:
    rows, columns = sizes.half
    return Shape(3 if level else 6, -(-rows >> level), -(-columns >> level))


class _Reference(InputLayer):
    """Something of a reference; zeros where there is none. The twin is told the size of the picture when it is traced
    or allocated."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = Sizes((1, 1), (1, 1), 1)

    def place(self, sizes: Sizes) -> None:
        self.sizes = sizes

    def nothing(self, frame: FrameInputs, *shape: int) -> Tensor:
        return torch.zeros(len(frame.numbers), *shape, device=frame.numbers.device)


class Prediction(_Reference):
    """(B, 6, h, w): the blended warped references, -0.5 .. 0.5."""

    def forward(self, frame: FrameInputs) -> Tensor:
        return frame.prediction if frame.prediction is not None else self.nothing(frame, 6, *self.sizes.half)

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        return builder.add(PredictionInput(), SAMPLE_BITS)


class Difference(_Reference):
    """(B, 6, h, w): the first warped reference less the second one, -1 .. 1."""

    def forward(self, frame: FrameInputs) -> Tensor:
        return frame.difference if frame.difference is not None else self.nothing(frame, 6, *self.sizes.half)

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        return builder.add(DifferenceInput(), SAMPLE_BITS)


class Picture(_Reference):
    """(B, 6, h, w): a warped reference, -0.5 .. 0.5. ``slot``: 0 or 1."""

    def __init__(self, slot: int) -> None:
        super().__init__()
        self.slot = slot

    def forward(self, frame: FrameInputs) -> Tensor:
        given = frame.pictures[self.slot]
        return given if given is not None else self.nothing(frame, 6, *self.sizes.half)

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        return builder.add(PictureInput((), self.slot), SAMPLE_BITS)


class Vectors(_Reference):
    """(B, 2, block rows, block columns): motion towards a reference, (y, x) in quarter luma samples. ``final``: with
    the program's own corrections."""

    def __init__(self, slot: int, *, final: bool = False) -> None:
        super().__init__()
        self.slot, self.final = slot, final

    def forward(self, frame: FrameInputs) -> Tensor:
        given = (frame.final_vectors if self.final else frame.vectors)[self.slot]
        return given if given is not None else self.nothing(frame, 2, *self.sizes.blocks)

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        return builder.add(VectorsInput((), self.slot, int(self.final)), 0)


class State(_Reference):
    """(B, channels, rows, columns): what ``store`` kept of a reference, not warped."""

    def __init__(self, slot: int, store: Store) -> None:
        super().__init__()
        self.slot = slot
        self._stores = (store,)  # in a tuple it is no child: it has a place of its own

    def forward(self, frame: FrameInputs) -> Tensor:
        given = frame.states[self.slot]
        (store,) = self._stores
        return given[store.index] if given is not None else self.nothing(frame, *store.shape)

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        (store,) = self._stores
        return builder.add(StateInput((), self.slot, store.index, *store.shape), store.fraction)


class Residual(_Reference):
    """(B, 6, h, w), or smaller planes (B, 3, rows, columns): what the mixed residual grid comes to, -1 .. 1."""

    def __init__(self, level: int = 0) -> None:
        super().__init__()
        self.level = level

    def forward(self, frame: FrameInputs) -> Tensor:
        given = frame.residual.get(self.level)
        return given if given is not None else self.nothing(frame, *residual_shape(self.level, self.sizes))

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        return builder.add(ResidualInput((), self.level), SAMPLE_BITS)


class Presence(_Reference):
    """(B, 1, 1, 1): 1 if the frame has this reference."""

    def __init__(self, slot: int) -> None:
        super().__init__()
        self.slot = slot

    def forward(self, frame: FrameInputs) -> Tensor:
        return self.nothing(frame, 1, 1, 1) + float(frame.distances[self.slot] is not None)

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        return builder.add(PresenceInput((), self.slot), builder.bits - 2)


class Distance(Presence):
    """(B, 1, 1, 1): frames to the reference, signed; 0 if there is none."""

    def forward(self, frame: FrameInputs) -> Tensor:
        given = frame.distances[self.slot]
        return self.nothing(frame, 1, 1, 1) if given is None else given.float().view(-1, 1, 1, 1)

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        return builder.add(DistanceInput((), self.slot), 4)


class Depth(_Reference):
    """(B, 1, 1, 1): depth of the frame in the hierarchy; a key frame has 0."""

    def forward(self, frame: FrameInputs) -> Tensor:
        return self.nothing(frame, 1, 1, 1) + float(frame.depth)

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        return builder.add(DepthInput(), 4)


class Quantiser(_Reference):
    """(B, 1, 1, 1): the quantiser index of the frame."""

    def forward(self, frame: FrameInputs) -> Tensor:
        return self.nothing(frame, 1, 1, 1) + float(frame.quantiser)

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        return builder.add(QuantiserInput(), 0)
