"""The normative probability tables: discretised Laplace distributions with heavy tails, in integers.

Table ``(scale, fraction)`` gives the 24-bit frequencies of the symbols -127 .. 127 around a location of
``fraction / 4``. The scale grows by 2**(1/7) a step. Every decoder must hold the same integers, so they are
derived with integer arithmetic only, from two short lists of constants; no ``exp`` decides a bit. ``tables.bin``
holds what ``derived_frequencies`` gives, because deriving it takes as long as decoding a second of video.
"""

from __future__ import annotations

from functools import cache, lru_cache
from importlib import resources

import constriction
import numpy as np

__all__ = [
    "BIN_TOTAL",
    "FRACTIONS",
    "PRECISION_BITS",
    "SCALES",
    "TABLE_BOUND",
    "WIDE_SCALE",
    "WIDE_SHARE_BITS",
    "bin_model",
    "bits_of_bins",
    "cumulative_frequencies",
    "derived_frequencies",
    "model",
    "table_bits",
    "table_frequencies",
]

PRECISION_BITS = 24
SCALES = 64
"""Scale index i stands for b = 0.05 * 2**(i / 7)."""
WIDE_SCALE = 56
WIDE_SHARE_BITS = 4
"""A sixteenth of the probability of not being zero belongs to a Laplace of scale index WIDE_SCALE: heavy tails."""
FRACTIONS = 4
"""The location has quarter-symbol steps."""
TABLE_BOUND = 127
BIN_TOTAL = 4096
"""Probabilities of bins are counted in parts of so many."""

_FIXED_BITS = 60
_ONE = 1 << _FIXED_BITS
_LN2 = 799144290325165978  # floor(ln 2 * 2**60)
_ROOT = 1272928543325453668  # floor(2**(1/7) * 2**60)


def _multiply(a: int, b: int) -> int:
    return (a * b) >> _FIXED_BITS


def _exp_minus(x: int) -> int:
    """exp(-x) for x >= 0, both with 60 fractional bits: halve by ln 2, then 24 terms of the series."""
    halvings, rest = divmod(x, _LN2)
    if halvings >= _FIXED_BITS:
        return 0
    total, term = 0, _ONE
    for n in range(1, 25):
        total += term if n % 2 else -term
        term = _multiply(term, rest) // n
    return total >> halvings


def _inverse_scale(scale: int) -> int:
    """1 / b with 60 fractional bits."""
    b = _ONE // 20
    for _ in range(scale):
        b = _multiply(b, _ROOT)
    return _ONE * _ONE // b


def _cdf(eighths: int, inverse: int) -> int:
    """Cumulative Laplace distribution at ``eighths`` / 8 symbols, 60 fractional bits."""
    tail = _exp_minus(abs(eighths) * inverse >> 3) >> 1
    return tail if eighths < 0 else _ONE - tail


@cache
def _tables() -> np.ndarray:
    """int64 (SCALES * FRACTIONS, 255): all tables, as ``tables.bin`` holds them (little-endian, 32 bits each)."""
    data = resources.files("nvcodec.entropy").joinpath("tables.bin").read_bytes()
    return np.frombuffer(data, dtype="<u4").reshape(SCALES * FRACTIONS, -1).astype(np.int64)


def table_frequencies(scale: int, fraction: int) -> np.ndarray:
    """int64 (255,): frequency of symbol k - 127 given a location of fraction/4; the sum is 2**24, each >= 1."""
    return _tables()[scale * FRACTIONS + fraction]


def derived_frequencies(scale: int, fraction: int) -> np.ndarray:
    """What ``table_frequencies`` must give, from the definition."""
    narrow, wide = _inverse_scale(scale), _inverse_scale(WIDE_SCALE)
    share = _exp_minus(narrow >> 1) >> WIDE_SHARE_BITS if scale < WIDE_SCALE else 0
    edges = []
    for k in range(-TABLE_BOUND, TABLE_BOUND + 2):
        eighths = 8 * k - 4 - 2 * fraction
        edge = _cdf(eighths, narrow)
        edges.append(edge + _multiply(_cdf(eighths, wide) - edge, share))
    symbols = 2 * TABLE_BOUND + 1
    free = (1 << PRECISION_BITS) - symbols
    span = edges[-1] - edges[0]
    cumulative = [(e - edges[0]) * free // span for e in edges]
    return np.diff(np.array(cumulative, dtype=np.int64)) + 1


@cache
def model(table: int) -> constriction.stream.model.Categorical:
    """The entropy model of table index ``scale * FRACTIONS + fraction``; it codes symbol + 127.

    Given frequencies less one that sum to 2**24 - 255, constriction's fast quantisation scales them by
    exactly 1 and adds one to each, so the integers of the table are what drives the coder.
    """
    frequencies = table_frequencies(table // FRACTIONS, table % FRACTIONS)
    return constriction.stream.model.Categorical((frequencies - 1).astype(np.float64), perfect=False)


@cache
def bin_model(ones: int) -> constriction.stream.model.Categorical:
    """The entropy model of a bin that is 1 in ``ones`` cases of BIN_TOTAL; its integers are exact, as in ``model``."""
    unit = (1 << PRECISION_BITS) // BIN_TOTAL
    return constriction.stream.model.Categorical(
        np.array([(BIN_TOTAL - ones) * unit - 1, ones * unit - 1], dtype=np.float64), perfect=False
    )


def bits_of_bins(noted: np.ndarray) -> float:
    """What bins cost; ``noted``: of each twice the probability of 1 in BIN_TOTAL, and the bin."""
    ones = np.where(noted & 1, noted >> 1, BIN_TOTAL - (noted >> 1))
    return float(-np.log2(ones / BIN_TOTAL).sum())


@lru_cache(maxsize=1)
def cumulative_frequencies() -> np.ndarray:
    """uint32 (SCALES * FRACTIONS, 256): of each table, what the frequencies of its first k symbols come to."""
    sums = np.cumsum(_tables(), axis=1)
    return np.concatenate([np.zeros((len(sums), 1), np.int64), sums], axis=1).astype(np.uint32)


@lru_cache(maxsize=1)
def table_bits() -> np.ndarray:
    """float32 (SCALES * FRACTIONS, 255): the cost of each symbol in bits, for decisions and reports."""
    return (PRECISION_BITS - np.log2(_tables().astype(np.float64))).astype(np.float32)
