"""The float twin of a network: trainable, and turned into integers when the fit is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from nvcodec.core.fixedpoint import Rounding
from nvcodec.encoder.arithmetic import training_dtype
from nvcodec.entropy.context import ContextWeights
from nvcodec.hybrid.network import CELL_INPUTS, Network, NetworkShape, cell_kind, limit_gains

__all__ = ["Twin"]

_RATES = {"weight": 0.2, "bias": 0.6, "scale": 1.5}
"""Learning rate of each kind of tensor, in its integer units."""
_CONTEXT_RATE = 0.4


def _part(name: str) -> str:
    return name.rsplit(".", 1)[1]


class Twin:
    """Float parameters in the units of the integer network, with their optimisers.

    ``synthesis[kind]`` lists the leaves of each cell, ``context`` those of the context model. The gains are
    not among them: on integer symbols a smaller gain always lowers the distortion, and the bits it costs have no
    gradient. They follow lambda instead (``shift_gains``).
    """

    def __init__(self, shape: NetworkShape, start: dict[str, Tensor], dtype: torch.dtype | None = None) -> None:
        """``dtype``: of the cells' arithmetic, None for ``training_dtype``."""
        self.shape = shape
        self.values = {spec.name: start[spec.name].clone().float().requires_grad_() for spec in shape.tensors}
        self.steps: dict[str, int] = {}
        self.gain_offset = 0
        self.gain_shifts = torch.zeros_like(start["block.gain"])
        self._base_gain = start["block.gain"]
        self.start = dict(start)
        self.rounding = Rounding.NONE
        self.dtype = dtype or training_dtype(Network(shape, start).device)
        names = [spec.name for spec in shape.tensors]
        self.synthesis = {kind: [self.values[n] for n in self.synthesis_names(kind)] for kind in CELL_INPUTS}
        self.context = [self.values[n] for n in names if n.startswith("context.")]
        self._synthesis_optimiser = {
            kind: torch.optim.Adam(
                [{"params": [self.values[n]], "lr": _RATES[_part(n)]} for n in self.synthesis_names(kind)],
                betas=(0.9, 0.99),
            )
            for kind in CELL_INPUTS
        }
        self._context_optimiser = torch.optim.Adam(self.context, lr=_CONTEXT_RATE, betas=(0.9, 0.99))

    def synthesis_names(self, kind: str) -> list[str]:
        """The tensors of a cell that a segment may change: the slopes by gain stay as they were trained."""
        return [n for n in self.values if n.startswith(f"cell.{kind}.") and _part(n) in _RATES]

    def state(self) -> dict[str, Any]:
        """All that training has changed: a twin of the same shape and start, given this, goes on in the same way."""
        optimisers = (*self._synthesis_optimiser.values(), self._context_optimiser)
        return {
            "values": self.values,
            "steps": self.steps,
            "gain_offset": self.gain_offset,
            "gain_shifts": self.gain_shifts,
            "optimisers": [optimiser.state_dict() for optimiser in optimisers],
        }

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Take over what ``state`` returned."""
        self.shift_gains(state["gain_offset"] - self.gain_offset, state["gain_shifts"])
        for name, value in state["values"].items():
            self.values[name].copy_(value)
        self.steps = state["steps"]
        optimisers = (*self._synthesis_optimiser.values(), self._context_optimiser)
        for optimiser, kept in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)

    def network(self) -> Network:
        """The network on the present values, rounded to steps where ``steps`` says so (straight through)."""
        if not self.steps:
            return Network(self.shape, self.values)
        tensors = dict(self.values)
        for name, step in self.steps.items():
            value, start = self.values[name], self.start[name]
            rounded = start + step * torch.round((value.detach() - start) / step)
            tensors[name] = value + (rounded - value.detach())
        return Network(self.shape, tensors)

    def context_weights(self) -> ContextWeights:
        """The context model as it stands: what comes later does not change it."""
        now = self.network().context()
        return ContextWeights(*(getattr(now, f.name).detach().clone() for f in fields(now)))

    def set_learning(self, factor: float) -> None:
        """Scale all learning rates by ``factor``."""
        for kind, optimiser in self._synthesis_optimiser.items():
            for name, group in zip(self.synthesis_names(kind), optimiser.param_groups, strict=True):
                group["lr"] = _RATES[_part(name)] * factor
        for group in self._context_optimiser.param_groups:
            group["lr"] = _CONTEXT_RATE * factor

    def step_synthesis(self, kind: str, gradients: Sequence[Tensor], lmbda: float) -> None:
        """One step on a cell; gradients of the distortion, made comparable by ``lmbda``."""
        for leaf, gradient in zip(self.synthesis[kind], gradients, strict=True):
            leaf.grad = gradient * (1.0 / lmbda)
        self._synthesis_optimiser[kind].step()

    def step_context(self, gradients: Sequence[Tensor]) -> None:
        """One step on the context model; gradients of the bits."""
        for leaf, gradient in zip(self.context, gradients, strict=True):
            leaf.grad = gradient.reshape(leaf.shape)
        self._context_optimiser.step()

    @torch.no_grad()
    def shift_gains(self, steps: float, by_depth: Tensor | None = None) -> None:
        """Move all gains by whole steps, and the start with them, so that it costs no bits.

        ``by_depth``: (depths, 1), whole steps from there that cost bits; as before if not given.
        """
        self.gain_offset += round(steps)
        if by_depth is not None:
            self.gain_shifts = by_depth
        moved = self._base_gain + self.gain_offset
        self.start["block.gain"] = limit_gains(moved)
        self.values["block.gain"].copy_(limit_gains(moved + self.gain_shifts.to(moved)))

    @torch.no_grad()
    def silence(self, depth: int) -> None:
        """Let the cell correct nothing in frames of ``depth``, 3 for all that lie deeper."""
        scales = self.values[f"cell.{cell_kind(depth)}.leave.scale"]
        scales[max(depth - 1, 0)] = 0

    @staticmethod
    def frozen(network: Network) -> Twin:
        """A twin that computes exactly what the integer ``network`` does, and does not learn."""
        twin = Twin(network.shape, network.tensors, torch.float32)
        twin.values = {name: t.detach() for name, t in network.tensors.items()}
        twin.synthesis = {kind: [] for kind in twin.synthesis}
        twin.context = []
        twin.rounding = Rounding.STRAIGHT_THROUGH
        return twin
