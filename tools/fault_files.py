"""Files for the fault tests and campaigns: a small one with everything, its damaged twins, and hostile ones.

All are made with the writers of the package, or put together by hand around them, with right checksums wherever
the fault lies deeper.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from random import Random
from typing import Final

import numpy as np
import torch
import zstandard
from draw_blocks import draw_blocks
from hostile_programs import PAYLOADS, PROGRAMS, long_program, right_program, widest_program
from program_vectors import Body, ProgramPlan, implicit_segment

from nvcodec.bitstream import container, syntax
from nvcodec.bitstream.bitio import BitReader, BitWriter
from nvcodec.bitstream.container import SectionType, Segment, write_container
from nvcodec.bitstream.syntax import StreamHeader
from nvcodec.core import limits
from nvcodec.core.errors import (
    BitstreamError,
    ChecksumError,
    LimitError,
    SyntaxViolation,
    TruncatedError,
    UnsupportedError,
)
from nvcodec.decoder import Decoder, FrameHash, output_planes
from nvcodec.entropy.symbols import SymbolWriter
from nvcodec.entropy.weights import STEPS, TensorChange, row_length
from nvcodec.exact.arithmetic import Function
from nvcodec.exact.arrangement import Concatenation, Fitting
from nvcodec.exact.operation import Sizes
from nvcodec.exact.outputs import Correction, SamplesOutput, StateOutput
from nvcodec.exact.pointwise import Addition
from nvcodec.exact.program import Program
from nvcodec.exact.references import PredictionInput, StateInput, VectorsInput
from nvcodec.exact.warping import Warping
from nvcodec.hybrid.base import WIDTHS, segment_tensors
from nvcodec.hybrid.blocks.contexts import initial_probabilities
from nvcodec.hybrid.blocks.layout import LEVEL_BOUND, STEP_BOUND, BlockLayout, BlockSymbols
from nvcodec.hybrid.blocks.picture import noted_bins
from nvcodec.hybrid.network import NetworkShape
from nvcodec.hybrid.payload import HybridHeader, HybridWriter
from nvcodec.hybrid.unit import UnitSymbols
from nvcodec.motion.levels import FrameGeometry

__all__ = [
    "ALL_MASKS",
    "BIT_MASKS",
    "HOSTILE",
    "Planes",
    "byte_flips",
    "header_bits",
    "payload_bits",
    "program_work",
    "resealed",
    "section_places",
    "small_file",
    "truncations",
    "verify",
]

Planes = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

CPU: Final = torch.device("cpu")
ALL_MASKS: Final = tuple(range(1, 256))
BIT_MASKS: Final = tuple(1 << bit for bit in range(8))


# A small file with everything


def small_file(
    width: int = 16, height: int = 12, counts: tuple[int, ...] = (3, 2, 4), *, optional: bool = True
) -> tuple[bytes, list[Planes]]:
    """A file with a segment for each count, of frames that are noise, and those frames. The last one of several
    segments is implicit.

    ``optional``: with TIMESTAMPS, METADATA and a section of an unknown type.
    """
    generator, random = torch.Generator().manual_seed(width * height), Random(width * height)
    frames: list[Planes] = []
    segments = []
    for number, count in enumerate(counts, 1):
        if 1 < number == len(counts):
            segment, decoded = _implicit_segment(width, height, count, random)
        else:
            segment, decoded = _noise_segment(width, height, count, generator, random)
        segments.append(segment)
        frames += decoded
    total = sum(counts)
    header = _header(width=width, height=height, frame_count=total, segment_count=len(counts))
    programs = [small_program(width, height).write()] if len(counts) > 1 else []
    if not optional:
        return write_container(header, segments, programs=programs), frames
    pts = [0, *range(2, total + 1)]
    data = write_container(header, segments, timestamps=pts, metadata={"title": "noise"}, programs=programs)
    place = section_places(data)[SectionType.SEGMENT][0][0]
    return data[:place] + _section(0x90, b"unknown") + data[place:], frames


def small_program(width: int, height: int) -> Program:
    """One with motion, a correction of it, a state and latents, in few weights."""
    body = Body(12)
    geometry = FrameGeometry(width, height)
    (rows, columns), blocks = geometry.half, geometry.blocks
    latent, vectors = body.latent(2, rows, columns, 5), body(VectorsInput, slot=0)
    state = body(StateInput, slot=0, index=0, channels=2, rows=rows, columns=columns)
    near = body(Concatenation, vectors, body(Fitting, state, rows=blocks[0], columns=blocks[1]))
    body(Correction, body.convolved(near, 2), slot=0)
    warped = body(Warping, state, body(VectorsInput, slot=0, final=1), block_log2=2)
    prediction = body(PredictionInput)
    seen = body.table(body(Concatenation, latent, warped), Function.GELU)
    body(StateOutput, body.convolved(seen, 2, 3), index=0)
    body(SamplesOutput, body(Addition, prediction, body.convolved(seen, 6)))
    return body.program()


def _implicit_segment(width: int, height: int, count: int, random: Random) -> tuple[Segment, list[Planes]]:
    plan = ProgramPlan(small_program(width, height), count, 4, (0.3, 9), motion=(0.2, 3))
    payload, frames = implicit_segment(random, plan, 0, FrameGeometry(width, height))
    digest = FrameHash()
    for planes in frames:
        digest.add(planes)
    return Segment(payload, digest.digest(), count), frames


def _noise_segment(
    width: int, height: int, count: int, generator: torch.Generator, random: Random
) -> tuple[Segment, list[Planes]]:
    geometry = FrameGeometry(width, height)
    spec = next(s for s in NetworkShape(8).tensors if s.name == "cell.key.leave.bias")
    symbols = torch.randint(-9, 10, spec.shape, generator=generator).numpy()
    rows = symbols.size // row_length(spec)
    change = TensorChange(symbols, STEPS.index(2), np.full(rows, 30))
    writer = HybridWriter(HybridHeader(8, 4, 0), {spec.name: change}, geometry, count, CPU)
    frames: dict[int, Planes] = {}
    for unit in writer.units:
        coded = UnitSymbols.empty(unit, geometry)
        for level in coded.motion:
            level += torch.randint(-3, 4, level.shape, generator=generator)
        layout, refers = BlockLayout(*geometry.half), unit.reference_count > 0
        coded.blocks = [draw_blocks(random, layout, refers, 0.25, 3, 3) for _ in unit.frames]
        for display, state in writer.code(coded).items():
            frames[display] = output_planes(state.appearance.packed, width, height)
    digest = FrameHash()
    for display in range(count):
        digest.add(frames[display])
    return Segment(writer.finish(), digest.digest(), count), [frames[n] for n in range(count)]


def _header(**changes: int) -> StreamHeader:
    values = {"level": 1, "width": 16, "height": 12, "frame_count": 1, "segment_count": 1}
    return StreamHeader(**(values | {"time_base_num": 1, "time_base_den": 25, "frame_duration": 1} | changes))


# Damage


def byte_flips(data: bytes, masks: tuple[int, ...] = (255,)) -> Iterator[tuple[str, bytes]]:
    """Every byte, changed by every mask."""
    for position in range(len(data)):
        for mask in masks:
            damaged = bytearray(data)
            damaged[position] ^= mask
            yield f"byte {position} ^ 0x{mask:02x}", bytes(damaged)


def header_bits(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Every bit before the first SEGMENT section."""
    start = section_places(data)[SectionType.SEGMENT][0][0]
    for name, damaged in byte_flips(data[:start], BIT_MASKS):
        yield name, damaged + data[start:]


def truncations(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Every length but the whole."""
    for length in range(len(data)):
        yield f"cut to {length} bytes", data[:length]


def payload_bits(data: bytes) -> Iterator[tuple[str, bytes]]:
    """A bit of every byte of what the sections hold, another one each time, with all checksums made right again.

    What is packed with zstd is changed before it is packed.
    """
    for kind, places in section_places(data).items():
        for start, payload_start, end in places:
            payload = data[payload_start : end - limits.CRC_BYTES]
            packed = kind in (SectionType.PROGRAM, SectionType.TIMESTAMPS, SectionType.METADATA)
            content = unpacked(kind, payload) if packed else payload
            for position in range(len(content)):
                changed = bytearray(content)
                changed[position] ^= 1 << position % 8
                again = zstandard.ZstdCompressor().compress(changed) if packed else bytes(changed)
                yield (
                    f"section 0x{kind:02x} at {start}: bit {8 * position + position % 8}",
                    resealed(data, start, again),
                )


def unpacked(kind: int, payload: bytes) -> bytes:
    """What a section holds that is packed."""
    if kind == SectionType.PROGRAM:
        return syntax.parse_program(payload)
    return zstandard.ZstdDecompressor().decompress(payload)


def resealed(data: bytes, start: int, payload: bytes) -> bytes:
    """``data`` with another payload in the section at ``start``, its length and CRC right."""
    end = next(e for places in section_places(data).values() for s, _, e in places if s == start)
    crc = zlib.crc32(data[:start]) if data[start] == SectionType.HEAD else 0
    return data[:start] + _section(data[start], payload, crc) + data[end:]


def section_places(data: bytes) -> dict[int, list[tuple[int, int, int]]]:
    """(start, start of the payload, end) of the sections of a whole file, by type."""
    places: dict[int, list[tuple[int, int, int]]] = {}
    start = len(container.SIGNATURE) + 2
    while start < len(data):
        reader = BitReader(data[start + 1 : start + 1 + limits.MAX_LEB128_BYTES])
        length = reader.leb128("length")
        payload = start + 1 + reader.byte_offset
        end = payload + length + limits.CRC_BYTES
        places.setdefault(data[start], []).append((start, payload, end))
        start = end
    return places


# Hostile files


def _section(kind: int, payload: bytes, crc: int = 0, length: bytes | None = None) -> bytes:
    """``length``: its bytes, if they are not to be right."""
    writer = BitWriter()
    writer.leb128(len(payload))
    body = bytes([kind]) + (writer.finish() if length is None else length) + payload
    return body + zlib.crc32(body, crc).to_bytes(limits.CRC_BYTES, "little")


_START: Final = container.SIGNATURE + bytes([container.MAJOR, container.MINOR])


def _file(head: bytes, index: bytes, *rest: bytes) -> bytes:
    return _START + _section(1, head, zlib.crc32(_START)) + _section(2, index) + b"".join(rest)


def _fields(**changes: int | bytes) -> bytes:
    """The payload of HEAD with any values; bytes stand as they are."""
    values = asdict(_header()) | {"reserved_bit": 0} | changes
    writer = BitWriter()
    for field in syntax.HEAD_FIELDS:
        value = values[field.name]
        if isinstance(value, bytes):
            writer.raw(value)
        else:
            field.write(writer, value)
    return writer.finish()


def _lebs(*values: int) -> bytes:
    writer = BitWriter()
    for value in values:
        writer.leb128(value)
    return writer.finish()


_SEGMENT: Final = _section(3, b"\0\x04\0" + bytes(16))
_INDEX: Final = _lebs(1, len(_SEGMENT))
_END: Final = _section(0x7F, b"")


def _with_head(**changes: int | bytes) -> bytes:
    return _file(_fields(**changes), _INDEX, _SEGMENT, _END)


def _with_optional(*sections: bytes, frames: int = 1) -> bytes:
    return _file(_fields(frame_count=frames), _lebs(frames, len(_SEGMENT)), *sections, _SEGMENT, _END)


def _with_payload(payload: bytes, *, frames: int = 1, **changes: int) -> bytes:
    """One segment with this payload and right checksums; the frame hash is wrong."""
    header = _header(frame_count=frames, **changes)
    return write_container(header, [Segment(payload, bytes(16), frames)])


def _with_programs(*contents: bytes) -> bytes:
    """Sections PROGRAM with these contents, and a hybrid segment."""
    return _file(_fields(), _INDEX, *(_section(4, _zstd(content)) for content in contents), _SEGMENT, _END)


def _implicit(payload: bytes, program: bytes) -> bytes:
    """One implicit segment with right checksums; the frame hash is wrong."""
    return write_container(_header(), [Segment(payload, bytes(16), 1)], programs=[program])


def _with_programs_of(build: Callable[[], bytes]) -> bytes:
    return _with_programs(build())


def _implicit_of(build: Callable[[], tuple[bytes, bytes]]) -> bytes:
    return _implicit(*build())


def _packed_program(payload: bytes, **options: bytes) -> bytes:
    return _file(_fields(), _INDEX, _section(4, payload, **options), _SEGMENT, _END)  # type: ignore[arg-type]


def _zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def _zstd_frame(size: int, blocks: bytes, window: int = 0) -> bytes:
    """A zstd frame that states ``size``, with a window descriptor."""
    return zstandard.FRAME_HEADER + b"\xc0" + bytes([window]) + size.to_bytes(8, "little") + blocks


_RLE_BLOCKS: Final = (0b011 | 0x1FFFF << 3).to_bytes(3, "little") + b" "
"""A zstd block, the last one: 131071 spaces from four bytes."""
_MORE_BLOCKS: Final = ((0b010 | 0x1FFFF << 3).to_bytes(3, "little") + b" ") * 1000


def _breaking_weights(width: int) -> bytes:
    """A segment payload whose network has the largest weights there can be."""
    header = HybridHeader(width, 4, 0)
    writer = SymbolWriter()
    shape = NetworkShape(width)
    spec = next(s for s in shape.tensors if s.name == "cell.inter.mix0.weight")
    symbols = np.full(spec.shape, 127)
    change = TensorChange(symbols, len(STEPS) - 1, np.full(symbols.size // row_length(spec), 63))
    segment_tensors(writer, width, 0, {spec.name: change})
    return header.write() + writer.finish()


def _breaking_blocks(level: int, step: int) -> bytes:
    """A segment payload whose first block has one level, in a root with another quantiser step."""
    writer = SymbolWriter()
    segment_tensors(writer, 8, 0, {})
    symbols = BlockSymbols.empty(BlockLayout(6, 8), False)
    symbols.offsets[0, 0], symbols.levels[0, 0, 0] = step, level
    writer.exchange_bins(noted_bins(initial_probabilities(0), symbols, False))
    return HybridHeader(8, 4, 0).write() + writer.finish()


def _many_segments(count: int) -> bytes:
    head = _fields(frame_count=limits.MAX_FRAMES, segment_count=count)
    return _file(head, _lebs(limits.MAX_FRAMES // count, len(_SEGMENT)) * count, _SEGMENT, _END)


_BIG: Final = {"level": 6, "width": 8192, "height": 8192}

HOSTILE: dict[str, tuple[Callable[[], bytes], type[BitstreamError]]] = {
    "width 2^31-1": (lambda: _with_head(width=2**31 - 1), LimitError),
    "height 2^31": (lambda: _with_head(height=b"\x80\x80\x80\x80\x08"), LimitError),
    "leb128 without end": (lambda: _with_head(width=b"\xff" * 900), LimitError),
    "leb128 with more bytes than needed": (lambda: _with_head(width=b"\x90\x80\x80\x00"), SyntaxViolation),
    "width * height beyond all levels": (lambda: _with_head(level=6, width=16384, height=16384), LimitError),
    "width * height beyond the level": (lambda: _with_head(width=8192, height=8192), LimitError),
    "frame_count 2^31-1": (lambda: _with_head(frame_count=2**31 - 1), LimitError),
    "segment_count 2^31-1": (lambda: _with_head(segment_count=2**31 - 1), LimitError),
    "HEAD of 2^31-1 bytes": (
        lambda: _START + _section(1, b"", length=b"\xff\xff\xff\xff\x07"),
        LimitError,
    ),
    "INDEX of 2^31-1 bytes": (
        lambda: _file(_fields(), b"")[:-6] + _section(2, b"", length=b"\xff\xff\xff\xff\x07"),
        LimitError,
    ),
    "65536 segments, one of them there": (lambda: _many_segments(limits.MAX_SEGMENTS), SyntaxViolation),
    "segment of 2^31-1 frames": (
        lambda: _file(_fields(frame_count=limits.MAX_FRAMES), _lebs(2**31 - 1, len(_SEGMENT)), _SEGMENT, _END),
        LimitError,
    ),
    "frames * samples beyond the level": (
        lambda: _file(_fields(frame_count=1024, **_BIG), _lebs(1024, len(_SEGMENT)), _SEGMENT, _END),
        LimitError,
    ),
    "segment of 2^31-1 bytes": (lambda: _file(_fields(), _lebs(1, 2**31 - 1), _SEGMENT, _END), LimitError),
    "segment of 2^28 bytes that are not there": (
        lambda: _file(_fields(), _lebs(1, 2**28 + 16 + 1 + 5 + 4), b"\x03\x90\x80\x80\x80\x01" + bytes(100)),
        TruncatedError,
    ),
    "segment longer than INDEX says": (
        lambda: _file(_fields(), _INDEX, _section(3, bytes(19), length=b"\xff\xff\xff\xff\x07"), _END),
        SyntaxViolation,
    ),
    "optional section of 2^31-1 bytes": (
        lambda: _with_optional(_section(0x90, b"", length=b"\xff\xff\xff\xff\x07")),
        TruncatedError,
    ),
    "TIMESTAMPS that state 2^63 bytes": (
        lambda: _with_optional(_section(0x81, _zstd_frame(2**63, _RLE_BLOCKS))),
        LimitError,
    ),
    "TIMESTAMPS of 1 GB": (lambda: _with_optional(_section(0x81, _zstd(bytes(10**9))), frames=1024), LimitError),
    "METADATA that holds 131 MB and states 64 KiB": (
        lambda: _with_optional(_section(0x82, _zstd_frame(65536, _MORE_BLOCKS + _RLE_BLOCKS))),
        SyntaxViolation,
    ),
    "METADATA with a window of 3.75 TiB": (
        lambda: _with_optional(_section(0x82, _zstd_frame(65536, _RLE_BLOCKS, window=0xFF))),
        SyntaxViolation,
    ),
    "METADATA nested 30000 deep": (
        lambda: _with_optional(_section(0x82, _zstd(b'{"a":' + b"[" * 30000 + b"]" * 30000 + b"}"))),
        SyntaxViolation,
    ),
    "METADATA with a number of 60000 digits": (
        lambda: _with_optional(_section(0x82, _zstd(b'{"a":' + b"9" * 60000 + b"}"))),
        SyntaxViolation,
    ),
    "HEAD twice": (lambda: _with_optional(_section(1, _fields())), SyntaxViolation),
    "INDEX twice": (lambda: _with_optional(_section(2, _INDEX)), SyntaxViolation),
    "METADATA twice": (lambda: _with_optional(*[_section(0x82, _zstd(b'{"a":1}'))] * 2), SyntaxViolation),
    "SEGMENT within SEGMENT": (
        lambda: _file(_fields(), _lebs(1, len(_SEGMENT) + 6), _section(3, _SEGMENT[:-1] + b"?"), _END),
        SyntaxViolation,
    ),
    "a whole file in place of a SEGMENT": (
        lambda: _file(_fields(), _INDEX, _with_head(), _END),
        ChecksumError,
    ),
    "unknown critical section": (lambda: _with_optional(_section(0x05, b"")), UnsupportedError),
    "PROGRAM of 2^31-1 bytes": (lambda: _packed_program(b"", length=b"\xff\xff\xff\xff\x07"), LimitError),
    "PROGRAM of 1025 bytes": (lambda: _packed_program(bytes(1025)), LimitError),
    "PROGRAM that states 2^63 bytes": (lambda: _packed_program(_zstd_frame(2**63, _RLE_BLOCKS)), LimitError),
    "PROGRAM that holds 131 KB and states 16 KiB": (
        lambda: _packed_program(_zstd_frame(16384, _RLE_BLOCKS)),
        SyntaxViolation,
    ),
    "PROGRAM that holds 27 MB and states 16 KiB": (
        lambda: _packed_program(_zstd_frame(16384, _MORE_BLOCKS[:800] + _RLE_BLOCKS)),
        SyntaxViolation,
    ),
    "PROGRAM with a window of 3.75 TiB": (
        lambda: _packed_program(_zstd_frame(16384, _RLE_BLOCKS, window=0xFF)),
        SyntaxViolation,
    ),
    "PROGRAM of 1 GB": (lambda: _packed_program(_zstd(bytes(10**9))[:1024]), LimitError),
    "17 sections PROGRAM": (lambda: _with_programs(*[right_program()] * 17), LimitError),
    "15 long programs and one that is none": (
        lambda: _with_programs(*[long_program()] * 15, right_program()[:-1]),
        TruncatedError,
    ),
    "15 programs of 16 KiB and one that is none": (
        lambda: _with_programs(*[widest_program()] * 15, right_program()[:-1]),
        TruncatedError,
    ),
    "PROGRAM behind METADATA": (
        lambda: _with_optional(_section(0x82, _zstd(b'{"a":1}')), _section(4, _zstd(right_program()))),
        SyntaxViolation,
    ),
    "PROGRAM behind SEGMENT": (
        lambda: _file(_fields(), _INDEX, _SEGMENT, _section(4, _zstd(right_program())), _END),
        SyntaxViolation,
    ),
    "PROGRAM before INDEX": (
        lambda: _START + _section(1, _fields(), zlib.crc32(_START)) + _section(4, _zstd(right_program())),
        SyntaxViolation,
    ),
    "one byte after END": (lambda: small_file(counts=(1,))[0] + b"\0", SyntaxViolation),
    "a megabyte after END": (lambda: small_file(counts=(1,))[0] + bytes(10**6), SyntaxViolation),
    "weights that break the exactness bound": (lambda: _with_payload(_breaking_weights(8)), LimitError),
    "the same in the widest network, at 8192x8192": (
        lambda: _with_payload(_breaking_weights(WIDTHS[-1]), **_BIG),
        LimitError,
    ),
    "gop 0": (lambda: _with_payload(b"\0\0\0"), LimitError),
    "gop 2^31-1": (lambda: _with_payload(b"\0\xff\xff\xff\xff\x07\0"), LimitError),
    "network of width 15": (lambda: _with_payload(b"\x0f\x04\0"), LimitError),
    "entropy-coded data of three bytes": (lambda: _with_payload(b"\0\x04\0abc"), SyntaxViolation),
    "a level beyond its bound": (lambda: _with_payload(_breaking_blocks(LEVEL_BOUND + 1, 0)), TruncatedError),
    "a quantiser step beyond its bound": (lambda: _with_payload(_breaking_blocks(1, STEP_BOUND + 1)), TruncatedError),
    "payload that ends in its header, at 8192x8192": (lambda: _with_payload(b"\0", **_BIG), TruncatedError),
    "a symbol that no table has, at 8192x8192": (
        lambda: _with_payload(b"\0\x04\0" + b"\xff" * 8, **_BIG),
        TruncatedError,
    ),
}  # fmt: skip
HOSTILE |= {f"program: {name}": (partial(_with_programs_of, build), error) for name, (build, error) in PROGRAMS.items()}
HOSTILE |= {f"implicit: {name}": (partial(_implicit_of, build), error) for name, (build, error) in PAYLOADS.items()}
"""Files that must be refused, by what is wrong with them; all are refused without decoding more than a tiny frame."""


def program_work(decoder: Decoder) -> int:
    """Multiplications and values of a frame, of the program of a file that takes the most."""
    sizes = Sizes(decoder.geometry.half, decoder.geometry.blocks, 1)
    most = 0
    for program in decoder.programs:
        shapes = program.shapes(sizes)
        most = max(most, program.multiplications(shapes) + sum(shape.elements for shape in shapes))
    return most


def verify(data: bytes) -> list[Planes]:
    """All frames of a file; BitstreamError unless everything about it holds."""
    with Decoder(io.BytesIO(data), device="cpu", threads=1) as decoder:
        decoder.verify()
    with Decoder(io.BytesIO(data), device="cpu", threads=1) as decoder:
        return [frame.planes for frame in decoder]
