"""Rate control: from a target in bytes to a lambda, and to a file that meets it.

Bits fall with lambda about as ``lambda ** -SLOPE``. Between passes the law moves lambda towards the target.
In the last pass every unit is coded with the lambda that would spend exactly what is left, given what the
attempt before spent on the same units, so that the file lands on its target within a second attempt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nvcodec.core.errors import EncodeError, TargetError

__all__ = [
    "LAMBDA_RANGE",
    "FixedLambda",
    "Target",
    "UnitBudget",
    "at_equal_size",
    "between",
    "check_reachable",
    "clamp_lambda",
    "first_lambda",
    "lambda_for_quality",
    "measured_slope",
    "next_lambda",
    "quality_for_lambda",
]

SLOPE = 0.58
LAMBDA_RANGE = (1e-4, 2e6)
_STEP_LIMIT = 2.5
_KEY_BITS, _FRAME_BITS, _GUESS_SLOPE = 6.5, 0.55, 0.62
"""Bits a sample of a key frame, and of a segment's frames in the mean, at lambda 1, and how they fall with it."""
AIM = 0.985
"""Of the target; the file may take 95 % to 102 % of it."""
TOLERANCE = (0.955, 1.015)


@dataclass(frozen=True)
class Target:
    """What the file may take: ``total_bytes`` all in all, or a fixed ``lmbda``."""

    total_bytes: float | None = None
    lmbda: float | None = None

    def __post_init__(self) -> None:
        if (self.total_bytes is None) == (self.lmbda is None):
            raise EncodeError("a target is either a size or a fixed lambda")


def lambda_for_quality(quality: float) -> float:
    """``0.85 * 2**((quality - 12) / 3)``: the quality scale is that of the quantiser parameter of H.264 and H.265."""
    return 0.85 * 2 ** ((quality - 12) / 3)


def quality_for_lambda(lmbda: float) -> float:
    """Inverse of ``lambda_for_quality``."""
    return 12 + 3 * math.log2(lmbda / 0.85)


def first_lambda(bpp: float, frames: int) -> float:
    """A guess for ``frames`` frames, one of them a key frame, before anything is known of the video.

    Fitted to BasketballPass and foreman at 0.05 to 0.5 bpp; contents differ by a factor of two.
    """
    return clamp_lambda(((_KEY_BITS / frames + _FRAME_BITS) / bpp) ** (1 / _GUESS_SLOPE))


def clamp_lambda(lmbda: float) -> float:
    """Within LAMBDA_RANGE."""
    return min(max(lmbda, LAMBDA_RANGE[0]), LAMBDA_RANGE[1])


def next_lambda(lmbda: float, bits: float, wanted: float) -> float:
    """The lambda at which a pass that took ``bits`` at ``lmbda`` should take ``wanted``."""
    factor = (max(bits, 1.0) / max(wanted, 1.0)) ** (1 / SLOPE)
    return clamp_lambda(lmbda * min(max(factor, 1 / _STEP_LIMIT**2), _STEP_LIMIT**2))


_OCTAVE = 3.5
"""Decibels that twice the bits bring, about."""


def at_equal_size(bits: float, psnr: float) -> float:
    """Decibels by which codings of unlike sizes are compared: those of ``psnr`` less what the bits bring."""
    return psnr - _OCTAVE * math.log2(max(bits, 1.0))


_LITTLE = 0.05
"""Of all bits: with less than this to come, lambda stays as it is."""


class UnitBudget:
    """Steers lambda from unit to unit of the last pass, by what the pass before spent on the same units."""

    def __init__(
        self, wanted: float, before: list[float], lambdas: list[float], slope: float = SLOPE, even: bool = True
    ) -> None:
        """``wanted``: bits for all units. ``before``: bits of each unit in the pass before, at its ``lambdas``.
        ``even``: whether all units get one lambda, or those in proportion to the ones they had: then the pass before
        tells more exactly what they will take."""
        self.wanted = wanted
        self.slope = slope
        mean = math.exp(sum(map(math.log, lambdas)) / max(len(lambdas), 1))
        self._profile = [1.0 if even else lmbda / mean for lmbda in lambdas]
        self._needs = [  # bits of each unit where ``_lmbda`` is 1
            bits * (lmbda / part) ** slope for bits, lmbda, part in zip(before, lambdas, self._profile, strict=True)
        ]
        self._spent: list[float] = []
        self._lmbda = (sum(self._needs) / max(wanted, 1.0)) ** (1 / slope)

    @property
    def start(self) -> float:
        """That lambda, in the mean of the units, which should spend ``wanted``."""
        return clamp_lambda(self._lmbda)

    def lmbda(self, number: int, known: int) -> float:
        """Lambda of unit ``number``: all units to come should have such ones to spend what is left of ``wanted``.

        Asked for one unit after the other. ``known``: of how many units the bits have a part in it, the first ones;
        ``spend`` may have told of more.
        """
        rest = sum(self._needs[known:])
        left = self.wanted - sum(self._spent[:known])
        if rest > _LITTLE * sum(self._needs):
            expected = rest * self._lmbda**-self.slope
            ideal = (rest / max(left, 0.05 * expected)) ** (1 / self.slope)
            self._lmbda = min(max(ideal, self._lmbda / _STEP_LIMIT), self._lmbda * _STEP_LIMIT)
        return clamp_lambda(self._lmbda * self._profile[number])

    def spend(self, bits: float) -> None:
        """What the next unit took."""
        self._spent.append(bits)


class FixedLambda:
    """In the place of a ``UnitBudget``: the same lambda for all units, whatever they take."""

    def __init__(self, lmbda: float) -> None:
        self.start = clamp_lambda(lmbda)

    def lmbda(self, number: int, known: int) -> float:
        return self.start

    def spend(self, bits: float) -> None:
        pass


def between(attempts: list[tuple[float, float]], wanted: float) -> float | None:
    """A lambda from which ``wanted`` bits are to be hoped for: between the largest of the attempts (lambda, bits) that
    took more and the next larger one that took less, by the law that leads through them, and not too near to either.
    None where there are no two such ones."""
    above = max((a for a in attempts if a[1] >= wanted), default=None)
    below = min((a for a in attempts if a[1] < wanted and (above is None or a[0] > above[0])), default=None)
    if above is None or below is None:
        return None
    share = math.log(above[1] / wanted) / math.log(above[1] / max(below[1], 1.0))
    share = min(max(share, 0.15), 0.85)
    return math.exp((1 - share) * math.log(above[0]) + share * math.log(below[0]))


def measured_slope(bits: tuple[float, float], lambdas: tuple[float, float]) -> float:
    """The exponent of the law by two passes, kept within reason."""
    if min(bits) <= 0 or abs(math.log(lambdas[0] / lambdas[1])) < 0.1:
        return SLOPE
    slope = -math.log(bits[0] / bits[1]) / math.log(lambdas[0] / lambdas[1])
    return min(max(slope, 0.35), 1.4)


def check_reachable(smallest: int, wanted_bytes: float) -> None:
    """Raise TargetError where the target lies below the smallest possible file."""
    if wanted_bytes * 1.02 < smallest:
        raise TargetError(
            f"the target of {wanted_bytes:.0f} bytes is out of reach; the smallest file takes {smallest} bytes"
        )
