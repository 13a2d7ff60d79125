"""The network: sizes, the starting tensors of all widths, and the cell in integers and in floats."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcodec.encoder.twin import Twin
from nvcodec.errors import LimitError, UnsupportedError
from nvcodec.fixedpoint import Rounding, exact_inference
from nvcodec.model import base
from nvcodec.model.base import HIDDEN_FEATURES, TRAINED_WIDTHS, WIDTHS, starting_tensors
from nvcodec.model.network import ACTIVATION_BOUND, GAIN_STEPS, Network, NetworkShape, gain_values

PARAMETERS = {8: 3602, 24: 12866, 48: 35402, 96: 111578, 192: 388346, 512: 2508986}


def network(width: int) -> Network:
    return Network(NetworkShape(width, HIDDEN_FEATURES), starting_tensors(width))


def inputs(seed: int, batch: int, rows: int, columns: int) -> list[torch.Tensor]:
    """Residual, prediction, difference and hidden features, over their whole ranges."""
    rng = np.random.default_rng(seed)
    ranges = ((6, -1023, 1023), (6, 0, 1023), (6, -1023, 1023), (HIDDEN_FEATURES, -1023, 1023))
    return [torch.from_numpy(rng.integers(a, b + 1, (batch, c, rows, columns))).float() for c, a, b in ranges]


def randomised(width: int, seed: int) -> Network:
    """Random weights, as large as the bound on accumulators lets them be, half of them zero."""
    rng = np.random.default_rng(seed)
    shape = NetworkShape(width, HIDDEN_FEATURES)
    tensors = dict(starting_tensors(width))
    for name, incoming in (("enter", shape.inputs), ("mix", width), ("leave", width)):
        like = tensors[f"cell.{name}.weight"]
        bound = int(14e6 / 1023 / (9 * incoming))
        tensors[f"cell.{name}.weight"] = torch.from_numpy(
            rng.integers(-bound, bound + 1, tuple(like.shape)) * rng.integers(0, 2, tuple(like.shape))
        ).float()
        bias = tensors[f"cell.{name}.bias"]
        tensors[f"cell.{name}.bias"] = torch.from_numpy(rng.integers(-4000, 4001, tuple(bias.shape))).float()
    made = Network(shape, tensors)
    made.check()
    return made


# Sizes


@pytest.mark.parametrize("width", WIDTHS)
def test_parameter_counts(width: int) -> None:
    shape = NetworkShape(width, HIDDEN_FEATURES)
    assert shape.parameter_count == PARAMETERS[width]
    assert shape.parameter_count == sum(t.numel() for t in starting_tensors(width).values())


@pytest.mark.parametrize("width", WIDTHS)
def test_starting_networks_are_integers_within_bounds(width: int) -> None:
    made = network(width)
    made.check()
    assert list(made.tensors) == [spec.name for spec in made.shape.tensors]
    for spec in made.shape.tensors:
        tensor = made.tensors[spec.name]
        assert tuple(tensor.shape) == spec.shape
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, tensor.round())
        assert tensor.abs().max() <= spec.bound
        assert spec.name != "grid.gain" or tensor.min() >= 0


def test_unknown_width() -> None:
    with pytest.raises(UnsupportedError, match="network width 25; this decoder knows 8, 24, 48"):
        starting_tensors(25)


def test_starting_tensors_are_copies() -> None:
    starting_tensors(8)["cell.mix.weight"].zero_()
    assert starting_tensors(8)["cell.mix.weight"].any()


def test_new_rows_are_scattered() -> None:
    """The hash that fills the rows of wider networks, in Python integers."""

    def murmur(x: int) -> int:
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
            x = (x ^ (x >> shift)) * factor % 2**32
        return x

    span = 2 * (1024 // 108) + 1  # 108 = 3 * sqrt(9 * 144)
    got = base._scattered((3, 144, 3, 3), 144)
    assert got.reshape(-1).tolist() == [(murmur(i + 1) * span >> 32) - span // 2 for i in range(got.size)]
    assert (got.min(), got.max()) == (-9, 9)


@pytest.mark.parametrize("width", [w for w in WIDTHS if w not in TRAINED_WIDTHS and w < 512])
def test_widened_network_computes_the_same(width: int) -> None:
    small, wide = network(max(TRAINED_WIDTHS)), network(width)
    given = inputs(width, 2, 7, 9)
    with exact_inference():
        for is_key in (True, False):
            expected, found = small.cell(*given, is_key), wide.cell(*given, is_key)
            assert torch.equal(expected[0], found[0])
            assert torch.equal(expected[1], found[1])


# Gains


def test_gain_values() -> None:
    """round(4 * 2**(i / 8)): v where (2v - 1)**8 <= 2**(24 + i) < (2v + 1)**8."""
    values = gain_values()
    assert values[:10] == (4, 4, 5, 5, 6, 6, 7, 7, 8, 9)
    assert values[-8:] == (512, 558, 609, 664, 724, 790, 861, 939)
    assert len(values) == GAIN_STEPS == 64
    for i, value in enumerate(values):
        assert (2 * value - 1) ** 8 <= 1 << (24 + i) < (2 * value + 1) ** 8


def test_gains_are_looked_up_by_depth() -> None:
    made = network(8)
    index = torch.arange(48.0).reshape(8, 6)
    made.tensors["grid.gain"] = index
    for depth in (0, 7):
        assert made.gains(depth).tolist() == [gain_values()[6 * depth + k] for k in range(6)]
    made.tensors["grid.gain"] = index.clone().requires_grad_()
    assert made.gains(7).tolist() == pytest.approx([4 * 2 ** (i / 8) for i in range(42, 48)], rel=1e-5)


# The cell


def reference_layer(x: np.ndarray, weight: torch.Tensor, bias: torch.Tensor) -> np.ndarray:
    """3x3 convolution of one frame in int64, bias in quarters, 9 fraction bits shifted off."""
    w = weight.numpy().astype(np.int64)
    rows, columns = x.shape[1:]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    total = np.zeros((len(w), rows, columns), dtype=np.int64) + bias.numpy().astype(np.int64)[:, None, None] * 128
    for i in range(3):
        for j in range(3):
            total += np.einsum("oc,crs->ors", w[:, :, i, j], padded[:, i : i + rows, j : j + columns])
    return (total + 256) >> 9


def reference_cell(made: Network, given: list[np.ndarray], is_key: bool) -> tuple[np.ndarray, np.ndarray]:
    residual, prediction, difference, hidden = given
    t = made.tensors
    x = np.concatenate([residual, prediction - 512, difference, hidden])
    for name, row in (("enter", 0 if is_key else 1), ("mix", 0)):
        x = reference_layer(x, t[f"cell.{name}.weight"], t[f"cell.{name}.bias"][row])
        x = np.where(x >= 0, x, x >> 3).clip(-1023, 1023)
    x = reference_layer(x, t["cell.leave.weight"], t["cell.leave.bias"][0])
    return (prediction + residual + x[:6]).clip(0, 1023), x[6:].clip(-1023, 1023)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([8, 24]), st.integers(1, 8), st.integers(1, 8), st.booleans())
def test_cell_is_that_of_integers(seed: int, width: int, rows: int, columns: int, is_key: bool) -> None:
    made, given = randomised(width, seed), inputs(seed, 2, rows, columns)
    with exact_inference():
        samples, hidden = made.cell(*given, is_key)
    for b in range(2):
        expected = reference_cell(made, [x[b].numpy().astype(np.int64) for x in given], is_key)
        assert np.array_equal(samples[b].numpy(), expected[0])
        assert np.array_equal(hidden[b].numpy(), expected[1])
    assert hidden.abs().max() <= ACTIVATION_BOUND


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([8, 24]), st.booleans())
def test_frozen_twin_computes_the_same_integers(seed: int, width: int, is_key: bool) -> None:
    """Straight through in float32; only the clipping of samples is left to the caller."""
    made, given = randomised(width, seed), inputs(seed, 1, 6, 5)
    twin = Twin.frozen(made)
    with exact_inference():
        samples, hidden = made.cell(*given, is_key)
        found = twin.network().cell(*given, is_key, twin.rounding, twin.dtype)
    assert twin.rounding is Rounding.STRAIGHT_THROUGH
    assert torch.equal(found[0].clamp(0, 1023), samples)
    assert torch.equal(found[1], hidden)


def test_key_frames_have_a_bias_of_their_own() -> None:
    made, given = randomised(8, 1), inputs(1, 1, 4, 4)
    key, other = made.cell(*given, True), made.cell(*given, False)
    assert not torch.equal(key[1], other[1])


@pytest.mark.parametrize("layer", ["enter", "mix", "leave"])
def test_check_refuses_a_layer_that_is_not_exact(layer: str) -> None:
    made = network(8)
    made.check()
    made.tensors[f"cell.{layer}.weight"][1, :] = 3000
    with pytest.raises(LimitError, match=rf"^cell\.{layer}: the accumulator reaches \d+"):
        made.check()


@pytest.mark.parametrize("kind", ["appearance", "motion"])
def test_check_refuses_a_context_model_that_is_not_exact(kind: str) -> None:
    """16 hidden units of up to 1023 with weights of up to 2048 reach 2**25."""
    made = network(8)
    made.tensors[f"context.{kind}.output.weight"][1, :] = 2047
    with pytest.raises(LimitError, match=f"context.{kind}"):
        made.check()
