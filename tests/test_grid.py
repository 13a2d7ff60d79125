"""The residual grid: the wavelet synthesis against the same sums in int64, written out one sample at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcodec.core.fixedpoint import Rounding
from nvcodec.core.gop import MAX_DEPTH
from nvcodec.encoder.rate import level_costs
from nvcodec.entropy.symbols import SymbolReader, SymbolWriter
from nvcodec.grid import wavelet
from nvcodec.grid.coding import code_appearance
from nvcodec.grid.contexts import CONTEXT_SHAPES, appearance_context, context_of
from nvcodec.grid.levels import (
    APPEARANCE_CHANNELS,
    APPEARANCE_LEVELS,
    GRID_STRIDES,
    Quantiser,
    appearance_layout,
    appearance_shapes,
    channel_gains,
    empty_levels,
)
from nvcodec.grid.side import AppearanceSide
from nvcodec.grid.wavelet import RESIDUAL_BOUND, expand_grid, residual_planes
from nvcodec.motion.levels import SYMBOL_BOUND, FrameGeometry

# Sizes


def sizes(geometry: FrameGeometry) -> list[tuple[int, int]]:
    """(rows, columns) of each level."""
    return [(rows, columns) for _, rows, columns in appearance_shapes(geometry)]


def test_sizes_of_an_odd_picture() -> None:
    geometry = FrameGeometry(35, 21)
    assert geometry.half == (11, 18)
    assert geometry.blocks == (3, 5)
    assert sizes(geometry) == [(11, 18), (6, 9), (3, 5), (2, 3), (1, 2)]
    assert [shape[0] for shape in appearance_shapes(geometry)] == [3, 9, 9, 9, 12]
    shapes = [(2, *shape) for shape in appearance_shapes(geometry)]
    assert [level.shape for level in empty_levels(2, geometry)] == shapes
    assert len(GRID_STRIDES) == APPEARANCE_LEVELS


def test_smallest_picture_has_one_sample_everywhere() -> None:
    assert set(sizes(FrameGeometry(1, 1))) == {(1, 1)}


# Expansion

LOW = ((-21, 404, -21), (-33, 214, 214, -33))  # around i - 1 .. i + 1, and i - 1 .. i + 2
HIGH = ((12, -193, -193, 12), (19, -57, 437, -57, 19))  # around i - 2 .. i + 1, and i - 2 .. i + 2
BAND = 14336


def merge(low: np.ndarray, high: np.ndarray, length: int) -> np.ndarray:
    """Two rows of n samples to ``length`` samples: spread over even and odd places, mirrored at both ends."""
    spread = np.zeros(length, dtype=np.int64)
    spread[0::2], spread[1::2] = low[: (length + 1) // 2], high[: length // 2]
    if length == 1:
        line = np.array([low[0], high[0]] * 9)  # nothing to mirror: the same at every place
    else:
        period = np.concatenate([spread, spread[-2:0:-1]])
        line = np.tile(period, 20)
        line = np.roll(line, 8)[: length + 16]  # places -8 .. length + 7
    out = np.zeros(length, dtype=np.int64)
    for place in range(length):
        i, phase = place // 2, place % 2
        total = sum(t * int(line[8 + 2 * (i + k - 1)]) for k, t in enumerate(LOW[phase]))
        total += sum(t * int(line[8 + 2 * (i + k - 2) + 1]) for k, t in enumerate(HIGH[phase]))
        out[place] = min(max((total + 256) >> 9, -BAND), BAND)
    return out


def merge_plane(low: np.ndarray, bands: np.ndarray, rows: int, columns: int) -> np.ndarray:
    upper = np.stack([merge(a, b, columns) for a, b in zip(low, bands[0], strict=True)])
    lower = np.stack([merge(a, b, columns) for a, b in zip(bands[1], bands[2], strict=True)])
    return np.stack([merge(upper[:, x], lower[:, x], rows) for x in range(columns)], axis=1)


def reference_images(levels: list[np.ndarray], gains: list[list[int]]) -> list[list[np.ndarray]]:
    """One frame: levels (C, rows, columns), finest first; ``gains`` of luma, and of chroma. The planes that the bands
    of each level are added to, Y alone at the finest."""

    def scaled(symbols: np.ndarray, plane: int, level: int) -> np.ndarray:
        return np.clip(symbols * gains[min(plane, 1)][level], -BAND, BAND)

    images = [[scaled(levels[4][9 + p], p, 5) for p in range(3)]]
    for k in (4, 3, 2, 1):
        size = levels[k - 1].shape[1:]
        bands = [scaled(levels[k][3 * p : 3 * p + 3], p, k) for p in range(3)]
        images.insert(0, [merge_plane(*pair, *size) for pair in zip(images[0], bands, strict=True)])
    h, w = levels[0].shape[1:]
    return [[merge_plane(images[0][0], scaled(levels[0], 0, 0), 2 * h, 2 * w)], *images]


def reference_expansion(levels: list[np.ndarray], gains: list[list[int]]) -> np.ndarray:
    """The residual, (6, h, w)."""
    (luma,), (_, *chroma), *_ = reference_images(levels, gains)
    packed = [luma[dy::2, dx::2] for dy in (0, 1) for dx in (0, 1)]
    return np.clip(np.stack([*packed, *chroma]), -RESIDUAL_BOUND, RESIDUAL_BOUND)


def random_levels(seed: int, width: int, height: int, largest: int, batch: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = appearance_shapes(FrameGeometry(width, height))
    return [rng.integers(-largest, largest + 1, (batch, *shape)) for shape in shapes]


def tensors(levels: list[np.ndarray]) -> list[torch.Tensor]:
    return [torch.from_numpy(level).float() for level in levels]


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 39),
    st.integers(1, 39),
    st.sampled_from([1, 6, SYMBOL_BOUND]),
    st.lists(st.lists(st.sampled_from([4, 5, 64, 939]), min_size=6, max_size=6), min_size=2, max_size=2),
)
def test_expansion_is_that_of_integers(
    seed: int, width: int, height: int, largest: int, gains: list[list[int]]
) -> None:
    levels = random_levels(seed, width, height, largest, batch=2)
    expected = np.stack([reference_expansion([level[b] for level in levels], gains) for b in range(2)])
    for rounding in (Rounding.EXACT, Rounding.STRAIGHT_THROUGH):
        got = expand_grid(tensors(levels), torch.tensor(gains, dtype=torch.float32), rounding)
        assert np.array_equal(got.numpy(), expected), rounding


def test_loudest_grid_stays_exact() -> None:
    """All symbols at +-127 with the signs of the filters: every accumulator at its largest."""
    rng = np.random.default_rng(5)
    levels = [np.where(level < 0, -127, 127) for level in random_levels(1, 21, 17, 1)]
    levels = [level * rng.choice([-1, 1], (level.shape[1], 1, 1)) for level in levels]
    gains = [[939] * 6] * 2
    got = expand_grid(tensors(levels), torch.full((2, 6), 939.0))
    assert np.array_equal(got.numpy()[0], reference_expansion([level[0] for level in levels], gains))
    assert got.abs().max() == RESIDUAL_BOUND


def test_flat_mean_expands_to_a_flat_picture() -> None:
    """The low filters sum to 362 / 512, about 1 / sqrt 2, at both phases: ten merges for luma, eight for chroma."""
    levels = [np.zeros_like(level) for level in random_levels(0, 32, 32, 1)]
    levels[4][0, 9:, 0, 0] = (60, 20, -10)
    out = expand_grid(tensors(levels), torch.full((2, 6), 100.0))[0]
    value = [6000, 2000, -1000]
    for step in range(10):
        value = [(v * 362 + 256) >> 9 if p == 0 or step < 8 else v for p, v in enumerate(value)]
    assert value == [187, 125, -62]
    assert out[:4].unique().tolist() == [187.0]
    assert out[4].unique().tolist() == [125.0]
    assert out[5].unique().tolist() == [-62.0]


def test_zero_grid_is_zero() -> None:
    levels = [np.zeros_like(level) for level in random_levels(0, 35, 21, 1)]
    assert not expand_grid(tensors(levels), torch.full((2, 6), 939.0)).any()


def test_channels_belong_to_their_planes() -> None:
    for k, channels in enumerate(APPEARANCE_CHANNELS):
        for c in range(channels):
            levels = [np.zeros_like(level) for level in random_levels(0, 64, 64, 1)]
            levels[k][0, c, 0, 0] = 50
            out = expand_grid(tensors(levels), torch.full((2, 6), 200.0))[0]
            plane = c - 9 if c >= 9 else c // 3
            touched = [bool(out[:4].any()), bool(out[4].any()), bool(out[5].any())]
            assert touched == [p == plane for p in range(3)], (k, c)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40))
def test_expansion_is_linear_but_for_rounding(seed: int, width: int, height: int) -> None:
    """Each merge rounds by 1/2 at most; gains of the filters below 1 (low) and 1.16 (high) make that less than 7."""
    a, b = random_levels(seed, width, height, 2), random_levels(seed + 1, width, height, 2)
    gains = torch.full((2, 6), 5.0)
    parts = [expand_grid(tensors(levels), gains) for levels in (a, b)]
    whole = [x + y for x, y in zip(a, b, strict=True)]
    assert (expand_grid(tensors(whole), gains) - sum(parts)).abs().max() < 3 * 7
    real = [expand_grid(tensors(levels), gains, Rounding.NONE) for levels in (a, b, whole)]
    assert torch.allclose(real[0] + real[1], real[2], atol=1e-3)
    assert (real[0] - parts[0]).abs().max() < 7


@pytest.mark.parametrize("rounding", list(Rounding))
@pytest.mark.parametrize("size", [(1, 1), (5, 2), (4, 10), (41, 67)])
def test_compiled_synthesis_is_that_of_convolutions(size: tuple[int, int], rounding: Rounding) -> None:
    """The integers are the same, gradients to rounding errors."""
    generator = torch.Generator().manual_seed(5)
    rows, columns = (size[0] + 1) // 2, (size[1] + 1) // 2
    low = (torch.randn(3, rows, columns, generator=generator) * 800).round().requires_grad_()
    bands = (torch.randn(3, 3, rows, columns, generator=generator) * 200).round().requires_grad_()
    out = wavelet._synthesise(low, bands, size, rounding)
    expected = wavelet._synthesise_anywhere(low, bands, size, rounding)
    assert torch.allclose(out, expected, rtol=0, atol=1e-3 if rounding is Rounding.NONE else 0)
    if rounding is not Rounding.EXACT:
        slopes = torch.randn(out.shape, generator=generator)
        for one, other in zip(
            torch.autograd.grad(out, [low, bands], slopes),
            torch.autograd.grad(expected, [low, bands], slopes),
            strict=True,
        ):
            assert torch.allclose(one, other, atol=1e-5)


def test_gradient_reaches_every_symbol() -> None:
    """But for the high samples that would stand behind the end of a line of odd length."""
    geometry = FrameGeometry(35, 21)
    levels = [level.requires_grad_() for level in tensors(random_levels(3, 35, 21, 1))]
    out = expand_grid(levels, torch.full((2, 6), 8.0), Rounding.STRAIGHT_THROUGH)
    weights = torch.from_numpy(np.random.default_rng(0).normal(size=out.shape)).float()
    for k, gradient in enumerate(torch.autograd.grad((out * weights).sum(), levels)):
        rows, columns = sizes(geometry)[k - 1] if k else (22, 36)
        reached = torch.ones(gradient.shape, dtype=torch.bool)
        for c in range(min(len(gradient[0]), 9)):
            if rows % 2 and c % 3 > 0:
                reached[:, c, -1] = False
            if columns % 2 and c % 3 != 1:
                reached[:, c, :, -1] = False
        assert torch.equal(gradient != 0, reached)


@pytest.mark.parametrize("level", range(5))
def test_a_symbol_has_the_energy_of_its_gain(level: int) -> None:
    """The bands are orthonormal to a few percent: the encoder decides symbols one by one on that ground."""
    levels = [np.zeros_like(x) for x in random_levels(0, 256, 256, 1)]
    for c in range(3):
        symbols = [x.copy() for x in levels]
        symbols[level][0, c, 2, 3] = 1
        out = expand_grid(tensors(symbols), torch.full((2, 6), 400.0), Rounding.NONE)
        assert out.square().sum().sqrt().item() == pytest.approx(400, rel=0.12)


# What a program sees of it


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 39), st.integers(1, 39), st.sampled_from([2, SYMBOL_BOUND]))
def test_planes_on_the_way_are_in_the_measure_of_samples(seed: int, width: int, height: int, largest: int) -> None:
    levels, gains = random_levels(seed, width, height, largest, batch=2), [[40, 30, 50, 60, 70, 90]] * 2
    planes = residual_planes(tensors(levels), torch.tensor(gains).float())
    assert sorted(planes) == list(range(APPEARANCE_LEVELS))
    for b in range(2):
        one = [level[b] for level in levels]
        assert np.array_equal(planes[0][b].numpy(), reference_expansion(one, gains))
        for k, images in enumerate(reference_images(one, gains)[2:], 1):
            shifts = (k + 1, k, k)
            expected = np.stack([(x + (1 << s - 1)) >> s for x, s in zip(images, shifts, strict=True)])
            assert np.array_equal(planes[k][b].numpy(), np.clip(expected, -RESIDUAL_BOUND, RESIDUAL_BOUND)), k


def test_a_flat_grid_is_as_bright_at_every_level() -> None:
    levels = [np.zeros_like(level) for level in random_levels(0, 64, 64, 1)]
    levels[4][0, 9:] = np.array([60, 20, -10])[:, None, None]
    planes = residual_planes(tensors(levels), torch.full((2, 6), 100.0))
    for k in range(1, APPEARANCE_LEVELS):
        for plane, value in zip(planes[k][0], (187, 125, -62), strict=True):
            assert (plane - value).abs().max() <= 1, k


# Gains


def test_gains_of_a_unit_are_no_finer_than_the_least() -> None:
    luma, chroma = Quantiser((0, 10, 20, 63, 5, 2)).gains(12).tolist()
    assert luma == [11, 11, 23, 939, 11, 11]
    assert chroma == [8, 8, 16, 664, 8, 8]
    assert Quantiser().gains(0).tolist() == [[4] * 6] * 2
    assert Quantiser().gains(63).tolist() == [[939] * 6, [664] * 6]


def test_channels_have_the_gain_of_their_level_and_plane() -> None:
    gains = torch.arange(12.0).reshape(2, 6)
    assert channel_gains(gains, 0).flatten().tolist() == [0, 0, 0]
    assert channel_gains(gains, 2).flatten().tolist() == [2] * 3 + [8] * 6
    assert channel_gains(gains, 4).flatten().tolist() == [4] * 3 + [10] * 6 + [5, 11, 11]


# Coding


def test_the_quantiser_comes_back() -> None:
    writer, given_ = SymbolWriter(), Quantiser((0, 63, 1, 17, 32, 5))
    assert Quantiser.code(writer, given_) == given_
    reader = SymbolReader(writer.finish())
    assert Quantiser.code(reader, None) == given_
    reader.finish()


def coded_side(width: int, height: int) -> AppearanceSide:
    generator, geometry = torch.Generator().manual_seed(1), FrameGeometry(width, height)
    shape = (2, 6, *geometry.half)
    prediction = (torch.rand(shape, generator=generator) * 1023).round()
    return AppearanceSide(prediction, (torch.randn(shape, generator=generator) * 20).round(), geometry)


@pytest.mark.parametrize("largest", [1, SYMBOL_BOUND])
def test_levels_come_back(largest: int) -> None:
    side = coded_side(70, 42)
    rng = np.random.default_rng(3)
    given_ = [x * (rng.random(x.shape) < 0.1) for x in random_levels(3, 70, 42, largest, batch=2)]
    given_[1][0] = 0  # nothing in a level of a frame
    writer, bits = SymbolWriter(), []
    code_appearance(writer, tensors(given_), side, 2, 3, bits)
    rates, _ = level_costs(tensors(given_), side, appearance_context(), 3)
    expected = [float(rate.bits.sum()) for rate in rates][::-1]
    assert bits == pytest.approx(expected, rel=0.05)
    assert sum(bits) == pytest.approx(sum(expected), rel=0.01)
    assert sum(bits) == pytest.approx(writer.bits)
    read_bits: list[float] = []
    reader = SymbolReader(writer.finish())
    levels = code_appearance(reader, None, side, 2, 3, read_bits)
    reader.finish()
    assert all(np.array_equal(level.numpy(), x) for level, x in zip(levels, given_, strict=True))
    assert read_bits == pytest.approx(bits, rel=1e-3)


def test_empty_levels_cost_a_flag_each() -> None:
    writer, bits = SymbolWriter(), []
    code_appearance(writer, empty_levels(2, FrameGeometry(70, 42)), coded_side(70, 42), 2, 0, bits)
    assert bits == [2.0] * APPEARANCE_LEVELS


def test_bands_look_at_their_plane_and_at_their_kind() -> None:
    layout = appearance_layout(4)
    assert layout.groups == (0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3)
    related = [[other for other in range(12) if other != c and layout.related(c, other)] for c in range(12)]
    assert related[0] == [1, 2, 3, 6, 9]
    assert related[4] == [1, 3, 5, 7, 10]
    assert related[11] == [2, 5, 8, 9, 10]


def test_what_is_known_before_a_symbol() -> None:
    """Mismatch and activity of luma alone, and the magnitudes at the coarser level."""
    geometry = FrameGeometry(16, 16)
    prediction, difference = torch.zeros(1, 6, *geometry.half), torch.zeros(1, 6, *geometry.half)
    prediction[:, 0, 3, 3], difference[:, 1, 5, 6], difference[:, 4:] = 8, -15, 500
    side = AppearanceSide(prediction, difference, geometry)
    mismatch, activity = side.fixed(0)[0]
    assert mismatch.nonzero().tolist() == [[5, 6]]
    assert mismatch[5, 6] == 64  # 16 log2(1 + 15)
    assert activity.nonzero().tolist() == [[3, 3], [3, 4], [4, 3]]
    coarser = torch.zeros(1, 9, 4, 4)
    coarser[0, 2, 1, 1] = 1
    found = side(0, [coarser])[0]
    assert found.shape == (5, 8, 8)
    assert not found[:2].any()
    assert torch.equal(found[3:], side.fixed(0)[0])
    assert found[2, 2:4, 2:4].unique().tolist() == [round(16 * np.log2(37))]  # four times nine
    assert found[2, 0, 0] == round(16 * np.log2(5))


# The context model


def test_the_file_of_the_context_model() -> None:
    count = sum(int(np.prod(shape)) for shape in CONTEXT_SHAPES.values())
    made = context_of(np.arange(count, dtype="<i2").tobytes())
    assert torch.equal(torch.cat([getattr(made, name).flatten() for name in CONTEXT_SHAPES]), torch.arange(count))
    found = appearance_context()
    assert {name: getattr(found, name).shape for name in CONTEXT_SHAPES} == CONTEXT_SHAPES
    assert len(found.output_bias) == MAX_DEPTH + 1


def test_the_context_model_is_exact() -> None:
    """Sums stay within what float32 holds, whatever the features are."""
    found = appearance_context()
    inputs = found.hidden.abs().sum(1) * 255 + 64 * found.hidden_bias.abs().amax(0)
    assert inputs.max() < 2**24
    biases = (found.output_bias.abs().amax((0, 1)) + found.group_bias.abs().amax((0, 1))) * 64
    assert (found.output.abs().sum(1) * 1023 + biases).max() < 2**24
