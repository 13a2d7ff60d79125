"""Checkpoints: an encode that was interrupted goes on to the same bytes, and no other encode takes its place."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny_frames
from run_cwrv import cwrv, fails
from video_samples import properties

from nvcodec.core.errors import CheckpointError, CheckpointWarning, TargetError
from nvcodec.encoder import checkpoint, identity
from nvcodec.encoder.checkpoint import Checkpoint
from nvcodec.encoder.pipeline import EncodeOptions, Progress, encode
from nvcodec.media.output_file import checkpoint_path
from nvcodec.media.y4m import write_y4m
from nvcodec.rd import points
from nvcodec.rd.clip import inspect_clip

OPTIONS = EncodeOptions(quality=40, effort="fast", device="cpu", threads=1)


class Stop(BaseException):
    """As KeyboardInterrupt, but nobody presses it."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_clip(path: Path, count: int = 5, **changes: Any) -> Path:
    with path.open("wb") as stream:
        write_y4m(stream, properties(32, 16, **changes), tiny_frames(32, 16, count))
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip.y4m")


@pytest.fixture
def at_every_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints whatever they cost."""
    monkeypatch.setattr(checkpoint, "_SHARE", 1e9)


def stopped(source: Path, output: Path, options: EncodeOptions, units: int = 1, **rest: Any) -> list[Progress]:
    """Encode until so many units are done; what was told until then."""
    told: list[Progress] = []

    def stop(progress: Progress) -> None:
        told.append(progress)
        if len(told) == units:
            raise Stop

    with pytest.raises(Stop):
        encode(source, output, options, progress=stop, **rest)
    return told


# The file


def test_kept_and_discarded(tmp_path: Path) -> None:
    path, same = tmp_path / "a.checkpoint", {"effort": "fast"}
    first = Checkpoint(path, same)
    assert first.read() is None
    first.keep(lambda: {"unit": 3})
    assert names(tmp_path) == ["a.checkpoint"]
    again = Checkpoint(path, same)
    assert again.read() == {"unit": 3}
    again.discard()
    assert Checkpoint(path, same).read() is None
    again.discard()
    assert names(tmp_path) == []


def test_what_a_killed_process_left_is_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while it wrote: the checkpoint before counts, and the half one is overwritten, or removed at the end."""
    path = tmp_path / "a.checkpoint"
    Checkpoint(path, {}).keep(lambda: 1)

    def killed(*_: Any) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        patch.setattr(checkpoint, "write_tree", killed)
        with pytest.raises(Stop):
            Checkpoint(path, {}).keep(lambda: 2)
    assert len(names(tmp_path)) == 2
    again = Checkpoint(path, {})
    assert again.read() == 1
    again.discard()
    assert names(tmp_path) == []


def test_writing_takes_a_small_share_of_the_time(tmp_path: Path) -> None:
    now = 0.0
    writes = []

    def state() -> float:
        nonlocal now
        now += 0.1  # what writing takes
        writes.append(now)
        return now

    kept = Checkpoint(tmp_path / "a.checkpoint", {}, clock=lambda: now)
    for _ in range(2000):
        now += 0.05  # a unit
        kept.keep(state)
    assert 0.015 < 0.1 * len(writes) / now < 0.02
    assert max(b - a for a, b in pairwise(writes)) < 0.1 / 0.02 + 0.2


def test_failures_are_told_once(tmp_path: Path) -> None:
    kept = Checkpoint(tmp_path / "nowhere" / "a.checkpoint", {}, clock=Ticks())
    with pytest.warns(CheckpointWarning, match=r"no checkpoint: cannot write .*nowhere"):
        kept.keep(lambda: 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept.keep(lambda: 2)


class Ticks:
    """A clock that is a day later every time it is looked at."""

    def __init__(self) -> None:
        self.days = 0

    def __call__(self) -> float:
        self.days += 1
        return 86400.0**self.days


def test_other_identities_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.checkpoint"
    Checkpoint(path, {"bpp": "0.1", "effort": "fast", "old": "1"}).keep(lambda: 1)
    with pytest.raises(CheckpointError) as refusal:
        Checkpoint(path, {"bpp": "0.2", "effort": "fast", "new": "2"}).read()
    assert str(refusal.value) == (
        f"{path} is of another encode (bpp was 0.1, is 0.2, new was unknown, is 2, old was 1, is unknown); "
        "delete it to start anew"
    )
    assert path.exists()


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: b"", lambda d: d[:99] + b"?" + d[100:], lambda d: b"x"])
def test_damage_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "a.checkpoint"
    Checkpoint(path, {}).keep(lambda: list(range(100)))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=r"is no checkpoint, or damaged \(its? .*\); delete it to start anew"):
        Checkpoint(path, {}).read()


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.checkpoint").mkdir()
    with pytest.raises(CheckpointError, match=r"cannot read .*directory"):
        Checkpoint(tmp_path / "a.checkpoint", {}).read()


def test_where_it_lies(tmp_path: Path) -> None:
    assert checkpoint_path(Path("a/b.cwrv")) == Path("a/b.cwrv.checkpoint")
    (tmp_path / "link.cwrv").symlink_to(tmp_path / "else" / "real.cwrv")
    assert checkpoint_path(tmp_path / "link.cwrv") == tmp_path / "else" / "real.cwrv.checkpoint"
    assert len(checkpoint_path(Path("n" * 250 + ".cwrv")).name) < 255


# Encodes


@pytest.mark.usefixtures("at_every_unit")
@pytest.mark.parametrize(
    "options",
    [
        EncodeOptions(bpp=2.4, effort="medium", segment=2, device="cpu", threads=1),
        EncodeOptions(quality=30, effort="fast", segment=2, device="cpu", threads=1),
        EncodeOptions(quality=30, effort="slow", device="cpu", threads=1),
        EncodeOptions(bpp=2.4, effort="fast", gop=2, device="cpu", threads=2),
        EncodeOptions(quality=30, effort="fast", device="cpu", threads=1),
    ],
    ids=["to a size", "at a quality", "with trials", "with units under way", "with a look"],
)
def test_interrupted_after_every_unit(clip: Path, tmp_path: Path, options: EncodeOptions) -> None:
    """Each run does one unit and is stopped. Stages, attempts, trials and segments are crossed, no unit done twice."""
    told: list[Progress] = []
    frames = (0, 4 if options.effort == "slow" else 5 if options.threads == 2 or not options.segment else 3)
    report = encode(clip, tmp_path / "whole.cwrv", options, frames=frames, progress=told.append)
    assert not report.resumed
    parts: list[Progress] = []
    for _ in told:
        parts += stopped(clip, tmp_path / "a.cwrv", options, frames=frames)
        assert not (tmp_path / "a.cwrv").exists()
    report = encode(clip, tmp_path / "a.cwrv", options, frames=frames)
    assert report.resumed
    assert (tmp_path / "a.cwrv").read_bytes() == (tmp_path / "whole.cwrv").read_bytes()
    assert parts == told
    assert names(tmp_path) == ["a.cwrv", "clip.y4m", "whole.cwrv"]


@pytest.fixture
def begun(clip: Path, tmp_path: Path) -> Iterator[Path]:
    """The output of an encode with a checkpoint, which must be the same in the end."""
    output = tmp_path / "a.cwrv"
    stopped(clip, output, OPTIONS, frames=(0, 3))
    before = checkpoint_path(output).read_bytes()
    yield output
    assert checkpoint_path(output).read_bytes() == before


@pytest.mark.parametrize(
    ("name", "value"),
    [("quality", 41), ("effort", "medium"), ("gop", 2), ("segment", 2), ("width", 8), ("seed", 1), ("threads", 2)],
)
def test_other_options_are_refused(clip: Path, begun: Path, name: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=rf"another encode \({name} was .*, is {value}\); delete it"):
        encode(clip, begun, dataclasses.replace(OPTIONS, **{name: value}), frames=(0, 3))


def test_another_target_is_refused(clip: Path, begun: Path) -> None:
    options = EncodeOptions(bpp=0.5, effort="fast", device="cpu", threads=1)
    with pytest.raises(CheckpointError, match=r"\(bpp was not given, is 0\.5, quality was 40, is not given\)"):
        encode(clip, begun, options, frames=(0, 3))


def test_another_input_is_refused(clip: Path, begun: Path) -> None:
    for frames in ((1, 4), (0, 4)):
        with pytest.raises(CheckpointError, match=r"input was \w{32}, is \w{32}\)"):
            encode(clip, begun, OPTIONS, frames=frames)
    write_clip(clip, color_range=2)
    with pytest.raises(CheckpointError, match=r"another encode \(input was"):
        encode(clip, begun, OPTIONS, frames=(0, 3))
    write_clip(clip)


def test_other_code_is_refused(clip: Path, begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = identity.codec_versions()
    for name in ("code", "torch"):
        monkeypatch.setattr(identity, "codec_versions", lambda name=name: now | {name: "9"})
        with pytest.raises(CheckpointError, match=rf"another encode \({name} was .*, is 9\)"):
            encode(clip, begun, OPTIONS, frames=(0, 3))


def test_the_same_input_elsewhere_is_the_same(clip: Path, tmp_path: Path) -> None:
    stopped(clip, tmp_path / "a.cwrv", OPTIONS, frames=(0, 3))
    moved = clip.rename(tmp_path / "moved.y4m")
    assert encode(moved, tmp_path / "a.cwrv", OPTIONS, frames=(0, 3)).resumed


@pytest.mark.usefixtures("at_every_unit")
def test_time_of_earlier_runs_counts(clip: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    stopped(clip, tmp_path / "a.cwrv", OPTIONS, units=2, frames=(0, 1))
    again = time.monotonic()
    report = encode(clip, tmp_path / "a.cwrv", OPTIONS, frames=(0, 1))
    end = time.monotonic()
    assert end - again < report.seconds < end - started


@pytest.mark.usefixtures("at_every_unit")
def test_an_encode_that_fails_leaves_nothing(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To go on would only fail again."""

    def out_of_reach(*_: Any, **__: Any) -> None:
        raise TargetError("out of reach")

    stopped(clip, tmp_path / "a.cwrv", OPTIONS, frames=(0, 1))
    monkeypatch.setattr("nvcodec.encoder.pipeline.write_container", out_of_reach)
    with pytest.raises(TargetError):
        encode(clip, tmp_path / "a.cwrv", OPTIONS, frames=(0, 1))
    assert names(tmp_path) == ["clip.y4m"]


# rd


def test_rd_throws_away_what_it_cannot_use(clip: Path, tmp_path: Path) -> None:
    """Its files are its own, and their names tell all but the number of threads."""
    output = tmp_path / "point.cwrv"
    stopped(clip, output, dataclasses.replace(OPTIONS, seed=3))
    report = points._encode(inspect_clip(str(clip), "clip", (0, 1)), output, OPTIONS, lambda done, what: None)
    assert not report.resumed
    assert names(tmp_path) == ["clip.y4m", "point.cwrv"]


# The command


def test_the_command(clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.cwrv"
    arguments = ["encode", clip, "-o", output, "--frames", "0:1", "--quality", "40", "--threads", "1"]
    arguments += ["--device", "cpu"]
    stopped(clip, output, OPTIONS, frames=(0, 1))
    fails(cwrv(*arguments, "--effort", "slow"), 1, "(effort was fast, is slow); delete it to start anew")
    assert names(tmp_path) == ["a.cwrv.checkpoint", "clip.y4m"]
    result = cwrv(*arguments, "--effort", "fast")
    assert (result.exit_code, result.stderr.endswith(", interruptions left out\n")) == (0, True)
    assert names(tmp_path) == ["a.cwrv", "clip.y4m"]
