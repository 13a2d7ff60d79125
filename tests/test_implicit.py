"""Implicit segments end to end: a network in a file, the same frames everywhere, and encodes that go on."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_frames
from recurrent_module import OwnRecurrent
from stand_in_cuda import stand_in_cuda
from test_checkpoint import stopped, write_clip
from test_exactness import decode_apart, hash_here, hash_in
from video_samples import properties

from nvcodec.account import describe
from nvcodec.core.errors import BitstreamError, EncodeError, TargetError
from nvcodec.decoder import Decoder, FrameHash
from nvcodec.encoder import checkpoint
from nvcodec.encoder.pipeline import EncodeOptions, EncodeReport, Progress, encode
from nvcodec.encoder.working_domain import working_samples
from nvcodec.implicit.encoder import stages
from nvcodec.implicit.encoder.budget import meet_by_steps
from nvcodec.implicit.encoder.model import distortion
from nvcodec.media.y4m import write_y4m

HNERV = EncodeOptions(model="hnerv", params=4e3, epochs=3, effort="fast", device="cpu", threads=1)
OWN = EncodeOptions(model="module", bpp=6.0, epochs=3, effort="fast", device="cpu", threads=1)
MODELS: dict[str, tuple[EncodeOptions, Any]] = {"hnerv": (HNERV, None), "recurrent": (OWN, OwnRecurrent)}
"""Options and, where users bring it, the module."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, EncodeReport]]:
    """By model: a file of five frames of 32x16."""
    folder = tmp_path_factory.mktemp("implicit")
    clip = write_clip(folder / "clip.y4m")
    return {
        name: (folder / f"{name}.cwrv", encode(clip, folder / f"{name}.cwrv", options, module=module))
        for name, (options, module) in MODELS.items()
    }


@pytest.fixture(params=MODELS)
def file(request: pytest.FixtureRequest, files: dict[str, tuple[Path, EncodeReport]]) -> tuple[Path, EncodeReport]:
    return files[request.param]


def planes(path: Path, *range_: int) -> list[tuple[torch.Tensor, ...]]:
    with Decoder(path, device="cpu") as decoder:
        return [frame.planes for frame in decoder.frames(*range_)]


def digest(path: Path, device: str = "cpu") -> bytes:
    made = FrameHash()
    with Decoder(path, device=device, threads=1) as decoder:
        for frame in decoder:
            made.add(frame.planes)
    return made.digest()


def test_the_file_is_what_was_meant(file: tuple[Path, EncodeReport]) -> None:
    path, report = file
    assert path.stat().st_size == report.file_bytes
    with Decoder(path) as decoder:
        decoder.verify()
    (stages,) = report.stages
    assert stages["fitted"] > 10
    assert 0.05 < stages["sparsity"] < 0.25
    with Decoder(path) as decoder:
        made = torch.stack([working_samples(frame) for frame in decoder]) / 1024 - 0.5
    source = torch.stack([working_samples(frame) for frame in tiny_frames(32, 16, 5)]) / 1024 - 0.5
    reached = -10 * math.log10(float(distortion(made, source)))
    assert reached == pytest.approx(stages["tuned"], abs=0.6)  # the file's 8 bits, not the twin's word for it


def test_sizes_are_met(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.y4m")
    for bpp in (3.0, 8.0):
        report = encode(clip, tmp_path / "a.cwrv", replace(HNERV, params=None, bpp=bpp), overwrite=True)
        assert 0.95 * bpp <= report.bpp <= 1.02 * bpp
    by_params = encode(clip, tmp_path / "a.cwrv", replace(HNERV, params=2e3), overwrite=True)
    (stages,) = by_params.stages
    numbers = stages["weights"] + stages["latents"]
    assert 4.5 < 8 * (by_params.file_bytes - 200) / numbers < 6.5


def test_where_the_bits_went(file: tuple[Path, EncodeReport]) -> None:
    path, report = file
    with Decoder(path) as decoder:
        info = describe(decoder, path.name)
    (segment,) = info["segments"]
    assert segment["representation"] == "implicit"
    assert sum(info["bytes_by_purpose"].values()) == pytest.approx(report.file_bytes)
    assert 60 < info["bytes_by_purpose"]["program"] <= 300
    assert segment["parameters"] == report.stages[0]["weights"]
    assert segment["latents"] == report.stages[0]["latents"]
    assert segment["zero_weights"] >= report.stages[0]["sparsity"] * segment["weights"] - 1
    assert segment["weight_bits"] == pytest.approx(report.stages[0]["weight_bits"], rel=0.02)
    frames = sorted(n for unit in segment["units"] for n in unit["frames"])
    assert frames == list(range(5))


def test_ranges_are_parts_of_the_whole(file: tuple[Path, EncodeReport]) -> None:
    path, _ = file
    whole = planes(path)
    for start in range(5):
        for stop in range(start + 1, 6):
            part = planes(path, start, stop)
            assert len(part) == stop - start
            assert all(map(torch.equal, sum(part, ()), sum(whole[start:stop], ())))


@pytest.mark.parametrize(
    "arithmetic",
    [
        {"threads": 2},
        {"mkldnn": False},
        {"ATEN_CPU_CAPABILITY": "default"},
        {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    ],
    ids=lambda arithmetic: next(iter(arithmetic)),
)
def test_every_arithmetic_gives_the_same_frames(file: tuple[Path, EncodeReport], arithmetic: dict[str, Any]) -> None:
    if any(name.isupper() for name in arithmetic) and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("names of x86 kernels")
    path, _ = file
    assert hash_in(decode_apart(path, **arithmetic)) == hash_here(path)


def test_a_device_gives_the_same_frames(file: tuple[Path, EncodeReport]) -> None:
    path, _ = file
    expected = digest(path)
    if torch.cuda.is_available():
        assert digest(path, "cuda") == expected
        return
    with stand_in_cuda():
        assert digest(path, "cuda") == expected


def test_a_changed_byte_is_found(file: tuple[Path, EncodeReport], tmp_path: Path) -> None:
    path, report = file
    good = path.read_bytes()
    for place in range(0, report.file_bytes, max(1, report.file_bytes // 40)):
        bad = tmp_path / "bad.cwrv"
        bad.write_bytes(good[:place] + bytes([good[place] ^ 0x10]) + good[place + 1 :])
        with pytest.raises(BitstreamError), Decoder(bad) as decoder:
            decoder.verify()


@pytest.fixture
def at_every_epoch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Checkpoints whatever they cost."""
    monkeypatch.setattr(checkpoint, "_SHARE", 1e9)
    return


@pytest.mark.usefixtures("at_every_epoch")
@pytest.mark.parametrize("name", MODELS)
def test_a_stopped_encode_goes_on_to_the_same_bytes(
    name: str, tmp_path: Path, files: dict[str, tuple[Path, EncodeReport]]
) -> None:
    clip, output = write_clip(tmp_path / "clip.y4m"), tmp_path / "out.cwrv"
    options, module = MODELS[name]
    for _ in range(3):
        stopped(clip, output, options, units=2, module=module)
    told: list[Progress] = []
    report = encode(clip, output, options, progress=told.append, module=module)
    assert report.resumed
    assert output.read_bytes() == files[name][0].read_bytes()
    assert report.stages == files[name][1].stages
    assert told[0].seconds is None  # what is left of it, the bar shows


@pytest.mark.usefixtures("at_every_epoch")
def test_segments_share_what_they_can(tmp_path: Path) -> None:
    clip, output = write_clip(tmp_path / "clip.y4m"), tmp_path / "out.cwrv"
    options = replace(HNERV, segment=3, epochs=2)
    encode(clip, tmp_path / "straight.cwrv", options)
    stopped(clip, output, options, units=7)  # in the second segment
    report = encode(clip, output, options)
    assert output.read_bytes() == (tmp_path / "straight.cwrv").read_bytes()
    assert len(report.stages) == 2
    with Decoder(output) as decoder:
        decoder.verify()
        assert len(decoder.programs) == len(set(decoder.container.programs))


def test_the_time_it_will_take_is_told_first(tmp_path: Path) -> None:
    told: list[Progress] = []
    encode(write_clip(tmp_path / "clip.y4m"), tmp_path / "out.cwrv", HNERV, progress=told.append)
    assert told[0].seconds is not None
    assert told[0].seconds > 0
    assert all(progress.seconds is None for progress in told[1:])
    fractions = [progress.fraction for progress in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1)
    assert [progress.stage.split(",")[0] for progress in told][:4] == ["fit"] * 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model": "hnerv", "quality": 30}, "give bpp, bitrate, size or params, not quality"),
        ({"model": "hnerv", "gop": 4}, "model hnerv takes no gop"),
        ({"model": "hybrid", "params": 1e5}, "model hybrid takes no params"),
        ({"model": "hybrid", "epochs": 5}, "model hybrid takes no epochs"),
        ({"model": "nonsense"}, "unknown model 'nonsense'"),
        ({"model": "hnerv", "params": 5.0}, "params 5 lies outside"),
        ({"model": "hnerv", "epochs": 0}, "epochs 0 lies outside"),
        ({"model": "module", "params": 1e5}, "model module takes no params"),
    ],
)
def test_choices_that_do_not_go_together(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(EncodeError, match=message):
        EncodeOptions(**wrong)


def test_one_frame_and_odd_sizes(tmp_path: Path) -> None:
    for width, height, count in ((1, 1, 1), (33, 17, 2), (20, 40, 1)):
        path = tmp_path / f"{width}.y4m"

        with path.open("wb") as stream:
            write_y4m(stream, properties(width, height), tiny_frames(width, height, count))
        for options, module in ((replace(HNERV, epochs=1), None), (replace(OWN, bpp=None, epochs=1), OwnRecurrent)):
            report = encode(path, tmp_path / "a.cwrv", options, overwrite=True, module=module)
            assert report.frames == count
            assert len(planes(tmp_path / "a.cwrv")) == count


def test_a_size_that_no_network_fits_is_refused(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.y4m")
    small = ((replace(HNERV, params=None, size=180), None), (replace(OWN, bpp=None, size=250), OwnRecurrent))
    for options, module in small:
        with pytest.raises(TargetError, match=r"its program alone takes \d+|the target leaves \d+"):
            encode(clip, tmp_path / "a.cwrv", options, module=module)
    assert not list(tmp_path.glob("a.*"))


def test_a_size_beyond_the_network_is_refused_before_the_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*arguments: object) -> None:
        raise AssertionError("fitted")

    monkeypatch.setattr(stages, "_overfit", fit)
    clip = write_clip(tmp_path / "clip.y4m")
    with pytest.raises(TargetError, match=r"fewer than \d+ bytes, the target leaves \d+"):
        encode(clip, tmp_path / "a.cwrv", replace(HNERV, params=1000, bpp=None, size=1_000_000))
    assert not list(tmp_path.glob("a.*"))


def test_a_size_that_is_missed_at_last_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "_meet", lambda work: meet(work, 0.5))

    def meet(work: stages._Work, share: float) -> None:
        assert work.importance is not None
        assert work.wanted is not None
        work.unit = meet_by_steps(work.model, work.importance, work.bits, share * work.wanted, work.unit)

    clip = write_clip(tmp_path / "clip.y4m")
    with pytest.raises(TargetError, match="cannot be met"):
        encode(clip, tmp_path / "a.cwrv", replace(HNERV, epochs=1, size=2750))
    assert not list(tmp_path.glob("a.*"))


def test_several_segments_keep_the_size(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.y4m")
    report = encode(clip, tmp_path / "a.cwrv", replace(HNERV, params=None, size=6000, segment=2, epochs=2))
    assert 0.95 * 6000 <= report.file_bytes <= 1.02 * 6000


def test_too_many_segments_are_refused_before_the_fit(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.y4m", count=17)
    with pytest.raises(EncodeError, match="17 segments with a network each: a file holds 16"):
        encode(clip, tmp_path / "a.cwrv", replace(HNERV, segment=1))


def test_a_module_and_its_model_go_together(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.y4m")
    with pytest.raises(EncodeError, match="model 'module' and a module go together"):
        encode(clip, tmp_path / "a.cwrv", HNERV, module=lambda sizes: torch.nn.Identity())
    with pytest.raises(EncodeError, match="model 'module' and a module go together"):
        encode(clip, tmp_path / "a.cwrv", replace(HNERV, model="module", params=None))
