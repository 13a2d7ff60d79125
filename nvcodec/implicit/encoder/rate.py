"""What weights and latents will cost, as a function that gradients follow.

A row of symbols is taken for a Laplace distribution around zero whose scale is the mean magnitude of the row: bits are
those of the mass within half a symbol (HiNeRV and NVRC price weights so; the file's own coder has the same shape).
"""

from __future__ import annotations

import torch
from torch import Tensor

from nvcodec.exact.arithmetic import EXPONENT_STEPS
from nvcodec.exact.convolution import Conv2d
from nvcodec.exact.latents import Latent

__all__ = ["latent_bits", "symbol_bits", "weight_bits"]

_LEAST_SCALE = 0.05
_LEAST_MASS = 2.0**-20


def symbol_bits(symbols: Tensor, scale: Tensor) -> Tensor:
    """Bits of real-valued symbols under a Laplace distribution of ``scale``, which broadcasts."""
    distance, inverse = symbols.abs(), 1 / scale
    far = 0.5 * (torch.exp((0.5 - distance).clamp(max=0) * inverse) - torch.exp((-0.5 - distance) * inverse))
    near = 1 - 0.5 * (torch.exp((distance - 0.5).clamp(max=0) * inverse) + torch.exp((-0.5 - distance) * inverse))
    return -torch.log2(torch.where(distance < 0.5, near, far).clamp(min=_LEAST_MASS))


def weight_bits(layer: Conv2d) -> Tensor:
    """Bits of all weights of a layer at its present steps."""
    step = torch.exp2(layer.step / EXPONENT_STEPS).view(-1, 1, 1, 1)
    symbols = (layer.weight * layer.kept / step).flatten(1)
    if symbols.shape[1] < 64:  # as they are coded: one scale for all
        symbols = symbols.reshape(1, -1)
    scale = symbols.detach().abs().mean(1, keepdim=True).clamp(min=_LEAST_SCALE)
    return symbol_bits(symbols, scale).sum()


def latent_bits(latent: Latent, symbols: Tensor) -> Tensor:
    """Bits of the symbols (B, C, H, W) of some frames; each channel has the scale that it has in all of them."""
    scale = latent.values.detach().abs().mean((0, 2, 3)).clamp(min=_LEAST_SCALE).view(-1, 1, 1)
    return symbol_bits(symbols, scale).sum()
