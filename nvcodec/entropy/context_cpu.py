"""The context model: the integers of ``nvcodec.entropy.context``, symbol by symbol, in compiled code.

A level of a small picture has a few thousand symbols; as tensors, the dozens of operations that a stage takes cost
more than what they compute. numba compiles the function below when it is first called on a machine, and keeps the
result on disk. As everywhere in the decode process, float32 holds integers below 2**24, exactly.
"""

from __future__ import annotations

from functools import cache, partial
from itertools import pairwise

import numpy as np
import torch

from nvcodec.core.compiled import compiled
from nvcodec.core.parallel import run_all
from nvcodec.entropy.context import (
    FEATURE_BOUND,
    FEATURES,
    HIDDEN,
    HIDDEN_BOUND,
    LOCATION_BOUND,
    LOG_BOUND,
    MARGIN,
    OUTPUT_SHIFT,
    OUTPUT_STEP_BITS,
    SIDE_FEATURES,
    STAGES,
    WEIGHT_SHIFT,
    ChannelLayout,
    ContextWeights,
    log_table,
    stage_kernels,
    stage_of,
)
from nvcodec.entropy.range_decoder import RangeDecoder, read_in_order
from nvcodec.entropy.tables import FRACTIONS, SCALES, TABLE_BOUND, cumulative_frequencies

__all__ = ["LevelContext", "occupied", "stage_taps"]

_PART = 4096
"""Symbols that are worth a thread."""
_LARGE = 1 << 17
"""Symbols of a level whose stages are worth threads."""


class LevelContext:
    """Says for each stage of one level which table codes a symbol, and around which centre."""

    def __init__(self, layout: ChannelLayout, side: np.ndarray, weights: ContextWeights, bias: torch.Tensor) -> None:
        """``side``: (B, C + 2, rows, columns), even sizes. ``bias``: (C, 2). All integers."""
        self._layout = layout
        self._side = np.ascontiguousarray(side, np.float32)
        self._hidden = np.ascontiguousarray(weights.hidden.numpy().T)
        self._hidden_bias = weights.hidden_bias.numpy() * np.float32(1 << WEIGHT_SHIFT)
        self._output = weights.output.numpy()
        self._bias = bias.numpy() * np.float32(1 << OUTPUT_SHIFT)

    def stage(self, level: np.ndarray, stage: int) -> tuple[np.ndarray, np.ndarray]:
        """Tables (uint8) and centres (int32) of what ``stage`` reads, each (B, C, rows / 2, columns / 2).

        ``level``: (B, C, rows + 2 * MARGIN, columns + 2 * MARGIN), int32; what is not read yet is 0.
        """
        taps, starts, phases = stage_taps(self._layout, stage)
        batch, channels, rows, columns = level.shape
        shape = (batch, channels, rows // 2 - MARGIN, columns // 2 - MARGIN)
        tables, centres = np.empty(shape, np.uint8), np.empty(shape, np.int32)
        near_any = np.empty((batch, 2 * shape[2], 2 * shape[3]), np.bool_)
        for b in range(batch):
            occupied(level[b], near_any[b])

        def run(begin: int, end: int) -> None:
            _stage_tables(
                level, self._side, near_any, taps, starts, phases, log_table(), self._hidden,
                self._hidden_bias[stage], self._output, self._bias, begin, end, tables, centres,
            )  # fmt: skip

        parts = min(channels, max(1, tables.size // _PART))
        cuts = [channels * k // parts for k in range(parts + 1)]
        run_all([partial(run, begin, end) for begin, end in pairwise(cuts)])
        return tables, centres

    def read(self, decoder: RangeDecoder, level: np.ndarray, size: tuple[int, int]) -> None:
        """Read all stages of a level into ``level``, see ``stage``: zeros at first. ``size``: rows and columns of what
        is coded. Raises TruncatedError."""
        coder = (decoder.words, decoder.state, cumulative_frequencies())
        taps, starts, phases = zip(*(stage_taps(self._layout, stage) for stage in range(STAGES)), strict=True)
        if level.size < _LARGE:  # one call, one thread
            whole = _read_level(
                *coder, level, self._side, taps, starts, phases, log_table(), self._hidden, self._hidden_bias,
                self._output, self._bias, size,
            )  # fmt: skip
            decoder.check(whole)
            return
        for stage in range(STAGES):
            decoder.check(_read_stage(*coder, *self.stage(level, stage), phases[stage], size, level))


@cache
def stage_taps(layout: ChannelLayout, stage: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The kernels of ``stage_kernels`` as lists: rows of (channel, row, column, near, wide, cross, mean).

    Those of channel c stand from ``starts[c]`` to ``starts[c + 1]``. ``phases``: (C, 2), what each channel reads.
    """
    channels = len(layout)
    magnitude, signed = (kernel.numpy().astype(np.int32) for kernel in stage_kernels(layout, stage))
    near, wide, cross = magnitude.reshape(3, channels, channels, *magnitude.shape[2:])
    taps: list[tuple[int, ...]] = []
    starts = [0]
    for c in range(channels):
        used = (near[c] != 0) | (wide[c] != 0) | (cross[c] != 0) | (signed[c] != 0)
        for place in map(tuple, np.argwhere(used)):
            taps.append((*place, near[c][place], wide[c][place], cross[c][place], signed[c][place]))
        starts.append(len(taps))
    table = np.array(taps, dtype=np.int32).reshape(-1, 7)
    return table, np.array(starts, dtype=np.int32), np.array(stage_of(channels)[stage], dtype=np.int32)


@compiled
def occupied(level: np.ndarray, found: np.ndarray) -> None:
    """Mark in ``found``, (rows, columns), every place with a symbol within MARGIN that is not zero, in any channel.

    ``level``: (C, rows + 2 * MARGIN, columns + 2 * MARGIN) or more.
    """
    rows, columns = found.shape
    found[:] = False
    for c in range(level.shape[0]):
        for y in range(level.shape[1]):
            for x in range(level.shape[2]):
                if level[c, y, x] != 0:
                    found[max(y - 2 * MARGIN, 0) : min(y + 1, rows), max(x - 2 * MARGIN, 0) : min(x + 1, columns)] = (
                        True
                    )


@partial(compiled, fastmath={"reassoc", "contract"})
def _stage_tables(
    level: np.ndarray, side: np.ndarray, near_any: np.ndarray, taps: np.ndarray, starts: np.ndarray,
    phases: np.ndarray, logarithms: np.ndarray, hidden: np.ndarray, hidden_bias: np.ndarray, output: np.ndarray,
    bias: np.ndarray, begin: int, end: int, tables: np.ndarray, centres: np.ndarray,
) -> None:  # fmt: skip
    """Of channels ``begin`` to ``end``, row by row. All sums are of integers below 2**24: their order is no matter."""
    batch, channels, rows, columns = tables.shape
    seen = np.zeros((FEATURES, columns), np.float32)
    sums = np.empty(columns, np.float32)
    location, scale = np.empty(columns, np.float32), np.empty(columns, np.float32)
    hidden_step = np.float32(2.0**-WEIGHT_SHIFT)
    output_step = np.float32(2.0 ** -(OUTPUT_SHIFT + OUTPUT_STEP_BITS))
    half, least, most = np.float32(0.5), np.float32(0), np.float32(HIDDEN_BOUND)
    for b in range(batch):
        for c in range(begin, end):
            for i in range(rows):
                y, left = 2 * i + phases[c, 0], phases[c, 1]
                first = FEATURES - SIDE_FEATURES
                for j in range(columns):
                    x = 2 * j + left
                    seen[5, j] = side[b, c, y, x]
                    seen[6, j] = side[b, channels, y, x]
                    seen[7, j] = side[b, channels + 1, y, x]
                    if near_any[b, y, x]:
                        if first:
                            first = 0
                            seen[: FEATURES - SIDE_FEATURES] = 0
                        near, wide, cross, mean = 0, 0, 0, 0
                        for t in range(starts[c], starts[c + 1]):
                            value = level[b, taps[t, 0], 2 * i + taps[t, 1], 2 * j + taps[t, 2]]
                            if value != 0:
                                size = abs(value)
                                near += taps[t, 3] * size
                                wide += taps[t, 4] * size
                                cross += taps[t, 5] * size
                                mean += taps[t, 6] * value
                        mean = min(max(mean, -FEATURE_BOUND), FEATURE_BOUND)
                        seen[0, j] = logarithms[min(near, LOG_BOUND)]
                        seen[1, j] = logarithms[min(wide, LOG_BOUND)]
                        seen[2, j] = logarithms[min(cross, LOG_BOUND)]
                        seen[3, j] = mean
                        seen[4, j] = logarithms[abs(mean)]
                location[:] = bias[c, 0]
                scale[:] = bias[c, 1]
                for u in range(HIDDEN):
                    sums[:] = hidden_bias[u]
                    for f in range(first, FEATURES):
                        weight = hidden[f, u]
                        for j in range(columns):
                            sums[j] += weight * seen[f, j]
                    by_location, by_scale = output[0, u], output[1, u]
                    for j in range(columns):
                        unit = min(max(np.floor(sums[j] * hidden_step + half), least), most)
                        location[j] += by_location * unit
                        scale[j] += by_scale * unit
                for j in range(columns):
                    quarters = int(np.floor(location[j] * output_step + half))
                    quarters = min(max(quarters, -LOCATION_BOUND), LOCATION_BOUND)
                    index = min(max(int(np.floor(scale[j] * output_step + half)), 0), SCALES - 1)
                    whole = quarters // FRACTIONS
                    tables[b, c, i, j] = index * FRACTIONS + quarters - whole * FRACTIONS
                    centres[b, c, i, j] = min(max(whole, -TABLE_BOUND), TABLE_BOUND)


@compiled
def _read_stage(
    words: np.ndarray, state: np.ndarray, cumulative: np.ndarray, tables: np.ndarray, centres: np.ndarray,
    phases: np.ndarray, size: tuple[int, int], level: np.ndarray,
) -> bool:  # fmt: skip
    """Read the symbols of one stage into ``level``, those that lie within ``size``; False where there are none."""
    batch, channels, rows, columns = tables.shape
    wanted = np.empty(tables.size, np.uint8)
    count = 0
    for b in range(batch):
        for c in range(channels):
            for i in range(rows):
                for j in range(columns):
                    if 2 * i + phases[c, 0] < size[0] and 2 * j + phases[c, 1] < size[1]:
                        wanted[count] = tables[b, c, i, j]
                        count += 1
    read = np.empty(count, np.int32)
    if not read_in_order(words, state, cumulative, wanted[:count], read):
        return False
    count = 0
    for b in range(batch):
        for c in range(channels):
            for i in range(rows):
                for j in range(columns):
                    y, x = 2 * i + phases[c, 0], 2 * j + phases[c, 1]
                    if y < size[0] and x < size[1]:
                        symbol = read[count] - TABLE_BOUND + centres[b, c, i, j]
                        if symbol > TABLE_BOUND:
                            symbol -= 2 * TABLE_BOUND + 1
                        elif symbol < -TABLE_BOUND:
                            symbol += 2 * TABLE_BOUND + 1
                        level[b, c, y + MARGIN, x + MARGIN] = symbol
                        count += 1
    return True


@compiled
def _read_level(
    words: np.ndarray, state: np.ndarray, cumulative: np.ndarray, level: np.ndarray, side: np.ndarray,
    taps: tuple[np.ndarray, ...], starts: tuple[np.ndarray, ...], phases: tuple[np.ndarray, ...],
    logarithms: np.ndarray, hidden: np.ndarray, hidden_bias: np.ndarray, output: np.ndarray, bias: np.ndarray,
    size: tuple[int, int],
) -> bool:  # fmt: skip
    """All stages of a level, one after the other; False where the data belong to no symbol."""
    batch, channels, padded_rows, padded_columns = level.shape
    rows, columns = padded_rows - 2 * MARGIN, padded_columns - 2 * MARGIN
    near_any = np.empty((batch, rows, columns), np.bool_)
    tables = np.empty((batch, channels, rows // 2, columns // 2), np.uint8)
    centres = np.empty(tables.shape, np.int32)
    for stage in range(len(taps)):
        for b in range(batch):
            occupied(level[b], near_any[b])
        _stage_tables(
            level, side, near_any, taps[stage], starts[stage], phases[stage], logarithms, hidden, hidden_bias[stage],
            output, bias, 0, channels, tables, centres,
        )  # fmt: skip
        if not _read_stage(words, state, cumulative, tables, centres, phases[stage], size, level):
            return False
    return True
