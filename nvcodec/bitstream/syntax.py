"""What stands inside the sections HEAD, TIMESTAMPS, METADATA and PROGRAM.

The stream header is one list of fields, ``HEAD_FIELDS``. Parsing, writing, the range check and the
table in the specification all come from that list; other fixed syntax can use the same machinery.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from itertools import pairwise
from typing import Any, Final, Literal

import zstandard

from nvcodec.bitstream.bitio import BitReader, BitWriter
from nvcodec.core import limits
from nvcodec.core.errors import BitstreamError, LimitError, SyntaxViolation, UnsupportedError

__all__ = [
    "HEAD_FIELDS",
    "Field",
    "StreamHeader",
    "check_fields",
    "fields_table",
    "max_compressed_bytes",
    "parse_metadata",
    "parse_program",
    "parse_timestamps",
    "read_fields",
    "write_fields",
    "write_metadata",
    "write_program",
    "write_timestamps",
]


@dataclass(frozen=True, slots=True)
class Field:
    """One line of a syntax table. A value outside ``low..high`` is refused with ``refusal``.

    A reserved field is written as zero, read and forgotten, and has no name of its own to keep.
    """

    name: str
    kind: Literal["u", "su", "leb128", "sleb", "reserved"]
    bits: int
    low: int
    high: int
    meaning: str
    refusal: type[BitstreamError] = LimitError

    @property
    def descriptor(self) -> str:
        if self.kind in ("leb128", "sleb"):
            return f"{self.kind}()"
        return f"{'u' if self.kind == 'reserved' else self.kind}({self.bits})"

    def read(self, reader: BitReader) -> int:
        if self.kind in ("u", "reserved"):
            return reader.u(self.bits, self.name)
        if self.kind == "su":
            return reader.su(self.bits, self.name)
        return reader.leb128(self.name) if self.kind == "leb128" else reader.sleb(self.name)

    def write(self, writer: BitWriter, value: int) -> None:
        if self.kind in ("u", "reserved"):
            writer.u(value, self.bits)
        elif self.kind == "su":
            writer.su(value, self.bits)
        elif self.kind == "leb128":
            writer.leb128(value)
        else:
            writer.sleb(value)

    def check(self, value: int) -> None:
        if not self.low <= value <= self.high:
            raise self.refusal(f"{self.name} = {value}, allowed is {self.allowed}")

    @property
    def allowed(self) -> str:
        high = str(self.high)
        if len(high) > 4 and self.high.bit_count() == 1:
            high = f"2^{self.high.bit_length() - 1}"
        elif len(high) > 4 and (self.high + 1).bit_count() == 1:
            high = f"2^{self.high.bit_length()}-1"
        return high if self.low == self.high else f"{self.low}..{high}"


def _u(name: str, bits: int, low: int, high: int, meaning: str, refusal: type[BitstreamError]) -> Field:
    return Field(name, "u", bits, low, high, meaning, refusal)


def _leb(name: str, low: int, high: int, meaning: str) -> Field:
    return Field(name, "leb128", 0, low, high, meaning)


_TICKS = limits.MAX_LEB128

HEAD_FIELDS: Final[tuple[Field, ...]] = (
    _u("level", 8, 1, len(limits.LEVELS), "limits that the stream keeps", UnsupportedError),
    _leb("width", 1, limits.MAX_WIDTH, "luma samples in a row"),
    _leb("height", 1, limits.MAX_HEIGHT, "luma rows"),
    _u("chroma_format_idc", 2, 1, 1, "0 none, 1 4:2:0, 2 4:2:2, 3 4:4:4", UnsupportedError),
    _u("bit_depth_minus8", 3, 0, 2, "bits of a sample, less 8: 0 or 2", UnsupportedError),
    _u("color_range", 2, 0, 2, "0 unspecified, 1 limited, 2 full", UnsupportedError),
    Field("reserved_bit", "reserved", 1, 0, 0, "0; ignored by the reader"),
    _leb("frame_count", 1, limits.MAX_FRAMES, "frames of the stream"),
    _leb("segment_count", 1, limits.MAX_SEGMENTS, "segments of the stream"),
    _leb("time_base_num", 1, _TICKS, "a tick lasts num / den seconds"),
    _leb("time_base_den", 1, _TICKS, ""),
    _leb("frame_duration", 1, _TICKS, "ticks from one frame to the next"),
    _leb("sar_num", 0, _TICKS, "sample aspect ratio, width : height; 0/1 unknown"),
    _leb("sar_den", 1, _TICKS, ""),
    _u("color_primaries", 8, 0, 255, "H.273 ColourPrimaries", UnsupportedError),
    _u("transfer", 8, 0, 255, "H.273 TransferCharacteristics", UnsupportedError),
    _u("matrix", 8, 0, 255, "H.273 MatrixCoefficients", UnsupportedError),
    _u("chroma_location", 8, 0, 6, "place of the chroma samples", UnsupportedError),
)


def read_fields(reader: BitReader, fields: Iterable[Field]) -> dict[str, int]:
    """Values by name, each checked against its range as it is read."""
    values: dict[str, int] = {}
    for field in fields:
        value = field.read(reader)
        if field.kind != "reserved":
            field.check(value)
            values[field.name] = value
    return values


def check_fields(fields: Iterable[Field], values: Mapping[str, int]) -> None:
    for field in fields:
        if field.kind != "reserved":
            field.check(values[field.name])


def write_fields(writer: BitWriter, fields: Sequence[Field], values: Mapping[str, int]) -> None:
    check_fields(fields, values)
    for field in fields:
        field.write(writer, 0 if field.kind == "reserved" else values[field.name])


def fields_table(fields: Iterable[Field]) -> str:
    """The Markdown table that the specification shows for these fields."""
    rows = ["| Field | Descriptor | Allowed in 7.3 | Meaning |", "|---|---|---|---|"]
    for field in fields:
        allowed = "any" if field.kind == "reserved" else field.allowed
        rows.append(f"| `{field.name}` | {field.descriptor} | {allowed} | {field.meaning} |")
    return "\n".join(rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamHeader:
    """The payload of the HEAD section. Colour numbers are those of H.273 and FFmpeg; 2 is unspecified."""

    level: int
    width: int
    height: int
    frame_count: int
    segment_count: int
    time_base_num: int
    time_base_den: int
    frame_duration: int
    chroma_format_idc: int = 1
    bit_depth_minus8: int = 0
    sar_num: int = 0
    sar_den: int = 1
    color_range: int = 0
    color_primaries: int = 2
    transfer: int = 2
    matrix: int = 2
    chroma_location: int = 0

    @classmethod
    def parse(cls, payload: bytes, *, offset: int = 0, extensible: bool = False) -> StreamHeader:
        """``extensible``: fields that a newer minor version has added at the end are ignored."""
        reader = BitReader(payload, offset=offset)
        header = cls(**read_fields(reader, HEAD_FIELDS))
        if not extensible:
            reader.expect_end("HEAD")
        header.check()
        return header

    def write(self) -> bytes:
        self.check()
        writer = BitWriter()
        write_fields(writer, HEAD_FIELDS, asdict(self))
        return writer.finish()

    def check(self) -> None:
        """Every field in its range, and the relations between fields."""
        check_fields(HEAD_FIELDS, asdict(self))
        level = limits.level_by_number(self.level)
        samples = self.width * self.height
        if samples > level.max_picture_samples:
            raise LimitError(
                f"width x height: {samples} samples in a picture, level {self.level} allows {level.max_picture_samples}"
            )
        if self.bit_depth_minus8 == 1:
            raise UnsupportedError("bit_depth_minus8 = 1, allowed are 0 and 2")
        if self.segment_count > self.frame_count:
            raise SyntaxViolation(f"segment_count = {self.segment_count} is more than frame_count = {self.frame_count}")
        if self.sar_num == 0 and self.sar_den != 1:
            raise SyntaxViolation(f"sar_den = {self.sar_den} with sar_num = 0 (unknown is written 0/1)")

    @property
    def default_pts(self) -> range:
        """The timestamps of a stream without a TIMESTAMPS section."""
        return range(0, self.frame_count * self.frame_duration, self.frame_duration)


def max_compressed_bytes(size: int) -> int:
    """The longest section payload that may hold ``size`` bytes, zstd's own worst case included."""
    return size + size // 128 + 64


def write_timestamps(header: StreamHeader, timestamps: Sequence[int]) -> bytes:
    _check_timestamps(header, timestamps)
    writer = BitWriter()
    expected = 0
    for pts in timestamps:
        writer.sleb(pts - expected)
        expected = pts + header.frame_duration
    return _compress(writer.finish())


def parse_timestamps(payload: bytes, header: StreamHeader) -> Sequence[int]:
    max_size = limits.MAX_SLEB_BYTES * header.frame_count
    reader = BitReader(_decompress(payload, "TIMESTAMPS", header.frame_count, max_size))
    timestamps = array("q")
    expected = 0
    for _ in range(header.frame_count):
        pts = expected + reader.sleb("pts_difference")
        if abs(pts) > limits.MAX_SLEB:
            raise LimitError(f"TIMESTAMPS: pts {pts} (at most {limits.MAX_SLEB} either way)")
        timestamps.append(pts)
        expected = pts + header.frame_duration
    reader.expect_end("TIMESTAMPS")
    _check_timestamps(header, timestamps)
    return timestamps


def _check_timestamps(header: StreamHeader, timestamps: Sequence[int]) -> None:
    if len(timestamps) != header.frame_count:
        raise SyntaxViolation(f"TIMESTAMPS: {len(timestamps)} of them for {header.frame_count} frames")
    if any(later <= pts for pts, later in pairwise(timestamps)):
        raise SyntaxViolation("TIMESTAMPS: not strictly increasing")
    if max(-timestamps[0], timestamps[-1]) > limits.MAX_SLEB:
        raise LimitError(f"TIMESTAMPS: beyond {limits.MAX_SLEB} either way")
    if all(pts == default for pts, default in zip(timestamps, header.default_pts, strict=True)):
        raise SyntaxViolation("TIMESTAMPS: present, though frame_duration says the same")


def write_metadata(metadata: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(dict(metadata), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        data = text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise SyntaxViolation(f"METADATA: JSON cannot hold it ({error})") from None
    _parse_json(data)
    return _compress(data)


def parse_metadata(payload: bytes) -> dict[str, Any]:
    return _parse_json(_decompress(payload, "METADATA", 2, limits.MAX_METADATA_BYTES))


_LEVEL = 19
"""Of compression."""
_BY_DICTIONARY = 1
"""First byte of a PROGRAM section that is compressed with the help of ``programs.dict``; else a zstd frame begins."""


@cache
def _program_dictionary() -> zstandard.ZstdCompressionDict:
    """Programs that are often met, one behind the other: what is like them takes a few bytes."""
    data = resources.files("nvcodec.bitstream").joinpath("programs.dict").read_bytes()
    return zstandard.ZstdCompressionDict(data, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def write_program(program: bytes) -> bytes:
    """A PROGRAM section's payload. ``program``: as the exact machine codes it. Raises LimitError."""
    settings = zstandard.ZstdCompressionParameters.from_level(
        _LEVEL, format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_content_size=True, write_checksum=False,
        write_dict_id=False,
    )  # fmt: skip
    compressor = zstandard.ZstdCompressor(dict_data=_program_dictionary(), compression_params=settings)
    payload = min(_compress(program), bytes([_BY_DICTIONARY]) + compressor.compress(program), key=len)
    if len(payload) > limits.MAX_PROGRAM_BYTES or not 1 <= len(program) <= limits.MAX_PROGRAM_NODE_BYTES:
        raise LimitError(f"PROGRAM: {len(payload)} bytes, {len(program)} decompressed: more than is allowed")
    return payload


def parse_program(payload: bytes) -> bytes:
    """The program in a PROGRAM section, still coded."""
    if payload[:1] != bytes([_BY_DICTIONARY]):
        return _decompress(payload, "PROGRAM", 1, limits.MAX_PROGRAM_NODE_BYTES)
    return _decompress_frame(
        payload[1:], "PROGRAM", 1, limits.MAX_PROGRAM_NODE_BYTES, zstandard.FORMAT_ZSTD1_MAGICLESS,
        _program_dictionary(),
    )  # fmt: skip


def _parse_json(data: bytes) -> dict[str, Any]:
    """Stricter than Python's reader, so that every reader sees the same object or refuses it."""
    if len(data) > limits.MAX_METADATA_BYTES:
        raise LimitError(f"METADATA: {len(data)} bytes of JSON (at most {limits.MAX_METADATA_BYTES})")
    try:
        metadata = json.loads(data.decode(), object_pairs_hook=_unique, parse_int=_integer)
        _check_depth(metadata, limits.MAX_METADATA_DEPTH)
        json.dumps(metadata, ensure_ascii=False, allow_nan=False).encode()  # NaN, infinity, half surrogates
    except (ValueError, RecursionError) as error:
        raise SyntaxViolation(f"METADATA: not the JSON that the format allows ({error})") from None
    if not isinstance(metadata, dict):
        raise SyntaxViolation("METADATA: JSON, but not an object")
    return metadata


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return result


def _integer(text: str) -> int:
    if not math.isfinite(float(text)):
        raise ValueError("a number beyond the range of binary64")
    return int(text)


def _check_depth(value: Any, left: int) -> None:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    if children is None:
        return
    if left == 0:
        raise ValueError(f"nested deeper than {limits.MAX_METADATA_DEPTH}")
    for child in children:
        _check_depth(child, left - 1)


def _compress(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=_LEVEL).compress(data)


def _decompress(payload: bytes, name: str, min_size: int, max_size: int) -> bytes:
    """One zstd frame that states its size: nothing is allocated that the limits do not allow."""
    if payload[:4] != zstandard.FRAME_HEADER:
        raise SyntaxViolation(f"{name}: not a zstd frame")
    return _decompress_frame(payload, name, min_size, max_size, zstandard.FORMAT_ZSTD1, None)


def _decompress_frame(
    payload: bytes,
    name: str,
    min_size: int,
    max_size: int,
    layout: int,
    dictionary: zstandard.ZstdCompressionDict | None,
) -> bytes:
    try:
        size = zstandard.get_frame_parameters(payload, format=layout).content_size
        if size == zstandard.CONTENTSIZE_UNKNOWN:
            raise SyntaxViolation(f"{name}: the zstd frame does not state its size")
        if not min_size <= size <= max_size:
            raise LimitError(f"{name}: {size} bytes decompressed, allowed are {min_size}..{max_size}")
        decompressor = zstandard.ZstdDecompressor(dict_data=dictionary, format=layout)
        return decompressor.decompress(payload, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise SyntaxViolation(f"{name}: {error}") from None
