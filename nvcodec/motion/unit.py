"""The motion of a coding unit: from its symbols to what its frames are predicted as."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from nvcodec.core.gop import CodedFrame, CodingUnit
from nvcodec.core.parallel import run_all
from nvcodec.entropy.context import ContextWeights
from nvcodec.entropy.symbols import SymbolChannel, code_level
from nvcodec.motion.compensation import Compensated, FrameState, compensate, key_frame_inputs
from nvcodec.motion.levels import MOTION_LEVELS, FrameGeometry
from nvcodec.motion.prediction import MotionPrediction, MotionState, add_grid_motion, predict_motion
from nvcodec.motion.side import MotionSide

__all__ = [
    "UnitMotion",
    "code_motion",
    "compensate_unit",
    "key_unit_inputs",
    "motion_context",
    "predict_unit",
    "write_motion",
]


@dataclass(frozen=True)
class UnitMotion:
    """The motion of a unit, and what comes of it.

    ``levels``: finest first, (B, channels, rows, columns) each. ``side``: what their context model sees, None without
    references. ``inputs``: what the references say of the frames, batched. ``states``: of the frames.
    """

    levels: list[Tensor]
    side: MotionSide | None
    inputs: Compensated
    states: list[MotionState]


def predict_unit(unit: CodingUnit, states: Mapping[int, FrameState], geometry: FrameGeometry) -> list[MotionPrediction]:
    """Predicted motion of each frame of a unit with references."""
    predictions: dict[int, MotionPrediction] = {}

    def predict(frame: CodedFrame) -> None:
        found = predict_motion(
            tuple(states[r].appearance for r in frame.references),
            tuple(states[r].motion for r in frame.references),
            frame.distances,
            geometry,
        )
        predictions[frame.display] = found if unit.predicts else found.at_rest()

    for reference in {r for frame in unit.frames for r in frame.references}:
        states[reference].appearance.prepare()
    run_all([partial(predict, frame) for frame in unit.frames])
    return [predictions[frame.display] for frame in unit.frames]


def compensate_unit(
    unit: CodingUnit,
    states: Mapping[int, FrameState],
    predictions: list[MotionPrediction],
    motion: list[Tensor],
) -> tuple[Compensated, list[MotionState]]:
    """Warp the references of every frame by its final motion; batched inputs of the cell, and motion states."""
    fields = [
        add_grid_motion(predictions[b].fields, [m[b] for m in motion], frame.distances)
        for b, frame in enumerate(unit.frames)
    ]
    compensated: dict[int, Compensated] = {}

    def warp(b: int) -> None:
        references = tuple(states[r].appearance for r in unit.frames[b].references)
        compensated[b] = compensate(references, *fields[b])

    run_all([partial(warp, b) for b in range(len(unit.frames))])
    motion_states = [MotionState(vectors, f.distances) for (vectors, _), f in zip(fields, unit.frames, strict=True)]
    return _stack([compensated[b] for b in range(len(unit.frames))]), motion_states


def _stack(parts: list[Compensated]) -> Compensated:
    return Compensated(
        torch.stack([p.prediction for p in parts]),
        torch.stack([p.difference for p in parts]),
    )


def key_unit_inputs(unit: CodingUnit, geometry: FrameGeometry, device: torch.device) -> Compensated:
    """Batched inputs of the cell for a unit without references."""
    return _stack([key_frame_inputs(geometry, device)] * len(unit.frames))


def motion_context(predictions: list[MotionPrediction], geometry: FrameGeometry) -> MotionSide:
    """Side features of a unit's motion levels."""
    return MotionSide(
        torch.stack([p.disagreement for p in predictions]),
        torch.stack([p.fields[0] for p in predictions]),
        len(predictions[0].fields),
        geometry,
    )


def code_motion(
    channel: SymbolChannel,
    given: list[Tensor] | None,
    unit: CodingUnit,
    states: Mapping[int, FrameState],
    geometry: FrameGeometry,
    weights: ContextWeights,
    device: torch.device,
    bits: list[float],
) -> UnitMotion:
    """Read the motion levels of a unit from ``channel``, or write those ``given`` to it, and compensate.

    ``states``: at least the references of the unit, by display position. ``weights``: of the context model. Appends the
    bits of each level to ``bits``, coarsest first.
    """
    if not unit.reference_count:
        inputs = key_unit_inputs(unit, geometry, device)
        return UnitMotion([], None, inputs, [MotionState((), ())] * len(unit.frames))
    predictions = predict_unit(unit, states, geometry)
    side = motion_context(predictions, geometry)
    levels = _code_levels(channel, given, side, weights, unit.depth, bits)
    inputs, motion_states = compensate_unit(unit, states, predictions, levels)
    return UnitMotion(levels, side, inputs, motion_states)


def write_motion(
    channel: SymbolChannel, motion: UnitMotion, unit: CodingUnit, weights: ContextWeights, bits: list[float]
) -> None:
    """As ``code_motion`` writes the levels of ``motion``, where all that comes of them is known already."""
    if motion.side is not None:
        _code_levels(channel, motion.levels, motion.side, weights, unit.depth, bits)


def _code_levels(
    channel: SymbolChannel,
    given: list[Tensor] | None,
    side: MotionSide,
    weights: ContextWeights,
    depth: int,
    bits: list[float],
) -> list[Tensor]:
    """All levels from coarse to fine; a flag for each frame says whether its level holds anything but zeros.

    Appends the bits of each level to ``bits``, coarsest first. Returns the levels, finest first.
    """
    batch = len(side.mismatch)
    levels: list[Tensor] = []
    for k in reversed(range(MOTION_LEVELS)):
        before = channel.bits
        layout = side.layout(k)
        level = torch.zeros(batch, len(layout), *side.size(k))
        flags = None
        if given is not None:
            flags = given[k].flatten(1).any(1).numpy().astype(np.int32)
        used = torch.from_numpy(np.flatnonzero(channel.exchange_flags(flags, batch)))
        if len(used):
            symbols, known = given[k] if given is not None else None, side(k, levels)
            if len(used) < batch:
                symbols, known = symbols[used] if symbols is not None else None, known[used]
            level[used] = code_level(channel, symbols, layout, known, weights, weights.bias(depth, k, layout))
        levels.insert(0, level)
        bits.append(channel.bits - before)
    return levels
