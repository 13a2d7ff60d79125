"""Which GOP length suits a segment, as far as the look ahead over its first frames can tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from nvcodec.encoder.rate_control import Target, first_lambda
from nvcodec.encoder.segment_analysis import SegmentSource

__all__ = ["FORESEEN_FRAMES", "at_equal_size", "different_gops", "foreseen_score", "trial_lmbda"]

_OCTAVE = 3.5
"""Decibels that twice the bits bring, about: by it trials of different sizes are compared."""
FORESEEN_FRAMES = 9
"""What is looked at, at most."""
_SHORT_BIAS = 2.0
"""Decibels by which a short GOP looks better than it is: source frames are better references than coded ones, and more
so the nearer they are."""

Foresee = Callable[[SegmentSource, float], tuple[float, float]]
"""Bits of a segment, and the PSNR of its luma in dB, as the look ahead expects them at a lambda."""


def trial_lmbda(source: SegmentSource, target: Target) -> float:
    """About that of the encode."""
    if target.lmbda is not None:
        return target.lmbda
    assert target.total_bytes is not None
    return first_lambda(8 * target.total_bytes / source.luma_samples, len(source.samples))


def different_gops(gops: Sequence[int], frames: int) -> list[int]:
    """Those that give different structures to so many frames, in their order; at least one."""
    structures: dict[int, int] = {}
    for gop in gops:
        structures.setdefault(min(gop, max(frames - 1, 1)), gop)
    return list(structures.values())


def at_equal_size(bits: float, psnr: float) -> float:
    """Decibels at a fixed size, by the law of ``_OCTAVE``."""
    return psnr - _OCTAVE * math.log2(max(bits, 1.0))


def foreseen_score(source: SegmentSource, usual: int, lmbda: float, foresee: Foresee) -> float:
    """Of the GOP length of ``source``; ``usual``: the length that is taken where none is better."""
    sample = replace(source, samples=source.samples[:FORESEEN_FRAMES])
    return at_equal_size(*foresee(sample, lmbda)) - _SHORT_BIAS * (source.gop < usual)
