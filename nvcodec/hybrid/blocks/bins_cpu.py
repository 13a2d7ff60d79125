"""Bins: bits whose probability follows what was coded before them, through the range coder."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from nvcodec.core.compiled import compiled
from nvcodec.entropy.tables import BIN_TOTAL, PRECISION_BITS

__all__ = [
    "BITS",
    "COST",
    "COUNT",
    "FAILED",
    "PRICE_BITS",
    "READ",
    "STEP_BEFORE",
    "STEP_NOW",
    "STEP_PENDING",
    "TAKEN",
    "WRITE",
    "code_bin",
    "code_plain",
    "new_coder",
    "notes_of",
    "one_in_4096",
    "price_of",
    "probabilities_of",
]

READ, WRITE, COST = range(3)
"""What a bin goes through: read from words; noted for the range encoder; priced, and no probability moves."""

LOWER, RANGE, POINT, TAKEN = range(4)
"""Places in a coder, see ``new_coder``: the range decoder, and how many words it has taken;"""
FAILED, COUNT, BITS = range(4, 7)
"""whether the words belong to no bin; number of bins that were noted; what bins cost that were priced;"""
STEP_PENDING, STEP_NOW, STEP_BEFORE = range(7, 10)
"""of the root that is being coded: whether its quantiser step is still to come, its difference from the frame's, and
that of the root before;"""
_WORDS, _WORD_COUNT, _NOTES, _NOTE_COUNT = range(10, 14)
"""where the words begin and how many there are, and the same of the room for bins;"""
_PRICES = 16
"""and from here on the price of what happens so often in 4096, then the probabilities of all contexts, three each: two
means of 65536 and the number of bins, up to _COUNTED; words; room for bins."""
_PROBABILITIES = _PRICES + BIN_TOTAL + 1

FAST, SLOW = 4, 7
"""Two means of the bins of a context follow them at these speeds; the slow one is faster at first."""
_FIRST, _COUNTED = 4, 24
_LEAST = 3
"""Of 4096: no bin is less probable."""
PRICE_BITS = 16
"""Fraction bits of prices."""

_PRECISION = np.uint64(PRECISION_BITS)
_WORD = np.uint64(32)
_LEAST_RANGE = np.uint64(1 << 32)


@lru_cache(maxsize=1)
def _prices() -> np.ndarray:
    """int64 (BIN_TOTAL + 1,)."""
    bits = -np.log2(np.maximum(np.arange(BIN_TOTAL + 1), 0.5) / BIN_TOTAL)
    return np.rint(bits * (1 << PRICE_BITS)).astype(np.int64)


def new_coder(probabilities: np.ndarray, words: np.ndarray | None = None, room: int = 0) -> np.ndarray:
    """What codes bins, int64: one array, because every one that is handed on costs time.

    ``probabilities``: (contexts, 3). ``words``: to read from, uint32. ``room``: bins that can be noted.
    """
    words = np.zeros(0, np.uint32) if words is None else words
    head = np.zeros(_PRICES, np.int64)
    start = _PROBABILITIES + probabilities.size
    head[[_WORDS, _WORD_COUNT, _NOTES, _NOTE_COUNT]] = start, len(words), start + len(words), room
    return np.concatenate([head, _prices(), probabilities.reshape(-1), words, np.zeros(room, np.int64)])


def probabilities_of(coder: np.ndarray) -> np.ndarray:
    """(contexts, 3): where those of ``coder`` lie."""
    return coder[_PROBABILITIES : coder[_WORDS]].reshape(-1, 3)


def notes_of(coder: np.ndarray) -> np.ndarray:
    """Of each bin that was noted twice the probability of 1 in BIN_TOTAL, and the bin."""
    return coder[coder[_NOTES] : coder[_NOTES] + coder[COUNT]]


@compiled
def one_in_4096(coder, context):
    """Of 4096, how often the bin of ``context`` is taken to be 1."""
    at = _PROBABILITIES + 3 * context
    return min(max((coder[at] + coder[at + 1]) >> 5, _LEAST), BIN_TOTAL - _LEAST)


@compiled
def price_of(coder, context, bit):
    """Of a bin, in bits times 2**PRICE_BITS."""
    ones = one_in_4096(coder, context)
    return coder[_PRICES + (ones if bit else BIN_TOTAL - ones)]


@compiled
def _adapt(coder, context, bit):
    at = _PROBABILITIES + 3 * context
    count = coder[at + 2]
    slow = min(SLOW, _FIRST + (count >> 3))
    target = 65535 if bit else 0
    coder[at] += (target - coder[at]) >> FAST
    coder[at + 1] += (target - coder[at + 1]) >> slow
    if count < _COUNTED:
        coder[at + 2] = count + 1


@compiled
def _read(ones, coder):
    lower, span, point = np.uint64(coder[LOWER]), np.uint64(coder[RANGE]), np.uint64(coder[POINT])
    unit, target = span >> _PRECISION, point - lower
    bound = unit * np.uint64((BIN_TOTAL - ones) << (PRECISION_BITS - 12))
    bit = 0
    if target < bound:
        span = bound
    else:
        bit = 1
        if target >= unit << _PRECISION:
            coder[FAILED] = 1
        lower, span = lower + bound, (unit << _PRECISION) - bound
    if span < _LEAST_RANGE:
        lower, span, point = lower << _WORD, span << _WORD, point << _WORD
        if coder[TAKEN] < coder[_WORD_COUNT]:
            point |= np.uint64(coder[coder[_WORDS] + coder[TAKEN]])
        coder[TAKEN] += 1
    coder[LOWER], coder[RANGE], coder[POINT] = np.int64(lower), np.int64(span), np.int64(point)
    return bit


@compiled
def _note(ones, bit, coder):
    if coder[COUNT] < coder[_NOTE_COUNT]:
        coder[coder[_NOTES] + coder[COUNT]] = 2 * ones + bit
    coder[COUNT] += 1


@compiled
def code_plain(action, bit, coder):
    """One equiprobable bin; returns it."""
    if action == READ:
        return _read(BIN_TOTAL // 2, coder)
    if action == COST:
        coder[BITS] += 1 << PRICE_BITS
    else:
        _note(BIN_TOTAL // 2, bit, coder)
    return bit


@compiled
def code_bin(action, context, bit, coder):
    """One bin by its context; returns it."""
    if action == COST:
        coder[BITS] += price_of(coder, context, bit)
        return bit
    ones = one_in_4096(coder, context)
    if action == READ:
        bit = _read(ones, coder)
    else:
        _note(ones, bit, coder)
    _adapt(coder, context, bit)
    return bit
