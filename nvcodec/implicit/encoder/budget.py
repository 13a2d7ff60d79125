"""How a model comes to the bits that it may take.

Frames by themselves: the steps of the weights are chosen so that the model takes what is wanted. Frames that refer to
others: the price of a bit moves from pass to pass, and the steps of the weights follow from it, as a weight should lose
as much by its last bit as a latent: ``step**2 sensitivity / 12`` falls by ``2 ln 2`` of itself a bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from nvcodec.core.errors import TargetError
from nvcodec.encoder.rate_control import AIM
from nvcodec.implicit.encoder.model import Model
from nvcodec.implicit.encoder.steps import Importance, set_latent_steps, set_weight_steps

__all__ = ["follow_price", "meet_by_steps", "moved_price"]

_UNIT_RANGE = (-30.0, 10.0)
_SLOPE = 0.6
"""Bits fall with the price about as ``price ** -_SLOPE``."""
_FASTEST = 1.6
"""By how much the price moves at once, at most."""


def meet_by_steps(
    model: Model, importance: Importance, bits_now: Callable[[bool], float], wanted: float, near: float | None
) -> float:
    """Choose the steps with which a model takes ``wanted`` bits; the unit of ``steps`` that gives them.

    ``bits_now``: of the model as it is; it is told whether the latents have changed since it was asked last. ``near``:
    the unit that was right before, None for the first time: then the latents get their steps, too. These are whole
    octaves, and the weights meet the rest. Raises TargetError, with what can be reached.
    """

    def at(unit: float, *, with_latents: bool = False) -> float:
        if with_latents:
            set_latent_steps(model.latents, importance, unit)
        set_weight_steps(model.layers, importance, unit)
        return bits_now(with_latents)

    if near is None:
        most, least = (at(unit, with_latents=True) for unit in _UNIT_RANGE)
        if not least <= wanted <= most:
            raise TargetError(
                f"a model of {model.parameters} parameters takes {least / 8:.0f} to {most / 8:.0f} bytes, the target "
                f"leaves {wanted / AIM / 8:.0f}: choose another target, or other params"
            )
        low, high = _UNIT_RANGE
        while high - low > 0.1:
            middle = (low + high) / 2
            low, high = (middle, high) if at(middle, with_latents=True) > wanted else (low, middle)
        near = (low + high) / 2
        at(near, with_latents=True)
    bits_now(True)
    low, high = near - 0.25, near + 0.25
    while at(low) < wanted and low > _UNIT_RANGE[0]:
        low -= 0.5
    while at(high) > wanted and high < _UNIT_RANGE[1]:
        high += 0.5
    while high - low > 0.004:
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle) > wanted else (low, middle)
    unit = (low + high) / 2
    at(unit)
    return unit


def follow_price(model: Model, importance: Importance) -> None:
    """The steps of the weights that suit the price of a bit."""
    set_weight_steps(model.layers, importance, 0.5 * math.log2(max(model.price, 1e-12) * 12 / (2 * math.log(2))))


def moved_price(price: float, bits: float, wanted: float) -> float:
    """The price at which a model that takes ``bits`` should take ``wanted``."""
    factor = (max(bits, 1.0) / max(wanted, 1.0)) ** (1 / _SLOPE)
    return price * min(max(factor, 1 / _FASTEST), _FASTEST)
