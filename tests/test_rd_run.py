"""``rd`` from the plan to the files: nothing twice, everything told, bad input refused before any work."""

from __future__ import annotations

import csv
import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numba
import pytest
import torch
from rd_samples import COUNT, FAST, FakeCodec, fake_codec, moving_clip, plan
from run_cwrv import cwrv, fails
from video_samples import DEMO, properties, read

from nvcodec.core.errors import EncodeError
from nvcodec.core.metrics import frame_psnr
from nvcodec.encoder.pipeline import EncodeOptions
from nvcodec.rd import anchors, extra, output, points, run
from nvcodec.rd.anchors import parse_anchors
from nvcodec.rd.clip import Clip, inspect_clip, name_clips


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return moving_clip(tmp_path_factory.mktemp("clip") / "moving.mkv")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCodec:
    """Our codec in no time, and no picture of the curves."""
    monkeypatch.setattr(output, "plot_curves", lambda results: (b"svg", b"png"))
    return fake_codec(monkeypatch)


@pytest.fixture(scope="module")
def finished(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run that several tests look at: its folder, and what it returned."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as monkeypatch:
        fake_codec(monkeypatch)
        return folder, everything(plan(clip, folder))


@pytest.fixture
def anchor_encodes(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Rate factors at which an anchor really encodes."""
    asked: list[float] = []
    encode = points.encode_anchor

    def counted(frames: Any, properties: Any, spec: Any, crf: float, **rest: Any) -> Any:
        asked.append(crf)
        return encode(frames, properties, spec, crf, **rest)

    monkeypatch.setattr(points, "encode_anchor", counted)
    return asked


def everything(chosen: run.Plan) -> dict[str, Any]:
    curves = run.compute(chosen, run.check_plan(chosen), lambda progress: None)
    return output.write_outputs(chosen, curves, "cwrv rd ...", lambda done, what: None)


def test_nothing_is_computed_twice(
    clip: Path, fake: FakeCodec, anchor_encodes: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = everything(plan(clip, tmp_path))
    assert fake.targets == [0.1, 0.2, 0.4, 0.8]
    count = len(anchor_encodes)
    assert count >= 8

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(points, "frame_quality", refuse)
    monkeypatch.setattr(output, "make_stills", refuse)
    second = everything(plan(clip, tmp_path))
    assert (len(fake.targets), len(anchor_encodes)) == (4, count)
    assert second["clips"] == first["clips"]


def test_only_what_is_new_is_computed(clip: Path, fake: FakeCodec, anchor_encodes: list[float], tmp_path: Path) -> None:
    one = plan(clip, tmp_path, anchors=parse_anchors("x264:ultrafast"))
    everything(one)
    anchor_encodes.clear()
    everything(plan(clip, tmp_path, anchors=parse_anchors("x264:ultrafast,x264:superfast"), bpps=one.bpps))
    assert len(fake.targets) == 4
    assert len(anchor_encodes) == sum("superfast" in p.name and p.suffix == ".264" for p in tmp_path.rglob("*"))
    everything(plan(clip, tmp_path, anchors=(), bpps=(0.3, *one.bpps)))
    assert fake.targets[4:] == [0.3]
    other = run.CodecSettings(effort="medium", device="cpu", threads=1)
    everything(plan(clip, tmp_path, anchors=(), bpps=(0.3,), settings=other))
    assert fake.targets[5:] == [0.3]


def test_other_content_of_the_same_name_starts_anew(fake: FakeCodec, tmp_path: Path) -> None:
    source = moving_clip(tmp_path / "a.mkv", 96, 80)
    everything(plan(source, tmp_path / "out", anchors=(), bpps=(0.5,)))
    moving_clip(tmp_path / "b.mkv", 96, 96)
    os.replace(tmp_path / "b.mkv", source)
    everything(plan(source, tmp_path / "out", anchors=(), bpps=(0.5,)))
    assert fake.targets == [0.5, 0.5]


@pytest.mark.parametrize("suffix", [".cwrv", ".json"])
def test_damaged_results_are_made_again(suffix: str, clip: Path, fake: FakeCodec, tmp_path: Path) -> None:
    chosen = plan(clip, tmp_path, anchors=(), bpps=(0.5,))
    first = everything(chosen)
    (path,) = (p for p in (tmp_path / "work").rglob(f"nvcodec-*{suffix}") if "quality" not in p.name)
    path.write_bytes(path.read_bytes()[:-3])
    assert everything(chosen)["clips"] == first["clips"]
    assert fake.targets == [0.5, 0.5]


def test_interrupted_work_goes_on(clip: Path, fake: FakeCodec, tmp_path: Path) -> None:
    def stop(bpp: float) -> None:
        if bpp == 0.4:
            raise KeyboardInterrupt

    fake.on_encode = stop
    command = [
        "rd",
        clip,
        "-o",
        tmp_path / "out",
        "--bpp",
        "0.1,0.2,0.4,0.8",
        "--anchors",
        "x264:ultrafast",
        "--effort",
        "fast",
    ]
    result = cwrv(*command)
    assert (result.exit_code, result.stderr) == (130, "cwrv: interrupted\n")
    assert fake.targets == [0.1, 0.2, 0.4]
    assert not [p for p in (tmp_path / "out").rglob("*") if ".part" in p.name]
    fake.on_encode = lambda bpp: None
    result = cwrv(*command)
    assert (result.exit_code, result.stderr) == (0, f"{tmp_path / 'out' / 'report.html'}\n")
    assert fake.targets == [0.1, 0.2, 0.4, 0.4, 0.8]
    assert result.stdout.startswith("moving against x264:ultrafast: BD-rate ")


def test_progress_goes_forward_to_the_end(clip: Path, fake: FakeCodec, tmp_path: Path) -> None:
    for bpps, jobs in (((0.1, 0.2, 0.4), 3), ((0.1, 0.2, 0.3, 0.4, 0.8), 5)):
        chosen, told = plan(clip, tmp_path, bpps=bpps, anchors=parse_anchors("x264:ultrafast")), []
        run.compute(chosen, run.check_plan(chosen), told.append)
        fractions = [progress.fraction for progress in told]
        assert fractions == sorted(fractions)
        assert 0 <= fractions[0] < 0.5
        assert fractions[-1] == pytest.approx(1)
        assert told[-1].what == "moving x264:ultrafast: done"
        ours = [progress for progress in told if "bpp" in progress.what]
        assert (ours[-1].jobs_done, ours[-1].jobs) == (jobs, jobs)


def test_results(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, found = finished
    assert json.loads((folder / "results.json").read_text()) == found
    (only,) = found["clips"]
    assert (only["name"], only["width"], only["frame_count"]) == ("moving", 176, COUNT)
    samples = 176 * 176 * COUNT
    assert [point["target_bpp"] for point in only["ours"]] == [0.1, 0.2, 0.4, 0.8]
    for point in (*only["ours"], *(p for anchor in only["anchors"] for p in anchor["points"])):
        file = folder / only["work"] / point["file"]
        assert point["bytes"] == file.stat().st_size
        assert point["bpp"] == pytest.approx(8 * point["bytes"] / samples)
        assert point["kbps"] == pytest.approx(8 * point["bytes"] / (COUNT / 25) / 1000)
        for name in ("psnr_y", "psnr_u", "psnr_v", "psnr_rgb", "psnr_yuv_611", "ms_ssim"):
            assert point[name] == pytest.approx(sum(point["by_frame"][name]) / COUNT)
        assert len(point["frame_bits"]) == COUNT
    for anchor in only["anchors"]:
        curve = anchor["points"]
        assert len(curve) >= 4
        for key in ("bytes", "psnr_yuv_611"):
            assert min(p[key] for p in curve) <= min(p[key] for p in only["ours"])
            assert max(p[key] for p in curve) >= max(p[key] for p in only["ours"])
        assert anchor["misses"] == []
        assert all(sum(p["frame_bits"]) == 8 * p["bytes"] for p in curve)
        assert sorted(target for p in curve for target in p["matches"]) == [0.1, 0.2, 0.4, 0.8]
        assert isinstance(anchor["bd"]["psnr_y"]["rate"]["value"], float)
    assert {"torch", "av", "bjontegaard", "pytorch-msssim"} <= set(found["environment"]["packages"])
    assert found["command"] == "cwrv rd ..."


def test_what_an_anchor_cannot_reach_is_told(fake: FakeCodec, tmp_path: Path) -> None:
    """Text of settings alone is more than our lowest rate."""
    source = moving_clip(tmp_path / "a.mkv", 96, 80)
    chosen = plan(source, tmp_path / "out", bpps=(0.05, 0.2, 0.4), anchors=parse_anchors("x264:ultrafast"))
    (anchor,) = everything(chosen)["clips"][0]["anchors"]
    assert anchor["misses"] == ["lowest rate"]
    assert anchor["bd"]["psnr_y"]["rate"]["note"].startswith("from 3 points")


def test_table(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, found = finished
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    (only,) = found["clips"]
    points = [*only["ours"], *(p for anchor in only["anchors"] for p in anchor["points"])]
    assert [(row["codec"], row["bytes"], float(row["psnr_y"])) for row in rows] == [
        (p["codec"], str(p["bytes"]), p["psnr_y"]) for p in points
    ]
    assert {row["clip"] for row in rows} == {"moving"}


def test_pictures_of_the_curves(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    svg = (folder / "rd.svg").read_text()
    for word in ("nvcodec fast", "x264:ultrafast", "svtav1:12", "moving, 6 frames", "bits per pixel"):
        assert word in svg
    assert (folder / "rd.png").read_bytes().startswith(b"\x89PNG")


def test_small_pictures_have_no_ms_ssim(fake: FakeCodec, tmp_path: Path) -> None:
    found = everything(plan(moving_clip(tmp_path / "a.mkv", 160, 160), tmp_path / "out", anchors=(), bpps=(0.5,)))
    (point,) = found["clips"][0]["ours"]
    assert (point["ms_ssim"], point["ms_ssim_db"]) == (None, None)


def test_the_real_codec(tmp_path: Path) -> None:
    """Our encoder and decoder, and what the file says of itself."""
    source = moving_clip(tmp_path / "a.mkv", 96, 80, 2)
    arguments = ["--bpp", "0.15,0.3,0.5", "--effort", "fast", "--anchors", "x264:ultrafast", "--threads", "1"]
    arguments += ["--device", "cpu"]
    result = cwrv("rd", source, "-o", tmp_path / "out", *arguments)
    assert (result.exit_code, result.stderr) == (0, f"{tmp_path / 'out' / 'report.html'}\n")
    (clip,) = json.loads((tmp_path / "out" / "results.json").read_text())["clips"]
    for point in clip["ours"]:
        file = next((tmp_path / "out" / "work").rglob(point["file"]))
        info = json.loads(cwrv("info", file, "--json").stdout)
        told = info["bytes_by_purpose"]
        purposes = point["bytes_by_purpose"]
        for purpose in ("weights", "motion", "blocks"):
            assert purposes[purpose] == told[purpose]
        assert sum(purposes.values()) == pytest.approx(file.stat().st_size)
        assert sum(point["frame_bits"]) == pytest.approx(sum(u["bits"] for s in info["segments"] for u in s["units"]))
        assert cwrv("decode", file, "-o", tmp_path / "d.y4m", "-y").exit_code == 0
        rows = [frame_psnr(a, b) for a, b in zip(read(tmp_path / "d.y4m")[1], read(source)[1], strict=True)]
        assert point["by_frame"]["psnr_y"] == [row.y for row in rows]
        assert point["psnr_yuv_611"] == pytest.approx(sum(row.yuv_611 for row in rows) / 2)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--anchors", "vp9:good"], 1, ["unknown anchor 'vp9'"]),
        (["--anchors", "x265:quick"], 1, ["no preset 'quick'"]),
        (["--bpp", "0.1,0.2"], 1, ["2 points are too few for a BD figure"]),
        (["--bpp", "0.1,0.2,0.2,0.3"], 1, ["given twice"]),
        (["--bpp", "0.1,zero"], 2, ["'zero' is not a target"]),
        (["--bpp", "0.1,0"], 2, ["'0' is not a target"]),
        (["--frames", "2:9"], 1, ["frames 2:9 were asked for, but it has only 6 frames"]),
        (["--frames", "7:"], 1, ["only 6 frames"]),
        (["--effort", "heroic"], 2, ["heroic"]),
        (["--device", "cuda"], 1, ["no CUDA device"]),
        (["missing.mkv"], 1, ["missing.mkv: no such file"]),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_any_work(
    arguments: list[str], status: int, words: list[str], clip: Path, fake: FakeCodec, tmp_path: Path
) -> None:
    if "cuda" in arguments and torch.cuda.is_available():
        arguments, words = ["--anchors", "x264"], ["ENCODER:PRESET"]
    fails(cwrv("rd", clip, "-o", tmp_path / "out", *arguments), status, *words)
    assert fake.targets == []
    assert not (tmp_path / "out").exists()


def test_clips_that_no_anchor_takes(fake: FakeCodec, tmp_path: Path) -> None:
    odd = moving_clip(tmp_path / "odd.mkv", 97, 80)
    fails(cwrv("rd", odd, "-o", tmp_path / "out"), 1, "odd.mkv: anchor x264:medium needs an even width", "97x80")
    (tmp_path / "file").write_bytes(b"")
    fails(cwrv("rd", DEMO, "-o", tmp_path / "file"), 1, "file is not a directory")
    assert fake.targets == []


def test_a_missing_package_is_named(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extra, "PACKAGES", ("torch", "no_such_package"))
    fails(cwrv("rd", clip, "-o", tmp_path / "out"), 1, "rd needs no_such_package: pip install 'nvcodec[rd]'")


def test_failures_name_clip_and_target(clip: Path, fake: FakeCodec, tmp_path: Path) -> None:
    def fail(bpp: float) -> None:
        raise EncodeError("cannot be met")

    fake.on_encode = fail
    fails(cwrv("rd", clip, "-o", tmp_path, "--anchors", "none", "--bpp", "0.1"), 1, "moving at 0.1 bpp: cannot be met")


def test_the_segment_is_the_anchors_key_frame_interval(clip: Path, fake: FakeCodec, tmp_path: Path) -> None:
    settings = run.CodecSettings(effort="fast", segment=2, device="cpu", threads=1)
    (only,) = everything(plan(clip, tmp_path, settings=settings))["clips"]
    assert {p["key_frames"] for anchor in only["anchors"] for p in anchor["points"]} == {3}


def test_names_are_distinct() -> None:
    assert name_clips(["a/x.mkv", "b/x.y4m", "x-2.mp4", "img_%03d.png"]) == ["x", "x-2", "x-2-2", "img__03d"]


def test_content_is_told_by_its_samples(clip: Path, tmp_path: Path) -> None:
    whole, part = inspect_clip(str(clip), "a", None), inspect_clip(str(clip), "a", (0, COUNT - 1))
    assert (whole.count, part.count) == (COUNT, COUNT - 1)
    assert whole.digest != part.digest
    copy = tmp_path / "other-name.mkv"
    copy.write_bytes(clip.read_bytes())
    assert inspect_clip(str(copy), "b", (0, COUNT)).digest == whole.digest


def test_jobs_in_processes_end_in_the_same_results(clip: Path, tmp_path: Path, fake: FakeCodec) -> None:
    """Ours are finished before; the anchors' curves come from processes of their own."""
    everything(plan(clip, tmp_path, anchors=()))
    chosen = plan(clip, tmp_path, jobs=2, settings=FAST)
    first = everything(chosen)
    names = {path.name for path in tmp_path.rglob("*") if path.suffix in (".264", ".obu")}
    assert names
    again = plan(clip, tmp_path, settings=FAST)
    assert everything(again)["clips"] == first["clips"]
    assert anchors.CODERS["x264"].suffix == ".264"


def test_translation_is_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def encode(*_: Any, **__: Any) -> int:
        def plus(x: int) -> int:
            return x + 1

        return int(numba.njit(plus)(41))

    monkeypatch.setattr(points, "encode", encode)
    told: list[tuple[float, str]] = []
    clip = Clip("clip", "clip", None, 1, Fraction(1, 25), properties(16, 16), "", "")
    assert points._encode(clip, tmp_path / "a", EncodeOptions(), lambda *what: told.append(what)) == 42
    assert told == [(0.0, "translating what runs often, once on a machine")]
