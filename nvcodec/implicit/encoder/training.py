"""What the stages that learn have in common: epochs over the frames of a segment, by Adam with a cosine."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nvcodec.core.errors import EncodeError
from nvcodec.exact.convolution import Conv2d
from nvcodec.exact.latents import Latent
from nvcodec.exact.operation import FrameInputs
from nvcodec.exact.simulation import Simulation, simulate
from nvcodec.implicit.encoder.rate import latent_bits, weight_bits
from nvcodec.implicit.encoder.steps import Importance

__all__ = ["CHROMA_WEIGHT", "Epoch", "Model", "Schedule", "distortion", "run_epoch", "sensitivity"]

CHROMA_WEIGHT = 4.0
"""A chroma sample counts as the four pixels that it colours, as it would in 4:4:4."""
_WARM_UP, _LEAST_RATE = 0.1, 0.1
_LATENT_RATE = 10.0
"""Times the learning rate of the weights."""


@dataclass(frozen=True)
class Model:
    """A module with its layers by kind, and what it is fitted to.

    ``samples``: (T, 6, h, w), -0.5 .. 0.5. ``analyse``: what makes latents of frames while the module is fitted, or
    None where latents are learned themselves.
    """

    module: nn.Module
    latents: list[Latent]
    samples: Tensor
    batch: int
    analyse: Callable[[Tensor], dict[int, Tensor]] | None = None
    layers: list[Conv2d] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", [m for m in self.module.modules() if isinstance(m, Conv2d)])

    def frames(self, numbers: Tensor) -> FrameInputs:
        """What the module is given of frames ``numbers``, (B,)."""
        given = self.analyse(self.samples[numbers]) if self.analyse else {}
        return FrameInputs(numbers, given)

    @property
    def parameters(self) -> int:
        """Numbers that a decoder needs: weights and latents."""
        return sum(layer.weight.numel() + len(layer.weight) for layer in self.layers) + sum(
            latent.count for latent in self.latents
        )


def distortion(made: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of (B, 6, h, w) samples, chroma weighted, where a difference of 1 is the whole range."""
    errors = (made - target).square()
    luma, chroma = errors[:, :4].mean(), errors[:, 4:].mean()
    return (4 * luma + 2 * CHROMA_WEIGHT * chroma) / (4 + 2 * CHROMA_WEIGHT)


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


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to: mean distortion, and bits of the model by the estimate that the loss has, if it has."""

    distortion: float
    bits: float = 0.0

    @property
    def psnr(self) -> float:
        return -10 * math.log10(max(self.distortion, 1e-10))


def optimiser_of(model: Model) -> torch.optim.Adam:
    """Adam over everything that is trained, the latents at a higher rate."""
    latents = [latent.values for latent in model.latents if model.analyse is None and latent.count]
    known = {id(latent.values) for latent in model.latents}
    analysis = getattr(model.module, "analysis", None)
    skipped = {id(p) for p in analysis.parameters()} if analysis is not None and model.analyse is None else set()
    others = [p for p in model.module.parameters() if id(p) not in known | skipped]
    groups: list[dict[str, Any]] = [{"params": others, "factor": 1.0}]
    if latents:
        groups.append({"params": latents, "factor": _LATENT_RATE})
    return torch.optim.Adam(groups, lr=1e-3)


def run_epoch(
    model: Model,
    optimiser: torch.optim.Adam,
    schedule: Schedule,
    number: int,
    simulation: Simulation,
    price: float = 0.0,
) -> Epoch:
    """One epoch over all frames in a random order. ``price``: of a bit, in distortion summed over frames.

    Raises EncodeError where the numbers run away.
    """
    count = len(model.samples)
    order = torch.randperm(count)
    total, bits = 0.0, 0.0
    with simulate(simulation):
        for start in range(0, count, model.batch):
            numbers = order[start : start + model.batch]
            share = len(numbers) / count
            rate = schedule.rate_at((number + start / count) / schedule.epochs)
            for group in optimiser.param_groups:
                group["lr"] = rate * group["factor"]
            frame = model.frames(numbers)
            loss = distortion(model.module(frame)["samples"], model.samples[numbers])
            total += float(loss.detach()) * share
            if price:
                weights = torch.stack([weight_bits(layer) for layer in model.layers]).sum()
                latents = [latent_bits(x, x.rounded(x.values[numbers])) / share for x in model.latents if x.count]
                rate_bits = weights + sum(latents)
                bits += float(rate_bits.detach()) * share
                loss = loss + rate_bits * (price / count)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    if not math.isfinite(total):
        raise EncodeError("the fit ran away: its error is no longer a number")
    return Epoch(total, bits)


def sensitivity(model: Model, simulation: Simulation, batches: int = 24) -> Importance:
    """Mean squares of the gradients of the distortion, over some batches of the frames, taken for each frame."""
    numbers = torch.linspace(0, len(model.samples) - 1, min(batches, len(model.samples))).long()
    weights = [torch.zeros_like(layer.weight) for layer in model.layers]
    latents = [0.0 for _ in model.latents]
    with simulate(simulation):
        for n in numbers:
            model.module.zero_grad()
            frame = model.frames(n[None])
            target = model.samples[n[None]]
            made = model.module(frame)["samples"]
            # a random direction in the error: its squared gradient is Gauss and Newton's diagonal in the mean
            noise = torch.randn(made.shape, generator=torch.Generator().manual_seed(int(n))).to(made)
            scale = torch.ones(made.shape[1], device=made.device)
            scale[4:] = CHROMA_WEIGHT**0.5
            (made * noise * scale.view(-1, 1, 1)).sum().backward()  # type: ignore[no-untyped-call]
            del target
            for total, layer in zip(weights, model.layers, strict=True):
                if layer.weight.grad is not None:
                    total += layer.weight.grad.detach().square() / len(numbers)
            for k, latent in enumerate(model.latents):
                if latent.values.grad is not None and latent.count:
                    per_symbol = latent.values.grad[int(n)] if len(latent.values) > int(n) else latent.values.grad
                    latents[k] += float(per_symbol.square().mean()) * 4.0**latent.step_bits / len(numbers)
    model.module.zero_grad()
    return Importance(weights, latents)


@torch.no_grad()
def evaluate(model: Model, simulation: Simulation) -> float:
    """PSNR of all frames together, chroma weighted, dB."""
    total = 0.0
    with simulate(simulation):
        for numbers in torch.arange(len(model.samples)).split(8):
            made = model.module(model.frames(numbers))["samples"]
            total += float(distortion(made, model.samples[numbers])) * len(numbers)
    return Epoch(total / len(model.samples)).psnr
