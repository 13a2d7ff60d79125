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
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nvcodec.entropy.context import log_feature, log_table
from nvcodec.fixedpoint import Rounding, shift_right
from nvcodec.model.grid import FrameGeometry, motion_layout
from nvcodec.model.motion import MotionState, merge_unrest
from nvcodec.model.network import GREY, SAMPLE_CHANNELS
from nvcodec.model.warp import Reference

__all__ = ["Compensated", "FrameState", "MotionSide", "compensate", "key_frame_inputs"]


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
    rounding: Rounding = Rounding.EXACT,
) -> Compensated:
    """Warp the references by their fields and blend them, ``(first (1 + b) + second (1 - b) + 1) >> 1``.

    ``fields``: one (2, block rows, block columns) per reference. ``blend``: (1, block rows, block columns).
    """
    warped = [r.warp(field) for r, field in zip(references, fields, strict=True)]
    if len(warped) == 1:
        return Compensated(warped[0], torch.zeros_like(warped[0]))
    first, second = warped
    rows, columns = first.shape[1:]
    b = blend.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, :rows, :columns]
    return Compensated(shift_right(first * (1 + b) + second * (1 - b), 1, rounding), first - second)


def _pool(plane: Tensor, level: int) -> Tensor:
    """(B, 1, h, w) to its level's size: ``Round2(sum over the 2**level x 2**level cell, 2 * level)``."""
    if level == 0:
        return plane
    side = 1 << level
    padded = F.pad(plane, (0, -plane.shape[3] % side, 0, -plane.shape[2] % side))
    return shift_right(F.avg_pool2d(padded, side, divisor_override=1), 2 * level)


def _pooled_logs(plane: Tensor, level: int, more: Tensor | None = None) -> Tensor:
    """(B, 1, h, w) to its level's size: the log feature of ``_pool`` plus ``more``."""
    if plane.device.type != "cpu":
        pooled = _pool(plane, level)
        return log_feature(pooled if more is None else pooled + more, Rounding.EXACT)
    from nvcodec.model import side_cpu  # brings a compiler: only where symbols are coded

    batch, _, rows, columns = plane.shape
    out = np.empty((batch, -(-rows >> level), -(-columns >> level)), np.float32)
    added = np.zeros_like(out) if more is None else more[:, 0].contiguous().numpy()
    side_cpu.pooled_logs(plane[:, 0].contiguous().numpy(), added, level, _logarithms(), out)
    return torch.from_numpy(out).unsqueeze(1)


def _parent(coarser: list[Tensor], channels: int, size: tuple[int, int], like: Tensor) -> Tensor:
    """(B, channels, *size): magnitudes of the same channel at the coarser level, log feature of eight times the
    sample above plus a 3x3 sum around it; 0 where the coarser level has no such channel."""
    if not coarser:
        return torch.zeros(like.shape[0], channels, *size, device=like.device)
    if like.device.type != "cpu":
        return _parent_anywhere(coarser[0], channels, size)
    from nvcodec.model import side_cpu

    out = np.empty((like.shape[0], channels, *size), np.float32)
    side_cpu.parent_logs(coarser[0].detach().contiguous().numpy(), _logarithms(), out)
    return torch.from_numpy(out)


def _parent_anywhere(coarser: Tensor, channels: int, size: tuple[int, int]) -> Tensor:
    """The same by tensor operations."""
    out = torch.zeros(coarser.shape[0], channels, *size, device=coarser.device)
    shared = min(channels, coarser.shape[1])
    magnitude = coarser[:, :shared].abs()
    around = F.avg_pool2d(magnitude, 3, 1, 1, divisor_override=1) + 8 * magnitude
    logs = log_feature(4 * around, Rounding.EXACT)
    out[:, :shared] = logs.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, : size[0], : size[1]]
    return out


def _gradient(plane: Tensor) -> Tensor:
    """(B, C, h, w) to (B, 1, h, w): absolute differences to the upper and left neighbour, summed over C."""
    if plane.device.type != "cpu":
        return _gradient_anywhere(plane)
    from nvcodec.model import side_cpu

    out = np.empty((len(plane), *plane.shape[2:]), np.float32)
    side_cpu.gradient(plane.contiguous().numpy(), out)
    return torch.from_numpy(out).unsqueeze(1)


def _gradient_anywhere(plane: Tensor) -> Tensor:
    """The same by tensor operations."""
    vertical = F.pad((plane[:, :, 1:] - plane[:, :, :-1]).abs(), (0, 0, 1, 0))
    horizontal = F.pad((plane[:, :, :, 1:] - plane[:, :, :, :-1]).abs(), (1, 0))
    return (vertical + horizontal).sum(1, keepdim=True)


@cache
def _logarithms() -> np.ndarray:
    return log_table(torch.device("cpu")).numpy()


class MotionSide:
    """Side features of the motion levels: disagreement of the references, and unrest of the motion known so far."""

    def __init__(self, disagreement: Tensor, predicted: Tensor, references: int, geometry: FrameGeometry) -> None:
        """``disagreement``: (B, 1, block rows, block columns). ``predicted``: (B, 2, block rows, block columns)."""
        self.mismatch = disagreement
        self.activity = _gradient(predicted)
        self.layout = partial(motion_layout, references)
        self.size = geometry.motion_size

    def __call__(self, level: int, coarser: list[Tensor]) -> Tensor:
        """``coarser``: the levels already read, the next one first."""
        unrest = merge_unrest(coarser, self.size(level)) if coarser else None
        return torch.cat(
            [
                _parent(coarser, len(self.layout(level)), self.size(level), self.mismatch),
                _pooled_logs(self.mismatch, level),
                _pooled_logs(self.activity, level, unrest),
            ],
            dim=1,
        )
