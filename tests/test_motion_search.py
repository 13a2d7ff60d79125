"""The encoder's motion search: what it finds, and that searching again makes nothing worse."""

from __future__ import annotations

from functools import partial
from inspect import signature
from typing import Any

import pytest
import torch

from nvcodec.core.gop import CodedFrame
from nvcodec.encoder import motion_kernels
from nvcodec.encoder.motion_search import LevelPrice, search_motion
from nvcodec.encoder.rate import laplace_bits
from nvcodec.motion.levels import MOTION_LEVELS, FrameGeometry, motion_layout
from nvcodec.motion.prediction import MotionPrediction, add_grid_motion
from nvcodec.motion.warp import Reference, unpack_luma

GEOMETRY = FrameGeometry(96, 64)
FRAME = CodedFrame(4, 1, (0,))
LAMBDA = 20.0
EVEN = torch.ones(GEOMETRY.blocks)


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
    return [LevelPrice(torch.zeros_like(x), torch.full_like(x, 20.0)) for x in empty()]


def two_motions(source: Reference) -> tuple[torch.Tensor, torch.Tensor]:
    """A field with an edge that no coarse cell follows, and the picture that it makes of ``source``."""
    field = torch.zeros(2, *GEOMETRY.blocks)
    field[0], field[1] = 6, -10
    field[:, :5, :5] = torch.tensor([-9.0, 13.0])[:, None, None]
    return field, source.warp(field)


def test_finds_the_vectors_of_two_motions() -> None:
    source = reference()
    field, target = two_motions(source)
    levels = search_motion(target, (source,), at_rest(), FRAME, empty(), LAMBDA, prices(), EVEN)
    (found,), _ = add_grid_motion(at_rest().fields, levels, FRAME.distances)
    assert ((found - field).abs().amax(0) <= 1).float().mean() > 0.9
    merges = sum(int((levels[k][2] != 0).sum()) for k in (0, 1))
    assert merges > 0
    error = (source.warp(found) - target).square().mean()
    assert error < 0.02 * (source.packed - target).square().mean()


def test_starts_again_from_what_it_found() -> None:
    """A second search of the same frame, with no more than the symbols of the first, loses nothing."""
    source = reference()
    _, target = two_motions(source)
    first = search_motion(target, (source,), at_rest(), FRAME, empty(), LAMBDA, prices(), EVEN)
    again = search_motion(target, (source,), at_rest(), FRAME, first, LAMBDA, prices(), EVEN)
    assert cost(source, target, again) <= 1.01 * cost(source, target, first)


def test_a_visit_that_is_left_out_would_have_changed_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sweeps in one go find what two single ones find, of which the second knows nothing of the first's visits."""
    source = reference()
    generator = torch.Generator().manual_seed(4)
    field = torch.randint(-12, 13, (2, *GEOMETRY.blocks), generator=generator).float()
    target = source.warp(field) + torch.randn(source.packed.shape, generator=generator) * 25
    given = (target.clamp(0, 1023).round(), (source,), at_rest(), FRAME, empty(), LAMBDA, prices(), EVEN)
    together = search_motion(*given)
    in_one_go, parameters = motion_kernels.search_cells, list(signature(motion_kernels.search_cells.py_func).parameters)
    seeds, sweeps = parameters.index("seeds"), parameters.index("sweeps")

    def one_by_one(most: int, *arguments: Any) -> None:
        changed = list(arguments)
        changed[sweeps] = 1
        for _ in range(min(arguments[sweeps], most)):
            in_one_go(*changed)
            changed[seeds] = changed[seeds][:0]

    for most, is_equal in ((2, True), (1, False)):
        monkeypatch.setattr(motion_kernels, "search_cells", partial(one_by_one, most))
        found = search_motion(*given)
        assert all(torch.equal(one, other) for one, other in zip(together, found, strict=True)) == is_equal


def cost(source: Reference, target: torch.Tensor, levels: list[torch.Tensor]) -> float:
    (found,), _ = add_grid_motion(at_rest().fields, levels, FRAME.distances)
    error = float((source.warp_luma(found) - unpack_luma(target[:4])).square().sum()) / 16
    bits = sum(float(laplace_bits(x, p.location, p.scale).sum()) for x, p in zip(levels, prices(), strict=True))
    return error + LAMBDA * bits


def test_two_references_meet_in_the_middle() -> None:
    """What moves steadily between two references is found without a correction where the prediction is right, and
    with one where it is not."""
    source = reference()
    steady = torch.full((2, *GEOMETRY.blocks), 4.0)
    target = source.warp(steady)
    after = Reference(source.warp(2 * steady))
    frame = CodedFrame(2, 2, (0, 4))
    empties = [torch.zeros(len(motion_layout(2, k)), *GEOMETRY.motion_size(k)) for k in range(MOTION_LEVELS)]
    priced = [LevelPrice(torch.zeros_like(x), torch.full_like(x, 20.0)) for x in empties]
    right = MotionPrediction((steady, -steady), steady[:1] * 0)
    levels = search_motion(target, (source, after), right, frame, empties, LAMBDA, priced, EVEN)
    assert not any(bool(level[:4].any()) for level in levels)
    wrong = MotionPrediction((0 * steady, 0 * steady), steady[:1] * 0)
    levels = search_motion(target, (source, after), wrong, frame, empties, LAMBDA, priced, EVEN)
    (first, _), _ = add_grid_motion(wrong.fields, levels, frame.distances)
    assert ((first - steady).abs().amax(0) <= 1).float().mean() > 0.9


def test_vectors_are_worth_their_bits_by_the_importance_of_their_blocks() -> None:
    """The region that moves by itself is found where its errors weigh much, and not where they weigh nothing."""
    source = reference()
    field, target = two_motions(source)
    for weight, found_there in ((10.0, True), (1e-6, False)):
        importance = EVEN.clone()
        importance[:5, :5] = weight
        levels = search_motion(target, (source,), at_rest(), FRAME, empty(), LAMBDA, prices(), importance)
        (found,), _ = add_grid_motion(at_rest().fields, levels, FRAME.distances)
        right = (found - field).abs().amax(0) <= 1
        assert right[6:, 6:].float().mean() > 0.9
        assert (right[:4, :4].float().mean() > 0.9) == found_there
