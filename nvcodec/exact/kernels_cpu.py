"""What the exact machine does element by element on a CPU, in compiled code: one pass over memory for each node."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from nvcodec.core.compiled import compiled
from nvcodec.core.parallel import run_all

__all__ = ["requantised"]

_PART = 1 << 15
"""Elements that are worth a thread."""


def requantised(
    parts: list[Tensor], scales: np.ndarray, bias: np.ndarray, bound: int, lookup: np.ndarray | None,
    threads: int,
) -> Tensor:  # fmt: skip
    """``Clip3(-A, A, Round2(sum * M, S) + bias)`` through ``lookup``, of sums that come as one or two limbs.

    ``parts``: (B, C, H, W) float32 integers, the second one counts 256. ``scales``: int64 (C, 2), M and S. ``bias``:
    int64 (C,). ``lookup``: float32 (2A + 1,) or None. The result overwrites the first part.
    """
    low = parts[0]
    is_last = low.is_contiguous(memory_format=torch.channels_last) and not low.is_contiguous()
    arrays = [part.contiguous(memory_format=torch.channels_last) if is_last else part.contiguous() for part in parts]
    batch, channels, rows, columns = low.shape
    if is_last:
        views = [a.permute(0, 2, 3, 1).reshape(-1, channels).numpy() for a in arrays]
    else:
        views = [a.reshape(batch * channels, rows * columns).numpy() for a in arrays]
    high = views[1] if len(views) > 1 else views[0][:0]
    table = lookup if lookup is not None else np.zeros(0, np.float32)
    count = len(views[0])
    pieces = min(threads, max(1, views[0].size // _PART), count)
    cuts = [count * k // pieces for k in range(pieces + 1)]
    kernel = _by_column if is_last else _by_row
    run_all([partial(kernel, views[0], high, scales, bias, bound, table, a, b) for a, b in pairwise(cuts)])
    return arrays[0]


@compiled
def _by_column(
    low: np.ndarray, high: np.ndarray, scales: np.ndarray, bias: np.ndarray, bound: int, lookup: np.ndarray,
    begin: int, end: int,
) -> None:  # fmt: skip
    """Rows ``begin`` to ``end`` of (positions, channels)."""
    channels = low.shape[1]
    halves = np.empty(channels, np.int64)
    for c in range(channels):
        halves[c] = np.int64(1) << (scales[c, 1] - 1)
    two, mapped = len(high) > 0, len(lookup) > 0
    for n in range(begin, end):
        for c in range(channels):
            total = np.int64(low[n, c])
            if two:
                total += np.int64(high[n, c]) << 8
            value = ((total * scales[c, 0] + halves[c]) >> scales[c, 1]) + bias[c]
            value = min(max(value, -bound), bound)
            low[n, c] = lookup[value + bound] if mapped else np.float32(value)


@compiled
def _by_row(
    low: np.ndarray, high: np.ndarray, scales: np.ndarray, bias: np.ndarray, bound: int, lookup: np.ndarray,
    begin: int, end: int,
) -> None:  # fmt: skip
    """Rows ``begin`` to ``end`` of (pictures x channels, positions)."""
    channels = len(scales)
    two, mapped = len(high) > 0, len(lookup) > 0
    for n in range(begin, end):
        multiplier, shift, added = scales[n % channels, 0], scales[n % channels, 1], bias[n % channels]
        half = np.int64(1) << (shift - 1)
        for i in range(low.shape[1]):
            total = np.int64(low[n, i])
            if two:
                total += np.int64(high[n, i]) << 8
            value = min(max(((total * multiplier + half) >> shift) + added, -bound), bound)
            low[n, i] = lookup[value + bound] if mapped else np.float32(value)
