"""The payload of a SEGMENT section in the implicit representation: which program, then one range-coded stream.

::

    representation u(4), program_index u(4), gop leb128, [start u(32)] |
    range coder words: tensors of the convolutions, scales of the latents, least gains of the mixed residual grid,
                       grids that are coarser in time, then the coding units in order

Tensors stand there as they are (representation 1), or as a code along the directions of a start and differences from
where it leads (representation 2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nvcodec.bitstream.bitio import BitReader, BitWriter
from nvcodec.core.errors import SyntaxViolation
from nvcodec.core.fixedpoint import exact_inference
from nvcodec.core.gop import CodingUnit, last_uses, read_gop, write_gop
from nvcodec.entropy.symbols import SymbolChannel, SymbolReader, SymbolWriter
from nvcodec.entropy.weights import TensorChange
from nvcodec.exact.arithmetic import activation_bound
from nvcodec.exact.latents import GridInput, LatentInput
from nvcodec.exact.machine import Machine
from nvcodec.exact.operation import Sizes
from nvcodec.exact.program import Program
from nvcodec.grid.levels import GRID_STRIDES, Quantiser
from nvcodec.implicit.latents import LatentModel, code_latents
from nvcodec.implicit.starts import NAME_BYTES, code_changes, find_start
from nvcodec.implicit.unit import ImplicitState, UnitBits, UnitSymbols, code_unit, rebuild_unit, units_of
from nvcodec.implicit.weights import ConvSymbols, code_convolution
from nvcodec.motion.levels import FrameGeometry

__all__ = ["IMPLICIT", "IMPLICIT_FROM_START", "ImplicitDecoder", "ImplicitHeader", "ImplicitWriter", "SegmentTensors"]

IMPLICIT, IMPLICIT_FROM_START = 1, 2
"""Values of ``representation``."""


@dataclass(frozen=True)
class ImplicitHeader:
    """``program``: index of the PROGRAM section. ``gop``: frames between P frames; where frames have no references,
    frames of a coding unit. ``start``: name of what code and differences change, empty if from nothing. ``predicts``:
    whether motion is predicted."""

    program: int
    gop: int
    start: bytes = b""
    predicts: bool = True

    def write(self) -> bytes:
        writer = BitWriter()
        writer.u(IMPLICIT_FROM_START if self.start else IMPLICIT, 4)
        writer.u(self.program, 4)
        writer.leb128(write_gop(self.gop, self.predicts))
        return writer.finish() + self.start

    @staticmethod
    def parse(payload: bytes, programs: int) -> tuple[ImplicitHeader, int]:
        """The header and how many bytes it takes. ``programs``: how many the file has."""
        reader = BitReader(payload)
        has_start = reader.u(4, "representation") == IMPLICIT_FROM_START
        index = reader.u(4, "program_index")
        gop, predicts = read_gop(reader.leb128("gop"))
        if index >= programs:
            raise SyntaxViolation(f"program_index {index}: the file has {programs} programs")
        start = bytes(reader.u(8, "start") for _ in range(NAME_BYTES)) if has_start else b""
        return ImplicitHeader(index, gop, start, predicts), reader.byte_offset


@dataclass(frozen=True)
class SegmentTensors:
    """What a segment holds beside its units. ``convolutions``: by node number, or, where there is a start, ``code`` and
    ``changes`` of it. ``grids``: by level, (S, C, H, W). ``quantiser``: of the mixed residual grid, if there is one."""

    convolutions: Mapping[int, ConvSymbols]
    model: LatentModel
    grids: Mapping[int, Tensor]
    changes: Mapping[str, TensorChange] = field(default_factory=dict)
    quantiser: Quantiser = field(default_factory=Quantiser)
    code: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))


class _Segment:
    """What reading and writing of a segment share: the program with its tensors, and the units one after the other."""

    def __init__(
        self,
        header: ImplicitHeader,
        program: Program,
        geometry: FrameGeometry,
        frames: int,
        channel: SymbolChannel,
        device: torch.device,
        given: SegmentTensors | None,
    ) -> None:
        self.header, self.program, self.geometry, self.channel = header, program, geometry, channel
        sizes = Sizes(geometry.half, geometry.blocks, frames)
        shapes = program.shapes(sizes)
        self.levels = {node.level: shapes[n] for n, node in sorted(program.of(LatentInput), key=lambda x: x[1].level)}
        grids = {node.level: (n, node.slices) for n, node in sorted(program.of(GridInput), key=lambda x: x[1].level)}
        self.units = units_of(program, frames, header.gop, header.predicts)
        self.uses = last_uses(self.units)
        self.states: dict[int, ImplicitState] = {}
        self.unit_bits: list[UnitBits] = []
        bound, weight_shapes = activation_bound(program.bits), program.convolutions(shapes)
        if header.start:
            start = find_start(header.start, weight_shapes)
            changes = (given.code, given.changes) if given else (None, None)
            self.convolutions = code_changes(channel, weight_shapes, start, *changes)
        else:
            self.convolutions = {
                number: code_convolution(channel, weight_shape, given.convolutions[number] if given else None, bound)
                for number, weight_shape in weight_shapes
            }
        all_shapes = [*self.levels.values(), *(shapes[n] for n, _ in grids.values())]
        self.model = LatentModel.code(channel, all_shapes, 2 if program.refers else 1, given.model if given else None)
        self.quantiser = Quantiser.code(channel, given.quantiser if given else None) if program.has_residual else None
        self.weight_bits = channel.bits
        """Of the tensors and of the scales of latents."""
        self.grids: dict[int, Tensor] = {}
        self.grid_bits: dict[int, float] = {}
        for k, (level, (number, slices)) in enumerate(grids.items()):
            bits: list[float] = []
            (self.grids[level],) = code_latents(
                channel, [shapes[number]], slices, self.model, False, None, [given.grids[level]] if given else None,
                bits, first=len(self.levels) + k,
            )  # fmt: skip
            self.grid_bits[level] = bits[0]
        tensors = {number: found.tensors() for number, found in self.convolutions.items()}
        self.machine = Machine(program, tensors, sizes, device)

    def code(self, unit: CodingUnit, given: UnitSymbols | None, *, rebuild: bool) -> dict[int, ImplicitState]:
        """Read or write the next unit; the states of its frames, none if they are not to be rebuilt."""
        bits = UnitBits()
        self.unit_bits.append(bits)
        number = len(self.unit_bits) - 1
        with exact_inference():
            coded = code_unit(
                self.channel, self.program, self.levels, self.model, self.quantiser, unit, self.states,
                self.geometry, self.machine.device, given, bits,
            )  # fmt: skip
            made = rebuild_unit(self.machine, coded, self.grids, self.states) if rebuild else {}
        self.states |= {display: state for display, state in made.items() if self.uses[display] > number}
        for display in [d for d in self.states if self.uses[d] <= number]:
            del self.states[display]
        return made


class ImplicitWriter:
    """Codes one segment, unit by unit, and rebuilds its frames as a decoder will."""

    def __init__(
        self,
        header: ImplicitHeader,
        program: Program,
        tensors: SegmentTensors,
        geometry: FrameGeometry,
        frames: int,
        device: torch.device,
    ) -> None:
        self._symbols = SymbolWriter()
        self.segment = _Segment(header, program, geometry, frames, self._symbols, device, tensors)

    @property
    def bits(self) -> float:
        """Bits of the entropy-coded stream so far."""
        return self._symbols.bits

    @property
    def units(self) -> list[CodingUnit]:
        return self.segment.units

    def code(self, symbols: UnitSymbols) -> dict[int, ImplicitState]:
        """Code the next unit; the exact states of its frames."""
        return self.segment.code(self.units[len(self.segment.unit_bits)], symbols, rebuild=True)

    def finish(self) -> bytes:
        """The segment's payload."""
        return self.segment.header.write() + self._symbols.finish()


class ImplicitDecoder:
    """Rebuilds the frames of one segment from its payload: a ``nvcodec.decoder.SegmentDecoder``."""

    def __init__(
        self,
        payload: bytes,
        programs: Sequence[Program],
        geometry: FrameGeometry,
        frames: int,
        device: torch.device,
    ) -> None:
        """``programs``: those of the file, checked for its level. Raises subclasses of BitstreamError."""
        header, start = ImplicitHeader.parse(payload, len(programs))
        program = programs[header.program]
        self._symbols = SymbolReader(payload[start:])
        with exact_inference():
            self.segment = _Segment(header, program, geometry, frames, self._symbols, device, None)
        self._header_bytes = start

    def account(self) -> dict[str, Any]:
        """Where the bits of what has been decoded went."""
        segment = self.segment
        units = []
        for unit, bits in zip(segment.units, segment.unit_bits, strict=False):
            motion, appearance, latents = sum(bits.motion), bits.appearance[::-1], sum(bits.latents)
            units.append(
                {
                    "frames": [f.display for f in unit.frames],
                    "type": "IPB"[min(unit.depth, 2)],
                    "depth": unit.depth,
                    "motion_bits": motion,
                    "latent_bits": dict(zip(segment.levels, bits.latents, strict=False)),
                    "grid_bits": dict(zip(GRID_STRIDES, appearance, strict=False)),
                    "bits": motion + sum(appearance) + latents,
                }
            )
        weights = [found.weight for found in segment.convolutions.values()]
        count = sum(weight.size for weight in weights)
        luma = segment.geometry.width * segment.geometry.height
        return {
            "representation": "implicit",
            "header_bytes": self._header_bytes,
            "program": segment.header.program,
            "gop": segment.header.gop,
            "motion_prediction": segment.header.predicts,
            "parameters": count + sum(len(found.bias) for found in segment.convolutions.values()),
            "weights": count,
            "zero_weights": sum(int((weight == 0).sum()) for weight in weights),
            "latents": self._latent_count(),
            "weight_bits": segment.weight_bits,
            "motion_bits": sum(u["motion_bits"] for u in units),
            "grid_bits": {
                stride: sum(bits.appearance[-1 - k] for bits in segment.unit_bits)
                for k, stride in enumerate(GRID_STRIDES)
                if segment.quantiser is not None
            },
            "latent_bits": self._latent_bits(),
            "multiplications_a_sample": segment.machine.multiplications / luma,
            "units": units,
        }

    def _latent_count(self) -> int:
        segment = self.segment
        frames = sum(len(unit.frames) for unit in segment.units)
        grids = sum(grid.numel() for grid in segment.grids.values())
        return grids + frames * sum(shape.elements for shape in segment.levels.values())

    def _latent_bits(self) -> dict[str, float]:
        """By level, with its size."""
        segment = self.segment
        found = {}
        for k, (level, shape) in enumerate(segment.levels.items()):
            found[f"{level}: {shape}"] = sum(bits.latents[k] for bits in segment.unit_bits)
        for level, grid in segment.grids.items():
            found[f"{level}: {'x'.join(map(str, grid.shape))}"] = segment.grid_bits[level]
        return found

    def decode(self, wanted: range | None = None) -> Iterator[dict[int, Tensor]]:
        """The samples (6, h, w) of the frames of each unit, in coding order, up to the last unit with a wanted frame;
        units that nobody wants or refers to are read, not computed."""
        segment, units = self.segment, self.segment.units
        wanted = range(sum(len(unit.frames) for unit in units)) if wanted is None else wanted
        wants = [any(frame.display in wanted for frame in unit.frames) for unit in units]
        last = max((n for n, needed in enumerate(wants) if needed), default=-1)
        for number, unit in enumerate(units[: last + 1]):
            needed = wants[number] or any(segment.uses[frame.display] > number for frame in unit.frames)
            made = segment.code(unit, None, rebuild=needed)
            yield {display: state.frame.appearance.packed for display, state in made.items()}
        if last + 1 == len(units):
            try:
                self._symbols.finish()
            except SyntaxViolation as error:
                raise SyntaxViolation(f"segment: {error}") from None
