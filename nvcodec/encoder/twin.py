"""The float twin of a network: trainable, and turned into integers when the fit is over."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nvcodec.fixedpoint import Rounding
from nvcodec.model.network import Network, NetworkShape

__all__ = ["Twin"]

_RATES = {"weight": 0.2, "bias": 0.6, "gain": 0.04}
"""Learning rate of each kind of tensor, in its integer units."""
_CONTEXT_RATE = 0.4


class Twin:
    """Float parameters in the units of the integer network, with their optimisers.

    ``synthesis`` and ``context[kind]`` list the leaves that the distortion and the rate depend on.
    """

    def __init__(self, shape: NetworkShape, start: dict[str, Tensor], dtype: torch.dtype = torch.bfloat16) -> None:
        self.shape = shape
        self.start = start
        self.values = {spec.name: start[spec.name].clone().float().requires_grad_() for spec in shape.tensors}
        self.rounding = Rounding.NONE
        self.dtype = dtype
        names = [spec.name for spec in shape.tensors]
        self.synthesis = [self.values[n] for n in names if not n.startswith("context.")]
        self.context = {
            kind: [self.values[n] for n in names if n.startswith(f"context.{kind}.")] for kind in ("appearance", "motion")
        }
        self._learning = 1.0
        self._synthesis_optimiser = torch.optim.Adam(
            [
                {"params": [self.values[n]], "lr": _RATES[n.rsplit(".", 1)[1]]}
                for n in names
                if not n.startswith("context.")
            ],
            betas=(0.9, 0.99),
        )
        self._context_optimiser = {
            kind: torch.optim.Adam(leaves, lr=_CONTEXT_RATE, betas=(0.9, 0.99)) for kind, leaves in self.context.items()
        }
        self._base_rates = [g["lr"] for g in self._synthesis_optimiser.param_groups]

    def network(self) -> Network:
        """The network on the present values."""
        return Network(self.shape, self.values)

    def set_learning(self, factor: float) -> None:
        """Scale all learning rates by ``factor``."""
        for group, rate in zip(self._synthesis_optimiser.param_groups, self._base_rates, strict=True):
            group["lr"] = rate * factor
        for optimiser in self._context_optimiser.values():
            for group in optimiser.param_groups:
                group["lr"] = _CONTEXT_RATE * factor

    def step_synthesis(self, gradients: Sequence[Tensor], lmbda: float) -> None:
        """One step on the cell and the gains; gradients of the distortion, made comparable by ``lmbda``."""
        for leaf, gradient in zip(self.synthesis, gradients, strict=True):
            leaf.grad = gradient * (1.0 / lmbda)
        self._synthesis_optimiser.step()

    def step_context(self, kind: str, gradients: Sequence[Tensor]) -> None:
        """One step on a context model; gradients of the bits."""
        for leaf, gradient in zip(self.context[kind], gradients, strict=True):
            leaf.grad = gradient
        self._context_optimiser[kind].step()
