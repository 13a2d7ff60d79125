"""The exact machine of .cwrv files (chapter 13), written from bitstream_spec.md alone: programs, checks, operations.

It is plain and slow on purpose: one function for each operation, in the order of the specification, integers only. A
part of tools/reference_decoder.py, which decodes the segments that name a program.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from reference_basics import (
    SPEC,
    Array,
    Reader,
    clip3,
    decompress,
    decompress_with_dictionary,
    fail,
    need,
    round2,
)

MAX_PROGRAM_BYTES, MAX_PROGRAM_NODE_BYTES, MAX_PROGRAM_NODES = 1024, 16384, 512  # chapter 15
MAX_PROGRAM_SIDE, MAX_PROGRAM_CHANNELS, MAX_PROGRAM_WEIGHTS = 32768, 65536, 33554432
PROGRAM_LEAST_SAMPLES = 101376
PROGRAM_ELEMENTS_A_SAMPLE, STATE_ELEMENTS_A_SAMPLE, LATENTS_A_SAMPLE = 192, 16, 4
MULTIPLICATIONS_A_SAMPLE = 131072
MAX_LATENT_CHANNELS = 64
MAX_OPERANDS = 32
MAX_NORM_CHANNELS = 512

Size = tuple[int, int, int]  # C, H, Q


# ---------------------------------------------------------------- 13.1 the section PROGRAM

SIDE = 1, 16384
PLACE = (("channels", 1, 4096), ("rows", *SIDE), ("columns", *SIDE))


@dataclass(frozen=True)
class Operation:
    """A row of the table of 13.4: operands is None for any number; parameters are (name, low, high)."""

    name: str
    operands: int | None
    parameters: tuple[tuple[str, int, int], ...] = ()


OPERATIONS = {
    1: Operation("conv", 1, (("channels", 1, 4096), ("kernel", 1, 9), ("groups", 1, 4096))),
    2: Operation("add", 2, (("left", 0, 15), ("right", 0, 15), ("shift", 0, 30))),
    3: Operation("multiply", 2, (("shift", 0, 30),)),
    4: Operation("rescale", 1, (("left", 0, 15), ("shift", 0, 30))),
    5: Operation("table", 1, (("function", 0, 5), ("fraction_in", 0, 16), ("fraction_out", 0, 14))),
    6: Operation("shuffle", 1, (("factor", 2, 8),)),
    7: Operation("unshuffle", 1, (("factor", 2, 8),)),
    8: Operation("upsample", 1, (("factor", 2, 32), ("bilinear", 0, 1))),
    9: Operation("concat", None),
    10: Operation("slice", 1, (("start", 0, 65536), ("channels", 1, 65536))),
    11: Operation("fit", 1, (("rows", *SIDE), ("columns", *SIDE))),
    12: Operation("reshape", 1, (("channels", 1, 65536), ("rows", *SIDE), ("columns", *SIDE))),
    13: Operation("norm", 1, (("fraction", 0, 14),)),
    14: Operation("warp", 2, (("block_log2", 0, 3),)),
    32: Operation("latent", 0, (("level", 0, 15), *PLACE, ("gain", 0, 8))),
    33: Operation("grid", 0, (("level", 0, 15), ("slices", 1, 1024), *PLACE, ("gain", 0, 8))),
    34: Operation("time", 0),
    35: Operation("phases", 0, (("count", 1, 128), ("base", 256, 1024))),
    36: Operation("coordinates", 0, (("rows", *SIDE), ("columns", *SIDE))),
    37: Operation("prediction", 0),
    38: Operation("difference", 0),
    39: Operation("picture", 0, (("slot", 0, 1),)),
    40: Operation("vectors", 0, (("slot", 0, 1), ("final", 0, 1))),
    41: Operation("state", 0, (("slot", 0, 1), ("index", 0, 7), *PLACE)),
    42: Operation("presence", 0, (("slot", 0, 1),)),
    43: Operation("distance", 0, (("slot", 0, 1),)),
    44: Operation("depth", 0),
    45: Operation("quantiser", 0),
    46: Operation("residual", 0, (("level", 0, 4),)),
    64: Operation("samples", 1),
    65: Operation("store", 1, (("index", 0, 7),)),
    66: Operation("correct", 1, (("slot", 0, 1),)),
}
ENDS = ("samples", "store", "correct")
OF_MOTION = ("prediction", "difference", "picture", "vectors")


@dataclass
class Node:
    """An operation with its operands, which are earlier nodes; ``size`` is known after check_program."""

    index: int
    operation: str
    operands: list[int]
    p: dict[str, int]  # parameters
    size: Size = (0, 0, 0)

    @property
    def elements(self) -> int:
        return math.prod(self.size)


@dataclass
class Program:
    activation_bits: int
    nodes: list[Node]

    @property
    def largest(self) -> int:
        """13.2 A."""
        return 2 ** (self.activation_bits - 1) - 1

    def of(self, *names: str) -> list[Node]:
        """The nodes of these operations, in order."""
        return [node for node in self.nodes if node.operation in names]

    def by_level(self, name: str) -> list[Node]:
        """The nodes latent or grid, by level."""
        return sorted(self.of(name), key=lambda node: node.p["level"])

    @property
    def refers(self) -> bool:
        """14.2."""
        return bool(self.of(*OF_MOTION, "state"))

    @property
    def moves(self) -> bool:
        """14.2."""
        return bool(self.of(*OF_MOTION))

    def depends_on(self, ends: Sequence[Node]) -> set[int]:
        """The nodes ``ends`` and all on which they depend, over any number of steps."""
        found: set[int] = set()
        left = [node.index for node in ends]
        while left:
            index = left.pop()
            if index not in found:
                found.add(index)
                left += self.nodes[index].operands
        return found


def parse_program_section(payload: bytes) -> Program:
    """13.1 program_section()."""
    if payload[:1] == b"\1":
        return parse_program(decompress_with_dictionary(payload[1:], 1, MAX_PROGRAM_NODE_BYTES))
    return parse_program(decompress(payload, 1, MAX_PROGRAM_NODE_BYTES))


def parse_program(data: bytes) -> Program:
    """13.1 program()."""
    r, nodes = Reader(data), []
    bits = r.u8("a program")
    need(8 <= bits <= 16, "limit", f"activation_bits is {bits}")
    count = r.leb128("a program")
    need(1 <= count <= MAX_PROGRAM_NODES, "limit", f"a program of {count} nodes")
    for i in range(count):
        nodes.append(parse_node(r, i))
    need(r.left == 0, "syntax", "a program is too long")
    return Program(bits, nodes)


def parse_node(r: Reader, i: int) -> Node:
    """13.1, node i."""
    code = r.u8("a program")
    need(code in OPERATIONS, "unsupported", f"node {i} has the unknown operation {code}")
    operation, parameters, operands = OPERATIONS[code], {}, []
    count = operation.operands
    if count is None:
        count = r.leb128("a program")
        need(1 <= count <= MAX_OPERANDS, "limit", f"node {i} has {count} operands")
    for name, low, high in operation.parameters:
        parameters[name] = low + r.leb128("a program")
        need(parameters[name] <= high, "limit", f"node {i}: {name} is {parameters[name]}")
    for _ in range(count):
        back = r.leb128("a program")
        need(1 <= back <= i, "syntax", f"node {i} has an operand that is no earlier node")
        operands.append(i - back)
    return Node(i, operation.name, operands, parameters)


# ---------------------------------------------------------------- 13.2 values: what a program must keep


@dataclass(frozen=True)
class Picture:
    """What the sizes of nodes depend on: working domain h x w, blocks bh x bw."""

    h: int
    w: int
    bh: int
    bw: int

    @property
    def limited_samples(self) -> int:
        """n of 13.2."""
        return max(4 * self.h * self.w, PROGRAM_LEAST_SAMPLES)


def check_program(program: Program, picture: Picture) -> None:
    """13.2: sets the sizes of all nodes, or fails; takes no memory for what the program computes."""
    check_nodes(program)
    for node in program.nodes:
        operands = [program.nodes[j].size for j in node.operands]
        node.size = size_of(node, operands, picture)
        channels, rows, columns = node.size
        need(channels <= MAX_PROGRAM_CHANNELS, "limit", f"node {node.index} has {channels} channels")
        need(max(rows, columns) <= MAX_PROGRAM_SIDE, "limit", f"node {node.index} has {rows} x {columns} places")
        is_coded = node.operation in ("latent", "grid")
        need(not is_coded or channels <= MAX_LATENT_CHANNELS, "limit", f"node {node.index} has {channels} channels")
    check_states(program)
    check_limits(program, picture.limited_samples)


def check_nodes(program: Program) -> None:
    """13.2, what needs no sizes."""
    need(len(program.of("samples")) == 1, "syntax", "a program has not one node samples")
    for name, parameter in (("store", "index"), ("correct", "slot")):
        values = [node.p[parameter] for node in program.of(name)]
        need(len(set(values)) == len(values), "syntax", f"a program has two nodes {name} of one {parameter}")
    read = {j for node in program.nodes for j in node.operands}
    for node in program.nodes:
        is_end = node.operation in ENDS
        need(is_end != (node.index in read), "syntax", f"node {node.index} ({node.operation}) is in a wrong place")
    levels = sorted(node.p["level"] for node in program.of("latent", "grid"))
    need(levels == list(range(len(levels))), "syntax", "the levels of a program are not 0, 1, 2, ...")
    need(program.moves or not program.of("correct"), "syntax", "a program corrects motion, and looks at none")
    before_motion = [program.nodes[j] for j in program.depends_on(program.of("correct"))]
    for node in before_motion:
        is_late = node.operation in ("prediction", "difference", "picture") or node.p.get("final") == 1
        need(not is_late, "syntax", "a correction depends on what it corrects")


def check_states(program: Program) -> None:
    """13.2: each state has its store, of its size."""
    stores = {node.p["index"]: node.size for node in program.of("store")}
    for node in program.of("state"):
        need(stores.get(node.p["index"]) == node.size, "syntax", f"node {node.index}: nothing stores this state")


def check_limits(program: Program, n: int) -> None:
    """13.2, the table of limits."""
    last_reader = {j: node.index for node in program.nodes for j in node.operands}
    for node in program.nodes:
        earlier = sum(x.elements for x in program.nodes[: node.index] if last_reader.get(x.index, -1) >= node.index)
        within = earlier + node.elements <= PROGRAM_ELEMENTS_A_SAMPLE * n
        need(within, "limit", f"a program needs too many elements at once, at node {node.index}")
    stored = sum(node.elements for node in program.of("store"))
    need(stored <= STATE_ELEMENTS_A_SAMPLE * n, "limit", "the states of a program are too large")
    weights = sum(node.size[0] * weights_a_channel(program, node) for node in program.of("conv"))
    need(weights <= MAX_PROGRAM_WEIGHTS, "limit", "a program has too many weights")
    latents = sum(node.elements * node.p.get("slices", 1) for node in program.of("latent", "grid"))
    need(latents <= LATENTS_A_SAMPLE * n, "limit", "a program has too many latents")
    work = sum(multiplications(program, node) for node in program.nodes)
    need(work <= MULTIPLICATIONS_A_SAMPLE * n, "limit", "a program has too many multiplications")


def weights_a_channel(program: Program, node: Node) -> int:
    """The weights of one output channel of a node conv: the n of 14.3."""
    inputs = program.nodes[node.operands[0]].size[0]
    return inputs // node.p["groups"] * node.p["kernel"] ** 2


def multiplications(program: Program, node: Node) -> int:
    """13.4, the last column of the table."""
    if node.operation == "conv":
        return node.elements * weights_a_channel(program, node)
    if node.operation == "upsample":
        return node.elements * (4 if node.p["bilinear"] else 1)
    if node.operation == "norm":
        return 4 * node.elements
    if node.operation == "warp":
        return node.elements * (20 if node.p["block_log2"] else 4)
    if node.operation == "grid":
        return 2 * node.elements
    return 0 if not node.operands or node.operation in ENDS else node.elements


def size_of(node: Node, operands: Sequence[Size], picture: Picture) -> Size:
    """13.4: the size of what a node gives. A node of the ends counts as large as its operand."""

    def fits(condition: bool, message: str) -> None:
        need(condition, "syntax", f"node {node.index} ({node.operation}): {message}")

    p = node.p
    c, h, q = operands[0] if operands else (1, 1, 1)
    match node.operation:
        case "conv":
            fits(p["kernel"] % 2 == 1, "the kernel is even")
            fits(c % p["groups"] == 0 and p["channels"] % p["groups"] == 0, "the groups divide no channels")
            return p["channels"], h, q
        case "add" | "multiply":
            pairs = list(zip(*operands, strict=True))
            fits(all(x == y or 1 in (x, y) for x, y in pairs), "the operands have unlike sizes")
            return max(pairs[0]), max(pairs[1]), max(pairs[2])
        case "rescale" | "table":
            return c, h, q
        case "shuffle":
            r = p["factor"]
            fits(c % r**2 == 0, f"{c} channels")
            return c // r**2, r * h, r * q
        case "unshuffle":
            r = p["factor"]
            fits(h % r == 0 and q % r == 0, f"{h} x {q} places")
            return c * r**2, h // r, q // r
        case "upsample":
            return c, p["factor"] * h, p["factor"] * q
        case "concat":
            fits(all(size[1:] == (h, q) for size in operands), "the operands have unlike sizes")
            return sum(size[0] for size in operands), h, q
        case "slice":
            fits(p["start"] + p["channels"] <= c, "the channels do not exist")
            return p["channels"], h, q
        case "fit":
            return c, p["rows"], p["columns"]
        case "reshape":
            size = p["channels"], p["rows"], p["columns"]
            fits(math.prod(size) == c * h * q, "another number of elements")
            return size
        case "norm":
            fits(c <= MAX_NORM_CHANNELS, f"{c} channels")
            return c, h, q
        case "warp":
            vectors, rows, columns = operands[1]
            b = p["block_log2"]
            fits(vectors == 2, "the vectors have not two channels")
            fits(rows << b >= h and columns << b >= q, "there are too few vectors")
            return c, h, q
        case "latent" | "grid" | "state":
            return p["channels"], p["rows"], p["columns"]
        case "phases":
            frequency = frequencies(p["count"], p["base"])
            fits(frequency[-1] < 2**31, "the last frequency is too large")
            return 2 * p["count"], 1, 1
        case "coordinates":
            return 2, p["rows"], p["columns"]
        case "prediction" | "difference" | "picture":
            return 6, picture.h, picture.w
        case "vectors":
            return 2, picture.bh, picture.bw
        case "residual":
            side = 2 ** p["level"]
            return 3 if p["level"] else 6, -(-picture.h // side), -(-picture.w // side)
        case "samples":
            fits(c == 6 and h >= picture.h and q >= picture.w, "it does not cover the picture")
            return c, h, q
        case "store":
            return c, h, q
        case "correct":
            fits((c, h, q) == (2, picture.bh, picture.bw), "it is no field")
            return c, h, q
    return 1, 1, 1  # time, presence, distance, depth, quantiser


# ---------------------------------------------------------------- 13.3 tables

FRACTION = 256  # bits of the fixed point from which the tables are rounded
UNIT = 1 << FRACTION
FUNCTIONS = ("GELU", "SIGMOID", "TANH", "SINE", "LEAKY", "RELU")  # by the parameter ``function``


def nearest(numerator: int, denominator: int) -> int:
    """The nearest integer of a quotient, halves towards plus infinity."""
    return (2 * numerator + denominator) // (2 * denominator)


def series(first: int, factor: Callable[[int], tuple[int, int]]) -> int:
    """A sum whose term k is term k - 1 times the fraction factor(k)."""
    total, term, k = first, first, 0
    while term:
        k += 1
        up, down = factor(k)
        term = abs(term) * abs(up) // down * (1 if (term < 0) == (up < 0) else -1)
        total += term
    return total


def exponential(up: int, down: int) -> int:
    """e^(up / down) in fixed point, for up >= 0."""
    return series(UNIT, lambda k: (up, down * k))


@cache
def pi() -> int:
    """Pi in fixed point, by Machin's formula."""

    def arc_tangent(n: int) -> int:
        total, power, k = 0, UNIT // n, 0
        while power:
            total += power // (2 * k + 1) * (-1 if k % 2 else 1)
            power //= n * n
            k += 1
        return total

    return 4 * (4 * arc_tangent(5) - arc_tangent(239))


def sigmoid_entry(k: int) -> int:
    """2^14 / (1 + e^(-k / 64))."""
    power = exponential(abs(k), 64)
    return nearest((power if k >= 0 else UNIT) << 14, UNIT + power)


def tanh_entry(k: int) -> int:
    """2^14 * tanh(k / 64)."""
    power = exponential(2 * abs(k), 64)
    return nearest((power - UNIT if k >= 0 else UNIT - power) << 14, power + UNIT)


def gelu_entry(k: int) -> int:
    """-(2^14 * u * (1 - erf(u / sqrt(2))) / 2, rounded), u = Abs(k) / 64.

    erf(u / sqrt(2)) = u * sqrt(2 / pi) * e^(-u^2 / 2) * (sum of u^(2n) / (1 * 3 * ... * (2n + 1))).
    """
    u = abs(k)
    total = series(UNIT, lambda n: (u * u, 4096 * (2 * n + 1)))
    root = math.isqrt((2 * UNIT << 2 * FRACTION) // pi())  # sqrt(2 / pi)
    erf = (((root * total) >> FRACTION) * u << FRACTION) // (64 * exponential(u * u, 8192))
    return -nearest(u * (UNIT - erf) << 14, 128 * UNIT)


def sine_entry(i: int) -> int:
    """2^14 * sin(2 * pi * i / 256), i in 0..128."""
    angle = 2 * pi() * i // 256
    square = (angle * angle) >> FRACTION
    return nearest(series(angle, lambda k: (-square, (2 * k * (2 * k + 1)) << FRACTION)) << 14, UNIT)


def root_entry(i: int) -> int:
    """2^15 / sqrt(1 + i / 256), which is 2^19 / sqrt(256 + i): the largest v with (2v - 1)^2 * (256 + i) <= 2^40."""
    return (math.isqrt(2**40 // (256 + i)) + 1) // 2


@cache
def scales() -> tuple[int, ...]:
    """M8[i] is 2^(14 + i / 8), rounded: the smallest v with (2v + 1)^8 > 2^(120 + i)."""
    values = []
    for i in range(8):
        v = 2**14
        while (2 * v + 1) ** 8 <= 2 ** (120 + i):
            v += 1
        values.append(v)
    return tuple(values)


@cache
def function_table(name: str) -> Array:
    """13.3: a table by its name, from its definition; its SHA-256 must be that of the specification."""
    if name == "SINE":
        half_turn = [sine_entry(i) for i in range(129)]
        values = half_turn + [-half_turn[256 - i] for i in range(129, 257)]
    elif name == "ROOT":
        values = [root_entry(i) for i in range(768)]
    else:
        entry = {"SIGMOID": sigmoid_entry, "TANH": tanh_entry, "GELU": gelu_entry}[name]
        values = [entry(i - 512) for i in range(1025)]
    table = np.array(values, np.int64)
    digest = hashlib.sha256(table.astype("<i4").tobytes()).hexdigest()
    stated = re.search(rf"^\| `{name}` \|.*`([0-9a-f]{{64}})` \|$", SPEC.read_text(encoding="utf-8"), re.MULTILINE)
    if stated is None or stated[1] != digest:
        raise SystemExit(f"the table {name} is not that of {SPEC.name}")
    return table


# ---------------------------------------------------------------- 13.4 operations


@dataclass
class Tensors:
    """13.4 conv: the tensors of a node (14.3)."""

    weight: Array  # channels x C / groups x kernel x kernel
    exponent: Array
    bias: Array


@dataclass
class FrameInputs:
    """What the inputs of a program see of a frame. Lists have an entry for each reference of the frame."""

    t: int
    frames: int  # T
    depth: int = 0
    quantiser: int = 0
    latents: dict[int, Array] = field(default_factory=dict)  # by level: C x H x Q
    grids: dict[int, Array] = field(default_factory=dict)  # by level: slices x C x H x Q
    places: list[int] = field(default_factory=list)
    states: list[dict[int, Array]] = field(default_factory=list)  # by the index of store
    prediction: Array | None = None
    difference: Array | None = None
    pictures: list[Array] = field(default_factory=list)
    vectors: list[Array] = field(default_factory=list)  # before corrections
    final_vectors: list[Array] = field(default_factory=list)
    residual: dict[int, Array] = field(default_factory=dict)  # by level (14.8)


@dataclass
class Machine:
    """A checked program with its tensors."""

    program: Program
    tensors: dict[int, Tensors]  # of the nodes conv, by their index

    def run(self, ends: Sequence[Node], inputs: FrameInputs) -> dict[int, Array]:
        """The operands of the nodes ``ends``, by the index of these nodes."""
        nodes, needed = self.program.nodes, self.program.depends_on(ends)
        last_reader = {j: i for i in sorted(needed) for j in nodes[i].operands}
        values: dict[int, Array] = {}
        results: dict[int, Array] = {}
        for i in sorted(needed):
            node = nodes[i]
            operands = [values[j] for j in node.operands]
            if node.operation in ENDS:
                results[i] = operands[0]
            else:
                values[i] = self.value(node, operands, inputs)
            values = {j: value for j, value in values.items() if last_reader[j] > i}
        return results

    def value(self, node: Node, operands: list[Array], inputs: FrameInputs) -> Array:
        """13.2: what a node gives, clipped."""
        if node.operation == "conv":
            value = conv(operands[0], self.tensors[node.index], node.p["groups"])
        elif node.operands:
            value = COMPUTE[node.operation](*operands, **node.p)
        else:
            value = read_input(node, inputs, self.program.activation_bits)
        return clip3(-self.program.largest, self.program.largest, value)


def check_tensors(tensors: Tensors, largest: int) -> None:
    """13.4 conv: the bound of the sums of weights, and 14.3: that of the exponents."""
    need(bool(((tensors.exponent >= -256) & (tensors.exponent <= 96)).all()), "limit", "an exponent is out of range")
    s = abs(tensors.weight).sum((1, 2, 3))
    need(bool(((s * largest < 2**31) & (s < 2**17)).all()), "limit", "the weights of a convolution are too large")


def conv(x: Array, tensors: Tensors, groups: int) -> Array:
    """13.4 conv. Sums stay below 2^31, so that the products of binary64 matrices are exact in any order."""
    c, h, q = x.shape
    channels, n, kernel, _ = tensors.weight.shape
    k = kernel // 2
    padded = np.pad(x, ((0, 0), (k, k), (k, k))).astype(np.float64)
    weight = tensors.weight.reshape(groups, channels // groups, n, kernel, kernel).astype(np.float64)
    total = np.zeros((groups, channels // groups, h * q))
    for p in range(kernel):
        for r in range(kernel):
            seen = padded[:, p : p + h, r : r + q].reshape(groups, c // groups, h * q)
            total += weight[..., p, r] @ seen
    e = tensors.exponent[:, None, None]
    scaled = total.astype(np.int64).reshape(channels, h, q) * np.array(scales(), np.int64)[e % 8]
    return round2_by(scaled, 14 - e // 8) + tensors.bias[:, None, None]


def round2_by(x: Array, n: Array) -> Array:
    """Round2 with an array of n >= 1."""
    return (x + (np.int64(1) << (n - 1))) >> n


def add(x: Array, y: Array, left: int, right: int, shift: int) -> Array:
    """13.4 add."""
    return np.asarray(round2((x << left) + (y << right), shift))


def multiply(x: Array, y: Array, shift: int) -> Array:
    """13.4 multiply."""
    return np.asarray(round2(x * y, shift))


def rescale(x: Array, left: int, shift: int) -> Array:
    """13.4 rescale."""
    return np.asarray(round2(x << left, shift))


def table(x: Array, function: int, fraction_in: int, fraction_out: int) -> Array:
    """13.4 table."""
    name = FUNCTIONS[function]
    if name == "RELU":
        return np.maximum(x, 0)
    if name == "LEAKY":
        return np.where(x >= 0, x, x >> 3)
    values = function_table(name)
    if name == "SINE":
        p = (x << (16 - fraction_in)) & 65535
        i, f = p >> 8, p & 255
        v = values[i] * (256 - f) + values[i + 1] * f
        return np.asarray(round2(v, 22 - fraction_out))
    p = clip3(0, 2**20 - 1, (x << (16 - fraction_in)) + 2**19)
    i, f = p >> 10, p & 1023
    v = values[i] * (1024 - f) + values[i + 1] * f
    if name == "GELU":
        v = v + (np.maximum(x, 0) << (24 - fraction_in))
    return np.asarray(round2(v, 24 - fraction_out))


def shuffle(x: Array, factor: int) -> Array:
    """13.4 shuffle."""
    c, h, q = x.shape
    out = np.zeros((c // factor**2, factor * h, factor * q), np.int64)
    for i in range(factor):
        for j in range(factor):
            out[:, i::factor, j::factor] = x[i * factor + j :: factor**2]
    return out


def unshuffle(x: Array, factor: int) -> Array:
    """13.4 unshuffle: the inverse of shuffle."""
    c, h, q = x.shape
    out = np.zeros((c * factor**2, h // factor, q // factor), np.int64)
    for i in range(factor):
        for j in range(factor):
            out[i * factor + j :: factor**2] = x[:, i::factor, j::factor]
    return out


def upsample(x: Array, factor: int, bilinear: int) -> Array:
    """13.4 upsample."""
    _, h, q = x.shape
    r, y, column = factor, np.arange(factor * h)[:, None], np.arange(factor * q)[None, :]
    if not bilinear:
        return x[:, y // r, column // r]

    def place(n: Array) -> tuple[Array, Array]:
        p = 2 * n + 1 - r
        return p // (2 * r), p % (2 * r)

    (iy, fy), (iq, fq) = place(y), place(column)
    v = np.zeros((len(x), r * h, r * q), np.int64)
    for j, wy in enumerate((2 * r - fy, fy)):
        for k, wq in enumerate((2 * r - fq, fq)):
            v += wy * wq * x[:, clip3(0, h - 1, iy + j), clip3(0, q - 1, iq + k)]
    return (v + 2 * r**2) // (4 * r**2)


def concat(*operands: Array) -> Array:
    """13.4 concat."""
    return np.concatenate(operands)


def slice_channels(x: Array, start: int, channels: int) -> Array:
    """13.4 slice."""
    return x[start : start + channels]


def fit(x: Array, rows: int, columns: int) -> Array:
    """13.4 fit."""
    y, q = (np.minimum(np.arange(n), size - 1) for n, size in zip((rows, columns), x.shape[1:], strict=True))
    return x[:, y][:, :, q]


def reshape(x: Array, channels: int, rows: int, columns: int) -> Array:
    """13.4 reshape."""
    return x.reshape(channels, rows, columns)


def floor_log2(x: Array) -> Array:
    """FloorLog2, of integers from 1 to 2^63 - 1."""
    n = np.zeros_like(x)
    for step in (32, 16, 8, 4, 2, 1):
        n = np.where(x >> np.minimum(n + step, 63) > 0, n + step, n)
    return n


def norm(x: Array, fraction: int) -> Array:
    """13.4 norm. With C <= 512, q is below 2^60 and the product below 2^55."""
    c = len(x)
    d = c * x - x.sum(0)
    q = (d * d).sum(0)
    k = floor_log2(np.maximum(q, 1)) // 2
    m = np.where(2 * k >= 8, q >> np.maximum(2 * k - 8, 0), q << np.maximum(8 - 2 * k, 0)) - 256
    root = function_table("ROOT")[np.where(q > 0, m, 0)]
    out = round2_by(d * root * math.isqrt(c * 2**20), 25 + k - fraction)
    return np.where(q > 0, out, 0)


OWN = {1: (7, 7), 2: (6, 8, 8, 6), 3: (5, 6, 7, 8, 8, 7, 6, 5)}


def warp_sixteenths(x: Array, vectors: Array, block_log2: int) -> Array:
    """13.4 warp."""
    _, h, q = x.shape
    b, s = block_log2, 1 << block_log2
    rows, columns = vectors.shape[1:]
    y, z = np.mgrid[:h, :q]

    def point(v: Array) -> Array:
        py, pq = 16 * y + v[0], 16 * z + v[1]
        i, f, j, g = py >> 4, py & 15, pq >> 4, pq & 15
        total = np.zeros(x.shape, np.int64)
        for k, wk in ((0, 16 - f), (1, f)):
            for m, wm in ((0, 16 - g), (1, g)):
                total += wk * wm * x[:, clip3(0, h - 1, i + k), clip3(0, q - 1, j + m)]
        return total

    if b == 0:
        return np.asarray(round2(point(vectors[:, :h, :q]), 8))

    def blocks(n: Array, count: int) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """own(n, k) and by(k) for k = 0, 1."""
        own = np.array(OWN[b])[n % s]
        beside = np.where(2 * (n % s) < s, (n >> b) - 1, (n >> b) + 1)
        return (own, n >> b), (8 - own, clip3(0, count - 1, beside))

    total = np.zeros(x.shape, np.int64)
    for own_y, by in blocks(y, rows):
        for own_q, bq in blocks(z, columns):
            total += own_y * own_q * point(vectors[:, by, bq])
    return np.asarray(round2(total, 14))


COMPUTE: dict[str, Callable[..., Array]] = {
    "add": add,
    "multiply": multiply,
    "rescale": rescale,
    "table": table,
    "shuffle": shuffle,
    "unshuffle": unshuffle,
    "upsample": upsample,
    "concat": concat,
    "slice": slice_channels,
    "fit": fit,
    "reshape": reshape,
    "norm": norm,
    "warp": warp_sixteenths,
}


# 13.4 Inputs


def one(value: int) -> Array:
    """1 x 1 x 1."""
    return np.full((1, 1, 1), value, np.int64)


def given(size: Size, value: Array | None, offset: int = 0) -> Array:
    """A value less its offset, or 0 where the frame does not have it."""
    return np.zeros(size, np.int64) if value is None else value - offset


def of_slot(values: Sequence[Any], slot: int) -> Any:
    return values[slot] if slot < len(values) else None


def read_input(node: Node, f: FrameInputs, a: int) -> Array:
    """13.4 Inputs: what they give, before it is clipped; a is activation_bits."""
    p, slot = node.p, node.p.get("slot", 0)
    match node.operation:
        case "latent":
            return f.latents[p["level"]] << p["gain"]
        case "grid":
            return between_slices(f.grids[p["level"]] << p["gain"], f.t, f.frames)
        case "time":
            return one(((2 * f.t - (f.frames - 1)) << (a - 1)) // max(f.frames - 1, 1))
        case "phases":
            return phases(p["count"], p["base"], f.t, f.frames, a)
        case "coordinates":
            return coordinates(p["rows"], p["columns"], a)
        case "prediction":
            return given(node.size, f.prediction, 512)
        case "difference":
            return given(node.size, f.difference)
        case "picture":
            return given(node.size, of_slot(f.pictures, slot), 512)
        case "vectors":
            return given(node.size, of_slot(f.final_vectors if p["final"] else f.vectors, slot))
        case "state":
            return given(node.size, None if slot >= len(f.states) else f.states[slot][p["index"]])
        case "presence":
            return one(2 ** (a - 2) if slot < len(f.places) else 0)
        case "distance":
            return one(16 * (f.places[slot] - f.t) if slot < len(f.places) else 0)
        case "depth":
            return one(16 * f.depth)
        case "quantiser":
            return one(f.quantiser)
        case "residual":
            return f.residual[p["level"]]
    fail("unsupported", f"the operation {node.operation}")


def between_slices(g: Array, t: int, frames: int) -> Array:
    """13.4 grid, whose symbols g are shifted by gain already."""
    d = max(frames - 1, 1)
    i, f = divmod(t * (len(g) - 1), d)
    return (g[i] * (d - f) + g[min(i + 1, len(g) - 1)] * f + d // 2) // d


def frequencies(count: int, base: int) -> list[int]:
    """13.4 phases: F."""
    values = [256]
    for _ in range(count - 1):
        values.append((values[-1] * base + 128) >> 8)
    return values


def phases(count: int, base: int, t: int, frames: int, a: int) -> Array:
    """13.4 phases."""
    values = []
    for quarter in (0, 2**14):
        for frequency in frequencies(count, base):
            p = frequency * t * 128 // frames + quarter
            values.append(((p + 2**15) % 2**16 - 2**15) >> (16 - a))
    return np.array(values, np.int64)[:, None, None]


def coordinates(rows: int, columns: int, a: int) -> Array:
    """13.4 coordinates."""
    y, q = np.mgrid[:rows, :columns]
    return np.stack([((2 * n + 1 - count) << (a - 1)) // count for n, count in ((y, rows), (q, columns))])


# 13.4 Ends


def samples_of(value: Array, h: int, w: int) -> Array:
    """13.4 samples."""
    return clip3(0, 1023, value[:, :h, :w] + 512)
