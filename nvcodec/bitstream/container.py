"""The .cwrv container: signature, then sections, each with a type, a length and a CRC.

::

    signature, version | HEAD | INDEX | PROGRAM ... | optional sections ... | SEGMENT ... | END

What a segment's payload means is the decoder's business. The container knows where each one stands,
how many frames it holds, that its bytes are intact, and which hash its decoded frames must have.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import accumulate
from typing import Any, BinaryIO, Final, Self

from nvcodec.bitstream import syntax
from nvcodec.bitstream.bitio import BitReader, BitWriter, ByteSource, leb128_size
from nvcodec.bitstream.syntax import StreamHeader
from nvcodec.core import limits
from nvcodec.core.errors import (
    BitstreamError,
    ChecksumError,
    LimitError,
    MissingError,
    SignatureError,
    SyntaxViolation,
    UnreadableError,
    UnsupportedError,
)

__all__ = [
    "MAJOR",
    "MINOR",
    "NEWEST_MAJOR",
    "SIGNATURE",
    "ContainerReader",
    "IndexEntry",
    "SectionType",
    "Segment",
    "StreamHeader",
    "audio_bytes",
    "program_bytes",
    "write_container",
]

SIGNATURE: Final = b"\x89CWV\r\n\x1a\n"
MAJOR: Final = 6
NEWEST_MAJOR: Final = 7
"""Of files with a segment whose motion is not predicted; in all else they are as those of ``MAJOR``."""
MINOR: Final = 3
"""The newest one, of both; a file has the oldest that has all it holds: 1 for sound, 2 for 10 bits, 3 for sound in
Matroska."""
_MATROSKA: Final = b"\x1a\x45\xdf\xa3"
OPTIONAL: Final = 0x80  # this bit of a type: a reader that does not know the section skips it


class SectionType(IntEnum):
    HEAD = 0x01
    INDEX = 0x02
    SEGMENT = 0x03
    PROGRAM = 0x04
    END = 0x7F
    TIMESTAMPS = 0x81
    METADATA = 0x82
    AUDIO = 0x83  # version 6.0 skips it


_NAMES: Final = {kind.value: kind.name for kind in SectionType}


@dataclass(frozen=True, slots=True)
class Segment:
    """Frames that decode without any other segment."""

    payload: bytes = field(repr=False)
    frame_hash: bytes
    frame_count: int


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One segment as the INDEX section tells it. ``section_bytes`` is the whole SEGMENT section."""

    frame_count: int
    section_bytes: int

    @property
    def content_bytes(self) -> int:
        """The length that the section itself states: payload and frame hash."""
        for length_bytes in range(1, limits.MAX_LEB128_BYTES + 1):
            content = self.section_bytes - 1 - length_bytes - limits.CRC_BYTES
            if content >= 0 and leb128_size(content) == length_bytes:
                return content
        raise SyntaxViolation(f"section_bytes = {self.section_bytes} is not the size of any section")

    @property
    def payload_bytes(self) -> int:
        return self.content_bytes - limits.FRAME_HASH_BYTES


def write_container(
    header: StreamHeader,
    segments: Sequence[Segment],
    *,
    timestamps: Sequence[int] | None = None,
    metadata: Mapping[str, Any] | None = None,
    programs: Sequence[bytes] = (),
    sound: bytes | None = None,
    major: int = MAJOR,
) -> bytes:
    """The bytes of a whole file. ``programs``: those of the exact machine that segments name. ``sound``: payload of the
    section AUDIO.

    ``timestamps`` are the pts of all frames in display order; they are
    stored only where ``frame_duration`` does not say the same."""
    header.check()
    if any(len(segment.frame_hash) != limits.FRAME_HASH_BYTES for segment in segments):
        raise SyntaxViolation(f"a frame_hash has {limits.FRAME_HASH_BYTES} bytes")
    sections = [_section(SectionType.SEGMENT, s.payload + s.frame_hash) for s in segments]
    entries = [IndexEntry(s.frame_count, len(b)) for s, b in zip(segments, sections, strict=True)]
    _check_index(header, entries)
    index = BitWriter()
    for entry in entries:
        index.leb128(entry.frame_count)
        index.leb128(entry.section_bytes)
    if len(programs) > limits.MAX_PROGRAMS:
        raise LimitError(f"{len(programs)} programs, allowed are 0..{limits.MAX_PROGRAMS}")
    optional = [_section(SectionType.PROGRAM, syntax.write_program(program)) for program in programs]
    if timestamps is not None and (pts := [int(value) for value in timestamps]) != list(header.default_pts):
        optional.append(_section(SectionType.TIMESTAMPS, syntax.write_timestamps(header, pts)))
    if metadata is not None:
        optional.append(_section(SectionType.METADATA, syntax.write_metadata(metadata)))
    if sound is not None:
        if len(sound) > limits.MAX_AUDIO_BYTES:
            raise LimitError(f"AUDIO: {len(sound)} bytes, allowed are 0..{limits.MAX_AUDIO_BYTES}")
        optional.append(_section(SectionType.AUDIO, sound))
    is_matroska = sound is not None and sound[4:8] == _MATROSKA
    minor = 3 if is_matroska else 2 if header.bit_depth_minus8 else 0 if sound is None else 1
    start = SIGNATURE + bytes([major, minor])
    return b"".join(
        [
            start,
            _section(SectionType.HEAD, header.write(), crc=zlib.crc32(start)),
            _section(SectionType.INDEX, index.finish()),
            *optional,
            *sections,
            _section(SectionType.END, b""),
        ]
    )


def program_bytes(programs: Sequence[bytes]) -> int:
    """What programs take in a file, their sections included."""
    return sum(len(_section(SectionType.PROGRAM, syntax.write_program(program))) for program in programs)


def audio_bytes(sound: bytes | None) -> int:
    """What sound takes in a file, its section included."""
    return 0 if sound is None else 1 + leb128_size(len(sound)) + len(sound) + limits.CRC_BYTES


def _section(kind: int, payload: bytes, crc: int = 0) -> bytes:
    writer = BitWriter()
    writer.u(kind, 8)
    writer.leb128(len(payload))
    body = writer.finish() + payload
    return body + zlib.crc32(body, crc).to_bytes(limits.CRC_BYTES, "little")


def _check_index(header: StreamHeader, entries: Sequence[IndexEntry]) -> None:
    if len(entries) != header.segment_count:
        raise SyntaxViolation(f"INDEX: {len(entries)} segments, the header says {header.segment_count}")
    max_frames = limits.max_segment_frames(header.level, header.width, header.height)
    max_bytes = limits.MAX_SEGMENT_PAYLOAD_BYTES
    for number, entry in enumerate(entries):
        if not 1 <= entry.frame_count <= max_frames:
            raise LimitError(f"segment {number}: {entry.frame_count} frames, allowed are 1..{max_frames}")
        if not 1 <= entry.payload_bytes <= max_bytes:
            raise LimitError(f"segment {number}: {entry.payload_bytes} bytes, allowed are 1..{max_bytes}")
    total = sum(entry.frame_count for entry in entries)
    if total != header.frame_count:
        raise SyntaxViolation(f"INDEX: {total} frames, the header says {header.frame_count}")


def _opened(path: str | os.PathLike[str]) -> BinaryIO:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise MissingError(f"{os.fspath(path)}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UnreadableError(f"{os.fspath(path)}: cannot be opened ({reason})") from error


class ContainerReader:
    """Reads a file or a pipe. Opening it reads, and checks, all that stands before the first segment.

    A pipe (``source.seekable()`` is false) can be walked once, forwards, by ``iter_segments``, ``read_segment`` or
    ``check_complete``. Malformed input raises subclasses of ``BitstreamError`` and nothing else.
    """

    header: StreamHeader
    major: int
    minor: int
    """Minor version of the file; it may be newer than this reader."""
    index: tuple[IndexEntry, ...]
    segment_starts: tuple[int, ...]
    """First frame of each segment, counted in display order."""
    pts: Sequence[int]
    """Timestamp of each frame in display order, in ticks of the time base."""
    metadata: dict[str, Any] | None = None
    programs: tuple[bytes, ...] = ()
    """Programs of the exact machine that segments name, as they are coded."""

    def __init__(self, source: str | os.PathLike[str] | BinaryIO) -> None:
        self._owned: BinaryIO | None = None
        self._sound: bytes | tuple[int, int] | None = None
        if isinstance(source, str | os.PathLike):
            source = self._owned = _opened(source)
        self._bytes = dict.fromkeys(
            (
                "signature",
                "head",
                "index",
                "program",
                "timestamps",
                "metadata",
                "audio",
                "other",
                "payload",
                "frame_hash",
            ),
            0,
        ) | {"section_header": 0, "crc": 0}
        try:
            self._source = ByteSource(source)
            self._read_start()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file, if it was opened here."""
        if self._owned is not None:
            self._owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def iter_segments(self) -> Iterator[Segment]:
        """Front to back, one in memory at a time; after the last one, the end of the file is checked."""
        for number in range(len(self.index)):
            yield self.read_segment(number)
        self._read_end()

    def read_segment(self, number: int) -> Segment:
        """One segment. In a file, no other byte is touched; a pipe can only go forwards."""
        if not 0 <= number < len(self.index):
            raise IndexError(f"segment {number} of {len(self.index)}")
        entry = self._open_segment(number)
        payload = self._source.read(entry.payload_bytes, f"SEGMENT {number}: payload")
        frame_hash = self._source.read(limits.FRAME_HASH_BYTES, f"SEGMENT {number}: frame_hash")
        self._check_crc(f"SEGMENT {number}")
        return Segment(payload, frame_hash, entry.frame_count)

    @property
    def seekable(self) -> bool:
        """Whether the source is a file that can be read more than once."""
        return self._source.seekable

    def check_complete(self) -> int:
        """Check every CRC up to END and that nothing follows, in little memory; returns the file's size."""
        for number in range(len(self.index)):
            entry = self._open_segment(number)
            self._source.skip(entry.content_bytes, f"SEGMENT {number}: payload")
            self._check_crc(f"SEGMENT {number}")
        self._read_end()
        return self._source.position

    def check_end(self) -> None:
        """Check that END stands behind the last segment, and nothing behind END."""
        self._read_end()

    @property
    def audio_bytes(self) -> int:
        """What the section AUDIO takes in the file; 0 where there is none."""
        if self._sound is None:
            return 0
        length = self._sound[1] if isinstance(self._sound, tuple) else len(self._sound)
        return 1 + leb128_size(length) + length + limits.CRC_BYTES

    def read_sound(self) -> bytes | None:
        """The payload of the section AUDIO, None where there is none."""
        if not isinstance(self._sound, tuple):
            return self._sound
        place, length = self._sound
        before = self._source.position
        self._source.seek(place)
        payload = self._source.read(length, "AUDIO")
        self._source.seek(before)
        return payload

    def byte_map(self) -> dict[str, int]:
        """Where the bytes of the file went, by purpose; known without reading the segments.

        The values add up to the size of the file. ``signature`` includes the version, and
        ``section_header`` is type and length of all sections.
        """
        result = dict(self._bytes)
        result["payload"] = sum(entry.payload_bytes for entry in self.index)
        result["frame_hash"] = limits.FRAME_HASH_BYTES * len(self.index)
        result["crc"] += limits.CRC_BYTES * (len(self.index) + 1)
        result["section_header"] += 2 + sum(1 + leb128_size(entry.content_bytes) for entry in self.index)
        return result

    def _read_start(self) -> None:
        self._read_head()
        self._read_index()
        self._read_programs()
        self._read_optional_sections()
        self._place_segments()

    def _read_head(self) -> None:
        source = self._source
        for position, expected in enumerate(SIGNATURE):
            if source.read(1, "signature")[0] != expected:
                hint = ", though it begins like one: was it transferred as text?" if position >= 4 else ""
                raise SignatureError("not a .cwrv file" + hint)
        self.major, self.minor = source.read(2, "version")
        if self.major not in (MAJOR, NEWEST_MAJOR):
            known = f"versions {MAJOR} and {NEWEST_MAJOR}"
            raise UnsupportedError(f"version {self.major}.{self.minor}, this decoder reads {known}")
        self._bytes["signature"] = source.position

        payload, offset = self._read_section(SectionType.HEAD, limits.MAX_HEAD_BYTES, crc=source.crc)
        self.header = StreamHeader.parse(payload, offset=offset, extensible=self.minor > MINOR)
        self.pts = self.header.default_pts

    def _read_index(self) -> None:
        payload, offset = self._read_section(SectionType.INDEX, self._max_index_bytes)
        self._parse_index(payload, offset)

    @property
    def _max_index_bytes(self) -> int:
        return limits.MAX_INDEX_ENTRY_BYTES * self.header.segment_count

    def _parse_index(self, payload: bytes, offset: int) -> None:
        reader = BitReader(payload, offset=offset)
        self.index = tuple(
            IndexEntry(reader.leb128("frame_count"), reader.leb128("section_bytes"))
            for _ in range(self.header.segment_count)
        )
        reader.expect_end("INDEX")
        _check_index(self.header, self.index)

    def _place_segments(self) -> None:
        """Segments begin where the source stands."""
        start = self._source.position
        self.segment_starts = tuple(accumulate((e.frame_count for e in self.index[:-1]), initial=0))
        self._segment_offsets = tuple(accumulate((e.section_bytes for e in self.index), initial=start))

    def _read_programs(self) -> None:
        found: list[bytes] = []
        while self._source.peek() == SectionType.PROGRAM:
            if len(found) == limits.MAX_PROGRAMS:
                raise LimitError(f"PROGRAM: more than {limits.MAX_PROGRAMS} of them")
            payload, _ = self._read_section(SectionType.PROGRAM, limits.MAX_PROGRAM_BYTES)
            found.append(syntax.parse_program(payload))
        self.programs = tuple(found)

    def _read_optional_sections(self) -> None:
        source = self._source
        seen: set[int] = set()
        while (kind := source.peek()) is not None and kind & OPTIONAL:
            if kind in seen and kind in (SectionType.TIMESTAMPS, SectionType.METADATA, SectionType.AUDIO):
                raise SyntaxViolation(f"a second {_name(kind)} section at byte {source.position}")
            seen.add(kind)
            if kind == SectionType.TIMESTAMPS:
                max_bytes = syntax.max_compressed_bytes(limits.MAX_SLEB_BYTES * self.header.frame_count)
                payload, _ = self._read_section(kind, max_bytes)
                self.pts = syntax.parse_timestamps(payload, self.header)
            elif kind == SectionType.METADATA:
                max_bytes = syntax.max_compressed_bytes(limits.MAX_METADATA_BYTES)
                payload, _ = self._read_section(kind, max_bytes)
                self.metadata = syntax.parse_metadata(payload)
            elif kind == SectionType.AUDIO and not source.seekable:
                self._sound, _ = self._read_section(kind, limits.MAX_AUDIO_BYTES)
            elif kind == SectionType.AUDIO:
                length = self._open_section(kind)
                if length > limits.MAX_AUDIO_BYTES:
                    raise LimitError(f"AUDIO: length = {length}, allowed is 0..{limits.MAX_AUDIO_BYTES}")
                place = source.position
                source.skip(length, "AUDIO")
                self._check_crc("AUDIO")
                self._sound = place, length
                self._count("audio", length)
            else:
                length = self._open_section(kind)
                source.skip(length, _name(kind))
                self._check_crc(_name(kind))
                self._count("other", length)
        if kind is not None and kind != SectionType.SEGMENT:
            raise _misplaced(kind, SectionType.SEGMENT, source.position)

    def _read_section(self, kind: int, max_bytes: int, crc: int = 0) -> tuple[bytes, int]:
        """The payload of the next section, and where it stands in the file."""
        length = self._open_section(kind, crc)
        if length > max_bytes:
            raise LimitError(f"{_name(kind)}: length = {length}, allowed is 0..{max_bytes}")
        offset = self._source.position
        payload = self._source.read(length, _name(kind))
        self._check_crc(_name(kind))
        self._count(_name(kind).lower(), length)
        return payload, offset

    def _open_section(self, kind: int, crc: int = 0) -> int:
        """Read type and length of the next section, which must be of this type; returns the length."""
        source = self._source
        source.crc = crc
        offset = source.position
        found = source.read(1, f"{_name(kind)}: type")[0]
        if found != kind:
            raise _misplaced(found, kind, offset)
        data = source.read(1, f"{_name(kind)}: length")
        while data[-1] >= 0x80 and len(data) < limits.MAX_LEB128_BYTES:
            data += source.read(1, f"{_name(kind)}: length")
        return BitReader(data, offset=offset + 1).leb128(f"{_name(kind)}: length")

    def _open_segment(self, number: int) -> IndexEntry:
        self._source.seek(self._segment_offsets[number])
        entry = self.index[number]
        length = self._open_section(SectionType.SEGMENT)
        if length != entry.content_bytes:
            raise SyntaxViolation(f"SEGMENT {number}: length = {length}, not {entry.content_bytes} as in INDEX")
        return entry

    def _read_end(self) -> None:
        self._source.seek(self._segment_offsets[-1])
        if length := self._open_section(SectionType.END):
            raise SyntaxViolation(f"END: length = {length}, it must be empty")
        self._check_crc("END")
        if self._source.peek() is not None:
            raise SyntaxViolation(f"bytes after END, from byte {self._source.position}")

    def _check_crc(self, name: str) -> None:
        computed = self._source.crc
        stored = int.from_bytes(self._source.read(limits.CRC_BYTES, f"{name}: crc32"), "little")
        if stored != computed:
            raise ChecksumError(f"{name}: crc32 is {stored:08x} in the file, {computed:08x} by its bytes")

    def _count(self, purpose: str, length: int) -> None:
        self._bytes[purpose] += length
        self._bytes["section_header"] += 1 + leb128_size(length)
        self._bytes["crc"] += limits.CRC_BYTES


def _name(kind: int) -> str:
    return _NAMES.get(kind, f"section 0x{kind:02x}")


def _misplaced(found: int, expected: int, offset: int) -> BitstreamError:
    if not found & OPTIONAL and found not in _NAMES:
        return UnsupportedError(f"{_name(found)} at byte {offset} is not known and not optional")
    return SyntaxViolation(f"{_name(found)} at byte {offset}, where {_name(expected)} belongs")
