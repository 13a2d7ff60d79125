"""Compiled code: functions on arrays that numba translates when they are first called on a machine.

The result is kept on disk, beside the source or in the user's cache directory; where neither can be written, every
process translates anew. The interpreter's lock is released in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numba
from numba.core import event

__all__ = ["compiled", "compiled_loosely", "telling_of_translation"]

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


class _Once(event.Listener):
    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell: Callable[[], None] | None = tell

    def on_start(self, event: object) -> None:
        tell, self._tell = self._tell, None
        if tell:
            tell()

    def on_end(self, event: object) -> None:
        pass


@contextmanager
def telling_of_translation(tell: Callable[[], None]) -> Iterator[None]:
    """Within it, ``tell`` is called before the first function that has to be translated: all of them take minutes."""
    with event.install_listener("numba:compile", _Once(tell)):
        yield
