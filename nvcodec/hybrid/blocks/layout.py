"""What a frame of blocks consists of: quadtree, directions, transform levels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

__all__ = [
    "BLOCK_LOG2_MAX",
    "BLOCK_LOG2_MIN",
    "CHROMA_LINEAR",
    "CHROMA_LIST",
    "CHROMA_MODES",
    "CHROMA_SAME",
    "COMPENSATED",
    "DC",
    "HORIZONTAL",
    "LEVEL_BOUND",
    "MODES",
    "PLANAR",
    "SKIPPED",
    "STEP_BOUND",
    "VERTICAL",
    "BlockLayout",
    "BlockSymbols",
    "decoding_order",
    "scans",
]

BLOCK_LOG2_MIN, BLOCK_LOG2_MAX = 2, 5
"""Luma blocks are 4x4 to 32x32."""
PLANAR, DC, HORIZONTAL, VERTICAL = 0, 1, 10, 26
MODES = 35
"""Planar, DC, and 33 directions from the lower left (2) to the upper right (34)."""
SKIPPED, COMPENSATED = 35, 36
"""In the place of a mode: predicted from other frames, and nothing, or something, is left."""
CHROMA_SAME, CHROMA_LINEAR, CHROMA_LIST = 0, 1, 2
"""As luma; a linear function of luma; from here on one of four modes."""
CHROMA_MODES = 6
LEVEL_BOUND = (1 << 15) - 1
"""Magnitude of a transform level."""
STEP_BOUND = 63
"""Magnitude of the difference of a root's quantiser step, in indices, from that of the frame."""


@dataclass(frozen=True)
class BlockLayout:
    """Sizes of what is coded of a picture whose working domain has ``rows`` x ``columns`` samples."""

    rows: int
    columns: int

    @property
    def blocks(self) -> tuple[int, int]:
        """(rows, columns) of 8x8 luma blocks."""
        return (self.rows + 3) // 4, (self.columns + 3) // 4

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of the arrays of ``BlockSymbols``."""
        rows, columns = self.blocks
        units, roots = (2 * rows, 2 * columns), ((rows + 3) // 4, (columns + 3) // 4)
        return units, units, (rows, columns), roots, self.planes

    @property
    def planes(self) -> tuple[int, int, int]:
        """(3, rows, columns): Y, U and V in whole 8x8 blocks of luma; U and V fill a quarter."""
        rows, columns = self.blocks
        return 3, 8 * rows, 8 * columns

    def unpacked(self, samples: np.ndarray) -> np.ndarray:
        """(6, rows, columns) of the working domain to int32 (3, ...), see ``planes``; their borders repeat."""
        out = np.zeros(self.planes, np.int32)
        luma = out[0, : 2 * self.rows, : 2 * self.columns]
        for n in range(4):
            luma[n >> 1 :: 2, n & 1 :: 2] = samples[n]
        out[1:, : self.rows, : self.columns] = samples[4:]
        for plane, cell in zip(out, (2, 1, 1), strict=True):
            rows, columns = cell * self.rows, cell * self.columns
            high, wide = (cell * 4 * count for count in self.blocks)
            plane[:rows, columns:wide] = plane[:rows, columns - 1 : columns]
            plane[rows:high, :wide] = plane[rows - 1, :wide]
        return out

    def packed(self, planes: np.ndarray) -> np.ndarray:
        """The inverse of ``unpacked``: (6, rows, columns), float32."""
        luma = planes[0, : 2 * self.rows, : 2 * self.columns]
        out = np.empty((6, self.rows, self.columns), np.float32)
        for n in range(4):
            out[n] = luma[n >> 1 :: 2, n & 1 :: 2]
        out[4:] = planes[1:, : self.rows, : self.columns]
        return out


class BlockSymbols(NamedTuple):
    """What is coded of the blocks of a frame, int32 arrays. Compiled code is handed them one by one.

    In a picture of R x C blocks of 8x8 luma samples, all of them whole:
    """

    sizes: np.ndarray
    """(2 R, 2 C): log2 of the block's size, for each 4x4 luma samples."""
    modes: np.ndarray
    """(2 R, 2 C): the block's mode, or SKIPPED or COMPENSATED, for each 4x4 luma samples."""
    choices: np.ndarray
    """(R, C): choice of the chroma mode, for each 8x8 luma samples."""
    offsets: np.ndarray
    """(R / 4, C / 4), rounded up: how the quantiser step differs from the frame's, for each 32x32 luma samples."""
    levels: np.ndarray
    """(3, 8 R, 8 C): the levels of Y, U and V, where their blocks lie in ``BlockLayout.planes``."""

    @staticmethod
    def zeros(layout: BlockLayout) -> BlockSymbols:
        """To be filled in."""
        return BlockSymbols(*(np.zeros(shape, np.int32) for shape in layout.shapes))

    @staticmethod
    def empty(layout: BlockLayout, refers: bool) -> BlockSymbols:
        """Of a frame that is as its references predict it, or without them grey all over: in the largest blocks that
        there is room for."""
        made = BlockSymbols.zeros(layout)
        rows, columns = made.sizes.shape
        for log2 in range(BLOCK_LOG2_MIN + 1, BLOCK_LOG2_MAX + 1):
            units = 1 << (log2 - 2)
            made.sizes[: rows - rows % units, : columns - columns % units] = log2
        if refers:
            made.modes[:] = SKIPPED
        return made


@lru_cache(maxsize=1)
def scans() -> np.ndarray:
    """int32 (4, 1024, 2): (y, x) of the levels of a block of 4, 8, 16, 32 samples in coding order, along diagonals from
    the lower left to the upper right; the lowest frequency is the first."""
    out = np.zeros((4, 1024, 2), np.int32)
    for n in range(4):
        side = 4 << n
        places = [(d - x, x) for d in range(2 * side - 1) for x in range(d + 1) if d - x < side and x < side]
        out[n, : len(places)] = places
    return out


@lru_cache(maxsize=8)
def decoding_order(rows: int, columns: int) -> np.ndarray:
    """int32 (rows, columns): the place of each 4x4 luma unit in the order of decoding; roots in raster order, the four
    parts of a node as z."""
    y, x = np.mgrid[0:rows, 0:columns]
    place = ((y >> 3) * ((columns + 7) >> 3) + (x >> 3)) << 6
    for bit in range(3):
        place |= ((x >> bit & 1) << 2 * bit) | ((y >> bit & 1) << 2 * bit + 1)
    return place.astype(np.int32)
