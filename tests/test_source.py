"""The source is gone through once and read again, a segment at a time."""

from __future__ import annotations

import gc
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_frames
from video_samples import properties

from nvcodec.core.errors import InputError
from nvcodec.core.frame import Frame
from nvcodec.encoder import pipeline
from nvcodec.encoder.pipeline import EncodeOptions, Progress, encode
from nvcodec.encoder.source import Shot, Source
from nvcodec.media.y4m import write_y4m

OPTIONS = EncodeOptions(quality=40, effort="fast", device="cpu", threads=1)


def write(path: Path, count: int, *, other_from: int | None = None, width: int = 32) -> Path:
    """A clip of tiny frames, those from ``other_from`` on much brighter: a cut."""
    frames = tiny_frames(width, 16, 9)[:count]
    for number in range(count if other_from is None else other_from, count):
        y, u, v = frames[number].planes
        frames[number] = Frame((255 - y // 4, u, v), frames[number].pts)
    with path.open("wb") as stream:
        write_y4m(stream, properties(width, 16), frames)
    return path


def test_segments_begin_at_cuts_and_where_they_must(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.y4m", 9, other_from=5)
    assert Source(path, None, lambda found: 3).shots == [Shot(0, 3), Shot(3, 2), Shot(5, 3), Shot(8, 1)]
    assert Source(path, (1, 8), lambda found: 100).shots == [Shot(0, 4), Shot(4, 3)]


def test_what_is_known_of_it(tmp_path: Path) -> None:
    source = Source(write(tmp_path / "clip.y4m", 4), None, lambda found: found.width // 16)
    assert (source.properties.width, source.properties.frame_rate) == (32, Fraction(25))
    assert (len(source), source.pts, len(source.shots)) == (4, [0, 1, 2, 3], 2)
    for _ in range(2):
        again = list(source.frames())
        assert [f.pts for f in again] == source.pts
        assert torch.equal(again[3].y, tiny_frames(32, 16, 9)[3].y)
    other = Source(write(tmp_path / "other.y4m", 4, other_from=3), None, lambda found: 2)
    assert source.digest == Source(tmp_path / "clip.y4m", None, lambda found: 9).digest != other.digest


def changed_while_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, **changes: int) -> Path:
    """A clip of 6 frames that becomes another one, of ``count``, when it has been gone through."""
    path = write(tmp_path / "clip.y4m", 6)
    gone_through = pipeline.Source

    def then_changed(*arguments: Any, **rest: Any) -> Source:
        found = gone_through(*arguments, **rest)
        write(path, count, **changes)
        return found

    monkeypatch.setattr(pipeline, "Source", then_changed)
    return path


@pytest.mark.parametrize("changes", [{"other_from": 1}, {"width": 64}], ids=["samples", "size"])
def test_a_source_that_changes_under_way_is_an_error_before_it_is_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, int]
) -> None:
    path = changed_while_encoded(tmp_path, monkeypatch, 6, **changes)
    told: list[Progress] = []
    with pytest.raises(InputError, match=r"clip\.y4m was changed while it was encoded"):
        encode(path, tmp_path / "out.cwrv", OPTIONS, progress=told.append)
    assert not told
    assert [p.name for p in tmp_path.iterdir()] == ["clip.y4m"]


def test_a_source_that_grows_is_encoded_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = changed_while_encoded(tmp_path, monkeypatch, 7)
    assert encode(path, tmp_path / "out.cwrv", OPTIONS).frames == 6


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.y4m")
    with pytest.raises(InputError, match=r"pipe\.y4m is a pipe or device: save it to a file first"):
        encode(tmp_path / "pipe.y4m", tmp_path / "out.cwrv", OPTIONS)


def test_an_encode_holds_no_more_frames_than_a_segment_has(tmp_path: Path) -> None:
    source = write(tmp_path / "clip.y4m", 8)
    held: list[int] = []

    def count(progress: Progress) -> None:
        held.append(sum(type(thing) is Frame for thing in gc.get_objects()))

    before = sum(type(thing) is Frame for thing in gc.get_objects())
    encode(source, tmp_path / "out.cwrv", replace(OPTIONS, segment=2), progress=count)
    assert max(held) - before <= 3
