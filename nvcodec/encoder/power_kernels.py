"""Powers and logarithms for compiled code, in arithmetic alone: a call of the C library costs several times as much."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types
from numba.extending import intrinsic

from nvcodec.core.compiled import compiled_loosely

__all__ = ["exp2", "log2"]

_MANTISSA_BITS = 23
_MANTISSA = np.int32((1 << _MANTISSA_BITS) - 1)
_EXPONENT_BIAS = 127
_LEAST_EXPONENT = np.float32(-126)
_ONE = np.float32(1)
_HALF = np.float32(0.5)
_SERIES = tuple(np.float32(c) for c in (0.69314718, 0.24022651, 0.05550411, 0.00961813, 0.00133336, 0.00015404))
"""ln(2)**n / n!, n = 1 .. 6."""
_LOG_SERIES = tuple(np.float32(2 / 0.6931471805599453 / n) for n in (1, 3, 5, 7, 9))
"""2 / (ln(2) n), of the odd powers of (m - 1) / (m + 1)."""
_ROOT_BITS = np.int32(np.float32(0.5**0.5).view(np.int32))
"""Mantissas are taken from sqrt(1/2) on."""


def _reinterpreted(source: Any, result: Any) -> Any:
    """A compiled function that takes the bits of a ``source`` for a ``result``."""

    def typed(typing_context: Any, x: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, given: Any) -> Any:
            return builder.bitcast(given[0], context.get_value_type(result))

        return result(source), code

    return intrinsic(typed)


_as_integer = _reinterpreted(types.float32, types.int32)
_as_real = _reinterpreted(types.int32, types.float32)


@compiled_loosely
def exp2(x):
    """2**x for a float32 below 128, to a relative error of 3e-7; 2**-126 for all x below -126."""
    x = max(x, _LEAST_EXPONENT)
    whole = np.floor(x + _HALF)
    f = x - whole
    power = _SERIES[4] + f * _SERIES[5]
    power = _SERIES[3] + f * power
    power = _SERIES[2] + f * power
    power = _SERIES[1] + f * power
    power = _SERIES[0] + f * power
    scale = _as_real(np.int32((np.int32(whole) + _EXPONENT_BIAS) << _MANTISSA_BITS))
    return (_ONE + f * power) * scale


@compiled_loosely
def log2(x):
    """log2(x) for a normal float32 above 0, to an absolute error of 1e-6."""
    bits = _as_integer(x) - _ROOT_BITS
    exponent = np.int32(bits >> _MANTISSA_BITS)
    mantissa = _as_real(np.int32((bits & _MANTISSA) + _ROOT_BITS))
    s = (mantissa - _ONE) / (mantissa + _ONE)
    square = s * s
    series = _LOG_SERIES[3] + square * _LOG_SERIES[4]
    series = _LOG_SERIES[2] + square * series
    series = _LOG_SERIES[1] + square * series
    return np.float32(exponent) + s * (_LOG_SERIES[0] + square * series)
