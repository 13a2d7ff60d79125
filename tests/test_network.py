"""The network: sizes, the starting tensors of all widths, and the cell in integers and in floats."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcodec.core.errors import LimitError, UnsupportedError
from nvcodec.core.fixedpoint import Rounding, exact_inference
from nvcodec.core.gop import CodedFrame, CodingUnit
from nvcodec.core.parallel import thread_limit
from nvcodec.core.quantiser import GAIN_STEPS, gain_values, quantiser_steps
from nvcodec.encoder.arithmetic import training_dtype
from nvcodec.hybrid import base
from nvcodec.hybrid.base import TRAINED_WIDTHS, WIDTHS, starting_tensors
from nvcodec.hybrid.encoder.twin import Twin
from nvcodec.hybrid.network import (
    CELL_INPUTS,
    CELL_LAYERS,
    Network,
    NetworkShape,
)
from nvcodec.hybrid.unit import synthesise
from nvcodec.motion.compensation import Compensated

PARAMETERS = {8: 5380, 24: 29188, 48: 99460, 96: 364420, 160: 975748, 288: 3083140}


def network(width: int) -> Network:
    return Network(NetworkShape(width), starting_tensors(width))


def inputs(seed: int, batch: int, rows: int, columns: int) -> list[torch.Tensor]:
    """Residual, prediction and difference, over their whole ranges."""
    rng = np.random.default_rng(seed)
    ranges = ((6, -1023, 1023), (6, 0, 1023), (6, -1023, 1023))
    return [torch.from_numpy(rng.integers(a, b + 1, (batch, c, rows, columns))).float() for c, a, b in ranges]


def randomised(width: int, seed: int) -> Network:
    """Random weights, as large as the bound on accumulators lets them be, half of them zero."""
    rng = np.random.default_rng(seed)
    shape = NetworkShape(width)
    tensors = dict(starting_tensors(width))
    for spec in shape.tensors:
        if not spec.name.startswith("cell."):
            continue
        if spec.name.endswith(".weight"):
            bound = int(14e6 / 1023 / (9 * spec.shape[1]))
            drawn = rng.integers(-bound, bound + 1, spec.shape) * rng.integers(0, 2, spec.shape)
        else:
            bound = {"slope": 30, "scale": 31, "bias": 4000}[spec.name.rsplit(".", 1)[1]]
            drawn = rng.integers(-bound, bound + 1, spec.shape)
        tensors[spec.name] = torch.from_numpy(drawn).float()
    made = Network(shape, tensors)
    made.check()
    return made


# Sizes


@pytest.mark.parametrize("width", WIDTHS)
def test_parameter_counts(width: int) -> None:
    shape = NetworkShape(width)
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
        assert spec.name != "block.gain" or tensor.min() >= 0


def test_unknown_width() -> None:
    with pytest.raises(UnsupportedError, match="network width 25; this decoder knows 8, 24, 48"):
        starting_tensors(25)


def test_starting_tensors_are_copies() -> None:
    starting_tensors(8)["cell.key.mix0.weight"].zero_()
    assert starting_tensors(8)["cell.key.mix0.weight"].any()


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


@pytest.mark.parametrize("width", [w for w in WIDTHS if w not in TRAINED_WIDTHS and w < 288])
def test_widened_network_computes_the_same(width: int) -> None:
    small, wide = network(max(TRAINED_WIDTHS)), network(width)
    given = inputs(width, 2, 7, 9)
    with exact_inference():
        for depth in (0, 1, 4):
            assert torch.equal(small.cell(*given, depth), wide.cell(*given, depth))


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
    made.tensors["block.gain"] = torch.arange(8.0).reshape(8, 1) + 9
    assert [made.gain(depth) for depth in range(8)] == list(range(9, 17))
    made.tensors["block.gain"] = (torch.arange(8.0).reshape(8, 1) + 9.4).requires_grad_()
    assert made.gain(7) == 16


def test_chroma_has_finer_steps() -> None:
    steps = quantiser_steps()
    assert steps[:, 0].tolist() == list(gain_values())
    assert steps[:, 1].tolist() == [gain_values()[0]] * 4 + list(gain_values()[:-4])


# The cell


def reference_layer(x: np.ndarray, weight: torch.Tensor, offset: np.ndarray) -> np.ndarray:
    """3x3 convolution of one frame in int64, 9 fraction bits shifted off."""
    w = weight.numpy().astype(np.int64)
    rows, columns = x.shape[1:]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    total = np.zeros((len(w), rows, columns), dtype=np.int64) + offset[:, None, None]
    for i in range(3):
        for j in range(3):
            total += np.einsum("oc,crs->ors", w[:, :, i, j], padded[:, i : i + rows, j : j + columns])
    return (total + 256) >> 9


def reference_cell(made: Network, given: list[np.ndarray], depth: int) -> np.ndarray:
    residual, prediction, difference = given
    kind, row = ("key", 0) if depth == 0 else ("inter", min(depth, 3) - 1)
    t = {name: tensor.numpy().astype(np.int64) for name, tensor in made.tensors.items()}
    x = residual if depth == 0 else np.concatenate([residual, prediction - 512, difference])
    for layer in ("enter", "mix0", "mix1", "leave"):
        offset = 128 * t[f"cell.{kind}.{layer}.bias"][row if layer == "enter" else 0]
        if layer == "enter":
            offset = offset + 16 * t["block.gain"][depth, 0] * t[f"cell.{kind}.enter.slope"][row]
        x = reference_layer(x, made.tensors[f"cell.{kind}.{layer}.weight"], offset)
        if layer != "leave":
            x = np.where(x >= 0, x, x >> 3).clip(-1023, 1023)
    correction = (x * t[f"cell.{kind}.leave.scale"][row][:, None, None] + 8) >> 4
    return (prediction + residual + correction).clip(0, 1023)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([8, 24]), st.integers(1, 8), st.integers(1, 8), st.integers(0, 7))
def test_cell_is_that_of_integers(seed: int, width: int, rows: int, columns: int, depth: int) -> None:
    made, given = randomised(width, seed), inputs(seed, 2, rows, columns)
    with exact_inference():
        samples = made.cell(*given, depth)
    for b in range(2):
        expected = reference_cell(made, [x[b].numpy().astype(np.int64) for x in given], depth)
        assert np.array_equal(samples[b].numpy(), expected)


@pytest.mark.parametrize(("depth", "rows"), [(0, 48), (1, 71), (2, 120)])
def test_stripes_make_the_same_samples(depth: int, rows: int) -> None:
    """As many as fit, and more than that."""
    made, (_, prediction, difference) = randomised(8, 5), inputs(5, 2, rows, 6)
    unit = CodingUnit(tuple(CodedFrame(display, depth, ()) for display in range(2)))
    rng = np.random.default_rng(depth)
    rebuilt = torch.from_numpy(rng.integers(0, 1024, prediction.shape)).float()
    with exact_inference(), thread_limit(2):
        whole, *pieces = (
            synthesise(made, unit, Compensated(prediction, difference), rebuilt, stripes) for stripes in (1, 2, 3, 100)
        )
    assert whole.std() > 10
    assert all(torch.equal(whole, piece) for piece in pieces)


def test_training_computes_in_what_the_hardware_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for has_it, dtype in ((False, torch.float32), (True, torch.bfloat16)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has_it=has_it: has_it)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert training_dtype(cpu) == dtype
        assert Twin(NetworkShape(8), starting_tensors(8)).dtype == dtype


def test_a_cell_that_does_harm_is_soon_turned_down() -> None:
    """Where the blocks are right already, the factors of that depth fall within one unit's steps."""
    twin = Twin(NetworkShape(24), starting_tensors(24), torch.float32)
    twin.set_learning(0.3)
    residual, prediction, difference = inputs(3, 1, 24, 24)
    scale = twin.values["cell.inter.leave.scale"]
    before = scale.detach().clone()
    for _ in range(12):
        samples = twin.network().cell(residual, prediction, difference, 2, Rounding.NONE)
        error = (samples - prediction - residual).square().sum()
        twin.step_synthesis("inter", torch.autograd.grad(error, twin.synthesis["inter"]), 100.0)
    moved = (scale.detach() - before).mean(1)
    assert moved[1] < -3
    assert moved[[0, 2]].tolist() == [0, 0]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([8, 24]), st.integers(0, 3))
def test_frozen_twin_computes_the_same_integers(seed: int, width: int, depth: int) -> None:
    """Straight through in float32; only the clipping of samples is left to the caller."""
    made, given = randomised(width, seed), inputs(seed, 1, 6, 5)
    twin = Twin.frozen(made)
    with exact_inference():
        samples = made.cell(*given, depth)
        found = twin.network().cell(*given, depth, twin.rounding, twin.dtype)
    assert twin.rounding is Rounding.STRAIGHT_THROUGH
    assert torch.equal(found.clamp(0, 1023), samples)


def test_each_depth_has_a_bias_of_its_own() -> None:
    made, given = randomised(8, 1), inputs(1, 1, 4, 4)
    gains = made.tensors["block.gain"]
    gains[:] = gains[0]
    found = [made.cell(*given, depth) for depth in range(5)]
    for depth in (1, 2, 3):
        assert not torch.equal(found[depth - 1], found[depth])
    assert torch.equal(found[3], found[4])


@pytest.mark.parametrize("depth", [0, 2])
def test_the_bias_follows_the_gain(depth: int) -> None:
    made, given = randomised(8, 2), inputs(1, 1, 4, 4)
    before = made.cell(*given, depth)
    made.tensors["block.gain"][depth + 1 :] += 8
    assert torch.equal(before, made.cell(*given, depth))
    made.tensors["block.gain"][depth, 0] += 8
    assert not torch.equal(before, made.cell(*given, depth))


@pytest.mark.parametrize("layer", [f"{kind}.{layer}" for kind in CELL_INPUTS for layer in CELL_LAYERS])
def test_check_refuses_a_layer_that_is_not_exact(layer: str) -> None:
    made = network(8)
    made.check()
    made.tensors[f"cell.{layer}.weight"][1, :] = 3000
    with pytest.raises(LimitError, match=rf"^cell\.{re.escape(layer)}: the accumulator reaches \d+"):
        made.check()


def test_check_refuses_a_context_model_that_is_not_exact() -> None:
    """16 hidden units of up to 1023 with weights of up to 2048 reach 2**25."""
    made = network(8)
    made.tensors["context.output.weight"][1, :] = 2047
    with pytest.raises(LimitError, match=r"^context: "):
        made.check()
