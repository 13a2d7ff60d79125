"""How the float twin of a program computes: as real numbers, watched, or with the rounding of the exact machine.

The layers ask ``current()``. Outside of any ``with simulate(...)`` they compute in plain float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

__all__ = ["Rounding", "Simulation", "current", "round_clipped", "simulate", "soft_round"]


class Rounding(Enum):
    """How what is rounded passes gradients. NOISE adds uniform noise in place of rounding; SOFT rounds by a smooth
    step, with noise; THROUGH rounds, with the gradient of the identity."""

    NOISE = "noise"
    SOFT = "soft"
    THROUGH = "through"


@dataclass(frozen=True)
class Simulation:
    """``bits``: of activations, None for real numbers. ``weights``, ``latents``: their rounding, None for none.
    ``temperature``, ``noise``: of soft rounding. ``observe``: layers keep the largest magnitude that they give."""

    bits: int | None = None
    weights: Rounding | None = None
    latents: Rounding | None = None
    temperature: float = 0.3
    noise: float = 0.2
    observe: bool = False

    @property
    def bound(self) -> int:
        assert self.bits is not None
        return (1 << (self.bits - 1)) - 1


_stack = [Simulation()]


def current() -> Simulation:
    return _stack[-1]


@contextmanager
def simulate(simulation: Simulation) -> Iterator[None]:
    """Layers compute by ``simulation`` inside."""
    _stack.append(simulation)
    try:
        yield
    finally:
        _stack.pop()


class _RoundClipped(torch.autograd.Function):
    """Rounded to steps, clipped; gradients pass where nothing was clipped."""

    @staticmethod
    def forward(ctx, x: Tensor, scale: float, bound: int) -> Tensor:  # type: ignore[no-untyped-def]
        y = (x * scale + 0.5).floor_()
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(y.abs() <= bound)
        return y.clamp_(-bound, bound).mul_(1 / scale)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        (inside,) = ctx.saved_tensors
        return grad * inside, None, None


def round_clipped(x: Tensor, fraction: int, bound: int) -> Tensor:
    """``x`` to whole steps of ``2**-fraction``, at most ``bound`` of them either way."""
    return _RoundClipped.apply(x, 2.0**fraction, bound)


def soft_round(x: Tensor, temperature: float) -> Tensor:
    """A smooth step function that comes near ``round`` as the temperature falls (Agustsson and Theis, "Universally
    quantized neural compression", 2020)."""
    whole = torch.floor(x) + 0.5
    alpha = 1 / temperature
    return whole + 0.5 * torch.tanh(alpha * (x - whole)) / torch.tanh(torch.tensor(alpha / 2, device=x.device))


def rounded_symbols(x: Tensor, rounding: Rounding | None, simulation: Simulation) -> Tensor:
    """``x``, in symbols, as the chosen rounding makes it."""
    if rounding is None:
        return x
    if rounding is Rounding.NOISE:
        return x + torch.rand_like(x) - 0.5
    if rounding is Rounding.SOFT:
        noise = (torch.rand_like(x) - 0.5) * simulation.noise
        return soft_round(soft_round(x, simulation.temperature) + noise, simulation.temperature)
    return x + (torch.floor(x + 0.5) - x).detach()
