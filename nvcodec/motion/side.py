"""Side features of the motion levels: what is known of them before a symbol is read, for the context model."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nvcodec.entropy.context import ChannelLayout, log_table
from nvcodec.motion.levels import FrameGeometry, motion_layout
from nvcodec.motion.prediction import merge_unrest

__all__ = ["MotionSide", "gradient", "parent_logs", "pooled_logs"]


def pooled_logs(plane: Tensor, level: int, more: Tensor | None = None) -> Tensor:
    """(B, 1, h, w) to its level's size: the log feature of the mean over each 2**level x 2**level cell plus ``more``.

    The mean is ``Round2(sum, 2 * level)``, samples beyond the border count as 0.
    """
    from nvcodec.motion import side_cpu  # brings a compiler: only where symbols are coded

    batch, _, rows, columns = plane.shape
    out = np.empty((batch, -(-rows >> level), -(-columns >> level)), np.float32)
    added = np.zeros_like(out) if more is None else more[:, 0].contiguous().numpy()
    side_cpu.pooled_logs(plane[:, 0].contiguous().numpy(), added, level, log_table(), out)
    return torch.from_numpy(out).unsqueeze(1)


def parent_logs(coarser: list[Tensor], channels: int, size: tuple[int, int], batch: int) -> Tensor:
    """(B, channels, *size): magnitudes of the same channel at the coarser level, log feature of eight times the
    sample above plus a 3x3 sum around it; 0 where the coarser level has no such channel."""
    from nvcodec.motion import side_cpu

    if not coarser:
        return torch.zeros(batch, channels, *size)
    out = np.empty((batch, channels, *size), np.float32)
    side_cpu.parent_logs(coarser[0].detach().contiguous().numpy(), log_table(), out)
    return torch.from_numpy(out)


def gradient(plane: Tensor) -> Tensor:
    """(B, C, h, w) to (B, 1, h, w): absolute differences to the upper and left neighbour, summed over C."""
    from nvcodec.motion import side_cpu

    out = np.empty((len(plane), *plane.shape[2:]), np.float32)
    side_cpu.gradient(plane.contiguous().numpy(), out)
    return torch.from_numpy(out).unsqueeze(1)


class MotionSide:
    """Side features of the motion levels: disagreement of the references, and unrest of the motion known so far."""

    def __init__(self, disagreement: Tensor, predicted: Tensor, references: int, geometry: FrameGeometry) -> None:
        """``disagreement``: (B, 1, block rows, block columns). ``predicted``: (B, 2, block rows, block columns)."""
        self.mismatch = disagreement
        self.activity = gradient(predicted)
        self._references = references
        self.size = geometry.motion_size

    def layout(self, level: int) -> ChannelLayout:
        return motion_layout(self._references, level)

    def __call__(self, level: int, coarser: list[Tensor]) -> Tensor:
        """``coarser``: the levels already read, the next one first."""
        unrest = merge_unrest(coarser, self.size(level)) if coarser else None
        return torch.cat(
            [
                parent_logs(coarser, len(self.layout(level)), self.size(level), len(self.mismatch)),
                pooled_logs(self.mismatch, level),
                pooled_logs(self.activity, level, unrest),
            ],
            dim=1,
        )
