"""Motion compensation in integers: interpolate a reference once, then gather.

::

    packed frame (6, h, w) --> luma (2h, 2w)  --8 taps--> 16 quarter-sample planes --+
                           --> chroma (2, h, w) --4 taps--> 16 quarter-sample planes -+-- gather by vector
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nvcodec.core.fixedpoint import conv2d, shift_right
from nvcodec.core.parallel import run_all

__all__ = [
    "BLOCK",
    "GREY",
    "MARGIN",
    "OWN_SHARE",
    "SAMPLE_CHANNELS",
    "SAMPLE_MAX",
    "InterpolatedPlane",
    "Reference",
    "pack_luma",
    "unpack_luma",
]

BLOCK = 8
"""Motion is constant over blocks of BLOCK x BLOCK luma samples."""

SAMPLE_MAX = 1023
"""Decoded samples are kept with 10 bits."""
GREY = 512
SAMPLE_CHANNELS = 6
"""Of the working domain: four luma samples of a 2x2 cell, U, V."""

_LUMA_TAPS = (
    (0, 0, 0, 64, 0, 0, 0, 0),
    (-1, 4, -10, 58, 17, -5, 1, 0),
    (-1, 4, -11, 40, 40, -11, 4, -1),
    (0, 1, -5, 17, 58, -10, 4, -1),
)
"""Quarter-sample filters, /64 (the DCT-based filters of H.265, table 8-11)."""
_CHROMA_TAPS = ((0, 64, 0, 0), (-4, 54, 16, -2), (-4, 36, 36, -4), (-2, 16, 54, -4))
"""Quarter-sample filters, /64 (H.265, table 8-12, every second row)."""
_TAP_SHIFT = 12
OWN_SHARE = {8: (5, 6, 7, 8, 8, 7, 6, 5), 4: (6, 8, 8, 6)}
"""Share, /8, of a block's own vector in the samples along a row or column of the block; blocks of luma and chroma."""
MARGIN = 16
"""Planes reach this far beyond the picture: a block and the longest filter, so that blocks further out see nothing
but the repeated border."""


def pack_luma(luma: Tensor) -> Tensor:
    """(..., 2h, 2w) to (..., 4, h, w): the four samples of a 2x2 cell in raster order."""
    return torch.stack([luma[..., n >> 1 :: 2, n & 1 :: 2] for n in range(4)], dim=-3)


def unpack_luma(packed: Tensor) -> Tensor:
    """(..., 4, h, w) to (..., 2h, 2w)."""
    *batch, _, rows, columns = packed.shape
    luma = packed.new_empty(*batch, 2 * rows, 2 * columns)
    for n in range(4):  # several times as fast as pixel_shuffle
        luma[..., n >> 1 :: 2, n & 1 :: 2] = packed[..., n, :, :]
    return luma


@dataclass(frozen=True)
class InterpolatedPlane:
    """All quarter-sample positions of C planes, ready to gather from.

    ``samples``: (C, 16 * padded_height * padded_width), the index is (phase * H + row) * W + column with
    phase = 4 * (column fraction) + (row fraction). On a CPU they are int16, which halves what a search has to read.
    """

    samples: Tensor
    height: int
    width: int

    @staticmethod
    def build(planes: Tensor, taps: tuple[tuple[int, ...], ...]) -> InterpolatedPlane:
        """Interpolate ``planes`` (C, H, W) of samples 0 .. SAMPLE_MAX; the result is rounded and clipped."""
        if planes.device.type == "cpu":
            return InterpolatedPlane._build_cpu(planes, taps)
        return InterpolatedPlane._build_anywhere(planes, taps)

    @staticmethod
    def _build_anywhere(planes: Tensor, taps: tuple[tuple[int, ...], ...]) -> InterpolatedPlane:
        """The same by tensor operations."""
        count, height, width = planes.shape
        length = len(taps[0])
        before, after = length // 2 - 1, length // 2
        kernel = torch.tensor(taps, dtype=planes.dtype, device=planes.device)  # (4, length)
        pad = (MARGIN + before, MARGIN + after)
        padded = F.pad(planes.unsqueeze(1), (*pad, *pad), mode="replicate")
        across = conv2d(padded, kernel.reshape(4, 1, 1, length))
        both = conv2d(across.flatten(0, 1).unsqueeze(1), kernel.reshape(4, 1, length, 1))
        samples = shift_right(both, _TAP_SHIFT).clamp(0, SAMPLE_MAX)
        return InterpolatedPlane(samples.reshape(count, -1), height, width)

    @staticmethod
    def _build_cpu(planes: Tensor, taps: tuple[tuple[int, ...], ...]) -> InterpolatedPlane:
        """The same in compiled code."""
        from nvcodec.motion.warp_cpu import interpolate  # brings a compiler: only where frames are decoded

        count, height, width = planes.shape
        before, after = len(taps[0]) // 2 - 1, len(taps[0]) // 2
        padded = np.pad(planes.numpy(), ((0, 0), *[(MARGIN + before, MARGIN + after)] * 2), mode="edge")
        samples = np.empty((count, 16, height + 2 * MARGIN, width + 2 * MARGIN), np.int16)
        filters = np.array(taps, np.float32)
        phases = [partial(interpolate, padded, filters, column, _TAP_SHIFT, SAMPLE_MAX, samples) for column in range(4)]
        run_all(phases)
        return InterpolatedPlane(torch.from_numpy(samples).reshape(count, -1), height, width)

    def gather(self, field: Tensor, block: int, step: int = 1) -> Tensor:
        """(C, ..., rows, columns) of every ``step``-th sample, displaced by its block's vector.

        ``field``: (..., 2, block rows, block columns), vectors (y, x), integers in quarter samples, for blocks of
        ``block`` <= 8 samples. The border repeats without end.
        """
        full_w = self.width + 2 * MARGIN
        y, x = field.to(torch.int32).unbind(-3)
        # Blocks that lie wholly beyond the margin all see the repeated border: stop them there.
        top = torch.arange(0, y.shape[-2] * block, block, dtype=torch.int32, device=y.device)[:, None]
        left = torch.arange(0, y.shape[-1] * block, block, dtype=torch.int32, device=y.device)
        row = (top + (y >> 2)).clamp(-MARGIN, self.height + MARGIN - block) - top
        column = (left + (x >> 2)).clamp(-MARGIN, self.width + MARGIN - block) - left
        phase = (x & 3) * 4 + (y & 3)
        offset = phase * (full_w * (self.height + 2 * MARGIN)) + row * full_w + column
        start = _positions(self.height, self.width, step, y.device)
        rows, columns = start.shape
        size = block // step
        dense = offset.repeat_interleave(size, -2)[..., :rows, :].repeat_interleave(size, -1)[..., :columns]
        places = start + dense
        return self.samples.index_select(1, places.reshape(-1)).reshape(-1, *places.shape).float()


@lru_cache(maxsize=64)
def _positions(height: int, width: int, step: int, device: torch.device) -> Tensor:
    """Index of every ``step``-th sample in a padded plane, without displacement."""
    row = torch.arange(MARGIN, height + MARGIN, step, dtype=torch.int32, device=device)[:, None]
    column = torch.arange(MARGIN, width + MARGIN, step, dtype=torch.int32, device=device)[None]
    return row * (width + 2 * MARGIN) + column


def _half_blocks(vectors: Tensor, down: bool, right: bool) -> Tensor:
    """A block field (2, rows, columns) as a field of half blocks (2, 2 rows, 2 columns).

    Each half block has the vector of its own block, or, where ``down`` (``right``) is set, that of the block beyond
    its outer edge in this direction; the border repeats.
    """
    for dim, outer in ((1, down), (2, right)):
        size = vectors.shape[dim]
        half = torch.arange(2 * size, device=vectors.device)
        block = torch.div(half + half % 2 * 2 - 1 if outer else half, 2, rounding_mode="floor")
        vectors = vectors.index_select(dim, block.clamp(0, size - 1))
    return vectors


@lru_cache(maxsize=16)
def _window(block: int, length: int, device: torch.device) -> Tensor:
    """(length,): share, /8, of a block's own vector in each sample of a row of blocks."""
    own = torch.tensor(OWN_SHARE[block], dtype=torch.float32, device=device)
    return own.repeat(-(-length // block))[:length]


def _overlapped(plane: InterpolatedPlane, vectors: Tensor, block: int) -> Tensor:
    """(C, rows, columns): overlapped block motion compensation.

    Every sample is a mean, weighted by its place in the block, of what four vectors bring: those of its block, of the
    nearest block above or below, of the nearest one to the left or right, and of the one in the corner between them.
    """
    if vectors.device.type == "cpu":
        return _overlapped_cpu(plane, vectors, block)
    return _overlapped_anywhere(plane, vectors, block)


def _overlapped_anywhere(plane: InterpolatedPlane, vectors: Tensor, block: int) -> Tensor:
    """The same by tensor operations."""
    own_y = _window(block, plane.height, vectors.device)[:, None]
    own_x = _window(block, plane.width, vectors.device)
    total = torch.zeros((), device=vectors.device)
    for down in (False, True):
        sideways = torch.stack([_half_blocks(vectors, down, right) for right in (False, True)])
        nearer, further = plane.gather(sideways, block // 2).unbind(1)
        total = total + (nearer * own_x + further * (8 - own_x)) * (8 - own_y if down else own_y)
    return shift_right(total, 6)


def _overlapped_cpu(plane: InterpolatedPlane, vectors: Tensor, block: int) -> Tensor:
    """The same in compiled code."""
    from nvcodec.motion.warp_cpu import overlap  # brings a compiler: only where frames are decoded

    out = np.empty((len(plane.samples), plane.height, plane.width), np.float32)
    share = np.array(OWN_SHARE[block], np.float32)
    field = vectors.to(torch.int64).numpy()
    overlap(plane.samples.numpy(), plane.height, plane.width, MARGIN, field, share, out)
    return torch.from_numpy(out)


class Reference:
    """A decoded frame as later frames see it: 10-bit samples, interpolated on demand."""

    def __init__(self, packed: Tensor) -> None:
        """``packed``: (6, h, w) samples 0 .. SAMPLE_MAX."""
        self.packed = packed

    def prepare(self) -> None:
        """Interpolate now: afterwards threads may share the reference."""
        _ = self.luma, self.chroma

    @cached_property
    def luma(self) -> InterpolatedPlane:
        return InterpolatedPlane.build(unpack_luma(self.packed[:4]).unsqueeze(0), _LUMA_TAPS)

    @cached_property
    def chroma(self) -> InterpolatedPlane:
        return InterpolatedPlane.build(self.packed[4:], _CHROMA_TAPS)

    def warp(self, vectors: Tensor) -> Tensor:
        """The packed samples (6, h, w), displaced by the block field ``vectors`` (2, block rows, block columns) in
        quarter luma samples."""
        vectors = vectors.to(self.packed.device)
        luma = self.warp_luma(vectors)
        chroma = _overlapped(self.chroma, torch.floor((vectors + 1) * 0.5), BLOCK // 2)
        return torch.cat([pack_luma(luma), chroma])

    def warp_luma(self, vectors: Tensor) -> Tensor:
        """Luma alone, (2h, 2w), displaced by the block field ``vectors``."""
        return _overlapped(self.luma, vectors.to(self.packed.device), BLOCK)[0]
