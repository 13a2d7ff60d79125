"""Pseudo-random symbols of the blocks of a frame, as reading would give them: for vectors, damaged files and tests.

Only ``random.random()`` is drawn, which Python keeps the same from version to version.
"""

from __future__ import annotations

from random import Random

import numpy as np

from nvcodec.hybrid.blocks.layout import (
    BLOCK_LOG2_MAX,
    CHROMA_MODES,
    COMPENSATED,
    DC,
    HORIZONTAL,
    MODES,
    PLANAR,
    SKIPPED,
    STEP_BOUND,
    VERTICAL,
    BlockLayout,
    BlockSymbols,
)

__all__ = ["draw_blocks"]

_SPLIT, _CODED, _PLAIN = 0.5, 0.7, 0.4
"""Share of the nodes that are split, of the blocks that have levels, and of those with one of four modes."""
_PLAIN_MODES = (PLANAR, DC, HORIZONTAL, VERTICAL)
_KINDS = 3
"""Nodes that refer: with modes of their own, skipped, compensated."""


def draw_blocks(
    random: Random, layout: BlockLayout, refers: bool, chance: float, amplitude: int, steps: int = 0
) -> BlockSymbols:
    """``chance``: of a level in a block with levels to be drawn, from -amplitude .. amplitude. ``steps``: the same of
    the difference of a root's quantiser step."""
    symbols = BlockSymbols.zeros(layout)
    before = 0
    for row in range(0, symbols.sizes.shape[0], 8):
        for column in range(0, symbols.sizes.shape[1], 8):
            wanted = min(max(before + _drawn(random, steps), -STEP_BOUND), STEP_BOUND)
            if _draw_node(random, symbols, refers, (row, column, BLOCK_LOG2_MAX), chance, amplitude):
                before = wanted
            symbols.offsets[row >> 3, column >> 3] = before
    return symbols


def _drawn(random: Random, amplitude: int) -> int:
    return int(random.random() * (2 * amplitude + 1)) - amplitude


def _draw_node(
    random: Random, symbols: BlockSymbols, refers: bool, node: tuple[int, int, int], chance: float, amplitude: int
) -> bool:
    """Fill in a node of 2**log2 luma samples from the unit (row, column) on; whether any of its levels is not 0."""
    row, column, log2 = node
    rows, columns = symbols.sizes.shape
    units = 1 << (log2 - 2)
    if row >= rows or column >= columns:
        return False
    is_inside = row + units <= rows and column + units <= columns
    is_split = not is_inside or random.random() < _SPLIT
    if not is_split or log2 == 3:
        return _draw_leaf(random, symbols, refers, (row, column, 2 if is_split else log2), chance, amplitude)
    parts = [(row + units // 2 * (k // 2), column + units // 2 * (k % 2), log2 - 1) for k in range(4)]
    found = [_draw_node(random, symbols, refers, part, chance, amplitude) for part in parts]
    return any(found)


def _draw_leaf(
    random: Random, symbols: BlockSymbols, refers: bool, leaf: tuple[int, int, int], chance: float, amplitude: int
) -> bool:
    sizes, modes, choices, _, levels = symbols
    row, column, log2 = leaf
    units, step = 1 << (max(log2, 3) - 2), 1 << (log2 - 2)
    parts = [(y, x) for y in range(row, row + units, step) for x in range(column, column + units, step)]
    place = slice(row, row + units), slice(column, column + units)
    sizes[place] = log2
    kind = int(random.random() * _KINDS) if refers else 0
    if kind:
        modes[place] = SKIPPED if kind == 1 else COMPENSATED
    else:
        for y, x in parts:
            is_plain = random.random() < _PLAIN
            drawn = random.random()
            modes[y : y + step, x : x + step] = _PLAIN_MODES[int(4 * drawn)] if is_plain else int(drawn * MODES)
        choices[row >> 1 : (row + units) >> 1, column >> 1 : (column + units) >> 1] = int(
            random.random() * CHROMA_MODES
        )
    if kind == 1:
        return False
    blocks = [levels[0, 4 * y : 4 * (y + step), 4 * x : 4 * (x + step)] for y, x in parts]
    blocks += [plane[2 * row : 2 * (row + units), 2 * column : 2 * (column + units)] for plane in levels[1:]]
    for block in blocks:
        if random.random() < _CODED:
            for at in np.ndindex(*block.shape):
                if random.random() < chance:
                    block[at] = _drawn(random, amplitude)
    return any(block.any() for block in blocks)
