"""Operations on each element by itself: sum, product, change of scale, functions by table; with their layers.

::

    add       Clip3(-A, A, Round2((x << l) + (y << m), s))
    multiply  Clip3(-A, A, Round2(x * y, s))
    rescale   Clip3(-A, A, Round2(x << l, s))
    table     a function of ``arithmetic``, by linear interpolation in a normative table

The operands of add and multiply have the same size, or one of them has 1 where the other has more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from nvcodec.exact.arithmetic import TABLE_BITS, Function, clip_to, function_lookup, rounded_shift
from nvcodec.exact.layer import Builder, ExactLayer, Traced
from nvcodec.exact.operation import Execution, Operation, Parameter, Shape, Sizes, operation

__all__ = [
    "GELU",
    "Add",
    "Addition",
    "LeakyReLU",
    "Multiplication",
    "Multiply",
    "ReLU",
    "Rescaling",
    "Scale",
    "Sigmoid",
    "Sine",
    "Table",
    "Tanh",
]

_MAX_SHIFT = 30
_MAX_LEFT = 15
PI2 = 6.283185307179586


def _broadcast(operation_: Operation, operands: Sequence[Shape]) -> Shape:
    x, y = operands
    fits = all(a == b or 1 in (a, b) for a, b in zip(x, y, strict=True))
    operation_.require(fits, f"{x} and {y} do not fit")
    return Shape(*(max(a, b) for a, b in zip(x, y, strict=True)))


@operation
@dataclass(frozen=True)
class Addition(Operation):
    """A sum of two, each shifted left, then rounded away by ``shift`` bits."""

    left: int = 0
    right: int = 0
    shift: int = 0

    CODE: ClassVar[int] = 2
    NAME: ClassVar[str] = "add"
    OPERANDS: ClassVar[int | None] = 2
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("left", 0, _MAX_LEFT),
        Parameter("right", 0, _MAX_LEFT),
        Parameter("shift", 0, _MAX_SHIFT),
    )

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        return _broadcast(self, operands)

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        x, y = operands
        if self.left or self.right or self.shift:  # beyond float32
            x, y = x.double() * 2.0**self.left, y.double() * 2.0**self.right
        return clip_to(rounded_shift(x + y, self.shift), execution.bound).float()


@operation
@dataclass(frozen=True)
class Multiplication(Operation):
    """A product, rounded away by ``shift`` bits."""

    shift: int = 0

    CODE: ClassVar[int] = 3
    NAME: ClassVar[str] = "multiply"
    OPERANDS: ClassVar[int | None] = 2
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (Parameter("shift", 0, _MAX_SHIFT),)

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        return _broadcast(self, operands)

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        x, y = operands
        product = x.double() * y.double()
        return clip_to(rounded_shift(product, self.shift), execution.bound).float()


@operation
@dataclass(frozen=True)
class Rescaling(Operation):
    """Shifted left, then rounded away by ``shift`` bits."""

    left: int = 0
    shift: int = 0

    CODE: ClassVar[int] = 4
    NAME: ClassVar[str] = "rescale"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (Parameter("left", 0, _MAX_LEFT), Parameter("shift", 0, _MAX_SHIFT))

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        return operands[0]

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        scaled = rounded_shift(operands[0].double() * 2.0**self.left, self.shift)
        return clip_to(scaled, execution.bound).float()


@operation
@dataclass(frozen=True)
class Table(Operation):
    """A function of each element. ``fraction_in``, ``fraction_out``: fraction bits before and behind; of the sine the
    operand counts turns. The ReLUs keep the fixed point and take no notice of them."""

    function: int = 0
    fraction_in: int = 0
    fraction_out: int = 0

    CODE: ClassVar[int] = 5
    NAME: ClassVar[str] = "table"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("function", 0, max(Function)),
        Parameter("fraction_in", 0, 16),
        Parameter("fraction_out", 0, TABLE_BITS),
    )

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        return operands[0]

    def lookup(self, bits: int) -> Tensor:
        """float32 (2A + 1,): of -A .. A."""
        made = function_lookup(Function(self.function), bits, self.fraction_in, self.fraction_out)
        return torch.from_numpy(made)

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        (x,) = operands
        if self.function == Function.RELU:
            return x.clamp(min=0)
        if self.function == Function.LEAKY_RELU:
            return torch.where(x < 0, torch.floor(x * 0.125), x)
        return self.lookup(execution.bits).to(x.device)[(x + execution.bound).long()]


def aligned(fractions: Sequence[int], fraction: int) -> tuple[list[int], int]:
    """Left shifts that give all operands one fixed point, and the bits to round away to come to ``fraction``."""
    common = max(*fractions, fraction)
    return [common - f for f in fractions], common - fraction


class Add(ExactLayer):
    """A sum of two."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.finish(x + y)

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        (left, right), shift = aligned([t.fraction for t in operands], self.fraction)
        return builder.add(Addition(tuple(t.number for t in operands), left, right, shift), self.fraction)


class Multiply(ExactLayer):
    """A product of two."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.finish(x * y)

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        total = sum(t.fraction for t in operands)
        fraction = min(self.fraction, total)
        return builder.add(Multiplication(tuple(t.number for t in operands), total - fraction), fraction)


class Scale(ExactLayer):
    """Times ``2**power``, exactly: the same integers, read with another fixed point. No node."""

    keeps_fraction = True

    def __init__(self, power: int) -> None:
        super().__init__()
        self.power = power

    def forward(self, x: Tensor) -> Tensor:
        return x * 2.0**self.power

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        (x,) = operands
        return Traced(x.number, x.shape, x.fraction - self.power)


class _Function(ExactLayer):
    """A layer that is one table."""

    function: ClassVar[Function]

    def real(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self.real(x))

    def choose_fraction(self, bound: int) -> None:
        super().choose_fraction(bound)
        self.fraction = min(self.fraction, TABLE_BITS)

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        (x,) = operands
        fraction_in = min(max(x.fraction, 0), 16)
        if fraction_in != x.fraction:
            x = builder.add(Rescaling((x.number,), *_shifts(x.fraction, fraction_in)), fraction_in)
        return builder.add(Table((x.number,), int(self.function), fraction_in, self.fraction), self.fraction)


class GELU(_Function):
    """x times the normal distribution's probability of less than x (Hendrycks and Gimpel, 2016)."""

    function = Function.GELU

    def real(self, x: Tensor) -> Tensor:
        return F.gelu(x)


class Sigmoid(_Function):
    """1 / (1 + exp(-x))."""

    function = Function.SIGMOID

    def real(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)


class Tanh(_Function):
    """The hyperbolic tangent."""

    function = Function.TANH

    def real(self, x: Tensor) -> Tensor:
        return torch.tanh(x)


class Sine(_Function):
    """sin(2 pi x): x counts turns, and what of it is whole turns is free to overflow."""

    function = Function.SINE

    def real(self, x: Tensor) -> Tensor:
        return torch.sin(PI2 * x)


class LeakyReLU(ExactLayer):
    """x, or x / 8 below zero."""

    keeps_fraction = True
    function = Function.LEAKY_RELU

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, 0.125)

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        (x,) = operands
        return builder.add(Table((x.number,), int(self.function)), x.fraction)


class ReLU(LeakyReLU):
    """x, or 0 below zero."""

    function = Function.RELU

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


def _shifts(fraction: int, wanted: int) -> tuple[int, int]:
    """Left shift and bits to round away from one fixed point to another."""
    return max(wanted - fraction, 0), max(fraction - wanted, 0)


def rescaled(builder: Builder, x: Traced, fraction: int) -> Traced:
    """``x`` with another fixed point: as it is, or by a node."""
    if x.fraction == fraction:
        return x
    return builder.add(Rescaling((x.number,), *_shifts(x.fraction, fraction)), fraction)
