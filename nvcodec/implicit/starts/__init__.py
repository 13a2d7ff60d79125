"""Weights that are shipped with every decoder, which those of a segment may be coded as differences from.

::

    for each convolution, in the order of the program:
        bias_shift u(8) | exponents i(16) each | biases i(8) each | weights i(8) each             little endian

A segment names a start by the first bytes of the hash of its file. What the shipped ones were trained on stands in
``SOURCES.md`` beside them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources

import numpy as np
import torch

from nvcodec.core.errors import LimitError, SyntaxViolation, UnsupportedError
from nvcodec.entropy.symbols import SymbolChannel
from nvcodec.entropy.weights import TensorChange, TensorSpec, code_tensors
from nvcodec.exact.arithmetic import EXPONENT_HIGH, EXPONENT_LOW, WEIGHT_BOUND
from nvcodec.implicit.weights import ConvSymbols

__all__ = ["NAME_BYTES", "code_changes", "find_start", "shipped_starts", "start_name", "tensor_specs", "write_start"]

NAME_BYTES = 4
_Shapes = Sequence[tuple[int, tuple[int, int, int, int]]]


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


def find_start(name: bytes, shapes: _Shapes) -> dict[int, ConvSymbols]:
    """The tensors of a start by node number. ``shapes``: number and shape of the weights of each convolution.

    Raises UnsupportedError for a start that is not known, SyntaxViolation for one that does not fit the program.
    """
    data = shipped_starts().get(name)
    if data is None:
        raise UnsupportedError(f"the start {name.hex()} of the weights is not known to this decoder")
    return read_start(data, shapes)


def read_start(data: bytes, shapes: _Shapes) -> dict[int, ConvSymbols]:
    """From what ``write_start`` gave. Raises SyntaxViolation for another length, LimitError for wrong numbers."""
    sizes = [1 + 3 * shape[0] + int(np.prod(shape)) for _, shape in shapes]
    if sum(sizes) != len(data):
        raise SyntaxViolation(f"a start of {len(data)} bytes for a program that has {sum(sizes)}")
    found, place = {}, 0
    for (number, shape), size in zip(shapes, sizes, strict=True):
        part, count = data[place : place + size], shape[0]
        exponent = np.frombuffer(part, "<i2", count, 1).astype(np.int32)
        bias = np.frombuffer(part, np.int8, count, 1 + 2 * count).astype(np.int32)
        weight = np.frombuffer(part, np.int8, -1, 1 + 3 * count).astype(np.int32).reshape(shape)
        symbols = int(max(np.abs(weight).max(), np.abs(bias).max()))
        if exponent.min() < EXPONENT_LOW or exponent.max() > EXPONENT_HIGH or symbols > WEIGHT_BOUND or part[0] > 15:
            raise LimitError(f"node {number}: a start with numbers beyond what a convolution may have")
        found[number] = ConvSymbols(weight, exponent, bias, part[0])
        place += size
    return found


def write_start(tensors: Sequence[ConvSymbols]) -> bytes:
    """The file of a start."""
    parts = []
    for found in tensors:
        parts += [
            bytes([found.bias_shift]),
            found.exponent.astype("<i2").tobytes(),
            found.bias.astype(np.int8).tobytes(),
            found.weight.astype(np.int8).tobytes(),
        ]
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
    start: Mapping[int, ConvSymbols],
    changes: Mapping[str, TensorChange] | None,
) -> dict[int, ConvSymbols]:
    """Write what a segment changes of its start, or read it (None); the tensors, by node number."""
    values = {}
    for number, found in start.items():
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
        for number, found in start.items()
    }
