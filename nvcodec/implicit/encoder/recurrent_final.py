"""The last stage of a segment whose frames refer to others: closed-loop passes by the exact machine, symbols by rate
and distortion, again with another lambda until the size is met."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nvcodec.core.errors import MismatchError, TargetError
from nvcodec.core.parallel import run_ahead
from nvcodec.decoder import FrameHash, output_planes
from nvcodec.encoder.distortion import plane_errors, psnr_611
from nvcodec.encoder.rate_control import AIM, LAMBDA_RANGE, SLOPE, TOLERANCE, UnitBudget, clamp_lambda, measured_slope
from nvcodec.encoder.representation import CodedSegment
from nvcodec.encoder.segment_analysis import USUAL_IMPORTANCE, UnitReport
from nvcodec.exact.tracing import TracedProgram
from nvcodec.implicit.encoder.exact_synthesis import ExactSynthesis
from nvcodec.implicit.encoder.recurrent_fit import FittedUnit, PassEffort, RecurrentFit
from nvcodec.implicit.encoder.weight_fit import WeightFit
from nvcodec.implicit.latents import LatentModel
from nvcodec.implicit.payload import ImplicitHeader, ImplicitWriter, SegmentTensors
from nvcodec.implicit.unit import UnitSymbols

__all__ = ["FinalCoding", "FinalState"]

_LEAST, _MOST = 0.95, 1.02
"""Of the target."""
_TOO_LARGE = 1e3
_STREAM_END_BITS = 96
"""Segment header and the rounding of the stream to whole words."""


@dataclass
class FinalState:
    """How far it is. ``before``, ``lambdas``: of each unit in the attempt before (at first: in the pass before), bits
    and lambda. ``best``: of the attempts so far, the nearest to what is wanted."""

    before: list[float] = field(default_factory=list)
    lambdas: list[float] = field(default_factory=list)
    slope: float = SLOPE
    attempt: int = 0
    best: CodedSegment | None = None
    weight_bits: float = 0.0

    def state(self) -> dict[str, Any]:
        """As a tree."""
        return asdict(self)

    @staticmethod
    def restored(state: dict[str, Any]) -> FinalState:
        """From what ``state`` returned."""
        best = CodedSegment(**state["best"]) if state["best"] else None
        return FinalState(**state | {"best": best})


@dataclass
class FinalCoding:
    """``wanted``: bits of the segment; None to code it once with the lambda of ``highest_lmbda``."""

    fit: RecurrentFit
    traced: TracedProgram
    weights: WeightFit
    header: ImplicitHeader
    wanted: float | None
    highest_lmbda: float
    effort: PassEffort
    state: FinalState
    coded_last: CodedSegment | None = None

    def run(self, attempts: int, on_unit: Callable[[UnitReport], None], keep: Callable[[], None]) -> CodedSegment:
        """Go on from where it is. ``keep`` is called between attempts."""
        state = self.state
        while state.attempt < attempts:
            coded, spent, used = self._code_once(on_unit)
            self.coded_last = coded
            if self.wanted is None or TOLERANCE[0] <= coded.bits * AIM / self.wanted <= TOLERANCE[1]:
                return coded
            if state.best is None or _distance(coded.bits, self.wanted) < _distance(state.best.bits, self.wanted):
                state.best = coded
            if spent_alike(state.lambdas, used):
                break  # lambda is at its end: another attempt would be the same
            if state.attempt:
                bits = sum(state.before), sum(spent)
                state.slope = measured_slope(bits, (_mean_log(state.lambdas, spent), _mean_log(used, spent)))
            state.before, state.lambdas = spent, used
            state.attempt += 1
            keep()
        assert state.best is not None
        assert self.wanted is not None
        if state.best.bits * AIM < _LEAST * self.wanted:
            raise TargetError(
                f"the target of {self.wanted / AIM / 8:.0f} bytes for this segment is out of reach: it came to "
                f"{len(state.best.payload)} at most"
            )
        return state.best

    def _code_once(self, on_unit: Callable[[UnitReport], None]) -> tuple[CodedSegment, list[float], list[float]]:
        """One pass; also bits and lambda of each unit."""
        fit, geometry, source = self.fit, self.fit.source.geometry, self.fit.source.samples
        weights = self.weights
        convolutions = {} if weights.start.name else weights.symbols()
        tensors = SegmentTensors(convolutions, LatentModel(()), {}, weights.changes, fit.quantiser, weights.coded)
        writer = ImplicitWriter(self.header, self.traced.program, tensors, geometry, len(source), source.device)
        self.state.weight_bits = writer.segment.weight_bits
        synthesis = ExactSynthesis(writer.segment.machine)
        budget = None
        if self.wanted is not None:
            frame_bits = self.wanted - self.state.weight_bits - _STREAM_END_BITS
            state = self.state
            budget = UnitBudget(frame_bits, state.before, state.lambdas, state.slope, even=False)
        fit.start_pass()
        spent: list[float] = []
        used: list[float] = []
        planes: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        quality: list[Tensor] = []

        def needs(number: int) -> int:
            """Lambda goes by all units but the one just before, which may be under way, unless that is needed, too."""
            return max(fit.last_reference(number), number - 2)

        def begin(number: int) -> Callable[[], FittedUnit]:
            lmbda = budget.lmbda(number, needs(number) + 1) if budget else self.highest_lmbda / USUAL_IMPORTANCE
            used.append(lmbda)
            highest = clamp_lambda(lmbda) * USUAL_IMPORTANCE
            return partial(fit.fitted_unit, number, synthesis, *fit.known_states(number), highest, self.effort)

        def finish(number: int, found: FittedUnit) -> None:
            unit, start = fit.units[number], writer.bits
            made = writer.code(UnitSymbols([], found.motion.levels, found.grid.levels, found.record.quantiser))
            spent.append(writer.bits - start)
            if budget:
                budget.spend(spent[-1])
            exact = torch.stack([made[f.display].frame.appearance.packed for f in unit.frames])
            if not torch.equal(exact, found.samples):
                raise MismatchError(f"unit {number}: what was fitted and what is coded differ")
            fit.adopt(number, found)
            for frame, samples in zip(unit.frames, exact, strict=True):
                planes[frame.display] = output_planes(samples, geometry.width, geometry.height, geometry.bit_depth)
            errors = plane_errors(exact, fit.sources(unit), geometry.bit_depth)
            quality.append(psnr_611(errors))
            on_unit(UnitReport(unit, *found.bits, errors))

        run_ahead(range(len(fit.units)), needs, begin, finish)
        digest = FrameHash()
        for display in sorted(planes):
            digest.add(planes[display])
        return CodedSegment(writer.finish(), digest.digest(), float(torch.cat(quality).mean())), spent, used


def spent_alike(before: list[float], now: list[float]) -> bool:
    """Whether all lambdas are at an end of their range, as they were."""
    return before == now and all(lmbda in LAMBDA_RANGE for lmbda in now)


def _distance(bits: float, wanted: float) -> float:
    """How bad it is to miss the target: above what a file may take nothing will do, near it three times as bad as
    below."""
    miss = math.log(bits / wanted)
    return max(-miss, 3 * miss) + (_TOO_LARGE if bits * AIM > _MOST * wanted else 0.0)


def _mean_log(lambdas: list[float], bits: list[float]) -> float:
    """Geometric mean, weighted by bits."""
    weights = [max(b, 1.0) for b in bits]
    return math.exp(sum(w * math.log(x) for x, w in zip(lambdas, weights, strict=True)) / sum(weights))
