"""How the C library deals with freed memory.

Pictures of one size come and go with every operation. By default glibc hands large pieces back to the system as soon as
they are free, above all those of threads other than the main one, and the system clears every page anew: a decoder with
two threads spent a quarter of its time so (BENCHMARKS.md, eleventh round).
"""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Parameters of mallopt(3)."""
_KEPT = 1 << 30
_AHEAD = 1 << 26


def keep_freed_memory() -> None:
    """For the rest of the process keep what is freed, up to a gibibyte, for use again. Only glibc is told."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    for parameter, value in ((_TRIM_THRESHOLD, _KEPT), (_TOP_PAD, _AHEAD), (_MMAP_THRESHOLD, _KEPT)):
        mallopt(parameter, value)
