"""Which rate factors an anchor is run at: so that its curve brackets ours, and has a point at each of our rates.

::

    quality                     o   up until rate and quality reach our highest
       ^                   o        a point at about the bits of each of ours
       |              o    x
       |         o    x             x  ours, o  the anchor
       |    o    x                  down until rate and quality are below our lowest
       +----------------------> rate

Bits fall about exponentially with the rate factor, so a few secant steps on the logarithm of the bits find a
rate. Every encode is asked for once: ``size`` and ``quality`` are expected to remember.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from nvcodec.rd.anchors import Coder

__all__ = ["MATCH_TOLERANCE", "MIN_RUNGS", "Ladder", "build_ladder", "match_bytes"]

MATCH_TOLERANCE = 0.02
"""Of the bits: the search for a rate ends when it is met this closely, or cannot be met better."""
MIN_RUNGS = 4
"""Points that the curve of an anchor has at least."""
_STEP = 4.0
"""Rate factors from one point to the next where the curve is extended; bits change by 1.5 to 1.7 times."""
_SLOPE = math.log(2) / 6
"""Guess while one point is known: bits halve every six rate factors."""
_MOST_TRIES = 6


@dataclass(frozen=True)
class Ladder:
    """``crfs``: the points of the curve, lowest rate factor (highest rate) first. ``matched``: for each of our
    points, in their order, the rate factor whose bits are nearest; it is one of ``crfs``."""

    crfs: tuple[float, ...]
    matched: tuple[float, ...]


def build_ladder(
    ours: Sequence[tuple[int, float]], coder: Coder, size: Callable[[float], int], quality: Callable[[float], float]
) -> Ladder:
    """``ours``: (bytes, quality) of each of our points. ``size``, ``quality``: of the anchor at a rate factor.

    The curve ends early where the encoder's range of rate factors does.
    """
    known: dict[float, int] = {}

    def measured(crf: float) -> int:
        if crf not in known:
            known[crf] = size(crf)
        return known[crf]

    matched = tuple(match_bytes(target, coder, measured, known) for target, _ in ours)
    crfs = set(matched)
    low_bytes, high_bytes = min(b for b, _ in ours), max(b for b, _ in ours)
    low_quality, high_quality = min(q for _, q in ours), max(q for _, q in ours)
    lowest, highest = coder.crf_range
    while (crf := max(crfs)) < highest and not (measured(crf) <= low_bytes and quality(crf) <= low_quality):
        crfs.add(coder.round_crf(crf + _STEP))
    while (crf := min(crfs)) > lowest and not (measured(crf) >= high_bytes and quality(crf) >= high_quality):
        crfs.add(coder.round_crf(crf - _STEP))
    _fill(crfs, coder)
    return Ladder(tuple(sorted(crfs)), matched)


def _fill(crfs: set[float], coder: Coder) -> None:
    """Adds points, in the widest gap or at an end, until there are enough."""
    while len(crfs) < MIN_RUNGS:
        ordered = sorted(crfs)
        gap, start = max(((b - a, a) for a, b in pairwise(ordered)), default=(0.0, 0.0))
        if gap >= 2.0:
            crfs.add(coder.round_crf(start + gap / 2))
        elif ordered[-1] + 2.0 <= coder.crf_range[1]:
            crfs.add(coder.round_crf(ordered[-1] + 2.0))
        else:
            crfs.add(coder.round_crf(ordered[0] - 2.0))


def match_bytes(target: int, coder: Coder, size: Callable[[float], int], known: dict[float, int]) -> float:
    """The rate factor whose stream comes nearest to ``target`` bytes, as far as a few encodes tell.

    ``known``: sizes by rate factor so far; ``size`` adds to it what it is asked for.
    """
    low, high = coder.crf_range

    def distance(crf: float) -> float:
        return abs(math.log(known[crf] / target))

    crf = _guess(target, known) if known else (low + high) / 2
    for _ in range(_MOST_TRIES):
        crf = coder.round_crf(crf)
        if crf in known:
            break
        size(crf)
        if distance(crf) <= MATCH_TOLERANCE:
            break
        crf = _guess(target, known)
    return min(known, key=distance)


def _guess(target: int, known: dict[float, int]) -> float:
    """Where the bits should be ``target``: between the nearest sizes above and below, or beyond the nearest."""
    above = [crf for crf, size in known.items() if size > target]
    below = [crf for crf, size in known.items() if size <= target]
    if above and below:
        left = min(above, key=lambda crf: known[crf])
        right = max(below, key=lambda crf: known[crf])
        span = math.log(known[left] / known[right])
        return left + (right - left) * math.log(known[left] / target) / span
    nearest = min(known, key=lambda crf: abs(math.log(known[crf] / target)))
    return nearest + math.log(known[nearest] / target) / _SLOPE
