"""The reference decoder's exact machine and implicit segments, by values made by hand and by files of its own."""

import random
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
import reference_basics as basics
import reference_decoder as reference
import reference_machine as machine
import zstandard

PICTURE = machine.Picture(h=10, w=17, bh=3, bw=5)
CODES = {operation.name: code for code, operation in machine.OPERATIONS.items()}
Written = tuple[str, dict[str, int], list[int]]  # operation, parameters, operands (node numbers)


def leb(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(128 | (value & 127))
        value >>= 7
    return bytes([*out, value])


def assemble(nodes: Sequence[Written], bits: int = 12) -> bytes:
    """13.1 program()."""
    out = bytes([bits]) + leb(len(nodes))
    for i, (name, parameters, operands) in enumerate(nodes):
        operation = machine.OPERATIONS[CODES[name]]
        out += bytes([CODES[name]]) + (leb(len(operands)) if operation.operands is None else b"")
        out += b"".join(leb(parameters[key] - low) for key, low, _ in operation.parameters)
        out += b"".join(leb(i - j) for j in operands)
    return out


def checked(nodes: Sequence[Written], bits: int = 12) -> machine.Program:
    program = machine.parse_program(assemble(nodes, bits))
    machine.check_program(program, PICTURE)
    return program


def array(values: object) -> basics.Array:
    return np.array(values, np.int64)


def noise(seed: int, *size: int, largest: int = 2047) -> basics.Array:
    return np.random.default_rng(seed).integers(-largest, largest + 1, size)


# 13.3


def test_tables() -> None:
    """Each is compared with the hash in the specification when it is made."""
    assert machine.scales() == (16384, 17867, 19484, 21247, 23170, 25268, 27554, 30048)
    for name in ("GELU", "ROOT", "SIGMOID", "SINE", "TANH"):
        assert len(machine.function_table(name)) == {"ROOT": 768, "SINE": 257}.get(name, 1025)


# 13.4, by hand


def test_conv() -> None:
    tensors = machine.Tensors(array([[[[1, 2, 3], [4, 5, 6], [7, 8, 9]]]]), array([0]), array([10]))
    x = array([[[1, 0], [0, 2]]])
    # (0, 0): 5 * 1 + 9 * 2; (0, 1): 4 * 1 + 8 * 2; (1, 0): 2 * 1 + 6 * 2; (1, 1): 1 * 1 + 5 * 2
    assert machine.conv(x, tensors, 1).tolist() == [[[33, 30], [24, 21]]]
    tensors.exponent = array([-9])  # -9 = 8 * -2 + 7: times 30048 / 2^16
    expected = [(v * 30048 + 2**15 >> 16) + 10 for v in (23, 20, 14, 11)]
    assert machine.conv(x, tensors, 1).ravel().tolist() == expected
    grouped = machine.Tensors(array([[[[1]]], [[[2]]], [[[3]]], [[[4]]]]), array([8, 8, 0, 0]), array([0, 0, 0, -1]))
    assert machine.conv(array([[[5]], [[-7]]]), grouped, 2).ravel().tolist() == [10, 20, -21, -29]


def test_elements() -> None:
    row, column = array([[[1, -3, 5]]]), array([[[10], [-20]]])
    assert machine.add(row, column, 1, 0, 1).tolist() == [[[6, 2, 10], [-9, -13, -5]]]
    assert machine.multiply(row, column, 2).tolist() == [[[3, -7, 13], [-5, 15, -25]]]
    assert machine.rescale(array([3, -3, 2, -2]), 0, 2).tolist() == [1, -1, 1, 0]
    assert machine.rescale(array([3, -3]), 4, 0).tolist() == [48, -48]


def test_functions() -> None:
    x = array([-4096, -512, 0, 3, 512, 4096])
    assert machine.table(x, 5, 0, 0).tolist() == [0, 0, 0, 3, 512, 4096]
    assert machine.table(x, 4, 0, 0).tolist() == [-512, -64, 0, 3, 512, 4096]
    # with 8 fraction bits: -16, -2, 0, 0.012, 2, 16
    gelu = [round(v * 2**8) for v in (0, -0.0455, 0, 3 / 256 / 2, 1.9545, 16)]
    assert machine.table(x, 0, 8, 8).tolist() == gelu
    assert machine.table(x, 1, 8, 14).tolist() == [5, 1953, 8192, 8240, 14431, 16379]
    assert machine.table(x, 2, 8, 14).tolist() == [-16384, -15795, 0, 192, 15795, 16384]
    # turns of 2^8: 0, a quarter, a half, three quarters, one and 1 / 256
    turns = array([0, 64, 128, 192, 257])
    assert machine.table(turns, 3, 8, 14).tolist() == [0, 16384, 0, -16384, 402]
    assert machine.table(array([1]), 3, 9, 14).tolist() == [201]  # half way between two entries


def test_order() -> None:
    x = array([[[1]], [[2]], [[3]], [[4]]])
    assert machine.shuffle(x, 2).tolist() == [[[1, 2], [3, 4]]]
    assert machine.unshuffle(machine.shuffle(x, 2), 2).tolist() == x.tolist()
    assert machine.upsample(array([[[1, 2]]]), 2, 0).tolist() == [[[1, 1, 2, 2], [1, 1, 2, 2]]]
    assert machine.upsample(array([[[0, 8]]]), 2, 1).tolist() == [[[0, 2, 6, 8]] * 2]
    assert machine.upsample(array([[[0, -7]]]), 2, 1).tolist() == [[[0, -2, -5, -7]] * 2]  # -1.75, -5.25
    assert machine.slice_channels(x, 1, 2).ravel().tolist() == [2, 3]


def test_norm() -> None:
    """d = 4, -4 and q = 32, k = 2: 32 << 4 is 512, and ROOT[256] = 2^15 / sqrt(2), isqrt(2 * 2^20) = 1448."""
    assert machine.function_table("ROOT")[256] == 23170
    expected = (4 * 23170 * 1448 + 2**18 >> 19, -4 * 23170 * 1448 + 2**18 >> 19)
    assert machine.norm(array([[[3]], [[-1]]]), 8).ravel().tolist() == list(expected) == [256, -256]
    assert machine.norm(array([[[7]], [[7]]]), 8).ravel().tolist() == [0, 0]


def test_floor_log2() -> None:
    values = [v for n in range(62) for v in (2**n, 2 ** (n + 1) - 1)]
    assert machine.floor_log2(array(values)).tolist() == [v.bit_length() - 1 for v in values]


@pytest.mark.parametrize("b", [0, 1, 2, 3])
def test_warp(b: int) -> None:
    """By the letter, element by element."""
    x, v = noise(b, 2, 9, 7), noise(b + 10, 2, *((9, 7), (5, 4), (3, 2), (2, 1))[b], largest=70)
    own = {1: (7, 7), 2: (6, 8, 8, 6), 3: (5, 6, 7, 8, 8, 7, 6, 5)}

    def point(c: int, y: int, q: int, vector: basics.Array) -> int:
        i, f = divmod(16 * y + int(vector[0]), 16)
        j, g = divmod(16 * q + int(vector[1]), 16)
        at = [(min(max(i + k, 0), 8), min(max(j + m, 0), 6)) for k, m in product((0, 1), repeat=2)]
        weights = (16 - f) * (16 - g), (16 - f) * g, f * (16 - g), f * g
        return sum(w * int(x[c, r, s]) for w, (r, s) in zip(weights, at, strict=True))

    def places(n: int, count: int) -> list[tuple[int, int]]:
        first, s = own[b][n % 2**b], 2**b
        beside = (n >> b) - 1 if 2 * (n % s) < s else (n >> b) + 1
        return [(first, n >> b), (8 - first, min(max(beside, 0), count - 1))]

    out = machine.warp_sixteenths(x, v, b)
    for c, y, q in product(range(2), range(9), range(7)):
        if b == 0:
            expected = (point(c, y, q, v[:, y, q]) + 128) >> 8
        else:
            pairs = product(places(y, v.shape[1]), places(q, v.shape[2]))
            expected = (sum(m * n * point(c, y, q, v[:, i, j]) for (m, i), (n, j) in pairs) + 2**13) >> 14
        assert out[c, y, q] == expected


def test_inputs() -> None:
    grid = array([[[[0]]], [[[10]]], [[[-20]]]])
    values = [int(machine.between_slices(grid, t, 5).item()) for t in range(5)]
    assert values == [0, 5, 10, -5, -20]
    assert machine.between_slices(grid, 0, 1).item() == 0
    assert machine.frequencies(3, 384) == [256, 384, 576]
    # 256 * 1 * 128 // 4 = 8192 of 65536, an eighth of a turn; the second half a quarter on
    assert machine.phases(1, 256, 1, 4, 16).ravel().tolist() == [8192, 24576]
    assert machine.phases(1, 256, 3, 4, 12).ravel().tolist() == [24576 >> 4, -24576 >> 4]
    assert machine.coordinates(2, 1, 8).ravel().tolist() == [-64, 64, 0, 0]


# 13.1, 13.2

SMALL: list[Written] = [
    ("latent", {"level": 0, "channels": 24, "rows": 5, "columns": 9, "gain": 3}, []),
    ("conv", {"channels": 24, "kernel": 3, "groups": 1}, [0]),
    ("shuffle", {"factor": 2}, [1]),
    ("samples", {}, [2]),
]


def changed(at: int, *node: object) -> list[Written]:
    return [*SMALL[:at], node, *SMALL[at + 1 :]]  # type: ignore[list-item]


def residual(level: int) -> Written:
    return "residual", {"level": level}, []


def latent(level: int, channels: int = 1, rows: int = 1, columns: int = 1) -> Written:
    return "latent", {"level": level, "channels": channels, "rows": rows, "columns": columns, "gain": 0}, []


FAULTY: dict[str, tuple[list[Written], str]] = {
    "even kernel": (changed(1, "conv", {"channels": 24, "kernel": 2, "groups": 1}, [0]), "syntax"),
    "large kernel": (changed(1, "conv", {"channels": 24, "kernel": 11, "groups": 1}, [0]), "limit"),
    "groups": (changed(1, "conv", {"channels": 24, "kernel": 1, "groups": 5}, [0]), "syntax"),
    "channels of shuffle": (changed(2, "shuffle", {"factor": 5}, [1]), "syntax"),
    "too small": (changed(2, "rescale", {"left": 0, "shift": 0}, [1]), "syntax"),
    "level": (changed(0, *latent(1, 24, 5, 9)), "syntax"),
    "no samples": ([*SMALL[:3], ("store", {"index": 0}, [2])], "syntax"),
    "two samples": ([*SMALL, ("samples", {}, [2])], "syntax"),
    "unread": ([latent(1), *SMALL], "syntax"),
    "itself": (changed(2, "shuffle", {"factor": 2}, [2]), "syntax"),
    "end as operand": ([*SMALL, ("store", {"index": 0}, [3])], "syntax"),
    "two stores": ([*SMALL, ("store", {"index": 0}, [2]), ("store", {"index": 0}, [1])], "syntax"),
    "slice": ([*SMALL, ("slice", {"start": 3, "channels": 22}, [1]), ("store", {"index": 0}, [4])], "syntax"),
    "state": (
        [
            ("state", {"slot": 0, "index": 0, "channels": 6, "rows": 10, "columns": 17}, []),
            ("samples", {}, [0]),
            ("slice", {"start": 0, "channels": 5}, [0]),
            ("store", {"index": 0}, [2]),
        ],
        "syntax",
    ),
    "absent store": (
        [
            ("state", {"slot": 0, "index": 0, "channels": 6, "rows": 10, "columns": 17}, []),
            ("samples", {}, [0]),
            ("store", {"index": 1}, [0]),
        ],
        "syntax",
    ),
    "correction of itself": (
        [*SMALL, ("vectors", {"slot": 0, "final": 1}, []), ("correct", {"slot": 0}, [4])],
        "syntax",
    ),
    "frequencies": ([*SMALL, ("phases", {"count": 60, "base": 512}, []), ("store", {"index": 0}, [4])], "syntax"),
    "elements": (
        [
            *SMALL,
            ("upsample", {"factor": 32, "bilinear": 0}, [1]),
            ("upsample", {"factor": 32, "bilinear": 0}, [4]),
            ("store", {"index": 0}, [5]),
        ],
        "limit",
    ),
    "side": (
        [latent(0, 6, 16384, 3), ("upsample", {"factor": 8, "bilinear": 0}, [0]), ("samples", {}, [1])],
        "limit",
    ),
    "latents": ([latent(0, 24, 128, 256), ("shuffle", {"factor": 2}, [0]), ("samples", {}, [1])], "limit"),
    "weights": (
        [
            ("latent", {"level": 0, "channels": 64, "rows": 1, "columns": 1, "gain": 0}, []),
            ("conv", {"channels": 4096, "kernel": 1, "groups": 1}, [0]),
            ("conv", {"channels": 4096, "kernel": 3, "groups": 1}, [1]),
            ("conv", {"channels": 1536, "kernel": 1, "groups": 1}, [2]),
            ("reshape", {"channels": 6, "rows": 16, "columns": 16}, [3]),
            ("fit", {"rows": 10, "columns": 16}, [4]),
            ("upsample", {"factor": 2, "bilinear": 0}, [5]),
            ("samples", {}, [6]),
        ],
        "limit",
    ),
    "level of a residual": ([*SMALL, residual(5), ("store", {"index": 0}, [4])], "limit"),
    "unread residual": ([*SMALL, residual(0)], "syntax"),
    "many nodes": ([SMALL[0], *[("rescale", {"left": 0, "shift": 0}, [i]) for i in range(512)]], "limit"),
}


def test_small_program() -> None:
    assert [node.size for node in checked(SMALL).nodes] == [(24, 5, 9), (24, 5, 9), (6, 10, 18), (6, 10, 18)]


@pytest.mark.parametrize("name", FAULTY)
def test_faulty_program(name: str) -> None:
    nodes, error = FAULTY[name]
    with pytest.raises(basics.DecodeError, match=f"^{error}: "):
        checked(nodes)


def test_damaged_program() -> None:
    data = assemble(SMALL)
    for damaged, error in (
        (data + b"\0", "syntax"),
        (data[:-1], "truncated"),
        (b"\7" + data[1:], "limit"),
        (b"\21" + data[1:], "limit"),
        (data[:1] + b"\0", "limit"),
        (data[:2] + b"\17" + data[3:], "unsupported"),
    ):
        with pytest.raises(basics.DecodeError, match=f"^{error}: "):
            machine.parse_program(damaged)
    with_dictionary = packed_with_dictionary(data)
    for section, error in (
        (b"", "syntax"),
        (packed(b""), "limit"),
        (packed(bytes(16385)), "limit"),
        (packed_with_dictionary(bytes(16385)), "limit"),
        (b"\1", "syntax"),
        (b"\1" + packed(data), "syntax"),
        (b"\2" + with_dictionary[1:], "syntax"),
        (with_dictionary[1:], "syntax"),
        (with_dictionary[:-1], "syntax"),
        (with_dictionary + b"\0", "syntax"),
    ):
        with pytest.raises(basics.DecodeError, match=f"^{error}: "):
            machine.parse_program_section(section)


def test_section_with_dictionary() -> None:
    """A program whose bytes stand in the dictionary takes fewer of them; what is coded without it means the same."""
    data = assemble(SMALL)
    assert machine.parse_program_section(packed_with_dictionary(data)).nodes == machine.parse_program(data).nodes
    common = basics.programs_dictionary()[-64:]
    section = packed_with_dictionary(common)
    assert len(section) < 20
    assert basics.decompress_with_dictionary(section[1:], 1, 64) == common
    frame = zstandard.ZstdCompressor().compress(data)[4:]
    assert basics.decompress_with_dictionary(frame, 1, 100) == data


def test_bounds_of_convolutions() -> None:
    def tensors(weight: int, exponent: int = 0) -> machine.Tensors:
        return machine.Tensors(array([[[[weight]]]]), array([exponent]), array([0]))

    machine.check_tensors(tensors(-65536), 2**15 - 1)  # 2^31 - 2^16
    machine.check_tensors(tensors(2**17 - 1, 96), 2047)
    for value, largest, exponent in ((65539, 2**15 - 1, 0), (2**17, 2047, 0), (1, 2047, 97), (1, 2047, -257)):
        with pytest.raises(basics.DecodeError, match=r"^limit: "):
            machine.check_tensors(tensors(value, exponent), largest)


# Whole files. Their symbols are drawn while they are decoded, and then coded.


class Drawing(reference.RangeDecoder):
    """Draws symbols instead of reading them; numbers of b(n) from ``ranges``."""

    def __init__(self, seed: int, ranges: dict[int, tuple[int, int]]) -> None:
        super().__init__(b"")
        self.random, self.ranges, self.drawn = random.Random(seed), ranges, list[tuple[int, int]]()

    def decode(self, cum: list[int]) -> int:
        return self.put(cum, bisect_right(cum, self.random.randrange(2**24)) - 1)

    def put(self, cum: list[int], q: int) -> int:
        self.drawn.append((cum[q], cum[q + 1]))
        return q

    def bits(self, n: int) -> int:
        value = self.random.randint(*self.ranges.get(n, (0, 2**n - 1)))
        for i in range(n - 1, -1, -1):
            self.put([0, 2**23, 2**24], value >> i & 1)
        return value

    def finish(self) -> None:
        pass

    def coded(self) -> bytes:
        """11.4 Encoder."""
        lower, size, words = 0, 2**64 - 1, 1
        for low, high in self.drawn:
            unit = size >> 24
            lower, size = lower + unit * low, unit * (high - low)
            if size < 2**32:
                lower, size, words = lower << 32, size << 32, words + 1
        number = (lower + 2**32 - 1) >> 32
        return b"".join((number >> 32 * i & 0xFFFFFFFF).to_bytes(4, "little") for i in range(words - 1, -1, -1))


def packed(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def packed_with_dictionary(data: bytes) -> bytes:
    """13.1: without the magic number, behind a byte of 1."""
    raw = zstandard.ZstdCompressionDict(basics.programs_dictionary(), dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return b"\1" + zstandard.ZstdCompressor(19, dict_data=raw).compress(data)[4:]


def drawn_start(program: bytes, seed: int, directions: int = 0, shift: int = 0) -> bytes:
    """14.3 start_file() for a program."""
    parsed = machine.parse_program(program)
    machine.check_program(parsed, PICTURE)
    draw, out, size = random.Random(seed), b"", 0
    for node in parsed.of("conv"):
        channels, n = node.p["channels"], machine.weights_a_channel(parsed, node)
        size += channels * (1 + n)
        out += bytes([draw.randrange(4)])
        out += b"".join(draw.randint(-40, 0).to_bytes(2, "little", signed=True) for _ in range(channels))
        out += bytes(draw.randint(-127, 127) & 255 for _ in range(channels))
        out += bytes(draw.choice((0, 0, draw.randint(-127, 127))) & 255 for _ in range(channels * n))
    return out + bytes([directions, shift]) + bytes(draw.randint(-127, 127) & 255 for _ in range(directions * size))


def file_of(
    program: bytes, height: int, width: int, gop: int, count: int, seed: int, start: bytes = b""
) -> tuple[bytes, str]:
    """A file of one implicit segment with drawn symbols, and the hash of its frames. ``start``: name of a start."""
    head = bytes([1]) + leb(width) + leb(height) + b"\x40" + leb(count) + bytes.fromhex("01 01 19 01 00 01 02 02 02 00")
    parsed = machine.parse_program(program)
    machine.check_program(parsed, reference.picture_of({"level": 1, "width": width, "height": height}))
    coder = Drawing(seed, {9: (208, 264), 6: (8, 40), 4: (0, 3)})
    tensors = reference.read_start(start, parsed) if start else None
    made = reference.ImplicitDecoder(coder, parsed, count, height, width, tensors).decode(gop)
    frames = [reference.output_planes(samples, 8) for samples in made]
    segment = bytes([0x20 if start else 0x10]) + leb(gop) + start + coder.coded() + reference.frame_hash(frames)
    section_bytes = 1 + len(leb(len(segment))) + len(segment) + 4
    data = reference.SIGNATURE + b"\6\0"
    parts = ((1, head), (2, leb(count) + leb(section_bytes)), (4, packed(program)), (3, segment), (0x7F, b""))
    for kind, payload in parts:
        section = bytes([kind]) + leb(len(payload)) + payload
        data += section + zlib.crc32((data if kind == 1 else b"") + section).to_bytes(4, "little")
    return data, reference.frame_hash(frames).hex()


def decoded(data: bytes) -> str:
    reader = basics.Reader(data)
    stream = reference.read_stream(reader, 6)
    return reference.frame_hash(list(reference.decode_segments(reader, stream))).hex()


FULL: list[Written] = [
    ("latent", {"level": 1, "channels": 5, "rows": 5, "columns": 9, "gain": 5}, []),  # 0
    ("latent", {"level": 0, "channels": 2, "rows": 3, "columns": 5, "gain": 4}, []),
    ("grid", {"level": 2, "slices": 3, "channels": 2, "rows": 3, "columns": 5, "gain": 3}, []),
    ("time", {}, []),
    ("phases", {"count": 4, "base": 600}, []),
    ("coordinates", {"rows": 5, "columns": 9}, []),  # 5
    ("prediction", {}, []),
    ("difference", {}, []),
    ("picture", {"slot": 1}, []),
    ("vectors", {"slot": 0, "final": 0}, []),
    ("vectors", {"slot": 1, "final": 1}, []),  # 10
    ("state", {"slot": 0, "index": 3, "channels": 4, "rows": 5, "columns": 9}, []),
    ("presence", {"slot": 1}, []),
    ("distance", {"slot": 0}, []),
    ("depth", {}, []),
    ("quantiser", {}, []),  # 15
    ("add", {"left": 0, "right": 0, "shift": 0}, [1, 9]),
    ("conv", {"channels": 2, "kernel": 3, "groups": 2}, [16]),
    ("correct", {"slot": 0}, [17]),
    ("concat", {}, [3, 4, 12, 13, 14, 15]),
    ("conv", {"channels": 16, "kernel": 1, "groups": 1}, [19]),  # 20
    ("table", {"function": 3, "fraction_in": 10, "fraction_out": 10}, [20]),
    ("upsample", {"factor": 2, "bilinear": 1}, [2]),
    ("fit", {"rows": 5, "columns": 9}, [22]),
    ("rescale", {"left": 2, "shift": 0}, [10]),
    ("warp", {"block_log2": 1}, [11, 24]),  # 25
    ("concat", {}, [0, 5, 23, 25]),
    ("conv", {"channels": 16, "kernel": 3, "groups": 1}, [26]),
    ("norm", {"fraction": 8}, [27]),
    ("add", {"left": 0, "right": 0, "shift": 0}, [28, 21]),
    ("table", {"function": 0, "fraction_in": 8, "fraction_out": 8}, [29]),  # 30
    ("slice", {"start": 3, "channels": 4}, [30]),
    ("store", {"index": 3}, [31]),
    ("conv", {"channels": 24, "kernel": 5, "groups": 8}, [30]),
    ("shuffle", {"factor": 2}, [33]),
    ("fit", {"rows": 10, "columns": 17}, [34]),  # 35
    ("concat", {}, [6, 7, 8]),
    ("conv", {"channels": 6, "kernel": 3, "groups": 1}, [36]),
    ("table", {"function": 1, "fraction_in": 8, "fraction_out": 8}, [37]),
    ("multiply", {"shift": 8}, [35, 38]),
    ("add", {"left": 0, "right": 0, "shift": 0}, [39, 6]),  # 40
    ("residual", {"level": 0}, []),
    ("residual", {"level": 1}, []),
    ("fit", {"rows": 3, "columns": 5}, [42]),
    ("conv", {"channels": 2, "kernel": 1, "groups": 1}, [43]),
    ("correct", {"slot": 1}, [44]),  # 45
    ("add", {"left": 0, "right": 0, "shift": 0}, [40, 41]),
    ("samples", {}, [46]),
]
STILL: list[Written] = [
    ("residual", {"level": 0}, []),
    ("residual", {"level": 4}, []),
    ("conv", {"channels": 6, "kernel": 1, "groups": 3}, [1]),
    ("fit", {"rows": 10, "columns": 17}, [2]),
    ("add", {"left": 0, "right": 0, "shift": 0}, [0, 3]),
    ("samples", {}, [4]),
]


PROGRAMS = {"refers": FULL, "alone": SMALL, "still": STILL}


@pytest.mark.parametrize(
    ("name", "gop", "count"), [("refers", 4, 6), ("refers", 64, 1), ("alone", 2, 3), ("still", 2, 3)]
)
def test_file(name: str, gop: int, count: int) -> None:
    data, expected = file_of(assemble(PROGRAMS[name]), 20, 34, gop, count, gop)
    assert decoded(data) == expected


def test_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """14.3, by hand: what a file holds, and which names and sizes are refused."""
    program = machine.parse_program(assemble(STILL))
    machine.check_program(program, PICTURE)
    exponents, biases, weights = range(-3, 3), range(-6, 6, 2), range(120, 126)
    data = b"\5" + b"".join(e.to_bytes(2, "little", signed=True) for e in exponents)
    data += bytes(b & 255 for b in biases) + bytes(weights)
    data += bytes([2, 3]) + bytes(range(24))
    monkeypatch.setattr(reference, "starts", lambda: {b"good": data, b"long": data + b"\0", b"less": data[:-1]})
    found = reference.read_start(b"good", program)
    assert (found.directions, found.shift) == (2, 3)
    (tensors,) = found.nodes.values()
    assert tensors.bias_shift == 5
    assert tensors.exponent.tolist() == list(exponents)
    assert tensors.bias.tolist() == list(biases)
    assert tensors.weight.tolist() == [[w] for w in weights]
    assert tensors.bias_directions.tolist() == [list(range(6)), list(range(12, 18))]
    assert tensors.weight_directions[..., 0].tolist() == [list(range(6, 12)), list(range(18, 24))]
    for name, error in ((b"none", "unsupported"), (b"long", "syntax"), (b"less", "syntax")):
        with pytest.raises(basics.DecodeError, match=f"^{error}: "):
            reference.read_start(name, program)


def test_changes_of_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are added to where the code leads from the start, and clipped both times."""
    program = machine.parse_program(assemble(STILL))
    machine.check_program(program, PICTURE)
    (node,) = program.of("conv")
    weight, bias = array([[120], [-120], [5], [6], [7], [8]]), array([1, 2, 3, 4, 5, 127])
    first = array([[0, 0, 0, 2, 0, -2], [0, 0, 1, 0, 0, 0]])[:, :, None], array([[1] * 6, [0, 0, 0, 0, 0, 1]])
    tensors = reference.StartTensors(3, array([0] * 6), bias, weight, first[1], first[0])
    start = reference.StartFile({node.index: tensors}, 2, 1)
    changes = iter([array([[16], [-16], [8], [0], [-8], [0]]), array([0, 0, 0, 0, 0, -3])])
    monkeypatch.setattr(reference, "tensor_change", lambda coder, tensor: tensor + next(changes))
    decoder = reference.ImplicitDecoder(reference.RangeDecoder(b""), program, 1, 20, 34, start)
    decoder.code = array([3, -1])  # by halves, rounded up: weights 0 0 0 3 0 -3 with 0 0 0 0 0 0, biases 2, the last 1
    made = decoder.changed(node)
    assert made.weight.ravel().tolist() == [127, -127, 13, 9, -1, 5]
    assert made.bias.tolist() == [24, 32, 40, 48, 56, 992]


# 14.7, 14.8


def test_mirror() -> None:
    assert [reference.mirror(t, 5) for t in range(-5, 10)] == [3, 4, 3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1, 0, 1]
    assert [reference.mirror(t, 2) for t in range(-2, 4)] == [0, 1, 0, 1, 0, 1]
    assert [reference.mirror(t, 1) for t in range(-4, 6)] == [0] * 10


def test_merge() -> None:
    """The letter of 14.8 at some places, and what a line of one value becomes: times the root of two, or nearly."""
    low, high = noise(1, 4, largest=900), noise(2, 4, largest=900)
    out = reference.merge(low, high, 7)
    total = -21 * low[1] + 404 * low[0] - 21 * low[1] + 12 * high[1] - 193 * high[0] - 193 * high[0] + 12 * high[1]
    assert out[0] == (total + 256) >> 9
    # around place 5: place 8 of low is mirrored to 4, places 7 and 9 of high to 5 and 3
    total = -33 * low[1] + 214 * low[2] + 214 * low[3] - 33 * low[2]
    total += 19 * high[0] - 57 * high[1] + 437 * high[2] - 57 * high[2] + 19 * high[1]
    assert out[5] == (total + 256) >> 9
    for n in (1, 2, 5, 8):
        flat = reference.merge(np.full((n + 1) // 2, 1000), np.zeros((n + 1) // 2, np.int64), n)
        assert set(flat.tolist()) <= {707}
    # filters add up to 362 and -362 at even places, 362 and 361 at odd ones
    assert reference.merge(array([14336]), array([-14336]), 2).tolist() == [14336, 28]


def test_residual() -> None:
    """Means alone are flat, in the measure of samples at every level; gains of chroma are half an octave finer."""
    frame = reference.UnitFrame(0, 0, [], [], 35, 50)
    h, w = frame.working_size
    sizes = [(reference.APPEARANCE_CHANNELS[k], reference.half(h, k), reference.half(w, k)) for k in range(5)]
    levels = {k: np.zeros(size, np.int64) for k, size in enumerate(sizes)}
    levels[4][9:] = array([20, -20, 10])[:, None, None]
    found = reference.residual_of(frame, levels, [0, 0, 0, 0, 0, 40], 16)
    gain, finer = reference.gains()[40], reference.gains()[36]
    assert (gain, finer) == (128, 91)
    planes = [20 * gain // 32, -20 * finer // 16, 10 * finer // 16]
    assert found[0].shape == (6, h, w)
    for p, expected in enumerate(planes):
        for k in range(1, 5):
            assert found[k][p].shape == sizes[k][1:]
            assert abs(found[k][p] - expected).max() <= 1
        assert abs(found[0][4:][p - 1] if p else found[0][:4] - expected).max() <= (200 if p else 1)
    levels[0][:] = 127
    loud = reference.residual_of(frame, levels, [63] * 6, 0)
    assert max(abs(part).max() for part in loud.values()) == 1023


def test_related_channels() -> None:
    """12.2: of bands those of one plane, and of one direction."""
    assert all(reference.all_related(c, d) for c, d in product(range(12), repeat=2))
    related = {c: [d for d in range(12) if reference.bands_related(c, d)] for c in (0, 4, 11)}
    assert related == {0: [0, 1, 2, 3, 6, 9], 4: [1, 3, 4, 5, 7, 10], 11: [2, 5, 8, 9, 10, 11]}


def test_errors_of_segments() -> None:
    data, _ = file_of(assemble(SMALL), 20, 34, 2, 3, 0)
    head_end = 10 + 2 + data[11] + 4
    reader = basics.Reader(data, head_end)
    sections = [(reader.pos, *reference.read_section(reader, kind, 2**20)) for kind in (2, 4, 3)]
    start, _, payload = sections[2]
    place = start + 1 + len(leb(len(payload)))

    def with_byte(at: int, value: int) -> bytes:
        changed_data = bytearray(data)
        changed_data[at] = value
        crc = zlib.crc32(changed_data[start : place + len(payload)])
        changed_data[place + len(payload) : place + len(payload) + 4] = crc.to_bytes(4, "little")
        return bytes(changed_data)

    for at, value, error in (
        (place, 0x20, "unsupported"),  # names a start that is not there
        (place, 0x30, "unsupported"),
        (place, 0x11, "syntax"),
        (place + 1, 0, "limit"),
        (place + 1, 129, "limit"),
        (place + len(payload) - 1, payload[-1] ^ 1, "checksum"),
    ):
        with pytest.raises(basics.DecodeError, match=f"^{error}: "):
            decoded(with_byte(at, value))
    without_program = data[: sections[1][0]] + data[start:]
    with pytest.raises(basics.DecodeError, match=r"^syntax: "):
        decoded(without_program)
    with pytest.raises(basics.DecodeError, match=r"^limit: "):
        decoded(data[: sections[1][0]] + data[sections[1][0] : start] * 17 + data[start:])


def test_cells() -> None:
    """14.5, where there are fewer and where there are more cells than samples."""
    a = np.arange(12, dtype=np.int64).reshape(3, 4)
    for rows, columns in ((2, 3), (5, 7), (1, 1), (3, 4)):
        means = reference.cell_means(a, rows, columns)
        for y, q in product(range(rows), range(columns)):
            top, left = min(y * 3 // rows, 2), min(q * 4 // columns, 3)
            bottom = min(max((y + 1) * 3 // rows, top + 1), 3)
            right = min(max((q + 1) * 4 // columns, left + 1), 4)
            cell = a[top:bottom, left:right]
            assert means[y, q] == int(cell.sum()) // cell.size


def test_parent() -> None:
    before = array([[[1, -2], [0, 4]], [[0, 0], [-3, 0]]])
    # 2 channels of 2 x 2 to 3 channels of 3 x 3: places 0, 0, 1
    first = reference.latent_parent(before, 0, 3, 3)
    assert first.tolist() == reference.lg(4 * array([[15, 15, 23], [15, 15, 23], [7, 7, 39]])).tolist()
    assert (reference.latent_parent(before, 2, 3, 3) == reference.latent_parent(before, 1, 3, 3)).all()
    assert not reference.latent_parent(None, 0, 3, 3).any()
