"""Which GOP length suits a segment: its first frames are encoded with each of several, quickly, or only looked at, and
then all of it in earnest with the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from nvcodec.encoder.rate_control import Target, first_lambda
from nvcodec.encoder.representation import CodedSegment, Keep, StageReport
from nvcodec.encoder.segment_analysis import SegmentSource
from nvcodec.hybrid.encoder.stages import Effort, encode_segment, foresee_segment

__all__ = ["encode_with_best_gop"]

_OCTAVE = 3.5
"""Decibels that twice the bits bring, about: by it trials of different sizes are compared."""
_TRIAL_FRAMES = 33
"""Of a trial, at most; the first ones."""
_FORESEEN_FRAMES = 9
"""Where no trials are encoded, what is looked at, at most."""
_SHORT_BIAS = 2.0
"""Decibels by which a short GOP looks better than it is: source frames are better references than coded ones, and more
so the nearer they are."""


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
    gops = _different(gops, len(source.samples))
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

    price = _trial_lmbda(source, target)
    sample = replace(source, samples=source.samples[: _TRIAL_FRAMES if trial else _FORESEEN_FRAMES])
    work_of_trial = trial.stages * len(sample.samples) if trial else 0
    trial_share = work_of_trial / (work_of_trial * len(trials) + effort.stages * len(source.samples))
    for number, gop in list(enumerate(trials))[len(scores) :]:
        if trial:
            share = trial_share * number, trial_share * (number + 1)
            scores.append(_score(run(sample, Target(lmbda=price), gop, trial, share, f"try GOP {gop}: ")))
        else:
            scores.append(_foreseen_score(replace(sample, gop=gop), width, price) - _SHORT_BIAS * (gop < gops[0]))
            keep(lambda: {"scores": scores, "work": None})
    best = trials[max(range(len(trials)), key=scores.__getitem__)] if trials else gops[0]
    return run(source, target, best, effort, (trial_share * len(trials), 1.0), "")


def _trial_lmbda(source: SegmentSource, target: Target) -> float:
    """About that of the encode."""
    if target.lmbda is not None:
        return target.lmbda
    assert target.total_bytes is not None
    return first_lambda(8 * target.total_bytes / source.luma_samples, len(source.samples))


def _different(gops: Sequence[int], frames: int) -> list[int]:
    """Those that give different structures to so many frames, in their order; at least one."""
    structures: dict[int, int] = {}
    for gop in gops:
        structures.setdefault(min(gop, max(frames - 1, 1)), gop)
    return list(structures.values())


def _score(coded: CodedSegment) -> float:
    return _at_equal_size(coded.bits, coded.psnr)


def _foreseen_score(source: SegmentSource, width: int, lmbda: float) -> float:
    return _at_equal_size(*foresee_segment(source, width, lmbda))


def _at_equal_size(bits: float, psnr: float) -> float:
    """Decibels at a fixed size, by the law of ``_OCTAVE``."""
    return psnr - _OCTAVE * math.log2(max(bits, 1.0))
