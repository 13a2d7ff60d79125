"""Layers of the exact machine, as the encoder uses them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nvcodec.exact.convolution import Conv2d
from nvcodec.exact.latents import Grid, Latent
from nvcodec.exact.layer import calibrate
from nvcodec.exact.machine import Machine
from nvcodec.exact.operation import FrameInputs, Sizes
from nvcodec.exact.outputs import Samples
from nvcodec.exact.pointwise import Scale
from nvcodec.exact.simulation import Rounding, Simulation, simulate
from nvcodec.exact.tracing import place, trace

BITS = 12


def test_steps_of_a_channel_without_weights() -> None:
    """They are near those of the others: what is coded is the difference."""
    layer = Conv2d(1, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.5, 0.25, 0.0]).view(3, 1, 1, 1))
    step = layer.least_step()
    assert float(step[0] - step[1]) == 8
    assert float(step[0] - step[2]) == 96


def test_grids_of_the_twin_are_rounded_between_slices() -> None:
    grid = Grid(2, 1, 1, 1, gain=2)
    grid.allocate(4)
    with torch.no_grad():
        grid.values.copy_(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1))
    frame = FrameInputs(torch.arange(4))
    assert grid(frame).flatten().tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    with simulate(Simulation(bits=BITS)):
        assert grid(frame).flatten().tolist() == [0, 0.25, 0.75, 1]


def test_a_scale_before_a_convolution_counts() -> None:
    """It is no node: the fixed point in which the convolution sees its operand moves."""

    class Scaled(nn.Module):
        def __init__(self, sizes: Sizes, power: int) -> None:
            super().__init__()
            self.latent, self.scale, self.conv = Latent(2, *sizes.half), Scale(power), Conv2d(2, 6)
            self.samples = Samples()

        def forward(self, frame: FrameInputs) -> dict[str, Tensor]:
            return {"samples": self.samples(self.conv(self.scale(self.latent(frame))))}

    sizes = Sizes((4, 6), (1, 2), 2)
    for power in (-2, 0, 1):
        torch.manual_seed(1)
        module = Scaled(sizes, power)
        (latent,) = place(module, sizes)
        nn.init.normal_(latent.values, std=2)
        frame = FrameInputs(torch.arange(2))
        with torch.no_grad(), simulate(Simulation(observe=True, latents=Rounding.THROUGH)):
            real = module(frame)["samples"]
        calibrate(module, 12)
        module.conv.step.copy_(module.conv.least_step())
        module.conv.fit_bias()
        traced = trace(module, sizes, 12)
        assert [fraction for _, fraction in traced.convolutions.values()] == [4 - power]
        machine = Machine(traced.program, traced.tensors(), sizes, torch.device("cpu"))
        made = machine.run(FrameInputs(torch.arange(2), {0: latent.symbols()})).samples
        expected = (real * 1024 + 512).clamp(0, 1023)
        assert float((made - expected).abs().max()) <= 0.02 * 1024 * max(1.0, float(real.abs().max()))
