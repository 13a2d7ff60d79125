"""Fitting a recurrent network to the records that a closed-loop pass left: joint refinement through the states.

A step runs one unit and, with gradients, the frames that it refers to, so that a state is fitted to be of use to later
frames (backpropagation through two frames, or three where a reference has references of its own in the window). What
the references of these hand on is taken as it was made last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from nvcodec.encoder.working_domain import SAMPLE_STEP
from nvcodec.exact.simulation import Simulation, simulate
from nvcodec.implicit.encoder.recurrent_fit import TwinSynthesis
from nvcodec.implicit.encoder.synthesis import States, UnitRecord, inputs_of, refined_inputs, synthesised

__all__ = ["Overfit", "rate_at", "record_part"]

_REFERENCE_SHARE = 0.5
"""Of the loss of a step: what the errors of the references count beside those of the unit."""
_LARGEST_GRADIENT = 1.0


def record_part(record: UnitRecord, b: int) -> UnitRecord:
    """That of one frame of a unit."""

    def cut(x: Tensor | None) -> Tensor | None:
        return None if x is None else x[b : b + 1]

    return replace(
        record,
        unit=type(record.unit)((record.unit.frames[b],)),
        prediction=cut(record.prediction),
        difference=cut(record.difference),
        residual={level: x[b : b + 1] for level, x in record.residual.items()},
        vectors=tuple(v[b : b + 1] for v in record.vectors),
        final_vectors=tuple(v[b : b + 1] for v in record.final_vectors),
        blend=cut(record.blend),
        target=record.target[b : b + 1],
        weights=record.weights[b : b + 1],
    )


def rate_at(done: float, rate: float, warm_up: float = 0.05) -> float:
    """The learning rate behind a share of the steps: it rises at first and falls by a cosine."""
    if done < warm_up:
        return rate * (0.1 + 0.9 * done / warm_up)
    return rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up))))


class Overfit:
    """``records``: of all units of a segment, in coding order. ``joint``: whether gradients go through the states."""

    def __init__(
        self, module: nn.Module, records: Sequence[UnitRecord], simulation: Simulation, *, joint: bool = True
    ) -> None:
        self.synthesis = TwinSynthesis(module, simulation)
        self.records, self.joint = list(records), joint
        self.states: dict[int, States] = {}
        self._frames = {f.display: (n, b) for n, r in enumerate(records) for b, f in enumerate(r.unit.frames)}
        self._samples = sum(r.target.numel() for r in records) / 1.5  # of luma

    @torch.no_grad()
    def refresh(self) -> float:
        """Run all units in coding order with the present weights; their weighted errors in bits, of a luma sample."""
        total = 0.0
        with simulate(self.synthesis.simulation):
            for record in self.records:
                samples, states = synthesised(
                    self.synthesis.module, self.synthesis.stores, inputs_of(record, self.states)
                )
                self._keep(record, states)
                total += float(self._errors(record, samples))
        return total / self._samples

    def loss(self, number: int) -> Tensor:
        """Of a unit: weighted errors in bits, of a luma sample."""
        record = self.records[number]
        states: Mapping[int, States] = self.states
        total: Tensor | float = 0.0
        if self.joint and record.unit.reference_count:
            made: dict[int, States] = {}
            for display in dict.fromkeys(r for f in record.unit.frames for r in f.references):
                at, b = self._frames[display]
                before = record_part(self.records[at], b)
                samples, made[display] = self._run(before, self.states)
                total = total + _REFERENCE_SHARE * self._errors(before, samples)
            states = made
        samples, kept = self._run(record, states)
        self._keep(record, kept)
        made_total = total + self._errors(record, samples)
        assert isinstance(made_total, Tensor)
        return made_total / (record.target.numel() / 1.5)

    def run(self, number: int) -> tuple[Tensor, States]:
        """What the network makes of a unit on the states as they were made last."""
        return self._run(self.records[number], self.states)

    def _run(self, record: UnitRecord, states: Mapping[int, States]) -> tuple[Tensor, States]:
        module, stores = self.synthesis.module, self.synthesis.stores
        with simulate(self.synthesis.simulation):
            return synthesised(module, stores, refined_inputs(module, record, inputs_of(record, states)))

    def _keep(self, record: UnitRecord, states: States) -> None:
        for b, frame in enumerate(record.unit.frames):
            self.states[frame.display] = {n: s[b : b + 1].detach() for n, s in states.items()}

    def _errors(self, record: UnitRecord, samples: Tensor) -> Tensor:
        """Weighted squared errors over lambda: bits."""
        rows, columns = record.target.shape[2:]
        errors = (samples[..., :rows, :columns] - record.target).square() * record.weights
        return errors.sum() / (SAMPLE_STEP**2 * record.lmbda)

    def step(self, optimiser: torch.optim.Optimizer, number: int) -> float:
        """One step on a unit; its loss."""
        optimiser.zero_grad(set_to_none=True)
        loss = self.loss(number)
        loss.backward()
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, _LARGEST_GRADIENT)
        optimiser.step()
        return float(loss.detach())
