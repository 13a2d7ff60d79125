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
    fit.rescale(2**0.5)
    for level in fit.grids[0].appearance:
        assert float(level.abs().max()) == SYMBOL_BOUND
        assert torch.equal(level, level.round())
