"""Motion from the references' motion states, and the grid's corrections."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcodec.motion.levels import MOTION_LEVELS, FrameGeometry, motion_layout
from nvcodec.motion.prediction import (
    MERGE_SYMBOLS,
    VECTOR_BOUND,
    MotionPrediction,
    MotionState,
    _Agreement,
    add_grid_motion,
    grid_vectors,
    merge_unrest,
    predict_motion,
    scale_vectors,
)
from nvcodec.motion.warp import SAMPLE_MAX, Reference, pack_luma

distance = st.integers(1, 64).flatmap(lambda d: st.sampled_from([d, -d]))

# Scaling


@settings(deadline=None)
@given(st.lists(st.integers(-VECTOR_BOUND, VECTOR_BOUND), min_size=1, max_size=30), distance, distance)
def test_scaling_is_that_of_fractions(values: list[int], numerator: int, denominator: int) -> None:
    got = scale_vectors(torch.tensor(values, dtype=torch.float32), numerator, denominator)
    exact = [math.floor(Fraction(v * numerator, denominator) + Fraction(1, 2)) for v in values]
    assert got.tolist() == [min(max(v, -VECTOR_BOUND), VECTOR_BOUND) for v in exact]
    assert got.dtype == torch.float32


@pytest.mark.parametrize(
    ("value", "numerator", "denominator", "expected"),
    [(5, 1, 2, 3), (-5, 1, 2, -2), (5, -1, 2, -2), (5, 1, -2, -2), (7, 3, 3, 7), (-4, 1, 3, -1), (2047, 64, 1, 2047)],
)
def test_scaling_rounds_halves_up(value: int, numerator: int, denominator: int, expected: int) -> None:
    assert scale_vectors(torch.tensor([float(value)]), numerator, denominator).item() == expected


# Prediction

GEOMETRY = FrameGeometry(96, 64)
NO_MOTION = MotionState((), ())


def field(y: float, x: float, geometry: FrameGeometry = GEOMETRY) -> torch.Tensor:
    return torch.tensor([y, x])[:, None, None].expand(2, *geometry.blocks).clone()


def picture(shift: int, geometry: FrameGeometry = GEOMETRY, seed: int = 2) -> Reference:
    """A window into a wide smooth random texture, ``shift`` samples from its left edge."""
    h, w = geometry.half
    texture = torch.rand(1, 1, 2 * h + 8, 2 * w + 64, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.avg_pool2d(texture, 5, 1)[0, 0]
    levels = ((smooth - smooth.min()) / (smooth.max() - smooth.min()) * 1023).round()
    luma = levels[: 2 * h, shift : shift + 2 * w]
    return Reference(torch.cat([pack_luma(luma), torch.full((2, h, w), 512.0)]))


def pan(distances: tuple[int, int] = (-2, 2), speed: int = 3) -> MotionPrediction:
    """Prediction half-way in a scene that moves left by ``speed`` samples a frame; the second reference knows it."""
    span = distances[1] - distances[0]
    first, second = picture(0), picture(speed * span)
    state = MotionState((field(0, 4.0 * speed * span),), (-span,))  # the content lies further right in the past
    return predict_motion((first, second), (NO_MOTION, state), distances, GEOMETRY)


def test_pan_is_predicted_from_the_state() -> None:
    """Two frames back the content lies 6 samples (24 quarters) to the right, two frames on 6 to the left."""
    prediction = pan()
    inside = (slice(None), slice(1, -1), slice(2, -2))
    assert torch.equal(prediction.fields[0][inside], field(0, 24.0)[inside])
    assert torch.equal(prediction.fields[1][inside], field(0, -24.0)[inside])
    assert not prediction.disagreement[inside].any()
    assert prediction.disagreement.shape == (1, *GEOMETRY.blocks)


def test_state_is_scaled_by_the_distance() -> None:
    prediction = pan((-1, 3), speed=2)
    inside = (slice(None), slice(1, -1), slice(2, -3))
    assert torch.equal(prediction.fields[0][inside], field(0, 8.0)[inside])
    assert torch.equal(prediction.fields[1][inside], field(0, -24.0)[inside])


def test_wrong_candidate_loses_against_rest() -> None:
    still = picture(10)
    state = MotionState((field(40, -56),), (-4,))
    prediction = predict_motion((still, still), (NO_MOTION, state), (-2, 2), GEOMETRY)
    assert not any(f.any() for f in prediction.fields)
    assert not prediction.disagreement.any()


def test_at_rest_only_the_disagreement_is_left() -> None:
    found = pan()
    rest = found.at_rest()
    assert torch.equal(rest.disagreement, found.disagreement)
    assert len(rest.fields) == 2
    assert found.fields[0].any()
    assert not any(f.any() for f in rest.fields)


def test_prediction_is_a_function() -> None:
    once, again = pan(), pan()
    for a, b in zip((*once.fields, once.disagreement), (*again.fields, again.disagreement), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, a.round())


def test_one_reference_predicts_no_motion() -> None:
    state = MotionState((field(-3, 10), field(9, 9)), (-2, 2))
    prediction = predict_motion((picture(0),), (state,), (-4,), GEOMETRY)
    assert len(prediction.fields) == 1
    assert not prediction.fields[0].any()
    assert not prediction.disagreement.any()


def test_one_reference_without_motion_predicts_rest() -> None:
    prediction = predict_motion((picture(0),), (NO_MOTION,), (-1,), GEOMETRY)
    assert torch.equal(prediction.fields[0], field(0, 0))


@pytest.mark.parametrize("size", [(1, 1), (35, 21), (8, 8), (9, 17)])
def test_prediction_at_odd_sizes(size: tuple[int, int]) -> None:
    geometry = FrameGeometry(*size)
    references = (picture(0, geometry), picture(5, geometry, seed=4))
    states = (NO_MOTION, MotionState((field(2047, -2047, geometry),), (-1,)))
    prediction = predict_motion(references, states, (-1, 1), geometry)
    assert [f.shape for f in prediction.fields] == [(2, *geometry.blocks)] * 2
    assert all(f.abs().max() <= VECTOR_BOUND for f in prediction.fields)


# The grid's corrections


def levels(geometry: FrameGeometry, references: int, value: float = 0.0) -> list[torch.Tensor]:
    return [
        torch.full((len(motion_layout(references, k)), *geometry.motion_size(k)), value) for k in range(MOTION_LEVELS)
    ]


def test_levels_add_up() -> None:
    """Blocks 3x5; level 1 is 2x3, level 2 is 1x2: each sample covers 2x2 and 4x4 blocks, cropped."""
    geometry = FrameGeometry(35, 21)
    grid = levels(geometry, 1)
    grid[0][0, 2, 4] = 1
    grid[1][0] = torch.tensor([[10.0, 20, 30], [40, 50, 60]])
    grid[2][0] = torch.tensor([[100.0, 200]])
    (out,), blend = add_grid_motion((torch.zeros(2, 3, 5),), grid, (-1,))
    assert out[0].tolist() == [[110, 110, 120, 120, 230], [110, 110, 120, 120, 230], [140, 140, 150, 150, 261]]
    assert not out[1].any()
    assert torch.equal(blend, torch.ones(1, 3, 5))


def test_merge_choices_take_over_neighbours() -> None:
    """Level 1 is 2x3; the block in row 2, column 3 lies in the upper right quarter of cell (1, 1): its neighbours are
    the cells above and to the right."""
    geometry = FrameGeometry(48, 32)
    grid = levels(geometry, 1)
    grid[1][0] = torch.tensor([[10.0, 20, 30], [40, 50, 60]])
    found = {}
    for choice in (0, 1, -1, 2, -2, 7):
        grid[0][2, 2, 3] = choice
        (out,), _ = add_grid_motion((torch.zeros(2, 4, 6),), grid, (-1,))
        found[choice] = out[0, 2, 3].item()
        out[0, 2, 3] = 50
        assert out[0].tolist() == [[10, 10, 20, 20, 30, 30]] * 2 + [[40, 40, 50, 50, 60, 60]] * 2
    assert found == {0: 50, 1: 20, -1: 60, 2: 30, -2: 30, 7: 30}


def test_merge_candidates_stop_at_the_border() -> None:
    """Above, below, beside and in the corner of each cell of 2x2, for blocks of 3x4."""
    coarser = torch.tensor([[[[1.0, 2], [3, 4]]]])
    by_choice = [grid_vectors([torch.full((1, 2, 3, 4), c) * torch.tensor([0.0, 1])[:, None, None], coarser])
                 for c in MERGE_SYMBOLS]  # fmt: skip
    found = torch.cat(by_choice)[:, 0]
    assert found[:, 0, 0].tolist() == [1, 1, 1, 1]
    assert found[:, 1, 0].tolist() == [1, 3, 1, 3]
    assert found[:, 1, 1].tolist() == [1, 3, 2, 4]
    assert found[:, 2, 3].tolist() == [4, 2, 4, 2]


def test_unrest_is_how_far_the_candidates_lie_apart() -> None:
    coarsest = torch.tensor([[[[0.0, 8]], [[0, 0]]]])
    assert merge_unrest([coarsest], (1, 4)).flatten().tolist() == [0, 16, 16, 0]


def test_common_and_own_corrections_of_two_references() -> None:
    geometry = FrameGeometry(8, 8)
    grid = levels(geometry, 2)
    grid[0][:, 0, 0] = torch.tensor([4.0, -5, 1, 2, 0, 0])
    grid[1][:, 0, 0] = torch.tensor([2.0, 0, 0, 10, 0])
    predicted = (torch.full((2, 1, 1), 100.0), torch.full((2, 1, 1), -50.0))
    (first, second), blend = add_grid_motion(predicted, grid, (-2, 3))
    assert first.flatten().tolist() == [106, 95]
    assert second.flatten().tolist() == [-50 - 9 + 1, -50 + 8 + 12]  # 6 * -3/2 = -9; -5 * -3/2 = 7.5, up to 8
    assert blend.tolist() == [[[0.0]]]


@pytest.mark.parametrize(("value", "expected"), [(-127, -1), (-1, -1), (0, 0), (1, 1), (2, 1), (127, 1)])
def test_blend_is_clipped(value: int, expected: int) -> None:
    grid = levels(FrameGeometry(8, 8), 2)
    grid[0][5] = value
    _, blend = add_grid_motion((torch.zeros(2, 1, 1),) * 2, grid, (-1, 1))
    assert blend.item() == expected


@pytest.mark.parametrize("sign", [-1, 1])
def test_vectors_are_clipped(sign: int) -> None:
    geometry = FrameGeometry(35, 21)
    grid = levels(geometry, 2, 127.0 * sign)
    predicted = (torch.full((2, 3, 5), 2000.0 * sign),) * 2
    (first, second), _ = add_grid_motion(predicted, grid, (3, 3))
    for out in (first, second):
        assert out.shape == (2, 3, 5)
        assert out.unique().tolist() == [VECTOR_BOUND * sign]


@pytest.mark.parametrize("distances", [(-1, 2), (-2, 2)])
@pytest.mark.parametrize("size", [(1, 1), (35, 21), (9, 17), (48, 32)])
@pytest.mark.parametrize("shades", [1, 2, SAMPLE_MAX + 1])
def test_compiled_agreement_is_that_of_tensors(
    size: tuple[int, int], distances: tuple[int, int], shades: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few shades, many ties."""
    geometry = FrameGeometry(*size)
    rng = np.random.default_rng(size[0])
    pictures = torch.from_numpy(rng.integers(0, shades, (2, 6, *geometry.half)) * (SAMPLE_MAX // max(shades - 1, 1)))
    for at_once in (1, 1 << 23):
        monkeypatch.setattr("nvcodec.motion.prediction._AT_ONCE", at_once)
        agreement = _Agreement((Reference(pictures[0].float()), Reference(pictures[1].float())), distances, geometry)
        for reach, count in ((3, 2), (60, 3), (2, 4), (VECTOR_BOUND, 1), (0, 0)):
            start, *candidates = (
                torch.from_numpy(rng.integers(-reach, reach + 1, (2, *geometry.blocks))).float()
                for _ in range(count + 1)
            )
            found, expected = agreement._search_cpu(start, candidates), agreement._search_anywhere(start, candidates)
            assert torch.equal(found[0], expected[0])
            assert torch.equal(found[1], expected[1])
