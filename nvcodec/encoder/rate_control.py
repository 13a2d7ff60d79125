"""Rate control: from a target in bytes to a lambda, and to a file that meets it.

Bits fall with lambda about as ``lambda ** -SLOPE``. Between passes the law moves lambda towards the target.
In the last pass every unit is coded with the lambda that would spend exactly what is left, given what the
attempt before spent on the same units, so that the file lands on its target within a second attempt.
"""

from __future__ import annotations

from dataclasses import dataclass

from nvcodec.errors import EncodeError

__all__ = ["LAMBDA_RANGE", "Target", "UnitBudget", "first_lambda", "lambda_for_quality", "next_lambda"]

SLOPE = 0.7
LAMBDA_RANGE = (0.5, 2e6)
_STEP_LIMIT = 2.5
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


def first_lambda(bpp: float) -> float:
    """A guess before anything is known of the video."""
    return clamp_lambda(2.2 * bpp**-1.1)


def clamp_lambda(lmbda: float) -> float:
    return min(max(lmbda, LAMBDA_RANGE[0]), LAMBDA_RANGE[1])


def next_lambda(lmbda: float, bits: float, wanted: float) -> float:
    """The lambda at which a pass that took ``bits`` at ``lmbda`` should take ``wanted``."""
    factor = (max(bits, 1.0) / max(wanted, 1.0)) ** (1 / SLOPE)
    return clamp_lambda(lmbda * min(max(factor, 1 / _STEP_LIMIT**2), _STEP_LIMIT**2))


class UnitBudget:
    """Steers lambda from unit to unit of the last pass."""

    def __init__(self, lmbda: float, wanted: float, before: list[float], lmbda_before: float) -> None:
        """``wanted``: bits for all units. ``before``: bits of each unit in the attempt before, at ``lmbda_before``."""
        self.wanted = wanted
        self.before = before
        self.lmbda_before = lmbda_before
        self._lmbda = lmbda
        self._spent = 0.0

    def lmbda(self, number: int) -> float:
        """Lambda of unit ``number``."""
        rest = sum(self.before[number:])
        left = self.wanted - self._spent
        if rest <= 0 or left <= 0.02 * rest:
            return clamp_lambda(self._lmbda * (_STEP_LIMIT if left <= 0 else 1))
        ideal = self.lmbda_before * (rest / left) ** (1 / SLOPE)
        return clamp_lambda(min(max(ideal, self._lmbda / _STEP_LIMIT), self._lmbda * _STEP_LIMIT))

    def spend(self, bits: float) -> None:
        self._spent += bits
