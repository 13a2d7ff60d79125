"""Which GOP length suits a segment, and whether its motion is to be predicted: a part of it is coded with each choice
in a single pass. That costs a part of an encode, and tells much more than a look at the motion."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nvcodec.encoder.distortion import psnr_611
from nvcodec.encoder.rate_control import AIM, Target, at_equal_size, first_lambda, next_lambda
from nvcodec.encoder.representation import StageReport
from nvcodec.encoder.segment_analysis import SegmentSource, UnitReport
from nvcodec.motion.levels import FrameGeometry

__all__ = ["TRIAL_FRAMES", "GopTrials", "Measure", "trial_report"]

TRIAL_FRAMES = 17
"""At most, the first ones."""
_TRIAL_SAMPLES, _TRIAL_SHARE = 48_000, 0.25
"""Luma samples that a trial looks at in each frame, in the middle: this share of larger pictures, if that is more."""
_FAR = 1.6
"""The lambda of the trials may be off by this factor."""
_CLOSE = 0.3
"""Decibels below the best: up to there a length is tried without prediction of motion, too."""

Measure = Callable[[SegmentSource, float], Sequence[UnitReport]]
"""What a pass over a part of the segment comes to at a lambda: of all units in coding order, a key frame first."""


class GopTrials:
    """``gops``: lengths to choose among, the usual one first."""

    def __init__(
        self,
        source: SegmentSource,
        gops: Sequence[int],
        target: Target,
        measure: Measure,
        kept: Mapping[str, Any] | None = None,
    ) -> None:
        """``kept``: what ``state`` returned; the trials go on behind those that it knows."""
        frames, luma = len(source.samples), source.luma_samples
        self._gops = _different(gops, frames)
        self._frames = frames
        self._sample = _sample(source)
        self._measure = measure
        self._wanted = None if target.total_bytes is None else 8 * target.total_bytes * AIM
        self._share = self._sample.geometry.width * self._sample.geometry.height * frames / luma
        guess = target.lmbda if self._wanted is None else first_lambda(self._wanted / luma, frames)
        assert guess is not None
        self.lmbda: float = kept["lmbda"] if kept else guess
        self._known: list[float] = list(kept["scores"]) if kept else []
        self.scores: dict[tuple[int, bool], float] = {}

    def state(self) -> dict[str, Any]:
        return {"lmbda": self.lmbda, "scores": list(self.scores.values())}

    def best(self, on_trial: Callable[[int, bool], None] = lambda gop, predicts: None) -> tuple[int, bool]:
        """The length, and whether motion is predicted. From the usual length it goes on to longer and to shorter ones
        for as long as that pays, then tries the good ones without prediction. Where there is but one choice, nothing is
        tried. ``on_trial``: told of each trial once it is through, but of those that were known."""

        def score(gop: int, predicts: bool) -> float:
            is_known = len(self.scores) < len(self._known)
            self.scores[gop, predicts] = self._known[len(self.scores)] if is_known else self._score(gop, predicts)
            if not is_known:
                on_trial(gop, predicts)
            return self.scores[gop, predicts]

        usual = self._gops[0]
        if len(self._gops) == 1 and not self._may_not_predict(usual):
            return usual, True
        start = score(usual, True)
        ordered = sorted(self._gops)
        place = ordered.index(usual)
        for further in (ordered[place + 1 :], ordered[:place][::-1]):
            before = start
            for gop in further:
                if (found := score(gop, True)) <= before:
                    break
                before = found
        least = max(self.scores.values()) - _CLOSE
        for gop, predicts in [choice for choice, found in self.scores.items() if found >= least]:
            if predicts and self._may_not_predict(gop):
                score(gop, False)
        return max(self.scores, key=self.scores.__getitem__)

    def _may_not_predict(self, gop: int) -> bool:
        """Where frames lie between two references: others begin at rest in any case."""
        return gop > 1 and len(self._sample.samples) > 2

    def _score(self, gop: int, predicts: bool) -> float:
        """Decibels at a fixed size, about."""
        sample = replace(self._sample, gop=gop, predicts=predicts)
        bits, psnr = self._of_all_frames(self._measure(sample, self.lmbda))
        if not self.scores and self._wanted is not None:
            better = next_lambda(self.lmbda, bits / self._share, self._wanted)
            if not 1 / _FAR < better / self.lmbda < _FAR:
                self.lmbda = better
                bits, psnr = self._of_all_frames(self._measure(sample, self.lmbda))
        return at_equal_size(bits, psnr)

    def _of_all_frames(self, reports: Sequence[UnitReport]) -> tuple[float, float]:
        """Bits, and mean PSNR, of a segment that goes on as its first frames do."""
        key, *others = [(report.bits, float(psnr_611(report.errors).sum())) for report in reports]
        times = (self._frames - 1) / max(len(self._sample.samples) - 1, 1)
        bits, psnr = (first + times * sum(rest) for first, *rest in zip(key, *others, strict=True))
        return bits, psnr / self._frames


def trial_report(gop: int, predicts: bool) -> StageReport:
    """What is shown of a trial."""
    return StageReport(f"try GOP {gop}{'' if predicts else ', motion not predicted'}", 0, 0.0)


def _sample(source: SegmentSource) -> SegmentSource:
    """The middle of the first frames."""
    geometry = source.geometry
    luma = geometry.width * geometry.height
    part = math.sqrt(min(max(_TRIAL_SAMPLES, _TRIAL_SHARE * luma) / luma, 1.0))
    width, height = (_part(length, part) for length in (geometry.width, geometry.height))
    left, top = (geometry.width - width) // 16 * 4, (geometry.height - height) // 16 * 4
    rows, columns = FrameGeometry(width, height).half
    samples = source.samples[:TRIAL_FRAMES, :, top : top + rows, left : left + columns]
    return replace(source, samples=samples.contiguous(), geometry=FrameGeometry(width, height, geometry.bit_depth))


def _part(length: int, part: float) -> int:
    """All, or a part in whole roots of the quadtree."""
    return min(length, math.ceil(length * part / 32) * 32)


def _different(gops: Sequence[int], frames: int) -> list[int]:
    """Those that give different structures to so many frames, in their order; at least one."""
    structures: dict[int, int] = {}
    for gop in gops:
        structures.setdefault(min(gop, max(frames - 1, 1)), gop)
    return list(structures.values())
