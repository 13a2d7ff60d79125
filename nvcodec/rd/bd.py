"""Bjontegaard deltas between two rate-distortion curves, by the package ``bjontegaard``.

BD-rate is the mean difference in rate at equal quality, over the qualities that both curves reach; BD-quality
(BD-PSNR where the quality is a PSNR) is the mean difference in quality at equal rate, over the rates that both
have. Rates count by their logarithm. Sources: G. Bjontegaard, VCEG-M33 (2001) and VCEG-AI11 (2008); between the
points runs a monotone piecewise cubic (``pchip``), as in JVET's common test conditions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from nvcodec.core.errors import InputError

__all__ = ["CLASSIC_POINTS", "METHOD", "MIN_POINTS", "Curve", "Delta", "bd_quality", "bd_rate"]

MIN_POINTS = 3
"""Fewer points make no curve: no figure is worked out from them."""
CLASSIC_POINTS = 4
"""What Bjontegaard asks for. A figure from fewer says so in :attr:`Delta.note`."""
LEAST_OCTAVES = 0.5
"""Of bits, that both curves must have in common: from less no figure is worked out."""
METHOD = "pchip"


@dataclass(frozen=True)
class Curve:
    """``points``: (rate, quality), at least three, sorted by rate when made.

    Rates are positive, in any unit that both curves share; qualities are finite and better when larger.

    Raises:
        InputError: too few points, two of the same rate, or a value out of its range.
    """

    points: tuple[tuple[float, float], ...]

    def __init__(self, points: Iterable[tuple[float, float]]) -> None:
        ordered = tuple(sorted((float(rate), float(quality)) for rate, quality in points))
        object.__setattr__(self, "points", ordered)
        if len(ordered) < MIN_POINTS:
            raise InputError(f"a curve of {len(ordered)} points has no BD figure (at least {MIN_POINTS} are needed)")
        if any(not (0 < rate < math.inf) or not math.isfinite(quality) for rate, quality in ordered):
            raise InputError("rates must be positive and finite, qualities finite")
        if len(set(self.rates)) < len(ordered):
            raise InputError("two points of a curve have the same rate")

    @property
    def rates(self) -> tuple[float, ...]:
        """Rising."""
        return tuple(rate for rate, _ in self.points)

    @property
    def qualities(self) -> tuple[float, ...]:
        """In the order of the rates."""
        return tuple(quality for _, quality in self.points)

    @property
    def is_monotone(self) -> bool:
        """Whether every point of a higher rate has a higher quality too."""
        return all(a < b for a, b in pairwise(self.qualities))

    def front(self) -> Curve:
        """The points that no other beats: none of a lower rate has the same quality or a higher one.

        Raises:
            InputError: too few are left.
        """
        best = -math.inf
        kept = []
        for rate, quality in self.points:
            if quality > best:
                kept.append((rate, quality))
                best = quality
        return Curve(kept)


@dataclass(frozen=True)
class Delta:
    """A BD figure and what it stands on.

    Attributes:
        value: BD-rate in per cent (negative: fewer bits than the anchor) or BD-quality in the unit of the quality
            (positive: better than the anchor); None where there is none.
        low, high: the interval that both curves cover, of quality for BD-rate and of rate for BD-quality. For
            BD-quality in units of rate, although it is the logarithm that is integrated. None without overlap.
        overlap: length of that interval over the length that the two curves cover together, 0 .. 1, as the
            package defines it; of BD-quality, lengths of log10 of the rate.
        overlap_of_test: the same length over that of the tested curve alone, 0 .. 1.
        note: why there is no figure, or what weakens it; else empty.
    """

    value: float | None
    low: float | None
    high: float | None
    overlap: float
    overlap_of_test: float
    note: str = ""


def bd_rate(anchor: Curve, test: Curve) -> Delta:
    """Mean difference of rate at equal quality, in per cent of the anchor's."""
    note = _unfit(anchor, test)
    if note:
        return Delta(None, None, None, 0.0, 0.0, note)
    low, high, overlap, of_test = _overlap(anchor.qualities, test.qualities)
    if low >= high:
        return Delta(None, None, None, 0.0, 0.0, "no quality that both curves reach")
    if min(_octaves(curve, low, high) for curve in (anchor, test)) < LEAST_OCTAVES:
        return Delta(None, low, high, overlap, of_test, _TOO_LITTLE)
    import bjontegaard

    value = bjontegaard.bd_rate(
        anchor.rates, anchor.qualities, test.rates, test.qualities,
        method=METHOD, require_matching_points=False, min_overlap=0,
    )  # fmt: skip
    return Delta(float(value), low, high, overlap, of_test, _weakness(anchor, test))


def bd_quality(anchor: Curve, test: Curve) -> Delta:
    """Mean difference of quality at equal rate; BD-PSNR, in dB, where the quality is a PSNR."""
    logs = [[math.log10(rate) for rate in curve.rates] for curve in (anchor, test)]
    low, high, overlap, of_test = _overlap(*logs)
    if low >= high:
        return Delta(None, None, None, 0.0, 0.0, "no rate that both curves have")
    if (high - low) / math.log10(2) < LEAST_OCTAVES:
        return Delta(None, 10**low, 10**high, overlap, of_test, _TOO_LITTLE)
    import bjontegaard

    value = bjontegaard.bd_psnr(
        anchor.rates, anchor.qualities, test.rates, test.qualities,
        method=METHOD, require_matching_points=False, min_overlap=0,
    )  # fmt: skip
    return Delta(float(value), 10**low, 10**high, overlap, of_test, _weakness(anchor, test))


_TOO_LITTLE = "less than half an octave of bits in common"


def _octaves(curve: Curve, low: float, high: float) -> float:
    """Of the bits of a curve between two of its qualities, on straight lines between the points."""
    bits = np.interp([low, high], curve.qualities, np.log2(curve.rates))
    return float(bits[1] - bits[0])


def _overlap(anchor: Iterable[float], test: Iterable[float]) -> tuple[float, float, float, float]:
    """Ends of the common interval, and its share of both and of the test's."""
    a, b = sorted(anchor), sorted(test)
    low, high = max(a[0], b[0]), min(a[-1], b[-1])
    common = max(high - low, 0.0)
    return low, high, common / (max(a[-1], b[-1]) - min(a[0], b[0])), common / max(b[-1] - b[0], 1e-300)


def _unfit(anchor: Curve, test: Curve) -> str:
    for name, curve in (("anchor", anchor), ("tested curve", test)):
        if not curve.is_monotone:
            return f"quality of the {name} does not rise with its rate"
    return ""


def _weakness(anchor: Curve, test: Curve) -> str:
    fewest = min(len(anchor.points), len(test.points))
    return f"from {fewest} points" if fewest < CLASSIC_POINTS else ""
