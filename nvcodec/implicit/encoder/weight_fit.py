"""The weights of a segment: overfitted from their start, pruned, quantised as changes of it, tuned on that.

A decoder is told how far to go in each direction of the start, the code, and by how many steps of its tensor a weight
differs from where that leads; where such a change is not worth its bits, there is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nvcodec.encoder.weight_changes import best_change
from nvcodec.encoder.working_domain import SAMPLE_STEP
from nvcodec.entropy.symbols import CountingChannel
from nvcodec.entropy.tables import TABLE_BOUND
from nvcodec.entropy.weights import STEPS, TensorChange, best_scales
from nvcodec.exact.arithmetic import WEIGHT_BOUND
from nvcodec.exact.operation import Sizes
from nvcodec.exact.program import Program
from nvcodec.implicit.encoder.overfit import Overfit
from nvcodec.implicit.encoder.start import Start, bias_step, weight_step
from nvcodec.implicit.starts import code_changes, tensor_specs
from nvcodec.implicit.weights import ConvSymbols

__all__ = ["WeightFit"]

_Coded = tuple[float, Tensor, dict[str, TensorChange]]
"""What a segment may be told of its weights: the cost of that, code and changes."""
_LEAST_PRICE = 3e-4
_REALISED = 0.75
"""Of what a fit takes off the errors of its records, the share that a closed loop behind it takes off errors and
bits."""


class WeightFit:
    """The tensors that may change, by name, with where they start and in which integer steps.

    ``code``: (K,), how far the weights have gone in each direction of the start, real numbers until ``round_code``.
    ``anchor``: where that leads. ``changes``: of it, what is coded, once ``choose`` has found it.
    """

    def __init__(self, program: Program, sizes: Sizes, start: Start) -> None:
        self.shapes = program.convolutions(program.shapes(sizes))
        self.start, self.specs = start, tensor_specs(self.shapes)
        self.values: dict[str, Tensor] = {}
        self.units: dict[str, Tensor] = {}
        """Real value of an integer step, which broadcasts."""
        for number, layer in start.layers.items():
            self.values |= {f"{number}.weight": layer.weight, f"{number}.bias": layer.bias}
            self.units[f"{number}.weight"] = weight_step(layer).detach().clone()
            self.units[f"{number}.bias"] = torch.full((1,), bias_step(layer), device=layer.bias.device)
        self.anchor = self._real(start.tensors.convolutions)
        self.directions = self._real_directions()
        device = next(iter(self.values.values())).device
        self.code = torch.zeros(start.tensors.count, device=device, requires_grad=True)
        self._followed = self.code.detach().clone()
        """The code that ``anchor`` and ``values`` have followed."""
        self.changes: dict[str, TensorChange] = {}

    def _real(self, convolutions: Mapping[int, ConvSymbols]) -> dict[str, Tensor]:
        found = {}
        for number, symbols in convolutions.items():
            for name, integers in ((f"{number}.weight", symbols.weight), (f"{number}.bias", symbols.bias)):
                found[name] = torch.from_numpy(integers).to(self.values[name]) * self.units[name]
        return found

    def _real_directions(self) -> dict[str, Tensor]:
        """(K, shape of the tensor): what a unit of the code adds."""
        tensors, found = self.start.tensors, {}
        for number, parts in tensors.directions.items():
            for name, integers in zip((f"{number}.bias", f"{number}.weight"), parts, strict=True):
                value = self.values[name]
                added = torch.from_numpy(integers.copy()).to(value).view(-1, *value.shape)
                found[name] = added * self.units[name] * 2.0**-tensors.shift
        return found

    def code_gradient(self) -> None:
        """Give ``code`` the gradient that those of the tensors come to."""
        total = torch.zeros_like(self.code)
        for name, direction in self.directions.items():
            gradient = self.values[name].grad
            if gradient is not None:
                total += direction.flatten(1) @ gradient.flatten()
        self.code.grad = total

    @torch.no_grad()
    def follow_code(self) -> None:
        """Take the anchor and all weights to where the code has gone, as far as it can be coded."""
        self.code.clamp_(-TABLE_BOUND, TABLE_BOUND)
        moved = self.code - self._followed
        self._followed = self.code.detach().clone()
        for name, direction in self.directions.items():
            change = (moved @ direction.flatten(1)).view_as(self.values[name])
            self.anchor[name] = self.anchor[name] + change
            self.values[name].add_(change)

    @torch.no_grad()
    def set_code(self, code: Tensor) -> None:
        """Of weights that have followed it."""
        self.code.copy_(code)
        self._followed = self.code.detach().clone()
        self.anchor = self._real(self.start.tensors.convolutions)
        for name, direction in self.directions.items():
            self.anchor[name] += (self.code @ direction.flatten(1)).view_as(self.values[name])

    @torch.no_grad()
    def round_code(self) -> None:
        """Make the code one that can be coded, and the anchor what a decoder has for it."""
        self.code.copy_(self.code.round().clamp(-TABLE_BOUND, TABLE_BOUND))
        self._followed = self.code.detach().clone()
        self.anchor = self._real(self.start.tensors.moved(self.coded))

    @torch.no_grad()
    def choose_code(self, fit: Overfit, most: float) -> None:
        """Round the code; back to the start where it costs more than it brings, or more than ``most`` bits."""
        self.round_code()
        code = self.code.detach().clone()
        if not code.any():
            return
        kept = {name: value.detach().clone() for name, value in self.values.items()}
        self.changes, costs = {}, []
        for tried in (code, torch.zeros_like(code)):
            self.set_code(tried)
            self.round_code()
            self.reset()
            costs.append(self.cost(fit) if self.change_bits() <= most or not tried.any() else math.inf)
        for name, value in self.values.items():
            value.copy_(kept[name])
        if costs[0] < costs[1]:
            self.set_code(code)
            self.round_code()

    @property
    def coded(self) -> np.ndarray:
        """The code as integers, once it is rounded."""
        return self.code.detach().cpu().numpy().astype(np.int32)

    @torch.no_grad()
    def reset(self) -> None:
        """Back to the anchor."""
        for name, value in self.values.items():
            value.copy_(self.anchor[name])

    @torch.no_grad()
    def pull(self, distance: float) -> None:
        """Bring every weight nearer to its anchor by a distance, or all the way: what the error asks for in every step
        stays, what only drifts does not, and few changes are left to be coded."""
        for name, value in self.values.items():
            moved = value - self.anchor[name]
            value.copy_(self.anchor[name] + moved.sign() * (moved.abs() - distance).clamp(min=0))

    def sensitivity(self, fit: Overfit) -> dict[str, Tensor]:
        """Bits lost per squared integer unit of each weight, by one random probe a unit (Hutchinson's estimator)."""
        total = {name: torch.zeros_like(value) for name, value in self.values.items()}
        for number, record in enumerate(fit.records):
            for value in self.values.values():
                value.grad = None
            samples, _ = fit.run(number)
            rows, columns = record.target.shape[2:]
            signs = torch.randint(0, 2, record.target.shape).to(samples) * 2 - 1
            scale = record.weights.sqrt() * (1 / (SAMPLE_STEP * record.lmbda**0.5))
            (samples[..., :rows, :columns] * signs * scale).sum().backward()
            for name, value in self.values.items():
                if value.grad is not None:
                    total[name] += (value.grad * self.units[name]).square()
                value.grad = None
        return total

    def choose(self, sensitivity: Mapping[str, Tensor], price: float = 1.0) -> None:
        """Find the changes that are worth their bits; other weights go back to the anchor. ``price``: weight of the
        changes' own bits; with 0 hardly one goes back. The sensitivity is the diagonal of a Hessian, which says too
        little of what changes do together, and tuning brings more out of them: less than 1 is better."""
        self.changes = {}
        for spec in self.specs:
            difference = ((self.values[spec.name].detach() - self.anchor[spec.name]) / self.units[spec.name]).cpu()
            found = best_change(
                spec, difference.double().numpy(), sensitivity[spec.name].cpu().double().numpy(),
                max(price, _LEAST_PRICE),
            )  # fmt: skip
            if found is not None:
                self.changes[spec.name] = found

    @torch.no_grad()
    def adopt(self) -> None:
        """Give the module the values that are coded."""
        for name, value in self.values.items():
            value.copy_(self.quantised(name))

    def quantised(self, name: str) -> Tensor:
        """What a decoder has of a tensor, real numbers."""
        change, first = self.changes.get(name), self.anchor[name]
        if change is None:
            return first
        moved = first / self.units[name] + torch.from_numpy(change.symbols * STEPS[change.step]).to(first)
        return moved.clamp(-WEIGHT_BOUND, WEIGHT_BOUND) * self.units[name]

    def cost(self, fit: Overfit) -> float:
        """Bits: weighted errors of all units, made anew in coding order, as far as a closed loop would have them, and
        those of the changes."""
        return _REALISED * fit.refresh() * fit.luma_samples + self.change_bits()

    def tune(
        self, fit: Overfit, epochs: int, rate: Callable[[float], float], code_pace: float, most: float = math.inf
    ) -> None:
        """Steps on what is coded: the code, and weights that have changed, move on, the latter in whole steps (straight
        through); other weights stay where the code leads. What is kept is that of the epoch behind which errors, code
        and changes cost least; changes that cost more than they bring go. ``rate``: of learning, by the share of the
        steps that is done; ``code_pace``: of it, that of the code; ``most``: bits that code and changes may take."""
        if not self.changes and not code_pace:
            return
        found = [self._coded_now(fit, most), *self._tuned(fit, epochs, rate, code_pace, most)]
        _, code, changes = min(found, key=lambda one: one[0])
        if changes:
            self.go_to(code, {})
            found.append(self._coded_now(fit, most))
            _, code, changes = min(found, key=lambda one: one[0])
        self.go_to(code, changes)

    def _coded_now(self, fit: Overfit, most: float) -> _Coded:
        cost = self.cost(fit) if self.change_bits() <= most else math.inf
        return cost, self.code.detach().clone(), dict(self.changes)

    def go_to(self, code: Tensor, changes: dict[str, TensorChange]) -> None:
        """What is coded of a segment, and with it the module."""
        self.set_code(code)
        self.round_code()
        self.changes = dict(changes)
        self.adopt()

    def _tuned(
        self, fit: Overfit, epochs: int, rate: Callable[[float], float], code_pace: float, most: float
    ) -> Iterator[_Coded]:
        """Behind each epoch."""
        moves = {name: torch.from_numpy(c.symbols != 0).to(self.values[name]) for name, c in self.changes.items()}
        real = {name: self.values[name].detach().clone() for name in moves}
        groups = [{"params": [self.code], "pace": code_pace}]
        if real:
            groups.append({"params": list(real.values()), "pace": 1.0})
        optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99))
        units = len(fit.records)
        for epoch in range(epochs):
            for k, number in enumerate(torch.randperm(units).tolist()):
                for parameter in self.values.values():
                    parameter.grad = None
                fit.loss(number).backward()
                self.code_gradient()
                for name, value in real.items():
                    gradient = self.values[name].grad
                    value.grad = torch.zeros_like(value) if gradient is None else gradient * moves[name]
                for group in optimiser.param_groups:
                    group["lr"] = group["pace"] * rate((epoch + k / units) / epochs)
                optimiser.step()
                self._move_on(real, moves)
            self._rescale()
            code, changes = self.code.detach().clone(), dict(self.changes)
            self.go_to(code, changes)
            yield self._coded_now(fit, most)
            self.set_code(code)
            self.changes = changes
            self.adopt()

    @torch.no_grad()
    def _move_on(self, real: Mapping[str, Tensor], moves: Mapping[str, Tensor]) -> None:
        """Let weights follow the code, and changes the real numbers that they stand for."""
        before = dict(self.anchor)
        self.follow_code()
        for name, value in real.items():
            value += self.anchor[name] - before[name]
            self._take(name, value, moves[name])

    @torch.no_grad()
    def _take(self, name: str, value: Tensor, moves: Tensor) -> None:
        """Make the change of a tensor that which comes nearest to ``value``."""
        step, scales = self.changes[name].step, self.changes[name].scales
        moved = torch.floor((value - self.anchor[name]) / (self.units[name] * STEPS[step]) + 0.5)
        symbols = (moved.clamp(-TABLE_BOUND, TABLE_BOUND) * moves).cpu().numpy().astype(np.int32)
        self.changes[name] = TensorChange(symbols, step, scales)
        self.values[name].copy_(self.quantised(name))

    def _rescale(self) -> None:
        """Choose the scales of the changes anew."""
        by_name = {spec.name: spec for spec in self.specs}
        self.changes = {
            name: TensorChange(change.symbols, change.step, best_scales(change.symbols, by_name[name]))
            for name, change in self.changes.items()
        }

    def symbols(self) -> dict[int, ConvSymbols]:
        """The tensors as a decoder has them, by node number."""
        return self._coded_by(CountingChannel())

    def _coded_by(self, channel: CountingChannel) -> dict[int, ConvSymbols]:
        return code_changes(channel, self.shapes, self.start.tensors, self.coded, self.changes)

    def figures(self) -> dict[str, Any]:
        """How many weights there are, how many directions are gone in, and which share of the weights stays where that
        leads."""
        count = sum(value.numel() for value in self.values.values())
        changed = sum(int((change.symbols != 0).sum()) for change in self.changes.values())
        return {
            "weights": count,
            "directions": int((self.coded != 0).sum()),
            "sparsity": 1 - changed / count,
            "weight_bits": self.change_bits(),
        }

    def change_bits(self) -> float:
        """What code and changes cost."""
        channel = CountingChannel()
        self._coded_by(channel)
        return channel.bits
