"""The stages that turn one segment into bytes, seen at a glance in ``encode_segment``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nvcodec.encoder.quantise import quantise_network
from nvcodec.encoder.rate_control import (
    AIM,
    SLOPE,
    TOLERANCE,
    Target,
    UnitBudget,
    first_lambda,
    measured_slope,
    next_lambda,
)
from nvcodec.encoder.segment import PassSettings, SegmentFit, SegmentSource, UnitReport
from nvcodec.encoder.twin import Twin
from nvcodec.entropy.weights import STEPS, TensorChange
from nvcodec.errors import MismatchError, TargetError
from nvcodec.model.base import HIDDEN_FEATURES, starting_tensors
from nvcodec.model.network import GAIN_STEPS_PER_OCTAVE, NetworkShape
from nvcodec.model.unit import Grid
from nvcodec.segment import SegmentHeader, SegmentWriter

__all__ = ["EFFORTS", "CodedSegment", "Effort", "StageReport", "encode_segment", "smallest_payload"]

_WEIGHT_SHARE = 0.25
"""Most of the target that the network may take."""
_GAIN_PATIENCE = 2
"""Gain steps that lambda must have moved before the gains follow in the final pass."""
_WEIGHT_GUESS = 0.06
"""What the network is believed to take before it is quantised."""
_STREAM_END_BITS = 96
"""Segment header and the rounding of the stream to whole words."""
_GAIN_PER_OCTAVE = 4.0
"""Gain steps for a doubling of lambda: the best quantiser step grows with its square root."""


@dataclass(frozen=True)
class Effort:
    """How much work an encode takes: iterations in each stage, and how often the refinement repeats."""

    key_iterations: int
    iterations: int
    refinements: int
    tuning: bool
    final_iterations: int
    attempts: int
    learning: float


EFFORTS = {
    "fast": Effort(16, 6, 0, False, 6, 6, 0.3),
    "medium": Effort(24, 10, 1, True, 10, 7, 0.5),
    "slow": Effort(48, 20, 3, True, 16, 8, 0.5),
}


@dataclass(frozen=True)
class StageReport:
    """Progress: ``stage`` by name, the unit that was finished, frames behind this stage, and the share of the
    segment's work done."""

    stage: str
    unit: UnitReport
    frames: int
    fraction: float


@dataclass(frozen=True)
class CodedSegment:
    """``payload`` for the container; ``states``: the exact samples (6, h, w) of each frame in display order."""

    payload: bytes
    samples: list[Tensor]
    bits: float


class _Progress:
    """Counts units over all stages."""

    def __init__(self, units: int, stages: int, on_unit: Callable[[StageReport], None]) -> None:
        self._total = units * stages
        self._done = 0
        self._frames = 0
        self._on_unit = on_unit

    def stage(self, name: str, *, restart: bool = False) -> Callable[[UnitReport], None]:
        def report(unit: UnitReport) -> None:
            self._done += not restart
            self._frames += len(unit.unit.frames)
            self._on_unit(StageReport(name, unit, self._frames, min(1.0, self._done / self._total)))

        self._frames = 0

        return report


def encode_segment(
    source: SegmentSource,
    width: int,
    target: Target,
    effort: Effort,
    depth_factor: float,
    on_unit: Callable[[StageReport], None] = lambda report: None,
) -> CodedSegment:
    """Fit, refine, tune, quantise and code one segment. ``target.total_bytes`` is for this payload alone."""
    wanted = None if target.total_bytes is None else 8.0 * target.total_bytes * AIM
    lmbda = target.lmbda if wanted is None else first_lambda(wanted / source.luma_samples)
    assert lmbda is not None
    fit = SegmentFit(source)
    twin = _start_twin(source, width, lmbda)
    progress = _Progress(len(fit.units), 2 + effort.refinements + effort.tuning, on_unit)

    # fit: frame by frame in coding order
    settings = PassSettings(
        lmbda,
        depth_factor,
        effort.iterations,
        effort.key_iterations,
        effort.learning,
        collect=not effort.refinements and not effort.tuning,
    )
    twin.set_learning(effort.learning)
    reports = fit.run_pass(twin, settings, progress.stage("fit"))

    # refine: again, with everything learned since
    for number in range(effort.refinements):
        settings = _towards(settings, fit, reports, wanted, twin)
        last = number + 1 == effort.refinements
        settings = replace(settings, key_iterations=effort.iterations, collect=last)
        twin.set_learning(effort.learning * (1 - (number + 1) / (effort.refinements + 2)))
        reports = fit.run_pass(twin, settings, progress.stage("refine"))

    # prune and quantise, then fine-tune on the quantised weights
    measured_at = settings.lmbda
    settings = _towards(settings, fit, reports, wanted, twin)
    changes = _affordable(twin, fit, wanted)
    if effort.tuning:
        _adopt(twin, changes)
        twin.steps = {name: STEPS[c.step] for name, c in changes.items()}
        settings = replace(settings, collect=True)
        twin.set_learning(effort.learning * 0.2)
        reports = fit.run_pass(twin, settings, progress.stage("tune"))
        measured_at = settings.lmbda
        changes = _affordable(twin, fit, wanted)

    # final: integers only, closed loop against the exact references
    header = SegmentHeader(width, source.gop, twin.gain_offset)
    final = replace(
        settings,
        iterations=effort.final_iterations,
        key_iterations=effort.final_iterations,
        train=False,
        search=True,
        collect=False,
    )
    return _final_pass(fit, header, changes, final, wanted, reports, measured_at, effort, progress)


def _start_twin(source: SegmentSource, width: int, lmbda: float) -> Twin:
    """The starting network, its gains moved to what ``lmbda`` asks for."""
    start = {name: t.to(source.samples.device) for name, t in starting_tensors(width).items()}
    twin = Twin(NetworkShape(width, HIDDEN_FEATURES), start)
    twin.shift_gains(_GAIN_PER_OCTAVE * math.log2(lmbda))
    return twin


def _towards(
    settings: PassSettings, fit: SegmentFit, reports: list[UnitReport], wanted: float | None, twin: Twin
) -> PassSettings:
    """Settings of the next pass: lambda, and with it the gains, moved so that the segment meets its target."""
    if wanted is None:
        return settings
    bits = sum(r.motion_bits + r.appearance_bits for r in reports)
    lmbda = next_lambda(settings.lmbda, bits, wanted * (1 - _WEIGHT_GUESS))
    steps = twin.shift_gains(_GAIN_PER_OCTAVE * math.log2(lmbda / settings.lmbda))
    fit.rescale(2.0 ** (-steps / GAIN_STEPS_PER_OCTAVE))
    return replace(settings, lmbda=lmbda)


def _affordable(twin: Twin, fit: SegmentFit, wanted: float | None) -> dict[str, TensorChange]:
    """The changes worth their bits; fewer of them where they would crowd out the frames."""
    price = 1.0
    while True:
        changes = quantise_network(twin, fit.sensitivity, price)
        header = SegmentHeader(twin.shape.width, fit.source.gop, twin.gain_offset)
        weights = SegmentWriter(header, changes, fit.source.geometry, 1, fit.source.samples.device).weight_bits
        if not changes or wanted is None or weights <= _WEIGHT_SHARE * wanted:
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


def _final_pass(
    fit: SegmentFit,
    header: SegmentHeader,
    changes: dict[str, TensorChange],
    settings: PassSettings,
    wanted: float | None,
    reports: list[UnitReport],
    lmbda_of_reports: float,
    effort: Effort,
    progress: _Progress,
) -> CodedSegment:
    """Code with the integer network; again with another lambda until the size is met."""
    before = [r.motion_bits + r.appearance_bits for r in reports]
    lambdas = [lmbda_of_reports] * len(before)
    slope, gain_lmbda = SLOPE, settings.lmbda
    best: CodedSegment | None = None
    for attempt in range(effort.attempts):
        report = progress.stage("final", restart=attempt > 0)
        writer = _writer(fit, header, changes)
        budget = None
        if wanted is not None:
            budget = UnitBudget(wanted - writer.weight_bits - _STREAM_END_BITS, before, lambdas, slope)
            aim = _mean_log(lambdas, before) * budget.start_factor
            steps = round(_GAIN_PER_OCTAVE * math.log2(aim / gain_lmbda))
            if abs(steps) >= _GAIN_PATIENCE:  # the quantiser step follows lambda; the symbols follow the step
                header = replace(header, gain_offset=header.gain_offset + steps)
                fit.rescale(2.0 ** (-steps / GAIN_STEPS_PER_OCTAVE))
                gain_lmbda = aim
                writer = _writer(fit, header, changes)
        coded, spent, used = _code_once(fit, writer, settings, budget, report)
        if wanted is None:
            return coded
        if best is None or _distance(coded.bits, wanted) < _distance(best.bits, wanted):
            best = coded
        if TOLERANCE[0] <= coded.bits * AIM / wanted <= TOLERANCE[1]:
            return coded
        if attempt:
            slope = measured_slope((sum(before), sum(spent)), (_mean_log(lambdas, spent), _mean_log(used, spent)))
        before, lambdas = spent, used
    assert best is not None
    return best


def _code_once(
    fit: SegmentFit,
    writer: SegmentWriter,
    settings: PassSettings,
    budget: UnitBudget | None,
    on_unit: Callable[[UnitReport], None],
) -> tuple[CodedSegment, list[float], list[float]]:
    """One closed-loop pass of the integer network; also the bits and the lambda of each unit."""
    twin = Twin.frozen(writer.network)
    spent: list[float] = []
    used: list[float] = []
    samples: dict[int, Tensor] = {}
    for number, unit in enumerate(fit.units):
        used.append(budget.lmbda(number) if budget else settings.lmbda)
        work = fit.fit_unit(number, twin, writer.states, replace(settings, lmbda=used[-1]))
        start = writer.bits
        decoded = writer.code(fit.grids[number])
        spent.append(writer.bits - start)
        exact = torch.stack([decoded[f.display].appearance.packed for f in unit.frames])
        _check_twin(work.fit.samples(twin), exact)
        samples.update({f.display: decoded[f.display].appearance.packed for f in unit.frames})
        on_unit(work.report(exact))
        if budget:
            budget.spend(spent[-1])
    payload = writer.finish()
    return CodedSegment(payload, [samples[d] for d in sorted(samples)], 8.0 * len(payload)), spent, used


def _writer(fit: SegmentFit, header: SegmentHeader, changes: dict[str, TensorChange]) -> SegmentWriter:
    samples = fit.source.samples
    return SegmentWriter(header, changes, fit.source.geometry, len(samples), samples.device)


def _distance(bits: float, wanted: float) -> float:
    """How bad it is to miss the target; above it three times as bad as below."""
    miss = math.log(bits / wanted)
    return max(-miss, 3 * miss)


def _mean_log(lambdas: list[float], bits: list[float]) -> float:
    """Geometric mean, weighted by bits."""
    weights = [max(b, 1.0) for b in bits]
    return math.exp(sum(w * math.log(x) for x, w in zip(lambdas, weights, strict=True)) / sum(weights))


def _check_twin(twin_samples: Tensor, exact: Tensor) -> None:
    """The float twin must agree with the integer decoder on every sample."""
    if not torch.equal(twin_samples, exact):
        worst = float((twin_samples - exact).abs().max())
        raise MismatchError(f"the float twin and the integer decoder differ by up to {worst:g}")


def smallest_payload(source: SegmentSource, width: int) -> int:
    """Bytes of the smallest segment: the starting network and empty grids."""
    header = SegmentHeader(width, source.gop, 0)
    writer = SegmentWriter(header, {}, source.geometry, len(source.samples), source.samples.device)
    for unit in writer.units:
        writer.code(Grid.zeros(unit, source.geometry, source.samples.device))
    return len(writer.finish())


def check_reachable(smallest: int, wanted_bytes: float) -> None:
    """Raise TargetError where the target lies below the smallest possible file."""
    if wanted_bytes * 1.02 < smallest:
        raise TargetError(
            f"the target of {wanted_bytes:.0f} bytes is out of reach; the smallest file takes {smallest} bytes"
        )
