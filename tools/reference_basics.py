"""What the files of the reference decoder share: errors, integer operators, descriptors (chapters 2, 3, 7, 13.1, 16).

Like all of it, this is written from bitstream_spec.md alone and shares nothing with the product.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.int64]

ROOT_FOLDER = Path(__file__).parent.parent
SPEC = ROOT_FOLDER / "bitstream_spec.md"


class DecodeError(Exception):
    """An error of chapter 16: its stable name, and what is wrong."""


def fail(name: str, message: str) -> NoReturn:
    raise DecodeError(f"{name}: {message}")


def need(condition: bool, name: str, message: str) -> None:
    if not condition:
        fail(name, message)


# ---------------------------------------------------------------- chapter 2: integer operators


def clip3(low: int, high: int, x: Array) -> Array:
    return np.clip(x, low, high)


def round2(x: Any, n: int) -> Any:
    return x if n == 0 else (x + (1 << (n - 1))) >> n


# ---------------------------------------------------------------- chapter 3: descriptors

MAX_LEB128 = 2**31 - 1


@dataclass
class Reader:
    """Bytes with a position."""

    data: bytes
    pos: int = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.pos

    def take(self, n: int, what: str) -> bytes:
        need(n <= self.left, "truncated", f"{what} ends too early")
        self.pos += n
        return self.data[self.pos - n : self.pos]

    def u8(self, what: str) -> int:
        return self.take(1, what)[0]

    def variable(self, max_bytes: int, what: str) -> int:
        value = 0
        for i in range(max_bytes):
            byte = self.u8(what)
            value |= (byte & 127) << (7 * i)
            if byte < 128:
                need(byte != 0 or i == 0, "syntax", f"{what} is not in its shortest form")
                return value
        fail("limit", f"{what} has too many bytes")

    def leb128(self, what: str) -> int:
        value = self.variable(5, what)
        need(value <= MAX_LEB128, "limit", f"{what} is too large")
        return value

    def sleb(self, what: str) -> int:
        value = self.variable(9, what)
        return value >> 1 if value % 2 == 0 else -(value >> 1) - 1


def leb128_bytes(value: int) -> int:
    """Bytes that leb128() takes for a value."""
    return max(1, (value.bit_length() + 6) // 7)


# ---------------------------------------------------------------- files that belong to the specification


@cache
def hashes_of(table: str) -> frozenset[str]:
    """The SHA-256 that a table of the specification states."""
    found = re.search(rf"<!-- table: {table} -->(.*?)<!-- end -->", SPEC.read_text(encoding="utf-8"), re.DOTALL)
    return frozenset(re.findall(r"`([0-9a-f]{64})`", found[1] if found else ""))


def specified(data: bytes, table: str) -> bytes:
    """``data``, which must be what a table of the specification says."""
    if hashlib.sha256(data).hexdigest() not in hashes_of(table):
        raise SystemExit(f"the file of the table {table!r} is not that of {SPEC.name}")
    return data


# ---------------------------------------------------------------- chapter 7, 13.1: Zstandard frames


def decompress(payload: bytes, low: int, high: int) -> bytes:
    """The one Zstandard frame of an optional section or of a program, of low to high bytes."""
    need(payload[:4] == bytes.fromhex("28 B5 2F FD"), "syntax", "not a Zstandard frame")
    return decompress_frame(payload, low, high)


@cache
def programs_dictionary() -> bytes:
    """13.1: what stands before the content of a frame whose first byte is 1."""
    return specified((ROOT_FOLDER / "nvcodec/bitstream/programs.dict").read_bytes(), "program dictionary")


def decompress_with_dictionary(frame: bytes, low: int, high: int) -> bytes:
    """13.1: a frame without a magic number, of low to high bytes.

    Behind a magic number it is a usual one, but for what stands before it.
    """
    return decompress_frame(bytes.fromhex("28 B5 2F FD") + frame, low, high, programs_dictionary())


def decompress_frame(payload: bytes, low: int, high: int, before: bytes = b"") -> bytes:
    """``before``: what stands before the content."""
    import zstandard

    dictionary = zstandard.ZstdCompressionDict(before, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if before else None
    try:
        parameters = zstandard.get_frame_parameters(payload)
        size = parameters.content_size
        need(size != zstandard.CONTENTSIZE_UNKNOWN, "syntax", "the Zstandard frame does not state its size")
        need(low <= size <= high, "limit", f"a Zstandard frame of {size} bytes")
        need(parameters.dict_id == 0, "syntax", "the Zstandard frame names a dictionary")
        data = zstandard.ZstdDecompressor(dict_data=dictionary).decompress(payload, allow_extra_data=False)
    except zstandard.ZstdError as error:
        fail("syntax", f"Zstandard: {error}")
    need(len(data) == size, "syntax", "the Zstandard frame has another size than it states")
    return data
