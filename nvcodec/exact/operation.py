"""What an operation of the exact machine is: its coded form, the shape it gives, what it costs, what it computes.

Each operation is a frozen dataclass. ``operands`` are numbers of earlier nodes; the fields named in ``PARAMETERS`` are
coded with it. The rooms beside this file hold the operations by subject, each with its float twin (a layer of
``torch.nn``) next to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from nvcodec.core.errors import SyntaxViolation
from nvcodec.core.limits import PROGRAM_LEAST_SAMPLES

__all__ = [
    "OPERATIONS",
    "Execution",
    "FrameInputs",
    "InputOperation",
    "Operation",
    "Parameter",
    "Shape",
    "Sizes",
    "operation",
    "slots",
]


class Shape(NamedTuple):
    """Of what a node gives for one frame."""

    channels: int
    rows: int
    columns: int

    @property
    def elements(self) -> int:
        return self.channels * self.rows * self.columns

    def __str__(self) -> str:
        return f"{self.channels}x{self.rows}x{self.columns}"


class Parameter(NamedTuple):
    """A number that is coded with an operation; negative ones are allowed where ``low`` is."""

    name: str
    low: int
    high: int


class Sizes(NamedTuple):
    """What a program must know of the picture. ``half``: rows and columns of the working domain, six samples a cell of
    2x2 luma. ``blocks``: of 8x8 luma. ``frames``: of the segment."""

    half: tuple[int, int]
    blocks: tuple[int, int]
    frames: int

    @property
    def limited_samples(self) -> int:
        """Luma samples that the limits of a program are multiples of."""
        return max(4 * self.half[0] * self.half[1], PROGRAM_LEAST_SAMPLES)


def slots(found: Sequence[Any]) -> Any:
    """What there is of up to two references as a pair; None where there is nothing."""
    return tuple([*found, None, None][:2])


@dataclass
class FrameInputs:
    """What a program is given of B frames: integers in float32, but for the numbers.

    ``numbers``: (B,) display positions, int64. ``latents``: by level, (B, C, H, W). ``grids``: by index, (S, C, H, W).
    ``prediction``, ``difference``, ``pictures[slot]``: (B, 6, h, w) samples, None without references. ``vectors[slot]``
    and ``final_vectors[slot]``: (B, 2, block rows, block columns), quarter luma samples. ``states[slot]``: by index,
    (B, C, H, W). ``residual``: by level, see ``ResidualInput``. ``distances[slot]``: (B,), signed, in frames.
    ``depth``, ``quantiser``: of all of them.
    """

    numbers: Tensor
    latents: dict[int, Tensor] = field(default_factory=dict)
    grids: dict[int, Tensor] = field(default_factory=dict)
    prediction: Tensor | None = None
    difference: Tensor | None = None
    pictures: tuple[Tensor | None, Tensor | None] = (None, None)
    vectors: tuple[Tensor | None, Tensor | None] = (None, None)
    final_vectors: tuple[Tensor | None, Tensor | None] = (None, None)
    states: tuple[dict[int, Tensor] | None, dict[int, Tensor] | None] = (None, None)
    residual: dict[int, Tensor] = field(default_factory=dict)
    distances: tuple[Tensor | None, Tensor | None] = (None, None)
    depth: int = 0
    quantiser: int = 0

    def part(self, frames: slice) -> FrameInputs:
        """What is given of some of the frames."""

        def cut(x: Tensor | None) -> Tensor | None:
            return None if x is None else x[frames]

        def both(pair: tuple[Tensor | None, Tensor | None]) -> tuple[Tensor | None, Tensor | None]:
            return cut(pair[0]), cut(pair[1])

        first, second = ({n: s[frames] for n, s in of.items()} if of is not None else None for of in self.states)
        return FrameInputs(
            self.numbers[frames],
            {level: x[frames] for level, x in self.latents.items()},
            self.grids,
            cut(self.prediction),
            cut(self.difference),
            both(self.pictures),
            both(self.vectors),
            both(self.final_vectors),
            (first, second),
            {level: x[frames] for level, x in self.residual.items()},
            both(self.distances),
            self.depth,
            self.quantiser,
        )


@dataclass
class Execution:
    """What every operation may look at while a program runs. ``tensors``: of each convolution, by node number."""

    inputs: FrameInputs
    sizes: Sizes
    bound: int
    bits: int
    tensors: dict[int, Any]
    device: torch.device
    threads: int = 1
    """For pieces of one operation."""

    @property
    def batch(self) -> int:
        return len(self.inputs.numbers)

    def zeros(self, shape: Shape) -> Tensor:
        return torch.zeros(self.batch, *shape, device=self.device)

    def everywhere(self, value: Tensor) -> Tensor:
        """(B,) to (B, 1, 1, 1), clipped."""
        return value.to(self.device, torch.float32).clamp(-self.bound, self.bound).view(-1, 1, 1, 1)


@dataclass(frozen=True)
class Operation:
    """One node. Subclasses say what it does; see the specification for the exact meaning."""

    operands: tuple[int, ...] = ()

    CODE: ClassVar[int]
    NAME: ClassVar[str]
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = ()
    OPERANDS: ClassVar[int | None] = 1
    """How many there are; None where the count is coded, 1 to MAX_OPERANDS."""

    MAX_OPERANDS: ClassVar[int] = 32

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        """Of what it gives. Raises SyntaxViolation where the operands do not fit."""
        raise NotImplementedError

    def multiplications(self, operands: Sequence[Shape], shape: Shape) -> int:
        """For one frame. Operations without products of their own count one for each element."""
        return shape.elements

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        """The values for a batch of frames, (B, *shape), integers in float32 within the bound."""
        raise NotImplementedError

    def require(self, holds: bool, problem: str) -> None:
        if not holds:
            raise SyntaxViolation(f"{self.NAME}: {problem}")


@dataclass(frozen=True)
class InputOperation(Operation):
    """Gives what is there, not what is computed."""

    OPERANDS: ClassVar[int | None] = 0

    def multiplications(self, operands: Sequence[Shape], shape: Shape) -> int:
        return 0


OPERATIONS: dict[int, type[Operation]] = {}
"""Every operation by its code."""


def operation(cls: type[Operation]) -> type[Operation]:
    """Registers an operation by its code."""
    if cls.CODE in OPERATIONS:
        raise ValueError(f"{cls.NAME} and {OPERATIONS[cls.CODE].NAME} have one code")
    OPERATIONS[cls.CODE] = cls
    return cls
