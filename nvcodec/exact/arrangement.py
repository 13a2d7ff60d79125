"""Operations that move elements about: shuffle, upsampling, concatenation, slices, reshape; with their layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from nvcodec.exact.arithmetic import rounded_shift
from nvcodec.exact.layer import Builder, ExactLayer, Traced
from nvcodec.exact.operation import Execution, Operation, Parameter, Shape, Sizes, operation
from nvcodec.exact.pointwise import rescaled

__all__ = [
    "Concat",
    "Concatenation",
    "Fit",
    "Fitting",
    "PixelShuffle",
    "PixelUnshuffle",
    "Reshape",
    "Reshaping",
    "Shuffle",
    "Slice",
    "Slicing",
    "Unshuffle",
    "Upsample",
    "Upsampling",
]

MAX_FACTOR = 8
MAX_SIDE = 1 << 14


@operation
@dataclass(frozen=True)
class Shuffle(Operation):
    """(C r**2, H, W) to (C, r H, r W): channel ``c r**2 + r y + x`` goes to row y, column x of each cell."""

    factor: int = 2

    CODE: ClassVar[int] = 6
    NAME: ClassVar[str] = "shuffle"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (Parameter("factor", 2, MAX_FACTOR),)

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        (x,) = operands
        self.require(x.channels % self.factor**2 == 0, f"{x.channels} channels by {self.factor}")
        return Shape(x.channels // self.factor**2, x.rows * self.factor, x.columns * self.factor)

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        return _shuffled(operands[0], self.factor)


def _shuffled(x: Tensor, factor: int) -> Tensor:
    """As ``F.pixel_shuffle``, several times as fast; channels last stay so."""
    batch, channels, rows, columns = x.shape
    c = channels // factor**2
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        cells = x.permute(0, 2, 3, 1).reshape(batch, rows, columns, c, factor, factor)
        made = cells.permute(0, 1, 4, 2, 5, 3).reshape(batch, rows * factor, columns * factor, c)
        return made.permute(0, 3, 1, 2)
    return F.pixel_shuffle(x, factor)


@operation
@dataclass(frozen=True)
class Unshuffle(Operation):
    """The inverse of ``Shuffle``; rows and columns are multiples of the factor."""

    factor: int = 2

    CODE: ClassVar[int] = 7
    NAME: ClassVar[str] = "unshuffle"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (Parameter("factor", 2, MAX_FACTOR),)

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        (x,) = operands
        self.require(x.rows % self.factor == 0 == x.columns % self.factor, f"{x} by {self.factor}")
        return Shape(x.channels * self.factor**2, x.rows // self.factor, x.columns // self.factor)

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        return F.pixel_unshuffle(operands[0], self.factor)


@operation
@dataclass(frozen=True)
class Upsampling(Operation):
    """By ``factor``: nearest, or bilinear between the centres of the samples, the border repeated."""

    factor: int = 2
    bilinear: int = 0

    CODE: ClassVar[int] = 8
    NAME: ClassVar[str] = "upsample"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (Parameter("factor", 2, 4 * MAX_FACTOR), Parameter("bilinear", 0, 1))

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        (x,) = operands
        return Shape(x.channels, x.rows * self.factor, x.columns * self.factor)

    def multiplications(self, operands: Sequence[Shape], shape: Shape) -> int:
        return shape.elements * (4 if self.bilinear else 1)

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        (x,) = operands
        if not self.bilinear:
            return x.repeat_interleave(self.factor, -2).repeat_interleave(self.factor, -1)
        down = _between(x.double(), self.factor, -2)
        sums = _between(down, self.factor, -1)
        unit = 4 * self.factor**2
        if unit & (unit - 1) == 0:
            return rounded_shift(sums, unit.bit_length() - 1).float()
        return torch.div(sums + unit // 2, unit, rounding_mode="floor").float()


def _between(x: Tensor, factor: int, dim: int) -> Tensor:
    """Upsampled along one dimension, times ``2 factor``: out[i] lies at (2 i + 1 - factor) / (2 factor)."""
    size = x.shape[dim]
    position = 2 * torch.arange(size * factor, device=x.device) + 1 - factor
    place = torch.div(position, 2 * factor, rounding_mode="floor")
    part = (position - place * 2 * factor).to(x.dtype)
    if dim == -2:
        part = part[:, None]
    first = x.index_select(dim, place.clamp(0, size - 1))
    second = x.index_select(dim, (place + 1).clamp(0, size - 1))
    return first * (2 * factor - part) + second * part


@operation
@dataclass(frozen=True)
class Concatenation(Operation):
    """Channels of all operands, one behind the other."""

    CODE: ClassVar[int] = 9
    NAME: ClassVar[str] = "concat"
    OPERANDS: ClassVar[int | None] = None

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        first = operands[0]
        for other in operands[1:]:
            self.require(other[1:] == first[1:], f"{first} and {other} do not fit")
        return Shape(sum(x.channels for x in operands), first.rows, first.columns)

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        return torch.cat(operands, dim=1)


@operation
@dataclass(frozen=True)
class Slicing(Operation):
    """Channels ``start`` to ``start + channels - 1``."""

    start: int = 0
    channels: int = 1

    CODE: ClassVar[int] = 10
    NAME: ClassVar[str] = "slice"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (Parameter("start", 0, 1 << 16), Parameter("channels", 1, 1 << 16))

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        (x,) = operands
        self.require(self.start + self.channels <= x.channels, f"channels up to {self.start + self.channels} of {x}")
        return Shape(self.channels, x.rows, x.columns)

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        return operands[0][:, self.start : self.start + self.channels]


@operation
@dataclass(frozen=True)
class Fitting(Operation):
    """The upper left ``rows`` x ``columns``; beyond the operand's own, its last ones repeat."""

    rows: int = 1
    columns: int = 1

    CODE: ClassVar[int] = 11
    NAME: ClassVar[str] = "fit"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (Parameter("rows", 1, MAX_SIDE), Parameter("columns", 1, MAX_SIDE))

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        return Shape(operands[0].channels, self.rows, self.columns)

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        return _fitted(operands[0], self.rows, self.columns)


def _fitted(x: Tensor, rows: int, columns: int) -> Tensor:
    x = x[:, :, :rows, :columns]
    more = rows - x.shape[-2], columns - x.shape[-1]
    return F.pad(x, (0, more[1], 0, more[0]), mode="replicate") if any(more) else x


@operation
@dataclass(frozen=True)
class Reshaping(Operation):
    """The same elements, channel by channel, row by row, in another shape."""

    channels: int = 1
    rows: int = 1
    columns: int = 1

    CODE: ClassVar[int] = 12
    NAME: ClassVar[str] = "reshape"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("channels", 1, 1 << 16),
        Parameter("rows", 1, MAX_SIDE),
        Parameter("columns", 1, MAX_SIDE),
    )

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        made = Shape(self.channels, self.rows, self.columns)
        self.require(made.elements == operands[0].elements, f"{operands[0]} to {made}")
        return made

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        return operands[0].reshape(len(operands[0]), *shape)


# Layers


class PixelShuffle(ExactLayer):
    """As ``torch.nn.PixelShuffle``."""

    keeps_fraction = True

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(x, self.factor)

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        return builder.add(Shuffle((operands[0].number,), self.factor), operands[0].fraction)


class PixelUnshuffle(PixelShuffle):
    """As ``torch.nn.PixelUnshuffle``."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(x, self.factor)

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        return builder.add(Unshuffle((operands[0].number,), self.factor), operands[0].fraction)


class Upsample(ExactLayer):
    """As ``torch.nn.Upsample`` with an integer factor and ``align_corners=False``."""

    def __init__(self, factor: int, *, bilinear: bool = True) -> None:
        super().__init__()
        self.factor, self.bilinear = factor, bilinear
        self.keeps_fraction = True

    def forward(self, x: Tensor) -> Tensor:
        if self.bilinear:
            return F.interpolate(x, scale_factor=self.factor, mode="bilinear", align_corners=False)
        return F.interpolate(x, scale_factor=self.factor, mode="nearest")

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        (x,) = operands
        return builder.add(Upsampling((x.number,), self.factor, int(self.bilinear)), x.fraction)


class Concat(ExactLayer):
    """Channels of all operands; those of a finer fixed point are rounded to what all of them can hold."""

    def forward(self, *parts: Tensor) -> Tensor:
        return self.finish(torch.cat(parts, dim=1))

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        parts = [rescaled(builder, x, self.fraction) for x in operands]
        return builder.add(Concatenation(tuple(x.number for x in parts)), self.fraction)


class Slice(ExactLayer):
    """Some channels."""

    keeps_fraction = True

    def __init__(self, start: int, channels: int) -> None:
        super().__init__()
        self.start, self.channels = start, channels

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.start : self.start + self.channels]

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        (x,) = operands
        return builder.add(Slicing((x.number,), self.start, self.channels), x.fraction)


class Fit(ExactLayer):
    """The upper left part; beyond the operand's size its last row and column repeat."""

    keeps_fraction = True

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns

    def forward(self, x: Tensor) -> Tensor:
        return _fitted(x, self.rows, self.columns)

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        (x,) = operands
        if x.shape[1:] == (self.rows, self.columns):
            return x
        return builder.add(Fitting((x.number,), self.rows, self.columns), x.fraction)


class Reshape(ExactLayer):
    """The same elements as (channels, rows, columns)."""

    keeps_fraction = True

    def __init__(self, channels: int, rows: int, columns: int) -> None:
        super().__init__()
        self.size = (channels, rows, columns)

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), *self.size)

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        return builder.add(Reshaping((operands[0].number,), *self.size), operands[0].fraction)
