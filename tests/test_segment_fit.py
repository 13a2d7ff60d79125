"""A segment between the passes of the encoder."""

from __future__ import annotations

import torch

from nvcodec.encoder.segment import SegmentFit, SegmentSource
from nvcodec.model.grid import SYMBOL_BOUND, FrameGeometry


def test_symbols_stay_codable_when_gains_shrink() -> None:
    """Smaller gains ask for larger symbols; those beyond the alphabet cannot be coded."""
    geometry = FrameGeometry(32, 16)
    fit = SegmentFit(SegmentSource(torch.full((2, 6, *geometry.half), 512.0), geometry, 1))
    for level in fit.grids[0].appearance:
        level += torch.linspace(-SYMBOL_BOUND, SYMBOL_BOUND, level.numel()).round().reshape(level.shape)
    gains = torch.full((8, 6), 20.0)
    fit.rescale(gains, gains - 2)
    for level in fit.grids[0].appearance:
        assert float(level.abs().max()) == SYMBOL_BOUND
        assert torch.equal(level, level.round())


def test_symbols_follow_the_gain_of_their_own_level_and_depth() -> None:
    """Gains at their limit stay while others move; then the symbols that they scale have to stay too."""
    geometry = FrameGeometry(64, 64)
    fit = SegmentFit(SegmentSource(torch.full((2, 6, *geometry.half), 512.0), geometry, 1))
    for grid in fit.grids:
        for level in grid.appearance:
            level += 4
    before = torch.full((8, 6), 24.0)
    after = before.clone()
    after[0, 5] += 2
    after[1, 0] -= 2
    fit.rescale(before, after)
    key, other = (grid.appearance for grid in fit.grids)
    assert torch.equal(key[4][:, 9:], torch.full_like(key[4][:, 9:], 3.0))
    assert torch.equal(other[0], torch.full_like(other[0], 5.0))
    for level in (*key[:4], key[4][:, :9], *other[1:]):
        assert torch.equal(level, torch.full_like(level, 4.0))


def test_residual_starts_anew_where_the_gain_moved_far() -> None:
    """Most symbols are 1: at a step half as large again, or more, they would stay 1 and be that much too large."""
    geometry = FrameGeometry(32, 32)
    fit = SegmentFit(SegmentSource(torch.full((2, 6, *geometry.half), 512.0), geometry, 1))
    for grid in fit.grids:
        for level in grid.appearance:
            level += 1
    before = torch.full((8, 6), 24.0)
    after = before.clone()
    after[1] += 5
    fit.rescale(before, after)
    assert all(bool(level.all()) for level in fit.grids[0].appearance)
    assert not any(bool(level.any()) for level in fit.grids[1].appearance)
