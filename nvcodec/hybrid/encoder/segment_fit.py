"""A segment while it is being encoded: passes over its coding units, each closed-loop.

One pass visits every unit in coding order: predict motion, search the corrections, fit the blocks (and the network,
while it is still free), rebuild the frames, go on. The references are always the frames as they came out of the same
pass, so that errors do not pile up unseen. What a unit's search goes by is known before the unit in front of it is
finished, so that two or more run side by side. Between two units a pass can be kept and taken up again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nvcodec.core.gop import CodingUnit, coding_units, last_uses
from nvcodec.core.parallel import run_ahead
from nvcodec.encoder.distortion import block_errors, block_variance, plane_errors
from nvcodec.encoder.lookahead import FrameForecast, estimated_bits, estimated_psnr, importance
from nvcodec.encoder.rate import level_costs
from nvcodec.encoder.rate_control import next_lambda
from nvcodec.encoder.temporal_filter import filtered_frames
from nvcodec.encoder.unit_motion_search import search_unit_motion
from nvcodec.entropy.context import ContextWeights
from nvcodec.hybrid.blocks.picture import BinModels, model_of
from nvcodec.hybrid.encoder.fit import FitSettings, UnitFit, context_sensitivity
from nvcodec.hybrid.encoder.twin import Twin
from nvcodec.hybrid.unit import UnitSymbols
from nvcodec.motion.compensation import FrameState
from nvcodec.motion.levels import BLEND_CHANNEL, FrameGeometry
from nvcodec.motion.prediction import MotionState
from nvcodec.motion.unit import UnitMotion
from nvcodec.motion.warp import Reference

__all__ = [
    "PassEffort",
    "PassSettings",
    "SegmentFit",
    "SegmentSource",
    "UnitReport",
    "UnitSearch",
]

MOTION_CONTEXT_STEPS = 12
"""Steps on the motion context model for each unit of a training pass."""
_USUAL_IMPORTANCE = 12.0
"""Of a key frame; ``PassSettings.lmbda`` is the price of a bit there."""
_DEPTH_FACTOR = 2.3
"""By which importance falls from one depth of the hierarchy to the next."""
_DRIFTING_LMBDA = 128.0
"""From this lambda on, frames with references go through the cell as it was shipped. What a cell adds in the mean it
adds to every P frame anew, and where little residual is coded nothing takes that away: a cell that learns from such
frames learns to make up for what has added up so far, and is off in the other direction in the end."""
_ESTIMATES = 8
"""Steps of ``estimated_lmbda``; importance and bits move with lambda."""
_DETAIL = 0.1
"""Of a block's variance, what counts as the error of its prediction in a key frame."""


def _usual_importance(depth: int) -> float:
    """What the importance of a frame at ``depth`` of the hierarchy is taken for while nothing is known of the video."""
    return _USUAL_IMPORTANCE / _DEPTH_FACTOR**depth


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
        return self.lmbda * _USUAL_IMPORTANCE


@dataclass(frozen=True)
class SegmentSource:
    """``samples``: (T, 6, h, w) working samples of the source, 10 bits, float32."""

    samples: Tensor
    geometry: FrameGeometry
    gop: int

    @property
    def luma_samples(self) -> int:
        return len(self.samples) * self.geometry.width * self.geometry.height


@dataclass
class UnitReport:
    """What a pass made of one unit: bits, and mean squared 8-bit errors (B, 3) of Y, U, V."""

    unit: CodingUnit
    motion_bits: float
    block_bits: float
    errors: Tensor

    @property
    def bits(self) -> float:
        return self.motion_bits + self.block_bits


@dataclass(frozen=True)
class UnitSearch:
    """What the searches found of a unit: motion and blocks, those with their bits. ``models``: the probabilities
    behind them. ``settings``: of the fit."""

    motion: UnitMotion
    fit: UnitFit
    block_bits: float
    models: BinModels
    settings: FitSettings


@dataclass
class SegmentFit:
    """The symbols of all units, whose motion is carried from pass to pass, and how far the present pass is: ``reports``
    of the units that lie behind it (None for one that was passed over), ``states`` of the frames that those to come
    refer to. ``forecasts``: of all frames, in coding order, once ``look_ahead`` is through. ``importance``: of each
    frame, (block rows, block columns). ``models``: the probabilities behind the units that the pass has coded.
    ``prices``: the context model as the pass found it, which says what motion costs.
    ``filtered_at``: the lambda at which the frames were filtered that others inherit from, and ``filtered``, what came
    of them, by display position."""

    source: SegmentSource
    units: list[CodingUnit] = field(init=False)
    symbols: list[UnitSymbols] = field(init=False)
    sensitivity: dict[str, Tensor] = field(default_factory=dict)
    reports: list[UnitReport | None] = field(default_factory=list)
    states: dict[int, FrameState] = field(default_factory=dict)
    forecasts: list[FrameForecast] = field(default_factory=list)
    importance: dict[int, Tensor] = field(default_factory=dict)
    models: BinModels = field(default_factory=BinModels)
    prices: ContextWeights | None = None
    filtered_at: float | None = None
    filtered: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.units = coding_units(len(self.source.samples), self.source.gop)
        self._uses = last_uses(self.units)
        self._unit_of = {frame.display: n for n, unit in enumerate(self.units) for frame in unit.frames}
        self.symbols = [UnitSymbols.empty(u, self.source.geometry) for u in self.units]
        for unit in self.units:
            for frame in unit.frames:
                self.importance[frame.display] = torch.full(self.source.geometry.blocks, _usual_importance(unit.depth))

    def look_ahead(self, twin: Twin, settings: PassSettings, on_unit: Callable[[UnitReport], None]) -> None:
        """Search the motion between source frames: what ``weigh`` looks at, and the first pass starts from.

        As ``continue_pass``, but that the reports tell of the prediction.
        """
        settings = replace(settings, effort=replace(settings.effort, searches=1), train=False, collect=False)
        self.prices = prices = self.prices or twin.context_weights()

        def begin(number: int) -> Callable[[], UnitMotion]:
            return partial(self._search_motion, number, prices, self.references_of(number, self.states), settings)

        def finish(number: int, motion: UnitMotion) -> None:
            unit = self.units[number]
            bits = self._adopt_motion(motion, unit, twin, settings)
            self.symbols[number] = UnitSymbols(motion.levels, self.symbols[number].blocks)
            target = self.sources(unit)
            detail = block_variance(target).cpu()
            errors = block_errors(motion.inputs.prediction, target).cpu() if unit.reference_count else _DETAIL * detail
            for b, frame in enumerate(unit.frames):
                blend = motion.levels[0][b, BLEND_CHANNEL] if unit.reference_count == 2 else torch.ones_like(errors[b])
                self.forecasts.append(FrameForecast(frame, motion.states[b].fields, blend, errors[b], detail[b]))
                self.states[frame.display] = FrameState(Reference(target[b]), motion.states[b])
            self._drop_states(number)
            report = UnitReport(unit, bits, 0.0, plane_errors(motion.inputs.prediction, target))
            self.reports.append(report)
            on_unit(report)

        run_ahead(range(len(self.reports), len(self.units)), self._last_reference, begin, finish)

    def references_of(self, number: int, states: Mapping[int, FrameState]) -> dict[int, FrameState]:
        """Of ``states`` those that unit ``number`` refers to."""
        return {r: states[r] for frame in self.units[number].frames for r in frame.references}

    def _last_reference(self, number: int) -> int:
        """The last unit that unit ``number`` refers to, -1 if there is none."""
        return max((self._unit_of[r] for frame in self.units[number].frames for r in frame.references), default=-1)

    def needed_units(self, number: int, stride: int = 1) -> int:
        """The last unit that must be finished before the search of unit ``number``: for its references, and for the
        probabilities of its blocks. ``stride``: of the pass."""
        model = model_of(self.units[number].depth)
        alike = (n for n in reversed(range(number)) if model_of(self.units[n].depth) == model)
        return max(self._last_reference(number), next((n for n in alike if self._is_visited(n, stride)), -1))

    def filter_sources(self, lmbda: float) -> None:
        """Filter what key frames and P frames are made to look like; see ``temporal_filter``."""
        numbers = [frame.display for unit in self.units if unit.depth <= 1 for frame in unit.frames]
        self.filtered_at = lmbda
        self.filtered = filtered_frames(self.source.samples, numbers, self.source.geometry, lmbda)

    def weigh(self, settings: PassSettings) -> None:
        """Find the importance of all blocks at the prices of ``settings``."""
        found = importance(self.forecasts, self.source.geometry.blocks, settings.highest_lmbda)
        self.importance = {display: torch.from_numpy(x).float() for display, x in found.items()}

    def estimated_lmbda(self, settings: PassSettings, wanted: float) -> float:
        """The lambda at which the frames should take ``wanted`` bits, by the look ahead."""
        for _ in range(_ESTIMATES):
            weights = importance(self.forecasts, self.source.geometry.blocks, settings.highest_lmbda)
            bits = estimated_bits(self.forecasts, weights, settings.highest_lmbda)
            settings = replace(settings, lmbda=next_lambda(settings.lmbda, bits, wanted))
        return settings.lmbda

    def estimates(self, settings: PassSettings) -> tuple[float, float]:
        """Bits of all frames, and their PSNR of luma in dB, by the look ahead."""
        lmbda = settings.highest_lmbda
        weights = importance(self.forecasts, self.source.geometry.blocks, lmbda)
        return estimated_bits(self.forecasts, weights, lmbda), estimated_psnr(self.forecasts, weights, lmbda)

    def believed_bits(self, settings: PassSettings) -> list[float]:
        """What each unit takes: as the pass that is through measured, and those that it passed over by the look ahead,
        corrected by how far that is off for the others of their depth."""
        weights = {display: blocks.double().numpy() for display, blocks in self.importance.items()}
        forecasts = {f.frame: f for f in self.forecasts}
        found: list[float] = []
        measured: dict[int, list[float]] = {}
        for unit, report in zip(self.units, self.reports, strict=True):
            guess = max(estimated_bits([forecasts[f] for f in unit.frames], weights, settings.highest_lmbda), 1.0)
            found.append(report.bits if report else guess)
            if report:
                sums = measured.setdefault(unit.depth, [0.0, 0.0])
                sums[0], sums[1] = sums[0] + report.bits, sums[1] + guess
        for number, report in enumerate(self.reports):
            if not report:
                bits, guesses = measured[self.units[number].depth]
                found[number] *= bits / guesses
        return found

    def _is_visited(self, number: int, stride: int) -> bool:
        """Whether a pass visits a unit: it may pass over B frames, see ``PassEffort``."""
        unit = self.units[number]
        return unit.depth <= 1 or unit.frames[0].display // self.source.gop % stride == 0

    def unit_importance(self, unit: CodingUnit) -> tuple[float, Tensor]:
        """The mean importance of a unit, and that of each block over it, (B, block rows, block columns)."""
        blocks = torch.stack([self.importance[f.display] for f in unit.frames])
        mean = float(blocks.log().mean().exp())
        return mean, blocks / mean

    def importance_of_depths(self) -> dict[int, float]:
        """Of each depth of the hierarchy the importance over the usual one, the geometric mean of its frames."""
        logs: dict[int, list[float]] = {}
        for unit in self.units:
            logs.setdefault(unit.depth, []).append(
                math.log(self.unit_importance(unit)[0] / _usual_importance(unit.depth))
            )
        return {depth: math.exp(sum(found) / len(found)) for depth, found in logs.items()}

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
            for b, frame in enumerate(unit.frames):
                self.states[frame.display] = FrameState(Reference(samples[b]), found.motion.states[b])
            self._drop_states(number)
            errors = plane_errors(samples, self.sources(unit))
            report = UnitReport(unit, motion_bits, found.block_bits, errors)
            self.reports.append(report)
            on_unit(report)

        stride = settings.effort.stride
        visited = [n for n in range(len(self.reports), len(self.units)) if self._is_visited(n, stride)]
        run_ahead(visited, partial(self.needed_units, stride=stride), begin, finish)
        self.reports += [None] * (len(self.units) - len(self.reports))
        if settings.collect:
            share = sum(self.believed_bits(settings)) / sum(report.bits for report in self.reports if report)
            self.sensitivity = {name: share * value for name, value in self.sensitivity.items()}

    def _drop_states(self, number: int) -> None:
        """Forget the frames that no unit behind ``number`` refers to."""
        for display in [d for d in self.states if self._uses[d] <= number]:
            del self.states[display]

    def state(self) -> dict[str, Any]:
        """Where the pass is: a segment of the same source, given this, goes on in the same way."""
        return {
            "symbols": [symbols.state() for symbols in self.symbols],
            "sensitivity": self.sensitivity,
            "reports": [r and (r.motion_bits, r.block_bits, r.errors) for r in self.reports],
            "states": {
                display: (state.appearance.packed, state.motion.fields, state.motion.distances)
                for display, state in self.states.items()
            },
            "forecasts": [(f.fields, f.blend, f.error, f.detail) for f in self.forecasts],
            "importance": self.importance,
            "models": self.models.arrays,
            "prices": self.prices and vars(self.prices),
            "filtered_at": self.filtered_at,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what ``state`` returned, with all tensors on the CPU."""
        self.symbols = [UnitSymbols.restored(symbols) for symbols in state["symbols"]]
        self.sensitivity = state["sensitivity"]
        self.reports = [
            kept and UnitReport(unit, *kept) for unit, kept in zip(self.units, state["reports"], strict=False)
        ]
        self.states = {
            display: FrameState(Reference(packed.to(self.source.samples.device)), MotionState(fields, distances))
            for display, (packed, fields, distances) in state["states"].items()
        }
        frames = [frame for unit in self.units for frame in unit.frames]
        self.forecasts = [FrameForecast(frame, *kept) for frame, kept in zip(frames, state["forecasts"], strict=False)]
        self.importance = dict(state["importance"])
        self.models = BinModels(state["models"])
        self.prices = state["prices"] and ContextWeights(**state["prices"])
        if state["filtered_at"] is not None:
            self.filter_sources(state["filtered_at"])

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
        motion = self._search_motion(number, prices, states, settings)
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

    def sources(self, unit: CodingUnit) -> Tensor:
        """The source frames of a unit, (B, 6, h, w)."""
        return self.source.samples[[f.display for f in unit.frames]]

    def targets(self, unit: CodingUnit) -> Tensor:
        """What its frames are made to look like: filtered, where others inherit from them."""
        return torch.stack([self.filtered.get(f.display, self.source.samples[f.display]) for f in unit.frames])

    def _search_motion(
        self, number: int, prices: ContextWeights, states: dict[int, FrameState], settings: PassSettings
    ) -> UnitMotion:
        unit = self.units[number]
        mean, relative = self.unit_importance(unit)
        return search_unit_motion(
            unit, self.targets(unit), states, self.symbols[number].motion, prices, self.source.geometry,
            settings.highest_lmbda / mean, relative, settings.effort.searches,
        )  # fmt: skip

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
