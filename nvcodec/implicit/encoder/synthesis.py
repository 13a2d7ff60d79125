"""The float twin of a recurrent network: what it makes of a coding unit, and what it is fitted on.

A ``UnitRecord`` holds all that the network is given of a unit but for the states of the references, which it makes
itself: so it can be run again with other weights, and gradients can go through the states to the frames before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nvcodec.core.gop import CodingUnit
from nvcodec.exact.operation import FrameInputs, slots
from nvcodec.exact.outputs import GREY
from nvcodec.exact.warping import sampled
from nvcodec.motion.levels import BLEND_CHANNEL
from nvcodec.motion.unit import UnitMotion

__all__ = [
    "SAMPLE_SCALE",
    "States",
    "UnitRecord",
    "blend_of",
    "inputs_of",
    "moved_inputs",
    "refined_inputs",
    "synthesised",
]

SAMPLE_SCALE = 2.0 * GREY
"""Samples are shown to a network over so much."""
States = dict[int, Tensor]
"""Of one frame, by index, (1, C, H, W)."""


@dataclass
class UnitRecord:
    """``prediction``, ``difference``: (B, 6, h, w) samples of 10 bits, None without references. ``residual``: by level,
    as ``ResidualInput`` has it. ``vectors``: towards each reference, (B, 2, block rows, block columns), as parsed;
    ``final_vectors``: refined. ``target``, ``weights``: (B, 6, h, w), what the frames are made to look like, and the
    weight of their squared errors. ``lmbda``: of the unit. ``quantiser``: its index."""

    unit: CodingUnit
    prediction: Tensor | None
    difference: Tensor | None
    residual: dict[int, Tensor]
    vectors: tuple[Tensor, ...]
    final_vectors: tuple[Tensor, ...]
    blend: Tensor | None
    target: Tensor
    weights: Tensor
    lmbda: float
    quantiser: int
    bits: float = 0.0
    made: Tensor | None = None
    """(B, 6, h, w): what the network made of it when the record was."""


def blend_of(motion: UnitMotion) -> Tensor | None:
    """(B, 1, block rows, block columns), -1 .. 1: 1 where only the first reference counts."""
    if len(motion.states[0].fields) < 2:
        return None
    return motion.levels[0][:, BLEND_CHANNEL : BLEND_CHANNEL + 1].clamp(-1, 1)


def inputs_of(record: UnitRecord, states: Mapping[int, States]) -> FrameInputs:
    """What the network is given of a unit, real numbers. ``states``: at least those of its references."""
    unit = record.unit
    device = record.target.device
    which = range(unit.reference_count)
    made = FrameInputs(torch.tensor([frame.display for frame in unit.frames], device=device), depth=unit.depth)
    made.quantiser = record.quantiser
    made.distances = slots([torch.tensor([f.distances[k] for f in unit.frames], device=device) for k in which])
    references = [[states[frame.references[k]] for frame in unit.frames] for k in which]
    made.states = slots([{n: torch.cat([s[n] for s in found]) for n in found[0]} for found in references])
    made.vectors = slots([v.to(device) for v in record.vectors])
    made.final_vectors = slots([v.to(device) for v in record.final_vectors])
    made.residual = {level: x.to(device) * (1 / SAMPLE_SCALE) for level, x in record.residual.items()}
    if record.prediction is not None and record.difference is not None:
        made.prediction = (record.prediction - GREY) * (1 / SAMPLE_SCALE)
        made.difference = record.difference * (1 / SAMPLE_SCALE)
    return made


def synthesised(module: nn.Module, stores: Sequence[int], inputs: FrameInputs) -> tuple[Tensor, States]:
    """Samples (B, 6, h, w), 10 bits, real numbers, and the states by index, (B, C, H, W). ``stores``: indices of the
    module's states in the order in which it returns them."""
    out = module(inputs)
    return out["samples"] * SAMPLE_SCALE + GREY, dict(zip(stores, out["states"], strict=True))


def moved_inputs(record: UnitRecord, inputs: FrameInputs, changes: Mapping[int, Tensor]) -> FrameInputs:
    """What the network is given once its references look otherwise than when the record was made.

    ``changes``: of each reference, (1, 6, h, w), samples of 10 bits: they are warped to where the picture was, a vector
    a block, bilinearly, which gradients follow.
    """
    if record.prediction is None or inputs.prediction is None or inputs.difference is None:
        return inputs
    rows, columns = record.target.shape[2:]
    warped = []
    for k, field in enumerate(record.final_vectors):
        of_frames = torch.cat([changes[frame.references[k]] for frame in record.unit.frames]) * (1 / SAMPLE_SCALE)
        dense = field.to(of_frames).repeat_interleave(4, 2).repeat_interleave(4, 3)[..., :rows, :columns]
        warped.append(sampled(of_frames, dense * (1 / 8)))
    if record.blend is None:
        return replace(inputs, prediction=inputs.prediction + warped[0])
    blend = record.blend.to(warped[0]).repeat_interleave(4, 2).repeat_interleave(4, 3)[..., :rows, :columns]
    mixed = (warped[0] * (1 + blend) + warped[1] * (1 - blend)) / 2
    return replace(inputs, prediction=inputs.prediction + mixed, difference=inputs.difference + warped[0] - warped[1])


def refined_inputs(module: nn.Module, record: UnitRecord, inputs: FrameInputs) -> FrameInputs:
    """What the network is given where its own corrections of the motion may still change, so that gradients reach them.

    The prediction moves along its own gradient from where the record's refined vectors have brought it: a vector that
    grows by d brings what lies d further on. Corrections are rounded, with the gradient of the identity.
    """
    if not record.vectors or inputs.prediction is None or not hasattr(module, "motion"):
        return inputs
    corrections = module.get_submodule("motion")(inputs)
    moved, final = [], []
    for v, known, c in zip(record.vectors, record.final_vectors, corrections, strict=False):
        whole = v.to(c) + c + (torch.floor(c.detach() + 0.5) - c.detach())
        final.append(whole)
        moved.append(whole - known.to(c))
    slopes_y, slopes_x = _slopes(inputs.prediction)
    rows, columns = inputs.prediction.shape[2:]
    total = torch.zeros_like(inputs.prediction)
    for k, d in enumerate(moved):
        share = 1.0 if record.blend is None else (1 + (1 - 2 * k) * record.blend.to(d)) / 2
        dense = (d * share).repeat_interleave(4, 2).repeat_interleave(4, 3)[..., :rows, :columns] * 0.25
        total = total + slopes_y * dense[:, :1] + slopes_x * dense[:, 1:]
    return replace(inputs, prediction=inputs.prediction + total, final_vectors=slots(final))


def _slopes(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Of (B, 6, h, w) the derivatives along rows and columns, by luma samples."""
    luma = F.pad(F.pixel_shuffle(samples[:, :4], 2), (1, 1, 1, 1), mode="replicate")
    chroma = F.pad(samples[:, 4:], (1, 1, 1, 1), mode="replicate")
    found = []
    for is_x in (False, True):
        parts = []
        for plane, scale in ((luma, 0.5), (chroma, 0.25)):
            inner = plane[:, :, 1:-1] if is_x else plane[..., 1:-1]
            ahead, behind = (inner[..., 2:], inner[..., :-2]) if is_x else (inner[:, :, 2:], inner[:, :, :-2])
            parts.append((ahead - behind) * scale)
        found.append(torch.cat([F.pixel_unshuffle(parts[0], 2), parts[1]], dim=1))
    return found[0], found[1]
