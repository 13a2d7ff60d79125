"""Which GOP length a segment gets: that of the best trial, and the encode is then that of this length alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from conftest import tiny_frames
from run_cwrv import cwrv
from video_samples import properties

from nvcodec.core.frame import Frame
from nvcodec.decoder import Decoder
from nvcodec.encoder.pipeline import EncodeOptions, encode
from nvcodec.encoder.rate_control import Target
from nvcodec.encoder.representation import CodedSegment
from nvcodec.encoder.segment_analysis import SegmentSource
from nvcodec.hybrid.encoder import gop_choice
from nvcodec.hybrid.encoder.gop_choice import encode_with_best_gop
from nvcodec.hybrid.encoder.stages import EFFORTS
from nvcodec.media.y4m import write_y4m
from nvcodec.motion.levels import FrameGeometry

TARGET = Target(lmbda=100.0)


def source(frames: int) -> SegmentSource:
    return SegmentSource(torch.zeros(frames, 6, 8, 8), FrameGeometry(16, 16), 1)


class Encodes:
    """Stands for ``encode_segment``: ``found`` is what each GOP length comes to."""

    def __init__(self, **found: tuple[int, float]) -> None:
        self.found = found
        self.done: list[tuple[int, str]] = []
        self.given: list[tuple[int, Target]] = []

    def __call__(self, source: SegmentSource, width: int, target: Target, effort: object, *_: object,
                 **__: object) -> CodedSegment:  # fmt: skip
        name = next(name for name, known in EFFORTS.items() if known is effort)
        self.done.append((source.gop, name))
        self.given.append((len(source.samples), target))
        size, psnr = self.found[f"gop{source.gop}"]
        return CodedSegment(bytes(size), b"", psnr)


@pytest.mark.parametrize(
    ("found", "best"),
    [
        ({"gop4": (100, 30.0), "gop2": (100, 30.5), "gop8": (100, 30.2)}, 2),
        (
            {"gop4": (100, 30.0), "gop2": (200, 30.5), "gop8": (100, 29.9)},
            4,
        ),
        ({"gop4": (100, 30.0), "gop2": (100, 30.0), "gop8": (100, 30.0)}, 4),
        ({"gop4": (100, 30.0), "gop2": (100, 29.0), "gop8": (90, 30.0)}, 8),
    ],
)
def test_the_best_trial_is_chosen(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, tuple[int, float]], best: int
) -> None:
    encodes = Encodes(**found)
    monkeypatch.setattr(gop_choice, "encode_segment", encodes)
    coded = encode_with_best_gop(source(17), (4, 2, 8), 8, TARGET, EFFORTS["slow"], EFFORTS["fast"], 0)
    assert coded.psnr == found[f"gop{best}"][1]
    assert encodes.done == [(4, "fast"), (2, "fast"), (8, "fast"), (best, "slow")]


@pytest.mark.parametrize(
    ("frames", "gops", "tried"),
    [(1, (4, 2, 8), []), (3, (4, 2, 8), []), (4, (4, 2, 8), [4, 2]), (9, (4, 2, 8), [4, 2, 8]), (9, (4,), [])],
)
def test_only_what_differs_is_tried(
    monkeypatch: pytest.MonkeyPatch, frames: int, gops: Sequence[int], tried: list[int]
) -> None:
    encodes = Encodes(gop4=(9, 30.0), gop2=(9, 29.0), gop8=(9, 29.0))
    monkeypatch.setattr(gop_choice, "encode_segment", encodes)
    encode_with_best_gop(source(frames), gops, 8, TARGET, EFFORTS["slow"], EFFORTS["fast"], 0)
    assert encodes.done == [*((gop, "fast") for gop in tried), (4, "slow")]


@pytest.mark.parametrize(
    ("found", "best"),
    [
        ({4: (100, 30.0), 2: (100, 31.9), 8: (100, 29.9)}, 4),
        ({4: (100, 30.0), 2: (100, 32.1), 8: (100, 29.9)}, 2),
        ({4: (100, 30.0), 2: (100, 31.9), 8: (95, 30.0)}, 8),
        ({4: (100, 30.0), 2: (99, 30.0), 8: (100, 30.0)}, 4),
    ],
)
def test_without_trials_the_look_ahead_decides(
    monkeypatch: pytest.MonkeyPatch, found: dict[int, tuple[float, float]], best: int
) -> None:
    """It overrates short GOPs, and is believed so far."""
    encodes = Encodes(**{f"gop{gop}": (9, 30.0) for gop in found})
    looked_at: list[tuple[int, int]] = []

    def foresee(source: SegmentSource, width: int, lmbda: float) -> tuple[float, float]:
        looked_at.append((source.gop, len(source.samples)))
        return found[source.gop]

    monkeypatch.setattr(gop_choice, "encode_segment", encodes)
    monkeypatch.setattr(gop_choice, "foresee_segment", foresee)
    encode_with_best_gop(source(50), (4, 2, 8), 8, TARGET, EFFORTS["fast"], None, 0)
    assert looked_at == [(4, 9), (2, 9), (8, 9)]
    assert encodes.done == [(best, "fast")]


def test_trials_are_short_and_have_no_size_to_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    encodes = Encodes(gop4=(9, 30.0), gop2=(9, 29.0))
    monkeypatch.setattr(gop_choice, "encode_segment", encodes)
    wanted = Target(total_bytes=4000)
    encode_with_best_gop(source(50), (4, 2), 8, wanted, EFFORTS["slow"], EFFORTS["fast"], 0)
    (first, price), (second, same), whole = encodes.given
    assert (first, second, price) == (33, 33, same)
    assert price.total_bytes is None
    assert whole == (50, wanted)


def test_the_file_is_that_of_the_chosen_length(tmp_path: Path) -> None:
    """Trials leave no trace: slow gives the bytes of slow with the length that it chose."""
    clip = tmp_path / "clip.y4m"
    with clip.open("wb") as stream:
        write_y4m(stream, properties(32, 16), tiny_frames(32, 16, 5))
    fixed = ("--quality", "30", "--effort", "slow", "--device", "cpu", "--threads", "1")
    files = []
    for name, options in (("chosen", ()), ("2", ("--gop", "2")), ("4", ("--gop", "4"))):
        output = tmp_path / f"{name}.cwrv"
        assert cwrv("encode", clip, "-o", output, *fixed, *options).exit_code == 0
        files.append(output.read_bytes())
    assert files[1] != files[2]
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
