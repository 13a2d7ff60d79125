"""From the appearance levels to the residual: a wavelet synthesis in integers."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nvcodec.core.fixedpoint import Rounding, conv2d, shift_right
from nvcodec.grid.levels import APPEARANCE_LEVELS, BANDS, channel_gains

__all__ = [
    "BAND_BOUND",
    "RESIDUAL_BOUND",
    "expand_grid",
    "expand_steps",
    "grid_filters",
    "pack_planes",
    "residual_planes",
]

RESIDUAL_BOUND = 1023
"""Magnitude of the residual that the grid expands to."""

BAND_BOUND = 14336
"""Magnitude of a band sample: symbol times gain, and every intermediate plane."""
_LOW_TAPS = ((0, -21, 404, -21, 0), (0, -33, 214, 214, -33))
_HIGH_TAPS = ((12, -193, -193, 12, 0), (19, -57, 437, -57, 19))
"""Synthesis filters of the 9/7 wavelet (Cohen, Daubechies, Feauveau 1992) in their orthonormal scaling, /512:
contributions of five low (high) samples around i to the output samples 2i and 2i + 1."""
_TAP_SHIFT = 9


def _merge_kernel() -> Tensor:
    return torch.stack(
        [torch.tensor([low, high], dtype=torch.float32) for low, high in zip(_LOW_TAPS, _HIGH_TAPS, strict=True)]
    )  # (2 output phases, low and high, 5)


_MERGE_KERNEL = _merge_kernel()


@lru_cache(maxsize=64)
def _continued(columns: int, length: int, phase: int, device: torch.device) -> Tensor:
    """Which low (phase 0) or high (phase 1) samples of a line stand at -2 .. columns + 1."""
    from nvcodec.grid.wavelet_cpu import source_place

    return torch.tensor([source_place(i, phase, length) for i in range(-2, columns + 2)], device=device)


def _merge(low: Tensor, high: Tensor, length: int, rounding: Rounding) -> Tensor:
    """(N, rows, columns) each to (N, rows, length): one wavelet synthesis step along the columns.

    Low samples belong to the even places of the line, high ones to the odd places. Both go on beyond its ends as they
    would if the line were mirrored there, so that its two ends have nothing to do with each other.
    """
    count, rows, columns = low.shape
    places = [_continued(columns, length, phase, low.device) for phase in range(2)]
    pair = torch.stack([x.index_select(2, at) for x, at in zip((low, high), places, strict=True)], dim=1)
    both = conv2d(pair, _MERGE_KERNEL.to(pair).unsqueeze(2))
    out = both.permute(0, 2, 3, 1).reshape(count, rows, 2 * columns)[:, :, :length]
    return shift_right(out, _TAP_SHIFT, rounding).clamp(-BAND_BOUND, BAND_BOUND)


def _synthesise(low: Tensor, bands: Tensor, size: tuple[int, int], rounding: Rounding) -> Tensor:
    """One level in two dimensions: low (N, r, c) and bands (N, 3, r, c) to (N, *size).

    Bands: high along columns, high along rows, high along both.
    """
    if low.device.type == "cpu":
        from nvcodec.grid.wavelet_cpu import SynthesisStep  # brings a compiler: only where frames are made

        rounds = rounding is not Rounding.NONE
        return SynthesisStep.apply(low, bands, _MERGE_KERNEL, size, _TAP_SHIFT, BAND_BOUND, rounds)
    return _synthesise_anywhere(low, bands, size, rounding)


def _synthesise_anywhere(low: Tensor, bands: Tensor, size: tuple[int, int], rounding: Rounding) -> Tensor:
    """The same by tensor operations."""
    upper = _merge(low, bands[:, 0], size[1], rounding)
    lower = _merge(bands[:, 1], bands[:, 2], size[1], rounding)
    turned = _merge(upper.transpose(1, 2), lower.transpose(1, 2), size[0], rounding)
    return turned.transpose(1, 2)


def grid_filters() -> np.ndarray:
    """float32 (2 output phases, low and high, 5): the synthesis filters."""
    return (_MERGE_KERNEL * 2.0**-_TAP_SHIFT).numpy()


def expand_steps(levels: list[Tensor], gains: Tensor, rounding: Rounding = Rounding.EXACT) -> list[Tensor]:
    """The images on the way of ``expand_grid``: luma (B, 1, 2 h, 2 w), then the planes of Y, U, V, (B, 3, h, w) and
    smaller, to the means at last. Image k is what the bands of level k are added to."""
    amplitudes = [(level * channel_gains(gains, k)).clamp(-BAND_BOUND, BAND_BOUND) for k, level in enumerate(levels)]
    batch = levels[0].shape[0]
    images = [amplitudes[-1][:, BANDS:]]
    for k in reversed(range(1, APPEARANCE_LEVELS)):
        bands = amplitudes[k][:, :BANDS].unflatten(1, (3, 3)).flatten(0, 1)
        finer = (levels[k - 1].shape[2], levels[k - 1].shape[3])
        planes = _synthesise(images[0].flatten(0, 1), bands, finer, rounding)
        images.insert(0, planes.unflatten(0, (batch, 3)))
    size = (2 * images[0].shape[2], 2 * images[0].shape[3])
    luma = _synthesise(images[0][:, 0], amplitudes[0], size, rounding)
    return [luma.unsqueeze(1), *images]


def pack_planes(images: list[Tensor]) -> Tensor:
    """(B, 6, h, w) of the working domain from what ``expand_steps`` returned."""
    return torch.cat([F.pixel_unshuffle(images[0], 2), images[1][:, 1:]], dim=1)


def expand_grid(levels: list[Tensor], gains: Tensor, rounding: Rounding = Rounding.EXACT) -> Tensor:
    """Appearance levels (finest first), each (B, C_k, h_k, w_k), to the residual (B, 6, h, w).

    ``gains``: (2, APPEARANCE_GAINS), of luma and chroma the amplitude of symbol 1 at each level and, last, of the mean.
    The coarsest level ends with the three means; the finest level has luma bands only.
    """
    return pack_planes(expand_steps(levels, gains, rounding)).clamp(-RESIDUAL_BOUND, RESIDUAL_BOUND)


def residual_planes(levels: list[Tensor], gains: Tensor) -> dict[int, Tensor]:
    """What a program may see of the grid, integers in float32. 0: the residual, as ``expand_grid`` has it. k > 0: the
    planes Y, U and V at level k of the working domain, (B, 3, h >> k, w >> k) rounded up, in the measure of samples:
    those on the way there over the gain of the low filters, ``2**(k + 1)`` for luma and ``2**k`` for chroma."""
    images = expand_steps(levels, gains)
    found = {0: pack_planes(images).clamp(-RESIDUAL_BOUND, RESIDUAL_BOUND)}
    for k in range(1, APPEARANCE_LEVELS):
        image = images[k + 1]
        luma, chroma = (shift_right(x, k + more) for x, more in ((image[:, :1], 1), (image[:, 1:], 0)))
        found[k] = torch.cat([luma, chroma], 1).clamp(-RESIDUAL_BOUND, RESIDUAL_BOUND)
    return found
