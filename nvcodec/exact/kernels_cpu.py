"""What the exact machine does element by element on a CPU, in compiled code: one pass over memory for each node."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from nvcodec.core.compiled import compiled
from nvcodec.core.parallel import run_all

__all__ = ["requantised", "warped"]

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


def warped(
    x: np.ndarray, vectors: np.ndarray, block_log2: int, own: np.ndarray, bound: int, threads: int
) -> np.ndarray:
    """``Warping`` of (B, C, H, W) by (B, 2, h, w), integers in float32. ``own``: int64, the share, /8, of a block's own
    vector by the place in it. ``threads``: for rows."""
    out = np.empty_like(x)
    rows = x.shape[2]
    parts = max(1, min(threads, x.size // _PART))
    cuts = [rows * k // parts for k in range(parts + 1)]
    run_all([partial(_warp_rows, x, vectors, block_log2, own, bound, a, b, out) for a, b in pairwise(cuts)])
    return out


@compiled
def _warp_rows(
    x: np.ndarray, vectors: np.ndarray, block_log2: int, own: np.ndarray, bound: int, first: int, last: int,
    out: np.ndarray,
) -> None:  # fmt: skip
    """Rows ``first`` to ``last``. ``own``: share, /8, of a block's own vector by the place in it."""
    batch, channels, rows, columns = x.shape
    high, wide = vectors.shape[2], vectors.shape[3]
    side = 1 << block_log2
    shift = 14 if block_log2 else 8
    half = np.int64(1) << (shift - 1)
    count = 2 if block_log2 else 1
    places = np.empty((16, 2), np.int64)
    weights = np.empty(16, np.int64)
    for b in range(batch):
        for y in range(first, last):
            for col in range(columns):
                taps = 0
                for i in range(count):
                    row = y >> block_log2
                    share_y = np.int64(8)
                    if block_log2:
                        share_y = 8 - own[y % side] if i else own[y % side]
                        if i:
                            row = row - 1 if 2 * (y % side) < side else row + 1
                    row = min(max(row, 0), high - 1)
                    for j in range(count):
                        column = col >> block_log2
                        share_x = np.int64(8)
                        if block_log2:
                            share_x = 8 - own[col % side] if j else own[col % side]
                            if j:
                                column = column - 1 if 2 * (col % side) < side else column + 1
                        column = min(max(column, 0), wide - 1)
                        share = share_y * share_x if block_log2 else np.int64(1)
                        if share == 0:
                            continue
                        at_y = 16 * y + np.int64(vectors[b, 0, row, column])
                        at_x = 16 * col + np.int64(vectors[b, 1, row, column])
                        part_y, part_x = at_y & 15, at_x & 15
                        for dy in range(2):
                            weight_y = part_y if dy else 16 - part_y
                            if weight_y == 0:
                                continue
                            for dx in range(2):
                                weight_x = part_x if dx else 16 - part_x
                                if weight_x == 0:
                                    continue
                                places[taps, 0] = min(max((at_y >> 4) + dy, 0), rows - 1)
                                places[taps, 1] = min(max((at_x >> 4) + dx, 0), columns - 1)
                                weights[taps] = weight_y * weight_x * share
                                taps += 1
                for c in range(channels):
                    total = half
                    for t in range(taps):
                        total += weights[t] * np.int64(x[b, c, places[t, 0], places[t, 1]])
                    out[b, c, y, col] = min(max(total >> shift, -bound), bound)
