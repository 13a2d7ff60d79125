"""How far frames of the working domain are from the source: squared errors in 8-bit grey levels, and PSNR in dB."""

from __future__ import annotations

import torch
from torch import Tensor

from nvcodec.encoder.working_domain import LUMA_PLANES, SAMPLE_STEP, block_means, over_blocks

__all__ = ["CHROMA_WEIGHT", "block_errors", "block_variance", "plane_errors", "psnr_611", "sample_weights"]

CHROMA_WEIGHT = 2.6
"""Weight of chroma errors. The 6:1:1 mean of PSNRs asks for 2/3 of the ratio of luma's squared error to chroma's,
which is 3 to 4 in most videos."""

_NO_ERROR = 1e-4
"""Squared error of a plane that is exact, so that its PSNR is a number."""


def block_errors(prediction: Tensor, target: Tensor) -> Tensor:
    """(B, block rows, block columns): mean squared 8-bit luma error of each block."""
    return block_means(((prediction - target)[:, :LUMA_PLANES] / SAMPLE_STEP).square())


def block_variance(target: Tensor) -> Tensor:
    """(B, block rows, block columns): variance of the luma of each block, 8-bit."""
    luma = target[:, :LUMA_PLANES] / SAMPLE_STEP
    return (block_means(luma.square()) - block_means(luma).square()).clamp(min=0)


def plane_errors(samples: Tensor, target: Tensor, bit_depth: int = 8) -> Tensor:
    """(B, 3): mean squared error of Y, U and V in 8-bit grey levels, after the rounding to the bits of the output."""
    output = samples / SAMPLE_STEP
    if bit_depth == 8:
        output = torch.floor((samples + SAMPLE_STEP / 2) / SAMPLE_STEP).clamp(0, 255)
    squares = (output - target / SAMPLE_STEP).square().mean((2, 3))
    return torch.stack([squares[:, :LUMA_PLANES].mean(1), squares[:, LUMA_PLANES], squares[:, LUMA_PLANES + 1]], dim=1)


def psnr_611(errors: Tensor) -> Tensor:
    """(B,): (6 Y + U + V) / 8 of the plane PSNRs in dB, by the squared errors (B, 3)."""
    planes = 10 * torch.log10(255**2 / errors.clamp(min=_NO_ERROR))
    return (6 * planes[:, 0] + planes[:, 1] + planes[:, 2]) / 8


def sample_weights(importance: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 6, *size): weight of the squared error of each working sample; ``importance``: (B, block rows, columns)."""
    dense = over_blocks(importance, size)[:, None]
    return torch.cat([dense.expand(-1, LUMA_PLANES, -1, -1), CHROMA_WEIGHT * dense.expand(-1, 2, -1, -1)], dim=1)
