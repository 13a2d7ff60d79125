"""Layers of the exact machine, as the encoder uses them."""

from __future__ import annotations

import torch

from nvcodec.exact.convolution import Conv2d


def test_steps_of_a_channel_without_weights() -> None:
    """They are near those of the others: what is coded is the difference."""
    layer = Conv2d(1, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.5, 0.25, 0.0]).view(3, 1, 1, 1))
    step = layer.least_step()
    assert float(step[0] - step[1]) == 8
    assert float(step[0] - step[2]) == 96
