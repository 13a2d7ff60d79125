"""The importance of blocks: what later frames inherit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nvcodec.core.gop import CodedFrame
from nvcodec.encoder.lookahead import FrameForecast, estimated_bits, importance

SIZE = (6, 9)
LAMBDA = 1000.0


def forecast(
    frame: CodedFrame, error: float, vector: tuple[float, float] = (0, 0), blend: int = 1, detail: float = 1e9
) -> FrameForecast:
    field = torch.tensor(vector)[:, None, None].expand(2, *SIZE)
    blends = torch.full(SIZE, float(blend if len(frame.references) == 2 else 1))
    fields = (field,) * len(frame.references)
    return FrameForecast(frame, fields, blends, torch.full(SIZE, error), torch.full(SIZE, detail))


def chain(count: int, error: float) -> list[FrameForecast]:
    """Frames of which each refers to the one before."""
    return [forecast(CodedFrame(t, min(t, 1), (t - 1,) if t else ()), error) for t in range(count)]


def test_a_still_picture_matters_for_all_that_follow() -> None:
    found = importance(chain(10, 0.0), SIZE, LAMBDA)
    for t in range(10):
        assert found[t] == pytest.approx(np.full(SIZE, 10.0 - t), rel=0.02)


def test_nothing_is_inherited_by_what_is_coded_anew() -> None:
    found = importance(chain(5, 1e6), SIZE, LAMBDA)
    assert all(frame == pytest.approx(np.ones(SIZE), rel=0.01) for frame in found.values())


def test_a_flat_block_hands_on_little() -> None:
    """It has no error that is larger than its variance, so noise of that size hides all of it."""
    frames = [CodedFrame(0, 0, ()), CodedFrame(1, 1, (0,))]
    flat, full = (
        importance([forecast(f, 4.0, detail=detail) for f in frames], SIZE, LAMBDA)[0].mean() for detail in (4.0, 1e9)
    )
    assert flat == pytest.approx(1 + 0.5**0.7, abs=0.01)
    assert full > 1.98


def test_a_smaller_lambda_makes_frames_less_dependent() -> None:
    high, low = (importance(chain(5, 50.0), SIZE, lmbda)[0].mean() for lmbda in (1000.0, 100.0))
    assert 1 < low < high < 5


def test_importance_lies_where_a_block_comes_from() -> None:
    """A block that moved by two blocks to the right and a half down; smoothed over 3x3 afterwards."""
    frames = [forecast(CodedFrame(0, 0, ()), 0.0), forecast(CodedFrame(1, 1, (0,)), 1e9, (-16.0, -64.0))]
    frames[1].error[3, 6] = 0
    extra = importance(frames, SIZE, LAMBDA)[0] - 1
    centre = (extra * np.mgrid[: SIZE[0], : SIZE[1]]).sum((1, 2)) / extra.sum()
    assert centre == pytest.approx([2.5, 4.0], abs=0.01)
    assert extra.sum() == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize(("blend", "shares"), [(1, (1, 0)), (-1, (0, 1)), (0, (0.4, 0.4))])
def test_each_reference_gets_its_share(blend: int, shares: tuple[float, float]) -> None:
    frames = [
        forecast(CodedFrame(0, 0, ()), 0.0),
        forecast(CodedFrame(2, 1, (0,)), 1e9),
        forecast(CodedFrame(1, 2, (0, 2)), 0.0, blend=blend),
    ]
    found = importance(frames, SIZE, LAMBDA)
    assert found[0].mean() == pytest.approx(1 + shares[0], rel=0.01)
    assert found[2].mean() == pytest.approx(1 + shares[1], rel=0.01)
    assert found[1].mean() == 1


def test_estimated_bits_fall_with_lambda_and_rise_with_errors() -> None:
    def bits(error: float, lmbda: float) -> float:
        frames = chain(4, error)
        return estimated_bits(frames, importance(frames, SIZE, lmbda), lmbda)

    assert bits(0.0, LAMBDA) == 0
    assert bits(40.0, LAMBDA) < bits(80.0, LAMBDA) < bits(80.0, LAMBDA / 4)
