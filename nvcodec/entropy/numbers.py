"""Small numbers of a payload: unsigned ones of fixed length, and rows of numbers that are near each other."""

from __future__ import annotations

import numpy as np

from nvcodec.core.errors import LimitError
from nvcodec.entropy.symbols import SymbolChannel
from nvcodec.entropy.tables import FRACTIONS, SCALES, table_bits

__all__ = ["SCALE_BITS", "best_scale", "code_number", "code_scales", "code_symbols"]

SCALE_BITS = 6
_PART = 1 << 18
"""Symbols that are coded at once, if a row does not have more."""
_NEAR_TABLE = 28 * FRACTIONS
"""Codes how a scale differs from the one before (b = 0.8)."""


def code_number(channel: SymbolChannel, value: int | None, bits: int) -> int:
    """An unsigned number, most significant bit first. ``value``: None to read."""
    given = None if value is None else np.array([value >> (bits - 1 - i) & 1 for i in range(bits)])
    number = 0
    for bit in channel.exchange_flags(given, bits):
        number = 2 * number + int(bit)
    return number


def code_scales(channel: SymbolChannel, given: np.ndarray | None, count: int) -> np.ndarray:
    """``count`` scale indices, 0 .. 63: their middle, then how each differs from it."""
    middle = code_number(channel, None if given is None else int(np.median(given)), SCALE_BITS)
    if count == 1:
        return np.array([middle])
    differences = None if given is None else (given - middle).astype(np.int32)
    read = channel.exchange(np.full(count, _NEAR_TABLE, np.uint8), differences)
    return (middle + read).clip(0, SCALES - 1)


def code_symbols(
    channel: SymbolChannel,
    given: np.ndarray | None,
    shape: tuple[int, int],
    scales: np.ndarray,
    largest: int | None = None,
) -> np.ndarray:
    """int8 (rows, length), -127 .. 127, each row with the table of its scale index, around zero.

    ``largest``: what the magnitudes of a row may add up to. Raises LimitError, as soon as a row breaks it.
    """
    made = np.empty(shape, np.int8)
    for rows in _in_parts(np.argsort(scales, kind="stable"), shape[1]):
        tables = np.repeat((scales[rows] * FRACTIONS).astype(np.uint8), shape[1])
        symbols = None if given is None else given[rows].reshape(-1).astype(np.int32)
        made[rows] = channel.exchange(tables, symbols).reshape(len(rows), shape[1])
        sums = np.abs(made[rows]).sum(1, dtype=np.int64)
        if largest is not None and sums.max() > largest:
            raise LimitError(f"weights of an output channel add up to {sums.max()}, allowed are {largest}")
    return made


def _in_parts(rows: np.ndarray, length: int) -> list[np.ndarray]:
    """Rows in the order in which they are coded, so many at a time that what is made of their symbols stays small."""
    count = max(1, _PART // length)
    return [rows[k : k + count] for k in range(0, len(rows), count)]


def best_scale(rows: np.ndarray) -> np.ndarray:
    """Of each row of (rows, length) symbols the scale index that codes it in the fewest bits."""
    costs = table_bits()[::FRACTIONS]  # location 0: (SCALES, symbols)
    bound = costs.shape[1] // 2
    counts = np.stack([np.bincount(row + bound, minlength=2 * bound + 1) for row in rows.astype(np.int64)])
    return (counts @ costs.T).argmin(1)
