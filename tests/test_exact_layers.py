"""Layers of the exact machine, as the encoder uses them."""

from __future__ import annotations

import pytest
import torch

from nvcodec.exact.convolution import Conv2d
from nvcodec.exact.latents import Grid
from nvcodec.exact.operation import FrameInputs
from nvcodec.exact.simulation import Simulation, simulate

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
