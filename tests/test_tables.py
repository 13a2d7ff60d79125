"""The probability tables: their integers, and that constriction codes with exactly these."""

from __future__ import annotations

import hashlib
from decimal import Decimal, localcontext
from itertools import pairwise

import constriction
import numpy as np
import pytest
import torch

from nvcodec.core.fixedpoint import Rounding
from nvcodec.encoder.rate import laplace_bits
from nvcodec.entropy.context import LOG_BOUND, log_feature
from nvcodec.entropy.tables import (
    FRACTIONS,
    PRECISION_BITS,
    SCALES,
    TABLE_BOUND,
    derived_frequencies,
    model,
    table_bits,
    table_frequencies,
)

ALL = [(scale, fraction) for scale in range(SCALES) for fraction in range(FRACTIONS)]
ALPHABET = 2 * TABLE_BOUND + 1
TABLES_HASH = "f276abede56685c283193111b2150381801ad0a215e61b2483b1d37d1daa8ab2"
"""SHA-256 over the frequencies of all tables, little-endian 32 bits, in order of their index. Normative: a change
makes another format."""


def test_the_shipped_tables_are_the_derived_ones() -> None:
    for key in ALL:
        assert np.array_equal(table_frequencies(*key), derived_frequencies(*key)), key


def test_frequencies_are_a_distribution() -> None:
    for scale, fraction in ALL:
        table = table_frequencies(scale, fraction)
        assert table.shape == (ALPHABET,)
        assert table.sum() == 1 << PRECISION_BITS
        assert table.min() >= 1


def test_tables_have_one_mode_at_their_location() -> None:
    """Rising up to the location, falling after it, but for one unit of rounding."""
    for scale, fraction in ALL:
        steps = np.diff(table_frequencies(scale, fraction))
        assert steps[:TABLE_BOUND].min() >= -1, (scale, fraction)
        assert steps[TABLE_BOUND + 1 :].max() <= 1, (scale, fraction)


def test_location_zero_is_symmetric() -> None:
    """To one unit: cumulative frequencies are rounded down."""
    for scale in range(SCALES):
        table = table_frequencies(scale, 0)
        assert np.abs(table - table[::-1]).max() <= 1, scale


def test_location_one_half_is_symmetric_around_it() -> None:
    for scale in range(SCALES):
        table = table_frequencies(scale, 2)[1:]
        # the symbol -127 takes part in the sum, so the two sides differ by its share at most
        assert np.abs(table - table[::-1]).max() <= 2, scale


def test_scales_spread() -> None:
    """The share of zero falls from nearly all of it to a few percent."""
    zero = np.array([table_frequencies(scale, 0)[TABLE_BOUND] for scale in range(SCALES)])
    assert (np.diff(zero) < 0).all()
    assert zero[0] / 2**PRECISION_BITS > 1 - 1e-4
    assert 0.01 < zero[-1] / 2**PRECISION_BITS < 0.03


def test_tables_are_these_integers() -> None:
    data = b"".join(table_frequencies(*key).astype("<i4").tobytes() for key in ALL)
    assert hashlib.sha256(data).hexdigest() == TABLES_HASH


@pytest.mark.parametrize(
    ("scale", "fraction", "expected"),
    [
        (0, 0, [3, 383, 16776155, 383, 3]),
        (0, 2, [3, 3, 8388459, 8388459, 3]),
        (28, 0, [905905, 3116729, 7557579, 3116729, 905905]),
        (28, 1, [667446, 2285299, 7130205, 4253023, 1231714]),
        (63, 3, [296357, 308163, 320438, 325953, 314240]),
    ],
)
def test_middle_of_a_table(scale: int, fraction: int, expected: list[int]) -> None:
    assert table_frequencies(scale, fraction)[TABLE_BOUND - 2 : TABLE_BOUND + 3].tolist() == expected


def exact_frequencies(scale: int, fraction: int) -> list[Decimal]:
    """The same tables in 40-digit real arithmetic, before they become integers."""
    with localcontext() as context:
        context.prec = 40
        narrow, wide = Decimal(2) ** (Decimal(scale) / 7) / 20, Decimal(2) ** 8 / 20
        share = (-1 / (2 * narrow)).exp() / 16 if scale < 56 else Decimal(0)

        def cdf(x: Decimal, b: Decimal) -> Decimal:
            return (x / b).exp() / 2 if x < 0 else 1 - (-x / b).exp() / 2

        edges = [Decimal(2 * k - 1) / 2 - Decimal(fraction) / 4 for k in range(-TABLE_BOUND, TABLE_BOUND + 2)]
        values = [cdf(x, narrow) * (1 - share) + cdf(x, wide) * share for x in edges]
        factor = (2**PRECISION_BITS - ALPHABET) / (values[-1] - values[0])
        return [1 + (b - a) * factor for a, b in pairwise(values)]


def test_tables_are_the_distributions_they_stand_for() -> None:
    for scale, fraction in ALL[::7]:
        for found, real in zip(table_frequencies(scale, fraction), exact_frequencies(scale, fraction), strict=True):
            assert abs(int(found) - real) < 1.001, (scale, fraction)


def test_bits_are_those_of_the_frequencies() -> None:
    bits = table_bits()
    assert bits.shape == (SCALES * FRACTIONS, ALPHABET)
    for scale, fraction in ALL[:: 2 * FRACTIONS + 1]:
        expected = PRECISION_BITS - np.log2(table_frequencies(scale, fraction))
        assert np.allclose(bits[scale * FRACTIONS + fraction], expected, atol=1e-5)


class RangeDecoder:
    """The decoder as the specification has it: 64-bit state, 32-bit words, frequencies that sum to 2**24."""

    def __init__(self, words: list[int]) -> None:
        self.words = iter(words)
        self.range = 2**64 - 1
        self.offset = 0  # of the coded point above the lower end
        for _ in range(2):
            self.offset = self.offset << 32 | next(self.words, 0)

    def decode(self, frequencies: list[int]) -> int:
        unit = self.range >> PRECISION_BITS
        quantile = self.offset // unit
        symbol = 0
        while quantile >= frequencies[symbol]:
            quantile -= frequencies[symbol]
            symbol += 1
        self.offset -= unit * sum(frequencies[:symbol])
        self.range = unit * frequencies[symbol]
        if self.range < 2**32:
            self.range <<= 32
            self.offset = self.offset << 32 | next(self.words, 0)
        return symbol


def test_constriction_codes_with_exactly_these_integers() -> None:
    """Symbols of all kinds, unlikely ones among them, read by the decoder above from the integers alone."""
    rng = np.random.default_rng(11)
    tables = rng.integers(0, SCALES * FRACTIONS, 3000)
    likely = [rng.choice(ALPHABET, p=table_frequencies(t // 4, t % 4) / 2**PRECISION_BITS) for t in tables]
    symbols = np.where(rng.random(3000) < 0.7, likely, rng.integers(0, ALPHABET, 3000))
    encoder = constriction.stream.queue.RangeEncoder()
    for table, symbol in zip(tables, symbols, strict=True):
        encoder.encode(int(symbol), model(int(table)))
    decoder = RangeDecoder(encoder.get_compressed().tolist())
    for position, (table, symbol) in enumerate(zip(tables, symbols, strict=True)):
        assert decoder.decode(table_frequencies(table // 4, table % 4).tolist()) == symbol, position


def test_every_symbol_of_every_table_costs_what_it_should() -> None:
    """Each table codes its whole alphabet, 24 bits for a symbol of frequency 1 included."""
    for table in range(0, SCALES * FRACTIONS, 5):
        frequencies = table_frequencies(table // 4, table % 4)
        encoder = constriction.stream.queue.RangeEncoder()
        encoder.encode(np.arange(ALPHABET, dtype=np.int32), model(table))
        words = encoder.get_compressed().tolist()
        assert abs(32 * len(words) - (24 - np.log2(frequencies)).sum()) <= 64
        decoder, listed = RangeDecoder(words), frequencies.tolist()
        assert [decoder.decode(listed) for _ in range(ALPHABET)] == list(range(ALPHABET))


def test_float_twin_prices_as_the_tables_do() -> None:
    symbols = torch.arange(-TABLE_BOUND, TABLE_BOUND + 1).float()
    compared = 0
    for scale, fraction in ALL:
        real = laplace_bits(symbols, torch.tensor(fraction / FRACTIONS), torch.tensor(float(scale))).numpy()
        bits = table_bits()[scale * FRACTIONS + fraction]
        likely = bits < 16
        compared += likely.sum()
        assert np.abs(real - bits)[likely].max() < 0.2, (scale, fraction)
    assert compared > 10000


# The other normative table: features are logarithms


def test_log_feature_in_integers() -> None:
    """round(16 log2(1 + x)): k where 2**(2k - 1) <= (1 + x)**32 < 2**(2k + 1)."""
    x = torch.arange(LOG_BOUND + 1).float()
    got = log_feature(x, Rounding.EXACT).long().tolist()
    assert got[:9] == [0, 16, 25, 32, 37, 41, 45, 48, 51]
    assert got[-1] == 192
    for value, k in enumerate(got):
        power = (1 + value) ** 32
        assert power < 1 << (2 * k + 1)
        assert k == 0 or power >= 1 << (2 * k - 1)
    assert (log_feature(x, Rounding.NONE) - log_feature(x, Rounding.EXACT)).abs().max() <= 0.5001


def test_log_feature_stops_at_its_bound() -> None:
    assert log_feature(torch.tensor([4095.0, 4096.0, 2.0**23]), Rounding.EXACT).tolist() == [192.0] * 3
