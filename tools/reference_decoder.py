"""A second decoder of .cwrv files, written from bitstream_spec.md alone, to check the specification and the product.

    python tools/reference_decoder.py FILE.cwrv [-o OUT.y4m] [--hash]

It is plain and slow on purpose: one function for each clause, in the order of the specification, integers only, and
nothing shared with the product but the files that belong to the specification: starting networks and probabilities,
starts of weights, the context model of the appearance levels, the dictionary of programs. It needs numpy, and zstandard
for files with programs or optional sections. A file with an error ends in one line and exit status 1. Beside it
stand reference_basics.py (chapters 2, 3 and 7) and reference_machine.py (chapter 13).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import sys
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import accumulate, product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parent))
from reference_basics import (
    MAX_LEB128,
    ROOT_FOLDER,
    SPEC,
    Array,
    DecodeError,
    Reader,
    clip3,
    decompress,
    fail,
    leb128_bytes,
    need,
    round2,
    specified,
)
from reference_machine import (
    MAX_PROGRAM_BYTES,
    FrameInputs,
    Machine,
    Node,
    Picture,
    Program,
    Tensors,
    check_program,
    check_tensors,
    parse_program_section,
    samples_of,
    weights_a_channel,
)

Planes = list[npt.NDArray[Any]]  # Y, U, V

# ---------------------------------------------------------------- chapter 4: container

SIGNATURE = bytes.fromhex("89 43 57 56 0D 0A 1A 0A")
HEAD, INDEX, SEGMENT, PROGRAM, END, TIMESTAMPS, METADATA, AUDIO = 1, 2, 3, 4, 127, 0x81, 0x82, 0x83
KNOWN = (HEAD, INDEX, SEGMENT, PROGRAM, END, TIMESTAMPS, METADATA, AUDIO)
HASH_BYTES, CRC_BYTES = 16, 4
MAX_HEAD_BYTES, MAX_INDEX_ENTRY_BYTES, MAX_SEGMENT_PAYLOAD_BYTES = 1024, 7, 268435456
MAX_METADATA_BYTES, MAX_METADATA_DEPTH = 65536, 32
MAX_AUDIO_BYTES = 2**30
MAX_PROGRAMS = 16


def read_section(r: Reader, wanted: int | None, limit: int, crc_from: int | None = None) -> tuple[int, bytes]:
    """4.1 section(): type and payload, after its CRC is right; wanted is None for any optional section."""
    start = r.pos
    kind = r.u8("a section")
    need(kind >= 128 or kind in KNOWN, "unsupported", f"unknown section 0x{kind:02x}")
    right_place = kind >= 128 if wanted is None else kind == wanted
    need(right_place, "syntax", f"section 0x{kind:02x} is not allowed here")
    length = r.leb128("the length of a section")
    need(length <= limit, "limit", f"section 0x{kind:02x} is too long")
    payload = r.take(length, f"section 0x{kind:02x}")
    crc = zlib.crc32(r.data[start if crc_from is None else crc_from : r.pos])
    stored = int.from_bytes(r.take(CRC_BYTES, f"section 0x{kind:02x}"), "little")
    need(crc == stored, "checksum", f"section 0x{kind:02x} is damaged")
    return kind, payload


@dataclass
class Stream:
    """What stands before the segments."""

    head: dict[str, int]
    segment_frame_count: list[int]
    section_bytes: list[int]
    pts: list[int]
    metadata: dict[str, Any] | None
    programs: list[Program] = field(default_factory=list)


def read_stream(r: Reader, max_level: int) -> Stream:
    """4.1 file(), up to the first segment."""
    need(r.data[:8] == SIGNATURE, "signature", "not a .cwrv file")
    r.pos = 8
    major, minor = r.u8("the version"), r.u8("the version")
    need(major in (6, 7), "unsupported", f"version {major}.{minor}")
    head = parse_head(read_section(r, HEAD, MAX_HEAD_BYTES, crc_from=0)[1], minor, max_level)
    index_limit = MAX_INDEX_ENTRY_BYTES * head["segment_count"]
    counts, sizes = parse_index(read_section(r, INDEX, index_limit)[1], head)
    stream = Stream(head, counts, sizes, [k * head["frame_duration"] for k in range(head["frame_count"])], None)
    while r.left and r.data[r.pos] == PROGRAM:
        need(len(stream.programs) < MAX_PROGRAMS, "limit", "too many programs")
        program = parse_program_section(read_section(r, PROGRAM, MAX_PROGRAM_BYTES)[1])
        check_program(program, picture_of(head))
        stream.programs.append(program)
    seen: set[int] = set()
    while r.left and r.data[r.pos] & 128:
        kind = r.data[r.pos]
        need(kind not in seen, "syntax", f"a second section 0x{kind:02x}")
        bound = {TIMESTAMPS: 9 * head["frame_count"], METADATA: MAX_METADATA_BYTES}.get(kind)
        limit = MAX_LEB128 if bound is None else bound + bound // 128 + 64
        limit = MAX_AUDIO_BYTES if kind == AUDIO else limit
        payload = read_section(r, None, limit)[1]
        if kind == TIMESTAMPS:
            stream.pts = parse_timestamps(decompress(payload, head["frame_count"], 9 * head["frame_count"]), head)
        elif kind == METADATA:
            stream.metadata = parse_metadata(decompress(payload, 2, MAX_METADATA_BYTES))
        if bound is not None or kind == AUDIO:
            seen.add(kind)
    return stream


# ---------------------------------------------------------------- chapter 5: HEAD

LEVELS = {  # 15: luma samples of a picture, of a segment
    1: (101376, 134217728),
    2: (414720, 268435456),
    3: (921600, 536870912),
    4: (2088960, 1073741824),
    5: (8912896, 2147483648),
    6: (67108864, 4294967296),
}


def parse_head(payload: bytes, minor: int, max_level: int) -> dict[str, int]:
    r, head = Reader(payload), {}

    def field_of(name: str, low: int, high: int, value: int, error: str = "limit") -> None:
        need(low <= value <= high, error, f"HEAD: {name} is {value}")
        head[name] = value

    field_of("level", 1, 6, r.u8("HEAD"), "unsupported")
    need(head["level"] <= max_level, "unsupported", f"level {head['level']}: this decoder stops at {max_level}")
    field_of("width", 1, 2**14, r.leb128("HEAD"))
    field_of("height", 1, 2**14, r.leb128("HEAD"))
    bits = r.u8("HEAD")
    field_of("chroma_format_idc", 1, 1, bits >> 6, "unsupported")
    field_of("bit_depth_minus8", 0, 2, (bits >> 3) & 7, "unsupported")
    field_of("color_range", 0, 2, (bits >> 1) & 3, "unsupported")
    field_of("frame_count", 1, 2**20, r.leb128("HEAD"))
    field_of("segment_count", 1, 2**16, r.leb128("HEAD"))
    for name in ("time_base_num", "time_base_den", "frame_duration"):
        field_of(name, 1, MAX_LEB128, r.leb128("HEAD"))
    field_of("sar_num", 0, MAX_LEB128, r.leb128("HEAD"))
    field_of("sar_den", 1, MAX_LEB128, r.leb128("HEAD"))
    for name in ("color_primaries", "transfer", "matrix"):
        field_of(name, 0, 255, r.u8("HEAD"))
    field_of("chroma_location", 0, 6, r.u8("HEAD"), "unsupported")
    need(minor > 3 or r.left == 0, "syntax", "HEAD is too long")
    need(head["width"] * head["height"] <= LEVELS[head["level"]][0], "limit", "the picture is beyond its level")
    need(head["bit_depth_minus8"] != 1, "unsupported", "9 bits")
    need(head["segment_count"] <= head["frame_count"], "syntax", "more segments than frames")
    need(head["sar_num"] > 0 or head["sar_den"] == 1, "syntax", "sample aspect ratio 0 is written 0/1")
    return head


def picture_of(head: dict[str, int]) -> Picture:
    """What the sizes of a program depend on (13.2)."""
    h, w, bh, bw = (half(head[side], k) for k in (1, 3) for side in ("height", "width"))
    return Picture(h, w, bh, bw)


# ---------------------------------------------------------------- chapter 6: INDEX


def parse_index(payload: bytes, head: dict[str, int]) -> tuple[list[int], list[int]]:
    r, counts, sizes = Reader(payload), [], []
    samples = head["width"] * head["height"]
    for _ in range(head["segment_count"]):
        counts.append(r.leb128("INDEX"))
        need(1 <= counts[-1] <= 1024, "limit", "frames of a segment")
        need(counts[-1] * samples <= LEVELS[head["level"]][1], "limit", "a segment is beyond its level")
        sizes.append(r.leb128("INDEX"))
        lengths = [sizes[-1] - 1 - n - CRC_BYTES for n in range(1, 6)]
        lengths = [v for n, v in enumerate(lengths, 1) if v >= 0 and leb128_bytes(v) == n]
        need(bool(lengths), "syntax", "no section has the size that INDEX gives")
        need(HASH_BYTES < lengths[0] <= HASH_BYTES + MAX_SEGMENT_PAYLOAD_BYTES, "limit", "size of a segment")
    need(r.left == 0, "syntax", "INDEX is too long")
    need(sum(counts) == head["frame_count"], "syntax", "the frames of the segments do not add up")
    return counts, sizes


# ---------------------------------------------------------------- chapter 7: optional sections


def parse_timestamps(data: bytes, head: dict[str, int]) -> list[int]:
    """7.1."""
    r, pts, expected = Reader(data), [], 0
    for k in range(head["frame_count"]):
        pts.append(expected + r.sleb("TIMESTAMPS"))
        need(abs(pts[k]) <= 2**62 - 1, "limit", "a pts is too large")
        need(k == 0 or pts[k] > pts[k - 1], "syntax", "pts must increase")
        expected = pts[k] + head["frame_duration"]
    need(r.left == 0, "syntax", "TIMESTAMPS is too long")
    needed = any(p != k * head["frame_duration"] for k, p in enumerate(pts))
    need(needed, "syntax", "TIMESTAMPS says nothing new")
    return pts


def parse_metadata(data: bytes) -> dict[str, Any]:
    """7.2."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        need(len({name for name, _ in pairs}) == len(pairs), "syntax", "METADATA: a name occurs twice")
        return dict(pairs)

    def check(value: Any, depth: int) -> None:
        if isinstance(value, dict | list):
            need(depth <= MAX_METADATA_DEPTH, "syntax", "METADATA nests too deep")
            for inner in (*value.keys(), *value.values()) if isinstance(value, dict) else value:
                check(inner, depth + 1)
        elif isinstance(value, str):
            value.encode("utf-8")
        elif isinstance(value, int | float):
            need(math.isfinite(float(value)), "syntax", "METADATA: a number is not finite")

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=unique)
        need(isinstance(value, dict), "syntax", "METADATA is no object")
        check(value, 1)
    except (ValueError, OverflowError, RecursionError):
        fail("syntax", "METADATA is not valid JSON")
    return dict(value)


# ---------------------------------------------------------------- chapter 8: segments


def decode_segments(r: Reader, stream: Stream) -> Iterator[Planes]:
    """4.1 file(), from the first segment to END: frames in display order, those of a segment once it is sound."""
    for i, count in enumerate(stream.segment_frame_count):
        start = r.pos
        payload = read_section(r, SEGMENT, HASH_BYTES + MAX_SEGMENT_PAYLOAD_BYTES)[1]
        need(len(payload) > HASH_BYTES, "limit", f"segment {i} is empty")
        need(r.pos - start == stream.section_bytes[i], "syntax", f"segment {i} has another size than in INDEX")
        frames = decode_segment(payload[:-HASH_BYTES], count, stream)
        need(frame_hash(frames) == payload[-HASH_BYTES:], "checksum", f"the frames of segment {i} have another hash")
        yield from frames
    read_section(r, END, 0)
    need(r.left == 0, "syntax", "the file goes on behind END")


def decode_segment(payload: bytes, count: int, stream: Stream) -> list[Planes]:
    """8: the frames of a segment in display order, by its representation."""
    height, width, representation = stream.head["height"], stream.head["width"], payload[0] >> 4
    need(representation in (0, 1, 2), "unsupported", f"representation {representation} of a segment")
    if representation == 0:
        frames = decode_hybrid(payload, count, height, width)
    else:
        frames = decode_implicit(payload, count, height, width, stream.programs)
    return [output_planes(samples, 8 + stream.head["bit_depth_minus8"]) for samples in frames]


def frame_hash(frames: list[Planes]) -> bytes:
    digest = hashlib.blake2b(digest_size=HASH_BYTES)
    for planes in frames:
        for plane in planes:
            digest.update(plane.tobytes())
    return digest.digest()


# ---------------------------------------------------------------- chapter 9: hybrid segments

MOTION_LEVELS = 5
WIDTHS = (8, 24, 48, 96, 160, 288)
FILE_WIDTHS = (8, 24)
STEPS = (1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256)
Network = dict[str, Array]


def decode_hybrid(payload: bytes, count: int, height: int, width: int) -> list[Planes]:
    """9.1 segment_payload(): the frames in display order, not rounded yet."""
    r = Reader(payload)
    width_index = r.u8("a segment header") & 15
    need(width_index < len(WIDTHS), "limit", f"width_index is {width_index}")
    gop, predicts = read_gop(r)
    gain_offset = r.u8("a segment header")
    gain_offset -= 256 * (gain_offset >= 128)
    coder = RangeDecoder(entropy_coded_data(r))
    net = decode_network(coder, WIDTHS[width_index], gain_offset)
    probabilities = [starting_probabilities(d) for d in range(4)]
    states: dict[int, State] = {}
    outputs: dict[int, Planes] = {}
    for unit in coding_units(count, gop):
        frames = [
            UnitFrame(n, depth, refs, [states[x] for x in refs], height, width, predicts) for n, depth, refs in unit
        ]
        decode_unit(coder, net, probabilities, frames)
        for f in frames:
            states[f.number] = State(f.samples, f.fields, f.distances)
            outputs[f.number] = sample_planes(f)
    coder.finish()
    return [outputs[n] for n in range(count)]


def read_gop(r: Reader) -> tuple[int, bool]:
    """9.2, 14.1: the length, and whether motion is predicted."""
    gop = r.leb128("a segment header")
    need(1 <= gop <= 128, "limit", f"gop is {gop}")
    return (gop, True) if gop <= 64 else (gop - 64, False)


def entropy_coded_data(r: Reader) -> bytes:
    """9.2: the rest of the payload."""
    need(r.left % 4 == 0, "syntax", "the entropy-coded data are no whole number of words")
    return r.take(r.left, "a segment")


def tensor_shapes(w: int) -> dict[str, tuple[tuple[int, ...], int]]:
    """9.3: dimensions and bound of each tensor, in order."""
    shapes: dict[str, tuple[tuple[int, ...], int]] = {}
    for kind, inputs, biases in (("key", 6, 1), ("inter", 18, 3)):
        for layer, out, into, rows in (
            ("enter", w, inputs, biases),
            ("mix0", w, w, 1),
            ("mix1", w, w, 1),
            ("leave", 6, w, 1),
        ):
            shapes[f"cell.{kind}.{layer}.weight"] = ((out, into, 3, 3), 32768)
            shapes[f"cell.{kind}.{layer}.bias"] = ((rows, out), 8192)
        shapes[f"cell.{kind}.enter.slope"] = ((biases, w), 1024)
        shapes[f"cell.{kind}.leave.scale"] = ((biases, 6), 31)
    shapes["block.gain"] = ((8, 1), 63)
    shapes["context.hidden.weight"] = ((16, 8), 2048)
    shapes["context.hidden.bias"] = ((4, 16), 2048)
    shapes["context.output.weight"] = ((2, 16), 2048)
    shapes["context.output.bias"] = ((8 * MOTION_LEVELS, 2), 2048)
    shapes["context.group.bias"] = ((4 * MOTION_LEVELS, 2), 2048)
    return shapes


def decode_network(coder: RangeDecoder, w: int, gain_offset: int) -> Network:
    """9.3, steps 1 to 3, and the bounds."""
    net = {}
    starting = starting_network(w)
    for name, (_shape, bound) in tensor_shapes(w).items():
        start = starting[name]
        least = -bound
        if name == "block.gain":
            least = 0
            start = clip3(0, bound, start + gain_offset)
        net[name] = clip3(least, bound, tensor_change(coder, start))
    check_bounds(net)
    return net


def tensor_change(coder: RangeDecoder, start: Array) -> Array:
    """9.1 tensor_change(T), 9.3 step 2."""
    if not coder.bits(1):
        return start
    step, scale_index = STEPS[coder.bits(4)], coder.bits(6)
    row_size = start[0].size if start[0].size >= 64 else start.size
    rows = start.size // row_size
    differences = [coder.symbol(112) for _ in range(rows)] if rows > 1 else [0]
    row_scale = np.clip(scale_index + np.array(differences, np.int64), 0, 63)
    symbols = coder.run(np.repeat(4 * row_scale, row_size))
    return start + step * symbols.reshape(start.shape)


def check_bounds(net: Network) -> None:
    """9.3 Bounds."""
    enter = np.array([1023] * 6 + [512] * 6 + [1023] * 6)
    for cell, name in product(("key", "inter"), ("enter", "mix0", "mix1", "leave")):
        weight, bias = net[f"cell.{cell}.{name}.weight"], 128 * abs(net[f"cell.{cell}.{name}.bias"])
        if name == "enter":
            bias = bias + 1008 * abs(net[f"cell.{cell}.enter.slope"])
        m = enter[: weight.shape[1]] if name == "enter" else np.array(1023)
        sums = (abs(weight).sum((2, 3)) * m).sum(1) + bias.max(0)
        need(bool((sums < 15728640).all()), "limit", f"cell.{cell}.{name} is beyond its bound")
    largest = [abs(net[f"context.{part}.bias"]).max(0) for part in ("output", "group")]
    sums = 1023 * abs(net["context.output.weight"]).sum(1) + 64 * (largest[0] + largest[1])
    need(bool((sums < 15728640).all()), "limit", "context is beyond its bound")


@lru_cache(maxsize=2)
def starting_network(w: int) -> Network:
    """9.4."""
    origin = max(v for v in FILE_WIDTHS if v <= w)
    data = (ROOT_FOLDER / f"nvcodec/hybrid/base/width{origin}.bin").read_bytes()
    elements, net, at = np.frombuffer(data, "<i2").astype(np.int64), {}, 0
    for name, (shape, _) in tensor_shapes(origin).items():
        net[name] = elements[at : at + math.prod(shape)].reshape(shape)
        at += math.prod(shape)
    if origin != w:
        net = {name: widened(name, net[name], shape) for name, (shape, _) in tensor_shapes(w).items()}
    digest = hashlib.sha256(b"".join(t.astype("<i2").tobytes() for t in net.values())).hexdigest()
    stated = re.search(rf"^\| \d \| {w} \|.*`([0-9a-f]{{64}})` \|$", SPEC.read_text(encoding="utf-8"), re.MULTILINE)
    if stated is None or stated[1] != digest:
        raise SystemExit(f"the starting network of width {w} is not that of {SPEC.name}")
    return net


def widened(name: str, small: Array, shape: tuple[int, ...]) -> Array:
    """9.4, steps 1 to 3."""
    large = np.zeros(shape, np.int64)
    if re.fullmatch(r"cell\.\w+\.(enter|mix0|mix1)\.weight", name):
        rows = large[len(small) :]
        rows[...] = scattered(rows.size, shape[1]).reshape(rows.shape)
    large[tuple(slice(n) for n in small.shape)] = small
    return large


def scattered(count: int, inputs: int) -> Array:
    """9.4 scattered(j, I) for j = 0 .. count - 1."""
    low = np.uint64(0xFFFFFFFF)
    x = np.arange(1, count + 1, dtype=np.uint64)
    x ^= x >> np.uint64(16)
    x = (x * np.uint64(0x85EBCA6B)) & low
    x ^= x >> np.uint64(13)
    x = (x * np.uint64(0xC2B2AE35)) & low
    x ^= x >> np.uint64(16)
    m = 1024 // (math.isqrt(81 * inputs - 1) + 1)
    return ((x * np.uint64(2 * m + 1)) >> np.uint64(32)).astype(np.int64) - m


# 9.5 Blocks

SPLIT, KIND, ANY, LIKELY, MODE, CHROMA_MODE, CODED = 0, 9, 12, 24, 27, 58, 63  # contexts, 12.6
LAST, PRESENT, ABOVE_ONE, ABOVE_TWO, REST, STEP = 76, 236, 286, 326, 366, 430
CONTEXTS = 438
PLANAR, DC, HORIZONTAL, VERTICAL = 0, 1, 10, 26
SKIPPED, COMPENSATED = 35, 36
MAX_MAGNITUDE, MAX_STEP_OFFSET = 32767, 63
Probabilities = list[list[int]]  # 12.5: fast, slow, count of each context


@dataclass
class Blocks:
    """The blocks of a frame; rows and columns of units are 2 * bh and 2 * bw."""

    size: Array  # of each unit
    mode: Array  # of each unit
    chroma_choice: Array  # of each unit
    step_offset: Array  # of each root
    level: list[Array]  # Y, U, V
    leaves: list[tuple[int, int, int]] = field(default_factory=list)  # (r, q, n), in the order of the stream


def new_blocks(bh: int, bw: int) -> Blocks:
    size, mode, choice = (np.zeros((2 * bh, 2 * bw), np.int64) for _ in range(3))
    level = [np.zeros((side * bh, side * bw), np.int64) for side in (8, 4, 4)]
    return Blocks(size, mode, choice, np.zeros((half(bh, 2), half(bw, 2)), np.int64), level)


class BlockReader:
    """9.5 blocks(f)."""

    def __init__(self, coder: RangeDecoder, probabilities: Probabilities, f: UnitFrame) -> None:
        self.coder, self.probabilities = coder, probabilities
        self.refers = bool(f.references)
        self.blocks = new_blocks(*f.block_size)
        self.rows, self.columns = self.blocks.size.shape
        self.step_before = 0
        self.step_known = False

    def c(self, context: int, name: str) -> int:
        """c(context): the element ``name``."""
        return self.coder.bin(self.probabilities[context])

    def b(self, n: int, name: str) -> int:
        """b(n)."""
        return self.coder.bits(n)

    def t(self, context: int, n: int, name: str) -> int:
        """t(context, n)."""
        node = 1
        for _ in range(n):
            node = 2 * node + self.c(context + node - 1, name)
        return node - 2**n

    def read(self) -> Blocks:
        for r in range(0, self.rows, 8):
            for q in range(0, self.columns, 8):
                self.step_known = False
                self.node(r, q, 5)
                self.blocks.step_offset[r // 8, q // 8] = self.step_before
        return self.blocks

    def node(self, r: int, q: int, n: int) -> None:
        u = 2 ** (n - 2)
        if r >= self.rows or q >= self.columns:
            return
        is_split = 1
        if r + u <= self.rows and q + u <= self.columns:
            around = [self.blocks.size[place] for place in self.neighbours(r, q)]
            is_split = self.c(SPLIT + 3 * (n - 3) + sum(int(size < n) for size in around), "is_split")
        if is_split and n > 3:
            for i in range(4):
                self.node(r + i // 2 * (u // 2), q + i % 2 * (u // 2), n - 1)
        else:
            self.leaf(r, q, 2 if is_split else n)

    def neighbours(self, r: int, q: int) -> list[tuple[int, int]]:
        """The units on the left and above, as far as they exist."""
        return [(r, q - 1)] * (q > 0) + [(r - 1, q)] * (r > 0)

    def leaf(self, r: int, q: int, n: int) -> None:
        m, b = max(n, 3), self.blocks
        of_leaf = (slice(r, r + 2 ** (m - 2)), slice(q, q + 2 ** (m - 2)))
        b.size[of_leaf] = n
        b.leaves.append((r, q, n))
        own = True
        if self.refers:
            around = [int(b.mode[place]) for place in self.neighbours(r, q)]
            own = self.c(KIND + sum(mode < 35 for mode in around), "has_own_modes") == 1
            if not own:
                busy = sum(mode != SKIPPED for mode in around)
                has_levels = self.c(ANY + 3 * (n - 2) + busy, "has_levels")
                b.mode[of_leaf] = COMPENSATED if has_levels else SKIPPED
                if not has_levels:
                    return
        for i in range(4 if n == 2 else 1):
            y, x = r + i // 2, q + i % 2
            if own:
                b.mode[y : y + 2 ** (n - 2), x : x + 2 ** (n - 2)] = self.luma_mode(y, x)
            self.levels(0, 4 * y, 4 * x, n, CODED + n - 2)
        if own:
            b.chroma_choice[of_leaf] = self.chroma_choice()
        u_coded = self.levels(1, 2 * r, 2 * q, m - 1, CODED + 4 + m - 3)
        self.levels(2, 2 * r, 2 * q, m - 1, CODED + 7 + m - 3 + 3 * u_coded)

    def luma_mode(self, y: int, x: int) -> int:
        likely = self.likely_modes(y, x)
        if self.c(LIKELY, "is_likely"):
            if not self.c(LIKELY + 1, "not_first"):
                return likely[0]
            return likely[1 + self.c(LIKELY + 2, "not_second")]
        mode = self.t(MODE, 5, "other_mode")
        for other in sorted(likely):
            mode += int(mode >= other)
        return mode

    def likely_modes(self, y: int, x: int) -> list[int]:
        left = int(self.blocks.mode[y, x - 1]) if x > 0 else DC
        above = int(self.blocks.mode[y - 1, x]) if y > 0 else DC
        left, above = left if left < 35 else DC, above if above < 35 else DC
        if left == above:
            if left < 2:
                return [PLANAR, DC, VERTICAL]
            return [left, 2 + (left + 29) % 32, 2 + (left - 1) % 32]
        return [left, above, next(mode for mode in (PLANAR, DC, VERTICAL) if mode not in (left, above))]

    def chroma_choice(self) -> int:
        if not self.c(CHROMA_MODE, "not_luma_mode"):
            return 0
        if not self.c(CHROMA_MODE + 1, "not_linear"):
            return 1
        return 2 + self.t(CHROMA_MODE + 2, 2, "listed_mode")

    def levels(self, p: int, top: int, left: int, n: int, context: int) -> int:
        if not self.c(context, "is_coded"):
            return 0
        if not self.step_known:
            self.step_known = True
            self.step_change()
        chroma, level = min(p, 1), self.blocks.level[p]
        last_y = self.coordinate(LAST + 80 * chroma + 20 * (n - 2), n)
        last_x = self.coordinate(LAST + 80 * chroma + 20 * (n - 2) + 10, n)
        order = scan(n)
        last = order.index((last_y, last_x))
        for k in range(last, -1, -1):
            y, x = order[k]
            present, above_one, above_two, rest = self.level_contexts(level, top, left, n, y, x, chroma)
            if k < last and not self.c(present, "is_present"):
                continue
            magnitude = 1
            if self.c(above_one, "above_one"):
                magnitude = 2
                if self.c(above_two, "above_two"):
                    magnitude = 3 + self.rest(rest)
            sign = self.b(1, "is_negative")
            need(magnitude <= MAX_MAGNITUDE, "truncated", "a level is too large")
            level[top + y, left + x] = -magnitude if sign else magnitude
        return 1

    def step_change(self) -> None:
        size = 0
        if self.c(STEP, "step_changes"):
            sign = self.b(1, "step_falls")
            size = 1
            while size < 2 * MAX_STEP_OFFSET and self.c(STEP + min(size, 7), "step_goes_on"):
                size += 1
            size = -size if sign else size
        self.step_before += size
        need(abs(self.step_before) <= MAX_STEP_OFFSET, "truncated", "a step is too far from that of the frame")

    def coordinate(self, context: int, n: int) -> int:
        group = 0
        while group < 2 * n - 1 and self.c(context + group, "group_goes_on"):
            group += 1
        if group < 4:
            return group
        bits = (group >> 1) - 1
        return ((2 + group % 2) << bits) + self.b(bits, "group_place")

    def rest(self, context: int) -> int:
        k = 0
        while k < 12 and self.c(context + min(k, 7), "rest_goes_on"):
            k += 1
        if k < 12:
            return k
        length = 0
        while length < 15 and self.b(1, "length_goes_on"):
            length += 1
        return 11 + 2**length + self.b(length, "rest_place")

    @staticmethod
    def level_contexts(level: Array, top: int, left: int, n: int, y: int, x: int, chroma: int) -> tuple[int, ...]:
        """12.6: of is_present, above_one, above_two, rest_goes_on."""
        around = [(y, x + 1), (y, x + 2), (y + 1, x + 1), (y + 1, x), (y + 2, x)]
        sizes = [abs(int(level[top + i, left + j])) for i, j in around if i < 2**n and j < 2**n]
        total, count = sum(min(size, 5) for size in sizes), sum(size > 0 for size in sizes)
        more, d = total - count, y + x
        zone = bisect_right((1, 2, 5, 10), d)
        present = PRESENT + 25 * chroma + 5 * zone + min((total + 1) >> 1, 4)
        place = 20 * chroma + 5 * bisect_right((1, 3, 10), d) + min(more, 4)
        return present, ABOVE_ONE + place, ABOVE_TWO + place, REST + 32 * chroma + 8 * min(more >> 1, 3)


@lru_cache
def scan(n: int) -> list[tuple[int, int]]:
    """9.6 SCAN: (y, x) of the levels of a block of 2**n samples squared."""
    side = 2**n
    return [(d - x, x) for d in range(2 * side - 1) for x in range(side) if 0 <= d - x < side]


@lru_cache(maxsize=1)
def probabilities_file() -> bytes:
    """12.5: the starting probabilities of all contexts at all depths; 128 everywhere while there is no file."""
    path = ROOT_FOLDER / "nvcodec/hybrid/blocks/contexts.bin"
    data = path.read_bytes() if path.exists() else bytes([128] * (4 * CONTEXTS))
    found = re.search(r"<!-- table: contexts -->.*?`([0-9a-f]{64})`.*?<!-- end -->", SPEC.read_text("utf-8"), re.DOTALL)
    if len(data) != 4 * CONTEXTS or found is None or found[1] != hashlib.sha256(data).hexdigest():
        raise SystemExit(f"the starting probabilities are not those of {SPEC.name}")
    return data


def starting_probabilities(d: int) -> Probabilities:
    """12.5: of all contexts, for frames of the depths that share probabilities d."""
    return [[256 * value, 256 * value, 0] for value in probabilities_file()[d * CONTEXTS : (d + 1) * CONTEXTS]]


# ---------------------------------------------------------------- chapter 10: decoding process


def half(n: int, k: int) -> int:
    """10.1 Half."""
    return (n + 2**k - 1) >> k


def luma(s: Array) -> Array:
    """10.1: 4 channels of h x w to one plane of 2h x 2w."""
    _, h, w = s.shape
    return s[:4].reshape(2, 2, h, w).transpose(2, 0, 3, 1).reshape(2 * h, 2 * w)


def pack(plane: Array) -> Array:
    """10.1: the inverse of luma."""
    return np.stack([plane[c // 2 :: 2, c % 2 :: 2] for c in range(4)])


@dataclass
class State:
    """10.1: what later frames use of a frame."""

    samples: Array  # (6, h, w)
    fields: list[Array]  # (2, bh, bw) for each reference
    distances: list[int]
    stored: dict[int, Array] = field(default_factory=dict)  # 13.4 store, by index; implicit segments only


@dataclass
class UnitFrame:
    """A frame while its coding unit is decoded."""

    number: int
    depth: int
    references: list[int]
    states: list[State]
    height: int
    width: int
    predicts: bool = True
    grid: dict[int, Array] = field(default_factory=dict)
    mismatch: Array = field(init=False)
    activity: Array = field(init=False)
    predicted: list[Array] = field(default_factory=list)
    fields: list[Array] = field(default_factory=list)
    blend_plane: Array = field(init=False)
    warped: list[Array] = field(default_factory=list)
    prediction: Array = field(init=False)
    difference: Array = field(init=False)
    blocks: Blocks = field(init=False)
    samples: Array = field(init=False)

    @property
    def distances(self) -> list[int]:
        return [x - self.number for x in self.references]

    @property
    def working_size(self) -> tuple[int, int]:
        return half(self.height, 1), half(self.width, 1)

    @property
    def block_size(self) -> tuple[int, int]:
        return half(self.height, 3), half(self.width, 3)

    def level_shape(self, k: int) -> tuple[int, int, int]:
        """10.1 sizes and 10.3 channels of a motion level."""
        rows, columns = self.block_size
        return len(self.groups(k)), half(rows, k), half(columns, k)

    def groups(self, k: int) -> tuple[int, ...]:
        """10.3: the group of each channel."""
        if len(self.references) == 1:
            return (0, 0, 2) if k < 4 else (0, 0)
        return {0: (0, 0, 1, 1, 2, 3), 4: (0, 0, 1, 1)}.get(k, (0, 0, 1, 1, 2))


def coding_units(n: int, gop: int) -> list[list[tuple[int, int, list[int]]]]:
    """10.2: units of (frame, depth, references) in coding order."""
    units: list[list[tuple[int, int, list[int]]]] = [[(0, 0, [])]]
    later: list[list[tuple[int, int, list[int]]]] = []
    a = 0
    while a < n - 1:
        b = min(a + gop, n - 1)
        units.append([(b, 1, [a])])
        units += later
        later = []
        intervals, depth = [(a, b)], 2
        while intervals := [(p, q) for p, q in intervals if q - p > 1]:
            unit = [((p + q) // 2, depth, [p, q]) for p, q in intervals]
            (later if depth > 2 else units).append(unit)
            intervals = [pair for p, q in intervals for pair in ((p, (p + q) // 2), ((p + q) // 2, q))]
            depth += 1
        a = b
    return units + later


def decode_unit(coder: RangeDecoder, net: Network, probabilities: list[Probabilities], frames: list[UnitFrame]) -> None:
    """9.1 coding_unit(), 10.3."""
    if frames[0].references:
        unit_motion(coder, net, frames)
    for f in frames:
        f.blocks = BlockReader(coder, probabilities[min(f.depth, 3)], f).read()
    for f in frames:
        compensate(f)
        synthesise(f, net, rebuild(f, net))


def unit_motion(coder: RangeDecoder, net: Network, frames: list[UnitFrame]) -> None:
    """9.1 coding_unit(): the motion of a unit whose frames have references."""
    for f in frames:
        predict_motion(f)
    for k in (4, 3, 2, 1, 0):
        motion_level(coder, net, frames, k)


# 10.4 Motion prediction

NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))
Window = Callable[[Array], Array]


def scale(v: Array, n: int, d: int) -> Array:
    if d < 0:
        n, d = -n, -d
    return clip3(-2047, 2047, (2 * v * n + d) // (2 * d))


def predict_motion(f: UnitFrame) -> None:
    dist, shape = f.distances, (2, *f.block_size)
    if len(dist) == 1:
        f.predicted = [np.zeros(shape, np.int64)]
        disagreement = np.zeros(f.block_size, np.int64)
    else:
        search = Search(f)
        best = search.run(
            [scale(v, dist[0], distance) for s in f.states for v, distance in zip(s.fields, s.distances, strict=True)]
        )
        f.predicted = [best, scale(best, dist[1], dist[0])] if f.predicts else [np.zeros(shape, np.int64)] * 2
        disagreement = search.near(best) >> 6
    f.mismatch = disagreement
    f.activity = edge(f.predicted[0][0]) + edge(f.predicted[0][1])


class Search:
    """10.4 B frames: the field whose two warped references differ least."""

    def __init__(self, f: UnitFrame) -> None:
        self.bh, self.bw = f.block_size
        self.h, self.w = f.working_size
        self.dist = f.distances
        self.planes = [luma(s.samples) for s in f.states]
        self.best = np.zeros((2, self.bh, self.bw), np.int64)
        self.cost = np.zeros((self.bh, self.bw), np.int64)

    def block_costs(self, v: Array) -> Array:
        """S, with two blocks of zeros around."""
        y, x = np.mgrid[: self.h, : self.w]
        u = scale(v, self.dist[1], self.dist[0])
        warped = [
            interpolate(plane, LUMA, 2 * y, 2 * x, m[0][y // 4, x // 4], m[1][y // 4, x // 4])
            for plane, m in zip(self.planes, (v, u), strict=True)
        ]
        d = np.zeros((4 * self.bh, 4 * self.bw), np.int64)
        d[: self.h, : self.w] = abs(warped[0] - warped[1])
        return np.pad(d.reshape(self.bh, 4, self.bw, 4).sum((1, 3)), 2)

    def wide(self, v: Array) -> Array:
        s = self.block_costs(v)
        return np.sum([s[2 + p :, 2 + q :][: self.bh, : self.bw] for p, q in product(range(-2, 3), repeat=2)], axis=0)

    def near(self, v: Array) -> Array:
        s = self.block_costs(v)
        terms = [
            (2 - abs(p)) * (2 - abs(q)) * s[2 + p :, 2 + q :][: self.bh, : self.bw]
            for p, q in product(range(-1, 2), repeat=2)
        ]
        return np.sum(terms, axis=0)

    def attempt(self, v: Array, penalty: int, window: Window) -> None:
        """try()."""
        c = window(v) + penalty
        better = c < self.cost
        self.cost = np.where(better, c, self.cost)
        self.best = np.where(better, v, self.best)

    def spread(self, window: Window) -> None:
        v = self.best
        for reach in (1, 2):
            for dy, dx in NEIGHBOURS[:4]:
                self.attempt(moved(v, dy * reach, dx * reach), 64, window)

    def run(self, candidates: list[Array]) -> Array:
        self.best = np.zeros((2, self.bh, self.bw), np.int64)
        self.cost = self.wide(self.best)
        for v in candidates:
            self.attempt(v, 0, self.wide)
        for v in candidates:
            for reach in (1, 2):
                for dy, dx in NEIGHBOURS:
                    self.attempt(moved(v, dy * reach, dx * reach), 64, self.wide)
        self.spread(self.wide)
        self.cost = self.near(self.best)
        for step, penalty in ((4, 128), (2, 91), (1, 64)):
            v = self.best
            for dy, dx in NEIGHBOURS:
                moved_vector = clip3(-2047, 2047, v + np.array([step * dy, step * dx])[:, None, None])
                self.attempt(moved_vector, penalty, self.near)
        self.spread(self.near)
        return self.best


def moved(v: Array, dy: int, dx: int) -> Array:
    return np.roll(v, (dy, dx), axis=(1, 2))


# 10.5 to 10.7


def compensate(f: UnitFrame) -> None:
    """10.5 to 10.7: prediction, difference."""
    h, w = f.working_size
    if not f.states:
        f.prediction = np.full((6, h, w), 512, np.int64)
        f.difference = np.zeros((6, h, w), np.int64)
    else:
        f.blend_plane = motion(f)
        warp_and_blend(f)


def warp_and_blend(f: UnitFrame) -> None:
    """10.6 and 10.7, by the fields that the frame has."""
    f.warped = [warp(s, v) for s, v in zip(f.states, f.fields, strict=True)]
    blend(f, f.warped, f.blend_plane)


def motion(f: UnitFrame) -> Array:
    """10.5: sets the fields, gives the blend (0 for P frames)."""
    g, dist = f.grid, f.distances
    total = correction(f, 0)
    forward = total[:2]
    f.fields = [clip3(-2047, 2047, f.predicted[0] + forward)]
    if len(dist) == 1:
        return np.zeros(f.block_size, np.int64)
    backward = f.predicted[1] + scale(forward, dist[1], dist[0]) + total[2:]
    f.fields.append(clip3(-2047, 2047, backward))
    return clip3(-1, 1, g[0][5])


def correction(f: UnitFrame, k: int) -> Array:
    """10.5 T[k]."""
    g, count = f.grid[k], 2 * len(f.references)
    if k == MOTION_LEVELS - 1:
        return g
    _, rows, columns = g.shape
    choice = g[count]
    candidates = merge_candidates(f, k, rows, columns)
    index = np.select([choice == 0, choice == 1, choice == -1], [0, 1, 2], 3)
    picked = np.take_along_axis(candidates, index[None, None], 0)[0]
    return np.asarray(picked + g[:count])


def merge_candidates(f: UnitFrame, k: int, rows: int, columns: int) -> Array:
    """10.5 M[0..3] of level k, (4, count, rows, columns)."""
    coarser = correction(f, k + 1)
    y, x = np.mgrid[:rows, :columns]
    yn = clip3(0, coarser.shape[1] - 1, (y >> 1) + 2 * (y & 1) - 1)
    xn = clip3(0, coarser.shape[2] - 1, (x >> 1) + 2 * (x & 1) - 1)
    return np.stack([coarser[:, v, u] for u in (x >> 1, xn) for v in (y >> 1, yn)])


LUMA = (
    (0, 0, 0, 64, 0, 0, 0, 0),
    (-1, 4, -10, 58, 17, -5, 1, 0),
    (-1, 4, -11, 40, 40, -11, 4, -1),
    (0, 1, -5, 17, 58, -10, 4, -1),
)
CHROMA = ((0, 64, 0, 0), (-4, 54, 16, -2), (-4, 36, 36, -4), (-2, 16, 54, -4))


def interpolate(plane: Array, taps: tuple[tuple[int, ...], ...], y: Array, x: Array, vy: Array, vx: Array) -> Array:
    """10.6 interpolate, for arrays of positions and vectors of equal shape."""
    rows, columns = plane.shape
    filters, n = np.array(taps, np.int64), len(taps[0])
    fy, fx = filters[vy & 3], filters[vx & 3]
    r, c = y + (vy >> 2), x + (vx >> 2)
    a = np.zeros(r.shape, np.int64)
    column = clip3(0, columns - 1, c[..., None] + np.arange(n) - n // 2 + 1)
    for i in range(n):
        row = clip3(0, rows - 1, r + i - n // 2 + 1)
        a += fy[..., i] * (fx * plane[row[..., None], column]).sum(-1)
    return clip3(0, 1023, round2(a, 12))


OWN = {8: np.array((5, 6, 7, 8, 8, 7, 6, 5)), 4: np.array((6, 8, 8, 6))}


def overlapped(plane: Array, taps: tuple[tuple[int, ...], ...], size: int, v: Array) -> Array:
    """10.6: the plane compensated with overlapping blocks of ``size`` x ``size`` samples."""
    y, x = np.mgrid[: plane.shape[0], : plane.shape[1]]
    i, j = y // size, x // size
    i2 = clip3(0, v.shape[1] - 1, np.where(y % size < size // 2, i - 1, i + 1))
    j2 = clip3(0, v.shape[2] - 1, np.where(x % size < size // 2, j - 1, j + 1))
    p, q = OWN[size][y % size], OWN[size][x % size]

    def sample(a: Array, b: Array) -> Array:
        return interpolate(plane, taps, y, x, v[0][a, b], v[1][a, b])

    return round2(
        p * q * sample(i, j)
        + p * (8 - q) * sample(i, j2)
        + (8 - p) * q * sample(i2, j)
        + (8 - p) * (8 - q) * sample(i2, j2),
        6,
    )


def warp(s: State, v: Array) -> Array:
    """10.6: warped (6, h, w)."""
    chroma = [overlapped(s.samples[c], CHROMA, 4, round2(v, 1)) for c in (4, 5)]
    return np.concatenate([pack(overlapped(luma(s.samples), LUMA, 8, v)), np.stack(chroma)])


def blend(f: UnitFrame, warped: list[Array], blend_plane: Array) -> None:
    """10.7."""
    if len(warped) == 1:
        f.prediction = warped[0]
        f.difference = np.zeros_like(f.prediction)
        return
    y, x = np.mgrid[: f.working_size[0], : f.working_size[1]]
    b = blend_plane[y // 4, x // 4]
    f.prediction = round2(warped[0] * (1 + b) + warped[1] * (1 - b), 1)
    f.difference = warped[0] - warped[1]


# 10.8 Rebuilding the blocks


@lru_cache
def gains() -> tuple[int, ...]:
    """GAINS."""
    values = []
    for i in range(64):
        v = 1
        while (2 * v + 1) ** 8 <= 2 ** (24 + i):
            v += 1
        values.append(v)
    return tuple(values)


def rebuild(f: UnitFrame, net: Network) -> Array:
    """10.8: rebuilt (6, h, w)."""
    (h, w), (bh, bw), b = f.working_size, f.block_size, f.blocks
    planes = []
    for plane, side in ((luma(f.prediction), 8), (f.prediction[4], 4), (f.prediction[5], 4)):
        more = [(0, side * count - size) for count, size in zip((bh, bw), plane.shape, strict=True)]
        planes.append(np.pad(plane, more, mode="edge"))
    known = np.zeros(b.size.shape, bool)
    for r, q, n in b.leaves:
        index = int(clip3(0, 63, net["block.gain"][f.depth, 0] + b.step_offset[r // 8, q // 8]))
        steps = (gains()[index], gains()[max(index - 4, 0)])
        for i in range(4 if n == 2 else 1):
            y, x = r + i // 2, q + i % 2
            rebuild_luma(b, planes[0], known, y, x, n, steps[0])
            known[y : y + 2 ** (n - 2), x : x + 2 ** (n - 2)] = True
        for p in (1, 2):
            rebuild_chroma(b, planes, known, p, r, q, max(n, 3) - 1, steps[1])
    return np.concatenate([pack(planes[0][: 2 * h, : 2 * w]), np.stack([plane[:h, :w] for plane in planes[1:]])])


def rebuild_luma(b: Blocks, plane: Array, known: Array, y: int, x: int, n: int, step: int) -> None:
    mode, place = int(b.mode[y, x]), (slice(4 * y, 4 * y + 2**n), slice(4 * x, 4 * x + 2**n))
    if mode == SKIPPED:
        return
    if mode == COMPENSATED:
        block = plane[place]
    else:
        line = surroundings(plane, known, 4 * y, 4 * x, 2**n, 4)
        block = predict(mode, smooth(line) if wants_smoothing(mode, n) else line, n)
    plane[place] = clip3(0, 1023, block + inverse_transform(b.level[0][place], n, step))


def rebuild_chroma(b: Blocks, planes: list[Array], known: Array, p: int, r: int, q: int, n: int, step: int) -> None:
    mode, choice = int(b.mode[r, q]), int(b.chroma_choice[r, q])
    plane, place = planes[p], (slice(2 * r, 2 * r + 2**n), slice(2 * q, 2 * q + 2**n))
    if mode == SKIPPED:
        return
    if mode == COMPENSATED:
        block = plane[place]
    elif choice == 1:
        block = predict_linear(planes[0], plane, 2 * r, 2 * q, 2**n)
    else:
        if choice >= 2:
            listed = (PLANAR, VERTICAL, HORIZONTAL, DC)[choice - 2]
            mode = 34 if listed == mode else listed
        block = predict(mode, surroundings(plane, known, 2 * r, 2 * q, 2**n, 2), n)
    plane[place] = clip3(0, 1023, block + inverse_transform(b.level[p][place], n, step))


# 10.9 Prediction from the samples around

ANGLES = (
    *(0, 0, 32, 26, 21, 17, 13, 9, 5, 2, 0, -2, -5, -9, -13, -17, -21, -26),
    *(-32, -26, -21, -17, -13, -9, -5, -2, 0, 2, 5, 9, 13, 17, 21, 26, 32),
)
INVERSE_ANGLES = (0, 4096, 1638, 910, 630, 482, 390, 315, 256)
Line = dict[int, int]  # samples around a block, by their place


def surroundings(plane: Array, known: Array, top: int, left: int, side: int, unit: int) -> Line:
    """10.9 line: -2 * side .. 2 * side."""
    line: dict[int, int | None] = {}
    for k in range(-2 * side, 2 * side + 1):
        y, x = (top - 1 - k, left - 1) if k < 0 else (top - 1, left - 1 + k)
        i, j = y // unit, x // unit
        inside = y >= 0 and x >= 0 and i < known.shape[0] and j < known.shape[1]
        line[k] = int(plane[y, x]) if inside and known[i, j] else None
    value = next((v for v in line.values() if v is not None), 512)
    for k, v in line.items():
        value = value if v is None else v
        line[k] = value
    return {k: v for k, v in line.items() if v is not None}


def smooth(line: Line) -> Line:
    return {
        k: (line[k - 1] + 2 * v + line[k + 1] + 2) >> 2 if k - 1 in line and k + 1 in line else v
        for k, v in line.items()
    }


def axis_distance(mode: int) -> int:
    return min(abs(mode - HORIZONTAL), abs(mode - VERTICAL))


def wants_smoothing(mode: int, n: int) -> bool:
    return mode != DC and n > 2 and axis_distance(mode) > {3: 7, 4: 1, 5: 0}[n]


def predict(mode: int, line: Line, n: int) -> Array:
    """10.9, for a block of 2**n samples squared."""
    side = 2**n
    out = np.zeros((side, side), np.int64)
    for y, x in product(range(side), repeat=2):
        if mode == PLANAR:
            across = (side - 1 - x) * line[-1 - y] + (x + 1) * line[1 + side]
            out[y, x] = (across + (side - 1 - y) * line[1 + x] + (y + 1) * line[-1 - side] + side) >> (n + 1)
        elif mode == DC:
            out[y, x] = (sum(line[1 + k] + line[-1 - k] for k in range(side)) + side) >> (n + 1)
        else:
            out[y, x] = along(mode, line, y, x)
    return blend_borders(mode, line, n, out) if mode in (PLANAR, DC, HORIZONTAL, VERTICAL) else out


def along(mode: int, line: Line, y: int, x: int) -> int:
    """Modes 2 .. 34."""
    forward = 1 if mode >= 18 else -1
    i, j = (x, y) if mode >= 18 else (y, x)
    angle = ANGLES[mode]
    whole, part = ((j + 1) * angle) >> 5, ((j + 1) * angle) & 31

    def ref(k: int) -> int:
        return line[forward * k if k >= 0 else -forward * ((128 - k * INVERSE_ANGLES[axis_distance(mode)]) >> 8)]

    at = i + whole + 1
    return ((32 - part) * ref(at) + part * ref(at + 1) + 16) >> 5 if part else ref(at)


def blend_borders(mode: int, line: Line, n: int, out: Array) -> Array:
    shift = (n - 1) >> 1
    y, x = np.mgrid[: len(out), : len(out)]
    by_y, by_x = (32 >> np.minimum((2 * v) >> shift, 31) for v in (y, x))
    above = np.array([line[1 + k] for k in range(len(out))])[x]
    beside = np.array([line[-1 - k] for k in range(len(out))])[y]
    if mode == VERTICAL:
        out = out + round2(by_x * (beside - line[0]), 6)
    elif mode == HORIZONTAL:
        out = out + round2(by_y * (above - line[0]), 6)
    else:
        out = round2(by_x * beside + by_y * above + (64 - by_x - by_y) * out, 6)
    return clip3(0, 1023, out)


def predict_linear(luma_plane: Array, plane: Array, top: int, left: int, side: int) -> Array:
    """10.9 Linear prediction of chroma."""

    def mean_luma(y: int, x: int) -> int:
        return (int(luma_plane[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].sum()) + 2) >> 2

    places = [(top - 1, left + k) for k in range(side) if top > 0] + [(top + k, left - 1) for k in range(side) if left]
    pairs = [(mean_luma(y, x), int(plane[y, x])) for y, x in places]
    count, sx, sy = len(pairs), sum(a for a, _ in pairs), sum(b for _, b in pairs)
    slope, mean_x, mean_y = 0, 0, 512
    if pairs:
        spread = count * sum(a * a for a, _ in pairs) - sx * sx
        if spread > 0:
            slope = ((count * sum(a * b for a, b in pairs) - sx * sy) * 256) // spread
            slope = min(max(slope, -1024), 1024)
        mean_x, mean_y = (sx + count // 2) // count, (sy + count // 2) // count
    values = [
        [mean_y + round2(slope * (mean_luma(top + y, left + x) - mean_x), 8) for x in range(side)] for y in range(side)
    ]
    return clip3(0, 1023, np.array(values))


# 10.10 Transform

COSINES = (
    *(8192, 8182, 8153, 8103, 8035, 7946, 7839, 7713, 7568, 7405, 7225, 7027, 6811, 6580, 6333, 6070, 5793),
    *(5501, 5197, 4880, 4551, 4212, 3862, 3503, 3135, 2760, 2378, 1990, 1598, 1202, 803, 402, 0),
)


@lru_cache
def matrix(n: int) -> Array:
    """T_n."""
    side = 2**n
    out = np.full((side, side), COSINES[16], np.int64)
    for k, i in product(range(1, side), range(side)):
        angle = (2 * i + 1) * k * 2 ** (5 - n) % 128
        angle = min(angle, 128 - angle)
        out[k, i] = COSINES[angle] if angle <= 32 else -COSINES[64 - angle]
    return out


def inverse_transform(level: Array, n: int, step: int) -> Array:
    amplitude = clip3(-524287, 524287, level * step)
    columns = round2(matrix(n).T @ amplitude, 9)
    return np.asarray(round2(columns @ matrix(n), 16 + n))


# 10.11 Cell, 10.12 Output


def layer(v: Array, weight: Array, offset: Array) -> Array:
    """10.11 layer. Sums stay below 2^24 (10.12), so that the products of binary64 matrices are exact."""
    _, h, w = v.shape
    padded = np.pad(v, ((0, 0), (1, 1), (1, 1))).astype(np.float64)
    a = np.zeros((len(weight), h * w))
    for p, q in product(range(3), repeat=2):
        a += weight[:, :, p, q].astype(np.float64) @ padded[:, p : p + h, q : q + w].reshape(len(v), h * w)
    return np.asarray(round2(a.astype(np.int64).reshape(-1, h, w) + offset[:, None, None], 9))


def leaky(n: Array) -> Array:
    return clip3(-1023, 1023, np.where(n >= 0, n, n >> 3))


def synthesise(f: UnitFrame, net: Network, rebuilt: Array) -> None:
    """10.11."""
    residual = rebuilt - f.prediction
    cell, row = ("cell.inter", min(f.depth, 3) - 1) if f.references else ("cell.key", 0)
    v = np.concatenate([residual, f.prediction - 512, f.difference]) if f.references else residual
    offset = 128 * net[f"{cell}.enter.bias"][row] + 16 * net["block.gain"][f.depth, 0] * net[f"{cell}.enter.slope"][row]
    v = leaky(layer(v, net[f"{cell}.enter.weight"], offset))
    for name in ("mix0", "mix1"):
        v = leaky(layer(v, net[f"{cell}.{name}.weight"], 128 * net[f"{cell}.{name}.bias"][0]))
    v = layer(v, net[f"{cell}.leave.weight"], 128 * net[f"{cell}.leave.bias"][0])
    correction = round2(v * net[f"{cell}.leave.scale"][row][:, None, None], 4)
    f.samples = clip3(0, 1023, rebuilt + correction)


def sample_planes(f: UnitFrame) -> Planes:
    """10.12: the planes before they are rounded."""
    return [luma(f.samples)[: f.height, : f.width], f.samples[4], f.samples[5]]


def output_planes(samples: Planes, bit_depth: int) -> Planes:
    """10.12: what is shown, and hashed."""
    if bit_depth == 10:
        return [np.ascontiguousarray(plane, "<u2") for plane in samples]
    return [np.ascontiguousarray(np.minimum(255, (plane + 2) >> 2), np.uint8) for plane in samples]


# ---------------------------------------------------------------- chapter 11: entropy coder

ONE = 2**60
LN2 = 799144290325165978
ROOT = 1272928543325453668


def mul(a: int, b: int) -> int:
    return (a * b) >> 60


def exp_minus(x: int) -> int:
    """11.1: e^-x."""
    n, rest = divmod(x, LN2)
    if n >= 60:
        return 0
    total, term = 0, ONE
    for k in range(1, 25):
        total += term if k % 2 else -term
        term = mul(term, rest) // k
    return total >> n


@lru_cache
def inverse(scale_index: int) -> int:
    b = ONE // 20
    for _ in range(scale_index):
        b = mul(b, ROOT)
    return (ONE * ONE) // b


@cache
def laplace(e: int, inv: int) -> int:
    tail = exp_minus((abs(e) * inv) >> 3) >> 1
    return tail if e < 0 else ONE - tail


@cache
def table(t: int) -> list[int]:
    """11.1: cum[-127 .. 128] of table t."""
    scale_index, fraction = divmod(t, 4)
    narrow, wide = inverse(scale_index), inverse(56)
    share = exp_minus(narrow >> 1) >> 4 if scale_index < 56 else 0
    edges = []
    for q in range(-127, 129):
        e = 8 * q - 4 - 2 * fraction
        p = laplace(e, narrow)
        edges.append(p + mul(laplace(e, wide) - p, share))
    c = [((edge - edges[0]) * (2**24 - 255)) // (edges[-1] - edges[0]) for edge in edges]
    return list(accumulate([c[i + 1] - c[i] + 1 for i in range(255)], initial=0))


class RangeDecoder:
    """11.2 to 11.4."""

    def __init__(self, data: bytes) -> None:
        self.words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
        self.taken = 0
        self.lower, self.range = 0, 2**64 - 1
        self.point = self.next_word() << 32
        self.point += self.next_word()

    def next_word(self) -> int:
        self.taken += 1
        return self.words[self.taken - 1] if self.taken <= len(self.words) else 0

    def decode(self, cum: list[int]) -> int:
        """The index of the symbol in cum."""
        unit = self.range >> 24
        quantile = ((self.point - self.lower) % 2**64) // unit
        need(quantile < 2**24, "truncated", "the entropy-coded data belong to no symbol")
        q = bisect_right(cum, quantile) - 1
        self.lower = (self.lower + unit * cum[q]) % 2**64
        self.range = unit * (cum[q + 1] - cum[q])
        if self.range < 2**32:
            self.lower = (self.lower << 32) % 2**64
            self.range <<= 32
            self.point = ((self.point << 32) % 2**64) + self.next_word()
        return q

    def bits(self, n: int) -> int:
        """b(n)."""
        value = 0
        for _ in range(n):
            value = 2 * value + self.decode([0, 2**23, 2**24])
        return value

    def bin(self, p: list[int]) -> int:
        """c(context), whose probabilities are p (12.5); they follow."""
        fast, slow, count = p
        ones = min(max((fast + slow) >> 5, 3), 4093)
        bit = self.decode([0, (4096 - ones) << 12, 2**24])
        p[0] = fast + ((65535 * bit - fast) >> 4)
        p[1] = slow + ((65535 * bit - slow) >> min(4 + (count >> 3), 7))
        p[2] = min(count + 1, 24)
        return bit

    def symbol(self, t: int) -> int:
        """s(t)."""
        return self.decode(table(t)) - 127

    def run(self, tables: Array) -> Array:
        """11.3: the symbols of a run, in the order of their places."""
        symbols = np.zeros(len(tables), np.int64)
        for i in np.argsort(tables, kind="stable"):
            symbols[i] = self.symbol(int(tables[i]))
        return symbols

    def finish(self) -> None:
        """11.4."""
        need(self.taken >= len(self.words), "syntax", "the entropy-coded data go on behind the last symbol")
        need((self.point - self.lower) % 2**64 < 2**33 - 1, "syntax", "the entropy-coded data end in a wrong state")


# ---------------------------------------------------------------- chapter 12: context model

PHASE = {(0, 0): 0, (0, 1): 2, (1, 0): 3, (1, 1): 1}


def stage_of(c: int, y: int, x: int) -> int:
    """12.1."""
    return (PHASE[y % 2, x % 2] + c) % 4


def motion_level(coder: RangeDecoder, net: Network, frames: list[UnitFrame], k: int) -> None:
    """9.1 motion_level(k)."""
    shape = frames[0].level_shape(k)
    for f in frames:
        f.grid[k] = np.zeros(shape, np.int64)
    used = [f for f in frames if coder.bits(1)]
    for stage in range(4 if used else 0):
        places, tables, locations = [], [], []
        for f, c in product(used, range(shape[0])):
            y0, x0 = next(place for place in PHASE if stage_of(c, *place) == stage)
            place = (c, slice(y0, None, 2), slice(x0, None, 2))
            location, scale_index = location_and_scale(net, f, k, c, stage, y0, x0)
            places.append((f.grid[k], place))
            locations.append(location)
            tables.append((4 * scale_index + location % 4).ravel())
        symbols = coder.run(np.concatenate(tables))
        at = 0
        for (level, place), location in zip(places, locations, strict=True):
            q = symbols[at : at + location.size].reshape(location.shape)
            level[place] = (q + (location >> 2) + 127) % 255 - 127
            at += location.size


def all_related(c: int, d: int) -> bool:
    """12.2: motion levels and latents."""
    return True


def bands_related(c: int, d: int) -> bool:
    """12.2: appearance levels."""
    return c // 3 == d // 3 or c % 3 == d % 3


def neighbour_sums(
    g: Array, c: int, stage: int, y0: int, x0: int, related: Callable[[int, int], bool] = all_related
) -> list[Array]:
    """12.2: near, wide, cross and mean at the samples (c, y0 + 2i, x0 + 2j)."""
    channels, rows, columns = g.shape
    padded = np.pad(g, ((0, 0), (2, 2), (2, 2)))
    shape = g[c, y0::2, x0::2].shape
    sums = [np.zeros(shape, np.int64) for _ in range(4)]
    weights = [0, 0, 0, 0]
    for d, dy, dx in product(range(channels), range(-2, 3), range(-2, 3)):
        if stage_of(d, y0 + dy, x0 + dx) >= stage:
            continue
        reach = max(abs(dy), abs(dx))
        weight = (
            int(d == c and reach == 1),
            int(d == c),
            int(d != c and related(c, d) and reach <= 1) * (2 if reach == 0 else 1),
            int(d == c and reach == 1) * (2 if 0 in (dy, dx) else 1),
        )
        if not any(weight):
            continue
        symbols = padded[d, 2 + dy : 2 + dy + rows, 2 + dx : 2 + dx + columns][y0::2, x0::2]
        for s in range(4):
            sums[s] += weight[s] * (symbols if s == 3 else abs(symbols))
            weights[s] += weight[s]
    for s, u in enumerate((64, 128, 64, 16)):
        n = weights[s]
        sums[s] = (2 * u + n) // (2 * n) * sums[s] if n else 0 * sums[s]
    return [*sums[:3], clip3(-255, 255, sums[3])]


@lru_cache
def logarithms() -> Array:
    """12.3 LOG."""
    values, n = [], 0
    for i in range(4096):
        while (1 + i) ** 32 >= 2 ** (2 * n + 1):
            n += 1
        values.append(n)
    return np.array(values, np.int64)


def lg(v: Array) -> Array:
    return np.asarray(logarithms()[np.minimum(v, 4095)])


def edge(a: Array) -> Array:
    """12.3."""
    return abs(np.diff(a, axis=0, prepend=a[:1])) + abs(np.diff(a, axis=1, prepend=a[:, :1]))


def pool(a: Array, k: int) -> Array:
    """12.3."""
    rows, columns = (half(n, k) for n in a.shape)
    full = np.pad(a, ((0, (rows << k) - a.shape[0]), (0, (columns << k) - a.shape[1])))
    return np.asarray(round2(full.reshape(rows, 1 << k, columns, 1 << k).sum((1, 3)), 2 * k))


def parent(f: UnitFrame, k: int, c: int) -> Array:
    """12.3 Parent, at all places of the level."""
    _, rows, columns = f.level_shape(k)
    return parent_of(f.grid.get(k + 1), c, rows, columns)


def parent_of(coarser: Array | None, c: int, rows: int, columns: int) -> Array:
    """12.3 Parent, at all places of a level of rows x columns, by level k + 1, if there is one."""
    if coarser is None or c >= len(coarser):
        return np.zeros((rows, columns), np.int64)
    m = np.pad(abs(coarser[c]), 1)
    y, x = np.mgrid[:rows, :columns]
    y, x = (y >> 1) + 1, (x >> 1) + 1
    return lg(4 * (8 * m[y, x] + sum(m[y + p, x + q] for p, q in product((-1, 0, 1), repeat=2))))


def location_and_scale(net: Network, f: UnitFrame, k: int, c: int, stage: int, y0: int, x0: int) -> tuple[Array, Array]:
    """12.3 Features and 12.4, for the samples (c, y0 + 2i, x0 + 2j)."""
    near, wide, cross, mean = neighbour_sums(f.grid[k], c, stage, y0, x0)
    own = (slice(y0, None, 2), slice(x0, None, 2))
    activity = pool(f.activity, k)
    if k < MOTION_LEVELS - 1:
        candidates = merge_candidates(f, k, *activity.shape)
        activity = activity + abs(candidates[1:] - candidates[0]).sum((0, 1))
    features = [
        lg(near),
        lg(wide),
        lg(cross),
        mean,
        lg(abs(mean)),
        parent(f, k, c)[own],
        lg(pool(f.mismatch, k)[own]),
        lg(activity[own]),
    ]
    bias = net["context.output.bias"][MOTION_LEVELS * f.depth + k]
    return context_output(net, features, stage, bias + net["context.group.bias"][4 * k + f.groups(k)[c]])


def context_output(net: Network, features: list[Array], stage: int, bias: Array) -> tuple[Array, Array]:
    """12.4: location and scale."""
    columns, shape = np.stack([feature.ravel() for feature in features]), features[0].shape
    hid = net["context.hidden.weight"] @ columns + 64 * net["context.hidden.bias"][stage][:, None]
    hid = clip3(0, 1023, round2(hid, 6))
    out = round2(net["context.output.weight"] @ hid + 64 * bias[:, None], 10)
    return clip3(-400, 400, out[0]).reshape(shape), clip3(0, 63, out[1]).reshape(shape)


# ---------------------------------------------------------------- chapter 14: implicit segments

MAX_LATENT_CHANNELS = 64
CONTEXT_WIDTH = 8  # the starting network with the context model
START_BYTES = 4
APPEARANCE_CHANNELS = (3, 9, 9, 9, 12)  # 14.7, by level
APPEARANCE_LEVELS = len(APPEARANCE_CHANNELS)


def decode_implicit(payload: bytes, count: int, height: int, width: int, programs: list[Program]) -> list[Planes]:
    """14.1 implicit_payload(): the frames in display order, not rounded yet."""
    r = Reader(payload)
    program_index = r.u8("a segment header") & 15
    need(program_index < len(programs), "syntax", f"there is no program {program_index}")
    program = programs[program_index]
    for node in program.of("latent", "grid"):
        need(node.p["channels"] <= MAX_LATENT_CHANNELS, "limit", f"latents of {node.p['channels']} channels")
    gop, predicts = read_gop(r)
    start = read_start(r.take(START_BYTES, "a segment header"), program) if payload[0] >> 4 == 2 else None
    coder = RangeDecoder(entropy_coded_data(r))
    return ImplicitDecoder(coder, program, count, height, width, start).decode(gop, predicts)


@dataclass
class StartTensors:
    """14.3: what a start holds of a node conv; of each direction, how it moves them."""

    bias_shift: int
    exponent: Array
    bias: Array
    weight: Array
    bias_directions: Array  # directions x channels
    weight_directions: Array  # directions x channels x n


@dataclass
class StartFile:
    """14.3 start_file(): by the index of the nodes conv."""

    nodes: dict[int, StartTensors]
    directions: int
    shift: int


@lru_cache(maxsize=1)
def starts() -> dict[bytes, bytes]:
    """14.3: the files of starts, by their names."""
    files = [path.read_bytes() for path in sorted((ROOT_FOLDER / "nvcodec/implicit/starts").glob("*.bin"))]
    return {hashlib.sha256(data).digest()[:START_BYTES]: specified(data, "starts") for data in files}


def read_start(name: bytes, program: Program) -> StartFile:
    """14.3 start_file()."""
    need(name in starts(), "unsupported", f"the start {name.hex()} is not known")
    data, nodes = starts()[name], program.of("conv")
    lengths = [(node.p["channels"], weights_a_channel(program, node)) for node in nodes]
    tensor_bytes = sum(1 + channels * (3 + n) for channels, n in lengths)
    count = data[tensor_bytes] if len(data) > tensor_bytes else 0
    whole = tensor_bytes + 2 + count * sum(channels * (1 + n) for channels, n in lengths)
    need(len(data) == whole, "syntax", "the start is of another program")
    r = Reader(data)

    def numbers(kind: str, count: int) -> Array:
        return np.frombuffer(r.take(np.dtype(kind).itemsize * count, "a start"), kind).astype(np.int64)

    tensors = {}
    for node, (channels, n) in zip(nodes, lengths, strict=True):
        bias_shift, exponent, bias = r.u8("a start"), numbers("<i2", channels), numbers("i1", channels)
        weight = numbers("i1", channels * n).reshape(channels, n)
        none = np.zeros((count, channels, n), np.int64)
        tensors[node.index] = StartTensors(bias_shift, exponent, bias, weight, none[:, :, 0].copy(), none)
    count, shift = r.u8("a start"), r.u8("a start")
    for d in range(count):
        for node, (channels, n) in zip(nodes, lengths, strict=True):
            tensors[node.index].bias_directions[d] = numbers("i1", channels)
            tensors[node.index].weight_directions[d] = numbers("i1", channels * n).reshape(channels, n)
    for found in tensors.values():
        in_range = found.bias_shift <= 15 and shift <= 15 and -256 <= found.exponent.min() <= found.exponent.max() <= 96
        least = min(
            array.min(initial=0) for array in (found.bias, found.weight, found.bias_directions, found.weight_directions)
        )
        need(in_range and least >= -127, "limit", "the start is of another program: a value out of its range")
    return StartFile(tensors, count, shift)


def implicit_units(program: Program, count: int, gop: int) -> list[list[tuple[int, int, list[int]]]]:
    """14.2."""
    if program.refers:
        return coding_units(count, gop)
    return [[(n, 0, []) for n in range(a, min(a + gop, count))] for a in range(0, count, gop)]


@dataclass
class LatentFrame:
    """What the symbols of a level of latents depend on, of one frame or slice (14.5)."""

    scales: Array  # of each channel
    before: Array | None  # the level before it
    mismatch: Array  # lg of the means, rows x columns
    activity: Array


class ImplicitDecoder:
    """14.1 entropy_coded_data(), 14.3 to 14.6."""

    def __init__(
        self,
        coder: RangeDecoder,
        program: Program,
        count: int,
        height: int,
        width: int,
        start: StartFile | None = None,
    ) -> None:
        self.coder, self.program, self.count = coder, program, count
        self.height, self.width, self.start = height, width, start
        self.code = np.zeros(0 if start is None else start.directions, np.int64)  # 14.3
        self.least_gain = [0] * (APPEARANCE_LEVELS + 1)
        self.net = starting_network(CONTEXT_WIDTH)
        self.machine = Machine(program, {})
        self.scale_lists: dict[int, Array] = {}  # by level: class x channel
        self.grids: dict[int, Array] = {}  # by level: slices x channels x rows x columns

    def decode(self, gop: int, predicts: bool = True) -> list[Planes]:
        if self.start is not None and self.start.directions:
            self.code = self.scaled(1, self.start.directions)[0]
        for node in self.program.of("conv"):
            self.machine.tensors[node.index] = self.conv_tensors(node) if self.start is None else self.changed(node)
        self.read_scale_lists()
        if self.program.of("residual"):
            self.least_gain = [self.coder.bits(6) for _ in self.least_gain]
        for node in self.program.by_level("grid"):
            self.grids[node.p["level"]] = np.stack(self.grid(node))
        states: dict[int, State] = {}
        outputs: dict[int, Planes] = {}
        units = implicit_units(self.program, self.count, gop)
        last_use = {x: u for u, unit in enumerate(units) for _, _, references in unit for x in references}
        for u, unit in enumerate(units):
            frames = [
                UnitFrame(n, depth, references, [states[x] for x in references], self.height, self.width, predicts)
                for n, depth, references in unit
            ]
            for f, stored in zip(frames, self.unit(frames), strict=True):
                states[f.number] = State(f.samples, f.fields, f.distances, stored)
                outputs[f.number] = sample_planes(f)
            states = {x: state for x, state in states.items() if last_use.get(x, -1) > u}
        self.coder.finish()
        return [outputs[n] for n in range(self.count)]

    # 14.1, 14.3

    def scales(self, n: int) -> Array:
        """14.1 scales(n)."""
        middle, differences = self.coder.bits(6), np.zeros(n, np.int64)
        if n > 1:
            differences = self.coder.run(np.full(n, 112))
        return clip3(0, 63, middle + differences)

    def scaled(self, rows: int, length: int) -> Array:
        """14.1 scaled(rows, length)."""
        return self.coder.run(np.repeat(4 * self.scales(rows), length)).reshape(rows, length)

    def conv_tensors(self, node: Node) -> Tensors:
        """14.3."""
        channels, n = node.p["channels"], weights_a_channel(self.program, node)
        kernel = node.p["kernel"]
        bias_shift, middle = self.coder.bits(4), self.coder.bits(9)
        exponent = middle - 256 + self.scaled(1, channels)[0]
        need(bool(((exponent >= -256) & (exponent <= 96)).all()), "limit", "an exponent is out of range")
        bias = self.scaled(1, channels)[0] << bias_shift
        weight = self.scaled(channels, n) if n >= 64 else self.scaled(1, channels * n)
        tensors = Tensors(weight.reshape(channels, -1, kernel, kernel), exponent, bias)
        check_tensors(tensors, self.program.largest)
        return tensors

    def changed(self, node: Node) -> Tensors:
        """14.1 conv_changes(node), 14.3."""
        assert self.start is not None
        start, kernel = self.start.nodes[node.index], node.p["kernel"]
        weight = clip3(-127, 127, tensor_change(self.coder, self.anchor(start.weight, start.weight_directions)))
        bias = clip3(-127, 127, tensor_change(self.coder, self.anchor(start.bias, start.bias_directions)))
        bias = bias << start.bias_shift
        tensors = Tensors(weight.reshape(len(weight), -1, kernel, kernel), start.exponent, bias)
        check_tensors(tensors, self.program.largest)
        return tensors

    def anchor(self, first: Array, directions: Array) -> Array:
        """14.3: a tensor of the start, moved by the code."""
        assert self.start is not None
        moved = np.tensordot(self.code, directions, 1)
        return clip3(-127, 127, first + (moved + (1 << self.start.shift >> 1) >> self.start.shift))

    # 14.4

    def read_scale_lists(self) -> None:
        """14.4 scale_lists()."""
        classes = 2 if self.program.refers else 1
        for node in self.program.by_level("latent") + self.program.by_level("grid"):
            channels = node.p["channels"]
            self.scale_lists[node.p["level"]] = self.scales(classes * channels).reshape(classes, channels)

    def grid(self, node: Node) -> list[Array]:
        """14.4: the slices of a grid."""
        zero = np.zeros(node.size[1:], np.int64)
        slices = [LatentFrame(self.scale_lists[node.p["level"]][0], None, zero, zero)] * node.p["slices"]
        return self.latent_level(node, slices)

    # 14.5

    def unit(self, frames: list[UnitFrame]) -> list[dict[int, Array]]:
        """14.5 implicit_unit(), 14.6: sets the samples and fields, gives the states of the frames."""
        if frames[0].references and self.program.moves:
            unit_motion(self.coder, self.net, frames)
            for f in frames:
                compensate(f)
        quantiser = self.coder.bits(6) if self.program.of("quantiser", "residual") else 0
        residuals: list[dict[int, Array]] = [{} for _ in frames]
        if self.program.of("residual"):
            appearance = appearance_levels(self.coder, frames, self.program.moves)
            residuals = [residual_of(f, g, self.least_gain, quantiser) for f, g in zip(frames, appearance, strict=True)]
        latents: list[dict[int, Array]] = [{} for _ in frames]
        before: list[Array | None] = [None for _ in frames]
        for node in self.program.by_level("latent"):
            described = [self.latent_frame(node, f, symbols) for f, symbols in zip(frames, before, strict=True)]
            levels = self.latent_level(node, described)
            for of_frame, symbols in zip(latents, levels, strict=True):
                of_frame[node.p["level"]] = symbols
            before = list(levels)
        return [
            self.frame(f, quantiser, of_frame, residual)
            for f, of_frame, residual in zip(frames, latents, residuals, strict=True)
        ]

    def latent_frame(self, node: Node, f: UnitFrame, before: Array | None) -> LatentFrame:
        """14.5: what the features and scales of a frame are made of."""
        lists = self.scale_lists[node.p["level"]]
        mismatch = activity = np.zeros(node.size[1:], np.int64)
        if f.references and self.program.moves:
            mismatch = lg(cell_means(abs(f.difference).sum(0), *node.size[1:]))
            activity = lg(cell_means(edge(f.prediction[0]), *node.size[1:]))
        return LatentFrame(lists[min(len(f.references), len(lists) - 1, 1)], before, mismatch, activity)

    def latent_level(self, node: Node, frames: list[LatentFrame]) -> list[Array]:
        """14.5 latent_level(frames): the symbols of a level."""
        levels = [np.zeros(node.size, np.int64) for _ in frames]
        used = [(f, level) for f, level in zip(frames, levels, strict=True) if self.coder.bits(1)]
        for stage in range(4 if used else 0):
            places, tables, locations = [], [], []
            for (f, level), c in product(used, range(node.size[0])):
                y0, x0 = next(place for place in PHASE if stage_of(c, *place) == stage)
                location, scale_index = self.location_and_scale(f, level, c, stage, y0, x0)
                places.append(level[c, y0::2, x0::2])
                locations.append(location)
                tables.append((4 * scale_index + location % 4).ravel())
            symbols, at = self.coder.run(np.concatenate(tables)), 0
            for place, location in zip(places, locations, strict=True):
                q = symbols[at : at + location.size].reshape(location.shape)
                place[...] = (q + (location >> 2) + 127) % 255 - 127
                at += location.size
        return levels

    def location_and_scale(
        self, f: LatentFrame, level: Array, c: int, stage: int, y0: int, x0: int
    ) -> tuple[Array, Array]:
        """14.5 and 12.4, for the samples (c, y0 + 2i, x0 + 2j)."""
        near, wide, cross, mean = neighbour_sums(level, c, stage, y0, x0)
        own = (slice(y0, None, 2), slice(x0, None, 2))
        features = [
            lg(near),
            lg(wide),
            lg(cross),
            mean,
            lg(abs(mean)),
            latent_parent(f.before, c, *level.shape[1:])[own],
            f.mismatch[own],
            f.activity[own],
        ]
        return context_output(self.net, features, stage, np.array([0, 16 * f.scales[c]]))

    # 14.6

    def frame(
        self, f: UnitFrame, quantiser: int, latents: dict[int, Array], residual: dict[int, Array]
    ) -> dict[int, Array]:
        """14.6: sets the samples and the fields after corrections, gives the states."""
        inputs = FrameInputs(f.number, self.count, f.depth, quantiser, latents, self.grids, residual=residual)
        inputs.places = list(f.references)
        inputs.states = [s.stored for s in f.states]
        if f.references and self.program.moves:
            inputs.vectors = list(f.fields)
            wanted = [node for node in self.program.of("correct") if node.p["slot"] < len(f.fields)]
            corrections = self.machine.run(wanted, inputs)
            for node in wanted:
                slot = node.p["slot"]
                f.fields[slot] = clip3(-2047, 2047, f.fields[slot] + corrections[node.index])
            if wanted:
                warp_and_blend(f)
            inputs.prediction, inputs.difference = f.prediction, f.difference
            inputs.pictures, inputs.final_vectors = f.warped, f.fields
        results = self.machine.run(self.program.of("samples", "store"), inputs)
        f.samples = samples_of(results[self.program.of("samples")[0].index], *f.working_size)
        return {node.p["index"]: results[node.index] for node in self.program.of("store")}


def latent_parent(before: Array | None, c: int, rows: int, columns: int) -> Array:
    """14.5, feature 5, at all places of a level of rows x columns."""
    if before is None:
        return np.zeros((rows, columns), np.int64)
    channels, height, width = before.shape
    m = np.pad(abs(before[min(c, channels - 1)]), 1)
    y, x = np.mgrid[:rows, :columns]
    y, x = y * height // rows + 1, x * width // columns + 1
    return lg(4 * (8 * m[y, x] + sum(m[y + i, x + j] for i, j in product((-1, 0, 1), repeat=2))))


def cell_means(a: Array, rows: int, columns: int) -> Array:
    """14.5 mean(a), at all places of a level of rows x columns."""
    sums = np.pad(a, ((1, 0), (1, 0))).cumsum(0).cumsum(1)  # of all samples above and to the left
    (top, bottom), (left, right) = (cells(*pair) for pair in zip(a.shape, (rows, columns), strict=True))
    top, bottom = top[:, None], bottom[:, None]
    total = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return np.asarray(total // ((bottom - top) * (right - left)))


def cells(size: int, count: int) -> tuple[Array, Array]:
    """14.5 first and behind, for n = 0 .. count - 1."""
    n = np.arange(count)
    first = np.minimum(n * size // count, size - 1)
    return first, np.minimum(np.maximum((n + 1) * size // count, first + 1), size)


# 14.7 Appearance levels


@lru_cache(maxsize=1)
def appearance_context() -> Network:
    """14.7: the tensors of the context model."""
    shapes = {
        "hidden.weight": (16, 8),
        "hidden.bias": (4, 16),
        "output.weight": (2, 16),
        "output.bias": (8, APPEARANCE_LEVELS, 2),
        "group.bias": (APPEARANCE_LEVELS, 4, 2),
    }
    data = specified((ROOT_FOLDER / "nvcodec/grid/contexts.bin").read_bytes(), "appearance context")
    elements, net, at = np.frombuffer(data, "<i2").astype(np.int64), {}, 0
    for name, shape in shapes.items():
        net[f"context.{name}"] = elements[at : at + math.prod(shape)].reshape(shape)
        at += math.prod(shape)
    need(at == len(elements), "syntax", "the context model of the appearance levels has another size")
    return net


def appearance_levels(coder: RangeDecoder, frames: list[UnitFrame], moves: bool) -> list[dict[int, Array]]:
    """14.7: of each frame its levels g[k]. ``moves``: whether the program does."""
    found: list[dict[int, Array]] = [{} for _ in frames]
    planes = []  # mismatch and activity, by prediction and difference before corrections
    for f in frames:
        mismatch = activity = np.zeros(f.working_size, np.int64)
        if f.references and moves:
            mismatch = abs(f.difference[:4]).sum(0)
            activity = np.sum([edge(f.prediction[c]) for c in range(4)], axis=0)
        planes.append((mismatch, activity))
    for k in reversed(range(APPEARANCE_LEVELS)):
        h, w = frames[0].working_size
        shape = (APPEARANCE_CHANNELS[k], half(h, k), half(w, k))
        for g in found:
            g[k] = np.zeros(shape, np.int64)
        used = [n for n in range(len(frames)) if coder.bits(1)]
        sides = {n: [lg(pool(plane, k)) for plane in planes[n]] for n in used}
        for stage in range(4 if used else 0):
            places, tables, locations = [], [], []
            for n, c in product(used, range(shape[0])):
                y0, x0 = next(place for place in PHASE if stage_of(c, *place) == stage)
                location, scale_index = appearance_context_of(found[n], k, c, stage, y0, x0, sides[n], frames[n].depth)
                places.append(found[n][k][c, y0::2, x0::2])
                locations.append(location)
                tables.append((4 * scale_index + location % 4).ravel())
            symbols, at = coder.run(np.concatenate(tables)), 0
            for place, location in zip(places, locations, strict=True):
                q = symbols[at : at + location.size].reshape(location.shape)
                place[...] = (q + (location >> 2) + 127) % 255 - 127
                at += location.size
    return found


def appearance_context_of(
    g: dict[int, Array], k: int, c: int, stage: int, y0: int, x0: int, side: list[Array], depth: int
) -> tuple[Array, Array]:
    """14.7: location and scale of the samples (c, y0 + 2i, x0 + 2j) of level k."""
    near, wide, cross, mean = neighbour_sums(g[k], c, stage, y0, x0, bands_related)
    own = (slice(y0, None, 2), slice(x0, None, 2))
    above = parent_of(g.get(k + 1), c, *g[k].shape[1:])
    features = [lg(near), lg(wide), lg(cross), mean, lg(abs(mean)), above[own], side[0][own], side[1][own]]
    net = appearance_context()
    bias = net["context.output.bias"][depth, k] + net["context.group.bias"][k, c // 3]
    return context_output(net, features, stage, bias)


# 14.8 Residual

MAX_BAND, MAX_RESIDUAL = 14336, 1023
LOW = ((0, -21, 404, -21, 0), (0, -33, 214, 214, -33))
HIGH = ((12, -193, -193, 12, 0), (19, -57, 437, -57, 19))


def mirror(t: int, n: int) -> int:
    """14.8 mirror(t, n)."""
    t = t % (2 * n - 2) if n > 1 else 0
    return min(t, 2 * n - 2 - t)


def merge(low: Array, high: Array, n: int) -> Array:
    """14.8 merge(), of the last axis of two arrays."""
    out = np.zeros((*low.shape[:-1], n), np.int64)
    for t in range(n):
        i, p = divmod(t, 2)
        a = sum(
            LOW[p][j] * low[..., mirror(2 * (i + j - 2), n) >> 1]
            + HIGH[p][j] * high[..., mirror(2 * (i + j - 2) + 1, n) >> 1]
            for j in range(5)
        )
        out[..., t] = clip3(-MAX_BAND, MAX_BAND, round2(a, 9))
    return out


def synthesise_level(low: Array, bands: list[Array], rows: int, columns: int) -> Array:
    """14.8."""
    upper = merge(low, bands[0], columns)
    lower = merge(bands[1], bands[2], columns)
    return merge(upper.T, lower.T, rows).T


def residual_of(f: UnitFrame, g: dict[int, Array], least_gain: list[int], quantiser: int) -> dict[int, Array]:
    """14.8: what the node residual of each level gives."""
    (h, w), index = f.working_size, [max(least, quantiser) for least in least_gain]

    def amplitude(q: Array, p: int, k: int) -> Array:
        gain = gains()[index[k] if p == 0 else max(index[k] - 4, 0)]
        return clip3(-MAX_BAND, MAX_BAND, q * gain)

    image = {4: [amplitude(g[4][9 + p], p, 5) for p in range(3)]}
    for k in (4, 3, 2, 1):
        image[k - 1] = [
            synthesise_level(
                image[k][p], [amplitude(g[k][3 * p + b], p, k) for b in range(3)], half(h, k - 1), half(w, k - 1)
            )
            for p in range(3)
        ]
    top = synthesise_level(image[0][0], [amplitude(g[0][b], 0, 0) for b in range(3)], 2 * h, 2 * w)
    found = {0: np.concatenate([pack(top), np.stack(image[0][1:])])}
    for k in (1, 2, 3, 4):
        found[k] = np.stack([round2(image[k][p], k + 1 if p == 0 else k) for p in range(3)])
    return {k: clip3(-MAX_RESIDUAL, MAX_RESIDUAL, value) for k, value in found.items()}


# ---------------------------------------------------------------- command


def y4m_header(head: dict[str, int]) -> str:
    rate = math.gcd(head["time_base_den"], head["time_base_num"] * head["frame_duration"])
    rate_num = head["time_base_den"] // rate
    rate_den = head["time_base_num"] * head["frame_duration"] // rate
    chroma = {1: "420mpeg2", 3: "420paldv"}.get(head["chroma_location"], "420jpeg")
    if head["bit_depth_minus8"]:
        chroma = "420p10 XYSCSS=420P10"
    sar = f"{head['sar_num']}:{head['sar_den'] if head['sar_num'] else 0}"
    words = [f"W{head['width']}", f"H{head['height']}", f"F{rate_num}:{rate_den}", "Ip", f"A{sar}", f"C{chroma}"]
    if head["color_range"]:
        words.append(f"XCOLORRANGE={('LIMITED', 'FULL')[head['color_range'] - 1]}")
    return "YUV4MPEG2 " + " ".join(words) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Decode a .cwrv file by the letter of its specification; slow.")
    parser.add_argument("file", type=Path)
    parser.add_argument("-o", "--output", type=Path, metavar="OUT.y4m", help="write the frames (constant frame rate)")
    parser.add_argument("--hash", action="store_true", help="print only the BLAKE2b hash of all frames")
    parser.add_argument("--max-level", type=int, default=4, metavar="N", help="refuse higher levels (default: 4)")
    options = parser.parse_args(arguments)
    try:
        reader = Reader(options.file.read_bytes())
        stream = read_stream(reader, options.max_level)
        frames = list(decode_segments(reader, stream))
        if options.output:
            with options.output.open("wb") as out:
                out.write(y4m_header(stream.head).encode())
                for planes in frames:
                    out.write(b"FRAME\n" + b"".join(plane.tobytes() for plane in planes))
    except (DecodeError, OSError, MemoryError) as error:
        print(f"{options.file}: {error or 'out of memory'}", file=sys.stderr)
        return 1
    digest = frame_hash(frames).hex()
    head = stream.head
    print(digest if options.hash else f"{len(frames)} frames of {head['width']}x{head['height']}, hash {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
