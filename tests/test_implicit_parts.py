"""Parts of the implicit encoder by themselves: what bits cost, what is pruned, which steps, what soft rounding does."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from nvcodec.core.errors import TargetError
from nvcodec.entropy.symbols import CountingChannel, SymbolReader, SymbolWriter
from nvcodec.exact import GELU, Conv2d, Latent, Samples, Sizes
from nvcodec.exact.arithmetic import Function, function_lookup, function_table, requantise, requantiser
from nvcodec.exact.operation import FrameInputs, Shape
from nvcodec.exact.simulation import soft_round
from nvcodec.exact.tracing import place
from nvcodec.implicit.encoder.budget import meet_by_steps, moved_price
from nvcodec.implicit.encoder.coding import conv_symbols, counted_bits, fitted_scales, latent_symbols, weight_bits
from nvcodec.implicit.encoder.frames import FrameModel
from nvcodec.implicit.encoder.prune import prune, sparsity
from nvcodec.implicit.encoder.rate import symbol_bits
from nvcodec.implicit.encoder.steps import Importance, set_latent_steps, set_weight_steps
from nvcodec.implicit.latents import LatentModel, code_latents
from nvcodec.implicit.unit import units_of
from nvcodec.implicit.weights import ConvSymbols, code_convolution


class Small(nn.Module):
    """A latent, two convolutions."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.latent, self.first = Latent(3, *sizes.half), Conv2d(3, 8, 3)
        self.act, self.second, self.samples = GELU(), Conv2d(8, 6, 3), Samples()

    def forward(self, frame: FrameInputs) -> dict[str, torch.Tensor]:
        return {"samples": self.samples(self.second(self.act(self.first(self.latent(frame)))))}


@pytest.fixture
def model() -> FrameModel:
    torch.manual_seed(3)
    sizes = Sizes((8, 12), (2, 3), 5)
    module = Small(sizes)
    latents = place(module, sizes)
    nn.init.normal_(latents[0].values, std=3)
    return FrameModel(module, latents, torch.rand(5, 6, 8, 12) - 0.5, units_of_frames(5), 2, None)


def units_of_frames(count: int) -> list:  # type: ignore[type-arg]
    from nvcodec.exact.latents import LatentInput
    from nvcodec.exact.outputs import SamplesOutput
    from nvcodec.exact.program import Program

    return units_of(Program(12, (LatentInput(channels=6), SamplesOutput((0,)))), count, 2)


def test_scales_are_powers_of_the_eighth_root() -> None:
    for exponent in range(-256, 97):
        multiplier, shift = requantiser(exponent)
        assert 2**14 <= multiplier < 2**15
        assert multiplier / 2**shift == pytest.approx(2 ** (exponent / 8), rel=1e-4)


def test_requantising_is_integer_arithmetic() -> None:
    draw = np.random.default_rng(1)
    sums = draw.integers(-(2**31) + 1, 2**31, (1, 5, 3, 4))
    exponents, bias = draw.integers(-256, 97, 5), draw.integers(-500, 500, 5)
    made = requantise(torch.from_numpy(sums).double(), torch.from_numpy(exponents), torch.from_numpy(bias), 2047)
    for place_ in np.ndindex(sums.shape):
        multiplier, shift = requantiser(int(exponents[place_[1]]))
        exact = (int(sums[place_]) * multiplier + (1 << (shift - 1)) >> shift) + int(bias[place_[1]])
        assert int(made[place_]) == min(max(exact, -2047), 2047)


@pytest.mark.parametrize(
    ("function", "real"),
    [
        (Function.GELU, lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2)))),
        (Function.SIGMOID, lambda x: 1 / (1 + math.exp(-x))),
        (Function.TANH, math.tanh),
        (Function.SINE, lambda x: math.sin(2 * math.pi * x)),
    ],
)
def test_tables_follow_their_functions(function: Function, real) -> None:  # type: ignore[no-untyped-def]
    assert len(function_table(function)) == (257 if function is Function.SINE else 1025)
    lookup = function_lookup(function, 16, 12, 12)
    for x in range(-30000, 30000, 97):
        assert lookup[x + 32767] / 4096 == pytest.approx(real(x / 4096), abs=3e-4)


def test_estimated_bits_are_those_of_the_distribution() -> None:
    scale = torch.tensor(2.0)
    symbols = torch.arange(-60.0, 61.0)
    bits = symbol_bits(symbols, scale)
    assert float((2.0**-bits).sum()) == pytest.approx(1, abs=1e-3)
    assert float(bits[60]) == pytest.approx(-math.log2(1 - math.exp(-0.25)), abs=1e-3)
    assert torch.all(bits[60:84].diff() > 0)
    moving = torch.linspace(-5, 5, 41, requires_grad=True)
    symbol_bits(moving, scale).sum().backward()
    assert moving.grad is not None
    assert torch.all(moving.grad[21:] > 0)
    assert torch.all(moving.grad[:20] < 0)


def test_counted_bits_are_what_is_written(model: FrameModel) -> None:
    importance = Importance([torch.ones_like(layer.weight) for layer in model.layers], [1.0])
    set_weight_steps(model.layers, importance, -5.0)
    for layer in model.layers:
        layer.fit_bias()
    writer = SymbolWriter()
    given = [conv_symbols(layer, 8) for layer in model.layers]
    for layer, symbols in zip(model.layers, given, strict=True):
        code_convolution(writer, tuple(layer.weight.shape), symbols)  # type: ignore[arg-type]
    assert weight_bits(model.layers) == pytest.approx(writer.bits)
    reader = SymbolReader(writer.finish())
    for layer, symbols in zip(model.layers, given, strict=True):
        read = code_convolution(reader, tuple(layer.weight.shape), None)  # type: ignore[arg-type]
        assert np.array_equal(read.weight, symbols.weight)
        assert np.array_equal(read.exponent, symbols.exponent)
        assert np.array_equal(read.bias << read.bias_shift, symbols.bias << symbols.bias_shift)
    reader.finish()


def test_latents_come_back_and_their_scales_are_the_best(model: FrameModel) -> None:
    symbols = latent_symbols(model.latents)
    views = [None] * len(model.units)
    fitted = fitted_scales(symbols, model.units, views, 1)
    bits = counted_bits(symbols, fitted, model.units, views)
    for change in (-3, 3):
        other = LatentModel(tuple((s + change).clip(0, 63) for s in fitted.scales))
        assert counted_bits(symbols, other, model.units, views) > bits
    writer, (level,) = SymbolWriter(), symbols.latents
    shapes = [Shape(*level.shape[1:])]
    code_latents(writer, shapes, 5, fitted, False, None, [level], [])
    reader = SymbolReader(writer.finish())
    (read,) = code_latents(reader, shapes, 5, fitted, False, None, None, [])
    assert torch.equal(read, level)


def test_pruning_takes_what_matters_least(model: FrameModel) -> None:
    sensitivities = [torch.rand_like(layer.weight) for layer in model.layers]
    scores = torch.cat(
        [(s * layer.weight.detach() ** 2).flatten() for s, layer in zip(sensitivities, model.layers, strict=True)]
    )
    prune(model.layers, sensitivities, 0.25)
    kept = torch.cat([layer.kept.flatten() for layer in model.layers])
    assert sparsity(model.layers) == pytest.approx(0.25, abs=0.01)
    assert scores[~kept].max() <= scores[kept].min()
    assert all(torch.all(layer.weight_symbols()[~layer.kept] == 0) for layer in model.layers)


def test_steps_follow_sensitivity_and_reach_the_largest_weight(model: FrameModel) -> None:
    importance = Importance([torch.full_like(layer.weight, 4.0**n) for n, layer in enumerate(model.layers)], [1.0])
    set_weight_steps(model.layers, importance, -2.0)
    first, second = (layer.step for layer in model.layers)
    assert torch.all(first - second[0] == 8)  # four times as sensitive: half the step
    set_weight_steps(model.layers, importance, -30.0)
    for layer in model.layers:
        assert layer.weight_symbols().abs().max() <= 127
        assert layer.weight_symbols().abs().flatten(1).amax(1).min() > 100


def test_latent_steps_are_octaves_and_values_follow(model: FrameModel) -> None:
    (latent,) = model.latents
    real = latent.values.detach() * 2.0**-latent.step_bits
    set_latent_steps([latent], Importance([], [2.0**10]), 2.0)
    assert latent.step_bits == 3
    assert torch.allclose(latent.values * 2.0**-3, real)


def test_a_size_is_met_or_the_range_is_told(model: FrameModel) -> None:
    importance = Importance([torch.ones_like(layer.weight) for layer in model.layers], [1e-6])
    for layer in model.layers:
        layer.fit_bias()

    def bits(latents_changed: bool) -> float:
        return weight_bits(model.layers)

    unit = meet_by_steps(model, importance, bits, 2600.0, None)
    assert bits(False) == pytest.approx(2600, rel=0.03)
    meet_by_steps(model, importance, bits, 2400.0, unit)
    assert bits(False) == pytest.approx(2400, rel=0.03)
    with pytest.raises(TargetError, match=r"takes \d+ to \d+ bytes"):
        meet_by_steps(model, importance, bits, 1e7, None)


def test_the_price_follows_the_bits_but_not_too_fast() -> None:
    assert moved_price(1.0, 100, 100) == 1
    assert moved_price(1.0, 110, 100) > 1 > moved_price(1.0, 90, 100)
    assert moved_price(1.0, 1e9, 1) == moved_price(1.0, 1e6, 1) <= 4


def test_soft_rounding_comes_near_rounding() -> None:
    x = torch.tensor([-1.8, -0.3, 0.2, 0.7, 3.6])
    assert torch.allclose(soft_round(x, 0.02), torch.round(x), atol=1e-3)
    assert (soft_round(x, 1.0) - x).abs().max() < (torch.round(x) - x).abs().max()


def test_sensitivity_is_the_diagonal_of_gauss_and_newton() -> None:
    """Against the mean over many random directions, by differences of one weight."""
    torch.manual_seed(0)
    sizes = Sizes((4, 4), (1, 1), 24)
    module = Small(sizes)
    latents = place(module, sizes)
    nn.init.normal_(latents[0].values)
    model = FrameModel(module, latents, torch.rand(24, 6, 4, 4) - 0.5, [], 2, None)
    found = model.sensitivity().weights[1]
    layer, scale = model.layers[1], 1e-3
    numbers = torch.arange(24)
    with torch.no_grad():
        base = module(FrameInputs(numbers))["samples"]
        exact = torch.zeros_like(layer.weight)
        for place_ in list(np.ndindex(tuple(layer.weight.shape)))[::7]:
            layer.weight[place_] += scale
            moved = (module(FrameInputs(numbers))["samples"] - base) / scale
            layer.weight[place_] -= scale
            weights = torch.tensor([1.0, 1, 1, 1, 4, 4]).view(6, 1, 1) / (4 + 8) / 16
            exact[place_] = (moved.square() * weights).sum()
    looked_at = exact > 0
    ratio = float(found[looked_at].sum() / exact[looked_at].sum())
    assert 0.6 < ratio < 1.6


def test_counting_costs_what_writing_does() -> None:
    symbols = np.arange(-20, 21, dtype=np.int32)
    tables = np.full(41, 100, np.uint8)
    channel, writer = CountingChannel(), SymbolWriter()
    for target in (channel, writer):
        target.exchange(tables, symbols)
        target.exchange_flags(np.array([1, 0, 1]), 3)
    assert channel.bits == pytest.approx(writer.bits)


def test_symbols_of_a_convolution_know_their_tensors() -> None:
    made = ConvSymbols(np.ones((2, 1, 1, 1), np.int32), np.array([-8, 8]), np.array([3, -2]), 4).tensors()
    assert made.bias.tolist() == [48, -32]
    assert made.largest_sum == 1
