"""A program of the exact machine: a list of operations, its coded form, and the limits that it keeps.

::

    activation_bits u(8) | node_count leb128 | nodes: code u(8), [operand count leb128], parameters leb128,
                                                      operands leb128 (how many nodes back, 1 is the one before)

An operand is an earlier node, so that a program has no cycles. Everything is checked before anything is allocated or
run: ``parse`` what does not depend on the picture, ``check`` the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from nvcodec.bitstream.bitio import BitReader, BitWriter
from nvcodec.core import limits
from nvcodec.core.errors import LimitError, SyntaxViolation, UnsupportedError
from nvcodec.exact import (
    arrangement,
    convolution,
    latents,
    normalisation,
    outputs,
    pointwise,
    position,
    references,
    warping,
)
from nvcodec.exact.arithmetic import MAX_ACTIVATION_BITS, MIN_ACTIVATION_BITS
from nvcodec.exact.convolution import Convolution, ConvTensors
from nvcodec.exact.latents import GridInput, LatentInput
from nvcodec.exact.operation import OPERATIONS, Operation, Shape, Sizes
from nvcodec.exact.outputs import Correction, SamplesOutput, StateOutput
from nvcodec.exact.references import (
    DifferenceInput,
    PictureInput,
    PredictionInput,
    ResidualInput,
    StateInput,
    VectorsInput,
)

__all__ = ["OPERATION_ROOMS", "Program"]

OPERATION_ROOMS = (
    arrangement, convolution, latents, normalisation, outputs, pointwise, position, references, warping,
)  # fmt: skip
"""Where the operations stand: to import them registers their codes."""
_MOTION_INPUTS = (PredictionInput, DifferenceInput, PictureInput, VectorsInput)
_Kind = TypeVar("_Kind", bound=Operation)


@dataclass(frozen=True)
class Program:
    """``bits``: of activations. ``nodes``: in the order in which they are run."""

    bits: int
    nodes: tuple[Operation, ...]

    def write(self) -> bytes:
        writer = BitWriter()
        writer.u(self.bits, 8)
        writer.leb128(len(self.nodes))
        for number, node in enumerate(self.nodes):
            writer.u(node.CODE, 8)
            if node.OPERANDS is None:
                writer.leb128(len(node.operands))
            for parameter in node.PARAMETERS:
                writer.leb128(getattr(node, parameter.name) - parameter.low)
            for operand in node.operands:
                writer.leb128(number - operand)
        return writer.finish()

    @staticmethod
    def parse(data: bytes) -> Program:
        """Raises UnsupportedError, LimitError or SyntaxViolation."""
        reader = BitReader(data)
        bits = reader.u(8, "activation_bits")
        if not MIN_ACTIVATION_BITS <= bits <= MAX_ACTIVATION_BITS:
            raise LimitError(f"activation_bits {bits} lies outside {MIN_ACTIVATION_BITS} .. {MAX_ACTIVATION_BITS}")
        count = reader.leb128("node_count")
        if not 1 <= count <= limits.MAX_PROGRAM_NODES:
            raise LimitError(f"a program of {count} nodes, allowed are 1..{limits.MAX_PROGRAM_NODES}")
        program = Program(bits, tuple(_parse_node(reader, number) for number in range(count)))
        reader.expect_end("program")
        program.check_structure()
        return program

    def needed_by(self, ends: Iterable[int]) -> set[int]:
        """The numbers of these nodes, and of all nodes that they depend on."""
        found: set[int] = set()
        left = list(ends)
        while left:
            number = left.pop()
            if number not in found:
                found.add(number)
                left += self.nodes[number].operands
        return found

    def check_structure(self) -> None:
        """Raise SyntaxViolation unless outputs, levels and states are what they must be."""
        if len(list(self.of(SamplesOutput))) != 1:
            raise SyntaxViolation(f"a program has one samples node, this one {len(list(self.of(SamplesOutput)))}")
        for name, keys in (
            ("store", [node.index for _, node in self.of(StateOutput)]),
            ("correct", [node.slot for _, node in self.of(Correction)]),
        ):
            if len(set(keys)) != len(keys):
                raise SyntaxViolation(f"two {name} nodes of one number")
        levels = [node.level for node in self.nodes if isinstance(node, LatentInput | GridInput)]
        if sorted(levels) != list(range(len(levels))):
            raise SyntaxViolation(f"levels {levels}: each of 0 .. {len(levels) - 1} must be there once")
        stored = {node.index for _, node in self.of(StateOutput)}
        for number, state in self.of(StateInput):
            if state.index not in stored:
                raise SyntaxViolation(f"node {number}: no state {state.index} is stored")
        for number, _ in self.of(Correction):
            if not self.moves:
                raise SyntaxViolation(f"node {number}: a program corrects motion, and looks at none")
            late = [n for n in sorted(self.needed_by([number])) if _comes_late(self.nodes[n])]
            if late:
                raise SyntaxViolation(f"node {number}: motion is corrected by node {late[0]}, which is warped by it")
        used = frozenset().union(*(node.operands for node in self.nodes))
        for number, node in enumerate(self.nodes):
            if number not in used and not isinstance(node, SamplesOutput | StateOutput | Correction):
                raise SyntaxViolation(f"node {number}: nothing uses this {node.NAME}")
            if number in used and isinstance(node, SamplesOutput | StateOutput | Correction):
                raise SyntaxViolation(f"node {number}: {node.NAME} is an end")

    def of(self, kind: type[_Kind]) -> Iterator[tuple[int, _Kind]]:
        """Number and operation of all nodes of a kind."""
        return ((n, node) for n, node in enumerate(self.nodes) if isinstance(node, kind))

    def shapes(self, sizes: Sizes) -> tuple[Shape, ...]:
        """Of what each node gives. Raises SyntaxViolation where operands do not fit, LimitError for a size beyond
        what any level allows."""
        found: list[Shape] = []
        for number, node in enumerate(self.nodes):
            if isinstance(node, LatentInput | GridInput) and node.channels > limits.MAX_LATENT_CHANNELS:
                raise LimitError(
                    f"node {number}: {node.NAME} of {node.channels} channels, at most {limits.MAX_LATENT_CHANNELS}"
                )
            try:
                shape = node.shape([found[n] for n in node.operands], sizes)
            except SyntaxViolation as error:
                raise SyntaxViolation(f"node {number}: {error}") from None
            if max(shape.rows, shape.columns) > limits.MAX_PROGRAM_SIDE or shape.channels > limits.MAX_PROGRAM_CHANNELS:
                raise LimitError(f"node {number}: {node.NAME} of {shape} is too large")
            found.append(shape)
        stored = {node.index: found[n] for n, node in self.of(StateOutput)}
        for number, node in self.of(StateInput):
            if stored[node.index] != found[number]:
                index = node.index
                raise SyntaxViolation(f"node {number}: state {index} is {stored[index]}, not {found[number]}")
        return tuple(found)

    def check(self, sizes: Sizes) -> None:
        """Raise LimitError or SyntaxViolation unless every decoder of such pictures can run it."""
        shapes = self.shapes(sizes)
        samples = sizes.limited_samples
        budget = limits.PROGRAM_ELEMENTS_A_SAMPLE * samples
        for name, found, allowed in (
            ("elements alive at once", self.most_alive(shapes), budget),
            ("elements of states", self.state_elements(shapes), limits.STATE_ELEMENTS_A_SAMPLE * samples),
            ("weights", self.weight_count(shapes), limits.MAX_PROGRAM_WEIGHTS),
            ("latents of a frame", self.latent_count(shapes), limits.LATENTS_A_SAMPLE * samples),
            (
                "multiplications a frame",
                self.multiplications(shapes),
                limits.MULTIPLICATIONS_A_SAMPLE * samples,
            ),
        ):
            if found > allowed:
                raise LimitError(f"a program with {found} {name}, allowed are {allowed}")

    def last_uses(self) -> list[int]:
        """Of each node the last one that reads it, or itself."""
        last = list(range(len(self.nodes)))
        for number, node in enumerate(self.nodes):
            for operand in node.operands:
                last[operand] = number
        return last

    def most_alive(self, shapes: tuple[Shape, ...]) -> int:
        """The most elements that are needed at once for a frame, unfolded copies not counted."""
        last, alive, most = self.last_uses(), 0, 0
        for number, shape in enumerate(shapes):
            alive += shape.elements
            most = max(most, alive)
            alive -= sum(shapes[n].elements for n in range(number + 1) if last[n] == number)
        return most

    def state_elements(self, shapes: tuple[Shape, ...]) -> int:
        return sum(shapes[n].elements for n, _ in self.of(StateOutput))

    def multiplications(self, shapes: tuple[Shape, ...]) -> int:
        """Of a frame."""
        return sum(
            node.multiplications([shapes[n] for n in node.operands], shape)
            for node, shape in zip(self.nodes, shapes, strict=True)
        )

    def convolutions(self, shapes: tuple[Shape, ...]) -> list[tuple[int, tuple[int, int, int, int]]]:
        """Node number and shape of the weights of each convolution, in the order of the program."""
        return [(n, node.weight_shape(shapes[node.operands[0]])) for n, node in self.of(Convolution)]

    def weight_count(self, shapes: tuple[Shape, ...]) -> int:
        return sum(a * b * c * d for _, (a, b, c, d) in self.convolutions(shapes))

    def latent_count(self, shapes: tuple[Shape, ...]) -> int:
        """The symbols of the largest frame, all slices of the grids in it."""
        frame = sum(shapes[n].elements for n, _ in self.of(LatentInput))
        return frame + sum(shapes[n].elements * node.slices for n, node in self.of(GridInput))

    @property
    def refers(self) -> bool:
        """Whether frames depend on others: it reads references."""
        return any(isinstance(node, (*_MOTION_INPUTS, StateInput)) for node in self.nodes)

    @property
    def moves(self) -> bool:
        """Whether frames have motion: it reads what is warped, or vectors."""
        return any(isinstance(node, _MOTION_INPUTS) for node in self.nodes)

    @property
    def has_residual(self) -> bool:
        """Whether frames have the appearance levels of the mixed residual grid."""
        return any(isinstance(node, ResidualInput) for node in self.nodes)

    def check_tensors(self, tensors: dict[int, ConvTensors]) -> None:
        """Raise LimitError unless every sum of every convolution is exact."""
        bound = (1 << (self.bits - 1)) - 1
        for number, found in tensors.items():
            found.check(bound, f"node {number}")


def _comes_late(node: Operation) -> bool:
    """Whether an input exists only behind the corrections of motion."""
    is_final = isinstance(node, VectorsInput) and bool(node.final)
    return is_final or isinstance(node, PredictionInput | DifferenceInput | PictureInput)


def _parse_node(reader: BitReader, number: int) -> Operation:
    code = reader.u(8, "code")
    if code not in OPERATIONS:
        raise UnsupportedError(f"node {number}: operation {code} is not defined")
    kind = OPERATIONS[code]
    count = kind.OPERANDS
    if count is None:
        count = reader.leb128("operand_count")
        if not 1 <= count <= kind.MAX_OPERANDS:
            raise LimitError(f"node {number}: {count} operands, allowed are 1..{kind.MAX_OPERANDS}")
    values = {}
    for parameter in kind.PARAMETERS:
        value = parameter.low + reader.leb128(parameter.name)
        if value > parameter.high:
            raise LimitError(f"node {number}: {parameter.name} {value}, at most {parameter.high}")
        values[parameter.name] = value
    operands = []
    for _ in range(count):
        back = reader.leb128("operand")
        if not 1 <= back <= number:
            raise SyntaxViolation(f"node {number}: no node lies {back} before it")
        operands.append(number - back)
    return kind(tuple(operands), **values)
