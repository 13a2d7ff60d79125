"""Prune and quantise the network by rate-distortion.

See ``nvcodec.encoder.weight_changes``.
"""

from __future__ import annotations

from torch import Tensor

from nvcodec.encoder.weight_changes import best_change
from nvcodec.entropy.weights import STEPS, TensorChange, best_scales
from nvcodec.hybrid.encoder.twin import Twin

__all__ = ["gain_changes", "quantise_network"]


def quantise_network(twin: Twin, sensitivity: dict[str, Tensor], price: float = 1.0) -> dict[str, TensorChange]:
    """The changes to code. ``sensitivity``: for each tensor, bits lost per squared integer unit (H / 2 lambda).

    ``price``: weight of the weights' own bits, 1 for the optimum.
    """
    changes = {}
    for spec in twin.shape.tensors:
        if spec.name not in sensitivity:
            continue
        difference = (twin.values[spec.name].detach() - twin.start[spec.name]).cpu().double().numpy()
        change = best_change(spec, difference, sensitivity[spec.name].double().numpy(), price)
        if change is not None:
            changes[spec.name] = change
    return changes


def gain_changes(twin: Twin) -> dict[str, TensorChange]:
    """What makes the starting gains those of ``twin``, whole steps; empty where they are the same."""
    name = "block.gain"
    symbols = (twin.values[name] - twin.start[name]).detach().round().int().numpy()
    if not symbols.any():
        return {}
    (spec,) = (spec for spec in twin.shape.tensors if spec.name == name)
    return {name: TensorChange(symbols, STEPS.index(1), best_scales(symbols, spec))}
