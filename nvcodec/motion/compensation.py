"""The coupled WarpRNN: states in, prediction and context out.

::

    states of the references          motion levels                         blocks
       motion      appearance               |                                  |
         |             |                    v                                  v
         +--> predict_motion --> (+) --> add_grid_motion --> compensate --> rebuild --> cell --> samples
                 ^  warped references disagree here               |
                 +------ (motion follows appearance) -------------+ (appearance follows motion)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nvcodec.core.fixedpoint import shift_right
from nvcodec.motion.levels import FrameGeometry
from nvcodec.motion.prediction import MotionState
from nvcodec.motion.warp import GREY, SAMPLE_CHANNELS, Reference

__all__ = ["Compensated", "FrameState", "blended", "compensate", "key_frame_inputs"]


@dataclass(frozen=True)
class FrameState:
    """What a decoded frame hands on: its appearance state and its motion state."""

    appearance: Reference
    motion: MotionState


@dataclass(frozen=True)
class Compensated:
    """What the references say about a frame, each (channels, h, w) in the working domain."""

    prediction: Tensor
    difference: Tensor


def key_frame_inputs(geometry: FrameGeometry, device: torch.device) -> Compensated:
    """The inputs of a frame without references."""
    h, w = geometry.half
    return Compensated(
        torch.full((SAMPLE_CHANNELS, h, w), float(GREY), device=device),
        torch.zeros(SAMPLE_CHANNELS, h, w, device=device),
    )


def compensate(
    references: tuple[Reference, ...],
    fields: tuple[Tensor, ...],
    blend: Tensor,
) -> Compensated:
    """Warp the references by their fields and blend them.

    ``fields``: one (2, block rows, block columns) per reference. ``blend``: (1, block rows, block columns).
    """
    return blended([r.warp(field) for r, field in zip(references, fields, strict=True)], blend)


def blended(warped: list[Tensor], blend: Tensor) -> Compensated:
    """What one or two warped references (6, h, w) come to, ``(first (1 + b) + second (1 - b) + 1) >> 1``."""
    if len(warped) == 1:
        return Compensated(warped[0], torch.zeros_like(warped[0]))
    first, second = warped
    rows, columns = first.shape[1:]
    b = blend.to(first.device).repeat_interleave(4, 1).repeat_interleave(4, 2)[:, :rows, :columns]
    return Compensated(shift_right(first * (1 + b) + second * (1 - b), 1), first - second)
