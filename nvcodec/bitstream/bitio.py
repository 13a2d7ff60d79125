"""Bits and bytes: the descriptors of the specification, and reads that never go past an end.

``BitWriter`` and ``BitReader`` are mirror images: u(n), su(n), leb128(), sleb(), byte alignment.
``ByteSource`` reads a file or a pipe. Every read is bounded, and an end that comes too early is
reported with the name of the field and its offset in the file. Sizes are compared with what is left
before memory is taken; a pipe, whose end is unknown, is read in chunks for the same reason.
"""

from __future__ import annotations

import io
import zlib
from typing import BinaryIO, Final

from nvcodec.core.errors import LimitError, SyntaxViolation, TruncatedError
from nvcodec.core.limits import MAX_LEB128, MAX_LEB128_BYTES, MAX_SLEB, MAX_SLEB_BYTES

__all__ = ["BitReader", "BitWriter", "ByteSource", "leb128_size"]

_CHUNK_BYTES: Final = 2**20


def leb128_size(value: int) -> int:
    """How many bytes ``leb128()`` takes for this value.

    >>> leb128_size(0), leb128_size(127), leb128_size(128)
    (1, 1, 2)
    """
    return max(1, -(-value.bit_length() // 7))


class BitWriter:
    """Writes descriptors, the first bit into the most significant bit of the first byte.

    >>> writer = BitWriter()
    >>> writer.u(5, 3); writer.align(); writer.leb128(300); writer.sleb(-1)
    >>> writer.finish().hex(" ")
    'a0 ac 02 01'
    """

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._pending = 0  # bits not yet in a byte
        self._pending_bits = 0  # 0..7

    @property
    def bit_position(self) -> int:
        return 8 * len(self._bytes) + self._pending_bits

    def u(self, value: int, bits: int) -> None:
        """Unsigned, most significant bit first."""
        if not 0 <= value < 1 << bits:
            raise ValueError(f"{value} does not fit u({bits})")
        self._pending = self._pending << bits | value
        self._pending_bits += bits
        if self._pending_bits >= 8:
            count, left = divmod(self._pending_bits, 8)
            self._bytes += (self._pending >> left).to_bytes(count, "big")
            self._pending &= (1 << left) - 1
            self._pending_bits = left

    def su(self, value: int, bits: int) -> None:
        """Two's complement in ``bits`` bits."""
        if bits < 1 or not -(1 << bits - 1) <= value < 1 << bits - 1:
            raise ValueError(f"{value} does not fit su({bits})")
        self.u(value & (1 << bits) - 1, bits)

    def leb128(self, value: int) -> None:
        if not 0 <= value <= MAX_LEB128:
            raise ValueError(f"{value} does not fit leb128()")
        self._groups(value)

    def sleb(self, value: int) -> None:
        if not -MAX_SLEB - 1 <= value <= MAX_SLEB:
            raise ValueError(f"{value} does not fit sleb()")
        self._groups(2 * value if value >= 0 else -2 * value - 1)

    def _groups(self, value: int) -> None:
        while value > 0x7F:
            self.u(value & 0x7F | 0x80, 8)
            value >>= 7
        self.u(value, 8)

    def align(self) -> None:
        """Zero bits up to the next byte."""
        self.u(0, -self._pending_bits % 8)

    def raw(self, data: bytes) -> None:
        """Whole bytes; the position must be aligned."""
        if self._pending_bits:
            raise ValueError("raw() at a position that is not byte-aligned")
        self._bytes += data

    def finish(self) -> bytes:
        """Align, and return all that was written."""
        self.align()
        return bytes(self._bytes)


class BitReader:
    """Reads what ``BitWriter`` writes. ``offset`` is where ``data`` stands in the file, for messages.

    >>> reader = BitReader(bytes.fromhex("a0ac0201"))
    >>> reader.u(3, "a"), reader.align(), reader.leb128("b"), reader.sleb("c"), reader.remaining_bits
    (5, None, 300, -1, 0)
    """

    def __init__(self, data: bytes, *, offset: int = 0) -> None:
        self._data = data
        self._offset = offset
        self._position = 0  # in bits

    @property
    def bit_position(self) -> int:
        return self._position

    @property
    def remaining_bits(self) -> int:
        return 8 * len(self._data) - self._position

    @property
    def byte_offset(self) -> int:
        """The offset in the file of the byte that holds the next bit."""
        return self._offset + self._position // 8

    def u(self, bits: int, name: str) -> int:
        if bits < 0:
            raise ValueError(f"u({bits})")
        if bits > self.remaining_bits:
            raise TruncatedError(
                f"{name}: needs {bits} bits at byte {self.byte_offset}, {self.remaining_bits} are left"
            )
        start, end = self._position, self._position + bits
        self._position = end
        covering = int.from_bytes(self._data[start // 8 : (end + 7) // 8], "big")
        return covering >> -end % 8 & (1 << bits) - 1

    def su(self, bits: int, name: str) -> int:
        if bits < 1:
            raise ValueError(f"su({bits})")
        value = self.u(bits, name)
        return value - (1 << bits) if value >> bits - 1 else value

    def leb128(self, name: str) -> int:
        offset = self.byte_offset
        value = self._groups(name, MAX_LEB128_BYTES)
        if value > MAX_LEB128:
            raise LimitError(f"{name}: {value} at byte {offset} is beyond leb128() (at most {MAX_LEB128})")
        return value

    def sleb(self, name: str) -> int:
        value = self._groups(name, MAX_SLEB_BYTES)
        return -(value >> 1) - 1 if value & 1 else value >> 1

    def _groups(self, name: str, max_bytes: int) -> int:
        offset = self.byte_offset
        value = 0
        for index in range(max_bytes):
            byte = self.u(8, name)
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                if byte == 0 and index > 0:
                    raise SyntaxViolation(f"{name}: at byte {offset}, more bytes than the value needs")
                return value
        raise LimitError(f"{name}: at byte {offset}, longer than {max_bytes} bytes")

    def align(self, name: str = "byte_alignment") -> None:
        """Skip to the next byte; the bits skipped must be zero."""
        if self.u(-self._position % 8, name):
            raise SyntaxViolation(f"{name}: a padding bit before byte {self.byte_offset} is not zero")

    def raw(self, count: int, name: str) -> bytes:
        """Whole bytes; the position must be aligned."""
        if self._position % 8:
            raise ValueError("raw() at a position that is not byte-aligned")
        if 8 * count > self.remaining_bits:
            left = self.remaining_bits // 8
            raise TruncatedError(f"{name}: needs {count} bytes at byte {self.byte_offset}, {left} are left")
        start = self._position // 8
        self._position += 8 * count
        return bytes(self._data[start : start + count])

    def expect_end(self, name: str) -> None:
        """Whole bytes after the last field are a violation."""
        left = self.remaining_bits // 8
        if left:
            raise SyntaxViolation(f"{name}: {left} bytes too many, from byte {self.byte_offset}")


class ByteSource:
    """A binary file or pipe, read forwards, with a CRC that runs along.

    Positions count from where the source stood when it was handed over.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.seekable = stream.seekable()
        self.position = 0
        self.crc = 0
        self._peeked = b""
        self._base = 0
        self._size: int | None = None
        if self.seekable:
            self._base = stream.tell()
            self._size = max(0, stream.seek(0, io.SEEK_END) - self._base)
            stream.seek(self._base)

    @property
    def size(self) -> int:
        """Bytes from the first to the last; of a source that can seek."""
        if self._size is None:
            raise io.UnsupportedOperation("the size of this source is not known")
        return self._size

    def peek(self) -> int | None:
        """The next byte, which stays unread, or None at the end."""
        if not self._peeked:
            self._peeked = self._stream.read(1) or b""
        return self._peeked[0] if self._peeked else None

    def read(self, count: int, name: str) -> bytes:
        """Exactly ``count`` bytes, added to the CRC."""
        self._check_left(count, name)
        start = self.position
        chunks = []
        while (done := self.position - start) < count:
            chunk = self._read_some(count - done)
            if not chunk:
                raise TruncatedError(f"{name}: needs {count} bytes at byte {start}, {done} are left")
            chunks.append(chunk)
        return b"".join(chunks)

    def skip(self, count: int, name: str) -> None:
        """Read ``count`` bytes into the CRC only, in little memory."""
        self._check_left(count, name)
        while count:
            count -= len(self.read(min(count, _CHUNK_BYTES), name))

    def seek(self, position: int) -> None:
        """Go to a position; a pipe can only go forwards, by reading."""
        if position == self.position:
            return
        if not self.seekable:
            if position < self.position:
                raise io.UnsupportedOperation("this source cannot seek: it has been read further already")
            self.skip(position - self.position, f"the bytes up to {position}")
            return
        self._peeked = b""
        self._stream.seek(self._base + position)
        self.position = position

    def _check_left(self, count: int, name: str) -> None:
        if self._size is not None and count > self._size - self.position:
            left = max(0, self._size - self.position)
            raise TruncatedError(f"{name}: needs {count} bytes at byte {self.position}, {left} are left")

    def _read_some(self, limit: int) -> bytes:
        if self._peeked:
            chunk, self._peeked = self._peeked, b""
        else:
            known = self._size is not None
            chunk = self._stream.read(limit if known else min(limit, _CHUNK_BYTES)) or b""
        self.position += len(chunk)
        self.crc = zlib.crc32(chunk, self.crc)
        return chunk
