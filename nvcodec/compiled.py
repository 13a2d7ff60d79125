"""Compiled code: functions on arrays that numba translates when they are first called on a machine.

The result is kept on disk, beside the source or in the user's cache directory; where neither can be written, every
process translates anew. The interpreter's lock is released in all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

__all__ = ["compiled", "compiled_loosely"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function, **options: Any) -> _Function:
    """``function``, compiled. ``options``: of ``numba.njit``."""
    try:
        return numba.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # no place for the result
        return numba.njit(nogil=True, **options)(function)


def compiled_loosely(function: _Function) -> _Function:
    """``function``, compiled; sums of real numbers may be taken in any order. For what no decoder has to repeat."""
    return compiled(function, fastmath=True)
