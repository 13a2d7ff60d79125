"""A small .cwrv container for the tests, and ways to put one together by hand and to read all of it."""

from __future__ import annotations

import dataclasses
import io
import zlib
from collections.abc import Sequence
from typing import Any

import zstandard

from nvcodec.bitstream import container
from nvcodec.bitstream.bitio import BitWriter
from nvcodec.bitstream.container import ContainerReader, Segment, StreamHeader, write_container

HASH = bytes(range(16))
HEADER = StreamHeader(
    level=1,
    width=416,
    height=240,
    frame_count=33,
    segment_count=1,
    time_base_num=1001,
    time_base_den=30000,
    frame_duration=1,
)
SEGMENTS = [Segment(b"abc", HASH, 17), Segment(b"x" * 300, HASH[::-1], 8), Segment(b"\0", HASH, 8)]
PTS = [1000, *range(1002, 1034)]
METADATA = {"title": "caf\u00e9", "numbers": [1, 2.5, None, True]}


def header(**changes: int) -> StreamHeader:
    return dataclasses.replace(HEADER, **changes)


def example(programs: Sequence[bytes] = ()) -> bytes:
    """A file with a little of everything, and ``programs`` that are none."""
    return write_container(header(segment_count=3), SEGMENTS, timestamps=PTS, metadata=METADATA, programs=programs)


def section(kind: int, payload: bytes, *, crc: int = 0) -> bytes:
    writer = BitWriter()
    writer.u(kind, 8)
    writer.leb128(len(payload))
    body = writer.finish() + payload
    return body + zlib.crc32(body, crc).to_bytes(4, "little")


def assemble(
    head: bytes, index: bytes, *rest: bytes, version: bytes = b"\6\0", end: bytes = b"\x7f\0\xc6\x77\x7e\xe9"
) -> bytes:
    """A file with right CRCs around any content."""
    start = container.SIGNATURE + version
    return start + section(1, head, crc=zlib.crc32(start)) + section(2, index) + b"".join(rest) + end


SEGMENT = section(3, b"abc" + HASH)
INDEX = bytes([33, len(SEGMENT)])


def walk(data: bytes) -> tuple[Any, ...]:
    """Everything that can be read from a file, by every way there is."""
    with ContainerReader(io.BytesIO(data)) as reader:
        segments = list(reader.iter_segments())
        assert reader.check_complete() == len(data) == sum(reader.byte_map().values())
        assert [reader.read_segment(i) for i in range(len(segments))] == segments
        return reader.header, segments, list(reader.pts), reader.metadata


class Pipe(io.RawIOBase):
    def __init__(self, data: bytes) -> None:
        self._left = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._left.read(min(size, 7))


def zstd(data: bytes, *, content_size: bool = True) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=content_size).compress(data)
