"""Source frames as the encoder sees them: six planes of half size (four of luma, two of chroma), 10 bits.

A block of 8x8 luma samples is ``CELL`` x ``CELL`` samples of each plane.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nvcodec.core.frame import Frame
from nvcodec.motion.warp import BLOCK, pack_luma

__all__ = ["CELL", "LUMA_PLANES", "SAMPLE_STEP", "block_means", "over_blocks", "working_samples"]

CELL = BLOCK // 2
"""Samples on a side of a block."""
LUMA_PLANES = 4
SAMPLE_STEP = 4.0
"""Samples have 10 bits: four steps are one 8-bit grey level."""
WORKING_BITS = 10


def working_samples(frame: Frame) -> Tensor:
    """(6, h, w) working samples of a frame, 10 bits in float32; odd sizes repeat the last row and column."""
    luma = frame.y[None, None].float()
    height, width = luma.shape[2:]
    luma = F.pad(luma, (0, width % 2, 0, height % 2), mode="replicate")[0, 0]
    return torch.cat([pack_luma(luma), torch.stack([frame.u, frame.v]).float()]) * 2.0 ** (
        WORKING_BITS - frame.bit_depth
    )


def block_means(samples: Tensor) -> Tensor:
    """(..., C, h, w) to (..., block rows, block columns): the mean over each block and all channels."""
    return F.avg_pool2d(samples.mean(-3, keepdim=True), CELL, ceil_mode=True).squeeze(-3)


def over_blocks(blocks: Tensor, size: Sequence[int]) -> Tensor:
    """(..., block rows, block columns) to (..., rows, columns) of ``size``: each sample gets what its block has."""
    rows, columns = size
    return blocks.repeat_interleave(CELL, -2).repeat_interleave(CELL, -1)[..., :rows, :columns]
