"""What the float twins of the operations have in common: a layer that can be trained, watched and traced."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from nvcodec.core.errors import EncodeError
from nvcodec.exact.operation import Operation, Shape
from nvcodec.exact.simulation import current, round_clipped

__all__ = ["Builder", "ExactLayer", "InputLayer", "Traced", "calibrate", "exact_layers"]

MAX_FRACTION = 16


@dataclass(frozen=True)
class Traced:
    """A value while a program is traced. ``fraction``: its node's integers are reals times ``2**fraction``."""

    number: int
    shape: Shape
    fraction: int


class Builder(Protocol):
    """Takes the nodes of a program one by one. ``bits``: of activations."""

    bits: int

    def add(self, operation: Operation, fraction: int, layer: ExactLayer | None = None, fraction_in: int = 0) -> Traced:
        """``layer``: whose tensors the node uses; ``fraction_in``: the fixed point in which it sees its operand, which
        ``Scale`` may have moved."""


class ExactLayer(nn.Module):
    """A float twin. ``forward`` is for training, ``emit`` gives the operations that it stands for.

    ``fraction``: fraction bits of what it gives, where it has a fixed point of its own; found by ``calibrate``.
    """

    keeps_fraction = False
    """Whether its values have the fixed point of its operand."""

    def __init__(self) -> None:
        super().__init__()
        self.fraction = 8
        self.peak = 0.0

    def finish(self, x: Tensor) -> Tensor:
        """What the layer gives, as the present simulation has it."""
        simulation = current()
        if simulation.observe:
            self.peak = max(self.peak, float(x.detach().abs().amax()))
        if simulation.bits is None or self.keeps_fraction:
            return x
        return round_clipped(x, self.fraction, simulation.bound)

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        raise NotImplementedError

    def choose_fraction(self, bound: int) -> None:
        """The finest fixed point that holds what was observed."""
        if not self.keeps_fraction:
            self.fraction = min(MAX_FRACTION, max(0, math.floor(math.log2(bound / max(self.peak, 2.0**-8)))))

    def get_extra_state(self) -> dict[str, float]:
        return {"fraction": self.fraction, "peak": self.peak}

    def set_extra_state(self, state: dict[str, float]) -> None:
        self.fraction, self.peak = int(state["fraction"]), float(state["peak"])


class InputLayer(ExactLayer):
    """Something that enters a program, with a fixed point of its own."""

    def choose_fraction(self, bound: int) -> None:
        return

    def finish(self, x: Tensor) -> Tensor:
        return x


def exact_layers(module: nn.Module) -> Iterator[ExactLayer]:
    """All exact layers of a module."""
    return (layer for layer in module.modules() if isinstance(layer, ExactLayer))


def calibrate(module: nn.Module, bits: int) -> None:
    """Choose the fixed point of every layer by what it gave while it was observed.

    Raises EncodeError where it gave something that is no number.
    """
    bound = (1 << (bits - 1)) - 1
    for layer in exact_layers(module):
        if not math.isfinite(layer.peak):
            raise EncodeError(f"{type(layer).__name__}: the fit ran away, its values are no longer numbers")
        layer.choose_fraction(bound)
