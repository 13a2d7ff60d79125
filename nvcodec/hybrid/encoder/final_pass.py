"""The last stage of a segment: coded with the integer network, again with another lambda until the size is met."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from nvcodec.core.errors import MismatchError
from nvcodec.core.parallel import run_ahead
from nvcodec.decoder import FrameHash, output_planes
from nvcodec.encoder.distortion import plane_errors, psnr_611
from nvcodec.encoder.rate_control import (
    AIM,
    SLOPE,
    TOLERANCE,
    FixedLambda,
    UnitBudget,
    at_equal_size,
    between,
    measured_slope,
)
from nvcodec.encoder.representation import CodedSegment
from nvcodec.encoder.segment_analysis import UnitReport
from nvcodec.entropy.weights import TensorChange
from nvcodec.hybrid.encoder.segment_fit import PassSettings, SegmentFit, UnitSearch
from nvcodec.hybrid.encoder.twin import Twin
from nvcodec.hybrid.payload import HybridHeader, HybridWriter
from nvcodec.motion.unit import UnitMotion

__all__ = ["GAIN_PER_OCTAVE", "SILENCING_BITS", "FinalEffort", "FinalPass"]

SILENCING_BITS = 64.0
"""About what it takes to silence a cell: it is done where the cell does more harm."""

GAIN_PER_OCTAVE = 4.0
"""Gain steps for a doubling of lambda: the best quantiser step grows with its square root."""
_NEAR = 1.5
_UNEVEN, _EVEN_ATTEMPTS = 1.75, 3
"""By as much lambda may move within one of the first attempts; where it moved further, another one knows better from
the start."""
_STREAM_END_BITS = 96
"""Segment header and the rounding of the stream to whole words."""


class FinalEffort(Protocol):
    """At most ``attempts``, of which ``met`` meet the target; the best of these is taken."""

    @property
    def attempts(self) -> int: ...

    @property
    def met(self) -> int: ...


@dataclass
class FinalPass:
    """How far the last stage is.

    Attributes:
        header, changes: network of the segment; the gains of the header follow lambda from attempt to attempt.
        settings: of the fit of each unit, but for lambda.
        wanted: bits of the segment; None to code it once with the lambda of ``settings``.
        before, lambdas: of each unit in the attempt before (at first: in the pass before), bits and lambda.
        gain_lmbda: where the gains are.
        frame_bits: of ``wanted``, what the present attempt has for the units.
        units_done: of the present attempt. Their symbols are those of the ``SegmentFit``.
        cell_gains: as in ``SegmentFit``, of the units that are done.
        best: of the attempts before. met: how many of them met the target.
        tried: of the attempts before, lambda in the mean and bits.
    """

    header: HybridHeader
    changes: dict[str, TensorChange]
    settings: PassSettings
    wanted: float | None
    before: list[float]
    lambdas: list[float]
    gain_lmbda: float
    slope: float = SLOPE
    frame_bits: float = 0.0
    attempt: int = 0
    units_done: int = 0
    best: CodedSegment | None = None
    met: int = 0
    tried: list[tuple[float, float]] = field(default_factory=list)
    cell_gains: list[float] = field(default_factory=lambda: [0.0] * 4)

    def run(
        self,
        fit: SegmentFit,
        effort: FinalEffort,
        on_unit: Callable[[UnitReport], None],
        without_cell: Callable[[int], dict[str, TensorChange]],
    ) -> CodedSegment:
        """Go on from where it is. ``without_cell``: lets the cell correct nothing at a depth, and returns the changes
        of the network that are left. That is done where the cell made frames worse, and another attempt follows: what a
        cell is worth shows only at the quality that the file comes to, by the weights that are coded."""
        while self.attempt < effort.attempts:
            if not self.units_done:
                self._begin_attempt(fit)
                self.cell_gains = [0.0] * 4
            coded, spent, used = self._code_once(fit, on_unit)
            is_last = self.attempt + 1 == effort.attempts
            harmful = [d for d, gain in enumerate(self.cell_gains) if gain < -SILENCING_BITS]
            if is_last or not self._is_near(coded):
                harmful = []
            for depth in harmful:
                self.changes = without_cell(depth)
            if self.best is None or self._rank(coded) > self._rank(self.best):
                self.best = coded
            if not harmful and self._is_met(coded):
                self.met += not (self.attempt < _EVEN_ATTEMPTS and max(used) > _UNEVEN * min(used))
                if self.wanted is None or self.met >= effort.met:
                    break
            self.tried.append((_mean_log(used, spent), float(coded.bits)))
            if self.attempt:
                bits, lambdas = (sum(self.before), sum(spent)), (_mean_log(self.lambdas, spent), _mean_log(used, spent))
                self.slope = measured_slope(bits, lambdas)
            self.before, self.lambdas = spent, used
            self.attempt, self.units_done = self.attempt + 1, 0
        assert self.best is not None
        return self.best

    def _is_near(self, coded: CodedSegment) -> bool:
        """Whether the quality is about that which the target asks for."""
        return self.wanted is None or 1 / _NEAR < coded.bits / self.wanted < _NEAR

    def _is_met(self, coded: CodedSegment) -> bool:
        return self.wanted is None or TOLERANCE[0] <= coded.bits * AIM / self.wanted <= TOLERANCE[1]

    def _rank(self, coded: CodedSegment) -> tuple[bool, float]:
        """The larger the better: first of all the target is met, then it is the picture that counts. Where the target
        is missed, above it is three times as bad as below."""
        if self._is_met(coded):
            return True, at_equal_size(coded.bits, coded.psnr)
        miss = math.log(coded.bits / self.wanted) if self.wanted else 0.0
        return False, -max(-miss, 3 * miss)

    def state(self) -> dict[str, Any]:
        """All of it, as a tree."""
        return asdict(self)

    @staticmethod
    def restored(state: dict[str, Any]) -> FinalPass:
        """From what ``state`` returned."""
        made = {
            "header": HybridHeader(**state["header"]),
            "changes": {name: TensorChange(**change) for name, change in state["changes"].items()},
            "settings": PassSettings.restored(state["settings"]),
            "best": CodedSegment(**state["best"]) if state["best"] else None,
            "tried": [tuple(pair) for pair in state["tried"]],
        }
        return FinalPass(**state | made)

    def _begin_attempt(self, fit: SegmentFit) -> None:
        """Share out the bits; the quantiser step follows lambda."""
        if self.wanted is None:
            return
        writer = self._writer(fit)
        self.frame_bits = self.wanted - writer.weight_bits - _STREAM_END_BITS
        budget = self._budget()
        steps = round(GAIN_PER_OCTAVE * math.log2(budget.start / self.gain_lmbda))
        if steps:
            self.header = replace(self.header, gain_offset=self.header.gain_offset + steps)
            self.gain_lmbda = budget.start

    def _budget(self) -> UnitBudget | FixedLambda:
        """One lambda for all units, until two attempts have not met the target; from the third failure on no unit has
        to make up for others, if there are attempts on both sides of the target."""
        assert self.wanted is not None
        if self.attempt > 2 and not self.met and (lmbda := between(self.tried, self.wanted)):
            return FixedLambda(lmbda)
        return UnitBudget(self.frame_bits, self.before, self.lambdas, self.slope, even=self.attempt < 2 or self.met > 0)

    def _code_once(
        self, fit: SegmentFit, on_unit: Callable[[UnitReport], None]
    ) -> tuple[CodedSegment, list[float], list[float]]:
        """One closed-loop pass of the integer network; also the bits and the lambda of each unit.

        The units that are done are coded again as they are, which brings coder and references to where they were.
        """
        writer = self._writer(fit)
        twin = Twin.frozen(writer.network)
        prices = twin.context_weights()
        budget = self._budget() if self.wanted is not None else None
        geometry = fit.source.geometry
        spent: list[float] = []
        used: list[float] = []
        planes: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        quality: list[Tensor] = []

        def code(number: int, motion: UnitMotion | None = None) -> Tensor:
            """The samples of a unit, (B, 6, h, w), coded as its symbols are; ``motion``: of the search behind them."""
            unit, start = fit.units[number], writer.bits
            decoded = writer.code(fit.symbols[number], motion)
            spent.append(writer.bits - start)
            if budget:
                budget.spend(spent[-1])
            exact = torch.stack([decoded[f.display].appearance.packed for f in unit.frames])
            for frame, samples in zip(unit.frames, exact, strict=True):
                planes[frame.display] = output_planes(samples, geometry.width, geometry.height, geometry.bit_depth)
            quality.append(psnr_611(plane_errors(exact, fit.sources(unit), geometry.bit_depth)))
            return exact

        def needs(number: int) -> int:
            """Lambda goes by all units but the one just before, which may be under way, unless that is needed, too."""
            return max(fit.needed_units(number), number - 2)

        def choose_lmbda(number: int) -> None:
            used.append(budget.lmbda(number, needs(number) + 1) if budget else self.settings.lmbda)

        def begin(number: int) -> Callable[[], UnitSearch]:
            choose_lmbda(number)
            settings = replace(self.settings, lmbda=used[number])
            gain = writer.network.gain(fit.units[number].depth)
            states = fit.references_of(number, writer.states)
            return partial(fit.search_unit, number, prices, gain, states, writer.models.copy(), settings)

        def finish(number: int, found: UnitSearch) -> None:
            motion_bits = fit.adopt_unit(number, found, twin, self.settings)
            exact = code(number, found.motion)
            _check_twin(found.fit.samples(twin), exact)
            self.cell_gains[min(fit.units[number].depth, 3)] += found.fit.cell_gain(exact, found.settings.lmbda)
            self.units_done = number + 1
            errors = plane_errors(exact, fit.sources(fit.units[number]), geometry.bit_depth)
            on_unit(UnitReport(fit.units[number], motion_bits, found.block_bits, errors))

        for number in range(self.units_done):
            choose_lmbda(number)
            code(number)
        run_ahead(range(self.units_done, len(fit.units)), needs, begin, finish)
        digest = FrameHash()
        for display in sorted(planes):
            digest.add(planes[display])
        return CodedSegment(writer.finish(), digest.digest(), float(torch.cat(quality).mean())), spent, used

    def _writer(self, fit: SegmentFit) -> HybridWriter:
        samples = fit.source.samples
        return HybridWriter(self.header, self.changes, fit.source.geometry, len(samples), samples.device)


def _mean_log(lambdas: list[float], bits: list[float]) -> float:
    """Geometric mean, weighted by bits."""
    weights = [max(b, 1.0) for b in bits]
    return math.exp(sum(w * math.log(x) for x, w in zip(lambdas, weights, strict=True)) / sum(weights))


def _check_twin(twin_samples: Tensor, exact: Tensor) -> None:
    """The float twin must agree with the integer decoder on every sample."""
    if not torch.equal(twin_samples, exact):
        worst = float((twin_samples - exact).abs().max())
        raise MismatchError(f"the float twin and the integer decoder differ by up to {worst:g}")
