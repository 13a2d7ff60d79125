"""One coding unit through the whole model: the decode process, shared with the encoder's last pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from nvcodec.core.gop import CodingUnit
from nvcodec.core.parallel import run_all
from nvcodec.core.quantiser import quantiser_steps
from nvcodec.entropy.symbols import SymbolChannel
from nvcodec.hybrid.blocks.layout import BlockLayout, BlockSymbols
from nvcodec.hybrid.blocks.picture import BinModels, exchange_picture, rebuild_picture
from nvcodec.hybrid.network import CELL_REACH, Network
from nvcodec.motion.compensation import Compensated, FrameState
from nvcodec.motion.levels import MOTION_LEVELS, FrameGeometry, motion_layout
from nvcodec.motion.prediction import MotionState
from nvcodec.motion.unit import UnitMotion, code_motion, write_motion
from nvcodec.motion.warp import Reference

__all__ = [
    "CodedUnit",
    "UnitBits",
    "UnitSymbols",
    "code_unit",
    "rebuild_blocks",
    "synthesise",
]


_STRIPE_ROWS = 24
"""A stripe has at least so many rows: what it shares with its neighbours is computed twice."""


@dataclass
class UnitSymbols:
    """What is coded of a unit's frames. ``motion``: levels, finest first, (B, channels, rows, columns) each, on the
    CPU. ``blocks``: of each frame."""

    motion: list[Tensor]
    blocks: list[BlockSymbols]

    @staticmethod
    def empty(unit: CodingUnit, geometry: FrameGeometry) -> UnitSymbols:
        """No motion but the predicted one, and nothing that is not predicted."""
        batch = len(unit.frames)
        motion = []
        if unit.reference_count:
            motion = [
                torch.zeros(batch, len(motion_layout(unit.reference_count, k)), *geometry.motion_size(k))
                for k in range(MOTION_LEVELS)
            ]
        layout = BlockLayout(*geometry.half)
        return UnitSymbols(motion, [BlockSymbols.empty(layout, unit.reference_count > 0) for _ in unit.frames])

    def state(self) -> dict[str, Any]:
        """All of it, as a tree."""
        return {"motion": self.motion, "blocks": [tuple(symbols) for symbols in self.blocks]}

    @staticmethod
    def restored(state: dict[str, Any]) -> UnitSymbols:
        """From what ``state`` returned."""
        return UnitSymbols(state["motion"], [BlockSymbols(*symbols) for symbols in state["blocks"]])


@dataclass
class UnitBits:
    """Bits of a coding unit: of each motion level, coarsest first, and of the blocks of each frame."""

    motion: list[float] = field(default_factory=list)
    blocks: list[float] = field(default_factory=list)


def rebuild_blocks(
    network: Network, unit: CodingUnit, inputs: Compensated, blocks: list[BlockSymbols], layout: BlockLayout
) -> Tensor:
    """(B, 6, h, w): the frames of a unit as their blocks make them, before the cell."""
    gain, steps = network.gain(unit.depth), quantiser_steps()
    made: dict[int, Tensor] = {}

    def rebuild(b: int) -> None:
        made[b] = rebuild_picture(blocks[b], layout, inputs.prediction[b], gain, steps)

    run_all([partial(rebuild, b) for b in range(len(blocks))])
    return torch.stack([made[b] for b in range(len(blocks))])


def synthesise(network: Network, unit: CodingUnit, inputs: Compensated, rebuilt: Tensor, stripes: int = 1) -> Tensor:
    """Samples (B, 6, h, w) of a unit, exactly, from what ``rebuild_blocks`` gave. ``stripes``: how many pieces of the
    pictures go through the cell side by side, if they are high enough."""
    residual = rebuilt - inputs.prediction
    rows = residual.shape[2]
    stripes = min(stripes, rows // _STRIPE_ROWS)
    if stripes <= 1:
        return network.cell(residual, inputs.prediction, inputs.difference, unit.depth)
    samples = torch.empty_like(residual)

    def run(start: int, stop: int) -> None:
        above, below = min(CELL_REACH, start), min(CELL_REACH, rows - stop)
        piece = slice(start - above, stop + below)
        known = inputs.prediction[:, :, piece], inputs.difference[:, :, piece]
        made = network.cell(residual[:, :, piece], *known, unit.depth)
        samples[:, :, start:stop] = made[:, :, above : above + stop - start]

    cuts = [rows * k // stripes for k in range(stripes + 1)]
    run_all([partial(run, start, stop) for start, stop in pairwise(cuts)])
    return samples


@dataclass(frozen=True)
class CodedUnit:
    """A unit whose symbols are known and whose frames are still to be rebuilt. No other unit needs more of it for its
    symbols, unless it refers to one of the frames."""

    unit: CodingUnit
    symbols: UnitSymbols
    inputs: Compensated
    motion_states: list[MotionState]

    def rebuild(self, network: Network, stripes: int = 1) -> dict[int, FrameState]:
        """The states of the unit's frames, by display position. ``stripes``: see ``synthesise``."""
        layout = BlockLayout(*self.inputs.prediction.shape[2:])
        rebuilt = rebuild_blocks(network, self.unit, self.inputs, self.symbols.blocks, layout)
        samples = synthesise(network, self.unit, self.inputs, rebuilt, stripes)
        return {
            frame.display: FrameState(Reference(samples[b]), self.motion_states[b])
            for b, frame in enumerate(self.unit.frames)
        }


def code_unit(
    channel: SymbolChannel,
    network: Network,
    unit: CodingUnit,
    states: Mapping[int, FrameState],
    geometry: FrameGeometry,
    models: BinModels,
    symbols: UnitSymbols | None = None,
    account: UnitBits | None = None,
    motion: UnitMotion | None = None,
) -> CodedUnit:
    """Code one unit: read its symbols from ``channel``, or write ``symbols`` to it.

    ``states``: at least the references of the unit, by display position. ``models`` follow what is coded. ``account``
    is told what each part cost. ``motion``: that of ``symbols`` with what comes of it by ``states``, if a search has it
    already.
    """
    account = account if account is not None else UnitBits()
    weights = network.context()
    if motion is None:
        given = symbols.motion if symbols else None
        motion = code_motion(channel, given, unit, states, geometry, weights, network.device, account.motion)
    else:
        write_motion(channel, motion, unit, weights, account.motion)
    layout, refers = BlockLayout(*geometry.half), unit.reference_count > 0
    blocks = []
    for b in range(len(unit.frames)):
        before = channel.bits
        known = symbols.blocks[b] if symbols else None
        blocks.append(exchange_picture(channel, models, unit.depth, layout, refers, known))
        account.blocks.append(channel.bits - before)
    return CodedUnit(unit, UnitSymbols(motion.levels, blocks), motion.inputs, motion.states)
