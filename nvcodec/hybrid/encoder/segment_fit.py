"""A segment while it is being encoded: passes over its coding units, each closed-loop.

One pass visits every unit in coding order: predict motion, search the corrections, fit the blocks (and the network,
while it is still free), rebuild the frames, go on. The references are always the frames as they came out of the same
pass, so that errors do not pile up unseen. What a unit's search goes by is known before the unit in front of it is
finished, so that two or more run side by side. Between two units a pass can be kept and taken up again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from nvcodec.core.gop import CodingUnit
from nvcodec.core.parallel import run_ahead
from nvcodec.encoder.distortion import plane_errors
from nvcodec.encoder.rate import level_costs
from nvcodec.encoder.segment_analysis import USUAL_IMPORTANCE, SegmentAnalysis, SegmentSource, UnitReport
from nvcodec.entropy.context import ContextWeights
from nvcodec.hybrid.blocks.picture import BinModels, model_of
from nvcodec.hybrid.encoder.fit import FitSettings, UnitFit, context_sensitivity
from nvcodec.hybrid.encoder.twin import Twin
from nvcodec.hybrid.unit import UnitSymbols
from nvcodec.motion.compensation import FrameState
from nvcodec.motion.unit import UnitMotion
from nvcodec.motion.warp import Reference

__all__ = [
    "PassEffort",
    "PassSettings",
    "SegmentFit",
    "UnitSearch",
]

MOTION_CONTEXT_STEPS = 12
"""Steps on the motion context model for each unit of a training pass."""
_DRIFTING_LMBDA = 128.0
"""From this lambda on, frames with references go through the cell as it was shipped. What a cell adds in the mean it
adds to every P frame anew, and where little residual is coded nothing takes that away: a cell that learns from such
frames learns to make up for what has added up so far, and is off in the other direction in the end."""


@dataclass(frozen=True)
class PassEffort:
    """How much work a pass takes.

    ``key_iterations``, ``iterations``: of the cell on a key frame and on another unit. ``searches``: how often motion
    is looked for, each time with prices by what the last search found. ``stride``: of so many GOPs one has its B frames
    visited; those of the others are passed over. ``modes``, ``splits_empty``: see ``FitSettings``.
    """

    key_iterations: int
    iterations: int
    searches: int
    stride: int = 1
    modes: tuple[int, int, int, int] = (2, 2, 2, 2)
    splits_empty: bool = False


@dataclass(frozen=True)
class PassSettings:
    """``lmbda``: price of a bit in a key frame of the usual importance. ``train``: whether the network learns, and not
    only the symbols. ``collect``: gather the sensitivity of the parameters on the way."""

    lmbda: float
    effort: PassEffort
    train: bool = True
    collect: bool = False

    @staticmethod
    def restored(state: dict[str, Any]) -> PassSettings:
        """From what ``asdict`` made of it."""
        return PassSettings(**state | {"effort": PassEffort(**state["effort"])})

    @property
    def highest_lmbda(self) -> float:
        """The price of a bit in a block that nothing refers to."""
        return self.lmbda * USUAL_IMPORTANCE


@dataclass(frozen=True)
class UnitSearch:
    """What the searches found of a unit: motion and blocks, those with their bits. ``models``: the probabilities
    behind them. ``settings``: of the fit."""

    motion: UnitMotion
    fit: UnitFit
    block_bits: float
    models: BinModels
    settings: FitSettings


class SegmentFit(SegmentAnalysis):
    """The symbols of all units, whose motion is carried from pass to pass, and how far the present pass is.

    ``sensitivity``: of the parameters, as ``PassSettings.collect`` wants it. ``cell_gains``: what the cell
    was worth in the present pass, in bits, in key frames and in frames of depth 1, 2, and 3 or more. ``models``: the
    probabilities behind the units that the pass has coded. ``prices``: the context model as the pass found it, which
    says what motion costs.
    """

    def __init__(self, source: SegmentSource) -> None:
        super().__init__(source)
        self.symbols = [UnitSymbols.empty(u, source.geometry) for u in self.units]
        self.sensitivity: dict[str, Tensor] = {}
        self.cell_gains = [0.0] * 4
        self.models = BinModels()
        self.prices: ContextWeights | None = None

    def known_motion(self, number: int) -> list[Tensor]:
        return self.symbols[number].motion

    def keep_motion(self, number: int, levels: list[Tensor]) -> None:
        self.symbols[number] = UnitSymbols(levels, self.symbols[number].blocks)

    def needed_units(self, number: int, stride: int = 1) -> int:
        """The last unit that must be finished before the search of unit ``number``: for its references, and for the
        probabilities of its blocks. ``stride``: of the pass."""
        model = model_of(self.units[number].depth)
        alike = (n for n in reversed(range(number)) if model_of(self.units[n].depth) == model)
        return max(self.last_reference(number), next((n for n in alike if self._is_visited(n, stride)), -1))

    def _is_visited(self, number: int, stride: int) -> bool:
        """Whether a pass visits a unit: it may pass over B frames, see ``PassEffort``."""
        unit = self.units[number]
        return unit.depth <= 1 or unit.frames[0].display // self.source.gop % stride == 0

    def run_pass(
        self, twin: Twin, settings: PassSettings, on_unit: Callable[[UnitReport], None] = lambda report: None
    ) -> list[UnitReport | None]:
        """One pass with the float twin; its references are its own reconstructions, rounded."""
        self.start_pass()
        self.continue_pass(twin, settings, on_unit)
        return self.reports

    def start_pass(self) -> None:
        """Forget the pass before, except for its symbols."""
        self.states, self.reports, self.sensitivity, self.models, self.prices = {}, [], {}, BinModels(), None
        self.cell_gains = [0.0] * 4

    def continue_pass(self, twin: Twin, settings: PassSettings, on_unit: Callable[[UnitReport], None]) -> None:
        """The units of the present pass that are still to come."""
        self.prices = prices = self.prices or twin.context_weights()

        def begin(number: int) -> Callable[[], UnitSearch]:
            gain = twin.network().gain(self.units[number].depth)
            states = self.references_of(number, self.states)
            return partial(self.search_unit, number, prices, gain, states, self.models.copy(), settings)

        def finish(number: int, found: UnitSearch) -> None:
            self.reports += [None] * (number - len(self.reports))
            unit = self.units[number]
            self.models.at(unit.depth)[:] = found.models.at(unit.depth)
            motion_bits = self.adopt_unit(number, found, twin, settings)
            samples = found.fit.samples(twin)
            self.cell_gains[min(unit.depth, 3)] += found.fit.cell_gain(samples, found.settings.lmbda)
            for b, frame in enumerate(unit.frames):
                self.states[frame.display] = FrameState(Reference(samples[b]), found.motion.states[b])
            self.drop_states(number)
            errors = plane_errors(samples, self.sources(unit), self.source.geometry.bit_depth)
            report = UnitReport(unit, motion_bits, found.block_bits, errors)
            self.reports.append(report)
            on_unit(report)

        stride = settings.effort.stride
        visited = [n for n in range(len(self.reports), len(self.units)) if self._is_visited(n, stride)]
        run_ahead(visited, partial(self.needed_units, stride=stride), begin, finish)
        self.reports += [None] * (len(self.units) - len(self.reports))
        if settings.collect:
            share = sum(self.believed_bits(settings.highest_lmbda)) / sum(
                report.bits for report in self.reports if report
            )
            self.sensitivity = {name: share * value for name, value in self.sensitivity.items()}

    def state(self) -> dict[str, Any]:
        """Where the pass is: a segment of the same source, given this, goes on in the same way."""
        return self.kept_analysis() | {
            "symbols": [symbols.state() for symbols in self.symbols],
            "sensitivity": self.sensitivity,
            "cell_gains": list(self.cell_gains),
            "models": self.models.arrays,
            "prices": self.prices and vars(self.prices),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what ``state`` returned, with all tensors on the CPU."""
        self.restore_analysis(state)
        self.symbols = [UnitSymbols.restored(symbols) for symbols in state["symbols"]]
        self.sensitivity = state["sensitivity"]
        self.cell_gains = list(state["cell_gains"])
        self.models = BinModels(state["models"])
        self.prices = state["prices"] and ContextWeights(**state["prices"])

    def search_unit(
        self,
        number: int,
        prices: ContextWeights,
        gain: int,
        states: dict[int, FrameState],
        models: BinModels,
        settings: PassSettings,
    ) -> UnitSearch:
        """Motion and blocks of one unit on the given references, which changes nothing here; ``models`` follow it.

        The motion goes on from that of the pass before, the blocks start anew.
        """
        unit = self.units[number]
        motion = self.search_motion(number, prices, states, settings.highest_lmbda, settings.effort.searches)
        mean, relative = self.unit_importance(unit)
        fit = UnitFit(unit, self.source.geometry, self.targets(unit), motion.inputs, relative)
        effort = settings.effort
        iterations = 0
        if settings.train and unit.reference_count == 0:
            iterations = effort.key_iterations
        elif settings.train and settings.lmbda < _DRIFTING_LMBDA:
            iterations = effort.iterations
        wanted = FitSettings(settings.highest_lmbda / mean, iterations, effort.modes, effort.splits_empty)
        return UnitSearch(motion, fit, sum(fit.search(gain, models, wanted)), models, wanted)

    def adopt_unit(self, number: int, found: UnitSearch, twin: Twin, settings: PassSettings) -> float:
        """Keep the symbols that were found, and let the network learn from it. What its motion costs."""
        unit, fit = self.units[number], found.fit
        motion_bits = self._adopt_motion(found.motion, unit, twin, settings)
        fit.learn(twin, found.settings)
        if settings.collect:
            self._collect(fit.sensitivity(twin, found.settings.lmbda))
        self.symbols[number] = UnitSymbols(found.motion.levels, fit.blocks)
        return motion_bits

    def _collect(self, found: dict[str, Tensor]) -> None:
        for name, value in found.items():
            self.sensitivity[name] = self.sensitivity.get(name, 0) + value.cpu()

    def _adopt_motion(self, motion: UnitMotion, unit: CodingUnit, twin: Twin, settings: PassSettings) -> float:
        """Let the context model learn; what the motion costs by it."""
        if motion.side is None:
            return 0.0
        for _ in range(MOTION_CONTEXT_STEPS if settings.train else 1):
            rates, slopes = level_costs(
                motion.levels, motion.side, twin.network().context(), unit.depth,
                free_empty=not settings.train, slopes=settings.train,
            )  # fmt: skip
            if slopes:
                twin.step_context(slopes)
        if settings.collect:
            self._collect(context_sensitivity(twin, motion.levels, motion.side, unit.depth))
        return sum(float(r.bits.sum()) for r in rates)
