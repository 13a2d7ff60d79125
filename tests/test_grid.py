"""The residual grid: the wavelet synthesis against the same sums in int64, written out one sample at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcodec.fixedpoint import Rounding
from nvcodec.model import grid
from nvcodec.model.grid import (
    APPEARANCE_CHANNELS,
    APPEARANCE_LEVELS,
    MOTION_LEVELS,
    RESIDUAL_BOUND,
    SYMBOL_BOUND,
    FrameGeometry,
    expand_grid,
)

# Sizes


def test_sizes_of_an_odd_picture() -> None:
    geometry = FrameGeometry(35, 21)
    assert geometry.half == (11, 18)
    assert geometry.blocks == (3, 5)
    assert [geometry.appearance_size(k) for k in range(5)] == [(11, 18), (6, 9), (3, 5), (2, 3), (1, 2)]
    assert [geometry.motion_size(k) for k in range(3)] == [(3, 5), (2, 3), (1, 2)]


def test_smallest_picture_has_one_sample_everywhere() -> None:
    geometry = FrameGeometry(1, 1)
    assert {geometry.appearance_size(k) for k in range(APPEARANCE_LEVELS)} == {(1, 1)}
    assert {geometry.motion_size(k) for k in range(MOTION_LEVELS)} == {(1, 1)}


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


def reference_expansion(levels: list[np.ndarray], gains: list[list[int]]) -> np.ndarray:
    """One frame: levels (C, rows, columns), finest first, to (6, h, w); ``gains`` of luma, and of chroma."""

    def scaled(symbols: np.ndarray, plane: int, level: int) -> np.ndarray:
        return np.clip(symbols * gains[min(plane, 1)][level], -BAND, BAND)

    planes = [scaled(levels[4][9 + p], p, 5) for p in range(3)]
    for k in (4, 3, 2, 1):
        size = levels[k - 1].shape[1:]
        planes = [
            merge_plane(plane, scaled(levels[k][3 * p : 3 * p + 3], p, k), *size) for p, plane in enumerate(planes)
        ]
    h, w = levels[0].shape[1:]
    luma = merge_plane(planes[0], scaled(levels[0], 0, 0), 2 * h, 2 * w)
    packed = [luma[dy::2, dx::2] for dy in (0, 1) for dx in (0, 1)]
    return np.clip(np.stack([*packed, *planes[1:]]), -RESIDUAL_BOUND, RESIDUAL_BOUND)


def random_levels(seed: int, width: int, height: int, largest: int, batch: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    geometry = FrameGeometry(width, height)
    return [
        rng.integers(-largest, largest + 1, (batch, channels, *geometry.appearance_size(k)))
        for k, channels in enumerate(APPEARANCE_CHANNELS)
    ]


def tensors(levels: list[np.ndarray]) -> list[torch.Tensor]:
    return [torch.from_numpy(level).float() for level in levels]


@settings(max_examples=25, deadline=None)
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


@settings(max_examples=25, deadline=None)
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
    out = grid._synthesise(low, bands, size, rounding)
    expected = grid._synthesise_anywhere(low, bands, size, rounding)
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
        rows, columns = geometry.appearance_size(k - 1) if k else (22, 36)
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
