"""The shipped starts on the side of the encoder: into a module that is to be overfitted, and out of a trained one.

Beside the integers that every decoder has stands what an encoder must know to give them their meaning: the fixed point
of every layer, as JSON.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn

from nvcodec.exact.arithmetic import EXPONENT_STEPS
from nvcodec.exact.convolution import Conv2d
from nvcodec.exact.layer import ExactLayer
from nvcodec.exact.operation import Sizes
from nvcodec.exact.tracing import TracedProgram, trace
from nvcodec.implicit.encoder.coding import conv_symbols
from nvcodec.implicit.starts import StartTensors, read_start, start_name, write_start
from nvcodec.implicit.weights import ConvSymbols

__all__ = ["Start", "choose_steps", "load_start", "starting_point", "write_trained", "zero_start"]


@dataclass(frozen=True)
class Start:
    """What a segment's weights are changes of. ``name``: as the segment has it. ``layers``: those of the module, by
    node number."""

    name: bytes
    tensors: StartTensors
    layers: dict[int, Conv2d]


def starting_point(name: str) -> tuple[bytes, dict[str, int]] | None:
    """The shipped start of this name, and the fixed points of its layers; None if there is none."""
    folder = resources.files("nvcodec.implicit.starts")
    entry = folder.joinpath(f"{name}.json")
    if not entry.is_file():
        return None
    return folder.joinpath(f"{name}.bin").read_bytes(), json.loads(entry.read_text("utf-8"))


def load_start(module: nn.Module, sizes: Sizes, bits: int, data: bytes, fractions: dict[str, int]) -> Start:
    """Give ``module``, placed, the weights of a start. Raises BitstreamError where it is none of it."""
    for name, layer in module.named_modules():
        if isinstance(layer, ExactLayer):
            layer.fraction = fractions[name]
    traced = trace(module, sizes, bits)
    found = read_start(data, traced.program.convolutions(traced.shapes))
    layers = {}
    for number, (layer, fraction_in) in traced.convolutions.items():
        layers[number] = layer
        set_layer(layer, found.convolutions[number], fraction_in)
    return Start(start_name(data), found, layers)


@torch.no_grad()
def set_layer(layer: Conv2d, symbols: ConvSymbols, fraction_in: int) -> None:
    """Give a layer the values that its integers stand for."""
    exponent = torch.from_numpy(symbols.exponent).to(layer.step)
    layer.step.copy_(exponent - EXPONENT_STEPS * (layer.fraction - fraction_in))
    layer.bias_shift = symbols.bias_shift
    layer.weight.copy_(torch.from_numpy(symbols.weight).to(layer.weight) * weight_step(layer))
    layer.bias.copy_(torch.from_numpy(symbols.bias).to(layer.bias) * bias_step(layer))


def weight_step(layer: Conv2d) -> Tensor:
    """(out, 1, 1, 1): of its weights' integers."""
    return torch.exp2(layer.step / EXPONENT_STEPS).view(-1, 1, 1, 1)


def bias_step(layer: Conv2d) -> float:
    """Of its biases' integers."""
    return float(2.0 ** (layer.bias_shift - layer.fraction))


def choose_steps(module: nn.Module) -> None:
    """The finest steps that reach all weights and biases, for a calibrated module that has no start."""
    for layer in module.modules():
        if isinstance(layer, Conv2d):
            with torch.no_grad():
                layer.step.copy_(layer.least_step())
            layer.fit_bias()


def zero_start(module: nn.Module, sizes: Sizes, bits: int) -> tuple[Start, TracedProgram]:
    """A start of zeros, without a name, for a module whose weights are coded as they are."""
    traced = trace(module, sizes, bits)
    tensors, layers = {}, {}
    for number, (layer, fraction_in) in traced.convolutions.items():
        layers[number] = layer
        found = conv_symbols(layer, fraction_in)
        tensors[number] = ConvSymbols(0 * found.weight, found.exponent, 0 * found.bias, found.bias_shift)
    return Start(b"", StartTensors(tensors, {}, 0, 0), layers), traced


def write_trained(folder: Path, name: str, module: nn.Module, sizes: Sizes, bits: int) -> TracedProgram:
    """Write a trained module, calibrated, as a start: ``name``.bin and ``name``.json."""
    traced = trace(module, sizes, bits)
    symbols = [conv_symbols(layer, fraction_in) for layer, fraction_in in traced.convolutions.values()]
    folder.joinpath(f"{name}.bin").write_bytes(write_start(symbols))
    fractions = {n: layer.fraction for n, layer in module.named_modules() if isinstance(layer, ExactLayer)}
    folder.joinpath(f"{name}.json").write_text(json.dumps(fractions, separators=(",", ":")) + "\n", "utf-8")
    return traced
