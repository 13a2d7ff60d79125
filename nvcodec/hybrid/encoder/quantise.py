"""Prune and quantise the network by rate-distortion.

See ``nvcodec.encoder.weight_changes``.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from nvcodec.encoder.weight_changes import best_change
from nvcodec.entropy.weights import STEPS, TensorChange, TensorSpec, best_scales
from nvcodec.hybrid.encoder.twin import Twin

__all__ = ["gain_changes", "quantise_network"]

_SILENCING_STEP = 4
"""It divides the scales that the cells start with."""


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
        silent = (twin.values[spec.name] == 0).all(-1).cpu().numpy()
        if spec.name.endswith("leave.scale") and silent.any():
            change = _silencing(spec, difference, silent)
        if change is not None:
            changes[spec.name] = change
    return changes


def _silencing(spec: TensorSpec, difference: np.ndarray, silent: np.ndarray) -> TensorChange:
    """The change of a cell's last scales that makes the rows ``silent`` 0 to the last bit, and others about right."""
    step = 1 if np.rint(difference[~silent]).any() else _SILENCING_STEP
    symbols = np.rint(difference / step).astype(np.int32)
    assert np.array_equal(symbols[silent] * step, difference[silent])
    return TensorChange(symbols, STEPS.index(step), best_scales(symbols, spec))


def gain_changes(twin: Twin) -> dict[str, TensorChange]:
    """What makes the starting gains those of ``twin``, whole steps; empty where they are the same."""
    name = "block.gain"
    symbols = (twin.values[name] - twin.start[name]).detach().round().int().numpy()
    if not symbols.any():
        return {}
    (spec,) = (spec for spec in twin.shape.tensors if spec.name == name)
    return {name: TensorChange(symbols, STEPS.index(1), best_scales(symbols, spec))}
