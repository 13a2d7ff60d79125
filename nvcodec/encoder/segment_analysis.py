"""What is known of a segment before its units are fitted, and between them: motion, what each block is worth to later
frames, what is left of the references.

Both representations that refer to other frames analyse their segments so; what they make of a unit is their own.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nvcodec.core.gop import CodingUnit, coding_units, last_uses
from nvcodec.core.parallel import run_ahead
from nvcodec.encoder.distortion import block_errors, block_variance, plane_errors
from nvcodec.encoder.lookahead import FrameForecast, estimated_bits, importance
from nvcodec.encoder.rate import level_costs
from nvcodec.encoder.rate_control import next_lambda
from nvcodec.encoder.temporal_filter import filtered_frames
from nvcodec.encoder.unit_motion_search import search_unit_motion
from nvcodec.entropy.context import ContextWeights
from nvcodec.motion.compensation import FrameState
from nvcodec.motion.levels import BLEND_CHANNEL, FrameGeometry
from nvcodec.motion.prediction import MotionState
from nvcodec.motion.unit import UnitMotion
from nvcodec.motion.warp import Reference

__all__ = [
    "USUAL_IMPORTANCE",
    "SegmentAnalysis",
    "SegmentSource",
    "UnitReport",
    "motion_bits",
    "usual_importance",
]

USUAL_IMPORTANCE = 12.0
"""Of a key frame; the lambda of a pass is the price of a bit there."""
_DEPTH_FACTOR = 2.3
"""By which importance falls from one depth of the hierarchy to the next."""
_ESTIMATES = 8
"""Steps of ``estimated_highest_lmbda``; importance and bits move with lambda."""
_DETAIL = 0.1
"""Of a block's variance, what counts as the error of its prediction in a key frame."""


def usual_importance(depth: int) -> float:
    """What the importance of a frame at ``depth`` of the hierarchy is taken for while nothing is known of the video."""
    return USUAL_IMPORTANCE / _DEPTH_FACTOR**depth


@dataclass(frozen=True)
class SegmentSource:
    """``samples``: (T, 6, h, w) working samples of the source, 10 bits, float32. ``gop``, ``predicts``: as the header
    of the segment has them."""

    samples: Tensor
    geometry: FrameGeometry
    gop: int
    predicts: bool = True

    @property
    def luma_samples(self) -> int:
        return len(self.samples) * self.geometry.width * self.geometry.height


@dataclass
class UnitReport:
    """What a pass made of one unit: bits, and mean squared 8-bit errors (B, 3) of Y, U, V."""

    unit: CodingUnit
    motion_bits: float
    appearance_bits: float
    errors: Tensor

    @property
    def bits(self) -> float:
        return self.motion_bits + self.appearance_bits


def motion_bits(motion: UnitMotion, weights: ContextWeights, depth: int) -> float:
    """What the motion of a unit costs by a context model."""
    if motion.side is None:
        return 0.0
    rates, _ = level_costs(motion.levels, motion.side, weights, depth)
    return sum(float(r.bits.sum()) for r in rates)


class SegmentAnalysis(ABC):
    """
    Attributes:
        source: the frames; ``units`` of it in coding order.
        reports: of the units that lie behind the present pass; None for one that was passed over.
        states: of the frames that units to come refer to, by display position.
        forecasts: of all frames, in coding order, once ``look_ahead`` is through.
        importance: of each frame, (block rows, block columns).
        filtered: the frames that others inherit from, by display position; ``filtered_at``: at which lambda.
    """

    def __init__(self, source: SegmentSource) -> None:
        self.source = source
        self.units = coding_units(len(source.samples), source.gop, source.predicts)
        self.reports: list[UnitReport | None] = []
        self.states: dict[int, FrameState] = {}
        self.forecasts: list[FrameForecast] = []
        self.importance = {
            frame.display: torch.full(source.geometry.blocks, usual_importance(unit.depth))
            for unit in self.units
            for frame in unit.frames
        }
        self.filtered_at: float | None = None
        self.filtered: dict[int, Tensor] = {}
        self._uses = last_uses(self.units)
        self._unit_of = {frame.display: n for n, unit in enumerate(self.units) for frame in unit.frames}

    @abstractmethod
    def known_motion(self, number: int) -> list[Tensor]:
        """The motion levels of a unit as they were found last, or zeros."""

    @abstractmethod
    def keep_motion(self, number: int, levels: list[Tensor]) -> None:
        """What ``known_motion`` shall return."""

    def look_at(self, unit: CodingUnit, residual: Tensor) -> None:  # noqa: B027
        """Told of what each unit's prediction leaves, (B, 6, h, w), on the way of ``look_ahead``."""

    def look_ahead(self, prices: ContextWeights, highest_lmbda: float, on_unit: Callable[[UnitReport], None]) -> None:
        """Search the motion between source frames: what ``weigh`` looks at, and the first pass starts from.

        ``prices``: the context model, which says what motion costs. ``highest_lmbda``: of a bit in a block that nothing
        refers to. The reports tell of the prediction.
        """

        def begin(number: int) -> Callable[[], UnitMotion]:
            return partial(
                self.search_motion, number, prices, self.references_of(number, self.states), highest_lmbda, 1
            )

        def finish(number: int, motion: UnitMotion) -> None:
            unit = self.units[number]
            self.keep_motion(number, motion.levels)
            target = self.sources(unit)
            self.look_at(unit, target - motion.inputs.prediction)
            detail = block_variance(target).cpu()
            errors = block_errors(motion.inputs.prediction, target).cpu() if unit.reference_count else _DETAIL * detail
            for b, frame in enumerate(unit.frames):
                blend = motion.levels[0][b, BLEND_CHANNEL] if unit.reference_count == 2 else torch.ones_like(errors[b])
                self.forecasts.append(FrameForecast(frame, motion.states[b].fields, blend, errors[b], detail[b]))
                self.states[frame.display] = FrameState(Reference(target[b]), motion.states[b])
            self.drop_states(number)
            bits = motion_bits(motion, prices, unit.depth)
            report = UnitReport(unit, bits, 0.0, plane_errors(motion.inputs.prediction, target))
            self.reports.append(report)
            on_unit(report)

        run_ahead(range(len(self.reports), len(self.units)), self.last_reference, begin, finish)

    def references_of(self, number: int, states: Mapping[int, FrameState]) -> dict[int, FrameState]:
        """Of ``states`` those that unit ``number`` refers to."""
        return {r: states[r] for frame in self.units[number].frames for r in frame.references}

    def last_reference(self, number: int) -> int:
        """The last unit that unit ``number`` refers to, -1 if there is none."""
        return max((self._unit_of[r] for frame in self.units[number].frames for r in frame.references), default=-1)

    def filter_sources(self, lmbda: float) -> None:
        """Filter what key frames and P frames are made to look like; see ``temporal_filter``."""
        numbers = [frame.display for unit in self.units if unit.depth <= 1 for frame in unit.frames]
        self.filtered_at = lmbda
        self.filtered = filtered_frames(self.source.samples, numbers, self.source.geometry, lmbda)

    def weigh(self, highest_lmbda: float) -> None:
        """Find the importance of all blocks at these prices."""
        found = importance(self.forecasts, self.source.geometry.blocks, highest_lmbda)
        self.importance = {display: torch.from_numpy(x).float() for display, x in found.items()}

    def estimated_highest_lmbda(self, highest_lmbda: float, wanted: float) -> float:
        """That at which the frames should take ``wanted`` bits, by the look ahead; ``highest_lmbda``: a first guess."""
        lmbda = highest_lmbda / USUAL_IMPORTANCE
        for _ in range(_ESTIMATES):
            weights = importance(self.forecasts, self.source.geometry.blocks, lmbda * USUAL_IMPORTANCE)
            bits = estimated_bits(self.forecasts, weights, lmbda * USUAL_IMPORTANCE)
            lmbda = next_lambda(lmbda, bits, wanted)
        return lmbda * USUAL_IMPORTANCE

    def believed_bits(self, highest_lmbda: float) -> list[float]:
        """What each unit takes: as the pass that is through measured, and those that it passed over by the look ahead,
        corrected by how far that is off for the others of their depth."""
        weights = {display: blocks.double().numpy() for display, blocks in self.importance.items()}
        forecasts = {f.frame: f for f in self.forecasts}
        found: list[float] = []
        measured: dict[int, list[float]] = {}
        for unit, report in zip(self.units, self.reports, strict=True):
            guess = max(estimated_bits([forecasts[f] for f in unit.frames], weights, highest_lmbda), 1.0)
            found.append(report.bits if report else guess)
            if report:
                sums = measured.setdefault(unit.depth, [0.0, 0.0])
                sums[0], sums[1] = sums[0] + report.bits, sums[1] + guess
        for number, report in enumerate(self.reports):
            if not report:
                bits, guesses = measured[self.units[number].depth]
                found[number] *= bits / guesses
        return found

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
                math.log(self.unit_importance(unit)[0] / usual_importance(unit.depth))
            )
        return {depth: math.exp(sum(found) / len(found)) for depth, found in logs.items()}

    def drop_states(self, number: int) -> None:
        """Forget the frames that no unit behind ``number`` refers to."""
        for display in [d for d in self.states if self._uses[d] <= number]:
            del self.states[display]

    def sources(self, unit: CodingUnit) -> Tensor:
        """The source frames of a unit, (B, 6, h, w)."""
        return self.source.samples[[f.display for f in unit.frames]]

    def targets(self, unit: CodingUnit) -> Tensor:
        """What its frames are made to look like: filtered, where others inherit from them."""
        return torch.stack([self.filtered.get(f.display, self.source.samples[f.display]) for f in unit.frames])

    def search_motion(
        self,
        number: int,
        prices: ContextWeights,
        states: Mapping[int, FrameState],
        highest_lmbda: float,
        searches: int,
    ) -> UnitMotion:
        """The motion of a unit on its references, from where it is known."""
        unit = self.units[number]
        mean, relative = self.unit_importance(unit)
        return search_unit_motion(
            unit, self.targets(unit), states, self.known_motion(number), prices, self.source.geometry,
            highest_lmbda / mean, relative, searches,
        )  # fmt: skip

    def kept_analysis(self) -> dict[str, Any]:
        """What ``restore_analysis`` goes on from, in a segment of the same source."""
        return {
            "reports": [r and (r.motion_bits, r.appearance_bits, r.errors) for r in self.reports],
            "states": {
                display: (state.appearance.packed, state.motion.fields, state.motion.distances)
                for display, state in self.states.items()
            },
            "forecasts": [(f.fields, f.blend, f.error, f.detail) for f in self.forecasts],
            "importance": self.importance,
            "filtered_at": self.filtered_at,
        }

    def restore_analysis(self, state: Mapping[str, Any]) -> None:
        """Take over what ``kept_analysis`` returned, with all tensors on the CPU."""
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
        if state["filtered_at"] is not None:
            self.filter_sources(state["filtered_at"])
