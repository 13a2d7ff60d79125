"""The payload of a SEGMENT section in the implicit representation: which program, then one range-coded stream.

::

    representation u(4), program_index u(4), gop leb128 |
    range coder words: tensors of the convolutions, scales of the latents, grids, then the coding units in order

A unit holds its motion, where the program looks at motion, its quantiser index, where it looks at that, and its
latents. Symbols never wait for the network of their own unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nvcodec.bitstream.bitio import BitReader, BitWriter
from nvcodec.core.errors import LimitError, SyntaxViolation
from nvcodec.core.fixedpoint import exact_inference
from nvcodec.core.gop import CodedFrame, CodingUnit, coding_units
from nvcodec.entropy.symbols import SymbolChannel, SymbolReader, SymbolWriter
from nvcodec.exact.latents import GridInput, LatentInput
from nvcodec.exact.machine import Machine
from nvcodec.exact.operation import FrameInputs, Shape, Sizes
from nvcodec.exact.program import Program
from nvcodec.exact.references import QuantiserInput
from nvcodec.implicit.latents import MAX_LATENT_CHANNELS, LatentModel, code_latents
from nvcodec.implicit.numbers import code_number
from nvcodec.implicit.weights import ConvSymbols, code_convolution
from nvcodec.motion.levels import FrameGeometry

__all__ = ["IMPLICIT", "MAX_GOP", "ImplicitDecoder", "ImplicitHeader", "ImplicitWriter", "UnitLatents", "units_of"]

IMPLICIT = 1
"""Value of ``representation``."""
MAX_GOP = 64
_QUANTISER_BITS = 6


@dataclass(frozen=True)
class ImplicitHeader:
    """``program``: index of the PROGRAM section. ``gop``: frames between P frames; where frames have no references,
    frames of a coding unit."""

    program: int
    gop: int

    def write(self) -> bytes:
        writer = BitWriter()
        writer.u(IMPLICIT, 4)
        writer.u(self.program, 4)
        writer.leb128(self.gop)
        return writer.finish()

    @staticmethod
    def parse(payload: bytes, programs: Sequence[Program]) -> tuple[ImplicitHeader, int]:
        """The header and how many bytes it takes."""
        reader = BitReader(payload)
        reader.u(4, "representation")
        index = reader.u(4, "program_index")
        gop = reader.leb128("gop")
        if index >= len(programs):
            raise SyntaxViolation(f"program_index {index}: the file has {len(programs)} programs")
        if not 1 <= gop <= MAX_GOP:
            raise LimitError(f"gop {gop} lies outside 1 .. {MAX_GOP}")
        return ImplicitHeader(index, gop), reader.byte_offset


def units_of(program: Program, frames: int, gop: int) -> list[CodingUnit]:
    """The coding units of a segment: those of the hierarchy, or, where frames have no references, runs of ``gop``."""
    if program.refers:
        return coding_units(frames, gop)
    starts = range(0, frames, gop)
    return [CodingUnit(tuple(CodedFrame(n, 0, ()) for n in range(s, min(s + gop, frames)))) for s in starts]


@dataclass
class UnitLatents:
    """What is coded of a unit. ``latents``: by level, (B, C, rows, columns), integers in float32. ``motion``: levels,
    finest first, as ``nvcodec.motion.levels`` has them."""

    latents: list[Tensor]
    motion: list[Tensor] = field(default_factory=list)
    quantiser: int = 0


@dataclass
class UnitBits:
    """Bits of a unit: of each motion level, coarsest first, and of each latent level."""

    motion: list[float] = field(default_factory=list)
    latents: list[float] = field(default_factory=list)


class _Levels:
    """Which latents and grids a program has, by level."""

    def __init__(self, program: Program, shapes: tuple[Shape, ...]) -> None:
        latents = {node.level: shapes[n] for n, node in program.of(LatentInput)}
        grids = {node.level: (shapes[n], node.slices) for n, node in program.of(GridInput)}
        self.latents = sorted(latents)
        self.grids = sorted(grids)
        self.latent_shapes = [latents[k] for k in self.latents]
        self.grid_shapes = [grids[k] for k in self.grids]
        for shape in (*self.latent_shapes, *(s for s, _ in self.grid_shapes)):
            if shape.channels > MAX_LATENT_CHANNELS:
                raise LimitError(f"latents of {shape.channels} channels, at most {MAX_LATENT_CHANNELS}")


@dataclass
class SegmentAccount:
    """Where the bits of a segment went. ``grids``: by level, ``units``: with the numbers of the unit."""

    header_bytes: int = 0
    weight_bits: float = 0.0
    weight_count: int = 0
    zero_weights: int = 0
    grids: dict[int, float] = field(default_factory=dict)
    units: list[tuple[CodingUnit, UnitBits]] = field(default_factory=list)


def code_tensors(
    channel: SymbolChannel, program: Program, shapes: tuple[Shape, ...], given: Mapping[int, ConvSymbols] | None
) -> dict[int, ConvSymbols]:
    """The tensors of all convolutions, by node number."""
    return {
        number: code_convolution(channel, weight_shape, given[number] if given else None)
        for number, weight_shape in program.convolutions(shapes)
    }


class _Segment:
    """What reading and writing of a segment share."""

    def __init__(
        self,
        header: ImplicitHeader,
        program: Program,
        geometry: FrameGeometry,
        frames: int,
        channel: SymbolChannel,
        device: torch.device,
        max_picture_samples: int,
        given: tuple[Mapping[int, ConvSymbols], LatentModel, Sequence[Tensor]] | None,
    ) -> None:
        self.header, self.program, self.geometry = header, program, geometry
        sizes = Sizes(geometry.half, geometry.blocks, frames)
        program.check(sizes, max_picture_samples)
        shapes = program.shapes(sizes)
        self.levels = _Levels(program, shapes)
        self.units = units_of(program, frames, header.gop)
        self.channel = channel
        self.account = SegmentAccount()
        symbols = code_tensors(channel, program, shapes, given[0] if given else None)
        self.account.weight_bits = channel.bits
        self.account.weight_count = sum(s.weight.size for s in symbols.values())
        self.account.zero_weights = sum(int((s.weight == 0).sum()) for s in symbols.values())
        all_shapes = [*self.levels.latent_shapes, *(s for s, _ in self.levels.grid_shapes)]
        self.model = LatentModel.code(channel, all_shapes, 2 if program.refers else 1, given[1] if given else None)
        grids = {}
        for k, (level, (shape, slices)) in enumerate(zip(self.levels.grids, self.levels.grid_shapes, strict=True)):
            bits: list[float] = []
            (grids[level],) = code_latents(
                channel, [shape], slices, self.model, False, None, [given[2][k]] if given else None, bits,
                first_level=len(self.levels.latents) + k,
            )  # fmt: skip
            self.account.grids[level] = bits[0]
        self.grids = grids
        tensors = {number: found.tensors() for number, found in symbols.items()}
        self.machine = Machine(program, tensors, sizes, device)
        self.has_quantiser = any(True for _ in program.of(QuantiserInput))

    def code_unit(self, unit: CodingUnit, given: UnitLatents | None) -> FrameInputs:
        """Symbols of a unit, read or written; what the program is given of its frames."""
        bits = UnitBits()
        quantiser = 0
        if self.has_quantiser:
            quantiser = code_number(self.channel, given.quantiser if given else None, _QUANTISER_BITS)
        latents = code_latents(
            self.channel, self.levels.latent_shapes, len(unit.frames), self.model, unit.reference_count > 0, None,
            given.latents if given else None, bits.latents,
        )  # fmt: skip
        self.account.units.append((unit, bits))
        numbers = torch.tensor([frame.display for frame in unit.frames])
        named = dict(zip(self.levels.latents, latents, strict=True))
        return FrameInputs(numbers, named, self.grids, depth=unit.depth, quantiser=quantiser)


class ImplicitWriter:
    """Codes one segment, unit by unit, and rebuilds its frames as a decoder will."""

    def __init__(
        self,
        header: ImplicitHeader,
        program: Program,
        symbols: Mapping[int, ConvSymbols],
        model: LatentModel,
        grids: Sequence[Tensor],
        geometry: FrameGeometry,
        frames: int,
        device: torch.device,
        max_picture_samples: int,
    ) -> None:
        self._symbols = SymbolWriter()
        self.segment = _Segment(
            header, program, geometry, frames, self._symbols, device, max_picture_samples, (symbols, model, grids)
        )

    @property
    def bits(self) -> float:
        """Bits of the entropy-coded stream so far."""
        return self._symbols.bits

    def code(self, unit: CodingUnit, given: UnitLatents) -> FrameInputs:
        """Code the next unit."""
        return self.segment.code_unit(unit, given)

    def finish(self) -> bytes:
        """The segment's payload."""
        return self.segment.header.write() + self._symbols.finish()


class ImplicitDecoder:
    """Rebuilds the frames of one segment from its payload."""

    def __init__(
        self,
        payload: bytes,
        programs: Sequence[Program],
        geometry: FrameGeometry,
        frames: int,
        device: torch.device,
        max_picture_samples: int,
    ) -> None:
        header, start = ImplicitHeader.parse(payload, programs)
        self._symbols = SymbolReader(payload[start:])
        with exact_inference():
            self.segment = _Segment(
                header, programs[header.program], geometry, frames, self._symbols, device, max_picture_samples, None
            )
        self.segment.account.header_bytes = start

    def decode(self, wanted: Callable[[CodedFrame], bool] = lambda frame: True) -> Iterator[dict[int, Tensor]]:
        """The samples (6, h, w) of the frames of each unit, in coding order, up to the last unit with a wanted frame;
        units that nobody wants or refers to are read, not computed."""
        segment = self.segment
        units = segment.units
        last = max((n for n, u in enumerate(units) if any(map(wanted, u.frames))), default=-1)
        for unit in units[: last + 1]:
            with exact_inference():
                inputs = segment.code_unit(unit, None)
                samples = {}
                if segment.program.refers or any(map(wanted, unit.frames)):
                    made = segment.machine.run(inputs).samples
                    samples = {frame.display: made[b] for b, frame in enumerate(unit.frames)}
            yield samples
        if last + 1 == len(units):
            try:
                self._symbols.finish()
            except SyntaxViolation as error:
                raise SyntaxViolation(f"segment: {error}") from None
