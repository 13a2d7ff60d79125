"""How much memory a process may have, and how the C library deals with what is freed.

Pictures of one size come and go with every operation. By default glibc hands large pieces back to the system as soon as
they are free, above all those of threads other than the main one, and the system clears every page anew: a decoder with
two threads spent a quarter of its time so (docs/experiments/hybrid.md, eleventh round).
"""

from __future__ import annotations

import ctypes

try:
    import resource
except ImportError:  # not Unix
    resource = None  # type: ignore[assignment]

__all__ = ["check_address_space", "keep_freed_memory"]

LEAST_ADDRESS_SPACE = 1_450_000_000
"""Bytes that the libraries reserve, most of which is never used."""

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Parameters of mallopt(3)."""
_KEPT = 1 << 30
_AHEAD = 1 << 26


def check_address_space() -> None:
    """Before libraries are loaded, some of which try for ever to get what they need.

    Raises MemoryError where the process may not have as much address space (``ulimit -v``) as they take.
    """
    if resource is None:
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESS_SPACE:
        least = LEAST_ADDRESS_SPACE // 1_000_000
        raise MemoryError(f"the address space is limited to {limit // 1_000_000} MB (ulimit -v), {least} MB are needed")


def keep_freed_memory() -> None:
    """For the rest of the process keep what is freed, up to a gibibyte, for use again. Only glibc is told."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    for parameter, value in ((_TRIM_THRESHOLD, _KEPT), (_TOP_PAD, _AHEAD), (_MMAP_THRESHOLD, _KEPT)):
        mallopt(parameter, value)
