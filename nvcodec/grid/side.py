"""Side features of the appearance levels: what is known of them before a symbol is read, for the context model."""

from __future__ import annotations

import torch
from torch import Tensor

from nvcodec.grid.levels import APPEARANCE_LEVELS, appearance_layout, appearance_shapes
from nvcodec.motion.levels import FrameGeometry
from nvcodec.motion.side import gradient, parent_logs, pooled_logs

__all__ = ["AppearanceSide"]

_LUMA = 4
"""The first channels of the working domain."""


class AppearanceSide:
    """Mismatch of the warped references and activity of the prediction of a unit, and the levels read so far."""

    def __init__(self, prediction: Tensor, difference: Tensor, geometry: FrameGeometry) -> None:
        """``prediction``, ``difference``: (B, 6, h, w) integers, as motion alone gives them."""
        self._shapes = appearance_shapes(geometry)
        planes = (difference[:, :_LUMA].abs().sum(1, keepdim=True).cpu(), gradient(prediction[:, :_LUMA].cpu()))
        self._fixed = [
            torch.cat([pooled_logs(plane, level) for plane in planes], dim=1) for level in range(APPEARANCE_LEVELS)
        ]

    layout = staticmethod(appearance_layout)

    def size(self, level: int) -> tuple[int, int]:
        """(rows, columns)"""
        _, rows, columns = self._shapes[level]
        return rows, columns

    def __call__(self, level: int, coarser: list[Tensor]) -> Tensor:
        """(B, channels + 2, rows, columns). ``coarser``: the levels already read, the next one first."""
        fixed = self._fixed[level]
        channels, rows, columns = self._shapes[level]
        return torch.cat([parent_logs(coarser, channels, (rows, columns), len(fixed)), fixed], dim=1)

    def fixed(self, level: int) -> Tensor:
        """(B, 2, rows, columns): mismatch and activity, which no symbol changes."""
        return self._fixed[level]
