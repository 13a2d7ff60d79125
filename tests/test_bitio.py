"""Descriptors and bounded reads."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcodec.bitstream.bitio import BitReader, BitWriter, ByteSource, leb128_size
from nvcodec.core.errors import BitstreamError, LimitError, SyntaxViolation, TruncatedError
from nvcodec.core.limits import MAX_LEB128, MAX_SLEB


class Pipe(io.RawIOBase):
    """A source that cannot seek and gives at most three bytes a read."""

    def __init__(self, data: bytes) -> None:
        self._left = io.BytesIO(data)
        self.largest_request = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        self.largest_request = max(self.largest_request, size)
        return self._left.read(min(size, 3))


def written(kind: str, *arguments: int) -> str:
    writer = BitWriter()
    getattr(writer, kind)(*arguments)
    return writer.finish().hex()


@pytest.mark.parametrize(
    ("kind", "arguments", "expected"),
    [
        ("u", (5, 3), "a0"),
        ("u", (0x1FF, 9), "ff80"),
        ("u", (0, 0), ""),
        ("su", (-1, 4), "f0"),
        ("su", (-8, 4), "80"),
        ("su", (7, 4), "70"),
        ("leb128", (0,), "00"),
        ("leb128", (127,), "7f"),
        ("leb128", (128,), "8001"),
        ("leb128", (300,), "ac02"),
        ("leb128", (MAX_LEB128,), "ffffffff07"),
        ("sleb", (0,), "00"),
        ("sleb", (-1,), "01"),
        ("sleb", (1,), "02"),
        ("sleb", (-64,), "7f"),
        ("sleb", (64,), "8001"),
        ("sleb", (MAX_SLEB,), "fe" + "ff" * 7 + "7f"),
        ("sleb", (-MAX_SLEB - 1,), "ff" * 8 + "7f"),
    ],
)
def test_literal_bytes(kind: str, arguments: tuple[int, ...], expected: str) -> None:
    assert written(kind, *arguments) == expected
    reader = BitReader(bytes.fromhex(expected))
    rest = arguments[1:]
    assert getattr(reader, kind)(*rest, "value") == arguments[0]


operations = st.one_of(
    st.integers(0, 64).flatmap(lambda n: st.tuples(st.just("u"), st.integers(0, (1 << n) - 1), st.just(n))),
    st.integers(1, 64).flatmap(
        lambda n: st.tuples(st.just("su"), st.integers(-(1 << n - 1), (1 << n - 1) - 1), st.just(n))
    ),
    st.tuples(st.just("leb128"), st.integers(0, MAX_LEB128), st.none()),
    st.tuples(st.just("sleb"), st.integers(-MAX_SLEB - 1, MAX_SLEB), st.none()),
)


@settings(deadline=None)
@given(st.lists(operations))
def test_any_sequence_is_read_as_written(sequence: list[tuple[str, int, int | None]]) -> None:
    writer = BitWriter()
    for kind, value, bits in sequence:
        getattr(writer, kind)(value, *([] if bits is None else [bits]))
    position = writer.bit_position
    writer.align()
    writer.raw(b"xyz")
    reader = BitReader(writer.finish())
    for kind, value, bits in sequence:
        assert getattr(reader, kind)(*([] if bits is None else [bits]), "value") == value
    assert reader.bit_position == position
    reader.align()
    assert reader.raw(3, "tail") == b"xyz"
    reader.expect_end("all")
    assert reader.remaining_bits == 0


@settings(deadline=None)
@given(st.binary(max_size=12))
def test_one_encoding_for_each_number(data: bytes) -> None:
    for kind in ("leb128", "sleb"):
        reader = BitReader(data)
        try:
            value = getattr(reader, kind)("value")
        except BitstreamError:
            continue
        assert written(kind, value) == data[: reader.bit_position // 8].hex()


@settings(deadline=None)
@given(st.integers(0, MAX_LEB128))
def test_leb128_size(value: int) -> None:
    assert 2 * leb128_size(value) == len(written("leb128", value))


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("u", (8, 3)),
        ("u", (-1, 3)),
        ("su", (8, 4)),
        ("su", (-9, 4)),
        ("su", (0, 0)),
        ("leb128", (MAX_LEB128 + 1,)),
        ("leb128", (-1,)),
        ("sleb", (MAX_SLEB + 1,)),
        ("sleb", (-MAX_SLEB - 2,)),
    ],
)
def test_writer_refuses_what_does_not_fit(kind: str, arguments: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        written(kind, *arguments)


def test_truncation_names_field_and_byte() -> None:
    reader = BitReader(b"\xff\x80", offset=100)
    assert reader.u(4, "first") == 15
    with pytest.raises(TruncatedError, match="width: needs 13 bits at byte 100, 12 are left"):
        reader.u(13, "width")
    assert reader.u(4, "first") == 15
    with pytest.raises(TruncatedError, match="height: needs 8 bits at byte 102, 0 are left"):
        reader.leb128("height")
    with pytest.raises(TruncatedError, match="tail: needs 9 bytes at byte 0, 1 are left"):
        BitReader(b"x").raw(9, "tail")


def test_long_and_padded_numbers_are_refused() -> None:
    with pytest.raises(SyntaxViolation, match="more bytes than the value needs"):
        BitReader(b"\x80\x00").leb128("value")
    with pytest.raises(LimitError, match="beyond leb128"):
        BitReader(bytes.fromhex("8080808008")).leb128("value")
    with pytest.raises(LimitError, match="longer than 5 bytes"):
        BitReader(b"\x80" * 6).leb128("value")
    with pytest.raises(LimitError, match="longer than 9 bytes"):
        BitReader(b"\xff" * 10).sleb("value")


def test_alignment_bits_are_zero() -> None:
    reader = BitReader(b"\xa1")
    reader.u(3, "value")
    with pytest.raises(SyntaxViolation, match="padding bit before byte 1 is not zero"):
        reader.align()


def test_bytes_left_over_are_a_violation() -> None:
    reader = BitReader(b"abc", offset=7)
    reader.raw(1, "first")
    with pytest.raises(SyntaxViolation, match="HEAD: 2 bytes too many, from byte 8"):
        reader.expect_end("HEAD")


def test_misuse_is_not_a_bitstream_error() -> None:
    writer, reader = BitWriter(), BitReader(b"\0\0")
    writer.u(1, 1)
    reader.u(1, "bit")
    for misuse in (
        lambda: writer.raw(b"x"),
        lambda: reader.raw(1, "x"),
        lambda: reader.u(-1, "x"),
        lambda: reader.su(0, "x"),
    ):
        with pytest.raises(ValueError, match=r"raw|u\(") as caught:
            misuse()
        assert not isinstance(caught.value, BitstreamError)


def test_source_counts_from_where_it_stands() -> None:
    stream = io.BytesIO(b"??123456789")
    stream.seek(2)
    source = ByteSource(stream)
    assert source.peek() == ord("1")
    assert source.read(4, "a") == b"1234"
    source.skip(5, "b")
    assert source.crc == 0xCBF43926  # the check value of CRC-32
    assert source.peek() is None
    source.seek(3)
    assert source.read(1, "c") == b"4"


def test_source_refuses_more_than_is_left() -> None:
    with pytest.raises(TruncatedError, match="payload: needs 1000000000000 bytes at byte 0, 3 are left"):
        ByteSource(io.BytesIO(b"abc")).read(10**12, "payload")
    with pytest.raises(TruncatedError, match="payload: needs 9 bytes at byte 0, 3 are left"):
        ByteSource(io.BytesIO(b"abc")).skip(9, "payload")


def test_pipe_is_read_in_chunks() -> None:
    pipe = Pipe(b"abcdefgh")
    source = ByteSource(pipe)  # type: ignore[arg-type]
    assert source.peek() == ord("a")
    assert source.read(5, "start") == b"abcde"
    with pytest.raises(TruncatedError, match="payload: needs 1000000000000 bytes at byte 5, 3 are left"):
        source.read(10**12, "payload")
    assert pipe.largest_request <= 2**20
    with pytest.raises(io.UnsupportedOperation):
        source.seek(0)


def test_pipe_goes_forwards_only() -> None:
    source = ByteSource(Pipe(b"abcdefgh"))  # type: ignore[arg-type]
    assert source.peek() == ord("a")
    source.seek(5)
    assert source.read(1, "a") == b"f"
    with pytest.raises(io.UnsupportedOperation):
        source.seek(5)
    with pytest.raises(io.UnsupportedOperation):
        _ = source.size
    with pytest.raises(TruncatedError, match="the bytes up to 99"):
        source.seek(99)
