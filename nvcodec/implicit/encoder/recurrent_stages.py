"""The stages that turn a segment into bytes where frames refer to others: seen at a glance in ``encode_recurrent``.

::

    look ahead -> fit -> overfit -> [refine -> overfit] -> prune -> tune -> final
       |           |       |            |                   |        |       closed loop by the exact machine, symbols by
       |           |       |            |                   |        |       rate and distortion, until the size is met
       |           |       |            |                   |        on quantised changes of the weights
       |           |       |            |                   weights go back to the start where the change does not pay
       |           |       |            the same again, with everything learned since
       |           |       the network on what the pass left, jointly through the states
       |           frame by frame in coding order: motion on decoded references, the grid by rate and distortion
       what later frames inherit from each block

Between two stages, and within the longer ones, the work can be kept, and goes on from there to the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nvcodec.core.errors import EncodeError, MismatchError
from nvcodec.core.gop import CodingUnit
from nvcodec.core.parallel import run_ahead
from nvcodec.decoder import FrameHash, output_planes
from nvcodec.encoder.distortion import plane_errors, psnr_611
from nvcodec.encoder.rate_control import (
    AIM,
    SLOPE,
    TOLERANCE,
    Target,
    UnitBudget,
    clamp_lambda,
    first_lambda,
    measured_slope,
    next_lambda,
)
from nvcodec.encoder.representation import CodedSegment, Keep, StageReport
from nvcodec.encoder.segment_analysis import USUAL_IMPORTANCE, SegmentSource, UnitReport
from nvcodec.exact.layer import calibrate, exact_layers
from nvcodec.exact.operation import Sizes
from nvcodec.exact.simulation import Simulation
from nvcodec.exact.tracing import TracedProgram, place, trace
from nvcodec.grid.contexts import appearance_context
from nvcodec.implicit.encoder.exact_synthesis import ExactSynthesis
from nvcodec.implicit.encoder.overfit import Overfit, rate_at
from nvcodec.implicit.encoder.recurrent_fit import FittedUnit, PassEffort, RecurrentFit, TwinSynthesis
from nvcodec.implicit.encoder.start import Start, start_from_nothing
from nvcodec.implicit.encoder.weight_fit import WeightFit
from nvcodec.implicit.latents import LatentModel
from nvcodec.implicit.payload import ImplicitHeader, ImplicitWriter, SegmentTensors
from nvcodec.implicit.unit import UnitSymbols, motion_weights
from nvcodec.motion.compensation import FrameState
from nvcodec.motion.warp import Reference

__all__ = ["EFFORTS", "RecurrentEffort", "RecurrentTask", "encode_recurrent"]

_WEIGHT_GUESS = 0.04
"""Share of the target that the network is believed to take before it is known."""
_STREAM_END_BITS = 96
ACTIVATION_BITS = 12
_PEAK_MARGIN = 1.3
"""Of the largest values that a network gave while it was fitted."""


@dataclass(frozen=True)
class RecurrentEffort:
    """How much work an encode takes. ``rounds``: of a pass and an overfit; ``epochs``: of each overfit, how often every
    unit is seen. ``rate``: of learning. ``tuning``: epochs on quantised changes. ``learned``, ``final``: of the passes.
    ``attempts``: final passes at most. ``joint``: gradients through the states; ``prunes``, ``learns``: see the
    ablations."""

    rounds: int
    epochs: int
    tuning: int
    learned: PassEffort
    final: PassEffort
    rate: float = 1e-3
    attempts: int = 6
    joint: bool = True
    prunes: bool = True
    learns: bool = True


EFFORTS = {
    "fast": RecurrentEffort(1, 12, 3, PassEffort(1, (2, 2)), PassEffort(1, (3, 2))),
    "medium": RecurrentEffort(2, 30, 6, PassEffort(1, (2, 2)), PassEffort(2, (3, 3))),
    "slow": RecurrentEffort(2, 80, 12, PassEffort(1, (2, 2)), PassEffort(3, (4, 3))),
}


@dataclass(frozen=True)
class RecurrentTask:
    """A segment to encode. ``build``: the module, from the sizes. ``load``: gives it the weights of its start, and
    returns that, or None where nothing is shipped that fits.
    ``wanted_bytes``: of the payload and its program, None for what ``lmbda`` gives. ``program_index``: which program of
    the file this will be; ``overhead``: the bytes beside the payload that it takes."""

    source: SegmentSource
    build: Callable[[Sizes], nn.Module]
    load: Callable[[nn.Module, Sizes], Start | None]
    target: Target
    effort: RecurrentEffort
    seed: int
    program_index: Callable[[bytes], int]
    overhead: Callable[[bytes], int]


@dataclass
class _Work:
    """A segment between two pieces of work: all that the rest of its encode depends on."""

    fit: RecurrentFit
    sizes: Sizes
    weights: WeightFit | None
    """None while nothing says in which steps the weights of a network that has no start will be."""
    module: nn.Module
    traced: TracedProgram
    effort: RecurrentEffort
    wanted: float | None
    lmbda: float
    tell: Callable[[StageReport], None]
    keep: Keep
    stage: int = 0
    """Stages that are done."""
    epoch: int = 0
    """Of an overfit that is under way."""
    bits: list[float] = field(default_factory=list)
    """Of each unit, in the last pass, at ``lmbda``."""
    attempt: dict[str, Any] | None = None
    figures: dict[str, float] = field(default_factory=dict)
    replayed: dict[str, Any] | None = None
    optimiser: dict[str, Any] | None = None

    @property
    def highest_lmbda(self) -> float:
        return self.lmbda * USUAL_IMPORTANCE

    @property
    def stages(self) -> int:
        return 2 * self.effort.rounds + 3


def encode_recurrent(
    task: RecurrentTask,
    tell: Callable[[StageReport], None] = lambda report: None,
    *,
    kept: dict[str, Any] | None = None,
    keep: Keep = lambda state: None,
) -> CodedSegment:
    """Fit, overfit, prune, tune and code one segment. Raises EncodeError, TargetError."""
    work = _begin(task, tell, keep)
    effort = work.effort
    fit = work.fit

    fit.look_ahead(motion_weights(), work.highest_lmbda, _reporter(work, "look ahead", 0.0, 0.04))
    if work.wanted is not None:
        wanted = work.wanted * (1 - _WEIGHT_GUESS)
        work.lmbda = fit.estimated_highest_lmbda(work.highest_lmbda, wanted) / USUAL_IMPORTANCE
    fit.filter_sources(work.highest_lmbda)
    fit.weigh(work.highest_lmbda)

    shares = np.linspace(0.04, 0.75, effort.rounds + 1)
    for number in range(effort.rounds):
        low, high = shares[number], shares[number + 1]
        middle = low + 0.3 * (high - low)
        _pass(work, "fit" if not number else "refine", low, middle)
        if number + 1 < effort.rounds or effort.learns:
            _overfit(work, number, middle, high)
        _follow_target(work)
    if effort.learns or work.weights is None:
        _quantise(work)
    return _final(work, task)


def _begin(task: RecurrentTask, tell: Callable[[StageReport], None], keep: Keep) -> _Work:
    torch.manual_seed(task.seed)
    source, geometry = task.source, task.source.geometry
    sizes = Sizes(geometry.half, geometry.blocks, len(source.samples))
    module = task.build(sizes).to(source.samples.device)
    place(module, sizes)
    start = task.load(module, sizes)
    traced = trace(module, sizes, ACTIVATION_BITS)
    wanted = None
    lmbda = task.target.lmbda
    if task.target.total_bytes is not None:
        wanted = 8.0 * (task.target.total_bytes - task.overhead(traced.program.write()))
        lmbda = first_lambda(max(wanted, 1.0) / source.luma_samples, len(source.samples))
        wanted *= AIM
    assert lmbda is not None
    fit = RecurrentFit(source, appearance_context())
    weights = WeightFit(traced.program, sizes, start) if start else None
    return _Work(fit, sizes, weights, module, traced, task.effort, wanted, lmbda, tell, keep)


def _reporter(work: _Work, name: str, low: float, high: float) -> Callable[[UnitReport], None]:
    """Tells of units of a stage that is this share of the work."""
    frames = 0

    def report(made: UnitReport) -> None:
        nonlocal frames
        geometry = work.fit.source.geometry
        frames += len(made.unit.frames)
        luma = len(made.unit.frames) * geometry.width * geometry.height
        total = len(work.fit.source.samples)
        psnr = float(psnr_611(made.errors).mean())
        work.tell(StageReport(name, frames, low + (high - low) * frames / total, made.bits / luma, psnr))

    return report


def _pass(work: _Work, name: str, low: float, high: float) -> None:
    work.fit.start_pass()
    simulation = Simulation()
    work.fit.continue_pass(
        TwinSynthesis(work.module, simulation),
        work.highest_lmbda,
        work.effort.learned,
        _reporter(work, name, low, high),
    )
    work.bits = [report.bits for report in work.fit.reports if report]
    work.figures[f"{name}_psnr"] = float(torch.cat([psnr_611(r.errors) for r in work.fit.reports if r]).mean())


def _records(work: _Work) -> list[Any]:
    return [work.fit.records[n] for n in range(len(work.fit.units))]


def _overfit(work: _Work, number: int, low: float, high: float) -> None:
    """The weights, on what the pass left."""
    fit = Overfit(work.module, _records(work), Simulation(), joint=work.effort.joint)
    before = fit.refresh()
    parameters = [p for p in work.module.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(parameters, betas=(0.9, 0.99))
    epochs, units = work.effort.epochs, len(work.fit.units)
    for epoch in range(epochs):
        order = torch.randperm(units).tolist()
        for k, at in enumerate(order):
            for group in optimiser.param_groups:
                group["lr"] = rate_at((epoch + k / units) / epochs, work.effort.rate)
            fit.step(optimiser, at)
        work.tell(StageReport(f"overfit, epoch {epoch + 1} of {epochs}", 0, low + (high - low) * (epoch + 1) / epochs))
    after = fit.refresh()
    if not math.isfinite(after):
        raise EncodeError("the fit ran away: its error is no longer a number")
    work.figures[f"error_before_{number}"], work.figures[f"error_after_{number}"] = before, after


def _follow_target(work: _Work) -> None:
    """Move lambda so that the next pass meets the target."""
    if work.wanted is None:
        return
    work.attempt = {"lambda": work.lmbda, "bits": list(work.bits)}
    wanted = work.wanted * (1 - _WEIGHT_GUESS)
    work.lmbda = next_lambda(work.lmbda, sum(work.bits), wanted)
    work.fit.weigh(work.highest_lmbda)


def _quantise(work: _Work) -> None:
    """Prune and tune: changes that pay, in steps."""
    effort = work.effort
    if work.weights is None:
        work.weights, work.traced = _weights_from_nothing(work)
    weights = work.weights
    exact = Simulation(bits=ACTIVATION_BITS)
    fit = Overfit(work.module, _records(work), exact, joint=effort.joint)
    fit.refresh()
    weights.choose(weights.sensitivity(fit), prunes=effort.prunes)
    weights.adopt()
    work.figures |= weights.figures()
    work.figures["error_quantised"] = fit.refresh()
    if effort.tuning:
        units = len(work.fit.units)
        numbers = [at for _ in range(effort.tuning) for at in torch.randperm(units).tolist()]
        weights.tune(fit, numbers, lambda k: rate_at(k / len(numbers), 0.5 * effort.rate))
    work.figures["error_tuned"] = fit.refresh()
    work.figures |= weights.figures()
    work.tell(StageReport("tune", 0, 0.8))


def _weights_from_nothing(work: _Work) -> tuple[WeightFit, TracedProgram]:
    """Fixed points and steps of a network that was fitted without a start: all of it is coded."""
    Overfit(work.module, _records(work), Simulation(observe=True)).refresh()
    for layer in exact_layers(work.module):
        layer.peak *= _PEAK_MARGIN
    calibrate(work.module, ACTIVATION_BITS)
    start, traced = start_from_nothing(work.module, work.sizes, ACTIVATION_BITS)
    return WeightFit(traced.program, work.sizes, start), traced


def _final(work: _Work, task: RecurrentTask) -> CodedSegment:
    """Closed-loop passes by the exact machine, again with another lambda until the size is met."""
    effort, fit = work.effort, work.fit
    assert work.weights is not None
    index = task.program_index(work.traced.program.write())
    header = ImplicitHeader(index, fit.source.gop, work.weights.start.name)
    before, lambdas = list(work.bits), [work.lmbda] * len(work.bits)
    if work.attempt is not None:
        lambdas = [work.attempt["lambda"]] * len(work.bits)
    slope, best = SLOPE, None
    for attempt in range(effort.attempts):
        coded, spent, used = _code_once(work, header, before, lambdas, slope, attempt)
        if work.wanted is None or TOLERANCE[0] <= coded.bits * AIM / work.wanted <= TOLERANCE[1]:
            return _with_figures(coded, work)
        if best is None or _distance(coded.bits, work.wanted) < _distance(best.bits, work.wanted):
            best = coded
        if attempt:
            slope = measured_slope((sum(before), sum(spent)), (_mean_log(lambdas, spent), _mean_log(used, spent)))
        before, lambdas = spent, used
    assert best is not None
    return _with_figures(best, work)


def _with_figures(coded: CodedSegment, work: _Work) -> CodedSegment:
    return replace(coded, stages={name: float(value) for name, value in work.figures.items()})


def _code_once(
    work: _Work, header: ImplicitHeader, before: list[float], lambdas: list[float], slope: float, attempt: int
) -> tuple[CodedSegment, list[float], list[float]]:
    """One pass; also bits and lambda of each unit."""
    fit, geometry = work.fit, work.fit.source.geometry
    device = fit.source.samples.device
    assert work.weights is not None
    changes = work.weights.changes
    convolutions = {} if work.weights.start.name else work.weights.symbols()
    empty = SegmentTensors(convolutions, LatentModel(()), {}, changes, fit.quantiser)
    writer = ImplicitWriter(header, work.traced.program, empty, geometry, len(fit.source.samples), device)
    work.figures["weight_bits"] = writer.segment.weight_bits
    synthesis = ExactSynthesis(writer.segment.machine)
    budget = None
    if work.wanted is not None:
        budget = UnitBudget(work.wanted - writer.segment.weight_bits - _STREAM_END_BITS, before, lambdas, slope)
    fit.start_pass()
    spent: list[float] = []
    used: list[float] = []
    planes: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
    quality: list[Tensor] = []
    low = 0.8 + 0.2 * (1 - 0.5**attempt)
    report = _reporter(work, "final", low, low + 0.1 * 0.5**attempt)

    def needs(number: int) -> int:
        """Lambda goes by all units but the one just before, which may be under way, unless that is needed, too."""
        return max(fit.last_reference(number), number - 2)

    def begin(number: int) -> Callable[[], FittedUnit]:
        used.append(budget.lmbda(number, needs(number) + 1) if budget else work.lmbda)
        displays = {r for frame in fit.units[number].frames for r in frame.references}
        net_states = {d: fit.net_states[d] for d in displays}
        states = fit.references_of(number, fit.states)
        highest = clamp_lambda(used[number]) * USUAL_IMPORTANCE

        def run() -> FittedUnit:
            return fit.fitted_unit(number, synthesis, states, net_states, highest, work.effort.final)

        return run

    def finish(number: int, found: FittedUnit) -> None:
        unit: CodingUnit = fit.units[number]
        start = writer.bits
        symbols = UnitSymbols([], found.motion.levels, found.grid.levels, found.record.quantiser)
        made = writer.code(symbols)
        spent.append(writer.bits - start)
        if budget:
            budget.spend(spent[-1])
        exact = torch.stack([made[f.display].frame.appearance.packed for f in unit.frames])
        if not torch.equal(exact, found.samples):
            raise MismatchError("what was fitted and what is coded differ")
        fit.keep_motion(number, found.motion.levels)
        fit.records[number] = found.record
        for b, frame in enumerate(unit.frames):
            fit.states[frame.display] = FrameState(Reference(found.samples[b]), found.motion_states[b])
            fit.net_states[frame.display] = {n: s[b : b + 1] for n, s in found.states.items()}
            planes[frame.display] = output_planes(exact[b], geometry.width, geometry.height)
        fit.drop_states(number)
        fit.net_states = {d: s for d, s in fit.net_states.items() if d in fit.states}
        errors = plane_errors(exact, fit.sources(unit))
        quality.append(psnr_611(errors))
        report(UnitReport(unit, found.bits[0], found.bits[1], errors))

    run_ahead(range(len(fit.units)), needs, begin, finish)
    digest = FrameHash()
    for display in sorted(planes):
        digest.add(planes[display])
    return CodedSegment(writer.finish(), digest.digest(), float(torch.cat(quality).mean())), spent, used


def _distance(bits: float, wanted: float) -> float:
    """How bad it is to miss the target; above it three times as bad as below."""
    miss = math.log(bits / wanted)
    return max(-miss, 3 * miss)


def _mean_log(lambdas: list[float], bits: list[float]) -> float:
    """Geometric mean, weighted by bits."""
    weights = [max(b, 1.0) for b in bits]
    return math.exp(sum(w * math.log(x) for x, w in zip(lambdas, weights, strict=True)) / sum(weights))
