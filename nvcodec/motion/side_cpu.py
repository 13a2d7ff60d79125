"""What the context models see besides symbols, and the merging of motion, in compiled code: integers in float32.

As tensor operations they would be dozens for every level of a unit, and take longer to call than to compute.
"""

from __future__ import annotations

import numpy as np

from nvcodec.core.compiled import compiled
from nvcodec.entropy.context import LOG_BOUND

__all__ = ["gradient", "merge", "parent_logs", "pooled_logs", "unrest"]


@compiled
def gradient(planes: np.ndarray, out: np.ndarray) -> None:
    """(B, C, h, w) to (B, h, w): absolute differences to the upper and left neighbour, summed over C."""
    batch, channels, rows, columns = planes.shape
    out[:] = 0
    for b in range(batch):
        for c in range(channels):
            for y in range(rows):
                line, sums = planes[b, c, y], out[b, y]
                if y:
                    above = planes[b, c, y - 1]
                    for x in range(columns):
                        sums[x] += abs(line[x] - above[x])
                for x in range(1, columns):
                    sums[x] += abs(line[x] - line[x - 1])


@compiled
def pooled_logs(planes: np.ndarray, more: np.ndarray, level: int, logarithms: np.ndarray, out: np.ndarray) -> None:
    """(B, h, w) to (B, r, c): the logarithm of ``Round2(sum over the 2**level x 2**level cell, 2 * level)`` plus
    ``more``, (B, r, c)."""
    batch, rows, columns = planes.shape
    side = 1 << level
    scale, half = np.float32(0.25**level), np.float32(0.5)
    for b in range(batch):
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                total = np.float32(0)
                for y in range(i * side, min((i + 1) * side, rows)):
                    for x in range(j * side, min((j + 1) * side, columns)):
                        total += planes[b, y, x]
                value = int(np.floor(total * scale + half) + more[b, i, j])
                out[b, i, j] = logarithms[min(value, LOG_BOUND)]


@compiled
def parent_logs(coarser: np.ndarray, logarithms: np.ndarray, out: np.ndarray) -> None:
    """Of each symbol of ``out`` (B, C, rows, columns) the logarithm of four times its parent's magnitude: eight times
    the symbol above it at the level ``coarser`` (B, C', r, c) plus the 3x3 around that; 0 for channels from C' on."""
    batch, channels, rows, columns = out.shape
    shared = min(channels, coarser.shape[1])
    high, wide = coarser.shape[2:]
    for b in range(batch):
        for c in range(channels):
            plane = out[b, c]
            plane[:] = 0
            if c >= shared:
                continue
            for i in range(high):
                for j in range(wide):
                    total = 8 * abs(coarser[b, c, i, j])
                    for y in range(max(i - 1, 0), min(i + 2, high)):
                        for x in range(max(j - 1, 0), min(j + 2, wide)):
                            total += abs(coarser[b, c, y, x])
                    if total:
                        value = logarithms[min(int(4 * total), LOG_BOUND)]
                        plane[2 * i : min(2 * i + 2, rows), 2 * j : min(2 * j + 2, columns)] = value


@compiled
def _beside(cell: int, count: int) -> int:
    """The coarser cell nearest to ``cell`` but for the one above it; the border repeats."""
    return min(max((cell >> 1) + 2 * (cell & 1) - 1, 0), count - 1)


@compiled
def merge(coarser: np.ndarray, level: np.ndarray, out: np.ndarray) -> None:
    """Each cell's symbols, the first C channels of ``level`` (N, C' > C, rows, columns), added to the vectors of the
    coarser cell (N, C, r, c) that its merge choice, channel C, names. ``out``: (N, C, rows, columns)."""
    count, channels, rows, columns = out.shape
    for n in range(count):
        for i in range(rows):
            for j in range(columns):
                choice = level[n, channels, i, j]
                y, x = i >> 1, j >> 1
                if choice != 0 and choice != -1:
                    y = _beside(i, coarser.shape[2])
                if choice != 0 and choice != 1:
                    x = _beside(j, coarser.shape[3])
                for c in range(channels):
                    out[n, c, i, j] = coarser[n, c, y, x] + level[n, c, i, j]


@compiled
def unrest(coarser: np.ndarray, out: np.ndarray) -> None:
    """(B, C, r, c) to (B, rows, columns): how far the merge candidates of each cell lie apart."""
    batch, rows, columns = out.shape
    for b in range(batch):
        for i in range(rows):
            for j in range(columns):
                y, x = i >> 1, j >> 1
                other_y, other_x = _beside(i, coarser.shape[2]), _beside(j, coarser.shape[3])
                total = np.float32(0)
                for c in range(coarser.shape[1]):
                    own = coarser[b, c, y, x]
                    total += abs(coarser[b, c, other_y, x] - own)
                    total += abs(coarser[b, c, y, other_x] - own)
                    total += abs(coarser[b, c, other_y, other_x] - own)
                out[b, i, j] = total
