"""Integer arithmetic carried out in float32, exactly.

The decode process is specified in integers. Every integer of it is smaller than 2**24 in magnitude, so
a float32 holds it without error, and sums and products that stay below that bound are exact in any
order of summation. That lets the same operators serve the exact decoder and the encoder's float twin:

* the decoder calls them with ``Rounding.EXACT``: integers in, integers out;
* training calls them with ``Rounding.STRAIGHT_THROUGH`` (same values, gradients pass as if nothing had
  been rounded) or ``Rounding.NONE`` (no rounding at all, the early stages of a fit).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nvcodec.core.errors import LimitError

__all__ = [
    "EXACT_LIMIT",
    "LEAKY_SHIFT",
    "Rounding",
    "check_exact_bound",
    "conv2d",
    "exact_inference",
    "leaky_relu",
    "round_nearest",
    "shift_right",
]

EXACT_LIMIT = 1 << 24
"""Integers of magnitude below this are exact in float32."""

LEAKY_SHIFT = 3
"""Negative activations are divided by 2**LEAKY_SHIFT (rounding towards minus infinity)."""


class Rounding(Enum):
    """How an operator treats the fraction that a shift leaves behind."""

    EXACT = "exact"
    STRAIGHT_THROUGH = "straight-through"
    NONE = "none"


class _FloorThrough(torch.autograd.Function):
    """floor(x) forwards, identity backwards."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return torch.floor(x)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return grad


def _floor(x: Tensor, rounding: Rounding) -> Tensor:
    if rounding is Rounding.EXACT:
        return torch.floor(x)
    return _FloorThrough.apply(x)


def round_nearest(x: Tensor, rounding: Rounding = Rounding.EXACT) -> Tensor:
    """``floor(x + 1/2)``; ``x`` itself under ``Rounding.NONE``."""
    if rounding is Rounding.NONE:
        return x
    return _floor(x + 0.5, rounding)


def shift_right(x: Tensor, bits: int, rounding: Rounding = Rounding.EXACT) -> Tensor:
    """``(x + 2**(bits-1)) >> bits`` for integers in float32: divide by ``2**bits``, round half up."""
    return round_nearest(x * 2.0**-bits, rounding)


def leaky_relu(x: Tensor, rounding: Rounding = Rounding.EXACT) -> Tensor:
    """``x if x >= 0 else x >> LEAKY_SHIFT`` (arithmetic shift)."""
    y = F.leaky_relu(x, 2.0**-LEAKY_SHIFT)
    return y if rounding is Rounding.NONE else _floor(y, rounding)


def check_exact_bound(weight: Tensor, bias: Tensor, input_bound: Tensor, layer: str) -> None:
    """Raise LimitError unless every partial sum of the layer is exact in float32.

    ``weight``: integers (out, in, ...); ``bias``: integers (out,) or (types, out); ``input_bound``: largest
    magnitude of each input channel, (in,). The rule is sum|w| * bound + |b| < 2**24 for each output channel,
    with room for the rounding offset of the shift that follows.
    """
    per_input = weight.reshape(*weight.shape[:2], -1).norm(1, dim=2).double()
    worst = per_input @ input_bound.to(per_input) + bias.abs().double().reshape(-1, weight.shape[0]).amax(0)
    if bool((worst >= EXACT_LIMIT - (1 << 20)).any()):
        raise LimitError(f"{layer}: the accumulator reaches {int(worst.max())}, the limit is {EXACT_LIMIT - (1 << 20)}")


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: int = 1, padding: int = 0) -> Tensor:
    """Convolution whose result is exact when its inputs are integers within the bound.

    On CUDA it is written as a matrix product, because library convolutions there may choose transforms
    (Winograd, FFT) whose intermediate values are not integers.
    """
    if x.is_cuda and not torch.is_grad_enabled():
        batch, _, height, width = x.shape
        out_channels, _, kernel_h, kernel_w = weight.shape
        columns = F.unfold(x, (kernel_h, kernel_w), padding=padding, stride=stride)
        out = weight.reshape(out_channels, -1) @ columns
        out_h = (height + 2 * padding - kernel_h) // stride + 1
        out_w = (width + 2 * padding - kernel_w) // stride + 1
        out = out.reshape(batch, out_channels, out_h, out_w)
        return out if bias is None else out + bias.reshape(1, -1, 1, 1)
    return F.conv2d(x, weight, bias, stride=stride, padding=padding)


class _ExactSettings:
    """Settings of PyTorch for the whole process, changed as long as any thread needs them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before: tuple[str, bool, Any] = ("", False, None)

    def take(self) -> None:
        with self._lock:
            if not self._users:
                nnpack = torch.backends.nnpack.set_flags(False)
                self._before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, nnpack
                torch.set_float32_matmul_precision("highest")
                torch.backends.cudnn.allow_tf32 = False
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                matmul_precision, cudnn_tf32, nnpack = self._before
                torch.set_float32_matmul_precision(matmul_precision)
                torch.backends.cudnn.allow_tf32 = cudnn_tf32
                torch.backends.nnpack.set_flags(*nnpack)


_settings = _ExactSettings()


@contextmanager
def exact_inference() -> Iterator[None]:
    """No autograd, no reduced precision, no transform-based convolution: the setting of the decode process."""
    _settings.take()
    try:
        with torch.inference_mode():
            yield
    finally:
        _settings.leave()
