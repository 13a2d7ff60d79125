"""A network as the decoder runs it, where an encoder's pass asks for it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nvcodec.exact.machine import Machine
from nvcodec.exact.operation import FrameInputs, slots
from nvcodec.implicit.encoder.synthesis import States, UnitRecord
from nvcodec.motion.prediction import VECTOR_BOUND

__all__ = ["ExactSynthesis"]


class ExactSynthesis:
    """A ``nvcodec.implicit.encoder.recurrent_fit.Synthesis`` by the exact machine: states are integers."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def refined(self, record: UnitRecord, states: Mapping[int, States]) -> tuple[Tensor, ...]:
        if not record.vectors or not self.machine.corrects:
            return record.vectors
        corrections = self.machine.corrections(_inputs(record, states))
        return tuple(
            (v + corrections[k].cpu()).clamp(-VECTOR_BOUND, VECTOR_BOUND) if k in corrections else v
            for k, v in enumerate(record.vectors)
        )

    def run(self, record: UnitRecord, states: Mapping[int, States]) -> tuple[Tensor, States]:
        made = self.machine.run(_inputs(record, states))
        return made.samples.to(record.target.device), made.states


def _inputs(record: UnitRecord, states: Mapping[int, States]) -> FrameInputs:
    unit, which = record.unit, range(record.unit.reference_count)
    made = FrameInputs(torch.tensor([frame.display for frame in unit.frames]), depth=unit.depth)
    made.quantiser = record.quantiser
    made.distances = slots([torch.tensor([f.distances[k] for f in unit.frames]) for k in which])
    references = [[states[frame.references[k]] for frame in unit.frames] for k in which]
    made.states = slots([{n: torch.cat([s[n] for s in found]) for n in found[0]} for found in references])
    made.vectors, made.final_vectors = slots(record.vectors), slots(record.final_vectors)
    made.residual = record.residual
    made.prediction, made.difference = record.prediction, record.difference
    return made
