"""Faulty containers: each way to fail has its error, and damage never passes."""

from __future__ import annotations

import dataclasses
import io
import random
from collections.abc import Callable, Sequence

import pytest
from container_samples import (
    HASH,
    HEADER,
    INDEX,
    SEGMENT,
    SEGMENTS,
    Pipe,
    assemble,
    example,
    header,
    section,
    walk,
    zstd,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcodec.bitstream import container, syntax
from nvcodec.bitstream.bitio import BitWriter
from nvcodec.bitstream.container import ContainerReader, Segment, StreamHeader, write_container
from nvcodec.core.errors import (
    BitstreamError,
    LimitError,
    SignatureError,
    SyntaxViolation,
    TruncatedError,
    UnsupportedError,
)

# One error after the other

HEAD = HEADER.write()
PROGRAM = section(4, zstd(b"program"))
CASES: list[tuple[str, bytes, type[BitstreamError], str]] = [
    ("empty", b"", TruncatedError, "signature: needs 1 bytes at byte 0"),
    ("png", b"\x89PNG\r\n\x1a\n", SignatureError, "not a .cwrv file$"),
    ("text mode", b"\x89CWV\n\x1a\n", SignatureError, "transferred as text"),
    ("major 4", assemble(HEAD, INDEX, SEGMENT, version=b"\4\0"), UnsupportedError, "version 4.0"),
    ("major 0", assemble(HEAD, INDEX, SEGMENT, version=b"\0\1"), UnsupportedError, "version 0.1"),
    ("no HEAD", container.SIGNATURE + b"\6\0" + section(2, b""), SyntaxViolation, "INDEX at byte 10"),
    ("HEAD too long", assemble(bytes(1025), b""), LimitError, "HEAD: length = 1025"),
    ("HEAD and more", assemble(HEAD + b"x", INDEX), SyntaxViolation, "HEAD: 1 bytes too many, from byte 32"),
    ("HEAD too short", assemble(HEAD[:-1], INDEX), TruncatedError, "chroma_location: .* at byte 31"),
    ("two HEADs", assemble(HEAD, INDEX, section(1, HEAD)), SyntaxViolation, "HEAD at byte"),
    ("two INDEXes", assemble(HEAD, INDEX, section(2, INDEX)), SyntaxViolation, "INDEX at byte"),
    ("no SEGMENT", assemble(HEAD, INDEX), SyntaxViolation, "END at byte .* SEGMENT belongs"),
    ("critical", assemble(HEAD, INDEX, section(5, b"")), UnsupportedError, "section 0x05 at byte"),
    ("late critical", assemble(HEAD, INDEX, SEGMENT, section(5, b"")), UnsupportedError, "0x05"),
    ("late PROGRAM", assemble(HEAD, INDEX, SEGMENT, PROGRAM), SyntaxViolation, "PROGRAM at byte .* END belongs"),
    ("PROGRAM behind an option", assemble(HEAD, INDEX, section(0x90, b""), PROGRAM), SyntaxViolation, "PROGRAM at"),
    ("PROGRAM too many", assemble(HEAD, INDEX, *[PROGRAM] * 17, SEGMENT), LimitError, "PROGRAM: more than 16"),
    ("PROGRAM too long", assemble(HEAD, INDEX, section(4, bytes(1025)), SEGMENT), LimitError, "length = 1025"),
    ("PROGRAM empty", assemble(HEAD, INDEX, section(4, zstd(b"")), SEGMENT), LimitError, "PROGRAM: 0 bytes"),
    ("PROGRAM large", assemble(HEAD, INDEX, section(4, zstd(bytes(16385))), SEGMENT), LimitError, "16385 bytes"),
    ("PROGRAM not packed", assemble(HEAD, INDEX, section(4, b"abcd"), SEGMENT), SyntaxViolation, "PROGRAM: not a zstd"),
    ("late option", assemble(HEAD, INDEX, SEGMENT, section(0x90, b"")), SyntaxViolation, "0x90 at byte"),
    ("SEGMENT too many", assemble(HEAD, INDEX, SEGMENT, SEGMENT), SyntaxViolation, "SEGMENT at byte"),
    ("index too short", assemble(HEAD, INDEX[:1], SEGMENT), TruncatedError, "section_bytes: needs 8 bits"),
    ("index too long", assemble(HEAD, bytes(8), SEGMENT), LimitError, "INDEX: length = 8, allowed is 0..7"),
    ("index and more", assemble(HEAD, INDEX + b"x", SEGMENT), SyntaxViolation, "INDEX: 1 bytes too many"),
    ("frames missing", assemble(HEAD, b"\x20\x19", SEGMENT), SyntaxViolation, "32 frames, .* says 33"),
    ("empty segment", assemble(HEAD, b"\0\x19", SEGMENT), LimitError, "segment 0: 0 frames"),
    ("no payload", assemble(HEAD, b"\x21\x16"), LimitError, "segment 0: 0 bytes"),
    ("tiny section", assemble(HEAD, b"\x21\x01"), SyntaxViolation, "section_bytes = 1 is not"),
    ("impossible size", assemble(HEAD, b"\x21\x86\x01"), SyntaxViolation, "section_bytes = 134 is not"),
    ("huge segment", assemble(HEAD, b"\x21\xff\xff\xff\xff\x07"), LimitError, "segment 0: 2147483621 bytes"),
    ("other size", assemble(HEAD, b"\x21\x1a", SEGMENT), SyntaxViolation, "length = 19, not 20 as in INDEX"),
    ("END not empty", assemble(HEAD, INDEX, SEGMENT, end=section(0x7F, b"x")), SyntaxViolation, "empty"),
    ("no END", assemble(HEAD, INDEX, SEGMENT, end=b""), TruncatedError, "END: type"),
    ("trailing", assemble(HEAD, INDEX, SEGMENT) + b"\0", SyntaxViolation, "bytes after END, from byte 75"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "error", "message"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_malformed_container(data: bytes, error: type[BitstreamError], message: str) -> None:
    with pytest.raises(error, match=message):
        walk(data)
    with pytest.raises(error, match=message), ContainerReader(Pipe(data)) as reader:  # type: ignore[arg-type]
        reader.check_complete()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"level": 0}, UnsupportedError, "level = 0, allowed is 1..6"),
        ({"level": 7}, UnsupportedError, "level = 7"),
        ({"width": 0}, LimitError, r"width = 0, allowed is 1..2\^14"),
        ({"height": 16385, "width": 1}, LimitError, "height = 16385"),
        ({"width": 423, "height": 240}, LimitError, "101520 samples in a picture, level 1 allows 101376"),
        ({"width": 16384, "height": 4097, "level": 6}, LimitError, "level 6 allows"),
        ({"chroma_format_idc": 3}, UnsupportedError, "chroma_format_idc = 3, allowed is 1"),
        ({"bit_depth_minus8": 3}, UnsupportedError, r"bit_depth_minus8 = 3, allowed is 0..2"),
        ({"bit_depth_minus8": 1}, UnsupportedError, "bit_depth_minus8 = 1, allowed are 0 and 2"),
        ({"color_range": 3}, UnsupportedError, "color_range = 3, allowed is 0..2"),
        ({"chroma_location": 7}, UnsupportedError, "chroma_location = 7"),
        ({"frame_count": 0}, LimitError, "frame_count = 0"),
        ({"frame_count": 2**20 + 1}, LimitError, r"allowed is 1..2\^20"),
        ({"segment_count": 34}, SyntaxViolation, "segment_count = 34 is more than frame_count = 33"),
        ({"segment_count": 0}, LimitError, "segment_count = 0"),
        ({"time_base_den": 0}, LimitError, "time_base_den = 0"),
        ({"frame_duration": 0}, LimitError, "frame_duration = 0"),
        ({"sar_den": 2}, SyntaxViolation, "sar_den = 2 with sar_num = 0"),
    ],
)
def test_header_out_of_range(changes: dict[str, int], error: type[BitstreamError], message: str) -> None:
    bad = header(**changes)
    with pytest.raises(error, match=message):
        bad.write()
    writer = BitWriter()
    values = dataclasses.asdict(bad) | {"reserved_bit": 0}
    for field in syntax.HEAD_FIELDS:
        field.write(writer, values[field.name])
    with pytest.raises(error, match=message):
        StreamHeader.parse(writer.finish())


def with_optional(*sections: bytes) -> bytes:
    return assemble(HEAD, INDEX, *sections, SEGMENT)


def sleb(*values: int) -> bytes:
    writer = BitWriter()
    for value in values:
        writer.sleb(value)
    return writer.finish()


NOT_DEFAULT = zstd(sleb(5, *[0] * 32))


def test_optional_sections_of_the_malformed_cases_are_otherwise_right() -> None:
    assert walk(with_optional(section(0x81, NOT_DEFAULT)))[2] == list(range(5, 38))
    assert walk(with_optional(section(0x82, zstd(b'{"a":' + b"[" * 31 + b"]" * 31 + b"}"))))[3] is not None


@pytest.mark.parametrize(
    ("payload", "error", "message"),
    [
        (b"", SyntaxViolation, "not a zstd frame"),
        (b"\x50\x2a\x4d\x18\x04\0\0\0abcd", SyntaxViolation, "not a zstd frame"),
        (NOT_DEFAULT[:-1], SyntaxViolation, "TIMESTAMPS: "),
        (NOT_DEFAULT[:5], SyntaxViolation, "TIMESTAMPS: "),
        (NOT_DEFAULT + b"x", SyntaxViolation, "unused data"),
        (zstd(sleb(5, *[0] * 32), content_size=False), SyntaxViolation, "does not state its size"),
        (zstd(b""), LimitError, "0 bytes decompressed, allowed are 33..297"),
        (zstd(bytes(298)), LimitError, "298 bytes decompressed"),
        (zstd(bytes(10**8)), LimitError, "length = |100000000 bytes decompressed"),
        (bytes(400), LimitError, "length = 400, allowed is 0..363"),
        (zstd(b"\x80" * 32 + b"\0"), LimitError, "pts_difference"),
        (zstd(bytes(33)), SyntaxViolation, "frame_duration says the same"),
        (zstd(sleb(5, *[0] * 33)), SyntaxViolation, "TIMESTAMPS: 1 bytes too many"),
        (zstd(sleb(*[1] * 31, 64)), TruncatedError, "pts_difference: needs 8 bits"),
        (zstd(sleb(5, -1, *[0] * 31)), SyntaxViolation, "not strictly increasing"),
        (zstd(sleb(2**62 - 1, *[0] * 32)), LimitError, "TIMESTAMPS: pts"),
        (zstd(sleb(-(2**62), *[0] * 32)), LimitError, "TIMESTAMPS: pts"),
    ],
)
def test_malformed_timestamps(payload: bytes, error: type[BitstreamError], message: str) -> None:
    with pytest.raises(error, match=message):
        walk(with_optional(section(0x81, payload)))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (b"[]", SyntaxViolation, "not an object"),
        (b'{"a":1', SyntaxViolation, "METADATA"),
        (b'{"a":1}x', SyntaxViolation, "METADATA"),
        (b'{"a":"\xff"}', SyntaxViolation, "METADATA"),
        (b'\xef\xbb\xbf{"a":1}', SyntaxViolation, "METADATA"),
        (b'{"a":NaN}', SyntaxViolation, "METADATA"),
        (b'{"a":1e999}', SyntaxViolation, "METADATA"),
        (b'{"a":' + b"9" * 400 + b"}", SyntaxViolation, "binary64"),
        (b'{"a":' + b"9" * 9000 + b"}", SyntaxViolation, "binary64"),
        (b'{"a":"\\ud800"}', SyntaxViolation, "surrogates"),
        (b'{"a":1,"a":2}', SyntaxViolation, "twice"),
        (b'{"a":' + b"[" * 32 + b"]" * 32 + b"}", SyntaxViolation, "deeper than 32"),
        (b"[" * 60000, SyntaxViolation, "METADATA"),
        (b"{", LimitError, "1 bytes decompressed"),
        (b'{"a":"' + b"x" * 65536 + b'"}', LimitError, "65544 bytes decompressed"),
    ],
)
def test_malformed_metadata(text: bytes, error: type[BitstreamError], message: str) -> None:
    with pytest.raises(error, match=message):
        walk(with_optional(section(0x82, zstd(text))))


def test_repeated_optional_sections() -> None:
    for kind, payload in ((0x81, NOT_DEFAULT), (0x82, zstd(b"{}"))):
        with pytest.raises(SyntaxViolation, match="a second"):
            walk(with_optional(section(kind, payload), section(kind, payload)))


@pytest.mark.parametrize(
    "write",
    [
        lambda: write_container(HEADER, SEGMENTS),
        lambda: write_container(HEADER, [Segment(b"abc", HASH, 32)]),
        lambda: write_container(HEADER, [Segment(b"abc", HASH[1:], 33)]),
        lambda: write_container(HEADER, [Segment(b"", HASH, 33)]),
        lambda: write_container(header(width=0), [Segment(b"abc", HASH, 33)]),
        lambda: write_container(HEADER, [Segment(b"abc", HASH, 33)], timestamps=[1]),
        lambda: write_container(HEADER, [Segment(b"abc", HASH, 33)], timestamps=[5] * 33),
        lambda: write_container(HEADER, [Segment(b"abc", HASH, 33)], timestamps=range(2**62, 2**62 + 33)),
        lambda: write_container(HEADER, [Segment(b"abc", HASH, 33)], metadata={"a": b"x"}),
        lambda: write_container(HEADER, [Segment(b"abc", HASH, 33)], metadata={"a": float("nan")}),
        lambda: write_container(HEADER, [Segment(b"abc", HASH, 33)], metadata={"1": 1, 1: 2}),  # type: ignore[dict-item]
        lambda: write_container(HEADER, [Segment(b"abc", HASH, 33)], metadata={"a": "x" * 70000}),
        lambda: write_container(HEADER, [Segment(b"abc", HASH, 33)], programs=[b"x"] * 17),
        lambda: write_container(HEADER, [Segment(b"abc", HASH, 33)], programs=[b""]),
        lambda: write_container(HEADER, [Segment(b"abc", HASH, 33)], programs=[bytes(16385)]),
        lambda: write_container(HEADER, [Segment(b"abc", HASH, 33)], programs=[random.Random(1).randbytes(1100)]),
    ],
)  # fmt: skip
def test_writer_refuses_what_the_reader_would(write: Callable[[], bytes]) -> None:
    with pytest.raises(BitstreamError):
        write()


# Damage


def test_every_flipped_byte_is_found() -> None:
    data = example([b"program"])
    for position in range(len(data)):
        for mask in (0x01, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[position] ^= mask
            with pytest.raises(BitstreamError), ContainerReader(io.BytesIO(bytes(damaged))) as reader:
                reader.check_complete()


def test_every_truncation_is_found() -> None:
    data = example([b"program"])
    for length in range(len(data)):
        for source in (io.BytesIO(data[:length]), Pipe(data[:length])):
            with pytest.raises(TruncatedError), ContainerReader(source) as reader:  # type: ignore[arg-type]
                reader.check_complete()


def test_a_huge_length_in_a_pipe_takes_no_memory() -> None:
    huge = assemble(header(segment_count=3).write(), b"\x0b\xf0\xff\xff\x7f" * 3, b"\3\xe7\xff\xff\x7f", end=b"")

    class Endless(Pipe):
        def read(self, size: int = -1) -> bytes:
            assert size <= 2**20
            return super().read(size)

    reader = ContainerReader(Endless(huge + b"abc"))  # type: ignore[arg-type]
    with pytest.raises(TruncatedError, match="payload: needs 268435415 bytes at byte 62, 3 are left"):
        reader.read_segment(0)


mutations = st.lists(
    st.tuples(st.sampled_from(["set", "cut", "insert"]), st.integers(0, 10**6), st.binary(max_size=6)),
    min_size=1,
    max_size=4,
)


def mutate(data: bytes, changes: Sequence[tuple[str, int, bytes]]) -> bytes:
    for kind, place, new in changes:
        at = place % (len(data) + 1)
        end = {"set": at + len(new), "cut": at + len(new), "insert": at}[kind]
        data = data[:at] + (b"" if kind == "cut" else new) + data[end:]
    return data


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80), st.booleans())
def test_random_bytes(data: bytes, signed: bool) -> None:
    data = container.SIGNATURE + b"\6\0" + data if signed else data
    with pytest.raises(BitstreamError):
        walk(data)


@settings(max_examples=300, deadline=None)
@given(mutations)
def test_mutated_file(changes: list[tuple[str, int, bytes]]) -> None:
    data = mutate(example([b"program"]), changes)
    if data == example([b"program"]):
        return
    with pytest.raises(BitstreamError):
        walk(data)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(["head", "index", "program", "timestamps", "metadata", "segment"]), mutations)
def test_mutated_payload_with_right_crc(part: str, changes: list[tuple[str, int, bytes]]) -> None:
    """Past the CRCs: our errors only, or a file that says what it would say written again."""
    parts = {"head": HEAD, "index": INDEX, "timestamps": sleb(5, *[0] * 32), "metadata": b'{"a":[1,"b"]}'}
    parts |= {"segment": b"abc" + HASH, "program": b"program"}
    parts[part] = mutate(parts[part], changes)
    packed = ((0x04, "program"), (0x81, "timestamps"), (0x82, "metadata"))
    optional = [section(kind, zstd(parts[name])) for kind, name in packed]
    data = assemble(parts["head"], parts["index"], *optional, section(3, parts["segment"]))
    try:
        head, segments, pts, metadata = walk(data)
    except BitstreamError:
        return
    again = write_container(head, segments, timestamps=pts, metadata=metadata)
    assert walk(again) == (head, segments, pts, metadata)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([0x04, 0x81, 0x82]), mutations)
def test_mutated_zstd_with_right_crc(kind: int, changes: list[tuple[str, int, bytes]]) -> None:
    text = b'{"a":"' + b"abc" * 30 + b'"}'
    frame = {0x04: zstd(text), 0x81: NOT_DEFAULT, 0x82: zstd(text)}[kind]
    try:
        walk(with_optional(section(kind, mutate(frame, changes))))
    except BitstreamError:
        return
