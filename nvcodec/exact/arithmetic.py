"""The numbers that the exact machine computes with: scales, tables of functions, roots.

Everything here is normative (chapter "The exact machine" of the specification) and derived in integers of unlimited
range, so that no library's ``exp`` decides a bit. Values of a node lie in ``-A .. A`` with ``A = 2**(a - 1) - 1``,
where ``a`` is the program's ``activation_bits``. Tensors hold them in float32, which is exact below 2**24; what may
grow larger is computed in float64, exact below 2**53.
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache, lru_cache
from math import isqrt

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "EXPONENT_HIGH",
    "EXPONENT_LOW",
    "EXPONENT_STEPS",
    "MAX_ACTIVATION_BITS",
    "MIN_ACTIVATION_BITS",
    "ROOT_BITS",
    "WEIGHT_BOUND",
    "Function",
    "activation_bound",
    "clip_to",
    "function_lookup",
    "function_table",
    "requantise",
    "requantiser",
    "root_table",
    "rounded_shift",
]

MIN_ACTIVATION_BITS, MAX_ACTIVATION_BITS = 8, 16
WEIGHT_BOUND = 127
"""Magnitude of a weight: what the probability tables code."""
EXPONENT_STEPS = 8
"""Scales of output channels are powers of 2**(1 / EXPONENT_STEPS)."""
EXPONENT_LOW, EXPONENT_HIGH = -256, 96
"""Scales of 2**-32 to 2**12."""
_MULTIPLIER_BITS = 14

TABLE_BITS = 14
"""Fraction bits of the tables of functions."""
_FIXED = 80
"""Fraction bits of what the tables are derived with."""
ROOT_BITS = 8
"""The table of reciprocal roots takes numbers in 1 .. 4 with so many fraction bits."""
ROOT_FRACTION = 15


class Function(IntEnum):
    """What a table node computes. The last two keep the fixed point of their operand and need no table."""

    GELU = 0
    SIGMOID = 1
    TANH = 2
    SINE = 3
    LEAKY_RELU = 4
    RELU = 5


def activation_bound(bits: int) -> int:
    """``A``: the largest magnitude of a value."""
    return (1 << (bits - 1)) - 1


def clip_to(x: Tensor, bound: int) -> Tensor:
    return x.clamp(-bound, bound)


def rounded_shift(x: Tensor, bits: int) -> Tensor:
    """``Round2(x, bits)``: ``(x + 2**(bits - 1)) >> bits``; x itself for 0 bits. ``x``: integers in float32, below
    2**23, or float64, below 2**52."""
    return torch.floor(x * 2.0**-bits + 0.5) if bits else x


@cache
def _multipliers() -> tuple[int, ...]:
    """``round(2**14 * 2**(i / 8))`` for i = 0 .. 7, by integer comparison: 15 bits each."""
    values = []
    for i in range(EXPONENT_STEPS):
        target = 1 << (_MULTIPLIER_BITS * EXPONENT_STEPS + i)  # the value, to the power of 8
        value = 1 << _MULTIPLIER_BITS
        while (2 * value + 1) ** EXPONENT_STEPS <= target << EXPONENT_STEPS:
            value += 1
        values.append(value)
    return tuple(values)


def requantiser(exponent: int) -> tuple[int, int]:
    """(multiplier, shift) of a scale of ``2**(exponent / 8)``: a sum is taken times the multiplier, then rounded away
    by so many bits (2 .. 46)."""
    return _multipliers()[exponent % EXPONENT_STEPS], _MULTIPLIER_BITS - exponent // EXPONENT_STEPS


def requantise(sums: Tensor, exponents: Tensor, bias: Tensor, bound: int) -> Tensor:
    """``Clip3(-A, A, Round2(sum * M, S) + bias)``, float32. ``sums``: (B, C, H, W), integers below 2**31 in float64.
    ``exponents``, ``bias``: (C,)."""
    pairs = [requantiser(int(e)) for e in exponents]
    multiplier = torch.tensor([float(m) for m, _ in pairs], dtype=torch.float64, device=sums.device)
    step = torch.tensor([2.0**-s for _, s in pairs], dtype=torch.float64, device=sums.device)
    scaled = torch.floor(sums * (multiplier * step).view(-1, 1, 1) + 0.5)
    return clip_to(scaled + bias.double().to(sums.device).view(-1, 1, 1), bound).float()


# Tables of functions


def _multiply(a: int, b: int) -> int:
    return (a * b) >> _FIXED


def _exp_minus(x: int) -> int:
    """exp(-x), x >= 0."""
    one = 1 << _FIXED
    halvings = 0
    while x > one >> 4:  # exp(-x) = exp(-x / 2**n)**(2**n)
        x >>= 1
        halvings += 1
    total, term = 0, one
    for n in range(1, 30):
        total += term if n % 2 else -term
        term = _multiply(term, x) // n
    for _ in range(halvings):
        total = _multiply(total, total)
    return total


def _sigmoid(x: int) -> int:
    one = 1 << _FIXED
    tail = _exp_minus(abs(x))
    upper = (one << _FIXED) // (one + tail)
    return upper if x >= 0 else one - upper


def _erf(x: int) -> int:
    """erf(x) for 0 <= x, by its power series: 2 / sqrt(pi) sum (-1)**n x**(2n + 1) / (n! (2n + 1))."""
    guard = 120  # the terms of a large x cancel
    x <<= guard
    bits = _FIXED + guard
    square = (x * x) >> bits
    total, power, n = 0, x, 0
    while power:
        total += (-1) ** n * (power // (2 * n + 1))
        n += 1
        power = ((power * square) >> bits) // n
    root_pi = isqrt(_pi(bits) << bits)
    return ((2 * total << bits) // root_pi) >> guard


@cache
def _pi(bits: int) -> int:
    """pi by Machin's formula: 16 atan(1/5) - 4 atan(1/239)."""

    def atan_inverse(n: int) -> int:
        guard = bits + 16
        power, total, k = (1 << guard) // n, 0, 0
        while power:
            total += (-1) ** k * (power // (2 * k + 1))
            power //= n * n
            k += 1
        return total >> 16

    return 16 * atan_inverse(5) - 4 * atan_inverse(239)


def _sine(x: int) -> int:
    """sin(x), 0 <= x <= pi / 2."""
    square, total, term, n = _multiply(x, x), 0, x, 1
    while term:
        total += term if n % 4 == 1 else -term
        term = _multiply(term, square) // ((n + 1) * (n + 2))
        n += 2
    return total


def _rounded(x: int, bits: int) -> int:
    """``x`` with ``_FIXED`` fraction bits to ``bits`` of them."""
    return (x + (1 << (_FIXED - bits - 1))) >> (_FIXED - bits)


@cache
def function_table(function: Function) -> tuple[int, ...]:
    """The table of a function, ``TABLE_BITS`` fraction bits.

    Sigmoid, tanh and what GELU lies below ``max(0, x)``: at -8 .. 8 in steps of 1/64, 1025 entries. Sine: one turn in
    steps of 1/256, 257 entries. Raises KeyError for a function without a table.
    """
    sixty_fourth = 1 << (_FIXED - 6)
    if function is Function.SINE:
        quarter = [_rounded(_sine(2 * _pi(_FIXED) * i // 256), TABLE_BITS) for i in range(65)]
        half = quarter + quarter[63::-1]
        return tuple(half + [-v for v in half[1:]])
    if function is Function.SIGMOID:
        return tuple(_rounded(_sigmoid(i * sixty_fourth), TABLE_BITS) for i in range(-512, 513))
    if function is Function.TANH:
        one = 1 << _FIXED
        return tuple(_rounded(2 * _sigmoid(2 * i * sixty_fourth) - one, TABLE_BITS) for i in range(-512, 513))
    if function is Function.GELU:
        # GELU(x) - max(0, x) = -|x| (1 - erf(|x| / sqrt(2))) / 2, which is even
        root_two = isqrt(2 << (2 * _FIXED))
        below = []
        for i in range(513):
            x = i * sixty_fourth
            rest = ((1 << _FIXED) - _erf((x << _FIXED) // root_two)) >> 1
            below.append(-_rounded(_multiply(x, rest), TABLE_BITS))
        return tuple(below[:0:-1] + below)
    raise KeyError(function)


def table_values(function: Function, x: np.ndarray, fraction_in: int, fraction_out: int) -> np.ndarray:
    """What a table node makes of ``x``, int64, before it is clipped.

    ``fraction_in``, ``fraction_out``: fraction bits, 0 .. 16 and 0 .. 14. Of sine the operand counts turns.
    """
    if function is Function.RELU:
        return np.maximum(x, 0)
    if function is Function.LEAKY_RELU:
        return np.where(x >= 0, x, x >> 3)
    table, position = np.array(function_table(function), np.int64), x << (16 - fraction_in)
    if function is Function.SINE:
        position &= 0xFFFF
        step_bits = 8
    else:
        position = np.clip(position + (8 << 16), 0, (16 << 16) - 1)
        step_bits = 10
    place, part = position >> step_bits, position & ((1 << step_bits) - 1)
    value = table[place] * ((1 << step_bits) - part) + table[place + 1] * part
    bits = TABLE_BITS + step_bits
    if function is Function.GELU:
        value += np.maximum(x, 0) << (bits - fraction_in)
    shift = bits - fraction_out
    return np.asarray((value + (1 << (shift - 1))) >> shift)


@lru_cache(maxsize=128)
def function_lookup(function: Function, bits: int, fraction_in: int, fraction_out: int) -> np.ndarray:
    """float32 (2A + 1,): what a table node makes of -A .. A."""
    bound = activation_bound(bits)
    made = table_values(function, np.arange(-bound, bound + 1, dtype=np.int64), fraction_in, fraction_out)
    return made.clip(-bound, bound).astype(np.float32)


@cache
def root_table() -> np.ndarray:
    """int64 (768,): ``round(2**15 / sqrt(m))`` for m = 1 + i / 256, i = 0 .. 767, by integer comparison."""
    values = []
    for i in range(3 << ROOT_BITS):
        m = (1 << ROOT_BITS) + i
        # the largest v with v - 1/2 <= 2**15 sqrt(256 / m), that is (2v - 1)**2 m <= 2**32 * 256
        values.append((isqrt((1 << (2 * ROOT_FRACTION + 2 + ROOT_BITS)) // m) + 1) >> 1)
    return np.array(values, np.int64)
