"""A module with its layers by kind, and what it is fitted to."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nvcodec.core.gop import CodingUnit
from nvcodec.exact.convolution import Conv2d
from nvcodec.exact.latents import Latent
from nvcodec.exact.simulation import Simulation
from nvcodec.implicit.encoder.steps import Importance
from nvcodec.implicit.latents import ReferenceView
from nvcodec.implicit.payload import ImplicitWriter

__all__ = ["CHROMA_WEIGHT", "Epoch", "Model", "Schedule", "distortion", "error_scale", "optimiser_of"]

CHROMA_WEIGHT = 4.0
"""A chroma sample counts as the four pixels that it colours, as it would in 4:4:4."""
_WARM_UP, _LEAST_RATE = 0.1, 0.1
_BETAS = (0.9, 0.99)
"""Of Adam: with a shorter memory of squares the fit was 1 dB further after 30 epochs (docs/experiments)."""
_LATENT_RATE = 40.0
"""Times the learning rate of the weights: latents are counted in symbols."""


def distortion(made: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of (B, 6, h, w) samples, chroma weighted, where a difference of 1 is the whole range."""
    errors = (made - target).square()
    luma, chroma = errors[:, :4].mean(), errors[:, 4:].mean()
    return (4 * luma + 2 * CHROMA_WEIGHT * chroma) / (4 + 2 * CHROMA_WEIGHT)


def error_scale(made: Tensor) -> Tensor:
    """(6, 1, 1): roots of the weights of the samples' errors, so that the sum of squares is the distortion."""
    scale = torch.ones(6, device=made.device)
    scale[4:] = CHROMA_WEIGHT**0.5
    samples = made[0, 0].numel() * len(made)
    return (scale / math.sqrt(samples * (4 + 2 * CHROMA_WEIGHT))).view(6, 1, 1)


@dataclass(frozen=True)
class Schedule:
    """``epochs`` at a learning rate of at most ``rate``, which rises over the first tenth and falls by a cosine."""

    epochs: int
    rate: float
    warm_up: float = _WARM_UP

    def rate_at(self, done: float) -> float:
        """``done``: share of the epochs."""
        if done < self.warm_up:
            return self.rate * (_LEAST_RATE + (1 - _LEAST_RATE) * done / self.warm_up)
        return self.rate * 0.5 * (1 + math.cos(math.pi * (done - self.warm_up) / (1 - self.warm_up)))

    def apply(self, optimiser: torch.optim.Optimizer, done: float) -> None:
        """Set the learning rates of an optimiser that ``optimiser_of`` made."""
        for group in optimiser.param_groups:
            group["lr"] = self.rate_at(done) * group["factor"]


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to: mean distortion, and bits of weights and latents by the estimate that the loss has."""

    distortion: float
    bits: float = 0.0

    @property
    def psnr(self) -> float:
        return -10 * math.log10(max(self.distortion, 1e-10))


class Model(ABC):
    """What the stages do with a module: one way for frames by themselves, another one for frames that refer to others.

    Attributes:
        module: made of exact layers; ``latents`` of it by level, its convolutions in ``layers``.
        samples: (T, 6, h, w), -0.5 .. 0.5.
        units: in coding order, and what the references of each said of it when it was last visited, ``views``.
        motion_bits: of all units, when they were last visited.
        classes: of scales of the latents, see ``nvcodec.implicit.latents``.
        price: of a bit, in distortion summed over frames.
    """

    classes = 1
    rate_factor = 1.0
    """Of the learning rate."""

    def __init__(self, module: nn.Module, latents: Sequence[Latent], samples: Tensor, units: list[CodingUnit]) -> None:
        self.module, self.latents, self.samples, self.units = module, list(latents), samples, units
        self.layers = [m for m in module.modules() if isinstance(m, Conv2d)]
        self.views: list[ReferenceView | None] = [None] * len(units)
        self.motion_bits = 0.0
        self.price = 0.0

    @property
    def parameters(self) -> int:
        """Numbers that a decoder needs: weights and latents."""
        weights = sum(layer.weight.numel() + len(layer.weight) for layer in self.layers)
        return weights + sum(latent.count for latent in self.latents)

    @abstractmethod
    def epoch(
        self, optimiser: torch.optim.Adam, schedule: Schedule, number: int, simulation: Simulation, priced: bool
    ) -> Epoch:
        """One epoch over all frames. ``priced``: whether bits count. Raises EncodeError where the fit runs away."""

    @abstractmethod
    def time_an_epoch(self, optimiser: torch.optim.Adam) -> float:
        """Seconds that an epoch takes, about; weights may be changed by it."""

    @abstractmethod
    def evaluate(self, simulation: Simulation) -> float:
        """PSNR of all frames together, chroma weighted, dB."""

    @abstractmethod
    def sensitivity(self) -> Importance:
        """How much the distortion, summed over frames, grows with errors of weights and latents."""

    def learned_latents(self) -> list[Latent]:
        """Those that the optimiser moves."""
        return self.latents

    @abstractmethod
    def settle(self) -> None:
        """Latents that something else made become numbers of their own."""

    @abstractmethod
    def code(self, writer: ImplicitWriter) -> dict[int, Tensor]:
        """Code all units; the exact samples (6, h, w) of each frame by display position."""

    def state(self) -> dict[str, Any]:
        """What a restart needs beside the module."""
        return {"price": self.price, "motion_bits": self.motion_bits}

    def restore(self, state: dict[str, Any], is_settled: bool) -> None:
        """``is_settled``: whether ``settle`` was called before."""
        self.price, self.motion_bits = state["price"], state["motion_bits"]


def optimiser_of(model: Model, *, analysis: bool) -> torch.optim.Adam:
    """Adam over the weights, the learned latents at a higher rate, and, with ``analysis``, what makes others."""
    of_latents = [latent.values for latent in model.learned_latents() if latent.count]
    left_out = {id(latent.values) for latent in model.latents}
    maker = getattr(model.module, "analysis", None)
    if maker is not None and not analysis:
        left_out |= {id(p) for p in maker.parameters()}
    weights = [p for p in model.module.parameters() if id(p) not in left_out]
    groups: list[dict[str, Any]] = [{"params": weights, "factor": 1.0}]
    if of_latents:
        groups.append({"params": of_latents, "factor": _LATENT_RATE})
    return torch.optim.Adam(groups, lr=1e-3, betas=_BETAS)
