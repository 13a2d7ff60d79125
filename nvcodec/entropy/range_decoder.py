"""The range decoder of the format (chapter 11 of the specification), in compiled code.

It reads what ``constriction``'s range encoder writes, with words of 32 bits, a state of 64 bits and frequencies of 24
bits. constriction has a decoder too; ours stands in compiled code beside the context model, so that a level is read in
one call, where constriction takes one for each run of symbols with one table.
"""

from __future__ import annotations

import math

import numpy as np

from nvcodec.core.compiled import compiled
from nvcodec.core.errors import SyntaxViolation, TruncatedError
from nvcodec.entropy.tables import PRECISION_BITS, TABLE_BOUND, cumulative_frequencies

__all__ = ["RangeDecoder", "read_in_order"]

_WORD_BITS = 32
_STATE_BITS = 64
_LOWER, _RANGE, _POINT, _TAKEN = range(4)
_BIT = np.array([[0, 1 << (PRECISION_BITS - 1), 1 << PRECISION_BITS]], dtype=np.uint32)

_WORD = np.uint64(_WORD_BITS)
_PRECISION = np.uint64(PRECISION_BITS)
_LEAST_RANGE = np.uint64(1 << (_STATE_BITS - _WORD_BITS))
_ONE = np.uint64(1)


class RangeDecoder:
    """Reads symbols from words, and says how many bits they took.

    Attributes:
        words: uint32, all of the data.
        state: uint64 (4,): lower, range and point of the specification, and how many words are taken.
    """

    def __init__(self, data: bytes) -> None:
        """Raises SyntaxViolation where ``data`` are not whole words."""
        if len(data) % (_WORD_BITS // 8):
            raise SyntaxViolation(f"entropy-coded data of {len(data)} bytes is not a whole number of 32-bit words")
        self.words = np.frombuffer(data, dtype="<u4").astype(np.uint32)
        first, second = (int(w) for w in [*self.words[:2], 0, 0][:2])
        self.state = np.array([0, 2**_STATE_BITS - 1, (first << _WORD_BITS) + second, 2], dtype=np.uint64)

    @property
    def bits(self) -> float:
        """What has been read so far cost, to a part in a thousand: by how much the range has shrunk."""
        return _WORD_BITS * (int(self.state[_TAKEN]) - 2) + _STATE_BITS - math.log2(int(self.state[_RANGE]))

    def flags(self, count: int) -> np.ndarray:
        """``count`` equiprobable bits, int32. Raises TruncatedError."""
        out = np.empty(count, np.int32)
        self.check(read_in_order(self.words, self.state, _BIT, np.zeros(count, np.uint8), out))
        return out

    def symbols(self, tables: np.ndarray) -> np.ndarray:
        """int32, one symbol in -127 .. 127 for each table index (uint8); they are coded in ascending order of
        (table, position). Raises TruncatedError."""
        out = np.empty(len(tables), np.int32)
        self.check(read_in_order(self.words, self.state, cumulative_frequencies(), tables, out))
        out -= TABLE_BOUND
        return out

    def check(self, is_whole: bool) -> None:
        """Raise TruncatedError if a kernel says that the data belong to no symbol."""
        if not is_whole:
            raise TruncatedError("entropy-coded data ends early or is damaged")

    def finish(self) -> None:
        """Raise SyntaxViolation unless all data has been used."""
        left = (int(self.state[_POINT]) - int(self.state[_LOWER])) % 2**_STATE_BITS
        if self.state[_TAKEN] < len(self.words) or left >= 2 ** (_WORD_BITS + 1) - 1:
            raise SyntaxViolation("entropy-coded data goes on after its last symbol")


@compiled
def read_in_order(
    words: np.ndarray, state: np.ndarray, cumulative: np.ndarray, tables: np.ndarray, out: np.ndarray
) -> bool:
    """Symbols (counted from the least one) of ``tables``, in ascending order of (table, position); False where the data
    belong to none. ``cumulative``: uint32 (tables, symbols + 1).

    The specification divides by ``unit`` to find a symbol; here the frequencies are multiplied by it.
    """
    starts = np.zeros(len(cumulative) + 1, np.int32)
    for table in tables:
        starts[table + 1] += 1
    for table in range(len(cumulative)):
        starts[table + 1] += starts[table]
    order = np.empty(len(tables), np.int32)
    for position in range(len(tables)):
        table = tables[position]
        order[starts[table]] = position
        starts[table] += 1
    lower, span, point, taken = state[_LOWER], state[_RANGE], state[_POINT], state[_TAKEN]
    last = cumulative.shape[1] - 1
    begin = 0
    for table in range(len(cumulative)):
        for n in range(begin, starts[table]):
            unit, target = span >> _PRECISION, point - lower
            low = last >> 1
            first, end = unit * np.uint64(cumulative[table, low]), unit * np.uint64(cumulative[table, low + 1])
            if target < first or target >= end:  # not 0, which most are
                low, high = (0, low) if target < first else (low + 1, last)
                while high - low > 1:
                    middle = (low + high) >> 1
                    if unit * np.uint64(cumulative[table, middle]) <= target:
                        low = middle
                    else:
                        high = middle
                first, end = unit * np.uint64(cumulative[table, low]), unit * np.uint64(cumulative[table, low + 1])
                if target >= end:
                    return False
            out[order[n]] = low
            lower, span = lower + first, end - first
            if span < _LEAST_RANGE:
                lower, span, point = lower << _WORD, span << _WORD, point << _WORD
                if taken < np.uint64(len(words)):
                    point |= np.uint64(words[taken])
                taken += _ONE
        begin = starts[table]
    state[_LOWER], state[_RANGE], state[_POINT], state[_TAKEN] = lower, span, point, taken
    return True
