"""Weights that are shipped with every decoder, and directions in which those of a segment may differ from them.

::

    for each convolution, in the order of the program:
        bias_shift u(8) | exponents i(16) each | biases i(8) each | weights i(8) each             little endian
    directions u(8) | direction_shift u(8)
    for each direction, for each convolution: biases i(8) each | weights i(8) each

A direction says how all weights change together: those in which networks that were overfitted to other videos went.
What a segment changes of its start is first its code, how far to go in each of them, then single weights.

A segment names a start by the first bytes of the hash of its file. What the shipped ones were trained on stands in
``SOURCES.md`` beside them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

import numpy as np
import torch

from nvcodec.core.errors import LimitError, SyntaxViolation, UnsupportedError
from nvcodec.entropy.numbers import best_scale, code_scales, code_symbols
from nvcodec.entropy.symbols import SymbolChannel
from nvcodec.entropy.weights import TensorChange, TensorSpec, code_tensors
from nvcodec.exact.arithmetic import EXPONENT_HIGH, EXPONENT_LOW, WEIGHT_BOUND
from nvcodec.implicit.weights import ConvSymbols

__all__ = [
    "NAME_BYTES",
    "StartTensors",
    "code_changes",
    "find_start",
    "read_start",
    "shipped_starts",
    "start_name",
    "tensor_specs",
    "write_start",
]

NAME_BYTES = 4
_MAX_SHIFT = 15
_Shapes = Sequence[tuple[int, tuple[int, int, int, int]]]


@dataclass(frozen=True)
class StartTensors:
    """What a start holds. ``convolutions``: by node number. ``directions``: (K, biases or weights), int8, by node
    number, of the biases and of the weights; a direction counts ``2**-shift`` for each unit of its code."""

    convolutions: dict[int, ConvSymbols]
    directions: dict[int, tuple[np.ndarray, np.ndarray]]
    count: int
    shift: int

    def moved(self, code: np.ndarray) -> dict[int, ConvSymbols]:
        """The tensors as far along the directions as ``code``, (K,) integers -127 .. 127, says."""
        if not code.any():
            return self.convolutions
        made = {}
        for number, found in self.convolutions.items():
            bias, weight = self.directions[number]
            made[number] = replace(
                found, bias=self._along(found.bias, bias, code), weight=self._along(found.weight, weight, code)
            )
        return made

    def _along(self, first: np.ndarray, directions: np.ndarray, code: np.ndarray) -> np.ndarray:
        change = code.astype(np.int32) @ directions.astype(np.int32)
        change = (change + (1 << self.shift >> 1)) >> self.shift
        return (first + change.reshape(first.shape)).clip(-WEIGHT_BOUND, WEIGHT_BOUND)


def start_name(data: bytes) -> bytes:
    """By which a segment names a start."""
    return hashlib.sha256(data).digest()[:NAME_BYTES]


@cache
def shipped_starts() -> dict[bytes, bytes]:
    """The files, by name."""
    folder = resources.files("nvcodec.implicit.starts")
    found = [
        entry.read_bytes() for entry in sorted(folder.iterdir(), key=lambda e: e.name) if entry.name.endswith(".bin")
    ]
    return {start_name(data): data for data in found}


def find_start(name: bytes, shapes: _Shapes) -> StartTensors:
    """A start. ``shapes``: number and shape of the weights of each convolution.

    Raises UnsupportedError for a start that is not known, SyntaxViolation or LimitError for one that does not fit the
    program.
    """
    data = shipped_starts().get(name)
    if data is None:
        raise UnsupportedError(f"the start {name.hex()} of the weights is not known to this decoder")
    return read_start(data, shapes)


def read_start(data: bytes, shapes: _Shapes) -> StartTensors:
    """From what ``write_start`` gave. Raises SyntaxViolation for another length, LimitError for wrong numbers."""
    sizes = [1 + 3 * shape[0] + int(np.prod(shape)) for _, shape in shapes]
    counts = [(shape[0], int(np.prod(shape))) for _, shape in shapes]
    place = sum(sizes)
    count, shift = data[place : place + 2] if len(data) >= place + 2 else (0, 0)
    length = sum(biases + weights for biases, weights in counts)
    if len(data) != place + 2 + count * length:
        raise SyntaxViolation(f"a start of {len(data)} bytes for a program that has {place + 2 + count * length}")
    if shift > _MAX_SHIFT:
        raise LimitError(f"a start whose directions are shifted by {shift}, allowed are 0..{_MAX_SHIFT}")
    rows = np.frombuffer(data, np.int8, offset=place + 2).reshape(count, length)
    if count and rows.min() < -WEIGHT_BOUND:
        raise LimitError(f"a start whose directions hold {rows.min()}, allowed are -{WEIGHT_BOUND}..{WEIGHT_BOUND}")
    found, directions, place, column = {}, {}, 0, 0
    for (number, shape), size, (biases, weights) in zip(shapes, sizes, counts, strict=True):
        found[number] = _read_convolution(number, data[place : place + size], shape)
        middle, end = column + biases, column + biases + weights
        directions[number] = rows[:, column:middle], rows[:, middle:end]
        place, column = place + size, end
    return StartTensors(found, directions, count, shift)


def _read_convolution(node: int, part: bytes, shape: tuple[int, int, int, int]) -> ConvSymbols:
    count = shape[0]
    exponent = np.frombuffer(part, "<i2", count, 1).astype(np.int32)
    bias = np.frombuffer(part, np.int8, count, 1 + 2 * count).astype(np.int32)
    weight = np.frombuffer(part, np.int8, -1, 1 + 3 * count).astype(np.int32).reshape(shape)
    symbols = int(max(np.abs(weight).max(), np.abs(bias).max()))
    if exponent.min() < EXPONENT_LOW or exponent.max() > EXPONENT_HIGH or symbols > WEIGHT_BOUND or part[0] > 15:
        raise LimitError(f"node {node}: a start with numbers beyond what a convolution may have")
    return ConvSymbols(weight, exponent, bias, part[0])


def write_start(
    tensors: Sequence[ConvSymbols], directions: Sequence[Sequence[np.ndarray]] = (), shift: int = 0
) -> bytes:
    """The file of a start. ``directions``: of each its arrays in order, of every convolution biases and weights."""
    parts = []
    for found in tensors:
        parts += [
            bytes([found.bias_shift]),
            found.exponent.astype("<i2").tobytes(),
            found.bias.astype(np.int8).tobytes(),
            found.weight.astype(np.int8).tobytes(),
        ]
    parts.append(bytes([len(directions), shift]))
    parts += [array.astype(np.int8).tobytes() for direction in directions for array in direction]
    return b"".join(parts)


def tensor_specs(shapes: _Shapes) -> list[TensorSpec]:
    """The tensors that a segment may change, in order: weights and biases of each convolution."""
    specs = []
    for number, shape in shapes:
        specs.append(TensorSpec(f"{number}.weight", shape, 0, WEIGHT_BOUND))
        specs.append(TensorSpec(f"{number}.bias", (shape[0],), 0, WEIGHT_BOUND))
    return specs


def code_changes(
    channel: SymbolChannel,
    shapes: _Shapes,
    start: StartTensors,
    code: np.ndarray | None,
    changes: Mapping[str, TensorChange] | None,
) -> dict[int, ConvSymbols]:
    """Write what a segment changes of its start, or read it (None for both); the tensors, by node number. ``code``:
    (K,) integers, -127 .. 127."""
    first = start.moved(_coded(channel, start.count, code))
    values = {}
    for number, found in first.items():
        values[f"{number}.weight"] = torch.from_numpy(found.weight).float()
        values[f"{number}.bias"] = torch.from_numpy(found.bias).float()
    made = code_tensors(channel, tensor_specs(shapes), values, changes)
    return {
        number: ConvSymbols(
            made[f"{number}.weight"].numpy().astype(np.int32),
            found.exponent,
            made[f"{number}.bias"].numpy().astype(np.int32),
            found.bias_shift,
        )
        for number, found in first.items()
    }


def _coded(channel: SymbolChannel, count: int, code: np.ndarray | None) -> np.ndarray:
    """How far to go in each direction."""
    if not count:
        return np.zeros(0, np.int32)
    given = None if code is None else code.reshape(1, count)
    scales = code_scales(channel, None if given is None else best_scale(given), 1)
    return code_symbols(channel, given, (1, count), scales)[0].astype(np.int32)
