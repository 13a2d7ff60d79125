"""The container: what is written comes back, and versions."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import zstandard
from container_samples import (
    HASH,
    HEADER,
    INDEX,
    METADATA,
    PTS,
    SEGMENT,
    SEGMENTS,
    Pipe,
    assemble,
    example,
    header,
    section,
    walk,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcodec.bitstream import syntax
from nvcodec.bitstream.container import ContainerReader, Segment, StreamHeader, write_container
from nvcodec.core.errors import ChecksumError, LimitError, SyntaxViolation

# Round trips


def test_tiny_file_is_these_bytes() -> None:
    data = write_container(HEADER, [Segment(b"abc", HASH, 33)])
    assert data.hex() == (
        "894357560d0a1a0a" + "0600"
        "0114" + "01a003f0014021" + "01e907b0ea0101" + "000102020200" + "eaace6e9"
        "0202" + "2119" + "da7e3d60"
        "0313" + "616263" + HASH.hex() + "67bd0e29"
        "7f00" + "c6777ee9"
    )  # fmt: skip
    assert data == assemble(HEADER.write(), INDEX, SEGMENT)


def test_overhead_of_one_segment() -> None:
    long = header(frame_count=300, width=1920, height=1080, level=4, frame_duration=1)
    for head, frames in ((HEADER, 33), (long, 300)):
        data = write_container(head, [Segment(bytes(60_000), HASH, frames)])
        assert len(data) - 60_000 < 80


def test_everything_comes_back() -> None:
    assert walk(example()) == (header(segment_count=3), SEGMENTS, PTS, METADATA)


def test_programs_come_back() -> None:
    programs = (b"one", bytes(16384), b"three")
    data = example(programs)
    assert walk(data) == (header(segment_count=3), SEGMENTS, PTS, METADATA)
    with ContainerReader(io.BytesIO(data)) as reader:
        assert reader.programs == programs
        parts = reader.byte_map()
    assert parts["program"] > 3 * 8
    assert parts["crc"] == 4 * 11


def test_plain_file_has_default_timestamps_and_no_metadata() -> None:
    regular = [3 * k for k in range(33)]
    plain = write_container(header(frame_duration=3), [Segment(b"abc", HASH, 33)])
    assert walk(plain)[2:] == (regular, None)
    given = write_container(header(frame_duration=3), [Segment(b"abc", HASH, 33)], timestamps=regular)
    assert given == plain


def test_path_pipe_and_inner_position_read_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.cwrv"
    path.write_bytes(example())
    with ContainerReader(path) as reader:
        assert list(reader.iter_segments()) == SEGMENTS
    with ContainerReader(str(path)) as reader:
        assert reader.read_segment(1) == SEGMENTS[1]
    inner = io.BytesIO(b"something before" + example())
    inner.seek(16)
    with ContainerReader(inner) as reader:
        assert reader.check_complete() == len(example())
        assert reader.read_segment(2) == SEGMENTS[2]
    assert not inner.closed
    with ContainerReader(Pipe(example())) as reader:  # type: ignore[arg-type]
        assert list(reader.iter_segments()) == SEGMENTS
        with pytest.raises(io.UnsupportedOperation):
            reader.check_complete()
    with ContainerReader(Pipe(example())) as reader:  # type: ignore[arg-type]
        assert reader.check_complete() == len(example())


def test_read_segment_touches_that_section_only() -> None:
    data = bytearray(example())
    first = data.index(b"abc" + HASH)
    data[first] ^= 1
    data[-1] ^= 1
    with ContainerReader(io.BytesIO(bytes(data))) as reader:
        assert reader.read_segment(1) == SEGMENTS[1]
        assert reader.read_segment(2) == SEGMENTS[2]
        with pytest.raises(ChecksumError, match="SEGMENT 0: crc32"):
            reader.read_segment(0)
        with pytest.raises(ChecksumError, match="SEGMENT 0: crc32"):
            list(reader.iter_segments())
        for number in (-1, 3):
            with pytest.raises(IndexError):
                reader.read_segment(number)


def test_index_says_where_frames_are() -> None:
    with ContainerReader(io.BytesIO(example())) as reader:
        assert reader.segment_starts == (0, 17, 25)
        assert [entry.payload_bytes for entry in reader.index] == [3, 300, 1]


def test_byte_map() -> None:
    with ContainerReader(io.BytesIO(example())) as reader:
        parts = reader.byte_map()
    assert sum(parts.values()) == len(example())
    assert (parts["signature"], parts["payload"], parts["frame_hash"], parts["crc"]) == (10, 304, 48, 4 * 8)
    assert (parts["head"], parts["index"], parts["section_header"]) == (20, 7, 2 * 8 + 1)
    assert parts["timestamps"] > 0
    assert parts["metadata"] > 0
    assert parts["other"] == 0


headers = st.builds(
    StreamHeader,
    level=st.just(6),
    width=st.integers(1, 8192),
    height=st.integers(1, 8192),
    frame_count=st.integers(1, 2**20),
    segment_count=st.just(1),
    time_base_num=st.integers(1, 2**31 - 1),
    time_base_den=st.integers(1, 2**31 - 1),
    frame_duration=st.integers(1, 2**31 - 1),
    sar_num=st.integers(1, 2**31 - 1),
    sar_den=st.integers(1, 2**31 - 1),
    color_range=st.integers(0, 2),
    color_primaries=st.integers(0, 255),
    transfer=st.integers(0, 255),
    matrix=st.integers(0, 255),
    chroma_location=st.integers(0, 6),
)


@settings(deadline=None)
@given(headers)
def test_any_header_is_read_as_written(head: StreamHeader) -> None:
    assert StreamHeader.parse(head.write()) == head


@settings(deadline=None)
@given(st.lists(st.integers(1, 2**50), min_size=1, max_size=20), st.integers(-(2**61), 2**61))
def test_any_increasing_timestamps(steps: list[int], first: int) -> None:
    pts = [first + sum(steps[:k]) for k in range(len(steps))]
    data = write_container(header(frame_count=len(pts)), [Segment(b"abc", HASH, len(pts))], timestamps=pts)
    assert walk(data)[2] == pts


def test_metadata_is_compact_json() -> None:
    payload = syntax.write_metadata(METADATA)
    assert json.loads(zstandard.ZstdDecompressor().decompress(payload)) == METADATA
    assert syntax.parse_metadata(payload) == METADATA


# Versions


def test_newer_minor_version_is_read() -> None:
    data = assemble(HEADER.write() + b"new", INDEX, section(0x84, b"new"), SEGMENT, version=b"\6\7")
    with ContainerReader(io.BytesIO(data)) as reader:
        assert (reader.minor, reader.header) == (7, HEADER)
        assert reader.check_complete() == len(data)


def test_reserved_bit_is_ignored() -> None:
    head = bytearray(HEADER.write())
    head[5] |= 1
    assert StreamHeader.parse(bytes(head)) == HEADER


def test_unknown_optional_sections_are_skipped_and_checked() -> None:
    later = section(0x84, b"later")
    data = assemble(HEADER.write(), INDEX, later, section(0xFF, b""), later, SEGMENT)
    with ContainerReader(io.BytesIO(data)) as reader:
        assert reader.byte_map()["other"] == 10
        assert reader.check_complete() == len(data)
    with pytest.raises(ChecksumError, match="section 0x84: crc32"):
        walk(data.replace(b"later", b"never"))


@pytest.mark.parametrize("seekable", [True, False])
def test_sound_is_kept_and_checked(seekable: bool) -> None:
    audio = section(0x83, b"1234audio")
    data = assemble(HEADER.write(), INDEX, audio, SEGMENT)
    stream = io.BytesIO(data)
    if not seekable:
        stream.seekable = lambda: False  # type: ignore[method-assign]
    with ContainerReader(stream) as reader:
        assert reader.read_sound() == b"1234audio"
        assert reader.audio_bytes == len(audio)
        assert reader.byte_map()["audio"] == 9
        assert len(list(reader.iter_segments())) == 1
    with pytest.raises(ChecksumError, match="AUDIO: crc32"):
        walk(data.replace(b"audio", b"radio"))
    with pytest.raises(SyntaxViolation, match="a second AUDIO"):
        walk(assemble(HEADER.write(), INDEX, audio, audio, SEGMENT))
    too_long = audio[:1] + bytes([0x81, 0x80, 0x80, 0x80, 0x04])
    with pytest.raises(LimitError, match="AUDIO: length"):
        walk(assemble(HEADER.write(), INDEX, too_long, SEGMENT))
