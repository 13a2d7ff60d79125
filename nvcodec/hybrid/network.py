"""The network of a segment: its shape, its tensors, and the appearance cells.

Every tensor is an integer tensor, ``round(real value * 2**fraction_bits)``. Training holds the real values
times ``2**fraction_bits`` in float32 and calls the same code.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from nvcodec.core.fixedpoint import LEAKY_SHIFT, Rounding, check_exact_bound, conv2d, leaky_relu, shift_right
from nvcodec.core.gop import MAX_DEPTH
from nvcodec.core.quantiser import GAIN_STEPS
from nvcodec.entropy.context import (
    FEATURES,
    GROUPS,
    HIDDEN,
    HIDDEN_BOUND,
    OUTPUT_SHIFT,
    STAGES,
    ContextWeights,
)
from nvcodec.entropy.weights import TensorSpec
from nvcodec.motion.levels import MOTION_LEVELS
from nvcodec.motion.warp import GREY, SAMPLE_CHANNELS

__all__ = [
    "ACTIVATION_BOUND",
    "CELL_INPUTS",
    "CELL_LAYERS",
    "CELL_REACH",
    "CONV_BITS",
    "Network",
    "NetworkShape",
    "cell_kind",
    "limit_gains",
    "with_cells_on",
]

CONV_BITS = 9
"""Fraction bits of the cell's weights."""
BIAS_BITS = 2
"""Fraction bits of the cell's biases, in activations."""
SLOPE_BITS = 5
"""Fraction bits of what a step of the gain adds to a bias, in activations."""
SCALE_BITS = 4
"""Fraction bits of the factors of what the cell adds to its input."""
ACTIVATION_BOUND = 1023
"""Magnitude of activations; one unit is a quarter of an 8-bit grey level."""
DEPTHS = MAX_DEPTH + 1
CELL_INPUTS = {"key": SAMPLE_CHANNELS, "inter": 3 * SAMPLE_CHANNELS}
"""Input channels of the two cells: of frames without references, and of all others."""
_BIAS_ROWS = {"key": 1, "inter": 3}
"""Biases of the first layer: by depth 0; by depth 1, 2, and 3 or more."""
_VECTOR = 8
"""Floats that a processor computes with at a time, at least."""
MIX_LAYERS = 2
CELL_LAYERS = ("enter", *(f"mix{i}" for i in range(MIX_LAYERS)), "leave")
CELL_REACH = len(CELL_LAYERS)
"""How far apart a sample of the working domain and another one that it depends on through a cell can lie."""


@dataclass(frozen=True)
class NetworkShape:
    """``width``: channels of the cells' layers."""

    width: int

    @cached_property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """All tensors in the order of the bitstream."""
        specs = []
        for kind, inputs in CELL_INPUTS.items():
            rows = _BIAS_ROWS[kind]
            for layer in CELL_LAYERS:
                out = SAMPLE_CHANNELS if layer == "leave" else self.width
                into = inputs if layer == "enter" else self.width
                biases = rows if layer == "enter" else 1
                specs += [
                    TensorSpec(f"cell.{kind}.{layer}.weight", (out, into, 3, 3), CONV_BITS, 1 << 15),
                    TensorSpec(f"cell.{kind}.{layer}.bias", (biases, out), BIAS_BITS, 1 << 13),
                ]
            specs += [
                TensorSpec(f"cell.{kind}.enter.slope", (rows, self.width), SLOPE_BITS, 1 << 10),
                TensorSpec(f"cell.{kind}.leave.scale", (rows, SAMPLE_CHANNELS), SCALE_BITS, 31),
            ]
        specs += [
            TensorSpec("block.gain", (DEPTHS, 1), 0, GAIN_STEPS - 1),
            TensorSpec("context.hidden.weight", (HIDDEN, FEATURES), 6, 1 << 11),
            TensorSpec("context.hidden.bias", (STAGES, HIDDEN), 0, 1 << 11),
            TensorSpec("context.output.weight", (2, HIDDEN), 6, 1 << 11),
            TensorSpec("context.output.bias", (DEPTHS * MOTION_LEVELS, 2), 0, 1 << 11),
            TensorSpec("context.group.bias", (MOTION_LEVELS * GROUPS, 2), 0, 1 << 11),
        ]
        return tuple(specs)

    @property
    def parameter_count(self) -> int:
        return sum(torch.Size(spec.shape).numel() for spec in self.tensors)


def cell_kind(depth: int) -> str:
    """Which cell a frame at ``depth`` of the hierarchy goes through."""
    return "inter" if depth else "key"


def limit_gains(index: Tensor) -> Tensor:
    """Gain indices clipped to those that exist: 0 .. GAIN_STEPS - 1."""
    return index.clamp(0, GAIN_STEPS - 1)


def with_cells_on(tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The tensors of a network with those of the cells on ``device``."""
    return {name: t.to(device) if name.startswith("cell.") else t for name, t in tensors.items()}


class Network:
    """The tensors of a segment's network by name, with the cell and the context models built on them."""

    def __init__(self, shape: NetworkShape, tensors: dict[str, Tensor]) -> None:
        self.shape = shape
        self.tensors = tensors

    def to(self, device: torch.device) -> Network:
        """With the cells on ``device``; the rest goes with the symbols, which are on the CPU."""
        return Network(self.shape, with_cells_on(self.tensors, device))

    @property
    def device(self) -> torch.device:
        """Where the cells compute."""
        return self.tensors["cell.key.enter.weight"].device

    def check(self) -> None:
        """Raise LimitError unless every layer of the cells is exact in float32."""
        for kind in CELL_INPUTS:
            for layer in CELL_LAYERS:
                weight = self.tensors[f"cell.{kind}.{layer}.weight"]
                bias = self.tensors[f"cell.{kind}.{layer}.bias"].abs() * (1 << (CONV_BITS - BIAS_BITS))
                if layer == "enter":
                    slope = self.tensors[f"cell.{kind}.enter.slope"].abs()
                    bias = bias + slope * ((GAIN_STEPS - 1) << (CONV_BITS - SLOPE_BITS))
                bounds = self.input_bounds(kind) if layer == "enter" else [float(ACTIVATION_BOUND)] * self.shape.width
                check_exact_bound(weight, bias, torch.tensor(bounds).to(weight), f"cell.{kind}.{layer}")

        context = self.context()
        most = context.output_bias.abs().amax((0, 1)) + context.group_bias.abs().amax((0, 1))
        check_exact_bound(
            context.output, most * (1 << OUTPUT_SHIFT), torch.full((HIDDEN,), float(HIDDEN_BOUND)), "context"
        )

    def input_bounds(self, kind: str) -> list[float]:
        """The largest magnitude of each input channel of the cell ``kind``."""
        bounds = [2 * GREY - 1] * SAMPLE_CHANNELS + [GREY] * SAMPLE_CHANNELS + [2 * GREY - 1] * SAMPLE_CHANNELS
        return [float(bound) for bound in bounds[: CELL_INPUTS[kind]]]

    def context(self) -> ContextWeights:
        """The context model of motion."""
        get = {
            part: self.tensors[f"context.{part}"]
            for part in ("hidden.weight", "hidden.bias", "output.weight", "output.bias", "group.bias")
        }
        return ContextWeights(
            get["hidden.weight"],
            get["hidden.bias"],
            get["output.weight"],
            get["output.bias"].reshape(DEPTHS, MOTION_LEVELS, 2),
            get["group.bias"].reshape(MOTION_LEVELS, GROUPS, 2),
        )

    def gain(self, depth: int) -> int:
        """Index of the quantiser step of frames at ``depth``, see ``quantiser_steps``."""
        return int(self.tensors["block.gain"][depth, 0].detach().round())

    def cell(
        self,
        residual: Tensor,
        prediction: Tensor,
        difference: Tensor,
        depth: int,
        rounding: Rounding = Rounding.EXACT,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """The appearance cell: (B, 6, h, w) inputs to samples (B, 6, h, w), clipped to 0 .. 1023.

        ``residual``: the blocks less the prediction. ``prediction``: blended warped references, 0 .. 1023 (GREY for a
        key frame). ``difference``: first minus second warped reference (0 where there is one). ``depth``: of the frames
        in the hierarchy; 0 is a key frame. ``dtype`` is for training only, where samples are not clipped.
        """
        kind = cell_kind(depth)
        inputs = [residual] if kind == "key" else [residual, prediction - GREY, difference]
        y = torch.cat(inputs, dim=1).to(dtype, memory_format=torch.channels_last)
        for layer in CELL_LAYERS[:-1]:
            if rounding is Rounding.EXACT and y.device.type == "cpu":
                y = _activated_cpu(self._sums(y, kind, layer, depth))
            else:
                y = leaky_relu(self._layer(y, kind, layer, depth, rounding), rounding)
                y = y.clamp(-ACTIVATION_BOUND, ACTIVATION_BOUND)
        correction = self._layer(y, kind, CELL_LAYERS[-1], depth, rounding).float()
        scale = self._row(f"cell.{kind}.leave.scale", depth)[:, None, None]
        samples = prediction + residual + shift_right(correction * scale, SCALE_BITS, rounding)
        return samples.clamp(0, 2 * GREY - 1) if rounding is Rounding.EXACT else samples

    def _layer(self, x: Tensor, kind: str, layer: str, depth: int, rounding: Rounding) -> Tensor:
        if rounding is Rounding.EXACT:
            return shift_right(torch.round(self._sums(x, kind, layer, depth)), CONV_BITS, rounding)
        weight, bias = self.tensors[f"cell.{kind}.{layer}.weight"], self._bias(kind, layer, depth)
        real = (weight * 2.0**-CONV_BITS).to(x.dtype, memory_format=torch.channels_last)
        out = F.conv2d(x, real, (bias * 2.0**-CONV_BITS).to(x.dtype), padding=1)
        return out if rounding is Rounding.NONE else shift_right(out, 0, rounding)

    def _sums(self, x: Tensor, kind: str, layer: str, depth: int) -> Tensor:
        """What a layer adds up, before the shift: integers, but for the error of a convolution that takes detours."""
        weight, bias = self.tensors[f"cell.{kind}.{layer}.weight"], self._bias(kind, layer, depth)
        out, more = len(weight), -len(weight) % _VECTOR if x.device.type == "cpu" else 0
        if more:  # channels beside whole vectors take longer than more of them
            weight, bias = F.pad(weight, (0, 0, 0, 0, 0, 0, 0, more)), F.pad(bias, (0, more))
        return conv2d(x, weight.contiguous(memory_format=torch.channels_last), bias, padding=1)[:, :out]

    def _bias(self, kind: str, layer: str, depth: int) -> Tensor:
        """(channels,), in units of the sums."""
        name = f"cell.{kind}.{layer}"
        bias = self._row(f"{name}.bias", depth) * (1 << (CONV_BITS - BIAS_BITS))
        if layer == "enter":
            gain = self.tensors["block.gain"][depth, 0].detach().round()
            bias = bias + self._row(f"{name}.slope", depth) * (gain * (1 << (CONV_BITS - SLOPE_BITS)))
        return bias

    def _row(self, name: str, depth: int) -> Tensor:
        """Of a tensor with one row or a row for each of depth 1, 2, and 3 or more, that of ``depth``."""
        tensor = self.tensors[name]
        return tensor[min(max(depth - 1, 0), len(tensor) - 1)]


def _activated_cpu(sums: Tensor) -> Tensor:
    """Shift, leaky ReLU and clip of a cell's layer, in compiled code; overwrites ``sums``."""
    from nvcodec.hybrid.cell_cpu import activate  # brings a compiler: only where frames are decoded

    sums = sums.detach().contiguous(memory_format=torch.channels_last)
    activate(sums.permute(0, 2, 3, 1).reshape(-1).numpy(), CONV_BITS, LEAKY_SHIFT, ACTIVATION_BOUND)
    return sums
