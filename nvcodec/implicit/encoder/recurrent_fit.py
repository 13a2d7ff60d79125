"""A segment of frames that refer to others while it is being fitted: passes over its coding units, each closed-loop.

One pass visits every unit in coding order: search its motion on the decoded references, find the symbols of the mixed
residual grid, run the network, go on. The weights do not change in a pass; what it leaves are records that they are
fitted on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nvcodec.core.gop import CodingUnit
from nvcodec.core.parallel import run_ahead
from nvcodec.encoder.distortion import plane_errors, psnr_611
from nvcodec.encoder.segment_analysis import USUAL_IMPORTANCE, SegmentAnalysis, SegmentSource, UnitReport, motion_bits
from nvcodec.entropy.context import ContextWeights
from nvcodec.exact.operation import Sizes
from nvcodec.exact.outputs import Store
from nvcodec.exact.simulation import Simulation, simulate
from nvcodec.exact.tracing import place
from nvcodec.grid.contexts import appearance_context
from nvcodec.grid.encoder.fit import GridFit, gain_index
from nvcodec.grid.encoder.transform import Reach
from nvcodec.grid.levels import Quantiser
from nvcodec.grid.wavelet import residual_planes
from nvcodec.implicit.encoder.synthesis import States, UnitRecord, blend_of, inputs_of, synthesised
from nvcodec.implicit.unit import motion_weights
from nvcodec.motion.compensation import Compensated, FrameState, blended
from nvcodec.motion.levels import MOTION_LEVELS, motion_layout
from nvcodec.motion.prediction import VECTOR_BOUND, MotionState
from nvcodec.motion.unit import UnitMotion, key_unit_inputs
from nvcodec.motion.warp import SAMPLE_MAX, Reference

__all__ = ["FittedUnit", "PassEffort", "RecurrentFit", "Synthesis", "TwinSynthesis", "trial_pass"]

COARSE_LEVELS = 3
"""The finest level of the grid that motion is refined by: what it comes to at a stride of 8."""


@dataclass(frozen=True)
class PassEffort:
    """``searches``: how often motion is looked for, each time with prices by what the last search found. ``visits``: of
    every symbol of the grid, key frames and others."""

    searches: int = 1
    visits: tuple[int, int] = (2, 2)


@dataclass
class FittedUnit:
    """The symbols of a unit, what they cost, what the network is given, and what it made of them."""

    motion: UnitMotion
    grid: GridFit
    record: UnitRecord
    motion_states: list[MotionState]
    samples: Tensor
    states: States
    bits: tuple[float, float]


class Synthesis(Protocol):
    """A network as a pass runs it."""

    def refined(self, record: UnitRecord, states: Mapping[int, States]) -> tuple[Tensor, ...]:
        """The vectors towards each reference, (B, 2, block rows, block columns), with the network's own corrections."""

    def run(self, record: UnitRecord, states: Mapping[int, States]) -> tuple[Tensor, States]:
        """Samples (B, 6, h, w) as references hold them, integers 0 .. 1023, and states by index, (B, C, H, W)."""


class TwinSynthesis:
    """By the float twin. ``module``: of the recurrent kind; ``simulation``: how it computes."""

    def __init__(self, module: nn.Module, simulation: Simulation | None = None) -> None:
        self.module, self.simulation = module, simulation or Simulation()
        self.stores = [layer.index for layer in module.modules() if isinstance(layer, Store)]

    @torch.no_grad()
    def refined(self, record: UnitRecord, states: Mapping[int, States]) -> tuple[Tensor, ...]:
        if not record.vectors or not hasattr(self.module, "motion"):
            return record.vectors
        with simulate(self.simulation):
            corrections = self.module.get_submodule("motion")(inputs_of(record, states))
        return tuple(
            (v + torch.floor(c.cpu() + 0.5)).clamp(-VECTOR_BOUND, VECTOR_BOUND)
            for v, c in zip(record.vectors, corrections, strict=False)
        )

    @torch.no_grad()
    def run(self, record: UnitRecord, states: Mapping[int, States]) -> tuple[Tensor, States]:
        with simulate(self.simulation):
            samples, made = synthesised(self.module, self.stores, inputs_of(record, states))
        rows, columns = record.target.shape[2:]
        return torch.floor(samples[..., :rows, :columns] + 0.5).clamp(0, SAMPLE_MAX).contiguous(), made


class RecurrentFit(SegmentAnalysis):
    """
    Attributes:
        records: of each unit, by number, as the last pass left it.
        net_states: what the network keeps of the frames that units to come refer to.
        quantiser: of the grid.
    """

    def __init__(self, source: SegmentSource, context: ContextWeights, quantiser: Quantiser | None = None) -> None:
        super().__init__(source)
        self.context = context
        self.quantiser = quantiser or Quantiser()
        self._reach = Reach.nothing()
        self.motion = [_no_motion(unit, source) for unit in self.units]
        self.records: dict[int, UnitRecord] = {}
        self.net_states: dict[int, States] = {}

    def known_motion(self, number: int) -> list[Tensor]:
        return self.motion[number]

    def keep_motion(self, number: int, levels: list[Tensor]) -> None:
        self.motion[number] = levels

    def look_at(self, unit: CodingUnit, residual: Tensor) -> None:
        self._reach = self._reach + Reach.of(residual)
        self.quantiser = Quantiser(tuple(self._reach.least_gains().tolist()))

    def start_pass(self) -> None:
        """Forget the pass before, except for its motion."""
        self.states, self.reports, self.net_states = {}, [], {}

    def continue_pass(
        self,
        synthesis: Synthesis,
        highest_lmbda: float,
        effort: PassEffort,
        on_unit: Callable[[UnitReport], None] = lambda report: None,
    ) -> None:
        """The units of the present pass that are still to come."""

        def begin(number: int) -> Callable[[], FittedUnit]:
            return partial(self.fitted_unit, number, synthesis, *self.known_states(number), highest_lmbda, effort)

        def finish(number: int, found: FittedUnit) -> None:
            unit = self.units[number]
            self.adopt(number, found)
            report = UnitReport(
                unit, *found.bits, plane_errors(found.samples, self.sources(unit), self.source.geometry.bit_depth)
            )
            self.reports.append(report)
            on_unit(report)

        run_ahead(range(len(self.reports), len(self.units)), self.last_reference, begin, finish)

    def known_states(self, number: int) -> tuple[dict[int, FrameState], dict[int, States]]:
        """Of the references of a unit."""
        states = self.references_of(number, self.states)
        return states, {display: self.net_states[display] for display in states}

    def adopt(self, number: int, found: FittedUnit) -> None:
        """Keep what was found of a unit; what no unit behind it needs is forgotten."""
        self.keep_motion(number, found.motion.levels)
        self.records[number] = found.record
        for b, frame in enumerate(self.units[number].frames):
            self.states[frame.display] = FrameState(Reference(found.samples[b]), found.motion_states[b])
            self.net_states[frame.display] = {n: s[b : b + 1] for n, s in found.states.items()}
        self.drop_states(number)
        self.net_states = {d: s for d, s in self.net_states.items() if d in self.states}

    def all_records(self) -> list[UnitRecord]:
        """In coding order."""
        return [self.records[number] for number in range(len(self.units))]

    def kept(self) -> dict[str, Any]:
        """What a pass depends on: a segment of the same source, given this, goes on in the same way."""
        return self.kept_analysis() | {
            "reports": [],
            "states": {},
            "motion": [list(levels) for levels in self.motion],
            "least_gains": self.quantiser.least,
        }

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Take over what ``kept`` returned, with all tensors on the CPU."""
        self.restore_analysis(state)
        self.motion = [list(levels) for levels in state["motion"]]
        self.quantiser = Quantiser(tuple(state["least_gains"]))

    def replayed(self, synthesis: Synthesis) -> float:
        """Mean PSNR 6:1:1 in dB of what another network makes of the symbols that were found last, in closed loop."""
        states: dict[int, FrameState] = {}
        net_states: dict[int, States] = {}
        found = []
        for unit, kept in zip(self.units, self.all_records(), strict=True):
            record = replace(kept)
            if unit.reference_count:
                warp_references(record, unit, states, record.vectors)
                fields = synthesis.refined(record, net_states)
                warp_references(record, unit, states, fields)
            samples, made = synthesis.run(record, net_states)
            for b, frame in enumerate(unit.frames):
                states[frame.display] = FrameState(Reference(samples[b]), MotionState((), ()))
                net_states[frame.display] = {n: s[b : b + 1] for n, s in made.items()}
            found.append(psnr_611(plane_errors(samples, self.sources(unit), self.source.geometry.bit_depth)))
        return float(torch.cat(found).mean())

    def fitted_unit(
        self,
        number: int,
        synthesis: Synthesis,
        states: Mapping[int, FrameState],
        net_states: Mapping[int, States],
        highest_lmbda: float,
        effort: PassEffort,
    ) -> FittedUnit:
        """Motion and grid of one unit on the given references; nothing here is changed by it."""
        unit = self.units[number]
        motion = self.search_motion(number, motion_weights(), states, highest_lmbda, effort.searches)
        record, grid = self.begun_unit(number, motion, highest_lmbda)
        fields: tuple[Tensor, ...] = ()

        def place(levels: list[Tensor]) -> None:
            nonlocal fields
            record.residual = residual_planes(levels, grid.gains)
            fields = synthesis.refined(record, net_states)
            refine(record, unit, states, fields)

        def made(levels: list[Tensor]) -> tuple[Tensor, Tensor]:
            place(levels)
            return synthesis.run(record, net_states)[0], record.residual[0]

        lmbda = record.lmbda
        for visit in range(effort.visits[unit.reference_count > 0]):
            grid.descend(made, lmbda, *(() if not visit or not unit.reference_count else (COARSE_LEVELS,)))
        place(grid.levels)
        samples, kept = synthesis.run(record, net_states)
        bits = motion_bits(motion, motion_weights(), unit.depth), grid.bits()
        record.bits, record.made = sum(bits), samples
        return FittedUnit(motion, grid, record, final_states(unit, fields), samples, kept, bits)

    def begun_unit(self, number: int, motion: UnitMotion, highest_lmbda: float) -> tuple[UnitRecord, GridFit]:
        """What is known of a unit once its motion is, and its grid at the start of its fit."""
        unit, geometry = self.units[number], self.source.geometry
        mean, relative = self.unit_importance(unit)
        lmbda = highest_lmbda / mean
        index = gain_index(lmbda, unit.depth)
        target = self.targets(unit)
        inputs = motion.inputs
        if not unit.reference_count:
            inputs = key_unit_inputs(unit, geometry, target.device)
        grid = GridFit(unit, geometry, target, inputs, relative, self.context, self.quantiser.gains(index))
        grid.start(inputs.prediction)
        vectors = tuple(torch.stack([state.fields[k] for state in motion.states]) for k in range(unit.reference_count))
        has = unit.reference_count > 0
        record = UnitRecord(
            unit, inputs.prediction if has else None, inputs.difference if has else None, {}, vectors, vectors,
            blend_of(motion) if has else None, target, grid.weights.to(target.device), lmbda, index,
        )  # fmt: skip
        return record, grid


def refine(record: UnitRecord, unit: CodingUnit, states: Mapping[int, FrameState], fields: tuple[Tensor, ...]) -> None:
    """Warp the references of a unit by refined vectors, where these differ from what the record has."""
    if all(torch.equal(a, b) for a, b in zip(fields, record.final_vectors, strict=True)):
        return
    warp_references(record, unit, states, fields)


def warp_references(
    record: UnitRecord, unit: CodingUnit, states: Mapping[int, FrameState], fields: tuple[Tensor, ...]
) -> None:
    """Make of a record what its references, warped by ``fields``, say of the unit."""
    found: list[Compensated] = []
    for b, frame in enumerate(unit.frames):
        warped = [states[r].appearance.warp(fields[k][b]) for k, r in enumerate(frame.references)]
        found.append(blended(warped, record.blend[b] if record.blend is not None else torch.zeros(0)))
    record.prediction = torch.stack([c.prediction for c in found])
    record.difference = torch.stack([c.difference for c in found])
    record.final_vectors = fields


def final_states(unit: CodingUnit, fields: tuple[Tensor, ...]) -> list[MotionState]:
    """The motion states of the frames of a unit."""
    return [MotionState(tuple(f[b] for f in fields), frame.distances) for b, frame in enumerate(unit.frames)]


def _no_motion(unit: CodingUnit, source: SegmentSource) -> list[Tensor]:
    if not unit.reference_count:
        return []
    return [
        torch.zeros(len(unit.frames), len(motion_layout(unit.reference_count, k)), *source.geometry.motion_size(k))
        for k in range(MOTION_LEVELS)
    ]


def trial_pass(source: SegmentSource, made: Callable[[Sizes], nn.Module], lmbda: float) -> Sequence[UnitReport]:
    """A ``nvcodec.encoder.gop_trials.Measure``: one pass of the network as it starts, which ``made`` makes."""
    sizes = Sizes(source.geometry.half, source.geometry.blocks, len(source.samples))
    module = made(sizes).to(source.samples.device)
    place(module, sizes)
    highest = lmbda * USUAL_IMPORTANCE
    fit = RecurrentFit(source, appearance_context())
    fit.look_ahead(motion_weights(), highest, lambda report: None)
    fit.filter_sources(highest)
    fit.weigh(highest)
    fit.start_pass()
    fit.continue_pass(TwinSynthesis(module), highest, PassEffort())
    return [report for report in fit.reports if report]
