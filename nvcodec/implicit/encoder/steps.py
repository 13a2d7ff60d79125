"""The quantiser steps of a model: one number decides how fine all of them are, and with it how many bits they take.

Each output channel of a convolution has a step of its own. The loss grows by sensitivity times step squared, so that
at equal bits all of them have the same product: ``step = unit / sqrt(sensitivity)``, rounded to eighths of an octave
and no finer than what reaches the largest weight. Latents have steps of whole octaves by the same rule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nvcodec.exact.arithmetic import EXPONENT_STEPS, WEIGHT_BOUND
from nvcodec.exact.convolution import Conv2d
from nvcodec.exact.latents import Latent

__all__ = ["Importance", "set_latent_steps", "set_weight_steps"]

_SMOOTHING = 0.1
"""Of a row's sensitivity, how much is that of its layer: rows that nothing depends on now may be needed later."""


@dataclass(frozen=True)
class Importance:
    """Mean squares of the gradients. ``weights``: of each convolution, shaped like its weights. ``latents``: of each
    latent, one number: for a real-valued unit."""

    weights: list[Tensor]
    latents: list[float]

    def rows(self, number: int) -> Tensor:
        """(out,): of each output channel of a convolution."""
        rows = self.weights[number].flatten(1).mean(1)
        return ((1 - _SMOOTHING) * rows + _SMOOTHING * rows.mean()).clamp(min=1e-30)


def set_weight_steps(layers: list[Conv2d], importance: Importance, unit: float) -> None:
    """The steps of all convolutions at ``unit``, in octaves of the loss's own scale."""
    for number, layer in enumerate(layers):
        wanted = EXPONENT_STEPS * (unit - 0.5 * torch.log2(importance.rows(number)))
        layer.step.copy_(torch.maximum(torch.floor(wanted + 0.5).to(layer.step), layer.least_step()))


@torch.no_grad()
def set_latent_steps(latents: list[Latent], importance: Importance, unit: float) -> None:
    """The steps of all latents at ``unit``; their values, in symbols, follow."""
    for latent, sensitivity in zip(latents, importance.latents, strict=True):
        if not latent.count:
            continue
        most = float(latent.values.abs().max()) * 2.0**-latent.step_bits
        wanted = 0.5 * math.log2(max(sensitivity, 1e-30)) - unit
        reachable = math.floor(math.log2((WEIGHT_BOUND + 0.49) / max(most, 1e-6)))
        step_bits = max(min(round(wanted), reachable, 14), -8)
        latent.values.mul_(2.0 ** (step_bits - latent.step_bits))
        latent.step_bits = step_bits
