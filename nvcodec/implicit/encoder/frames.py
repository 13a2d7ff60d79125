"""Fitting frames that do not refer to others: in any order, several at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nvcodec.core.errors import EncodeError
from nvcodec.core.gop import CodingUnit
from nvcodec.exact.latents import Grid, Latent
from nvcodec.exact.operation import FrameInputs
from nvcodec.exact.simulation import Simulation, simulate
from nvcodec.implicit.encoder.model import Epoch, Model, Schedule, distortion, error_scale
from nvcodec.implicit.encoder.rate import latent_bits, weight_bits
from nvcodec.implicit.encoder.steps import Importance
from nvcodec.implicit.payload import ImplicitWriter
from nvcodec.implicit.unit import UnitSymbols

__all__ = ["FrameModel"]

_SENSED = 24
"""Frames that sensitivities are taken from."""
_AT_ONCE = 8


class FrameModel(Model):
    """``batch``: frames of a step. ``analyse``: what makes latents of frames until ``settle``; None where latents are
    learned themselves."""

    def __init__(
        self,
        module: nn.Module,
        latents: Sequence[Latent],
        samples: Tensor,
        units: list[CodingUnit],
        batch: int,
        analyse: Callable[[Tensor], dict[int, Tensor]] | None,
    ) -> None:
        super().__init__(module, latents, samples, units)
        self.batch, self.analyse = batch, analyse

    @torch.no_grad()
    def learned_latents(self) -> list[Latent]:
        """Those that the optimiser moves: not what an analysis makes of the frames."""
        made = self.analyse(self.samples[:1]) if self.analyse else {}
        return [latent for latent in self.latents if latent.level not in made]

    def frames(self, numbers: Tensor) -> FrameInputs:
        """What the module is given of frames ``numbers``, (B,)."""
        given = self.analyse(self.samples[numbers]) if self.analyse else {}
        return FrameInputs(numbers.to(self.samples.device), given)

    def epoch(
        self, optimiser: torch.optim.Adam, schedule: Schedule, number: int, simulation: Simulation, priced: bool
    ) -> Epoch:
        count = len(self.samples)
        order = torch.randperm(count)
        total, bits = 0.0, 0.0
        with simulate(simulation):
            for start in range(0, count, self.batch):
                numbers = order[start : start + self.batch]
                share = len(numbers) / count
                schedule.apply(optimiser, (number + start / count) / schedule.epochs)
                loss = distortion(self.module(self.frames(numbers))["samples"], self.samples[numbers])
                total += float(loss.detach()) * share
                if priced:
                    rate = self._bits(numbers)
                    bits += float(rate.detach()) * share
                    loss = loss + rate * (self.price / count)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        if not math.isfinite(total):
            raise EncodeError("the fit ran away: its error is no longer a number")
        return Epoch(total, bits)

    def time_an_epoch(self, optimiser: torch.optim.Adam) -> float:
        few = FrameModel(self.module, self.latents, self.samples[: 3 * self.batch], [], self.batch, self.analyse)
        for _ in range(2):  # the first one is slower
            start = time.monotonic()
            few.epoch(optimiser, Schedule(1, 0.0), 0, Simulation(), False)
        return (time.monotonic() - start) * len(self.samples) / len(few.samples)

    def _bits(self, numbers: Tensor) -> Tensor:
        """Of all weights and latents, the latents by those of frames ``numbers``."""
        parts = [weight_bits(layer) for layer in self.layers]
        share = len(numbers) / len(self.samples)
        for latent in self.latents:
            if isinstance(latent, Grid):
                parts.append(latent_bits(latent, latent.rounded(latent.values)))
            elif latent.count:
                parts.append(latent_bits(latent, latent.rounded(latent.values[numbers])) / share)
        return torch.stack(parts).sum()

    @torch.no_grad()
    def evaluate(self, simulation: Simulation) -> float:
        total = 0.0
        with simulate(simulation):
            for numbers in torch.arange(len(self.samples)).split(_AT_ONCE):
                made = self.module(self.frames(numbers))["samples"]
                total += float(distortion(made, self.samples[numbers])) * len(numbers)
        return Epoch(total / len(self.samples)).psnr

    def sensitivity(self) -> Importance:
        """Gauss and Newton's diagonal: the mean square of the gradient of a random combination of all errors."""
        count = len(self.samples)
        numbers = torch.linspace(0, count - 1, min(_SENSED, count)).long()
        weights = [torch.zeros_like(layer.weight) for layer in self.layers]
        latents = [0.0 for _ in self.latents]
        for n in numbers:
            self.module.zero_grad()
            made = self.module(self.frames(n[None]))["samples"]
            signs = torch.randint(0, 2, made.shape, generator=torch.Generator().manual_seed(int(n))) * 2.0 - 1
            (made * signs.to(made) * error_scale(made)).sum().backward()
            for total, layer in zip(weights, self.layers, strict=True):
                if layer.weight.grad is not None:
                    total += layer.weight.grad.square() * (count / len(numbers))
            for k, latent in enumerate(self.latents):
                if latent.values.grad is not None and latent.count:
                    is_grid = isinstance(latent, Grid)
                    by_symbol = latent.values.grad if is_grid else latent.values.grad[int(n)]
                    frames = count if is_grid else 1
                    latents[k] += float(by_symbol.square().mean()) * 4.0**latent.step_bits * frames / len(numbers)
        self.module.zero_grad()
        return Importance(weights, latents)

    @torch.no_grad()
    def settle(self) -> None:
        if self.analyse is None:
            return
        made = [self.analyse(self.samples[n]) for n in torch.arange(len(self.samples)).split(_AT_ONCE)]
        for latent in self.latents:
            if latent.level in made[0]:
                latent.values.copy_(torch.cat([part[latent.level] for part in made]))
        self.analyse = None

    def restore(self, state: dict[str, Any], is_settled: bool) -> None:
        super().restore(state, is_settled)
        if is_settled:
            self.analyse = None

    def code(self, writer: ImplicitWriter) -> dict[int, Tensor]:
        made: dict[int, Tensor] = {}
        levels = [latent.symbols().cpu() for latent in self.latents if not isinstance(latent, Grid)]
        for unit in self.units:
            numbers = [frame.display for frame in unit.frames]
            states = writer.code(UnitSymbols([level[numbers] for level in levels]))
            made |= {display: state.frame.appearance.packed for display, state in states.items()}
        return made
