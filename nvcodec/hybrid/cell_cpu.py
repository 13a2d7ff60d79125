"""What lies between two convolutions of a cell, on a CPU, in one go over the activations."""

from __future__ import annotations

import numpy as np

from nvcodec.core.compiled import compiled

__all__ = ["activate"]


@compiled
def activate(sums: np.ndarray, shift: int, leaky_shift: int, bound: int) -> None:
    """Turn the sums of a layer, float32 (N,), into activations: rounded to integers, shifted right by ``shift`` and
    rounded half up, negative ones shifted by ``leaky_shift`` and rounded down, clipped to +-``bound``. In place."""
    unit, leak = np.float32(2.0**-shift), np.float32(2.0**-leaky_shift)
    half, most = np.float32(0.5), np.float32(bound)
    for n in range(len(sums)):
        value = np.floor(np.rint(sums[n]) * unit + half)
        value = np.floor(max(value, value * leak))
        sums[n] = min(max(value, -most), most)
