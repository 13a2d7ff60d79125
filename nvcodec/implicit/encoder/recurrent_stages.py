"""The stages that turn a segment into bytes where frames refer to others: seen at a glance in ``encode_recurrent``.

::

    look ahead -> fit -> overfit -> [refine -> overfit] -> settle -> prune -> tune -> final
       |           |       |            |                   |        |       |     closed loop by the exact machine,
       |           |       |            |                   |        |       |     symbols by rate and distortion, to
       |           |       |            |                   |        |       |     the size
       |           |       |            |                   |        |       on quantised changes of the weights
       |           |       |            |                   |        weights go back to where the code leads from the
       |           |       |            |                   |        start, where a change does not pay
       |           |       |            |                   a last pass with weights that are still real numbers
       |           |       |            the same again, with everything learned since
       |           |       the network on what the pass left, jointly through the states
       |           frame by frame in coding order: motion on decoded references, the grid by rate and distortion
       what later frames inherit from each block

Between two stages, and within the longer ones, the work can be kept, and goes on from there to the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nvcodec.core.errors import EncodeError, TargetError
from nvcodec.encoder.distortion import psnr_611
from nvcodec.encoder.rate_control import AIM, Target, first_lambda, next_lambda
from nvcodec.encoder.representation import CodedSegment, Keep, StageReport
from nvcodec.encoder.segment_analysis import USUAL_IMPORTANCE, SegmentSource, UnitReport
from nvcodec.entropy.weights import TensorChange
from nvcodec.exact.layer import calibrate, exact_layers
from nvcodec.exact.operation import Sizes
from nvcodec.exact.simulation import Simulation
from nvcodec.exact.tracing import TracedProgram, place, trace
from nvcodec.grid.contexts import appearance_context
from nvcodec.implicit.encoder.overfit import Overfit, rate_at
from nvcodec.implicit.encoder.recurrent_final import FinalCoding, FinalState
from nvcodec.implicit.encoder.recurrent_fit import PassEffort, RecurrentFit, TwinSynthesis
from nvcodec.implicit.encoder.start import Start, choose_steps, zero_start
from nvcodec.implicit.encoder.storable import check_storable
from nvcodec.implicit.encoder.weight_fit import WeightFit
from nvcodec.implicit.payload import ImplicitHeader
from nvcodec.implicit.unit import motion_weights

__all__ = ["EFFORTS", "RecurrentEffort", "RecurrentTask", "encode_recurrent"]

_WEIGHT_GUESS = 0.04
"""Share of the target that the network is believed to take before it is known."""
ACTIVATION_BITS = 13
_LOOK_SHARE, _SETTLE_SHARE, _TUNE_SHARE, _FINAL_SHARE = 0.04, 0.74, 0.76, 0.8
"""Of the work: what lies behind the look ahead, and before the last stages."""
_WEIGHT_SHARE = 0.3
"""Most of the target that the weights may take."""
_LEAST_PRICE, _HIGHEST_PRICE = 0.1, 1e4
"""Of the bits of the weights, while they take too much of the target."""
_NO_ERROR_YET = 1e30
_CODE_PACE = 250.0
"""Of the rate of the weights, how fast the code of a start is learned, whose units are small steps of all of them."""
_TUNING_RATE = 0.5
"""Of the rate of the overfit."""
_PEAK_MARGIN = 1.3
"""Of the largest values that a network gave while it was fitted."""


@dataclass(frozen=True)
class RecurrentEffort:
    """How much work an encode takes. ``rounds``: of a pass and an overfit; ``epochs``: of each overfit, how often every
    unit is seen. ``rate``: of learning; ``pull``: share of it by which every weight goes back towards where the code
    leads in each step. ``tuning``: epochs on quantised changes; ``prices``: of a bit of a weight, of which the best is
    chosen once the changes are tuned. ``learned``, ``final``: of the passes.
    ``attempts``: final passes at most. ``joint``: gradients through the states; ``prunes``, ``learns``: see the
    ablations."""

    rounds: int
    epochs: int
    tuning: int
    learned: PassEffort
    final: PassEffort
    prices: tuple[float, ...]
    rate: float = 2e-3
    pull: float = 0.1
    attempts: int = 6
    joint: bool = True
    prunes: bool = True
    learns: bool = True


EFFORTS = {
    "fast": RecurrentEffort(2, 4, 4, PassEffort(1, (2, 2)), PassEffort(1, (3, 2)), (0.6,)),
    "medium": RecurrentEffort(3, 4, 4, PassEffort(1, (2, 2)), PassEffort(2, (3, 3)), (0.6,)),
    "slow": RecurrentEffort(4, 4, 4, PassEffort(1, (2, 2)), PassEffort(3, (4, 3)), (0.8,)),
}


@dataclass(frozen=True)
class RecurrentTask:
    """A segment to encode. ``build``: the module, from the sizes. ``load``: gives it the weights of its start, and
    returns that, or None where nothing is shipped that fits.
    ``target``: of the payload and its program, or a fixed lambda. ``program_index``: which program of
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
    """A segment between two pieces of work: all that the rest of its encode depends on.

    A pass is quick beside what follows it, so its records are not kept: it is run again where work goes on behind it.
    """

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
    entered: int = 0
    """Stages that have begun."""
    before_pass: dict[str, Any] | None = None
    """What the last pass began with."""
    epoch: int = 0
    """Of an overfit that is under way, how many are done."""
    optimiser: dict[str, Any] | None = None
    bits: list[float] = field(default_factory=list)
    """Of each unit, in the last pass, at ``measured_at``."""
    measured_at: float = 0.0
    least_error: float = _NO_ERROR_YET
    """Of the epochs of an overfit so far, with the weights that had it."""
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    best_code: Tensor | None = None
    float_weights: dict[str, Tensor] = field(default_factory=dict)
    """As they were before they were quantised: what the file is compared with."""
    final: FinalState = field(default_factory=FinalState)
    figures: dict[str, float] = field(default_factory=dict)
    _stage: int = field(default=0, init=False)
    _is_new: bool = field(default=True, init=False)

    @property
    def highest_lmbda(self) -> float:
        return self.lmbda * USUAL_IMPORTANCE

    def enters(self) -> bool:
        """Whether the next stage is still to be done, or to be gone on with."""
        self._stage += 1
        self._is_new = self._stage > self.entered
        if self._is_new:
            self.entered, self.epoch = self._stage, 0
            self.kept_now()
        return self._stage == self.entered

    def kept_now(self) -> None:
        """Tell how the work can be had as it is."""
        self.keep(self.state)

    def state(self) -> dict[str, Any]:
        device = self.fit.source.samples.device
        return {
            "entered": self.entered,
            "lmbda": self.lmbda,
            "analysis": self.fit.kept(),
            "module": dict(self.module.state_dict()),
            "code": self.weights.code.detach().clone() if self.weights else None,
            "changes": {n: vars(c) for n, c in self.weights.changes.items()} if self.weights else None,
            "before_pass": self.before_pass,
            "epoch": self.epoch,
            "optimiser": self.optimiser,
            "bits": self.bits,
            "measured_at": self.measured_at,
            "least_error": self.least_error,
            "best_weights": self.best_weights,
            "best_code": self.best_code,
            "float_weights": self.float_weights,
            "final": self.final.state(),
            "figures": dict(self.figures),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what ``state`` returned."""
        self.before_pass = state["before_pass"]
        if self.before_pass is not None and state["entered"] <= 3 + 2 * self.effort.rounds:  # its records are wanted
            self.take_up(self.before_pass)
            run_pass(self, lambda report: None)
        self.entered, self.epoch, self.optimiser = state["entered"], state["epoch"], state["optimiser"]
        self.take_up(state)
        if state["changes"] is not None:
            if self.weights is None:
                start, self.traced = zero_start(self.module, self.sizes, ACTIVATION_BITS)
                self.weights = WeightFit(self.traced.program, self.sizes, start)
            self.weights.changes = {name: TensorChange(**change) for name, change in state["changes"].items()}
            self.weights.set_code(state["code"])
            if state["entered"] > 3 + 2 * self.effort.rounds:
                self.weights.round_code()
        self.bits, self.measured_at, self.figures = state["bits"], state["measured_at"], state["figures"]
        self.least_error, self.best_weights = state["least_error"], state["best_weights"]
        self.best_code = state["best_code"]
        self.float_weights = state["float_weights"]
        self.final = FinalState.restored(state["final"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"], self.fit.source.samples.device)

    @torch.no_grad()
    def take_up(self, state: dict[str, Any]) -> None:
        """Analysis, lambda and weights of a state."""
        self.lmbda = state["lmbda"]
        self.fit.take_up(state["analysis"])
        self.module.load_state_dict(state["module"])

    def begun_pass(self) -> dict[str, Any]:
        """What a pass begins with, which later work does not change."""
        return {
            "lmbda": self.lmbda,
            "analysis": self.fit.kept(),
            "module": deepcopy(dict(self.module.state_dict())),
        }


def encode_recurrent(
    task: RecurrentTask,
    tell: Callable[[StageReport], None] = lambda report: None,
    *,
    kept: dict[str, Any] | None = None,
    keep: Keep = lambda state: None,
) -> CodedSegment:
    """Fit, overfit, prune, tune and code one segment. Raises EncodeError, TargetError."""
    work = _begin(task, tell, keep)
    effort, fit = work.effort, work.fit
    if kept is not None:
        work.restore(kept)
        del kept

    # look ahead: what later frames inherit from each block
    if work.enters():
        fit.start_pass()
        fit.look_ahead(motion_weights(), work.highest_lmbda, _reporter(work, "look ahead", 0.0, _LOOK_SHARE))
        if work.wanted is not None:
            wanted = work.wanted * (1 - _WEIGHT_GUESS)
            work.lmbda = fit.estimated_highest_lmbda(work.highest_lmbda, wanted) / USUAL_IMPORTANCE
        fit.filter_sources(work.highest_lmbda)
        fit.weigh(work.highest_lmbda)

    shares = np.linspace(_LOOK_SHARE, _SETTLE_SHARE, effort.rounds + 1).tolist()
    for number, (low, high) in enumerate(pairwise(shares)):
        middle = low + 0.3 * (high - low)
        if work.enters():
            work.before_pass = work.begun_pass()
            run_pass(work, _reporter(work, "refine" if number else "fit", low, middle))
        if work.enters():
            if effort.learns:
                _overfit(work, number, middle, high)
            _follow_target(work)

    # settle: the last pass that is not exact
    if work.enters():
        work.before_pass = work.begun_pass()
        run_pass(work, _reporter(work, "settle", _SETTLE_SHARE, _TUNE_SHARE))
        _follow_target(work)

    # prune and tune: changes that pay, in steps
    if work.enters() and (effort.learns or work.weights is None):
        _quantise(work)

    # final: closed loop by the exact machine, again with another lambda until the size is met
    work.enters()
    assert work.weights is not None
    payload_bits = _wanted_bits(task, work.traced)  # without a start the program is another one than at first
    header = ImplicitHeader(
        task.program_index(work.traced.program.write()), fit.source.gop, work.weights.start.name, fit.source.predicts
    )
    coding = FinalCoding(
        fit, work.traced, work.weights, header, payload_bits, work.highest_lmbda, effort.final, work.final
    )
    if work.final.attempt == 0:
        work.final.before, work.final.lambdas = list(work.bits), [work.measured_at] * len(work.bits)
    coded = coding.run(effort.attempts, _reporter(work, "final", _FINAL_SHARE, 0.99), work.kept_now)
    work.figures["weight_bits"] = work.final.weight_bits
    if work.float_weights and coding.coded_last is coded:  # its records are those of the file
        work.figures["float_psnr"] = _float_psnr(work)
    return replace(coded, stages={name: float(value) for name, value in work.figures.items()})


def _begin(task: RecurrentTask, tell: Callable[[StageReport], None], keep: Keep) -> _Work:
    torch.manual_seed(task.seed)
    source, geometry = task.source, task.source.geometry
    sizes = Sizes(geometry.half, geometry.blocks, len(source.samples))
    module = task.build(sizes).to(source.samples.device)
    place(module, sizes)
    start = task.load(module, sizes)
    traced = trace(module, sizes, ACTIVATION_BITS)
    check_storable(traced.program, sizes)
    wanted = _wanted_bits(task, traced)
    lmbda = task.target.lmbda
    if wanted is not None:
        lmbda = first_lambda(max(wanted / AIM, 1.0) / source.luma_samples, len(source.samples))
    assert lmbda is not None
    fit = RecurrentFit(source, appearance_context())
    weights = WeightFit(traced.program, sizes, start) if start else None
    return _Work(fit, sizes, weights, module, traced, task.effort, wanted, lmbda, tell, keep)


def _wanted_bits(task: RecurrentTask, traced: TracedProgram) -> float | None:
    """What the payload shall take beside its program; None where a lambda is given."""
    if task.target.total_bytes is None:
        return None
    overhead = task.overhead(traced.program.write())
    if task.target.total_bytes <= overhead:
        raise TargetError(
            f"the target of {task.target.total_bytes:.0f} bytes for this segment is out of reach: its program alone "
            f"takes {overhead}"
        )
    return AIM * 8.0 * (task.target.total_bytes - overhead)


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
        fraction = low + (high - low) * min(frames / total, 1.0)  # the last stage may come again
        work.tell(StageReport(name, (frames - 1) % total + 1, fraction, made.bits / luma, psnr))

    return report


def run_pass(work: _Work, on_unit: Callable[[UnitReport], None]) -> None:
    """Frame by frame in coding order, by the float twin as it stands."""
    fit = work.fit
    fit.start_pass()
    fit.continue_pass(TwinSynthesis(work.module), work.highest_lmbda, work.effort.learned, on_unit)
    work.bits = [report.bits for report in fit.reports if report]
    work.measured_at = work.lmbda
    work.figures["fit_psnr"] = float(torch.cat([psnr_611(r.errors) for r in fit.reports if r]).mean())


def _overfit(work: _Work, number: int, low: float, high: float) -> None:
    """The weights, on what the pass of this round left: those of the epoch behind which its frames, made anew in coding
    order, were nearest to the source. A fit can run away, and then the first ones stay."""
    fit = Overfit(work.module, work.fit.all_records(), Simulation(), joint=work.effort.joint)
    weights = work.weights
    groups = [{"params": [p for p in work.module.parameters() if p.requires_grad], "pace": 1.0}]
    if weights is not None:
        groups.append({"params": [weights.code], "pace": _CODE_PACE})
    optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99))
    if work.optimiser is not None:
        optimiser.load_state_dict(work.optimiser)
    epochs, units = work.effort.epochs, len(work.fit.units)
    while work.epoch < epochs:
        error = fit.refresh()  # so that it is no matter whether work was interrupted before
        if weights is not None:
            weights.set_code(weights.code.detach().clone())  # the same
        if not work.epoch:
            work.figures["error_before"], work.least_error = error, _NO_ERROR_YET
        _keep_best(work, error)
        for k, at in enumerate(torch.randperm(units).tolist()):
            done = (number + (work.epoch + k / units) / epochs) / work.effort.rounds
            rate = rate_at(done, work.effort.rate)
            for group in optimiser.param_groups:
                group["lr"] = rate * group["pace"]
            if weights is None:
                fit.step(optimiser, at)
            else:
                fit.step(optimiser, at, weights.code_gradient)
                weights.follow_code()
                weights.pull(work.effort.pull * rate)
        work.epoch += 1
        work.optimiser = optimiser.state_dict()
        work.kept_now()
        name = f"overfit, epoch {work.epoch} of {epochs}"
        work.tell(StageReport(name, 0, low + (high - low) * work.epoch / epochs))
    _keep_best(work, fit.refresh())
    with torch.no_grad():
        for name, value in work.module.named_parameters():
            value.copy_(work.best_weights[name])
    if weights is not None and work.best_code is not None:
        weights.set_code(work.best_code)
    work.figures["error_overfitted"] = work.least_error
    if work.least_error >= _NO_ERROR_YET:
        raise EncodeError("the fit ran away: its error is no longer a number")


def _keep_best(work: _Work, error: float) -> None:
    if error < work.least_error:
        work.least_error = error
        work.best_weights = {name: value.detach().clone() for name, value in work.module.named_parameters()}
        work.best_code = work.weights.code.detach().clone() if work.weights is not None else None


def _follow_target(work: _Work) -> None:
    """Move lambda so that the next pass meets the target."""
    if work.wanted is None or not work.bits:
        return
    work.lmbda = next_lambda(work.measured_at, sum(work.bits), work.wanted * (1 - _WEIGHT_GUESS))
    work.fit.weigh(work.highest_lmbda)


def _quantise(work: _Work) -> None:
    effort = work.effort
    if work.weights is None:
        work.weights, work.traced = _weights_from_nothing(work)
    weights = work.weights
    fit = Overfit(work.module, work.fit.all_records(), Simulation(bits=ACTIVATION_BITS), joint=effort.joint)
    fit.refresh()
    work.float_weights = {name: value.detach().clone() for name, value in weights.values.items()}
    most = math.inf if work.wanted is None else _WEIGHT_SHARE * work.wanted
    weights.choose_code(fit, most)
    fit.refresh()
    sensitivity = weights.sensitivity(fit)
    code = weights.code.detach().clone()
    pace = _CODE_PACE if code.any() else 0.0
    weights.go_to(code, {})
    best: tuple[float, np.ndarray, dict[str, TensorChange]] = (weights.cost(fit), weights.coded, {})
    for price in effort.prices if effort.prunes else (0.0,):
        with torch.no_grad():
            for name, value in weights.values.items():
                value.copy_(work.float_weights[name])
        weights.round_code()
        weights.choose(sensitivity, price)
        while weights.change_bits() > most and price < _HIGHEST_PRICE:
            price = max(2 * price, _LEAST_PRICE)
            weights.choose(sensitivity, price)
        weights.adopt()
        weights.tune(fit, effort.tuning, lambda done: rate_at(done, _TUNING_RATE * effort.rate), pace, most)
        best = min(best, (weights.cost(fit), weights.coded, weights.changes), key=lambda found: found[0])
        weights.set_code(code)
    weights.go_to(torch.from_numpy(best[1]), best[2])
    work.figures["error_tuned"] = fit.refresh()
    work.figures |= weights.figures()
    work.tell(StageReport("tune", 0, _FINAL_SHARE))


@torch.no_grad()
def _float_psnr(work: _Work) -> float:
    """Of the float model: the same latents and motion, weights as they were before they were quantised, in a closed
    loop of its own."""
    assert work.weights is not None
    for name, value in work.weights.values.items():
        value.copy_(work.float_weights[name])
    return work.fit.replayed(TwinSynthesis(work.module))


def _weights_from_nothing(work: _Work) -> tuple[WeightFit, TracedProgram]:
    """Fixed points and steps of a network that was fitted without a start: all of it is coded."""
    Overfit(work.module, work.fit.all_records(), Simulation(observe=True)).refresh()
    for layer in exact_layers(work.module):
        layer.peak *= _PEAK_MARGIN
    calibrate(work.module, ACTIVATION_BITS)
    choose_steps(work.module)
    start, traced = zero_start(work.module, work.sizes, ACTIVATION_BITS)
    return WeightFit(traced.program, work.sizes, start), traced
