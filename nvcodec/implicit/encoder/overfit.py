"""Fitting a recurrent network to the records that a closed-loop pass left: joint refinement through the states.

A step runs one unit and, with gradients, the frames that it refers to, so that states and pictures are fitted to be of
use to later frames (backpropagation through two or three frames). What the references of these hand on is taken as it
was made last: pictures, too. What a network adds to every frame anew would otherwise add up unseen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from nvcodec.encoder.working_domain import SAMPLE_STEP
from nvcodec.exact.simulation import Simulation, simulate
from nvcodec.implicit.encoder.recurrent_fit import TwinSynthesis
from nvcodec.implicit.encoder.synthesis import States, UnitRecord, inputs_of, moved_inputs, refined_inputs, synthesised

__all__ = ["Overfit", "rate_at", "record_part"]

_REFERENCE_SHARE = 0.5
"""Of the loss of a step: what the errors of the references count beside those of the unit."""
_LARGEST_GRADIENT = 1.0
_CARRIED = 0.7
"""Of what the network now makes of a reference, less what it made of it for the record, the share that reaches the
frames behind it. In an encode new residuals take a part of it away; in records they are as they were. With all of it
the fit of a long segment runs away; with half of it the closed loop behind it was worse than before."""


def record_part(record: UnitRecord, b: int) -> UnitRecord:
    """That of one frame of a unit."""

    def cut(x: Tensor | None) -> Tensor | None:
        return None if x is None else x[b : b + 1]

    return replace(
        record,
        unit=replace(record.unit, frames=(record.unit.frames[b],)),
        prediction=cut(record.prediction),
        difference=cut(record.difference),
        residual={level: x[b : b + 1] for level, x in record.residual.items()},
        vectors=tuple(v[b : b + 1] for v in record.vectors),
        final_vectors=tuple(v[b : b + 1] for v in record.final_vectors),
        blend=cut(record.blend),
        target=record.target[b : b + 1],
        weights=record.weights[b : b + 1],
        made=cut(record.made),
    )


def rate_at(done: float, rate: float, warm_up: float = 0.05) -> float:
    """The learning rate behind a share of the steps: it rises at first and falls by a cosine."""
    if done < warm_up:
        return rate * (0.1 + 0.9 * done / warm_up)
    return rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up))))


class Overfit:
    """``records``: of all units of a segment, in coding order. ``joint``: whether gradients go to the frames that a
    unit refers to, through their states and their pictures. ``refines``: whether they go to the
    network's own corrections of motion. ``luma_samples``: of all frames."""

    def __init__(
        self,
        module: nn.Module,
        records: Sequence[UnitRecord],
        simulation: Simulation,
        *,
        joint: bool = True,
        refines: bool = True,
    ) -> None:
        self.synthesis = TwinSynthesis(module, simulation)
        self.records, self.joint, self.refines = list(records), joint, refines
        self.states: dict[int, States] = {}
        self.changes: dict[int, Tensor] = {}
        """Of each frame, (1, 6, h, w): what the network makes of it now, less what it made of it for the record; as far
        as later frames see it."""
        self._frames = {f.display: (n, b) for n, r in enumerate(records) for b, f in enumerate(r.unit.frames)}
        self.luma_samples = sum(r.target.numel() for r in records) / 1.5

    @torch.no_grad()
    def refresh(self) -> float:
        """Run all units in coding order with the present weights; their weighted errors in bits, of a luma sample."""
        total = 0.0
        for record in self.records:
            samples, states = self._run(record, self.states, self.changes, refines=False)
            self._keep(record, samples, states)
            total += float(self._errors(record, samples))
        return total / self.luma_samples

    def loss(self, number: int) -> Tensor:
        """Of a unit: weighted errors in bits, of a luma sample."""
        record = self.records[number]
        states, changes = dict(self.states), dict(self.changes)
        total: Tensor | float = 0.0
        if self.joint:
            for display in dict.fromkeys(r for f in record.unit.frames for r in f.references):
                at, b = self._frames[display]
                before = record_part(self.records[at], b)
                samples, states[display] = self._run(before, self.states, self.changes)
                changes[display] = self._change(before, samples)
                total = total + _REFERENCE_SHARE * self._errors(before, samples)
        samples, kept = self._run(record, states, changes)
        self._keep(record, samples, kept)
        made_total = total + self._errors(record, samples)
        assert isinstance(made_total, Tensor)
        return made_total / (record.target.numel() / 1.5)

    def run(self, number: int) -> tuple[Tensor, States]:
        """What the network makes of a unit on states and pictures as they were made last."""
        return self._run(self.records[number], self.states, self.changes)

    def _run(
        self, record: UnitRecord, states: Mapping[int, States], changes: Mapping[int, Tensor], *, refines: bool = True
    ) -> tuple[Tensor, States]:
        module, stores = self.synthesis.module, self.synthesis.stores
        with simulate(self.synthesis.simulation):
            inputs = moved_inputs(record, inputs_of(record, states), changes)
            if refines and self.refines:
                inputs = refined_inputs(module, record, inputs)
            return synthesised(module, stores, inputs)

    def _change(self, record: UnitRecord, samples: Tensor) -> Tensor:
        assert record.made is not None
        rows, columns = record.target.shape[2:]
        return _CARRIED * (samples[..., :rows, :columns] - record.made)

    def _keep(self, record: UnitRecord, samples: Tensor, states: States) -> None:
        change = self._change(record, samples.detach())
        for b, frame in enumerate(record.unit.frames):
            self.states[frame.display] = {n: s[b : b + 1].detach() for n, s in states.items()}
            self.changes[frame.display] = change[b : b + 1]

    def _errors(self, record: UnitRecord, samples: Tensor) -> Tensor:
        """Weighted squared errors over lambda: bits."""
        rows, columns = record.target.shape[2:]
        errors = (samples[..., :rows, :columns] - record.target).square() * record.weights
        return errors.sum() / (SAMPLE_STEP**2 * record.lmbda)

    def step(
        self, optimiser: torch.optim.Optimizer, number: int, on_gradient: Callable[[], None] = lambda: None
    ) -> float:
        """One step on a unit; its loss. ``on_gradient`` is called once the parameters have their gradients."""
        optimiser.zero_grad(set_to_none=True)
        loss = self.loss(number)
        loss.backward()
        on_gradient()
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, _LARGEST_GRADIENT)
        optimiser.step()
        return float(loss.detach())
