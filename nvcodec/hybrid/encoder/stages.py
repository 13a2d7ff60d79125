"""The stages that turn one segment into bytes, seen at a glance in ``encode_segment``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from nvcodec.encoder.distortion import psnr_611
from nvcodec.encoder.rate_control import AIM, Target, first_lambda, next_lambda
from nvcodec.encoder.representation import CodedSegment, Keep, StageReport
from nvcodec.encoder.segment_analysis import USUAL_IMPORTANCE, SegmentSource, UnitReport
from nvcodec.entropy.weights import STEPS, TensorChange
from nvcodec.hybrid.base import starting_tensors
from nvcodec.hybrid.encoder.final_pass import GAIN_PER_OCTAVE, SILENCING_BITS, FinalPass
from nvcodec.hybrid.encoder.quantise import gain_changes, quantise_network
from nvcodec.hybrid.encoder.segment_fit import PassEffort, PassSettings, SegmentFit
from nvcodec.hybrid.encoder.twin import Twin
from nvcodec.hybrid.network import NetworkShape, with_cells_on
from nvcodec.hybrid.payload import HybridHeader, HybridWriter
from nvcodec.motion.levels import FrameGeometry

__all__ = [
    "EFFORTS",
    "GOPS",
    "Effort",
    "encode_segment",
    "gain_shift",
    "smallest_payload",
    "trial_pass",
]

_WEIGHT_SHARE = 0.25
"""Most of the target that the network may take."""
_WEIGHT_PRICE = 0.5
"""Weight of the weights' own bits when they are chosen: the Hessian's diagonal understates what they do together."""
_HIGHEST_PRICE = 1e6
"""Of the weights' bits: what is left at it has to be, cells that are silent."""
_FAR_LESS = 0.5
"""Of the usual importance: above it the usual quantiser steps are better than larger ones, a picture alone has 1/12."""
_WEIGHT_GUESS = 0.06
"""What the network is believed to take before it is quantised."""


@dataclass(frozen=True)
class Effort:
    """How much work an encode takes: that of each pass that learns, how many of them refine the first one, whether one
    more tunes on quantised weights, the rate of learning, and the work of each of at most ``attempts`` final passes, of
    which the best of the first ``met`` is taken that meet the target.
    """

    learned: PassEffort
    refinements: int
    tuning: bool
    learning: float
    final: PassEffort
    attempts: int
    met: int = 1

    @property
    def stages(self) -> int:
        """Passes over a segment, the look ahead and the last one included; further attempts are not foreseen."""
        return 3 + self.refinements + self.tuning


GOPS = (4, 2, 8, 1)
"""Lengths of which the best is chosen, the usual one first."""
_TRIAL = PassEffort(key_iterations=0, iterations=0, searches=1, modes=(1, 1, 1, 1))
_LEARNED = PassEffort(key_iterations=16, iterations=6, searches=1)
EFFORTS = {
    "fast": Effort(
        replace(_LEARNED, stride=3), refinements=0, tuning=False, learning=0.3, attempts=8,
        final=PassEffort(0, 0, searches=1, modes=(3, 2, 2, 2)),
    ),
    "medium": Effort(
        _LEARNED, refinements=1, tuning=True, learning=0.5, attempts=9, met=2,
        final=PassEffort(0, 0, searches=3, modes=(5, 4, 3, 3), splits_empty=True),
    ),
    "slow": Effort(
        _LEARNED, refinements=2, tuning=True, learning=0.5, attempts=10, met=3,
        final=PassEffort(0, 0, searches=3, modes=(10, 8, 6, 6), splits_empty=True),
    ),
}  # fmt: skip


@dataclass
class _Work:
    """A segment between two coding units: all that the rest of its encode depends on."""

    fit: SegmentFit
    twin: Twin
    settings: PassSettings
    stages: int
    on_unit: Callable[[StageReport], None]
    keep: Keep
    final: FinalPass | None = None
    entered: int = 0
    """Stages that have begun."""
    _stage: int = field(default=0, init=False)
    """The one that ``encode_segment`` is at: behind ``entered`` while it passes what was done before a restart."""
    _name: str = field(default="", init=False)
    _is_new: bool = field(default=False, init=False)

    def enters(self, name: str) -> bool:
        """Whether the next stage has to be prepared: not if it had begun in the work that was restored."""
        self._stage, self._name = self._stage + 1, name
        self._is_new = self._stage > self.entered
        self.entered = max(self.entered, self._stage)
        return self._is_new

    def run_pass(self) -> None:
        """The units of the stage that are still to come, by the float twin."""
        if self._is_new:
            self.fit.start_pass()
        if self._stage == self.entered:
            self.fit.continue_pass(self.twin, self.settings, self._unit_done)

    def run_look_ahead(self) -> None:
        """The units of the stage that are still to come, on source frames."""
        if self._is_new:
            self.fit.start_pass()
        if self._stage == self.entered:
            self.fit.look_ahead(self.twin.context_weights(), self.settings.highest_lmbda, self._unit_done)

    def run_final(self, effort: Effort, wanted: float | None) -> CodedSegment:
        """What is still to come of the last stage, by the integer network."""
        assert self.final is not None

        def without_cell(depth: int) -> dict[str, TensorChange]:
            self.twin.silence(depth)
            return _affordable(self.twin, self.fit, wanted)

        return self.final.run(self.fit, effort, self._unit_done, without_cell)

    def _unit_done(self, report: UnitReport) -> None:
        self.keep(self.state)
        done = len(self.fit.reports) if self.final is None else self.final.units_done
        frames = sum(len(unit.frames) for unit in self.fit.units[:done])
        is_again = self.final is not None and self.final.attempt > 0
        part = 1.0 if is_again else done / len(self.fit.units)
        luma = len(report.unit.frames) * self.fit.source.geometry.width * self.fit.source.geometry.height
        psnr = float(psnr_611(report.errors).mean())
        fraction = (self._stage - 1 + part) / self.stages
        self.on_unit(StageReport(self._name, frames, fraction, report.bits / luma, psnr))

    def state(self) -> dict[str, Any]:
        device = self.fit.source.samples.device
        return {
            "entered": self.entered,
            "settings": asdict(self.settings),
            "fit": self.fit.state(),
            "twin": self.twin.state(),
            "final": self.final.state() if self.final else None,
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        device = self.fit.source.samples.device
        self.entered = state["entered"]
        self.settings = PassSettings.restored(state["settings"])
        self.fit.restore(state["fit"])
        self.twin.restore(state["twin"])
        self.final = FinalPass.restored(state["final"]) if state["final"] else None
        torch.set_rng_state(state["random"])
        if device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"], device)


def encode_segment(
    source: SegmentSource,
    width: int,
    target: Target,
    effort: Effort,
    on_unit: Callable[[StageReport], None] = lambda report: None,
    *,
    kept: dict[str, Any] | None = None,
    keep: Keep = lambda state: None,
) -> CodedSegment:
    """Fit, refine, tune, quantise and code one segment. ``target.total_bytes`` is for this payload alone.

    What ``keep`` can have after every unit is a state of the work. Given as ``kept`` to a later call with the same
    arguments, the work goes on behind that unit, and ends in the same bytes.
    """
    wanted = None if target.total_bytes is None else 8.0 * target.total_bytes * AIM
    lmbda = target.lmbda if wanted is None else first_lambda(wanted / source.luma_samples, len(source.samples))
    assert lmbda is not None
    work = _Work(
        SegmentFit(source),
        _start_twin(source, width, lmbda),
        PassSettings(lmbda, effort.learned),
        effort.stages,
        on_unit,
        keep,
    )
    if kept is not None:
        work.restore(kept)
        del kept  # what was replaced since shall not be held any longer
    fit, twin = work.fit, work.twin

    # look ahead: what later frames inherit from each block
    work.enters("look ahead")
    work.run_look_ahead()

    # fit: frame by frame in coding order
    if work.enters("fit"):
        if wanted is not None:
            lmbda = (
                fit.estimated_highest_lmbda(work.settings.highest_lmbda, wanted * (1 - _WEIGHT_GUESS))
                / USUAL_IMPORTANCE
            )
            twin.shift_gains(GAIN_PER_OCTAVE * math.log2(lmbda / work.settings.lmbda))
            work.settings = replace(work.settings, lmbda=lmbda)
        fit.filter_sources(work.settings.highest_lmbda)
        _weigh(work)
        work.settings = replace(work.settings, collect=not effort.refinements and not effort.tuning)
        twin.set_learning(effort.learning)
    work.run_pass()

    # refine: again, with everything learned since
    for number in range(effort.refinements):
        if work.enters("refine"):
            _silence_harmful_cells(fit, twin)
            _follow_target(work, wanted)
            last = number + 1 == effort.refinements
            work.settings = replace(work.settings, collect=last)
            twin.set_learning(effort.learning * (1 - (number + 1) / (effort.refinements + 2)))
        work.run_pass()

    # tune: prune and quantise, then once more on the quantised weights
    if effort.tuning:
        if work.enters("tune"):
            _silence_harmful_cells(fit, twin)
            _follow_target(work, wanted)
            changes = _affordable(twin, fit, wanted)
            _adopt(twin, changes)
            twin.steps = {name: STEPS[c.step] for name, c in changes.items()}
            work.settings = replace(work.settings, collect=True)
            twin.set_learning(effort.learning * 0.2)
        work.run_pass()

    # final: integers only, closed loop against the exact references
    if work.enters("final"):
        _silence_harmful_cells(fit, twin)
        measured_at = work.settings.lmbda
        before = fit.believed_bits(work.settings.highest_lmbda)
        if not effort.tuning:
            _follow_target(work, wanted)
        work.final = FinalPass(
            HybridHeader(width, source.gop, twin.gain_offset, source.predicts),
            _affordable(twin, fit, wanted),
            replace(work.settings, effort=effort.final, train=False, collect=False),
            wanted,
            before,
            [measured_at] * len(before),
            gain_lmbda=work.settings.lmbda,
        )
        sensitivity = fit.sensitivity
        fit.start_pass()
        fit.sensitivity = sensitivity  # what a change of the network is judged by, should one be needed yet
    return work.run_final(effort, wanted)


def trial_pass(source: SegmentSource, width: int, lmbda: float) -> Sequence[UnitReport]:
    """A ``nvcodec.encoder.gop_trials.Measure``: one pass with the network as it was shipped."""
    work = _Work(SegmentFit(source), _start_twin(source, width, lmbda), PassSettings(lmbda, _TRIAL, train=False), 2,
                 lambda report: None, lambda state: None)  # fmt: skip
    work.enters("look ahead")
    work.run_look_ahead()
    work.enters("try")
    _weigh(work)
    work.run_pass()
    return [report for report in work.fit.reports if report]


def _start_twin(source: SegmentSource, width: int, lmbda: float) -> Twin:
    """The starting network, its gains moved to what ``lmbda`` asks for."""
    twin = Twin(NetworkShape(width), with_cells_on(starting_tensors(width), source.samples.device))
    twin.shift_gains(GAIN_PER_OCTAVE * math.log2(lmbda))
    return twin


def _follow_target(work: _Work, wanted: float | None) -> None:
    """Move lambda, and with it the gains, so that the next pass meets the target."""
    if wanted is None:
        return
    bits = sum(work.fit.believed_bits(work.settings.highest_lmbda))
    lmbda = next_lambda(work.settings.lmbda, bits, wanted * (1 - _WEIGHT_GUESS))
    work.twin.shift_gains(GAIN_PER_OCTAVE * math.log2(lmbda / work.settings.lmbda))
    work.settings = replace(work.settings, lmbda=lmbda)
    _weigh(work)


def _silence_harmful_cells(fit: SegmentFit, twin: Twin) -> None:
    """Where the cell made frames worse in the pass before, it does so in later ones: at high qualities there is
    nothing left that it knows."""
    for depth, gain in enumerate(fit.cell_gains):
        if gain < -SILENCING_BITS:
            twin.silence(depth)


def gain_shift(importance: float) -> int:
    """Steps by which the gains of frames move whose importance is so many times the usual one.

    Frames that matter more get smaller quantiser steps, and those that matter far less get larger ones.
    """
    if _FAR_LESS <= importance < 1.0:
        return 0
    return -round(GAIN_PER_OCTAVE * math.log2(importance))


def _weigh(work: _Work) -> None:
    """Weigh the blocks at the present lambda; the quantiser steps of each depth follow."""
    work.fit.weigh(work.settings.highest_lmbda)
    shifts = torch.zeros_like(work.twin.gain_shifts)
    for depth, ratio in work.fit.importance_of_depths().items():
        shifts[depth] = gain_shift(ratio)
    work.twin.shift_gains(0, shifts)


def _affordable(twin: Twin, fit: SegmentFit, wanted: float | None) -> dict[str, TensorChange]:
    """The changes worth their bits; fewer of them where they would crowd out the frames."""
    price = _WEIGHT_PRICE
    while True:
        learned = quantise_network(twin, fit.sensitivity, price)
        changes = learned | gain_changes(twin)
        header = HybridHeader(twin.shape.width, fit.source.gop, twin.gain_offset, fit.source.predicts)
        weights = HybridWriter(header, changes, fit.source.geometry, 1, fit.source.samples.device).weight_bits
        if not learned or wanted is None or weights <= _WEIGHT_SHARE * wanted or price > _HIGHEST_PRICE:
            return changes
        price *= 2


@torch.no_grad()
def _adopt(twin: Twin, changes: dict[str, TensorChange]) -> None:
    """Set the twin to its quantised values."""
    for name, value in twin.values.items():
        change = changes.get(name)
        value.copy_(twin.start[name])
        if change is not None:
            value.add_(torch.from_numpy(change.symbols).to(value) * STEPS[change.step])


def smallest_payload(frames: int, geometry: FrameGeometry, gop: int, width: int) -> int:
    """Bytes of the smallest segment: the starting network, and nothing that is not predicted."""
    writer = HybridWriter(HybridHeader(width, gop, 0), {}, geometry, frames, torch.device("cpu"))
    for _ in writer.units:
        writer.code_nothing()
    return len(writer.finish())
