"""The choice of a GOP length, and of motion that is not predicted, by passes over a part of a segment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_frames
from run_cwrv import cwrv
from torch import nn
from video_samples import properties

from nvcodec.core.frame import Frame
from nvcodec.core.gop import coding_units
from nvcodec.decoder import Decoder
from nvcodec.encoder.gop_trials import TRIAL_FRAMES, GopTrials, Measure
from nvcodec.encoder.pipeline import EncodeOptions, encode
from nvcodec.encoder.rate_control import AIM, SLOPE, Target, first_lambda
from nvcodec.encoder.segment_analysis import SegmentSource, UnitReport
from nvcodec.encoder.working_domain import working_samples
from nvcodec.exact.operation import Sizes
from nvcodec.hybrid.encoder.stages import trial_pass as hybrid_pass
from nvcodec.implicit.encoder.recurrent_fit import trial_pass as recurrent_pass
from nvcodec.implicit.models.cwrnn import CWRNN, Widths
from nvcodec.media.y4m import write_y4m
from nvcodec.motion.levels import FrameGeometry

Choice = tuple[int, bool]
FIXED = Target(lmbda=60.0)


def source(frames: int, width: int = 32, height: int = 32) -> SegmentSource:
    samples = torch.stack([working_samples(frame) for frame in tiny_frames(width, height, frames)])
    return SegmentSource(samples, FrameGeometry(width, height), 4)


def reports(given: SegmentSource, bits: float, psnr: float, key_bits: float = 100.0) -> list[UnitReport]:
    """A key frame, and others of ``bits`` each; all frames have ``psnr`` in dB."""
    units = coding_units(len(given.samples), given.gop, given.predicts)
    error = 255**2 / 10 ** (psnr / 10)
    return [
        UnitReport(u, 0.0, key_bits if u.depth == 0 else bits * len(u.frames), torch.full((len(u.frames), 3), error))
        for u in units
    ]


def told(psnr: dict[Choice, float], asked: list[Choice] | None = None) -> Measure:
    """Stands for a pass: equal bits, ``psnr`` of each choice."""

    def measure(given: SegmentSource, lmbda: float) -> Sequence[UnitReport]:
        if asked is not None:
            asked.append((given.gop, given.predicts))
        return reports(given, 50.0, psnr[given.gop, given.predicts])

    return measure


@pytest.mark.parametrize(
    ("psnr", "tried", "best"),
    [
        # neither longer nor shorter is better: nothing further away is tried
        ({(4, True): 30.0, (8, True): 29.0, (2, True): 29.5, (4, False): 29.0},
         [(4, True), (8, True), (2, True), (4, False)], (4, True)),
        # shorter and shorter
        ({(4, True): 30.0, (8, True): 29.0, (2, True): 31.0, (1, True): 32.0},
         [(4, True), (8, True), (2, True), (1, True)], (1, True)),
        # what lies close to the best is tried without prediction, too
        ({(4, True): 30.0, (8, True): 30.2, (2, True): 28.0, (4, False): 30.1, (8, False): 30.3},
         [(4, True), (8, True), (2, True), (4, False), (8, False)], (8, False)),
        # alike: the usual one
        ({(4, True): 30.0, (8, True): 30.0, (2, True): 30.0, (4, False): 30.0, (8, False): 30.0, (2, False): 30.0},
         [(4, True), (8, True), (2, True), (4, False), (8, False), (2, False)], (4, True)),
    ],
)  # fmt: skip
def test_the_best_choice_is_taken(psnr: dict[Choice, float], tried: list[Choice], best: Choice) -> None:
    asked: list[Choice] = []
    trials = GopTrials(source(33), (4, 2, 8, 1), FIXED, told(psnr, asked))
    assert (trials.best(), asked) == (best, tried)


def test_a_segment_is_taken_to_go_on_as_it_begins() -> None:
    """A key frame counts once, whatever is looked at: a length that saves there does not pay in a long segment."""
    key_bits = {4: 4000.0, 2: 3000.0}
    bits = {4: 100.0, 2: 110.0}

    def measure(given: SegmentSource, lmbda: float) -> Sequence[UnitReport]:
        return reports(given, bits[given.gop], 30.0, key_bits[given.gop])

    assert GopTrials(source(17), (4, 2), FIXED, measure).best()[0] == 2
    assert GopTrials(source(257, 8, 8), (4, 2), FIXED, measure).best()[0] == 4


def test_lambda_follows_the_target() -> None:
    """The first trial tells how far the guess is off; it is done again, the others once."""
    asked: list[tuple[int, float]] = []
    right = first_lambda((100 + 4 * 50) * AIM / (5 * 32 * 32), 5) / 3

    def measure(given: SegmentSource, lmbda: float) -> Sequence[UnitReport]:
        asked.append((given.gop, lmbda))
        scale = AIM * (lmbda / right) ** -SLOPE
        return reports(given, 50.0 * scale, 30.0, 100.0 * scale)

    trials = GopTrials(source(5), (4, 2), Target(total_bytes=(100 + 4 * 50) / 8), measure)
    trials.best()
    guess, *others = asked
    assert guess == (4, pytest.approx(3 * right))
    assert [gop for gop, _ in others] == [4, 2, 4, 2]
    assert {lmbda for _, lmbda in others} == {trials.lmbda}
    assert trials.lmbda == pytest.approx(right)


def test_only_a_part_is_looked_at() -> None:
    sizes: list[tuple[int, ...]] = []

    def measure(given: SegmentSource, lmbda: float) -> Sequence[UnitReport]:
        sizes.append((*given.samples.shape, given.geometry.width, given.geometry.height))
        return reports(given, 50.0, 30.0)

    GopTrials(source(TRIAL_FRAMES + 2, 420, 250), (4,), FIXED, measure).best()
    GopTrials(source(4, 35, 21), (4,), FIXED, measure).best()
    GopTrials(SegmentSource(torch.zeros(3, 6, 540, 960), FrameGeometry(1920, 1080), 4), (4,), FIXED, measure).best()
    assert sizes == [
        *[(TRIAL_FRAMES, 6, 96, 144, 288, 192)] * 2,
        *[(4, 6, 11, 18, 35, 21)] * 2,
        *[(3, 6, 272, 480, 960, 544)] * 2,
    ]


def test_one_length_is_not_tried() -> None:
    def none(given: SegmentSource, lmbda: float) -> Sequence[UnitReport]:
        raise AssertionError

    assert GopTrials(source(9), (1,), FIXED, none).best() == (1, True)
    assert GopTrials(source(1), (4, 2, 8), FIXED, none).best() == (4, True)
    assert GopTrials(source(2), (4, 2, 8), FIXED, none).best() == (4, True)


def hybrid(given: SegmentSource, lmbda: float) -> Sequence[UnitReport]:
    return hybrid_pass(given, 8, lmbda)


def recurrent(given: SegmentSource, lmbda: float) -> Sequence[UnitReport]:
    def network(sizes: Sizes) -> nn.Module:
        torch.manual_seed(0)
        return CWRNN(sizes, widths=Widths(6, 2, 4, 1))

    return recurrent_pass(given, network, lmbda)


@pytest.mark.parametrize("measure", [hybrid, recurrent])
def test_goes_on_behind_the_trials_that_are_known(measure: Measure) -> None:
    def tried_by(trials: GopTrials) -> tuple[Choice, list[Choice], list[dict[str, Any]]]:
        tried: list[Choice] = []
        states: list[dict[str, Any]] = []

        def on_trial(gop: int, predicts: bool) -> None:
            tried.append((gop, predicts))
            states.append(trials.state())

        return trials.best(on_trial), tried, states

    whole = GopTrials(source(3), (4, 2, 1), Target(total_bytes=900), measure)
    best, tried, states = tried_by(whole)
    assert tried[:2] == [(4, True), (1, True)]  # 4 and 2 are alike in three frames
    assert all(math.isfinite(score) for score in whole.scores.values())
    for known, state in enumerate(states, 1):
        rest = GopTrials(source(3), (4, 2, 1), Target(total_bytes=900), measure, state)
        assert tried_by(rest) == (best, tried[known:], states[known:])
        assert rest.scores == whole.scores


@pytest.mark.parametrize("effort", ["fast", "slow"])
def test_the_file_is_that_of_the_chosen_length(tmp_path: Path, effort: str) -> None:
    """Trials leave no trace: the bytes are those of an encode with the length that was chosen."""
    clip = tmp_path / "clip.y4m"
    with clip.open("wb") as stream:
        write_y4m(stream, properties(32, 16), tiny_frames(32, 16, 5))
    fixed = ("--quality", "30", "--effort", effort, "--device", "cpu", "--threads", "1")
    files = []
    for name, options in (("chosen", ()), *((gop, ("--gop", gop)) for gop in ("1", "2", "4"))):
        output = tmp_path / f"{name}.cwrv"
        assert cwrv("encode", clip, "-o", output, *fixed, *options).exit_code == 0
        files.append(output.read_bytes())
    assert len(set(files[1:])) == 3
    assert files[0] in files[1:]


def test_flat_frames_have_no_bits_to_compare_and_get_the_usual_length(tmp_path: Path) -> None:
    clip = tmp_path / "flat.y4m"
    flat = [Frame((torch.full((16, 32), 16, dtype=torch.uint8), *[torch.full((8, 16), 128, dtype=torch.uint8)] * 2), t)
            for t in range(9)]  # fmt: skip
    with clip.open("wb") as stream:
        write_y4m(stream, properties(32, 16), flat)
    encode(clip, tmp_path / "flat.cwrv", EncodeOptions(quality=30, effort="fast", device="cpu", threads=1))
    with Decoder(tmp_path / "flat.cwrv", device="cpu") as decoder:
        (segment,) = decoder.account()["segments"]
    assert segment["gop"] == 4
