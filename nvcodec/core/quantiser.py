"""Quantiser steps: which amplitudes the symbols of a residual stand for, by one index."""

from __future__ import annotations

from functools import cache

import numpy as np

__all__ = [
    "CHROMA_GAIN_STEPS",
    "GAIN_STEPS",
    "GAIN_STEPS_PER_OCTAVE",
    "LEAST_GAIN",
    "gain_values",
    "quantiser_steps",
]

GAIN_STEPS = 64
GAIN_STEPS_PER_OCTAVE = 8
LEAST_GAIN = 4
"""Gain index i stands for round(4 * 2**(i / 8))."""
CHROMA_GAIN_STEPS = 4
"""By which the gains of chroma are finer than those of luma: its levels are few, so that quality is cheap there."""


@cache
def gain_values() -> tuple[int, ...]:
    """``round(4 * 2**(i / 8))`` for each gain index, by integer comparison (normative)."""
    values = []
    for i in range(GAIN_STEPS):
        target = 1 << (16 + i)  # (4 * 2**(i/8))**8
        value = 1
        while (2 * value + 1) ** 8 <= target << 8:
            value += 1
        values.append(value)
    return tuple(values)


@cache
def quantiser_steps() -> np.ndarray:
    """int64 (GAIN_STEPS, 2): of each gain index, what level 1 comes to in luma and in chroma, in samples of 10 bits."""
    values = gain_values()
    return np.array([(v, values[max(i - CHROMA_GAIN_STEPS, 0)]) for i, v in enumerate(values)], np.int64)
