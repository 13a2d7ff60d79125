"""One coding unit of an implicit segment: its symbols, and from them samples and states by the program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nvcodec.core.gop import CodedFrame, CodingUnit, coding_units
from nvcodec.entropy.context import ContextWeights
from nvcodec.entropy.numbers import code_number
from nvcodec.entropy.symbols import SymbolChannel
from nvcodec.exact.machine import Machine
from nvcodec.exact.operation import FrameInputs, Shape, slots
from nvcodec.exact.program import Program
from nvcodec.exact.references import PictureInput, QuantiserInput
from nvcodec.grid.coding import code_appearance
from nvcodec.grid.levels import QUANTISER_BITS, Quantiser
from nvcodec.grid.side import AppearanceSide
from nvcodec.grid.wavelet import residual_planes
from nvcodec.implicit.latents import LatentModel, ReferenceView, code_latents, context_of_width_8
from nvcodec.motion.compensation import Compensated, FrameState, blended
from nvcodec.motion.levels import BLEND_CHANNEL, FrameGeometry
from nvcodec.motion.prediction import VECTOR_BOUND, MotionState
from nvcodec.motion.unit import UnitMotion, code_motion, key_unit_inputs
from nvcodec.motion.warp import Reference

__all__ = ["CodedUnit", "ImplicitState", "UnitBits", "UnitSymbols", "code_unit", "rebuild_unit", "units_of"]


@dataclass(frozen=True)
class ImplicitState:
    """What a decoded frame hands on: its picture and motion, and the states of the program, (1, C, H, W) by index."""

    frame: FrameState
    states: dict[int, Tensor]


@dataclass
class UnitSymbols:
    """What is coded of a unit. ``latents``: by level, (B, C, rows, columns), integers in float32. ``motion``: levels,
    finest first, as ``nvcodec.motion.levels`` has them, none without references. ``appearance``: those of the mixed
    residual grid, finest first, as ``nvcodec.grid.levels`` has them, none where the program looks at none."""

    latents: list[Tensor] = field(default_factory=list)
    motion: list[Tensor] = field(default_factory=list)
    appearance: list[Tensor] = field(default_factory=list)
    quantiser: int = 0


@dataclass
class UnitBits:
    """Bits of a unit: of each motion level and each appearance level, coarsest first, and of each latent level."""

    motion: list[float] = field(default_factory=list)
    appearance: list[float] = field(default_factory=list)
    latents: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class CodedUnit:
    """A unit whose symbols are known. ``motion``: None where the program does not look at motion."""

    unit: CodingUnit
    motion: UnitMotion | None
    latents: dict[int, Tensor]
    residual: dict[int, Tensor]
    quantiser: int


def units_of(program: Program, frames: int, gop: int, predicts: bool = True) -> list[CodingUnit]:
    """The coding units of a segment: those of the hierarchy, or, where frames have no references, runs of ``gop``."""
    if program.refers:
        return coding_units(frames, gop, predicts)
    starts = range(0, frames, gop)
    return [CodingUnit(tuple(CodedFrame(n, 0, ()) for n in range(s, min(s + gop, frames)))) for s in starts]


def motion_weights() -> ContextWeights:
    """The context model of motion in implicit segments."""
    return context_of_width_8()


def code_unit(
    channel: SymbolChannel,
    program: Program,
    levels: Mapping[int, Shape],
    model: LatentModel,
    quantisers: Quantiser | None,
    unit: CodingUnit,
    states: Mapping[int, ImplicitState],
    geometry: FrameGeometry,
    device: torch.device,
    given: UnitSymbols | None,
    bits: UnitBits,
) -> CodedUnit:
    """Write the symbols ``given`` of a unit, or read them.

    ``levels``: shapes of the latents. ``quantisers``: of the grid's appearance levels, None where there are none.
    ``states``: at least those of the references.
    """
    motion, view = None, None
    if unit.reference_count and program.moves:
        known = {display: state.frame for display, state in states.items()}
        motion = code_motion(
            channel, given.motion if given else None, unit, known, geometry, motion_weights(), device, bits.motion
        )
        view = ReferenceView.of(motion.inputs.prediction, motion.inputs.difference)
    quantiser = 0
    if quantisers is not None or any(True for _ in program.of(QuantiserInput)):
        quantiser = code_number(channel, given.quantiser if given else None, QUANTISER_BITS)
    residual: dict[int, Tensor] = {}
    if quantisers is not None:
        inputs = motion.inputs if motion is not None else key_unit_inputs(unit, geometry, device)
        side = AppearanceSide(inputs.prediction, inputs.difference, geometry)
        appearance = code_appearance(
            channel, given.appearance if given else None, side, len(unit.frames), unit.depth, bits.appearance
        )
        residual = residual_planes(appearance, quantisers.gains(quantiser))
    latents = code_latents(
        channel, list(levels.values()), len(unit.frames), model, unit.reference_count > 0, view,
        given.latents if given else None, bits.latents,
    )  # fmt: skip
    return CodedUnit(unit, motion, dict(zip(levels, latents, strict=True)), residual, quantiser)


def rebuild_unit(
    machine: Machine, coded: CodedUnit, grids: Mapping[int, Tensor], states: Mapping[int, ImplicitState]
) -> dict[int, ImplicitState]:
    """The states of the unit's frames, by display position."""
    unit, motion, device = coded.unit, coded.motion, machine.device
    inputs = FrameInputs(
        torch.tensor([frame.display for frame in unit.frames]),
        coded.latents,
        dict(grids),
        residual=coded.residual,
        depth=unit.depth,
        quantiser=coded.quantiser,
    )
    which = range(unit.reference_count)
    references = [[states[frame.references[k]] for frame in unit.frames] for k in which]
    inputs.distances = slots([torch.tensor([frame.distances[k] for frame in unit.frames]) for k in which])
    inputs.states = slots(
        [{n: torch.cat([s.states[n] for s in found]) for n in found[0].states} for found in references]
    )
    motion_states = [MotionState((), ())] * len(unit.frames)
    if motion is not None:
        fields = [torch.stack([state.fields[k] for state in motion.states]) for k in which]
        inputs.vectors = slots(fields)
        compensated, pictures = motion.inputs, None
        if machine.corrects:
            for slot, correction in machine.corrections(inputs).items():
                if slot < len(fields):
                    fields[slot] = (fields[slot] + correction.cpu()).clamp(-VECTOR_BOUND, VECTOR_BOUND)
        if machine.corrects or any(True for _ in machine.program.of(PictureInput)):
            compensated, pictures = _compensated(coded, references, fields)
        inputs.final_vectors = slots(fields)
        inputs.prediction, inputs.difference = compensated.prediction, compensated.difference
        inputs.pictures = slots(pictures or [])
        motion_states = [
            MotionState(tuple(field[b] for field in fields), frame.distances) for b, frame in enumerate(unit.frames)
        ]
    made = machine.run(inputs)
    samples = made.samples.to(device)
    return {
        frame.display: ImplicitState(
            FrameState(Reference(samples[b]), motion_states[b]), {n: s[b : b + 1] for n, s in made.states.items()}
        )
        for b, frame in enumerate(unit.frames)
    }


def _compensated(
    coded: CodedUnit, references: list[list[ImplicitState]], fields: list[Tensor]
) -> tuple[Compensated, list[Tensor]]:
    """The blended prediction by final motion, and the warped reference of each slot, batched."""
    assert coded.motion is not None
    pictures: list[list[Tensor]] = [[] for _ in fields]
    found = []
    for b in range(len(coded.unit.frames)):
        warped = [references[k][b].frame.appearance.warp(fields[k][b]) for k in range(len(fields))]
        blend = coded.motion.levels[0][b, BLEND_CHANNEL : BLEND_CHANNEL + 1]  # empty with one reference
        found.append(blended(warped, blend.clamp(-1, 1)))
        for slot, picture in zip(pictures, warped, strict=True):
            slot.append(picture)
    batched = Compensated(torch.stack([c.prediction for c in found]), torch.stack([c.difference for c in found]))
    return batched, [torch.stack(slot) for slot in pictures]
