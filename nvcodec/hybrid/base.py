"""The normative starting networks: what a segment's weights are coded as differences from.

A segment pays only for what its video needs changed. The tensors of the trained widths are shipped with the
decoder as little-endian int16, in the order of ``NetworkShape.tensors``; the other widths widen the nearest
smaller one with channels that do nothing until a file changes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import resources

import numpy as np
import torch
from torch import Tensor

from nvcodec.core.errors import UnsupportedError
from nvcodec.entropy.symbols import SymbolChannel
from nvcodec.entropy.weights import TensorChange, TensorSpec, code_tensors
from nvcodec.hybrid.network import NetworkShape, limit_gains

__all__ = ["TRAINED_WIDTHS", "WIDTHS", "segment_tensors", "starting_tensors"]

WIDTHS = (8, 24, 48, 96, 160, 288)
"""The width presets, from about six thousand to three million parameters."""
TRAINED_WIDTHS = (8, 24)
_AT_A_TIME = 1 << 16
"""Weights that are made at a time, so that the widest network takes little room beside itself."""


@lru_cache(maxsize=len(WIDTHS))
def _starting_arrays(width: int) -> dict[str, np.ndarray]:
    shape = NetworkShape(width)
    if width in TRAINED_WIDTHS:
        data = resources.files("nvcodec.hybrid").joinpath(f"base/width{width}.bin").read_bytes()
        values = np.frombuffer(data, dtype="<i2")
        arrays, start = {}, 0
        for spec in shape.tensors:
            count = int(np.prod(spec.shape))
            arrays[spec.name] = values[start : start + count].reshape(spec.shape)
            start += count
        if start != len(values):
            raise UnsupportedError(f"the starting network of width {width} holds {len(values)} values, not {start}")
        return arrays
    smaller = _starting_arrays(max(w for w in TRAINED_WIDTHS if w < width))
    return {spec.name: _widened(spec, smaller[spec.name]) for spec in shape.tensors}


def _widened(spec: TensorSpec, small: np.ndarray) -> np.ndarray:
    """``small`` in the corner of a larger tensor. New rows are pseudo-random, new columns of old rows are 0."""
    out = np.zeros(spec.shape, dtype=np.int16)
    if spec.name.startswith("cell.") and spec.name.endswith(".weight") and ".leave." not in spec.name:
        out[small.shape[0] :] = _scattered(out[small.shape[0] :].shape, spec.shape[1])
    out[tuple(slice(0, n) for n in small.shape)] = small
    return out


def _scattered(shape: tuple[int, ...], inputs: int) -> np.ndarray:
    """Integers of magnitude up to about 341 / sqrt(9 * inputs), from a hash of their index (murmur3 finaliser)."""
    span = 2 * (1024 // int(np.ceil(3 * np.sqrt(9 * inputs)))) + 1
    values = np.empty(int(np.prod(shape)), dtype=np.int16)
    for start in range(0, len(values), _AT_A_TIME):
        x = np.arange(start + 1, min(start + _AT_A_TIME, len(values)) + 1, dtype=np.uint32)
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
            x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
        values[start : start + len(x)] = ((x.astype(np.int64) * span) >> 32) - span // 2
    return values.reshape(shape)


def starting_tensors(width: int) -> dict[str, Tensor]:
    """The integer tensors, float32, that a segment of this width starts from."""
    if width not in WIDTHS:
        raise UnsupportedError(f"network width {width}; this decoder knows {', '.join(map(str, WIDTHS))}")
    return {name: torch.from_numpy(a.astype(np.float32)) for name, a in _starting_arrays(width).items()}


def segment_tensors(
    channel: SymbolChannel, width: int, gain_offset: int, changes: Mapping[str, TensorChange] | None = None
) -> dict[str, Tensor]:
    """Write the ``changes`` of a segment's network or read them; returns its integer tensors.

    ``gain_offset`` is added to the starting gains: the quantiser step of the segment.
    """
    start = starting_tensors(width)
    start["block.gain"] = limit_gains(start["block.gain"] + gain_offset)
    tensors = code_tensors(channel, NetworkShape(width).tensors, start, changes)
    tensors["block.gain"] = limit_gains(tensors["block.gain"])
    return tensors
