"""Pruning: the weights whose loss costs least are set to zero and stay there.

What a weight matters is its sensitivity (the mean square of the gradient, the diagonal of Fisher's matrix) times its
square: what the loss grows by, to second order, when it goes. The choice is global over all layers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nvcodec.exact.convolution import Conv2d

__all__ = ["prune", "sparsity"]


def prune(layers: list[Conv2d], sensitivities: list[Tensor], share: float) -> None:
    """Zero ``share`` of all weights. ``sensitivities``: of each layer, shaped like its weights."""
    if share <= 0:
        return
    scores = [s * layer.weight.detach().square() for layer, s in zip(layers, sensitivities, strict=True)]
    everything = torch.cat([score.flatten() for score in scores])
    limit = everything.kthvalue(max(1, round(share * len(everything)))).values
    for layer, score in zip(layers, scores, strict=True):
        layer.kept &= score > limit
        with torch.no_grad():
            layer.weight.mul_(layer.kept)


def sparsity(layers: list[Conv2d]) -> float:
    """Share of the weights that are pruned."""
    total = sum(layer.kept.numel() for layer in layers)
    return 1 - sum(int(layer.kept.sum()) for layer in layers) / total
