"""Layer normalisation over channels, with a table of reciprocal roots in place of a division; and its layer.

::

    d[c] = C x[c] - sum(x)          q = sum(d[c]**2)          4**k <= q < 4**(k + 1)
    out[c] = Clip3(-A, A, Round2(d[c] * root[q / 4**k] * floor(1024 sqrt(C)), 25 + k - fraction)),   0 where q is 0

``(x - mean) / deviation`` is ``d sqrt(C) / sqrt(q)``. There is no epsilon, and no affine map: the next convolution
takes it over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import ClassVar

import torch
from torch import Tensor

from nvcodec.exact.arithmetic import ROOT_BITS, ROOT_FRACTION, TABLE_BITS, root_table
from nvcodec.exact.layer import Builder, ExactLayer, Traced
from nvcodec.exact.operation import Execution, Operation, Parameter, Shape, Sizes, operation

__all__ = ["LayerNorm", "Normalisation"]

MAX_NORM_CHANNELS = 512
_ROOT_OF_COUNT_BITS = 10
_LARGEST_POWER = 30


@operation
@dataclass(frozen=True)
class Normalisation(Operation):
    """``fraction``: fraction bits of what it gives."""

    fraction: int = 8

    CODE: ClassVar[int] = 13
    NAME: ClassVar[str] = "norm"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (Parameter("fraction", 0, TABLE_BITS),)

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        (x,) = operands
        self.require(x.channels <= MAX_NORM_CHANNELS, f"{x.channels} channels, at most {MAX_NORM_CHANNELS}")
        return x

    def multiplications(self, operands: Sequence[Shape], shape: Shape) -> int:
        return 4 * shape.elements

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        x = operands[0].to(torch.int64)
        count = x.shape[1]
        d = count * x - x.sum(1, keepdim=True)
        q = (d * d).sum(1, keepdim=True)
        k = torch.zeros_like(q)
        for power in range(1, _LARGEST_POWER):
            k += q >= 1 << (2 * power)
        mantissa = torch.where(2 * k >= ROOT_BITS, q >> (2 * k - ROOT_BITS).clamp(min=0), q << (8 - 2 * k).clamp(min=0))
        index = (mantissa - (1 << ROOT_BITS)).clamp(min=0)  # below 0 where q is 0
        root = torch.from_numpy(root_table()).to(x.device)[index]
        of_count = isqrt(count << (2 * _ROOT_OF_COUNT_BITS))
        shift = ROOT_FRACTION + _ROOT_OF_COUNT_BITS - self.fraction + k
        y = (d * root * of_count + (torch.ones_like(k) << (shift - 1))) >> shift
        return y.clamp(-execution.bound, execution.bound).float()


class LayerNorm(ExactLayer):
    """Mean 0 and deviation 1 over the channels of each position, (B, C, H, W)."""

    def choose_fraction(self, bound: int) -> None:
        super().choose_fraction(bound)
        self.fraction = min(self.fraction, TABLE_BITS)

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        return self.finish(centred * torch.rsqrt(centred.square().mean(1, keepdim=True) + 1e-12))

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        return builder.add(Normalisation((operands[0].number,), self.fraction), self.fraction)
