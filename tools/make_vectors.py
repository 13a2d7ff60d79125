"""Make the conformance vectors of tests/vectors again, and say what changed.

    python tools/make_vectors.py            writes the files, vectors.json, and the tables of bitstream_spec.md
    python tools/make_vectors.py --check    only compares; exit status 1 if anything differs

Grids and weights are pseudo-random and go past what an encoder would choose; only ``random.random()`` is drawn, which
Python keeps the same from version to version. One vector is what the encoder makes of a clip, with a start of weights
that is shipped: it is encoded anew where the file that there is does not decode any more, and stays as it is otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import reference_decoder as reference
import torch
import zstandard
from draw_blocks import draw_blocks
from program_vectors import (
    Body,
    ProgramPlan,
    drawn_changes,
    flat,
    implicit_segment,
    program_files,
    references,
    residual,
)

from nvcodec.bitstream.container import MAJOR, NEWEST_MAJOR, Segment, StreamHeader, write_container
from nvcodec.bitstream.syntax import parse_program
from nvcodec.core.errors import BitstreamError
from nvcodec.core.limits import level_for
from nvcodec.decoder import Decoder, FrameHash, output_planes
from nvcodec.encoder.pipeline import EncodeOptions, encode
from nvcodec.entropy.numbers import best_scale, code_number, code_scales, code_symbols
from nvcodec.entropy.symbols import SymbolWriter
from nvcodec.entropy.weights import TensorChange, best_scales
from nvcodec.exact.arithmetic import EXPONENT_LOW
from nvcodec.exact.arrangement import Fitting, Slicing, Upsampling
from nvcodec.exact.latents import LatentInput
from nvcodec.exact.operation import Operation
from nvcodec.exact.outputs import Correction, SamplesOutput
from nvcodec.exact.pointwise import Addition
from nvcodec.exact.program import Program
from nvcodec.exact.references import ResidualInput, StateInput
from nvcodec.hybrid.base import starting_tensors
from nvcodec.hybrid.blocks.layout import BlockLayout
from nvcodec.hybrid.network import CELL_INPUTS, NetworkShape
from nvcodec.hybrid.payload import HybridHeader, HybridWriter
from nvcodec.hybrid.unit import UnitSymbols
from nvcodec.implicit.payload import IMPLICIT_FROM_START, ImplicitHeader
from nvcodec.implicit.starts import shipped_starts
from nvcodec.motion.levels import FrameGeometry

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "tests" / "vectors"
SPEC = ROOT / "bitstream_spec.md"
DICTIONARY = ROOT / "nvcodec" / "bitstream" / "programs.dict"
WORKED = "one_sample"
UNKNOWN_START = bytes(4)
VERSION = reference.SIGNATURE + b"\6\0"
CPU = torch.device("cpu")
Planes = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Vector:
    """A file with the hash of its frames, or with the error that it must give."""

    description: str
    data: bytes
    frame_hash: str = ""
    error: str = ""

    def record(self) -> dict[str, Any]:
        result: dict[str, Any] = {
            "description": self.description,
            "bytes": len(self.data),
            "sha256": hashlib.sha256(self.data).hexdigest(),
        }
        return result | ({"error": self.error} if self.error else {"frame_hash": self.frame_hash})


@dataclass(frozen=True)
class Plan:
    """One segment: how it is coded, and with what chance and amplitude its symbols are not 0. ``steps``: how far the
    quantiser step of a root lies from that of the one before."""

    frames: int
    width: int = 8
    gop: int = 4
    gain_offset: int = 0
    motion: tuple[float, int] = (0.2, 6)
    blocks: tuple[float, int] = (0.1, 3)
    steps: int = 3
    changes: Callable[[Random, NetworkShape], dict[str, TensorChange]] = lambda random, shape: {}
    is_empty: bool = False  # nothing but what is predicted
    means_only: bool = False  # three levels, the mean of each plane
    drift: bool = False  # all motion symbols 127: fields grow to their bound
    predicts: bool = True


def draw(random: Random, shape: tuple[int, ...], chance: float, amplitude: int) -> np.ndarray:
    """Integers of -amplitude..amplitude, 0 but for a share of them."""
    out = np.zeros(int(np.prod(shape)), dtype=np.int64)
    for i in range(out.size):
        if random.random() < chance:
            out[i] = int(random.random() * (2 * amplitude + 1)) - amplitude
    return out.reshape(shape)


def change_all(chance: float, names: Sequence[str] = ("",), amplitude: int = 3, step: int = 0) -> Any:
    """Changes of all tensors whose names begin with one of ``names``."""

    def make(random: Random, shape: NetworkShape) -> dict[str, TensorChange]:
        result = {}
        for spec in shape.tensors:
            if spec.name.startswith(tuple(names)):
                symbols = draw(random, spec.shape, chance, amplitude)
                result[spec.name] = TensorChange(symbols, step, best_scales(symbols, spec))
        return result

    return make


CHANGED = tuple(
    f"cell.{kind}.{part}"
    for kind in CELL_INPUTS
    for part in ("leave", "enter.bias", "enter.slope", "mix0.bias", "mix1.bias")
)


def context_at_bound(random: Random, shape: NetworkShape) -> dict[str, TensorChange]:
    """Weights just below the bound of 9.3: with biases of 4096 instead of their own they would be beyond it."""
    (spec,) = [s for s in shape.tensors if s.name == "context.output.weight"]
    start = starting_tensors(shape.width)[spec.name].numpy().astype(np.int64)
    symbols = (np.tile([950, -950], 16).reshape(spec.shape) - start) // 11
    return {spec.name: TensorChange(symbols, reference.STEPS.index(11), best_scales(symbols, spec))}


def clipped_weights(random: Random, shape: NetworkShape) -> dict[str, TensorChange]:
    """Context weights beyond their bounds, and scales of rows beyond 63."""
    contexts = ("context.hidden", "context.output.bias", "context.group.bias")
    result: dict[str, TensorChange] = change_all(0.3, contexts, 127, 15)(random, shape)
    names = ("cell.key.leave.weight", "cell.inter.leave.weight", "cell.inter.enter.weight")
    result |= change_all(0.3, names, 8, 7)(random, shape)
    for name in names:
        result[name].scales[0] = 90
    return result


def make_segment(random: Random, plan: Plan, geometry: FrameGeometry) -> tuple[Segment, list[Planes]]:
    shape = NetworkShape(plan.width)
    header = HybridHeader(plan.width, plan.gop, plan.gain_offset, plan.predicts)
    writer = HybridWriter(header, plan.changes(random, shape), geometry, plan.frames, CPU)
    outputs: dict[int, Planes] = {}
    for unit in writer.units:
        symbols = UnitSymbols.empty(unit, geometry)
        if plan.means_only:
            symbols.blocks[0].levels[:, 0, 0] = -3, 2, 1
        elif not plan.is_empty:
            for k, level in enumerate(symbols.motion):
                symbols.motion[k] = torch.from_numpy(draw(random, tuple(level.shape), *plan.motion).astype(np.float32))
            layout, refers = BlockLayout(*geometry.half), unit.reference_count > 0
            symbols.blocks = [draw_blocks(random, layout, refers, *plan.blocks, plan.steps) for _ in unit.frames]
        if plan.drift:
            for level in symbols.motion:
                level[:, :2] = 127.0
                level[:, 2:4] = -127.0
        for display, state in writer.code(symbols).items():
            outputs[display] = output_planes(
                state.appearance.packed, geometry.width, geometry.height, geometry.bit_depth
            )
    frames = [outputs[n] for n in range(plan.frames)]
    return Segment(writer.finish(), bytes.fromhex(hash_of(frames)), plan.frames), frames


def hash_of(frames: Sequence[Planes]) -> str:
    digest = FrameHash()
    for planes in frames:
        digest.add(planes)
    return digest.digest().hex()


def make_file(
    name: str, description: str, size: tuple[int, int], plans: Sequence[Plan | ProgramPlan], **options: Any
) -> Vector:
    """``options``: fields of the header, and ``timestamps``, ``metadata`` and ``programs``: those of the file, if not
    the ones of ``plans`` in their order."""
    random = Random(zlib.crc32(name.encode()))
    geometry = FrameGeometry(*size, 8 + options.get("bit_depth_minus8", 0))
    named = dict.fromkeys(plan.program for plan in plans if isinstance(plan, ProgramPlan))
    programs: list[Program] = options.pop("programs", list(named))
    parts = []
    for plan in plans:
        if isinstance(plan, Plan):
            parts.append(make_segment(random, plan, geometry))
        else:
            payload, made = implicit_segment(random, plan, programs.index(plan.program), geometry)
            parts.append((Segment(payload, bytes.fromhex(hash_of(made)), plan.frames), made))
    frames = [planes for _, segment_frames in parts for planes in segment_frames]
    optional: dict[str, Any] = {key: options.pop(key) for key in ("timestamps", "metadata", "sound") if key in options}
    optional["programs"] = [program.write() for program in programs]
    optional["major"] = MAJOR if all(plan.predicts for plan in plans) else NEWEST_MAJOR
    header = StreamHeader(
        level=level_for(*size, max(p.frames for p in plans)),
        width=size[0],
        height=size[1],
        frame_count=len(frames),
        segment_count=len(plans),
        time_base_num=1,
        time_base_den=25,
        frame_duration=1,
    )
    data = write_container(replace(header, **options), [segment for segment, _ in parts], **optional)
    return Vector(description, data, hash_of(frames))


# ---------------------------------------------------------------- the vectors


def conforming() -> dict[str, Vector]:
    vectors: dict[str, Vector] = {}

    def add(name: str, description: str, size: tuple[int, int], *plans: Plan | ProgramPlan, **options: Any) -> None:
        vectors[name] = make_file(name, description, size, plans, **options)

    add(WORKED, "1 frame of 1x1, three levels that are not 0 (chapter 19)", (1, 1), Plan(1, means_only=True))
    add("one_frame", "1 frame of odd size", (35, 21), Plan(1))
    add("two_frames", "key frame and P frame of 2x1", (2, 1), Plan(2, blocks=(0.5, 9)))
    add("empty", "nothing but what is predicted", (35, 21), Plan(6, is_empty=True))
    add("p_only", "gop 1: P frames only", (35, 21), Plan(5, 24, gop=1))
    add("two_p", "gop 3 with a shorter last one: B frames of unlike distances", (33, 40), Plan(9, 24, gop=3))
    add("unpredicted", "motion that is not predicted, and a segment where it is", (35, 21),
        Plan(9, gop=4, predicts=False, motion=(0.3, 6)), Plan(5, gop=4))  # fmt: skip
    add("deep", "gop 16: B frames of depth 2 to 5", (17, 9), Plan(17, 24, gop=16, blocks=(0.03, 3)))
    add("deepest", "gop 64: B frames down to depth 7", (3, 2),
        Plan(34, gop=64, motion=(0.05, 4), blocks=(0.05, 4)))  # fmt: skip
    add("segments", "three segments of unlike width, gop and length", (24, 18),
        Plan(3, 8, gop=2), Plan(1, 24, gop=1), Plan(4, 48, gop=8))  # fmt: skip
    add("ten_bits", "10 bits in both representations, minor version 2", (10, 8), Plan(5, gop=4),
        ProgramPlan(references(11, (10, 8)), 4, 3), bit_depth_minus8=2)  # fmt: skip
    for width in reference.WIDTHS:
        add(f"width_{width}", f"network of width {width} with changed last layer and biases", (20, 12),
            Plan(3, width, gop=2,
                 changes=change_all(0.04, CHANGED, 8, 2)))  # fmt: skip
    add("network", "all tensors changed, rows with scales of their own", (20, 12),
        Plan(4, 8, gop=3, changes=change_all(0.3, amplitude=4, step=1)))  # fmt: skip
    add("context_bound", "context weights just within the bound of 9.3", (20, 12),
        Plan(3, 8, gop=2, changes=context_at_bound))  # fmt: skip
    add("borders", "motion of up to 127 at every level: vectors far outside, and clipped", (26, 19),
        Plan(6, 24, gop=4, motion=(1.0, 127), blocks=(0.02, 9)))  # fmt: skip
    add("extreme", "levels within -32767..32767, largest gains and steps: results are clipped", (38, 11),
        Plan(3, 24, gop=2, gain_offset=127, motion=(0.5, 127), blocks=(1.0, 32767), steps=63))  # fmt: skip
    add("drift", "vectors that grow to their bound within a wide picture", (600, 2),
        Plan(9, gop=1, drift=True, blocks=(0.02, 5)), Plan(14, gop=3, drift=True, blocks=(0.02, 5)))  # fmt: skip
    add("search", "texture that tells apart the trials of the motion search", (41, 27),
        Plan(5, gop=4, motion=(0.3, 3), blocks=(0.6, 12)))  # fmt: skip
    add("blocks", "roots on all sides of one another: every size, kind and mode of blocks", (132, 131),
        Plan(4, gop=3, blocks=(0.01, 9), steps=63))  # fmt: skip
    add("clipped_weights", "weights, scales and features beyond their bounds", (20, 12),
        Plan(4, 8, gop=3, changes=clipped_weights, blocks=(0.3, 30)))  # fmt: skip
    add("low_gain", "smallest gains", (38, 11),
        Plan(3, 24, gop=2, gain_offset=-128, blocks=(0.5, 40), steps=63))  # fmt: skip
    add("head", "fields of HEAD away from their usual values, level 6 declared", (7, 8), Plan(2),
        level=6, time_base_num=1001, time_base_den=90000, frame_duration=3003, sar_num=16, sar_den=11, color_range=2,
        color_primaries=255, transfer=0, matrix=9, chroma_location=6)  # fmt: skip
    add("timestamps", "TIMESTAMPS with negative and very large pts, METADATA", (6, 6), Plan(4),
        timestamps=[-70000, 0, 1, 2**61], metadata={"title": "caf\u00e9", "n": [1, 2.5, {"a": None}]})  # fmt: skip
    add(
        "sound",
        "a section AUDIO, minor version 1",
        (6, 6),
        Plan(2),
        sound=b"\xff\xff\xff\xffnut/multimedia container\0",
    )
    base = vectors["one_frame"]
    vectors["optional"] = replace(
        base,
        description="unknown optional sections (0x80, 0x84, 0x85, twice 0xFF), minor version 7, more fields in HEAD, "
        "reserved_bit set",
        data=with_unknown_parts(base.data),
    )
    for name, (description, size, plans) in program_files().items():
        add(name, description, size, *plans)
    add_several(add)
    add_forms_of_programs(vectors)
    add_starts(vectors, add)
    return vectors


def add_several(add: Callable[..., None]) -> None:
    """Hybrid and implicit segments in one file, and as many programs as there may be."""
    size = (10, 8)
    first, last = flat(3), references(11, size)
    unused = [flat(gain) for gain in range(9) if gain != 3] + [
        references(bits, size) for bits in (8, 9, 10, 12, 13, 14)
    ]
    add("program_several", "hybrid and implicit segments, 16 sections PROGRAM, most of them unused, and METADATA", size,
        Plan(2, gop=1), ProgramPlan(first, 3, 2), ProgramPlan(last, 4, 3), Plan(3), ProgramPlan(last, 1, 1),
        programs=[first, *unused, last], metadata={"title": "several"})  # fmt: skip


def add_forms_of_programs(vectors: dict[str, Vector]) -> None:
    """A program with and without the dictionary, whichever is shorter."""
    made = make_file("program_forms", "", (18, 12), [ProgramPlan(residual(11, (18, 12)), 3, 2)])
    for name, packed, text in (
        ("dictionary", by_dictionary, "a section PROGRAM that is decompressed with the dictionary"),
        ("plain", plainly, "the same without the dictionary"),
    ):
        parts = [(kind, packed(parse_program(p)) if kind == 4 else p) for kind, p in sections_of(made.data)]
        vectors[f"program_{name}"] = Vector(text, assembled(parts), made.frame_hash)


def plainly(program: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(program)


def by_dictionary(program: bytes) -> bytes:
    """13.1: a frame behind a byte of 1, in the place of its magic number."""
    raw = zstandard.ZstdCompressionDict(DICTIONARY.read_bytes(), dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return b"\1" + zstandard.ZstdCompressor(19, dict_data=raw).compress(program)[4:]


STARTED, NARROW = "start_cwrnn", "start_narrow"
"""What the encoder makes of a clip, from the usual start and from the narrow one."""
_PARAMETERS = {STARTED: 15.5e3, NARROW: 5.1e3}


def add_starts(vectors: dict[str, Vector], add: Callable[..., None]) -> None:
    """Segments from a start: CWRNN as the encoder leaves it, and its program with drawn changes and symbols."""
    data, narrow = started_file(STARTED), started_file(NARROW)
    if data is None or narrow is None:
        print("no start of CWRNN is shipped: vectors of segments from a start are not made", file=sys.stderr)
        return
    with Decoder(io.BytesIO(data), device="cpu") as decoder:
        size, program = (decoder.geometry.width, decoder.geometry.height), decoder.programs[0]
        frame_hash = hash_of([frame.planes for frame in decoder])
    with Decoder(io.BytesIO(narrow), device="cpu") as decoder:
        narrow_hash = hash_of([frame.planes for frame in decoder])
    vectors[NARROW] = Vector("CWRNN from the narrow start, which has no directions", narrow, narrow_hash)
    vectors[STARTED] = Vector("CWRNN from its start, as the encoder leaves it: I, P and B frames", data, frame_hash)
    name = started_header(data).start
    add("start_changes", "CWRNN from its start, a drawn code, drawn changes of its tensors, drawn symbols", size,
        ProgramPlan(program, 6, 4, least=(9, 20, 30, 40, 50, 60), start=name, code=(0.7, 30), changes=drawn_changes),
        ProgramPlan(program, 1, 1, start=name, changes=lambda random, shapes: {}),
        ProgramPlan(program, 2, 1, least=(30,) * 6, quantiser=5))  # fmt: skip
    add("start_unpredicted", "CWRNN from its start, motion not predicted", size,
        ProgramPlan(program, 5, 4, predicts=False, least=(9, 20, 30, 40, 50, 60), start=name,
                    changes=lambda random, shapes: {}))  # fmt: skip


def started_header(data: bytes) -> ImplicitHeader:
    """Of the first segment of a file."""
    payload = next(payload for kind, payload in sections_of(data) if kind == 3)
    assert payload[0] >> 4 == IMPLICIT_FROM_START, "the encoder has used no start"
    return ImplicitHeader.parse(payload, 16)[0]


def started_file(vector: str) -> bytes | None:
    """A vector of the encoder: as it is if it still decodes, else anew. None where no start is shipped."""
    if not shipped_starts():
        return None
    path = FOLDER / f"{vector}.cwrv"
    if path.exists():
        try:
            with Decoder(path, device="cpu") as decoder:
                decoder.verify()
            return path.read_bytes()
        except BitstreamError as error:
            print(f"{path.name} is encoded anew: {error}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        clip, made = Path(folder, "clip.y4m"), Path(folder, "made.cwrv")
        clip.write_bytes(moving_clip(48, 32, 6))
        encode(
            clip,
            made,
            EncodeOptions(
                model="cwrnn", params=_PARAMETERS[vector], quality=20.0, effort="fast", device="cpu", threads=1
            ),
        )
        return made.read_bytes()


def moving_clip(width: int, height: int, frames: int) -> bytes:
    """A y4m file: two waves, of which one moves, and a dot."""
    out = [f"YUV4MPEG2 W{width} H{height} F25:1 Ip C420jpeg\n".encode()]
    for t in range(frames):
        for part, base in ((1, 110), (2, 120), (2, 136)):
            rows, columns = height // part, width // part
            y, x = np.mgrid[:rows, :columns] * part
            plane = base + 30 * np.sin((x - 2 * t) / 5) + 20 * np.cos(y / 4 + x / 9)
            plane += 50.0 * ((x - 10 - 3 * t) ** 2 + (y - 14) ** 2 < 40)
            out.append((b"FRAME\n" if base == 110 else b"") + plane.clip(0, 255).astype(np.uint8).tobytes())
    return b"".join(out)


def section(kind: int, payload: bytes, before: bytes = b"") -> bytes:
    length = bytes([len(payload)]) if len(payload) < 128 else bytes([len(payload) & 127 | 128, len(payload) >> 7])
    body = bytes([kind]) + length + payload
    return body + zlib.crc32(before + body).to_bytes(4, "little")


def sections_of(data: bytes) -> list[tuple[int, bytes]]:
    """Type and payload of each section."""
    reader, result = reference.Reader(data, 10), []
    while reader.left:
        kind = reader.u8("")
        result.append((kind, reader.take(reader.leb128(""), "")))
        reader.take(4, "")
    return result


def assembled(parts: Sequence[tuple[int, bytes]], start: bytes = VERSION) -> bytes:
    """A file of these sections with right CRCs."""
    return start + b"".join(section(kind, payload, b"" if i else start) for i, (kind, payload) in enumerate(parts))


def with_unknown_parts(data: bytes) -> bytes:
    (_, head), index, (kind, segment), end = sections_of(data)
    assert head[3] & 1 == 0  # level, width and height take a byte each: the flags are the fourth
    head = head[:3] + bytes([head[3] | 1]) + head[4:] + b"later fields"
    unknown = [(0x80, b""), (0x85, b"audio"), (0xFF, bytes(300)), (0x84, b"\0"), (0xFF, b"x")]
    return assembled([(1, head), index, *unknown, (kind, segment), end], reference.SIGNATURE + b"\6\7")


def faulty(good: dict[str, Vector]) -> dict[str, Vector]:
    """Files with one error each, of every name in chapter 16."""
    data = good["one_frame"].data
    head, index, (kind, segment), end = sections_of(data)
    gop_zero = bytes([segment[0], 0]) + segment[2:]
    gop_beyond = bytes([segment[0], 0x81, 1]) + segment[2:]
    gop_index = bytes([index[1][0]]) + reference_leb(reference.Reader(index[1], 1).leb128("") + 1)
    odd = segment[:3] + b"\0" + segment[3:]
    index_odd = bytes([index[1][0]]) + reference_leb(reference.Reader(index[1], 1).leb128("") + 1)
    longer = segment[:-16] + bytes(11) + b"\1" + segment[-16:]
    index_longer = bytes([index[1][0]]) + reference_leb(reference.Reader(index[1], 1).leb128("") + 12)
    cases = {
        "signature": ("line ends translated", data.replace(b"\r\n", b"\n", 1), "signature"),
        "major": ("major version 5", assembled(sections_of(data), reference.SIGNATURE + b"\5\0"), "unsupported"),
        "nine_bits": (
            "bit_depth_minus8 1",
            assembled([(1, head[1][:3] + bytes([head[1][3] | 8]) + head[1][4:]), index, (kind, segment), end]),
            "unsupported",
        ),
        "critical": (
            "unknown critical section",
            assembled([head, index, (5, b""), (kind, segment), end]),
            "unsupported",
        ),
        "cut": ("the last byte is missing", data[:-1], "truncated"),
        "crc": ("a bit of the payload is turned", data[:-30] + bytes([data[-30] ^ 4]) + data[-29:], "checksum"),
        "hash": ("another frame_hash", assembled([head, index, (kind, segment[:-1] + b"\0"), end]), "checksum"),
        "representation": (
            "representation 3",
            assembled([head, index, (kind, bytes([segment[0] | 48]) + segment[1:]), end]),
            "unsupported",
        ),
        "gop": ("gop 0", assembled([head, index, (kind, gop_zero), end]), "limit"),
        "gop_beyond": ("gop 129", assembled([head, (2, gop_index), (kind, gop_beyond), end]), "limit"),
        "words": ("a byte more than whole words", assembled([head, (2, index_odd), (kind, odd), end]), "syntax"),
        "longer": (
            "three words behind the end of the stream",
            assembled([head, (2, index_longer), (kind, longer), end]),
            "syntax",
        ),
        "behind": ("a byte behind END", data + b"\0", "syntax"),
        "order": (
            "METADATA behind the first segment",
            assembled([head, index, (kind, segment), (0x82, b""), end]),
            "syntax",
        ),
    }
    return {
        f"faulty_{name}": Vector(text, bytes_, error=error)
        for name, (text, bytes_, error) in (cases | faulty_programs(good)).items()
    }


def faulty_programs(good: dict[str, Vector]) -> dict[str, tuple[str, bytes, str]]:
    """Programs and implicit segments with one error each: what is wrong, the file, the error."""
    size = (10, 8)
    data = make_file("faulty_programs", "", size, [ProgramPlan(small_program(), 2, 2)]).data
    head, _, (_, program), (_, segment), end = sections_of(data)
    coded = small_program().write()

    def with_(payload: bytes, *programs: bytes) -> bytes:
        length = 1 + len(reference_leb(len(payload))) + len(payload) + 4
        index = reference_leb(2) + reference_leb(length)
        return assembled([head, (2, index), *((4, p) for p in programs), (3, payload), end])

    def changed(*nodes: Operation, bits: int = 12, before: int = 0) -> bytes:
        """The program with other nodes in the place of its last ones."""
        kept = small_program().nodes[:before]
        return with_(segment, zstandard.ZstdCompressor().compress(Program(bits, (*kept, *nodes)).write()))

    def with_content(content: bytes) -> bytes:
        return with_(segment, zstandard.ZstdCompressor().compress(content))

    def with_tensors(weight: int, exponent: int) -> bytes:
        """A payload whose only convolution has such weights and scales."""
        writer = SymbolWriter()
        code_number(writer, 0, 4)
        code_number(writer, exponent - EXPONENT_LOW, 9)
        for rows in (np.zeros((1, 6), np.int32), np.zeros((1, 6), np.int32), np.full((6, 8 * 81), weight, np.int32)):
            scales = code_scales(writer, best_scale(rows), len(rows))
            code_symbols(writer, rows, rows.shape, scales)
        return with_(bytes([0x10, 2]) + writer.finish() + bytes(16), program)

    def from_start(name: bytes) -> bytes:
        """A segment that names a start; its words are 0, its hash is wrong."""
        return with_(b"\x20\2" + name + bytes(16), program)

    assert UNKNOWN_START not in shipped_starts()
    beyond = bytearray(Program(12, (ResidualInput((), 0), SamplesOutput((0,)))).write())
    beyond[beyond.index(ResidualInput.CODE) + 1] = 5
    state = StateInput((), 0, 0, 6, 4, 5)
    wide_nodes = (LatentInput((), 0, 65, 1, 1), Fitting((0,), 4, 5), Slicing((1,), 0, 6), SamplesOutput((2,)))
    wide = zstandard.ZstdCompressor().compress(Program(12, wide_nodes).write())
    of_start = {
        "start_unknown": ("a start that does not exist", from_start(UNKNOWN_START), "unsupported"),
        "start_cut": ("a header that ends within the name of its start", from_start(b"\0\0"), "truncated"),
    }
    for name in list(shipped_starts())[:1]:
        of_start["start_unfit"] = ("a start of another program", from_start(name), "syntax")
    return of_start | {
        "program_absent": ("program_index without a section PROGRAM", with_(segment), "syntax"),
        "program_index": ("program_index 1 of one program", with_(b"\x11" + segment[1:], program), "syntax"),
        "program_number": ("17 sections PROGRAM", with_(segment, *[program] * 17), "limit"),
        "program_operation": ("operation 15", with_content(coded[:2] + b"\x0f" + coded[3:]), "unsupported"),
        "program_cut": ("a program without its last byte", with_content(coded[:-1]), "truncated"),
        "program_longer": ("a byte behind a program", with_content(coded + b"\0"), "syntax"),
        "program_bits": ("activation_bits 17", with_content(b"\x11" + coded[1:]), "limit"),
        "program_forward": ("an operand that is the node itself", with_content(coded[:-1] + b"\0"), "syntax"),
        "program_state": (
            "a state that nothing stores",
            changed(state, Addition((1, 2)), SamplesOutput((3,)), before=2),
            "syntax",
        ),
        "program_correct": (
            "correct in a program that does not move",
            changed(LatentInput((), 1, 2, 1, 2), Correction((2,)), SamplesOutput((1,)), before=2),
            "syntax",
        ),
        "program_large": (
            "more elements at once than the level allows",
            changed(Upsampling((1,), 32), Upsampling((2,), 32), SamplesOutput((3,)), before=2),
            "limit",
        ),
        "program_small": ("samples that do not cover the picture", changed(SamplesOutput((0,)), before=1), "syntax"),
        "program_unused": ("a program that no segment names breaks a limit", with_(segment, program, wide), "limit"),
        "program_exponent": ("a scale above 2^12", with_tensors(1, 97), "limit"),
        "program_weights": ("weights beyond the bound of 13.4", with_tensors(127, 0), "limit"),
        "program_residual": ("a residual at level 5", with_content(bytes(beyond)), "limit"),
        "program_dictionary_cut": (
            "a program with the dictionary, without its last byte",
            with_(segment, by_dictionary(coded)[:-1]),
            "syntax",
        ),
        "program_dictionary_longer": (
            "a byte behind a program with the dictionary",
            with_(segment, by_dictionary(coded) + b"\0"),
            "syntax",
        ),
        "program_dictionary_alone": ("a section PROGRAM of a byte of 1", with_(segment, b"\1"), "syntax"),
    }  # fmt: skip


def small_program() -> Program:
    """A convolution that is wide enough for weights beyond the bound of its sums."""
    body = Body(16)
    body(SamplesOutput, body.convolved(body.latent(8, 4, 5, 4), 6, 9))
    return body.program()


def reference_leb(value: int) -> bytes:
    out = []
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def make_vectors() -> dict[str, Vector]:
    torch.set_num_threads(1)
    good = conforming()
    return good | faulty(good)


# ---------------------------------------------------------------- tables of the specification


def rows_of(rows: Sequence[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return "\n".join(lines)


def vectors_table(vectors: dict[str, Vector]) -> str:
    rows = [("File", "Bytes", "Content", "Hash of the frames, or error")]
    rows += [(f"`{n}`", str(len(v.data)), v.description, f"`{v.error or v.frame_hash}`") for n, v in vectors.items()]
    return rows_of(rows)


def worked_file_table(data: bytes) -> str:
    """Every byte of the file of chapter 19."""
    reader, rows = reference.Reader(data), [("Offset", "Bytes", "Element", "Value")]

    def row(n: int, element: str, value: object = "") -> bytes:
        taken = reader.take(n, element)
        rows.append((str(reader.pos - n), f"`{taken.hex(' ')}`", element, str(value)))
        return taken

    def number(element: str) -> int:
        at = reader.pos
        value = reader.leb128(element)
        reader.pos = at
        row(len(reference_leb(value)), element, value)
        return value

    row(8, "signature")
    row(1, "major", data[8])
    row(1, "minor", data[9])
    for name, kind in (("HEAD", 1), ("INDEX", 2), ("SEGMENT", 3), ("END", 127)):
        row(1, f"type ({name})", f"0x{kind:02X}")
        length = number("length")
        if kind == 1:
            row(1, "level", data[reader.pos])
            number("width")
            number("height")
            row(1, "chroma_format_idc, bit_depth_minus8, color_range, reserved_bit",
                f"{data[reader.pos] >> 6}, {data[reader.pos] >> 3 & 7}, {data[reader.pos] >> 1 & 3}, 0")  # fmt: skip
            for field in ("frame_count", "segment_count", "time_base_num", "time_base_den", "frame_duration",
                          "sar_num", "sar_den"):  # fmt: skip
                number(field)
            for field in ("color_primaries", "transfer", "matrix", "chroma_location"):
                row(1, field, data[reader.pos])
        elif kind == 2:
            number("segment_frame_count[0]")
            number("section_bytes[0]")
        elif kind == 3:
            row(1, "representation, width_index", f"{data[reader.pos] >> 4}, {data[reader.pos] & 15}")
            number("gop")
            row(1, "gain_offset", int.from_bytes(data[reader.pos : reader.pos + 1], "big", signed=True))
            for i in range((length - 3 - 16) // 4):
                word = int.from_bytes(data[reader.pos : reader.pos + 4], "little")
                row(4, f"entropy-coded data, word {i}", f"{word:08x}")
            row(16, "frame_hash")
        row(4, "crc32", f"0x{int.from_bytes(data[reader.pos : reader.pos + 4], 'little'):08X}")
    return rows_of(rows)


def worked_symbols_table(data: bytes) -> str:
    """What the entropy-coded data of the file of chapter 19 hold, in the order of the file."""
    payload = sections_of(data)[2][1][:-16]
    coder = reference.RangeDecoder(payload[3:])
    net = reference.decode_network(coder, 8, 0)
    steps: list[tuple[str, str, int]] = []

    class Tracing(reference.BlockReader):
        def c(self, context: int, name: str) -> int:
            fast, slow, _ = self.probabilities[context]
            ones = min(max((fast + slow) >> 5, 3), 4093)
            value = super().c(context, name)
            steps.append((name, f"c({context}), {ones} of 4096 are 1", value))
            return value

        def b(self, n: int, name: str) -> int:
            value = super().b(n, name)
            steps.append((name, f"b({n})", value))
            return value

    frame = reference.UnitFrame(0, 0, [], [], 1, 1)
    frame.blocks = Tracing(coder, reference.starting_probabilities(0), frame).read()
    coder.finish()
    reference.compensate(frame)
    rebuilt = reference.rebuild(frame, net)
    reference.synthesise(frame, net, rebuilt)
    rows = [("Element", "Read as", "Value")]
    rows.append((f"tensor_changed, {len(net)} times", "b(1)", "0"))
    rows += [(name, how, str(value)) for name, how, value in steps]
    levels = ", ".join(str(int(level[0, 0])) for level in frame.blocks.level)
    planes = ", ".join(str(int(p.ravel()[0])) for p in reference.output_planes(reference.sample_planes(frame), 8))
    rows.append(("level[p][0][0], p = 0..2", "", levels))
    rows.append(("rebuilt, c = 0..5", "", ", ".join(str(int(v)) for v in rebuilt.ravel())))
    rows.append(("samples, c = 0..5", "", ", ".join(str(int(v)) for v in frame.samples.ravel())))
    rows.append(("output Y, U, V", "", planes))
    return rows_of(rows)


def spec_with_tables(text: str, vectors: dict[str, Vector]) -> str:
    worked = vectors[WORKED].data
    tables = {
        "vectors": vectors_table(vectors),
        "worked file": worked_file_table(worked),
        "worked symbols": worked_symbols_table(worked),
    }
    for name, table in tables.items():
        pattern = rf"(<!-- table: {name} -->\n).*?(<!-- end -->)"
        found = re.findall(pattern, text, flags=re.DOTALL)
        if len(found) != 1:
            raise SystemExit(f"bitstream_spec.md has {len(found)} tables named {name}")
        start, end = found[0]
        text = re.sub(pattern, (start + table + "\n" + end).replace("\\", r"\\"), text, flags=re.DOTALL)
    return text


# ---------------------------------------------------------------- command


def contents() -> dict[Path, bytes]:
    """All files that belong to the vectors, as they should be."""
    vectors = make_vectors()
    listing = json.dumps({name: v.record() for name, v in vectors.items()}, indent=1) + "\n"
    files = {FOLDER / f"{name}.cwrv": v.data for name, v in vectors.items()}
    files[FOLDER / "vectors.json"] = listing.encode()
    files[SPEC] = spec_with_tables(SPEC.read_text(encoding="utf-8"), vectors).encode()
    return files


def differences(files: dict[Path, bytes]) -> list[str]:
    stale = sorted(set(FOLDER.glob("*.cwrv")) - set(files))
    lines = [f"no longer made: {path.name}" for path in stale]
    for path, data in files.items():
        if not path.exists():
            lines.append(f"new: {path.name}")
        elif path.read_bytes() != data:
            lines.append(f"changed: {path.name}")
    return lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make the conformance vectors again, and say what changed.")
    parser.add_argument("--check", action="store_true", help="only compare; exit status 1 if anything differs")
    options = parser.parse_args(arguments)
    files = contents()
    changed = differences(files)
    print("\n".join(changed) or "nothing changed")
    if options.check:
        return int(bool(changed))
    FOLDER.mkdir(exist_ok=True)
    for path in set(FOLDER.glob("*.cwrv")) - set(files):
        path.unlink()
    for path, data in files.items():
        path.write_bytes(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
