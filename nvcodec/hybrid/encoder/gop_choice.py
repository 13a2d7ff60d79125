"""Which GOP length suits a segment: its first frames are encoded with each of several, quickly, or only looked at, and
then all of it in earnest with the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from nvcodec.encoder.gop_foresight import (
    FORESEEN_FRAMES,
    at_equal_size,
    different_gops,
    foreseen_score,
    trial_lmbda,
)
from nvcodec.encoder.rate_control import Target
from nvcodec.encoder.representation import CodedSegment, Keep, StageReport
from nvcodec.encoder.segment_analysis import SegmentSource
from nvcodec.hybrid.encoder.stages import Effort, encode_segment, foresee_segment

__all__ = ["encode_with_best_gop"]

_TRIAL_FRAMES = 33
"""Of a trial, at most; the first ones."""


def encode_with_best_gop(
    source: SegmentSource,
    gops: Sequence[int],
    width: int,
    target: Target,
    effort: Effort,
    trial: Effort | None,
    seed: int,
    on_unit: Callable[[StageReport], None] = lambda report: None,
    *,
    kept: dict[str, Any] | None = None,
    keep: Keep = lambda state: None,
) -> CodedSegment:
    """Encode a segment with the GOP length of ``gops`` that does best in encodes with the effort ``trial``; without a
    trial effort, with that of which the look ahead expects most. The first of ``gops`` is the usual one, which is taken
    where none is better.

    A trial has at most the first ``_TRIAL_FRAMES``, and a fixed lambda: no size is to be met. The result is that of
    ``encode_segment`` with the best length in the place of ``source.gop``. Lengths beyond the segment are all alike,
    and tried once at most; where there is nothing to choose, nothing is tried. ``seed``: of the random numbers of each
    encode. ``kept``, ``keep``: as in ``encode_segment``.
    """
    gops = different_gops(gops, len(source.samples))
    trials = gops if len(gops) > 1 else []
    scores: list[float] = list(kept["scores"]) if kept else []
    work = kept["work"] if kept else None

    def run(
        source: SegmentSource, target: Target, gop: int, effort: Effort, share: tuple[float, float], name: str
    ) -> CodedSegment:
        nonlocal work
        resumed, work = work, None
        if resumed is None:
            torch.manual_seed(seed)
        return encode_segment(
            replace(source, gop=gop), width, target, effort,
            lambda r: on_unit(replace(r, stage=name + r.stage, fraction=share[0] + r.fraction * (share[1] - share[0]))),
            kept=resumed, keep=lambda state: keep(lambda: {"scores": scores, "work": state()}),
        )  # fmt: skip

    price = trial_lmbda(source, target)
    sample = replace(source, samples=source.samples[: _TRIAL_FRAMES if trial else FORESEEN_FRAMES])
    work_of_trial = trial.stages * len(sample.samples) if trial else 0
    trial_share = work_of_trial / (work_of_trial * len(trials) + effort.stages * len(source.samples))
    for number, gop in list(enumerate(trials))[len(scores) :]:
        if trial:
            share = trial_share * number, trial_share * (number + 1)
            scores.append(_score(run(sample, Target(lmbda=price), gop, trial, share, f"try GOP {gop}: ")))
        else:
            scores.append(foreseen_score(replace(sample, gop=gop), gops[0], price, partial(_foresee, width)))
            keep(lambda: {"scores": scores, "work": None})
    best = trials[max(range(len(trials)), key=scores.__getitem__)] if trials else gops[0]
    return run(source, target, best, effort, (trial_share * len(trials), 1.0), "")


def _score(coded: CodedSegment) -> float:
    return at_equal_size(coded.bits, coded.psnr)


def _foresee(width: int, source: SegmentSource, lmbda: float) -> tuple[float, float]:
    return foresee_segment(source, width, lmbda)
