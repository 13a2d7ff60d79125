"""Convolution: the operation, how it is reached exactly in float32, and its layer.

::

    sum = sum over (i, y, x) of weight[o, i, y, x] * input[i]        exact, |sum| < 2**31
    out = Clip3(-A, A, Round2(sum * M[o], S[o]) + bias[o])           M, S: a scale of 2**(exponent[o] / 8)

A float32 convolution is exact while every partial sum stays below 2**24. Where it may not, the input is split into
``x = 256 high + low`` and both limbs are convolved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nvcodec.core.errors import LimitError
from nvcodec.core.fixedpoint import EXACT_LIMIT, conv2d
from nvcodec.exact.arithmetic import EXPONENT_HIGH, EXPONENT_LOW, EXPONENT_STEPS, WEIGHT_BOUND, requantise, requantiser
from nvcodec.exact.layer import Builder, ExactLayer, Traced
from nvcodec.exact.operation import Execution, Operation, Parameter, Shape, Sizes, operation
from nvcodec.exact.simulation import current, rounded_symbols

__all__ = ["Conv2d", "ConvTensors", "Convolution", "Linear", "largest_weight_sum"]

MAX_CHANNELS = 4096
MAX_KERNEL = 9
_SUM_LIMIT = 1 << 31
_LIMB = 256
_LIMB_BOUND = 128
"""Magnitude of a limb."""
_STEP_OCTAVES = 12
_WEIGHT_SUM_LIMIT = EXACT_LIMIT // _LIMB_BOUND


@dataclass(frozen=True)
class ConvTensors:
    """What a segment holds of one convolution: integers, float32. ``weight``: (out, in / groups, k, k), magnitude up to
    127. ``exponent``: (out,), -256 .. 96. ``bias``: (out,), in units of what the node gives."""

    weight: Tensor
    exponent: Tensor
    bias: Tensor

    def to(self, device: torch.device) -> ConvTensors:
        weight = self.weight.to(device).contiguous(memory_format=torch.channels_last)
        return ConvTensors(weight, self.exponent, self.bias)

    @cached_property
    def largest_sum(self) -> int:
        """Of the magnitudes of the weights of an output channel; of float32 sums those within the limits are exact."""
        return int(self.weight.abs().flatten(1).sum(1).max())

    def check(self, bound: int, name: str) -> None:
        """Raise LimitError unless every sum keeps the limits. ``bound``: of the input's magnitude."""
        if self.largest_sum > largest_weight_sum(bound):
            raise LimitError(
                f"{name}: weights of an output channel add up to {self.largest_sum}, with values up to {bound} the "
                f"limit is {largest_weight_sum(bound)}"
            )


def largest_weight_sum(bound: int) -> int:
    """What the magnitudes of the weights of an output channel may add up to. ``bound``: of the input's magnitude."""
    return min(_WEIGHT_SUM_LIMIT, -(-_SUM_LIMIT // bound)) - 1


@operation
@dataclass(frozen=True)
class Convolution(Operation):
    """``channels``: of the output. ``kernel``: its side, odd. The border is zero. Stride 1."""

    channels: int = 1
    kernel: int = 1
    groups: int = 1

    CODE: ClassVar[int] = 1
    NAME: ClassVar[str] = "conv"
    PARAMETERS: ClassVar[tuple[Parameter, ...]] = (
        Parameter("channels", 1, MAX_CHANNELS),
        Parameter("kernel", 1, MAX_KERNEL),
        Parameter("groups", 1, MAX_CHANNELS),
    )

    def shape(self, operands: Sequence[Shape], sizes: Sizes) -> Shape:
        (x,) = operands
        self.require(self.kernel % 2 == 1, f"kernel {self.kernel} is even")
        self.require(x.channels % self.groups == 0, f"{x.channels} channels do not divide into {self.groups} groups")
        self.require(self.channels % self.groups == 0, f"{self.channels} outputs, {self.groups} groups")
        return Shape(self.channels, x.rows, x.columns)

    def weight_shape(self, x: Shape) -> tuple[int, int, int, int]:
        return self.channels, x.channels // self.groups, self.kernel, self.kernel

    def multiplications(self, operands: Sequence[Shape], shape: Shape) -> int:
        return shape.elements * (operands[0].channels // self.groups) * self.kernel**2

    def run(self, number: int, operands: list[Tensor], shape: Shape, execution: Execution) -> Tensor:
        return self.run_fused(number, operands, execution, None)

    def run_fused(self, number: int, operands: list[Tensor], execution: Execution, lookup: np.ndarray | None) -> Tensor:
        """With the table of the node behind it, where that follows at once: float32 (2A + 1,), of -A .. A."""
        tensors: ConvTensors = execution.tensors[number]
        (x,) = operands
        if tensors.largest_sum * execution.bound < EXACT_LIMIT:
            parts = [(1, _convolved(x, tensors.weight, self.groups))]
        else:
            low = x - _LIMB * torch.floor((x + _LIMB_BOUND) * (1 / _LIMB))
            high = (x - low) * (1 / _LIMB)
            parts = [(1, _convolved(low, tensors.weight, self.groups))]
            if bool(high.any()):
                parts.append((_LIMB, _convolved(high, tensors.weight, self.groups)))
        if x.device.type == "cpu":
            return _requantised_cpu([p for _, p in parts], tensors, execution, lookup)
        sums = torch.stack([part.double() * scale for scale, part in parts]).sum(0)
        y = requantise(sums, tensors.exponent, tensors.bias, execution.bound)
        if lookup is None:
            return y
        return torch.from_numpy(lookup).to(y.device)[(y + execution.bound).long()]


def _convolved(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """(B, C, H, W) with a border of zeros, exact within the bound."""
    padding = weight.shape[-1] // 2
    if weight.shape[0] * weight[0].numel() < 4096 or x.shape[-1] * x.shape[-2] == 1:
        x = x.contiguous()
    else:
        x = x.contiguous(memory_format=torch.channels_last)
    if groups == 1:
        return conv2d(x, weight, padding=padding)
    if x.is_cuda:
        parts = zip(x.chunk(groups, 1), weight.chunk(groups, 0), strict=True)
        return torch.cat([conv2d(part, w, padding=padding) for part, w in parts], 1)
    return F.conv2d(x, weight, padding=padding, groups=groups)


def _requantised_cpu(
    parts: list[Tensor], tensors: ConvTensors, execution: Execution, lookup: np.ndarray | None
) -> Tensor:
    """Requantised, and through a table, in compiled code."""
    from nvcodec.exact import kernels_cpu  # brings a compiler: only where programs are run

    pairs = np.array([requantiser(int(e)) for e in tensors.exponent], np.int64).reshape(-1, 2)
    bias = tensors.bias.numpy().astype(np.int64)
    return kernels_cpu.requantised(parts, pairs, bias, execution.bound, lookup, execution.threads)


class Conv2d(ExactLayer):
    """A convolution of stride 1 with a border of zeros. ``kernel``: odd.

    Its weights are quantised in steps of ``2**(step[o] / 8)`` for each output channel, its bias in steps of
    ``2**bias_shift`` of what the layer gives.
    """

    step: Tensor
    kept: Tensor
    bias: Tensor

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 1, *, groups: int = 1) -> None:
        super().__init__()
        made = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, groups=groups)
        assert made.bias is not None
        self.weight, self.bias = made.weight, made.bias
        self.kernel, self.groups = kernel, groups
        self.bias_shift = 0
        self.register_buffer("step", torch.full((channels_out,), -6.0 * EXPONENT_STEPS))
        self.register_buffer("kept", torch.ones(made.weight.shape, dtype=torch.bool))

    def quantised_weight(self) -> Tensor:
        """The weights as the present simulation has them, real numbers."""
        simulation = current()
        weight = self.weight * self.kept
        if simulation.weights is None:
            return weight
        step = torch.exp2(self.step / EXPONENT_STEPS).view(-1, 1, 1, 1)
        symbols = rounded_symbols(weight / step, simulation.weights, simulation)
        return symbols.clamp(-WEIGHT_BOUND, WEIGHT_BOUND) * self.kept * step

    def weight_symbols(self) -> Tensor:
        """(out, in / groups, k, k): what is coded."""
        step = torch.exp2(self.step.double() / EXPONENT_STEPS).view(-1, 1, 1, 1)
        return torch.floor(self.weight.detach().double() * self.kept / step + 0.5).clamp(-WEIGHT_BOUND, WEIGHT_BOUND)

    def bias_symbols(self) -> Tensor:
        """(out,): what is coded, in units of ``2**bias_shift`` of what the layer gives."""
        scaled = self.bias.detach().double() * 2.0 ** (self.fraction - self.bias_shift)
        return torch.floor(scaled + 0.5).clamp(-WEIGHT_BOUND, WEIGHT_BOUND)

    def fit_bias(self) -> None:
        """The finest bias step that reaches the largest bias."""
        most = float(self.bias.detach().abs().max()) * 2.0**self.fraction
        self.bias_shift = max(0, math.ceil(math.log2(max(most, 1.0) / WEIGHT_BOUND)))

    def forward(self, x: Tensor) -> Tensor:
        bias = self.bias
        if current().bits is not None:
            rounded = self.bias_symbols().to(bias) * 2.0 ** (self.bias_shift - self.fraction)
            bias = bias + (rounded - bias).detach()
        weight = self.quantised_weight()
        if self.kernel > 1:  # with channels last it takes half the time
            x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
        return self.finish(F.conv2d(x, weight, bias, padding=self.kernel // 2, groups=self.groups))

    def least_step(self) -> Tensor:
        """(out,): the finest steps that reach the largest weight of each channel and keep the sum of its weights within
        what is exact, not too far from those of the other channels: a channel may have lost all of its weights, and
        what is coded of steps is how much they differ."""
        weight = (self.weight.detach() * self.kept).abs().flatten(1)
        most = weight.amax(1)
        most = most.clamp(min=max(float(most.max()) * 2.0**-_STEP_OCTAVES, 2.0**-20))
        room = max(_WEIGHT_SUM_LIMIT - 1 - weight.shape[1] / 2, WEIGHT_BOUND)  # each may be rounded up
        least = torch.maximum(most / (WEIGHT_BOUND + 0.49), weight.sum(1) / room)
        return torch.ceil(EXPONENT_STEPS * torch.log2(least))

    def exponents(self, fraction_in: int) -> Tensor:
        """(out,): the scales of the operation, by the fixed point of its operand."""
        shift = EXPONENT_STEPS * (self.fraction - fraction_in)
        return (self.step + shift).clamp(EXPONENT_LOW, EXPONENT_HIGH)

    def tensors(self, fraction_in: int) -> ConvTensors:
        """Its integers."""
        bias = self.bias_symbols() * 2.0**self.bias_shift
        return ConvTensors(self.weight_symbols().float(), self.exponents(fraction_in).float(), bias.float())

    def emit(self, builder: Builder, *operands: Traced) -> Traced:
        (x,) = operands
        node = Convolution((x.number,), self.weight.shape[0], self.kernel, self.groups)
        return builder.add(node, self.fraction, self, x.fraction)

    def get_extra_state(self) -> dict[str, float]:
        return super().get_extra_state() | {"bias_shift": self.bias_shift}

    def set_extra_state(self, state: dict[str, float]) -> None:
        super().set_extra_state(state)
        self.bias_shift = int(state["bias_shift"])


class Linear(Conv2d):
    """A fully connected layer on (B, C, 1, 1), or one for each position."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out)
