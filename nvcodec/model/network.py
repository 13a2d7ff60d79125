"""The network of a segment: its shape, its tensors, and the appearance cell.

Every tensor is an integer tensor, ``round(real value * 2**fraction_bits)``. Training holds the real values
times ``2**fraction_bits`` in float32 and calls the same code.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from nvcodec.entropy.context import (
    FEATURES,
    GROUPS,
    HIDDEN,
    HIDDEN_BOUND,
    OUTPUT_SHIFT,
    STAGES,
    ContextWeights,
)
from nvcodec.fixedpoint import Rounding, check_exact_bound, conv2d, leaky_relu, shift_right
from nvcodec.gop import MAX_DEPTH
from nvcodec.model.grid import APPEARANCE_GAINS, APPEARANCE_LEVELS, MOTION_LEVELS, RESIDUAL_BOUND

__all__ = [
    "ACTIVATION_BOUND",
    "CONV_BITS",
    "GAIN_STEPS",
    "GAIN_STEPS_PER_OCTAVE",
    "Network",
    "NetworkShape",
    "TensorSpec",
    "gain_values",
    "limit_gains",
]

CONV_BITS = 9
"""Fraction bits of the cell's weights."""
BIAS_BITS = 2
"""Fraction bits of the cell's biases, in activations."""
ACTIVATION_BOUND = 1023
"""Magnitude of activations and hidden features; one unit is a quarter of an 8-bit grey level."""
SAMPLE_CHANNELS = 6
"""Four luma samples of a 2x2 cell, U, V."""
GREY = 512
GAIN_STEPS = 64
GAIN_STEPS_PER_OCTAVE = 8
"""Gain index i stands for round(4 * 2**(i / 8))."""
DEPTHS = MAX_DEPTH + 1


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of the network; ``fraction_bits`` scales its real values to integers, |integer| <= bound."""

    name: str
    shape: tuple[int, ...]
    fraction_bits: int
    bound: int


@dataclass(frozen=True)
class NetworkShape:
    """``width``: channels of the cell's layers. ``hidden``: hidden features carried from frame to frame."""

    width: int
    hidden: int

    @property
    def inputs(self) -> int:
        return 3 * SAMPLE_CHANNELS + self.hidden

    @property
    def outputs(self) -> int:
        return SAMPLE_CHANNELS + self.hidden

    @cached_property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """All tensors in the order of the bitstream."""
        specs = [
            TensorSpec("cell.enter.weight", (self.width, self.inputs, 3, 3), CONV_BITS, 1 << 15),
            TensorSpec("cell.enter.bias", (2, self.width), BIAS_BITS, 1 << 13),
            TensorSpec("cell.mix.weight", (self.width, self.width, 3, 3), CONV_BITS, 1 << 15),
            TensorSpec("cell.mix.bias", (1, self.width), BIAS_BITS, 1 << 13),
            TensorSpec("cell.leave.weight", (self.outputs, self.width, 3, 3), CONV_BITS, 1 << 15),
            TensorSpec("cell.leave.bias", (1, self.outputs), BIAS_BITS, 1 << 13),
            TensorSpec("grid.gain", (DEPTHS, APPEARANCE_GAINS), 0, GAIN_STEPS - 1),
        ]
        for kind, levels in (("appearance", APPEARANCE_LEVELS), ("motion", MOTION_LEVELS)):
            specs += [
                TensorSpec(f"context.{kind}.hidden.weight", (HIDDEN, FEATURES), 6, 1 << 11),
                TensorSpec(f"context.{kind}.hidden.bias", (STAGES, HIDDEN), 0, 1 << 11),
                TensorSpec(f"context.{kind}.output.weight", (2, HIDDEN), 6, 1 << 11),
                TensorSpec(f"context.{kind}.output.bias", (DEPTHS * levels, 2), 0, 1 << 11),
                TensorSpec(f"context.{kind}.group.bias", (levels * GROUPS, 2), 0, 1 << 11),
            ]
        return tuple(specs)

    @property
    def parameter_count(self) -> int:
        return sum(torch.Size(spec.shape).numel() for spec in self.tensors)


def limit_gains(index: Tensor) -> Tensor:
    """Gain indices (..., APPEARANCE_GAINS) clipped to what lets symbols reach every amplitude.

    At least 8 k at level k and 40 for the means (a level has twice the amplitudes of the next finer one), at most
    GAIN_STEPS - 1.
    """
    least = torch.arange(APPEARANCE_GAINS, device=index.device, dtype=index.dtype) * GAIN_STEPS_PER_OCTAVE
    return torch.maximum(index, least).clamp(max=GAIN_STEPS - 1)


def gain_values() -> tuple[int, ...]:
    """``round(4 * 2**(i / 8))`` for each gain index, by integer comparison (normative)."""
    values = []
    for i in range(GAIN_STEPS):
        target = 1 << (16 + i)  # (4 * 2**(i/8))**8
        value = 1
        while (2 * value + 1) ** 8 <= target << 8:
            value += 1
        values.append(value)
    return tuple(values)


_GAINS = gain_values()


class Network:
    """The tensors of a segment's network by name, with the cell and the context models built on them."""

    def __init__(self, shape: NetworkShape, tensors: dict[str, Tensor]) -> None:
        self.shape = shape
        self.tensors = tensors

    def to(self, device: torch.device) -> Network:
        return Network(self.shape, {name: t.to(device) for name, t in self.tensors.items()})

    def check(self) -> None:
        """Raise LimitError unless every layer of the cell is exact in float32."""
        bounds = self.input_bounds()
        for name, bound in (
            ("enter", bounds),
            ("mix", torch.full((self.shape.width,), float(ACTIVATION_BOUND))),
            ("leave", torch.full((self.shape.width,), float(ACTIVATION_BOUND))),
        ):
            weight = self.tensors[f"cell.{name}.weight"]
            bias = self.tensors[f"cell.{name}.bias"] * (1 << (CONV_BITS - BIAS_BITS))
            check_exact_bound(weight, bias, bound.to(weight), f"cell.{name}")

        for kind in ("appearance", "motion"):
            output = self.tensors[f"context.{kind}.output.weight"]
            context = self.context(kind)
            most = context.output_bias.abs().amax((0, 1)) + context.group_bias.abs().amax((0, 1))
            check_exact_bound(
                output, most * (1 << OUTPUT_SHIFT), torch.full((HIDDEN,), float(HIDDEN_BOUND)), f"context.{kind}"
            )

    def input_bounds(self) -> Tensor:
        """(inputs,): the largest magnitude of each input channel of the cell."""
        return torch.tensor(
            [RESIDUAL_BOUND] * SAMPLE_CHANNELS
            + [GREY] * SAMPLE_CHANNELS
            + [2 * GREY - 1] * SAMPLE_CHANNELS
            + [ACTIVATION_BOUND] * self.shape.hidden,
            dtype=torch.float32,
        )

    def context(self, kind: str) -> ContextWeights:
        """``kind``: "appearance" or "motion"."""
        levels = APPEARANCE_LEVELS if kind == "appearance" else MOTION_LEVELS
        get = {
            part: self.tensors[f"context.{kind}.{part}"]
            for part in ("hidden.weight", "hidden.bias", "output.weight", "output.bias", "group.bias")
        }
        return ContextWeights(
            get["hidden.weight"],
            get["hidden.bias"],
            get["output.weight"],
            get["output.bias"].reshape(DEPTHS, levels, 2),
            get["group.bias"].reshape(levels, GROUPS, 2),
        )

    def gains(self, depth: int) -> Tensor:
        """(APPEARANCE_GAINS,): amplitude of symbol 1 at each level, and of the means."""
        index = self.tensors["grid.gain"][depth]
        if index.requires_grad:
            return 4 * torch.exp2(index / 8)
        table = torch.tensor(_GAINS, dtype=torch.float32, device=index.device)
        return table[index.round().long().clamp(0, GAIN_STEPS - 1)]

    def cell(
        self,
        residual: Tensor,
        prediction: Tensor,
        difference: Tensor,
        hidden: Tensor,
        is_key: bool,
        rounding: Rounding = Rounding.EXACT,
        dtype: torch.dtype = torch.float32,
    ) -> tuple[Tensor, Tensor]:
        """The appearance cell: (B, ..., h, w) inputs to samples (B, 6, h, w) and hidden features (B, hidden, h, w).

        ``residual``: the expanded grid. ``prediction``: blended warped references, 0 .. 1023 (GREY for a key frame).
        ``difference``: first minus second warped reference (0 where there is one). ``hidden``: blended warped
        hidden features. Samples are clipped to 0 .. 1023. ``dtype`` is for training only.
        """
        x = torch.cat([residual, prediction - GREY, difference, hidden], dim=1).to(
            dtype, memory_format=torch.channels_last
        )
        y = self._layer(x, "enter", 0 if is_key else 1, rounding)
        y = leaky_relu(y, rounding).clamp(-ACTIVATION_BOUND, ACTIVATION_BOUND)
        y = self._layer(y, "mix", 0, rounding)
        y = leaky_relu(y, rounding).clamp(-ACTIVATION_BOUND, ACTIVATION_BOUND)
        y = self._layer(y, "leave", 0, rounding).float()
        samples = prediction + residual + y[:, :SAMPLE_CHANNELS]
        if rounding is Rounding.EXACT:
            samples = samples.clamp(0, 2 * GREY - 1)
        return samples, y[:, SAMPLE_CHANNELS:].clamp(-ACTIVATION_BOUND, ACTIVATION_BOUND)

    def _layer(self, x: Tensor, name: str, bias_row: int, rounding: Rounding) -> Tensor:
        weight, bias = self.tensors[f"cell.{name}.weight"], self.tensors[f"cell.{name}.bias"][bias_row]
        if rounding is Rounding.EXACT:
            out = torch.round(conv2d(x, weight, bias * (1 << (CONV_BITS - BIAS_BITS)), padding=1))
            return shift_right(out, CONV_BITS, rounding)
        real = (weight * 2.0**-CONV_BITS).to(x.dtype, memory_format=torch.channels_last)
        out = F.conv2d(x, real, (bias * 2.0**-BIAS_BITS).to(x.dtype), padding=1)
        return out if rounding is Rounding.NONE else shift_right(out, 0, rounding)
