"""The wavelet transform of the encoder: what the grid undoes, at the borders too, and what each symbol weighs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcodec.core.fixedpoint import Rounding
from nvcodec.core.quantiser import CHROMA_GAIN_STEPS
from nvcodec.grid.encoder.transform import Reach, amplitudes, image_energies, symbol_energies
from nvcodec.grid.levels import APPEARANCE_CHANNELS, APPEARANCE_LEVELS, BANDS, appearance_shapes, empty_levels
from nvcodec.grid.wavelet import BAND_BOUND, expand_grid, expand_steps
from nvcodec.motion.levels import SYMBOL_BOUND, FrameGeometry

ONE = torch.ones(2, 6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 50), st.integers(1, 50))
def test_the_grid_undoes_the_transform(seed: int, width: int, height: int) -> None:
    """But for the rounding of the synthesis taps to 1/512."""
    geometry = FrameGeometry(width, height)
    residual = torch.from_numpy(np.random.default_rng(seed).normal(0, 50, (2, 6, *geometry.half))).float()
    levels = amplitudes(residual)
    assert [tuple(level.shape[1:]) for level in levels] == appearance_shapes(geometry)
    assert (expand_grid(levels, ONE, Rounding.NONE) - residual).abs().max() < 2


def test_the_ends_of_a_line_have_nothing_to_do_with_each_other() -> None:
    """A ramp jumps where it would go on from its end to its beginning: no symbol may have to say so."""
    ramp = torch.linspace(-400, 400, 128)
    residual = (ramp[None, :] + torch.zeros(64, 1)).expand(1, 6, -1, -1)
    bands = amplitudes(residual)[1][:, :BANDS]
    assert bands.abs().max() < 25


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1, 2000), st.integers(0, 5), st.integers(0, APPEARANCE_LEVELS))
def test_the_least_gains_reach_what_matters(seed: int, size: float, plane: int, k: int) -> None:
    """What is lost beyond the largest symbol, counted symbol by symbol, is little with the least gain of a level, and
    much with the one below it."""
    rng = np.random.default_rng(seed)
    residual = torch.zeros(2, 6, 16, 24)
    residual[:, plane] = torch.from_numpy(rng.normal(rng.normal(0, size), size, (2, 16, 24)))
    reach = Reach.of(residual) + Reach.of(0 * residual)
    levels = amplitudes(residual)
    level = levels[k][:, :BANDS] if k < APPEARANCE_LEVELS else levels[-1][:, BANDS:]
    planes = level.abs().clamp(max=BAND_BOUND).unflatten(1, (3 if k else 1, -1))
    assert reach.count[k] == 2 * planes.numel()

    def is_little(index: int) -> bool:
        gains = 4 * 2 ** ((index - torch.tensor([0.0, *2 * [CHROMA_GAIN_STEPS]])) / 8)[: planes.shape[1]]
        beyond = (planes / gains.reshape(1, -1, 1, 1, 1) - SYMBOL_BOUND).clamp(min=0)
        return float(beyond.square().sum()) <= 0.1 / 12 * 2 * planes.numel() * 1.001

    least = int(reach.least_gains()[k])
    assert is_little(least)
    assert not least or not is_little(least - 1)


@pytest.mark.parametrize("half", [(40, 64), (21, 35), (3, 2), (1, 1)])
def test_energies_are_those_of_the_expanded_symbols(half: tuple[int, int]) -> None:
    geometry = FrameGeometry(2 * half[1], 2 * half[0])
    energies, rng = symbol_energies(half), np.random.default_rng(1)
    for k, channels in enumerate(APPEARANCE_CHANNELS):
        _, rows, columns = appearance_shapes(geometry)[k]
        assert energies[k].shape == (channels, rows, columns)
        for c in range(channels):
            for y, x in ((0, 0), (rows - 1, columns - 1), (int(rng.integers(rows)), int(rng.integers(columns)))):
                levels = empty_levels(1, geometry)
                levels[k][0, c, y, x] = 1
                found = float(expand_grid(levels, ONE, Rounding.NONE).square().sum())
                assert float(energies[k][c, y, x]) == pytest.approx(found, rel=1e-3, abs=1e-5)


def test_energies_of_images_are_those_of_their_samples() -> None:
    """The finest image is the picture itself; each coarser one is what the means would be with fewer levels."""
    half = (24, 32)
    images, symbols = image_energies(half), symbol_energies(half)
    assert torch.equal(images[0], torch.ones(1, 48, 64))
    assert torch.equal(images[1][1:], torch.ones(2, 24, 32))
    assert torch.equal(images[-1], symbols[-1][BANDS:])
    shapes = [image.shape[1:] for image in expand_steps([level[None] for level in symbols], ONE, Rounding.NONE)]
    assert [image.shape for image in images] == shapes
