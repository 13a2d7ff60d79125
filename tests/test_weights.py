"""The network in the bitstream: changes come back, and what is not changed costs nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcodec.core.quantiser import GAIN_STEPS
from nvcodec.entropy.symbols import SymbolReader, SymbolWriter
from nvcodec.entropy.tables import SCALES, table_bits
from nvcodec.entropy.weights import STEPS, TensorChange, TensorSpec, best_scales, row_length
from nvcodec.hybrid.base import segment_tensors, starting_tensors
from nvcodec.hybrid.network import NetworkShape

SHAPE = NetworkShape(8)
BY_NAME = {spec.name: spec for spec in SHAPE.tensors}
Tensors = dict[str, torch.Tensor]


def changed(spec: TensorSpec, rng: np.random.Generator, largest: int, step: int) -> TensorChange:
    symbols = rng.integers(-largest, largest + 1, spec.shape) * (rng.random(spec.shape) < 0.5)
    return TensorChange(symbols.astype(np.int32), step, best_scales(symbols.astype(np.int32), spec))


def there_and_back(offset: int, changes: dict[str, TensorChange]) -> tuple[Tensors, Tensors, SymbolWriter]:
    writer = SymbolWriter()
    meant = segment_tensors(writer, 8, offset, changes)
    reader = SymbolReader(writer.finish())
    found = segment_tensors(reader, 8, offset)
    reader.finish()
    assert reader.bits == pytest.approx(writer.bits, rel=1e-3, abs=0.05)
    return meant, found, writer


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sets(st.sampled_from(sorted(BY_NAME))),
    st.integers(0, len(STEPS) - 1),
    st.sampled_from([1, 9, 127]),
    st.integers(-128, 127),
)
def test_changes_come_back(seed: int, names: set[str], step: int, largest: int, offset: int) -> None:
    rng = np.random.default_rng(seed)
    changes = {name: changed(BY_NAME[name], rng, largest, step) for name in sorted(names)}
    meant, found, _ = there_and_back(offset, changes)
    start = starting_tensors(8)
    assert list(found) == [spec.name for spec in SHAPE.tensors]
    for name, spec in BY_NAME.items():
        assert torch.equal(meant[name], found[name]), name
        expected = start[name].numpy().astype(np.int64)
        low, high = -spec.bound, spec.bound
        if name == "block.gain":
            low, high = 0, GAIN_STEPS - 1
            expected = (expected + offset).clip(low, high)
        if name in changes:
            expected = expected + changes[name].symbols * STEPS[step]
        assert np.array_equal(found[name].numpy(), expected.clip(low, high)), name


def test_untouched_network_costs_its_flags() -> None:
    start = starting_tensors(8)
    meant, found, writer = there_and_back(0, {})
    assert writer.bits == len(SHAPE.tensors) < 8 * 4
    for name in start:
        assert torch.equal(meant[name], found[name])
        assert name == "block.gain" or torch.equal(found[name], start[name])
    assert (found["block.gain"].numpy() == start["block.gain"].numpy().clip(0, GAIN_STEPS - 1)).all()


def test_change_to_nothing_is_no_change() -> None:
    spec = BY_NAME["cell.inter.enter.weight"]
    zero = TensorChange(np.zeros(spec.shape, dtype=np.int32), 3, np.zeros(8, dtype=int))
    assert there_and_back(0, {spec.name: zero})[2].bits == len(SHAPE.tensors)


def test_one_changed_weight_costs_little() -> None:
    """Its own bits, the step, and seven rows at the lowest scale: not a bit for each of 1,584 weights."""
    spec = BY_NAME["cell.inter.enter.weight"]
    symbols = np.zeros(spec.shape, dtype=np.int32)
    symbols[2, 1, 1, 1] = -1
    bits = there_and_back(0, {spec.name: TensorChange(symbols, 5, best_scales(symbols, spec))})[2].bits
    assert bits < len(SHAPE.tensors) + 4 + 6 + 60


def test_gains_follow_the_offset_within_their_range() -> None:
    start = starting_tensors(8)["block.gain"]
    for offset in (-128, -1, 0, 5, 127):
        _, found, writer = there_and_back(offset, {})
        assert found["block.gain"].tolist() == (start + offset).numpy().clip(0, GAIN_STEPS - 1).tolist()
        assert writer.bits == len(SHAPE.tensors)


def test_values_stay_within_their_bounds() -> None:
    """127 steps of 256 reach beyond the bound of biases; both sides clip them alike."""
    spec = BY_NAME["cell.inter.mix0.bias"]
    symbols = np.array([[127, -127, 1, -1, 0, 127, -127, 100]], dtype=np.int32)
    _, found, _ = there_and_back(0, {spec.name: TensorChange(symbols, len(STEPS) - 1, best_scales(symbols, spec))})
    assert found[spec.name][0, [0, 1]].tolist() == [spec.bound, -spec.bound]


def test_rows_are_output_channels_where_they_are_long() -> None:
    lengths = {name.split(".", 1)[1]: row_length(spec) for name, spec in BY_NAME.items() if name.startswith("cell")}
    shared = {"mix0.weight": 72, "mix0.bias": 8, "mix1.weight": 72, "mix1.bias": 8, "leave.weight": 72, "leave.bias": 6}
    key = {"enter.weight": 8 * 6 * 9, "enter.bias": 8, "enter.slope": 8, "leave.scale": 6} | shared
    inter = {"enter.weight": 18 * 9, "enter.bias": 24, "enter.slope": 24, "leave.scale": 18} | shared
    assert lengths == {f"key.{k}": v for k, v in key.items()} | {f"inter.{k}": v for k, v in inter.items()}


def test_best_scales_are_the_cheapest() -> None:
    spec = BY_NAME["cell.inter.mix0.weight"]
    symbols = np.random.default_rng(1).laplace(0, 3, spec.shape).round().astype(np.int32)
    symbols[0] = 0
    scales = best_scales(symbols, spec)
    costs = table_bits()[::4].astype(np.float64)
    for row, scale in zip(symbols.reshape(8, -1), scales, strict=True):
        by_scale = [costs[s, row + 127].sum() for s in range(SCALES)]
        assert by_scale[scale] == pytest.approx(min(by_scale))
    assert scales[0] == 0
    assert scales[1:].min() > 20
