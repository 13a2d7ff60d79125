"""Warp by vectors that are themselves values of the program, with overlapped blocks; and its layer.

A vector points, in sixteenths of a sample of what is warped, from each block of ``2**block_log2`` samples to where its
samples come from; between samples they are interpolated bilinearly, and the border repeats without end. In blocks of 2,
4 and 8 each sample is a mean of what four vectors bring: those of its block, of the nearest block above or below, of
the nearest one to the left or right, and of the one between these. There is one rounding, at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nvcodec.exact.layer import Builder, ExactLayer, Traced
from nvcodec.exact.operation import Execution, Operation, Parameter, Shape, Sizes, operation
from nvcodec.exact.pointwise import rescaled

__all__ = ["OVERLAP", "Warp", "Warping", "sampled"]

OVERLAP = {1: (7, 7), 2: (6, 8, 8, 6), 3: (5, 6, 7, 8, 8, 7, 6, 5)}
"""Share, /8, of a block's own vector in the samples along its row or column, by log2 of its side."""
_UNIT = 16
"""Steps of a vector in a sample."""


@operation
@dataclass(frozen=True)
class Warping(Operation):
    """Operands: what is warped, (C, H, W), and vectors (y, x), (2, H / side, W / side) or more."""

    block_log2: int = 0

    CODE: ClassVar[int] = 14
    NAME: ClassVar[str] = "warp"
    OPERANDS: ClassVar[int | None] = 2
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (Parameter("block_log2", 0, 3),)

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        x, v = operands
        self.require(v.channels == 2, f"{v.channels} channels of vectors")
        covers = v.rows << self.block_log2 >= x.rows and v.columns << self.block_log2 >= x.columns
        self.require(covers, f"vectors {v} do not cover {x} in blocks of {1 << self.block_log2}")
        return x

    def multiplications(self, operands: Sequence[Shape], shape: Shape) -> int:
        return shape.elements * (20 if self.block_log2 else 4)

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        x, v = operands
        if x.device.type == "cpu":
            from nvcodec.exact import kernels_cpu  # brings a compiler: only where programs are run

            own = np.array(OVERLAP.get(self.block_log2, (8,)), np.int64)
            made = kernels_cpu.warped(
                x.contiguous().numpy(), v.contiguous().numpy(), self.block_log2, own, execution.bound, execution.threads
            )
            return torch.from_numpy(made)
        shift = 14 if self.block_log2 else 8
        total = warped(x.double(), v.double(), self.block_log2)
        return torch.floor(total * 2.0**-shift + 0.5).clamp(-execution.bound, execution.bound).float()


def warped(x: Tensor, v: Tensor, block_log2: int) -> Tensor:
    """``x`` (B, C, H, W) warped by ``v`` (B, 2, h, w), times 256, or 256 * 64 with overlapped blocks.

    Exact for integers; gradients reach both ``x`` and ``v``.
    """
    size = x.shape[-2:]
    if not block_log2:
        return _bilinear(x, v[..., : size[0], : size[1]])
    total: Tensor | float = 0.0
    for dense, share in _overlapping(v, (size[0], size[1]), block_log2):
        total = total + _bilinear(x, dense) * share
    assert isinstance(total, Tensor)
    return total


def _overlapping(v: Tensor, size: Sequence[int], block_log2: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The four vectors of every sample, (B, 2, *size), each with its share, /64."""
    side = 1 << block_log2
    own = torch.tensor(OVERLAP[block_log2], dtype=v.dtype, device=v.device)
    own_y = own.repeat(-(-size[0] // side))[: size[0], None]
    own_x = own.repeat(-(-size[1] // side))[: size[1]]
    for down in (False, True):
        rows = _blocks_of(size[0], side, v.shape[-2], down, v.device)
        share_y = 8 - own_y if down else own_y
        for right in (False, True):
            columns = _blocks_of(size[1], side, v.shape[-1], right, v.device)
            share_x = 8 - own_x if right else own_x
            yield v.index_select(-2, rows).index_select(-1, columns), share_y * share_x


def _blocks_of(size: int, side: int, blocks: int, outer: bool, device: torch.device) -> Tensor:
    """Of each sample along a dimension its block, or the nearest block beside that one; the border repeats."""
    place = torch.arange(size, device=device)
    block = place // side
    if outer:
        block = torch.where(place % side * 2 < side, block - 1, block + 1)
    return block.clamp(0, blocks - 1)


def _bilinear(x: Tensor, v: Tensor) -> Tensor:
    """Times 256. ``v``: (B, 2, H, W), sixteenths of a sample."""
    batch, channels, rows, columns = x.shape
    y0 = torch.arange(rows, device=x.device, dtype=v.dtype)[:, None] * _UNIT + v[:, 0]
    x0 = torch.arange(columns, device=x.device, dtype=v.dtype) * _UNIT + v[:, 1]
    row, column = torch.floor(y0.detach() / _UNIT), torch.floor(x0.detach() / _UNIT)
    part_y, part_x = y0 - row * _UNIT, x0 - column * _UNIT
    flat = x.reshape(batch, channels, rows * columns)
    total: Tensor | float = 0.0
    for dy in (0, 1):
        line = (row + dy).clamp(0, rows - 1)
        share_y = part_y if dy else _UNIT - part_y
        for dx in (0, 1):
            place = (line * columns + (column + dx).clamp(0, columns - 1)).long().reshape(batch, 1, -1)
            taken = flat.gather(2, place.expand(-1, channels, -1)).reshape(batch, channels, rows, columns)
            share = share_y * (part_x if dx else _UNIT - part_x)
            total = total + taken * share.unsqueeze(1)
    assert isinstance(total, Tensor)
    return total


def sampled(x: Tensor, v: Tensor) -> Tensor:
    """``_bilinear``, but for float32's rounding, in fewer operations; ``v`` in samples."""
    rows, columns = x.shape[-2:]
    place = torch.stack(
        [
            (torch.arange(columns, device=x.device) + v[:, 1]) * (2 / max(columns - 1, 1)) - 1,
            (torch.arange(rows, device=x.device)[:, None] + v[:, 0]) * (2 / max(rows - 1, 1)) - 1,
        ],
        dim=-1,
    )
    return F.grid_sample(x, place, padding_mode="border", align_corners=True)


class Warp(ExactLayer):
    """``block``: side of the blocks, 1, 2, 4 or 8 samples of what is warped. ``units_log2``: how many sixteenths of
    such a sample one unit of the vectors is; for vectors in quarter luma samples 2 at luma's resolution, 1 at half,
    0 at a quarter of it."""

    keeps_fraction = True

    def __init__(self, block: int, units_log2: int) -> None:
        super().__init__()
        self.block_log2, self.units_log2 = block.bit_length() - 1, units_log2

    def forward(self, x: Tensor, v: Tensor) -> Tensor:
        size, vectors = x.shape[-2:], v * 2.0 ** (self.units_log2 - 4)
        if not self.block_log2:
            return sampled(x, vectors[..., : size[0], : size[1]])
        total: Tensor | float = 0.0
        for dense, share in _overlapping(vectors, size, self.block_log2):
            total = total + sampled(x, dense) * (share / 64)
        assert isinstance(total, Tensor)
        return total

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        x, v = operands
        vectors = rescaled(builder, v, self.units_log2)
        return builder.add(Warping((x.number, vectors.number), self.block_log2), x.fraction)
