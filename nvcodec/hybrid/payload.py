"""The payload of a SEGMENT section in the hybrid representation: a short header, then one range-coded stream with the
weights and the symbols of all units.

::

    representation u(4), width_index u(4), gop leb128, gain_offset su(8) |
    range coder words: tensors, then the coding units in order
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nvcodec.bitstream.bitio import BitReader, BitWriter
from nvcodec.core.errors import LimitError, SyntaxViolation
from nvcodec.core.fixedpoint import exact_inference
from nvcodec.core.gop import coding_units, last_uses, read_gop, write_gop
from nvcodec.core.parallel import in_turn, thread_count
from nvcodec.entropy.symbols import SymbolReader, SymbolWriter
from nvcodec.entropy.weights import TensorChange
from nvcodec.hybrid.base import WIDTHS, segment_tensors
from nvcodec.hybrid.blocks.layout import BlockLayout, BlockSymbols
from nvcodec.hybrid.blocks.picture import BinModels, exchange_picture
from nvcodec.hybrid.network import Network, NetworkShape
from nvcodec.hybrid.unit import CodedUnit, UnitBits, UnitSymbols, code_unit
from nvcodec.motion.compensation import FrameState
from nvcodec.motion.levels import MOTION_LEVELS, FrameGeometry
from nvcodec.motion.unit import UnitMotion

__all__ = ["HYBRID", "HybridDecoder", "HybridHeader", "HybridWriter"]


HYBRID = 0
"""Value of ``representation``."""


@dataclass(frozen=True)
class HybridHeader:
    """``width``: channels of the cell. ``gop``: frames between P frames. ``gain_offset``: see segment_tensors.
    ``predicts``: whether motion is predicted."""

    width: int
    gop: int
    gain_offset: int
    predicts: bool = True

    def write(self) -> bytes:
        writer = BitWriter()
        writer.u(HYBRID, 4)
        writer.u(WIDTHS.index(self.width), 4)
        writer.leb128(write_gop(self.gop, self.predicts))
        writer.su(self.gain_offset, 8)
        return writer.finish()

    @staticmethod
    def parse(payload: bytes) -> tuple[HybridHeader, int]:
        """The header and how many bytes it takes."""
        reader = BitReader(payload)
        reader.u(4, "representation")
        index = reader.u(4, "width_index")
        gop, predicts = read_gop(reader.leb128("gop"))
        offset = reader.su(8, "gain_offset")
        if index >= len(WIDTHS):
            raise LimitError(f"width_index {index}: there are {len(WIDTHS)} widths")
        return HybridHeader(WIDTHS[index], gop, offset, predicts), reader.byte_offset


class HybridWriter:
    """Codes one segment with an integer network, unit by unit, and rebuilds its frames as a decoder will."""

    def __init__(
        self,
        header: HybridHeader,
        changes: dict[str, TensorChange],
        geometry: FrameGeometry,
        frames: int,
        device: torch.device,
    ) -> None:
        self.header = header
        self.geometry = geometry
        self.units = coding_units(frames, header.gop, header.predicts)
        self.states: dict[int, FrameState] = {}
        self._uses = last_uses(self.units)
        self._next = 0
        self._symbols = SymbolWriter()
        self.models = BinModels()
        tensors = segment_tensors(self._symbols, header.width, header.gain_offset, changes)
        self.network = Network(NetworkShape(header.width), tensors).to(device)
        self.network.check()
        self.weight_bits = self._symbols.bits

    @property
    def bits(self) -> float:
        """Bits of the entropy-coded stream so far."""
        return self._symbols.bits

    def code(self, symbols: UnitSymbols, motion: UnitMotion | None = None) -> dict[int, FrameState]:
        """Code the next unit; returns the exact states of its frames. ``motion``: see ``code_unit``."""
        with exact_inference():
            unit = self.units[self._next]
            coded = code_unit(
                self._symbols, self.network, unit, self.states, self.geometry, self.models, symbols, motion=motion
            )
            decoded = coded.rebuild(self.network, thread_count())
        self.states.update(decoded)
        self._next += 1
        for display in [d for d in self.states if self._uses[d] < self._next]:
            del self.states[display]
        return decoded

    def code_nothing(self) -> None:
        """Code the next unit as it is predicted. Its frames are not rebuilt: nothing but more of this may follow."""
        unit = self.units[self._next]
        levels = (MOTION_LEVELS if unit.reference_count else 0) * len(unit.frames)
        self._symbols.exchange_flags(np.zeros(levels, np.int32), levels)
        layout, refers = BlockLayout(*self.geometry.half), unit.reference_count > 0
        for _ in unit.frames:
            exchange_picture(self._symbols, self.models, unit.depth, layout, refers, BlockSymbols.empty(layout, refers))
        self._next += 1

    def finish(self) -> bytes:
        """The segment's payload."""
        return self.header.write() + self._symbols.finish()


class HybridDecoder:
    """Rebuilds the frames of one segment from its payload: a ``nvcodec.decoder.SegmentDecoder``."""

    def __init__(self, payload: bytes, geometry: FrameGeometry, frames: int, device: torch.device) -> None:
        self.header, start = HybridHeader.parse(payload)
        self.geometry = geometry
        self._frames = frames
        self.units = coding_units(frames, self.header.gop, self.header.predicts)
        self._symbols = SymbolReader(payload[start:])
        tensors = segment_tensors(self._symbols, self.header.width, self.header.gain_offset)
        self.network = Network(NetworkShape(self.header.width), tensors).to(device)
        self.network.check()
        self.models = BinModels()
        self._header_bytes = start
        self._weight_bits = self._symbols.bits
        self._unit_bits: list[UnitBits] = []

    def account(self) -> dict[str, Any]:
        """Where the bits of what has been decoded went."""
        units = []
        for unit, bits in zip(self.units, self._unit_bits, strict=False):
            motion, blocks = sum(bits.motion), sum(bits.blocks)
            units.append(
                {
                    "frames": [f.display for f in unit.frames],
                    "type": "IPB"[min(unit.depth, 2)],
                    "depth": unit.depth,
                    "motion_bits": motion,
                    "block_bits": blocks,
                    "bits": motion + blocks,
                }
            )
        return {
            "representation": "hybrid",
            "header_bytes": self._header_bytes,
            "width": self.header.width,
            "gop": self.header.gop,
            "motion_prediction": self.header.predicts,
            "parameters": self.network.shape.parameter_count,
            "weight_bits": self._weight_bits,
            "motion_bits": sum(u["motion_bits"] for u in units),
            "block_bits": sum(u["block_bits"] for u in units),
            "units": units,
        }

    def decode(self, wanted: range | None = None) -> Iterator[dict[int, Tensor]]:
        """The samples of the frames of each unit, in coding order, up to the last unit with a wanted frame.

        Frames are rebuilt while the symbols of the next units are read, until one refers to them.
        """
        wanted = range(self._frames) if wanted is None else wanted
        uses = last_uses(self.units)
        last = max((n for n, u in enumerate(self.units) if any(f.display in wanted for f in u.frames)), default=-1)
        states: dict[int, FrameState] = {}
        pending: deque[Future[dict[int, FrameState]]] = deque()
        with in_turn() as submit:
            for number, unit in enumerate(self.units[: last + 1]):
                references = {r for frame in unit.frames for r in frame.references}
                rebuilt: dict[int, FrameState] = {}
                while pending and (pending[0].done() or not references <= states.keys() | rebuilt.keys()):
                    rebuilt |= pending.popleft().result()
                states |= rebuilt
                bits = UnitBits()
                with exact_inference():
                    coded = code_unit(self._symbols, self.network, unit, states, self.geometry, self.models, None, bits)
                self._unit_bits.append(bits)
                referenced = [frame.display for frame in unit.frames if uses[frame.display] > number]
                pending.append(submit(partial(self._rebuild, coded, referenced)))
                for display in [d for d in states if uses[d] <= number]:
                    del states[display]
                yield _samples(rebuilt)
            while pending:
                yield _samples(pending.popleft().result())
        if last + 1 == len(self.units):
            self._finish()

    def _rebuild(self, coded: CodedUnit, referenced: list[int]) -> dict[int, FrameState]:
        """The states of the unit's frames, those of ``referenced`` ready to be referred to."""
        with exact_inference():
            states = coded.rebuild(self.network, max(1, thread_count() // 2))
            for display in referenced:
                states[display].appearance.prepare()
        return states

    def _finish(self) -> None:
        try:
            self._symbols.finish()
        except SyntaxViolation as error:
            raise SyntaxViolation(f"segment: {error}") from None


def _samples(states: dict[int, FrameState]) -> dict[int, Tensor]:
    return {display: state.appearance.packed for display, state in states.items()}
