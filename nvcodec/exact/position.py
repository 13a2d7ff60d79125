"""Where a frame is in time and a sample in the picture, as inputs of a program; with their layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nvcodec.exact.arrangement import MAX_SIDE
from nvcodec.exact.layer import Builder, InputLayer, Traced
from nvcodec.exact.operation import Execution, FrameInputs, InputOperation, Parameter, Shape, Sizes, operation

__all__ = [
    "Coordinates",
    "CoordinatesInput",
    "Phases",
    "PhasesInput",
    "Time",
    "TimeInput",
]


@operation
@dataclass(frozen=True)
class TimeInput(InputOperation):
    """-1 .. 1 over the segment: ``((2 t - (T - 1)) << (a - 1)) // max(T - 1, 1)``."""

    CODE: ClassVar[int] = 34
    NAME: ClassVar[str] = "time"

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        return Shape(1, 1, 1)

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        last = execution.sizes.frames - 1
        value = (2 * execution.inputs.numbers - last) << (execution.bits - 1)
        return execution.everywhere(torch.div(value, max(last, 1), rounding_mode="floor"))


@operation
@dataclass(frozen=True)
class PhasesInput(InputOperation):
    """Time as phases: of each of ``count`` frequencies, then of each a quarter turn on, where a turn is ``2**a``.

    ``F[0] = 256, F[i + 1] = (F[i] base + 128) >> 8``; ``p = (F[i] t 128 // T + quarter) % 65536``; the value is
    ``((p + 32768) % 65536 - 32768) >> (16 - a)``. Frequency i makes ``(base / 256)**i / 2`` turns a segment.
    """

    count: int = 1
    base: int = 320

    CODE: ClassVar[int] = 35
    NAME: ClassVar[str] = "phases"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (Parameter("count", 1, 128), Parameter("base", 256, 1024))

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        self.require(self.frequencies()[-1] < 1 << 31, f"{self.count} frequencies from base {self.base} are too many")
        return Shape(2 * self.count, 1, 1)

    def frequencies(self) -> list[int]:
        found = [256]
        while len(found) < self.count:
            found.append((found[-1] * self.base + 128) >> 8)
        return found

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        frequency = torch.tensor(self.frequencies() * 2)
        quarter = torch.tensor([0] * self.count + [1 << 14] * self.count)
        turns = frequency * execution.inputs.numbers.cpu()[:, None] * 128 // execution.sizes.frames + quarter
        value = ((turns + (1 << 15)) % (1 << 16) - (1 << 15)) >> (16 - execution.bits)
        return value.clamp(-execution.bound, execution.bound).float().to(execution.device)[:, :, None, None]


@operation
@dataclass(frozen=True)
class CoordinatesInput(InputOperation):
    """y and x of each position, -1 .. 1 between the borders: ``((2 i + 1 - H) << (a - 1)) // H``."""

    rows: int = 1
    columns: int = 1

    CODE: ClassVar[int] = 36
    NAME: ClassVar[str] = "coordinates"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (Parameter("rows", 1, MAX_SIDE), Parameter("columns", 1, MAX_SIDE))

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        return Shape(2, self.rows, self.columns)

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        def along(size: int) -> Tensor:
            return ((2 * torch.arange(size) + 1 - size) << (execution.bits - 1)) // size

        y = along(self.rows)[:, None].expand(self.rows, self.columns)
        x = along(self.columns).expand(self.rows, self.columns)
        made = torch.stack([y, x]).clamp(-execution.bound, execution.bound).float().to(execution.device)
        return made.expand(execution.batch, -1, -1, -1)


class Time(InputLayer):
    """(B, 1, 1, 1): -1 at the first frame of the segment, 1 at its last."""

    def __init__(self) -> None:
        super().__init__()
        self.frames = 1

    def allocate(self, frames: int) -> None:
        self.frames = frames

    def forward(self, frame: FrameInputs) -> Tensor:
        last = self.frames - 1
        return ((2 * frame.numbers - last) / max(last, 1)).float().view(-1, 1, 1, 1)

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        return builder.add(TimeInput(), builder.bits - 1)


class Phases(Time):
    """(B, 2 count, 1, 1): time in turns of ``count`` frequencies, each ``base`` times the one before, then the same a
    quarter turn on; for ``Sine`` (NeRV's positional encoding)."""

    def __init__(self, count: int, base: float) -> None:
        super().__init__()
        self.node = PhasesInput((), count, round(base * 256))

    def forward(self, frame: FrameInputs) -> Tensor:
        frequency = torch.tensor(self.node.frequencies(), dtype=torch.float64, device=frame.numbers.device)
        turns = frequency / 512 * frame.numbers[:, None] / self.frames
        both = torch.cat([turns, turns + 0.25], dim=1)
        return (both - torch.floor(both + 0.5)).float()[:, :, None, None]

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        return builder.add(self.node, builder.bits)


class Coordinates(InputLayer):
    """(B, 2, rows, columns): y and x, -1 .. 1 between the borders."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.size = (rows, columns)

    def forward(self, frame: FrameInputs) -> Tensor:
        y, x = ((2 * torch.arange(n, device=frame.numbers.device) + 1 - n) / n for n in self.size)
        made = torch.stack(torch.broadcast_tensors(y[:, None], x[None]))
        return made.expand(len(frame.numbers), -1, -1, -1)

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        return builder.add(CoordinatesInput((), *self.size), builder.bits - 1)
