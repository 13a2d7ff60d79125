"""Symbols in and out of the range coder, one stage of a level at a time.

``code_level`` is the way in for encoder and decoder. It is handed a channel: a ``SymbolWriter`` puts the
symbols it is given into the coder, a ``SymbolReader`` takes them out, in compiled code. Within a
stage the symbols are coded in ascending order of their table, then frame, channel, row, column: a handful
of calls for thousands of symbols.
"""

from __future__ import annotations

from typing import Protocol

import constriction
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nvcodec.entropy.context import (
    MARGIN,
    ChannelLayout,
    ContextWeights,
    stage_of,
)
from nvcodec.entropy.range_decoder import RangeDecoder
from nvcodec.entropy.tables import TABLE_BOUND, bin_model, bits_of_bins, model, table_bits

__all__ = ["CountingChannel", "SymbolChannel", "SymbolReader", "SymbolWriter", "code_level", "pad_even"]

_BIT = constriction.stream.model.Categorical(np.full(2, (1 << 23) - 1, dtype=np.float64), perfect=False)


class SymbolChannel(Protocol):
    """Where symbols go to or come from."""

    @property
    def bits(self) -> float:
        """What they cost so far."""

    def exchange(self, tables: np.ndarray, symbols: np.ndarray | None) -> np.ndarray:
        """Code one symbol for each table index, in order of (table, position). Symbols lie in -127 .. 127."""

    def exchange_flags(self, flags: np.ndarray | None, count: int) -> np.ndarray:
        """Code ``count`` equiprobable bits."""

    def exchange_bins(self, noted: np.ndarray) -> None:
        """Write bins, as ``nvcodec.hybrid.blocks.bins_cpu`` notes them; what reads takes them one by one."""


class SymbolWriter:
    """Writes symbols to a range coder and keeps account of what they cost."""

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()
        self._bits = 0.0

    @property
    def bits(self) -> float:
        """What the symbols cost so far."""
        return self._bits

    def exchange(self, tables: np.ndarray, symbols: np.ndarray | None) -> np.ndarray:
        assert symbols is not None
        order = np.argsort(tables, kind="stable")
        coded = np.ascontiguousarray((symbols[order] + TABLE_BOUND).astype(np.int32))
        for table, start, end in _runs(tables[order]):
            self._coder.encode(coded[start:end], model(table))
        self._bits += _bits(tables, symbols + TABLE_BOUND)
        return symbols

    def exchange_flags(self, flags: np.ndarray | None, count: int) -> np.ndarray:
        assert flags is not None
        self._coder.encode(flags.astype(np.int32), _BIT)
        self._bits += count
        return flags

    def exchange_bins(self, noted: np.ndarray) -> None:
        for bin_ in noted.tolist():
            self._coder.encode(bin_ & 1, bin_model(bin_ >> 1))
        self._bits += bits_of_bins(noted)

    def finish(self) -> bytes:
        """The coded words, little endian."""
        return bytes(self._coder.get_compressed().astype("<u4").tobytes())


class CountingChannel:
    """Takes symbols like a SymbolWriter, and only counts what they cost."""

    def __init__(self) -> None:
        self.bits = 0.0

    def exchange(self, tables: np.ndarray, symbols: np.ndarray | None) -> np.ndarray:
        assert symbols is not None
        self.bits += _bits(tables, symbols + TABLE_BOUND)
        return symbols

    def exchange_flags(self, flags: np.ndarray | None, count: int) -> np.ndarray:
        assert flags is not None
        self.bits += count
        return flags

    def exchange_bins(self, noted: np.ndarray) -> None:
        self.bits += bits_of_bins(noted)


class SymbolReader:
    """Reads symbols from the words that a SymbolWriter wrote."""

    def __init__(self, data: bytes) -> None:
        self.decoder = RangeDecoder(data)

    @property
    def bits(self) -> float:
        """What the symbols cost so far."""
        return self.decoder.bits

    def exchange(self, tables: np.ndarray, symbols: np.ndarray | None = None) -> np.ndarray:
        return self.decoder.symbols(tables)

    def exchange_flags(self, flags: np.ndarray | None, count: int) -> np.ndarray:
        return self.decoder.flags(count)

    def exchange_bins(self, noted: np.ndarray) -> None:
        raise TypeError("bins are read one by one")

    def finish(self) -> None:
        """Raise SyntaxViolation unless all data has been used."""
        self.decoder.finish()


def _bits(tables: np.ndarray, coded: np.ndarray) -> float:
    """What symbols, counted from the least one, cost."""
    bits = table_bits()
    return float(bits.reshape(-1)[tables * np.int32(bits.shape[1]) + coded].sum(dtype=np.float64))


def _runs(sorted_tables: np.ndarray) -> list[tuple[int, int, int]]:
    """(table, start, end) of the runs of equal values."""
    if not len(sorted_tables):
        return []
    changes = np.flatnonzero(sorted_tables[1:] != sorted_tables[:-1]) + 1
    starts, ends = [0, *changes.tolist()], [*changes.tolist(), len(sorted_tables)]
    return list(zip(sorted_tables[starts].tolist(), starts, ends, strict=True))


def _wrapped(x: np.ndarray) -> np.ndarray:
    """x modulo 255 in -127 .. 127: every symbol can be coded around every location."""
    return (x + TABLE_BOUND) % (2 * TABLE_BOUND + 1) - TABLE_BOUND


def pad_even(x: Tensor) -> Tensor:
    """(..., rows, columns) zero-padded below and right to even sizes."""
    if x.shape[-1] % 2 == x.shape[-2] % 2 == 0:
        return x
    return F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2))


def code_level(
    channel: SymbolChannel,
    symbols: Tensor | None,
    layout: ChannelLayout,
    side: Tensor,
    weights: ContextWeights,
    output_bias: Tensor,
) -> Tensor:
    """Code one level of a coding unit; ``symbols`` (B, C, rows, columns) to write, None to read.

    ``side``: (B, C + 2, rows, columns), C channels by ``layout``. ``output_bias``: (C, 2).
    Returns the symbols, float32 integers. All tensors lie on the CPU.
    """
    from nvcodec.entropy.context_cpu import LevelContext  # brings a compiler: only where symbols are coded

    channels = len(layout)
    batch, _, rows, columns = side.shape
    size = (rows + rows % 2, columns + columns % 2)
    level = np.zeros((batch, channels, size[0] + 2 * MARGIN, size[1] + 2 * MARGIN), np.int32)
    inner = level[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN]
    context = LevelContext(layout, pad_even(side).numpy(), weights, output_bias)
    if isinstance(channel, SymbolReader):
        context.read(channel.decoder, level, (rows, columns))
        return torch.from_numpy(inner[:, :, :rows, :columns].astype(np.float32))
    target = pad_even(symbols).numpy().astype(np.int32) if symbols is not None else None
    inside = np.zeros((1, channels, *size), bool)
    inside[:, :, :rows, :columns] = True
    for stage, phases in enumerate(stage_of(channels)):
        tables, centre = context.stage(level, stage)
        values = _at_phases(target, phases) if target is not None else None
        coded = np.broadcast_to(_at_phases(inside, phases), tables.shape)
        read = _exchange(channel, values, tables, centre, coded)
        for c, (row, column) in enumerate(phases):
            inner[:, c, row::2, column::2] = read[:, c]
    return torch.from_numpy(inner[:, :, :rows, :columns].astype(np.float32))


def _at_phases(level: np.ndarray, phases: tuple[tuple[int, int], ...]) -> np.ndarray:
    return np.stack([level[:, c, row::2, column::2] for c, (row, column) in enumerate(phases)], axis=1)


def _exchange(
    channel: SymbolChannel, values: np.ndarray | None, tables: np.ndarray, centre: np.ndarray, coded: np.ndarray
) -> np.ndarray:
    """The symbols of one stage: ``values``, written, or those that are read; 0 where ``coded`` is not set."""
    if values is not None:
        channel.exchange(tables[coded], _wrapped(values - centre)[coded])
        return values
    if coded.all():
        return _wrapped(channel.exchange(tables.reshape(-1), None).reshape(tables.shape) + centre)
    values = np.zeros(tables.shape, dtype=np.int32)
    values[coded] = _wrapped(channel.exchange(tables[coded], None) + centre[coded])
    return values
