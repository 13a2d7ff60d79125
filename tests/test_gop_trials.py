"""The choice of a GOP length for a recurrent network, by passes over the first frames."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import tiny_frames
from torch import nn

from nvcodec.encoder.segment_analysis import SegmentSource
from nvcodec.encoder.working_domain import working_samples
from nvcodec.exact.operation import Sizes
from nvcodec.implicit.encoder.gop_trials import TRIAL_FRAMES, GopTrials
from nvcodec.implicit.models.cwrnn import CWRNN, Widths
from nvcodec.motion.levels import FrameGeometry


def network(sizes: Sizes) -> nn.Module:
    torch.manual_seed(0)
    return CWRNN(sizes, widths=Widths(6, 2, 4, 1))


def source(frames: int) -> SegmentSource:
    samples = torch.stack([working_samples(frame) for frame in tiny_frames(32, 32, frames)])
    return SegmentSource(samples, FrameGeometry(32, 32), 4)


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ((1.0, 2.0, 3.0, 2.5, 1.0), (8, True)),
        ((3.0, 2.0, 3.0, 3.0, 3.0), (4, True)),
        ((1.0, 2.0, 1.5, 1.0, 1.0), (2, True)),
        ((1.0, 2.0, 3.0, 2.5, 3.1), (2, False)),  # of the best two, 8 and then 2, without prediction of motion
        ((1.0, 2.0, 3.0, 3.2, 3.1), (8, False)),
    ],
)
def test_the_best_score_is_taken(scores: tuple[float, ...], best: tuple[int, bool]) -> None:
    assert GopTrials(source(9), (4, 2, 8), network, 60.0, scores).best() == best


def test_goes_on_behind_the_trials_that_are_known() -> None:
    whole = GopTrials(source(3), (4, 2, 1), network, 60.0)
    tried: list[tuple[int, bool]] = []
    best = whole.best(lambda *choice: tried.append(choice))
    assert whole.gops == [4, 1]  # 4 and 2 are alike in three frames
    assert tried == [(4, True), (1, True), (4, False)]  # with 1 there is nothing to predict
    assert all(math.isfinite(score) for score in whole.scores)
    for known in (1, 2, 3):
        again: list[tuple[int, bool]] = []
        rest = GopTrials(source(3), (4, 2, 1), network, 60.0, whole.scores[:known])
        found = rest.best(lambda *choice: again.append(choice))  # noqa: B023 - called at once
        assert (found, again, rest.scores) == (best, tried[known:], whole.scores)


def test_one_length_is_not_tried() -> None:
    def none(sizes: Sizes) -> nn.Module:
        raise AssertionError

    assert GopTrials(source(9), (1,), none, 60.0).best() == (1, True)
    assert GopTrials(source(1), (4, 2, 8), none, 60.0).best() == (4, True)
    assert GopTrials(source(2), (4, 2, 8), none, 60.0).best() == (4, True)


def test_only_the_first_frames_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def counted(given: Sizes) -> nn.Module:
        sizes.append(given.frames)
        return network(given)

    GopTrials(source(TRIAL_FRAMES + 2), (16,) * 2 + (17,), counted, 200.0).best()
    assert sizes == [TRIAL_FRAMES] * 4  # two lengths that differ, with and without prediction of motion
