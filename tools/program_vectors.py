"""Programs of the exact machine for the conformance vectors, and implicit segments with drawn tensors and latents.

The programs take every operation to its extremes. What a decoder shows of a value is eight bits, clipped; so most of
these programs end in ``shown``, which makes samples of the upper bits of each value and of two sines of its lower ones.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import torch

from nvcodec.decoder import output_planes
from nvcodec.entropy.numbers import best_scale
from nvcodec.entropy.weights import TensorChange, TensorSpec, best_scales
from nvcodec.exact.arithmetic import EXPONENT_HIGH, EXPONENT_LOW, EXPONENT_STEPS, WEIGHT_BOUND, Function
from nvcodec.exact.arrangement import (
    Concatenation,
    Fitting,
    Reshaping,
    Shuffle,
    Slicing,
    Unshuffle,
    Upsampling,
)
from nvcodec.exact.convolution import Convolution
from nvcodec.exact.latents import GridInput, LatentInput
from nvcodec.exact.normalisation import Normalisation
from nvcodec.exact.operation import Operation, Shape, Sizes
from nvcodec.exact.outputs import Correction, SamplesOutput, StateOutput
from nvcodec.exact.pointwise import Addition, Multiplication, Rescaling, Table
from nvcodec.exact.position import CoordinatesInput, PhasesInput, TimeInput
from nvcodec.exact.program import Program
from nvcodec.exact.references import (
    DepthInput,
    DifferenceInput,
    DistanceInput,
    PictureInput,
    PredictionInput,
    PresenceInput,
    QuantiserInput,
    ResidualInput,
    StateInput,
    VectorsInput,
)
from nvcodec.exact.warping import Warping
from nvcodec.grid.levels import APPEARANCE_GAINS, Quantiser, appearance_shapes
from nvcodec.hybrid.unit import UnitSymbols as HybridSymbols
from nvcodec.implicit.latents import LatentModel
from nvcodec.implicit.payload import ImplicitHeader, ImplicitWriter, SegmentTensors
from nvcodec.implicit.starts import find_start, tensor_specs
from nvcodec.implicit.unit import UnitSymbols
from nvcodec.implicit.weights import ConvSymbols
from nvcodec.motion.levels import FrameGeometry

__all__ = [
    "Body",
    "ProgramPlan",
    "drawn",
    "drawn_changes",
    "flat",
    "implicit_segment",
    "program_files",
    "references",
    "residual",
]

Planes = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


# ---------------------------------------------------------------- segments


@dataclass(frozen=True)
class ProgramPlan:
    """An implicit segment. ``latents``, ``grids``, ``motion``, ``appearance``: with what chance and amplitude symbols
    are not 0. ``empty``: with what chance all of a level is, in a frame. ``tensors``: of a convolution, by its shape.
    ``least``: the least gain indices, drawn up to these. ``start``: name of the start that the tensors are changes of,
    ``code``: along its directions, with what chance and amplitude; ``changes``: by the names and shapes of the
    tensors."""

    program: Program
    frames: int
    gop: int = 4
    latents: tuple[float, int] = (0.5, 20)
    grids: tuple[float, int] = (0.5, 20)
    motion: tuple[float, int] = (0.2, 6)
    appearance: tuple[float, int] = (0.2, 5)
    empty: float = 0.0
    least: tuple[int, ...] = (63,) * APPEARANCE_GAINS
    quantiser: int | None = None  # None: drawn
    tensors: Callable[[Random, tuple[int, ...]], ConvSymbols] | None = None
    scale_spread: int = 4
    start: bytes = b""
    code: tuple[float, int] = (0.0, 0)
    changes: Callable[[Random, Mapping[str, tuple[int, ...]]], dict[str, TensorChange]] | None = None
    predicts: bool = True


def drawn(random: Random, shape: Sequence[int], chance: float, amplitude: int) -> np.ndarray:
    """Integers of -amplitude..amplitude, 0 but for a share of them."""
    out = np.zeros(math.prod(shape), dtype=np.int32)
    for i in range(out.size):
        if random.random() < chance:
            out[i] = int(random.random() * (2 * amplitude + 1)) - amplitude
    return out.reshape(shape)


def within(random: Random, low: int, high: int) -> int:
    return low + int(random.random() * (high - low + 1))


def plain_tensors(chance: float = 0.4, amplitude: int = 7, gain: int = 0) -> Callable[..., ConvSymbols]:
    """Sparse weights, with scales that keep the size of what is convolved, times ``2**(gain / 8)``."""

    def make(random: Random, shape: tuple[int, ...]) -> ConvSymbols:
        weight = drawn(random, shape, chance, amplitude)
        squares = max(1, int((weight.astype(np.int64) ** 2).sum()) // shape[0])
        middle = gain - round(EXPONENT_STEPS * math.log2(squares) / 2)
        exponent = np.array([middle + within(random, -4, 4) for _ in range(shape[0])], np.int32)
        return ConvSymbols(weight, exponent, drawn(random, shape[:1], 0.7, 60), within(random, 0, 2))

    return make


def wide_tensors(random: Random, shape: tuple[int, ...]) -> ConvSymbols:
    """Dense weights of all sizes. Scales that keep the size of what is convolved, but for a few; or the smallest or the
    largest ones there are."""
    found = plain_tensors(0.5, WEIGHT_BOUND)(random, shape)
    kind = random.random()
    if kind < 0.2:
        found.exponent[:] = [EXPONENT_LOW + within(random, 0, 60) * (i > 0) for i in range(shape[0])]
    elif kind < 0.4:
        found.exponent[:] = [EXPONENT_HIGH - within(random, 0, 120) * (i > 0) for i in range(shape[0])]
    bias_shift = within(random, 0, 15)
    return ConvSymbols(found.weight, found.exponent, drawn(random, shape[:1], 1.0, WEIGHT_BOUND), bias_shift)


def largest_tensors(bound: int) -> Callable[..., ConvSymbols]:
    """Of a convolution of many weights the largest sum there may be with values up to ``bound``; one of a single input
    makes that bound out of nothing."""
    largest = min((1 << 17) - 1, ((1 << 31) - 1) // bound)

    def make(random: Random, shape: tuple[int, ...]) -> ConvSymbols:
        count, length = shape[0], math.prod(shape[1:])
        if length == 1:
            zeros = np.zeros(count, np.int32)
            return ConvSymbols(np.zeros(shape, np.int32), zeros, zeros + WEIGHT_BOUND, 15)
        weight = np.zeros((count, length), np.int32)
        for row in weight:
            whole, rest = divmod(largest, WEIGHT_BOUND)
            row[:whole] = WEIGHT_BOUND
            row[whole : whole + 1] = rest
        for row in weight[1:]:
            for i in range(length):
                row[i] *= 1 if random.random() < 0.5 else -1
        half = EXPONENT_STEPS * (bound.bit_length() - 1 - (largest * bound).bit_length())  # of the largest value
        exponent = np.array([half + 40 * min(i, 1) for i in range(count)], np.int32)
        return ConvSymbols(weight.reshape(shape), exponent, drawn(random, (count,), 1.0, 9), 0)

    return make


def implicit_segment(
    random: Random, plan: ProgramPlan, number: int, geometry: FrameGeometry
) -> tuple[bytes, list[Planes]]:
    """The payload of a segment with the program ``number`` of the file, and its frames."""
    program = plan.program
    shapes = program.shapes(Sizes(geometry.half, geometry.blocks, plan.frames))
    levels = [shapes[n] for n, _ in sorted(program.of(LatentInput), key=lambda found: found[1].level)]
    grids = [(node, shapes[n]) for n, node in sorted(program.of(GridInput), key=lambda found: found[1].level)]
    make = plan.tensors or plain_tensors()
    convolutions: dict[int, ConvSymbols] = {}
    changes: dict[str, TensorChange] = {}
    code = np.zeros(0, np.int32)
    if plan.changes is not None:
        code = drawn(random, (find_start(plan.start, program.convolutions(shapes)).count,), *plan.code)
        changes = plan.changes(random, {s.name: s.shape for s in tensor_specs(program.convolutions(shapes))})
    else:
        convolutions = {n: make(random, shape) for n, shape in program.convolutions(shapes)}
    classes = 2 if program.refers else 1
    scales = [_scales(random, plan, plan.latents, (classes, shape.channels)) for shape in levels]
    scales += [_scales(random, plan, plan.grids, (classes, shape.channels)) for _, shape in grids]
    grid_symbols = {node.level: drawn(random, (node.slices, *shape), *plan.grids) for node, shape in grids}
    least = Quantiser()
    if program.has_residual:
        least = Quantiser(tuple(within(random, 0, most) for most in plan.least))
    given = SegmentTensors(
        convolutions, LatentModel(tuple(scales)), {k: torch.from_numpy(g).float() for k, g in grid_symbols.items()},
        changes, least, code,
    )  # fmt: skip
    writer = ImplicitWriter(
        ImplicitHeader(number, plan.gop, plan.start, plan.predicts),
        program,
        given,
        geometry,
        plan.frames,
        torch.device("cpu"),
    )
    outputs: dict[int, Planes] = {}
    for unit in writer.units:
        latents = [_latent(random, plan, len(unit.frames), shape) for shape in levels]
        motion = []
        if unit.reference_count and program.moves:
            motion = [
                torch.from_numpy(drawn(random, tuple(level.shape), *plan.motion).astype(np.float32))
                for level in HybridSymbols.empty(unit, geometry).motion
            ]
        quantiser = within(random, 0, 63) if plan.quantiser is None else plan.quantiser
        appearance = []
        if program.has_residual:
            appearance = [_appearance(random, plan, len(unit.frames), s) for s in appearance_shapes(geometry)]
        symbols = UnitSymbols(latents, motion, appearance, quantiser)
        for display, state in writer.code(symbols).items():
            outputs[display] = output_planes(
                state.frame.appearance.packed, geometry.width, geometry.height, geometry.bit_depth
            )
    return writer.finish(), [outputs[n] for n in range(plan.frames)]


def _scales(random: Random, plan: ProgramPlan, amplitude: tuple[float, int], shape: tuple[int, int]) -> np.ndarray:
    """Scales that are near those of such symbols."""
    sample = drawn(Random(1), (1, 200), *amplitude)
    middle = int(best_scale(sample)[0])
    near = [middle + within(random, -plan.scale_spread, plan.scale_spread) for _ in range(math.prod(shape))]
    return np.clip(np.array(near), 0, 63).reshape(shape)


def _latent(random: Random, plan: ProgramPlan, frames: int, shape: Shape) -> torch.Tensor:
    return _level(random, plan, plan.latents, (frames, *shape))


def _appearance(random: Random, plan: ProgramPlan, frames: int, shape: tuple[int, int, int]) -> torch.Tensor:
    return _level(random, plan, plan.appearance, (frames, *shape))


def _level(random: Random, plan: ProgramPlan, amplitude: tuple[float, int], shape: tuple[int, ...]) -> torch.Tensor:
    symbols = drawn(random, shape, *amplitude).astype(np.float32)
    for frame in symbols:
        if random.random() < plan.empty:
            frame[:] = 0
    return torch.from_numpy(symbols)


# ---------------------------------------------------------------- programs


class Body:
    """Nodes one by one."""

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.nodes: list[Operation] = []
        self.levels = 0

    def __call__(self, kind: type[Operation], *operands: int, **parameters: int) -> int:
        self.nodes.append(kind(operands, **parameters))
        return len(self.nodes) - 1

    def program(self) -> Program:
        made = Program(self.bits, tuple(self.nodes))
        made.check_structure()
        return Program.parse(made.write())

    def latent(self, channels: int, rows: int, columns: int, gain: int) -> int:
        self.levels += 1
        size = {"channels": channels, "rows": rows, "columns": columns}
        return self(LatentInput, level=self.levels - 1, gain=gain, **size)

    def grid(self, slices: int, channels: int, rows: int, columns: int, gain: int) -> int:
        self.levels += 1
        size = {"channels": channels, "rows": rows, "columns": columns}
        return self(GridInput, level=self.levels - 1, slices=slices, gain=gain, **size)

    def any_values(self, channels: int, rows: int, columns: int) -> int:
        """Values of all sizes, and as many that are mostly the largest and the smallest: twice the channels."""
        upper, lower = self.latent(channels, rows, columns, self.bits - 8), self.latent(channels, rows, columns, 0)
        whole = self(Addition, upper, lower)
        return self(Concatenation, whole, self(Rescaling, whole, left=9))

    def joined(self, parts: Sequence[int]) -> int:
        """All channels of many nodes."""
        while len(parts) > 1:
            parts = [self(Concatenation, *parts[i : i + 32]) for i in range(0, len(parts), 32)]
        return parts[0]

    def convolved(self, x: int, channels: int, kernel: int = 1, groups: int = 1) -> int:
        return self(Convolution, x, channels=channels, kernel=kernel, groups=groups)

    def table(self, x: int, function: Function, fraction_in: int = 8, fraction_out: int = 8) -> int:
        return self(Table, x, function=int(function), fraction_in=fraction_in, fraction_out=fraction_out)

    def shown(self, parts: Sequence[int], rows: int, columns: int, channels: int) -> Program:
        """Ends with samples that tell all values of ``parts`` apart, of so many channels in all."""
        assert channels * rows % 2 == 0
        x = self.joined(parts)
        upper = self(Rescaling, x, shift=max(0, self.bits - 10))
        turned = self(Addition, x, self(QuantiserInput))
        lower = [self.table(n, Function.SINE, 8, 9) for n in (x, turned)]
        self(
            SamplesOutput,
            self(Reshaping, self(Concatenation, upper, *lower), channels=6, rows=channels * rows // 2, columns=columns),
        )
        return self.program()

    def spread(self, parts: Iterable[tuple[int, int]]) -> Program:
        """Ends with samples of values of any sizes: nodes with how many elements they have."""
        flat, total = [], 0
        for node, elements in parts:
            flat.append(self(Reshaping, node, channels=elements, rows=1, columns=1))
            total += elements
        if total % 2:
            flat.append(self(Slicing, flat[0], start=0, channels=1))
        return self.shown(flat, 1, 1, total + total % 2)


def picture_of(program: Program) -> tuple[int, int]:
    """Width and height in luma samples of what a program without references makes."""
    ((_, samples),) = program.of(SamplesOutput)
    shape = program.shapes(Sizes((1, 1), (1, 1), 1))[samples.operands[0]]
    return 2 * shape.columns, 2 * shape.rows


def elements(bits: int) -> Program:
    """Add, multiply and rescale with all shifts, of values of all sizes, and with all ways to repeat an operand."""
    body = Body(bits)
    x, y = body.any_values(1, 2, 4), body.any_values(1, 2, 4)
    row, one = body(Fitting, y, rows=1, columns=4), body(TimeInput)
    channel, column = body(Slicing, y, start=1, channels=1), body(Fitting, y, rows=2, columns=1)
    parts = []
    for shift in range(31):
        parts.append(body(Addition, x, y, left=shift % 16, right=shift * 7 % 16, shift=shift))
        parts.append(body(Multiplication, x, y, shift=shift))
        parts.append(body(Rescaling, x, left=shift * 5 % 16, shift=shift))
    for kind in (Addition, Multiplication):
        parts += [body(kind, x, other, shift=1) for other in (row, one, channel, column)]
        parts += [body(kind, other, x, shift=7) for other in (row, one, channel, column)]
    parts += [body(Addition, x, y, left=15, right=15, shift=30), body(Addition, x, x), body(Multiplication, y, y)]
    return body.shown(parts, 2, 4, 2 * len(parts))


def functions(bits: int) -> Program:
    """All functions with all fixed points, from the smallest value to the largest."""
    body = Body(bits)
    ramp = body(Slicing, body(CoordinatesInput, rows=2, columns=24), start=1, channels=1)
    x = body(Addition, ramp, body.latent(1, 2, 24, 2 if bits > 11 else 0))
    parts = [body.table(x, Function.RELU), body.table(x, Function.LEAKY_RELU, 16, 14)]
    for function in (Function.GELU, Function.SIGMOID, Function.TANH, Function.SINE):
        parts += [body.table(x, function, fraction, (fraction * 7 + function) % 15) for fraction in range(17)]
        parts += [body.table(x, function, max(0, bits - 4), fraction) for fraction in range(15)]
    return body.shown(parts, 2, 24, len(parts))


def whole_tables() -> Program:
    """Every entry of every table of a function."""
    body = Body(16)
    ramp = body(Slicing, body(CoordinatesInput, rows=1, columns=1024), start=1, channels=1)
    x = body(Rescaling, ramp, shift=6)  # -511 to 512
    parts = [body.table(x, function, 6, 14) for function in (Function.GELU, Function.SIGMOID, Function.TANH)]
    parts += [body.table(x, Function.GELU, 6, 12), body.table(x, Function.SINE, 8, 14)]
    parts.append(body.table(body(Addition, x, x), Function.SINE, 9, 13))
    return body.shown(parts, 1, 1024, 6)


def convolutions(bits: int) -> Program:
    """All kernels and several groups, outputs of one channel and of many."""
    body = Body(bits)
    x = body.any_values(3, 6, 5)
    parts, channels = [], 0
    for kernel in (1, 3, 5, 7, 9):
        for count, groups in ((4, 1), (4, 2), (6, 3), (6, 6), (12, 6), (1, 1)):
            if kernel < 7 or groups > 1:
                parts.append(body.convolved(x, count, kernel, groups))
                channels += count
    behind = body.convolved(body.table(parts[0], Function.GELU), 3)
    return body.shown([*parts, behind], 6, 5, channels + 3)


def largest_sums(bits: int) -> Program:
    """A convolution whose sums reach the bound, of values that are all the largest, and of values of any sign."""
    body = Body(bits)
    start = body(Slicing, body.any_values(1, 4, 6), start=0, channels=1)
    constant = body.convolved(start, 13)
    signs = body(Rescaling, body.latent(13, 4, 6, 8), left=9)
    parts = [body.convolved(constant, 2, 9), body.convolved(signs, 2, 9)]
    return body.shown(parts, 4, 6, 4)


def norms(bits: int) -> Program:
    """Of 512 channels and of few, with all fractions, and where all channels are the same."""
    body = Body(bits)
    half = body.any_values(32, 8, 1)  # 64 channels
    whole = body(Reshaping, half, channels=512, rows=1, columns=1)
    nothing = body(Multiplication, whole, body(TimeInput), shift=30)
    same = body(Addition, nothing, body(QuantiserInput))
    largest = body(Rescaling, whole, left=15)
    parts = []
    for fraction in range(15):
        made = body(Normalisation, largest if fraction % 3 == 0 else whole, fraction=fraction)
        parts.append(body(Slicing, made, start=17 * fraction, channels=4))
    parts += [body(Slicing, body(Normalisation, x, fraction=9), start=500, channels=4) for x in (nothing, same)]
    for count in (1, 2, 3, 5, 64, 511):
        made = body(Normalisation, body(Slicing, whole, start=0, channels=count), fraction=8)
        parts.append(body(Slicing, made, start=0, channels=1))
    return body.shown(parts, 1, 1, 4 * 17 + 6)


def roots() -> Program:
    """Norms of many unlike values, so that most of the table of roots is used."""
    body = Body(15)
    place_ = body(CoordinatesInput, rows=60, columns=64)
    y, x = (body(Slicing, place_, start=n, channels=1) for n in (0, 1))
    seen = body(
        Concatenation, y, x, body(Addition, y, x, left=1, right=2, shift=2), body(Multiplication, y, x, shift=13)
    )
    return body.shown([body(Normalisation, seen, fraction=13)], 60, 64, 4)


def orders() -> Program:
    """Shuffle, unshuffle, upsampling, slices, fits and reshapes, with their smallest and largest factors."""
    body = Body(14)
    x = body.any_values(32, 2, 2)  # 64 channels
    first = body(Slicing, x, start=1, channels=1)
    parts = []
    for factor in range(2, 9):
        shuffled = body(Shuffle, body(Slicing, x, start=0, channels=factor**2), factor=factor)
        parts.append((shuffled, 4 * factor**2))
        fitted = body(Fitting, x, rows=factor, columns=2 * factor)
        few = body(Slicing, fitted, start=63, channels=1)
        parts.append((body(Unshuffle, few, factor=factor), 2 * factor**2))
    for factor in (2, 3, 4, 5, 6, 7, 8, 13, 32):
        parts += [(body(Upsampling, first, factor=factor, bilinear=kind), 4 * factor**2) for kind in (0, 1)]
    for rows, columns in ((1, 1), (1, 5), (7, 1), (5, 6)):
        parts.append((body(Fitting, first, rows=rows, columns=columns), rows * columns))
    parts.append((body(Reshaping, x, channels=2, rows=16, columns=8), 256))
    parts.append((body(Concatenation, *[first] * 32), 128))
    parts.append((body(Concatenation, first), 4))
    return body.spread(parts)


def warps(bits: int) -> Program:
    """All sizes of blocks; vectors that are small, large, and far outside; fields that are larger than needed."""
    body = Body(bits)
    x = body.any_values(1, 13, 11)
    parts = []
    for block_log2, (rows, columns) in enumerate(((13, 11), (7, 6), (4, 4), (2, 2))):
        near = body.latent(2, rows, columns, 0)
        far = body(Rescaling, near, left=4)
        beyond = body(Rescaling, near, left=15)
        wider = body(Fitting, near, rows=rows + 1, columns=columns + 3)
        parts += [body(Warping, x, v, block_log2=block_log2) for v in (near, far, beyond, wider)]
    return body.shown(parts, 13, 11, 2 * len(parts))


def inputs(bits: int, most: int, widest: int) -> Program:
    """Time, phases, coordinates, latents of all gains and up to ``widest`` channels, grids of 1 to ``most`` slices."""
    body = Body(bits)
    parts = [(body(TimeInput), 1)]
    for count, base in ((1, 256), (128, 256), (12, 1024), (72, 320), (17, 617)):
        parts.append((body(PhasesInput, count=count, base=base), 2 * count))
    for rows, columns in ((1, 1), (2, 3), (7, 5), (1, 64)):
        parts.append((body(CoordinatesInput, rows=rows, columns=columns), 2 * rows * columns))
    for slices, rows, columns, gain in ((1, 3, 2, 5), (2, 2, 2, 8), (3, 1, 4, 0), (5, 2, 1, 3), (most, 1, 1, 6)):
        parts.append(
            (body.grid(slices, 2 if slices < 9 else 1, rows, columns, gain), (2 if slices < 9 else 1) * rows * columns)
        )
    for gain in range(9):
        parts.append(
            (body.latent(1 + gain % 3, 1 + gain % 2, 2 + gain, gain), (1 + gain % 3) * (1 + gain % 2) * (2 + gain))
        )
    parts.append((body.latent(widest, 1, 1, 4), widest))
    parts.append((body.latent(1, 2, 3, 4), 6))
    parts.append((body(QuantiserInput), 1))
    return body.spread(parts)


def levels() -> Program:
    """Latents of unlike sizes, from coarse to fine and back, each with what the one before says of it."""
    body = Body(12)
    parts = []
    for channels, rows, columns in ((3, 2, 3), (1, 9, 7), (4, 9, 7), (2, 20, 1), (5, 5, 5), (1, 1, 1), (2, 11, 13)):
        parts.append((body.latent(channels, rows, columns, 4), channels * rows * columns))
    return body.spread(parts)


def references(bits: int, size: tuple[int, int], reach: int = 0) -> Program:
    """All that a frame can see of others: two references, states at two scales, corrections, all inputs. ``reach``:
    how many bits larger corrections are."""
    body = Body(bits)
    geometry = FrameGeometry(*size)
    (rows, columns), (block_rows, block_columns) = geometry.half, geometry.blocks
    half, quarter = (rows, columns), (-(-rows // 2), -(-columns // 2))
    coarse = body.latent(2, block_rows, block_columns, 3)
    fine = body.latent(3, *half, 4)
    grid = body.grid(3, 2, block_rows, block_columns, 3)
    vectors = [body(VectorsInput, slot=k) for k in (0, 1)]
    states = [body(StateInput, slot=k, index=7, channels=4, rows=half[0], columns=half[1]) for k in (0, 1)]
    smaller = [body(StateInput, slot=k, index=0, channels=3, rows=quarter[0], columns=quarter[1]) for k in (0, 1)]
    scalars = [body(kind, slot=k) for kind in (PresenceInput, DistanceInput) for k in (0, 1)]
    scalars += [body(DepthInput), body(QuantiserInput), body(TimeInput)]
    told = body.convolved(body(Concatenation, *scalars), 8)

    rough = body(
        Warping, smaller[1], body(Rescaling, body(Fitting, vectors[1], rows=quarter[0], columns=quarter[1]), left=0)
    )
    for slot in (0, 1):
        near = body(Concatenation, vectors[slot], coarse, body(Fitting, rough, rows=block_rows, columns=block_columns))
        offset = body(Addition, body.convolved(near, 2, 3), grid, left=reach, right=3 * slot)
        body(Correction, offset, slot=slot)

    final = [body(VectorsInput, slot=k, final=1) for k in (0, 1)]
    warped = [body(Warping, s, body(Rescaling, v, left=1), block_log2=2) for s, v in zip(states, final, strict=True)]
    below = [body(Warping, s, v, block_log2=1) for s, v in zip(smaller, final, strict=True)]
    enlarged = body(Upsampling, body(Concatenation, *below), factor=2, bilinear=1)
    pictures = [body(PictureInput, slot=k) for k in (0, 1)]
    prediction = body(PredictionInput)
    seen = body(
        Concatenation, prediction, body(DifferenceInput), *pictures, *warped, fine,
        body(Fitting, enlarged, rows=rows, columns=columns),
        body(Fitting, body(Rescaling, final[0], shift=2), rows=rows, columns=columns),
    )  # fmt: skip
    hidden = body(Addition, body.convolved(seen, 8, 3), told)
    hidden = body.table(hidden, Function.GELU)
    body(StateOutput, body.convolved(hidden, 4, 1), index=7)
    even = body(Fitting, hidden, rows=2 * quarter[0], columns=2 * quarter[1])
    body(StateOutput, body.convolved(body(Unshuffle, even, factor=2), 3), index=0)
    body(SamplesOutput, body(Addition, prediction, body.convolved(hidden, 6, 3), left=0))
    return body.program()


def residual(bits: int, size: tuple[int, int]) -> Program:
    """A residual on the prediction: motion is corrected by its planes at level 2, and the samples by a convolution of
    what is predicted, of the residual itself and of a state."""
    body = Body(bits)
    geometry = FrameGeometry(*size)
    (rows, columns), (block_rows, block_columns) = geometry.half, geometry.blocks
    coarse = body(Fitting, body(ResidualInput, level=2), rows=block_rows, columns=block_columns)
    vectors = [body(VectorsInput, slot=k) for k in (0, 1)]
    offsets = body.convolved(body(Concatenation, coarse, *vectors), 4, 3)
    for slot in (0, 1):
        body(Correction, body(Slicing, offsets, start=2 * slot, channels=2), slot=slot)
    state = body(StateInput, slot=0, index=2, channels=4, rows=rows, columns=columns)
    final = body(Rescaling, body(VectorsInput, slot=0, final=1), left=1)
    warped = body(Warping, state, final, block_log2=2)
    prediction, fine = body(PredictionInput), body(ResidualInput, level=0)
    told = body.convolved(body(Concatenation, body(DepthInput), body(QuantiserInput)), 8)
    hidden = body(Addition, body.convolved(body(Concatenation, prediction, fine, warped), 8, 3), told)
    hidden = body.table(hidden, Function.GELU)
    body(StateOutput, body.convolved(hidden, 4), index=2)
    rough = body(Addition, prediction, fine)
    body(SamplesOutput, body(Addition, rough, body.convolved(hidden, 6, 3), right=0, shift=0))
    return body.program()


def planes_of_residual(level: int, size: tuple[int, int], *, lower: bool = False) -> Program:
    """The residual at a level, and nothing else: upper bits, and lower ones by a sine; at level 0 either of them."""
    body = Body(12)
    rows, columns = FrameGeometry(*size).half
    x = body(ResidualInput, level=level)
    if level == 0:
        body(SamplesOutput, body.table(x, Function.SINE, 6, 9) if lower else body(Rescaling, x, shift=1))
    else:
        both = body(Concatenation, body(Rescaling, x, shift=1), body.table(x, Function.SINE, 6, 9))
        body(SamplesOutput, body(Fitting, both, rows=rows, columns=columns))
    return body.program()


def added_residual(size: tuple[int, int]) -> Program:
    """A residual on a state: frames refer to others, but have no motion; neither convolutions nor latents."""
    body = Body(14)
    rows, columns = FrameGeometry(*size).half
    state = body(StateInput, slot=1, index=0, channels=6, rows=rows, columns=columns)
    made = body(Addition, body(Rescaling, state, shift=1), body(ResidualInput, level=0))
    body(StateOutput, made, index=0)
    body(SamplesOutput, made)
    return body.program()


def drawn_changes(random: Random, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, TensorChange]:
    """Changes of most tensors, small ones of many elements, and large ones of a few, which are clipped."""
    found = {}
    for number, spec in enumerate(TensorSpec(name, shape, 0, WEIGHT_BOUND) for name, shape in shapes.items()):
        if number % 5 == 3:
            continue
        chance, amplitude, step = ((0.3, 3, 0), (0.1, 8, 1), (0.02, 127, 15), (0.2, 4, 3))[number % 4]
        symbols = drawn(random, spec.shape, chance, amplitude)
        found[spec.name] = TensorChange(symbols, step, best_scales(symbols, spec))
    return found


def nerv(size: tuple[int, int]) -> Program:
    """After NeRV: time as phases, then blocks of convolution, shuffle and GELU."""
    body = Body(14)
    rows, columns = FrameGeometry(*size).half
    x = body.table(body(PhasesInput, count=10, base=320), Function.SINE, 14, 10)
    x = body.table(body.convolved(x, 24), Function.GELU)
    x = body.table(body.convolved(x, 8 * 3 * 4), Function.GELU)
    x = body(Reshaping, x, channels=8, rows=3, columns=4)
    for channels in (8, 6):
        x = body(Shuffle, body.convolved(x, channels * 4, 3), factor=2)
        x = body.table(x, Function.GELU)
    x = body.table(body.convolved(x, 6, 3), Function.TANH, 8, 9)
    body(SamplesOutput, body(Fitting, x, rows=rows, columns=columns))
    return body.program()


def siren(size: tuple[int, int]) -> Program:
    """After SIREN: coordinates and time through sines."""
    body = Body(16)
    rows, columns = FrameGeometry(*size).half
    place_ = body.convolved(body(CoordinatesInput, rows=rows, columns=columns), 16)
    x = body(Addition, place_, body.convolved(body(TimeInput), 16))
    for _ in range(2):
        x = body.convolved(body.table(x, Function.SINE, 13, 13), 16)
    x = body.convolved(body.table(x, Function.SINE, 13, 13), 6)
    body(SamplesOutput, body(Rescaling, x, shift=4))
    return body.program()


def hinerv(size: tuple[int, int]) -> Program:
    """After HiNeRV: grids of several slices, bilinear upsampling, ConvNeXt blocks."""
    body = Body(12)
    rows, columns = FrameGeometry(*size).half
    x = body.grid(3, 8, 3, 4, 4)
    for slices, height, width in ((2, 6, 8), (1, 12, 16)):
        grid = body.convolved(body.grid(slices, 2, height, width, 4), 8)
        x = body(Addition, body(Upsampling, x, factor=2, bilinear=1), grid)
        inner = body(Normalisation, body.convolved(x, 8, 5, 8), fraction=7)
        inner = body.convolved(body.table(body.convolved(inner, 16), Function.GELU, 7, 7), 8)
        x = body(Addition, x, inner)
    x = body.convolved(body(Fitting, x, rows=rows, columns=columns), 6, 3)
    body(SamplesOutput, x)
    return body.program()


HNERV = (
    "DBIgAA8AAQQBAAAAAQUACAgBAasCAAABBgMBBQAICAEBLwIAAQYAAQUACAgBAS8EAAEGAAEFAAgIAQECAgABBwABAQUAAAEFAggIAQQBAAFAAQ=="
)
CWRNN = (
    "Dk4gAQECBAQgAAEBAgQIAAEBCwIEASkAAQcECCgAAA4BAgELBQkBBwABKQEBBwQIKAEADgECAQsFCQEHAAEEBAAOBAQADAkECAMCAQELAAABBQ"
    "QAAAEBAwIAAQEBAAABBAAIAUIAAQEBAAAEBAAIAUIBASUmCwkRAgcAAQEHAAABKAABDgEcASgBAQ4BGQEIAAEjCwQIAQgAASILBAgBIAIABAgE"
    "BAQAAQQEAAUEBAAECQYNCwkDAgEBCwIAAQUEAAABAQcCAAEIAAEBCwkQASkAAAcJEAQBABMOAgIBKQEABwkQBAEAFA4CAgEgAwAJEAQEAAIeBA"
    "ACHgQEAAMJBgMCCAULAQELAgABKgAqAQQABAIEAAQCCQICAQELAAABAgAAAAcBBQQAAAEBCwIAAQUEAAABAQUCAAECAAICLgEEAgABQAEBBwAA"
    "BUEAAUEBHw=="
)
"""Programs, in base64, as the models made them for pictures of 40x20 and 34x20 when these vectors were first made: what
models become later changes no vector."""


def kept(coded: str) -> Program:
    return Program.parse(base64.b64decode(coded))


def flat(gain: int) -> Program:
    """One latent in each sample."""
    body = Body(12)
    body(SamplesOutput, body.latent(6, 4, 5, gain))
    return body.program()


# ---------------------------------------------------------------- files

FULL = (1.0, WEIGHT_BOUND)
ALL_BITS = range(8, 17)
File = tuple[str, tuple[int, int], list[ProgramPlan]]


def program_files() -> dict[str, File]:
    """Description, size of the picture and segments of each vector."""
    files: dict[str, File] = {}

    def add(name: str, description: str, *plans: ProgramPlan, size: tuple[int, int] | None = None) -> None:
        files[f"program_{name}"] = (description, size or picture_of(plans[0].program), list(plans))

    add("elements", "add, multiply and rescale with all shifts, 8 to 16 activation bits: nine sections PROGRAM",
        *(ProgramPlan(elements(bits), 2, 1, FULL, quantiser=63) for bits in ALL_BITS))  # fmt: skip
    add("functions", "all functions and fixed points from the smallest value to the largest",
        *(ProgramPlan(functions(bits), 1, 1, FULL, quantiser=63) for bits in (8, 11, 16)))  # fmt: skip
    add("tables", "every entry of the tables of functions", ProgramPlan(whole_tables(), 1, 1, quantiser=63))
    add("convolutions", "kernels 1 to 9, groups, scales of 2^-32 to 2^12, largest biases; sums beyond 2^24",
        *(ProgramPlan(convolutions(bits), 2, 2, FULL, tensors=wide_tensors) for bits in (9, 16)))  # fmt: skip
    for bits in (8, 15, 16):
        add(f"sums_{bits}", f"largest sums of weights at {bits} activation bits",
            ProgramPlan(largest_sums(bits), 2, 2, FULL, tensors=largest_tensors((1 << (bits - 1)) - 1)))  # fmt: skip
    add("norms", "norm of 512 channels and fewer, all fractions, no variance",
        *(ProgramPlan(norms(bits), 1, 1, FULL, quantiser=60) for bits in (8, 16)),
        ProgramPlan(norms(12), 2, 2, (0.02, 1), quantiser=1))  # fmt: skip
    add("roots", "norms that use most of the table of roots", ProgramPlan(roots(), 1, 1, quantiser=63))
    add("orders", "shuffle, unshuffle, upsample, slice, fit, reshape, concat of 32", ProgramPlan(orders(), 1, 1, FULL))
    add("warps", "warps with blocks of 1 to 8, vectors far outside",
        *(ProgramPlan(warps(bits), 1, 1, FULL) for bits in (10, 16)))  # fmt: skip
    add("inputs", "time, phases, coordinates, latents of all gains, grids of 1 to 1024 slices; empty and full levels",
        ProgramPlan(inputs(16, 50, 4), 7, 3, FULL, FULL, empty=0.3),
        ProgramPlan(inputs(9, 1024, 64), 2, 64, FULL, (0.01, 9)))  # fmt: skip
    add("levels", "latents of unlike sizes, each after the other; scales of channels far apart",
        ProgramPlan(levels(), 9, 4, (0.3, 9), empty=0.2, scale_spread=60))  # fmt: skip
    for bits, name in ((12, "references"), (8, "references_8")):
        for_size = (35, 21) if bits == 12 else (18, 34)
        add(name, f"two references, states at two scales, corrections of motion, all inputs; {bits} activation bits",
            ProgramPlan(references(bits, for_size), 6, 4, (0.3, 6), motion=(0.3, 9)), size=for_size)  # fmt: skip
    add("far_motion", "motion of up to 127 at every level, corrections beyond the bound of a field",
        ProgramPlan(references(16, (26, 19), 5), 5, 2, (0.5, 127), (1.0, 127), (1.0, 127)), size=(26, 19))  # fmt: skip
    size = (30, 22)
    add("nerv", "a program like NeRV, drawn weights", ProgramPlan(nerv(size), 4, 3), size=size)
    add("siren", "a program like SIREN, drawn weights", ProgramPlan(siren(size), 3, 2), size=size)
    add("hinerv", "a program like HiNeRV, drawn weights", ProgramPlan(hinerv(size), 4, 4), size=size)
    add("hnerv", "HNeRV, drawn weights",
        ProgramPlan(kept(HNERV), 3, 2), size=(40, 20))  # fmt: skip
    add("cwrnn", "CWRNN, drawn weights: key frame, P frames, B frames of depth 2 to 4",
        ProgramPlan(kept(CWRNN), 9, 8, (0.2, 6)), size=(34, 20))  # fmt: skip
    size = (43, 26)
    add("residual", "residuals at levels 0 and 2, a state, corrections of motion: key frame, P frames, B frames",
        ProgramPlan(residual(12, size), 6, 4, least=(9, 20, 30, 40, 50, 60)),
        ProgramPlan(residual(9, size), 3, 2, empty=0.4, least=(0,) * 6), size=size)  # fmt: skip
    add("residual_depths", "residuals in B frames down to depth 7",
        ProgramPlan(residual(10, (3, 2)), 34, 64, motion=(0.1, 4), appearance=(0.6, 5), least=(20,) * 6, quantiser=12),
        size=(3, 2))  # fmt: skip
    size = (37, 23)
    kinds = ((0, False), (0, True), (1, False), (2, False), (3, False), (4, False))
    add("residual_levels", "residuals at every level, and nothing else; symbols of up to 127, all gains",
        *(ProgramPlan(planes_of_residual(level, size, lower=lower), 3, 1, appearance=(0.3, 9), least=(level * 12,) * 6)
          for level, lower in kinds),
        ProgramPlan(planes_of_residual(0, size), 1, 1, appearance=FULL, quantiser=63),
        ProgramPlan(planes_of_residual(2, size), 1, 1, appearance=FULL, quantiser=0, least=(0,) * 6),
        size=size)  # fmt: skip
    add("residual_states", "residuals in frames that refer to states alone",
        ProgramPlan(added_residual((18, 5)), 7, 4, least=(30,) * 6, quantiser=8), size=(18, 5))  # fmt: skip
    add("residual_line", "residuals of a picture of one column: lines of one sample",
        ProgramPlan(planes_of_residual(0, (1, 40)), 2, 1, least=(40,) * 6), size=(1, 40))  # fmt: skip
    return files
