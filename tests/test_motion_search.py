"""The encoder's motion search: what it finds, and that its last step makes nothing worse."""

from __future__ import annotations

import pytest
import torch

from nvcodec.encoder.motion_search import LevelPrice, _Search, search_motion
from nvcodec.gop import CodedFrame
from nvcodec.model.grid import MOTION_LEVELS, FrameGeometry, merge_channel, motion_layout
from nvcodec.model.motion import MotionPrediction, add_grid_motion
from nvcodec.model.warp import Reference

GEOMETRY = FrameGeometry(96, 64)
FRAME = CodedFrame(4, 1, (0,))
LAMBDA = 20.0


def reference() -> Reference:
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(1, 6, 12, 16, generator=generator) * 1023
    smooth = torch.nn.functional.interpolate(coarse, size=GEOMETRY.half, mode="bicubic")[0]
    return Reference(smooth.clamp(0, 1023).round())


def at_rest() -> MotionPrediction:
    zero = torch.zeros(2, *GEOMETRY.blocks)
    return MotionPrediction((zero,), zero[:1])


def empty() -> list[torch.Tensor]:
    return [torch.zeros(len(motion_layout(1, k)), *GEOMETRY.motion_size(k)) for k in range(MOTION_LEVELS)]


def prices() -> list[LevelPrice]:
    return [
        LevelPrice(torch.zeros_like(x), torch.full_like(x, 20.0), merge_channel(1, k)) for k, x in enumerate(empty())
    ]


def two_motions(source: Reference) -> tuple[torch.Tensor, torch.Tensor]:
    """A field with an edge that no coarse cell follows, and the picture that it makes of ``source``."""
    field = torch.zeros(2, *GEOMETRY.blocks)
    field[0], field[1] = 6, -10
    field[:, :5, :5] = torch.tensor([-9.0, 13.0])[:, None, None]
    return field, source.warp(field)


def test_finds_the_vectors_of_two_motions() -> None:
    source = reference()
    field, target = two_motions(source)
    levels = search_motion(target, (source,), at_rest(), FRAME, empty(), LAMBDA, prices())
    (found,), _ = add_grid_motion(at_rest().fields, levels, FRAME.distances)
    assert ((found - field).abs().amax(0) <= 1).float().mean() > 0.9
    merges = sum(int((levels[k][2] != 0).sum()) for k in (0, 1))
    assert merges > 0
    error = (source.warp(found) - target).square().mean()
    assert error < 0.02 * (source.packed - target).square().mean()


@pytest.mark.parametrize("spoiled", [(0, 0), (3, 4), (7, 11)])
def test_polishing_mends_a_vector(spoiled: tuple[int, int]) -> None:
    source = reference()
    _, target = two_motions(source)
    levels = search_motion(target, (source,), at_rest(), FRAME, empty(), LAMBDA, prices())
    levels[0][:2, *spoiled] += 2
    search = _Search(target, (source,), at_rest(), FRAME, levels, LAMBDA, prices())
    before = search._overlapped_cost(levels[0])[spoiled]
    search.polish()
    assert search._overlapped_cost(search.levels[0])[spoiled] < before
