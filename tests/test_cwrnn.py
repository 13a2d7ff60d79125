"""CWRNN end to end: a file of the mixed residual grid, the same frames everywhere, and encodes that go on."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Encoded, tiny_frames
from run_cwrv import cwrv
from stand_in_cuda import stand_in_cuda
from test_checkpoint import Stop, write_clip
from test_exactness import decode_apart, hash_here, hash_in
from video_samples import properties

from nvcodec.account import describe
from nvcodec.core.errors import BitstreamError, EncodeError, TargetError, UnsupportedError
from nvcodec.core.metrics import frame_psnr, mean_psnr
from nvcodec.decoder import Decoder, FrameHash
from nvcodec.encoder import checkpoint
from nvcodec.encoder.checkpoint import Checkpoint
from nvcodec.encoder.gop_trials import GopTrials
from nvcodec.encoder.pipeline import EncodeOptions, EncodeReport, Progress, encode
from nvcodec.exact.layer import calibrate, exact_layers
from nvcodec.exact.operation import Sizes
from nvcodec.exact.tracing import place
from nvcodec.grid.levels import GRID_STRIDES
from nvcodec.implicit import starts
from nvcodec.implicit.encoder import recurrent_representation, recurrent_stages
from nvcodec.implicit.encoder.start import choose_steps, starting_point, write_trained
from nvcodec.implicit.encoder.weight_fit import WeightFit
from nvcodec.implicit.models.cwrnn import CWRNN, Widths
from nvcodec.implicit.payload import IMPLICIT_FROM_START
from nvcodec.media.y4m import write_y4m

OPTIONS = EncodeOptions(model="cwrnn", bpp=1.6, epochs=2, effort="fast", device="cpu", threads=1)
NARROW = replace(OPTIONS, params=3000)
"""Nothing is shipped for so few weights."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("cwrnn") / "clip.y4m")


@pytest.fixture(scope="module")
def file(clip: Path) -> tuple[Path, EncodeReport]:
    """Five frames of 32x16."""
    path = clip.with_name("file.cwrv")
    return path, encode(clip, path, OPTIONS)


def info(path: Path) -> dict[str, Any]:
    with Decoder(path, device="cpu") as decoder:
        return describe(decoder, path.name)


def planes(path: Path, *range_: int) -> list[tuple[torch.Tensor, ...]]:
    with Decoder(path, device="cpu") as decoder:
        return [frame.planes for frame in decoder.frames(*range_)]


def test_the_file_is_what_was_meant(file: tuple[Path, EncodeReport]) -> None:
    path, report = file
    assert path.stat().st_size == report.file_bytes
    with Decoder(path) as decoder:
        decoder.verify()
        assert decoder.container.metadata == {"model": "cwrnn"}
    with Decoder(path, threads=1) as decoder:
        psnr = [frame_psnr(*pair) for pair in zip(decoder, tiny_frames(32, 16, 5), strict=True)]
    assert report.psnr_yuv == pytest.approx(mean_psnr(psnr).yuv_611)
    assert report.psnr_yuv > 35
    (stages,) = report.stages
    assert stages["error_overfitted"] < stages["error_before"]
    assert 0 < stages["sparsity"] <= 1


def test_what_is_told_on_the_way(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last stage comes again where the size is not met at once, as it would be if lambda had moved before; the bar
    does not go back, nor beyond its end."""
    monkeypatch.setattr(recurrent_stages, "_follow_target", lambda work: None)
    told: list[Progress] = []
    encode(clip, tmp_path / "a.cwrv", replace(NARROW, bpp=4.0), frames=(0, 2), progress=told.append)
    assert [progress.stage for progress in told].count("final") > 2
    fractions = [progress.fraction for progress in told]
    assert fractions == sorted(fractions)
    assert 0.95 < fractions[-1] <= 1
    assert all(0 <= progress.frame <= 2 for progress in told)
    stages = list(dict.fromkeys(progress.stage for progress in told))
    overfits = ["overfit, epoch 1 of 2", "overfit, epoch 2 of 2"]
    assert stages == ["look ahead", "fit", *overfits, "refine", "settle", "tune", "final"]


def test_sizes_are_met(file: tuple[Path, EncodeReport], clip: Path, tmp_path: Path) -> None:
    """Of the whole file, its program included."""
    assert 0.95 * 1.6 <= file[1].bpp <= 1.02 * 1.6
    for options in (replace(NARROW, bpp=1.5), replace(NARROW, bpp=None, size=700)):
        report = encode(clip, tmp_path / "a.cwrv", options, overwrite=True)
        wanted = options.size or options.bpp * 5 * 32 * 16 / 8
        assert 0.95 * wanted <= report.file_bytes <= 1.02 * wanted


def test_quality_and_gop(clip: Path, tmp_path: Path) -> None:
    found = []
    for quality, gop in ((24, 2), (40, 8)):
        options = replace(NARROW, bpp=None, quality=quality, gop=gop, epochs=1)
        found.append(encode(clip, tmp_path / "a.cwrv", options, overwrite=True))
        (segment,) = info(tmp_path / "a.cwrv")["segments"]
        assert segment["gop"] == gop
        assert [unit["type"] for unit in segment["units"]][:3] == ["I", "P", "B"]
        assert len(segment["units"]) == {2: 5, 8: 4}[gop]
    assert found[0].file_bytes > 1.2 * found[1].file_bytes
    assert found[0].psnr_yuv > found[1].psnr_yuv + 4


def test_where_the_bits_went(file: tuple[Path, EncodeReport]) -> None:
    path, report = file
    found = info(path)
    (segment,) = found["segments"]
    assert segment["representation"] == "implicit"
    assert sum(found["bytes_by_purpose"].values()) == pytest.approx(report.file_bytes)
    assert 30 < found["bytes_by_purpose"]["program"] < 250
    assert list(segment["grid_bits"]) == list(GRID_STRIDES)
    for stride in GRID_STRIDES:
        of_units = sum(unit["grid_bits"][stride] for unit in segment["units"])
        assert segment["grid_bits"][stride] == pytest.approx(of_units)
    assert found["bytes_by_purpose"]["grid"] == pytest.approx(sum(segment["grid_bits"].values()) / 8)
    assert segment["grid_bits"][8] > 100
    for unit in segment["units"]:
        assert unit["bits"] == pytest.approx(unit["motion_bits"] + sum(unit["grid_bits"].values()))
    assert (segment["latents"], segment["latent_bits"], found["bytes_by_purpose"]["latents"]) == (0, {}, 0)
    assert segment["parameters"] == report.stages[0]["weights"] == Widths.of(16.5e3).weights
    assert segment["weight_bits"] == pytest.approx(report.stages[0]["weight_bits"], rel=0.01)
    assert sorted(n for unit in segment["units"] for n in unit["frames"]) == list(range(5))


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
    [{"threads": 2}, {"mkldnn": False}, {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}],
    ids=["two threads", "without oneDNN", "oldest kernels"],
)
def test_every_arithmetic_gives_the_same_frames(file: tuple[Path, EncodeReport], arithmetic: dict[str, Any]) -> None:
    """In a process that has no modules of the encoder."""
    if any(name.isupper() for name in arithmetic) and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("names of x86 kernels")
    path, _ = file
    assert hash_in(decode_apart(path, **arithmetic)) == hash_here(path)


@pytest.fixture
def cuda() -> Iterator[None]:
    if torch.cuda.is_available():
        yield
        return
    with stand_in_cuda():
        yield


def digest(path: Path, device: str) -> bytes:
    made = FrameHash()
    with Decoder(path, device=device, threads=1) as decoder:
        assert decoder.device.type == device
        for frame in decoder:
            made.add(frame.planes)
    return made.digest()


def test_a_device_gives_the_same_frames(file: tuple[Path, EncodeReport], request: pytest.FixtureRequest) -> None:
    path, _ = file
    expected = digest(path, "cpu")
    request.getfixturevalue("cuda")
    assert digest(path, "cuda") == expected


@pytest.mark.usefixtures("cuda")
def test_what_is_encoded_on_a_device_decodes_on_the_cpu(encode_tiny: Callable[..., Encoded]) -> None:
    made = encode_tiny(16, 16, 3, model="cwrnn", params=3000, quality=30, epochs=1, gop=2, device="cuda")
    with Decoder(made.path, device="cpu", threads=1) as decoder:
        decoder.verify()


def test_a_changed_byte_is_found(file: tuple[Path, EncodeReport], tmp_path: Path) -> None:
    path, report = file
    good = path.read_bytes()
    for at in range(0, report.file_bytes, max(1, report.file_bytes // 40)):
        bad = tmp_path / "bad.cwrv"
        bad.write_bytes(good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :])
        with pytest.raises(BitstreamError), Decoder(bad) as decoder:
            decoder.verify()


# A start


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The file of a start for so few weights as NARROW has, which encoder and decoder know."""
    torch.manual_seed(5)
    sizes = Sizes((24, 32), (6, 8), 1)
    module = CWRNN(sizes, 3000)
    place(module, sizes)
    for layer in exact_layers(module):
        layer.peak = 3.0
    calibrate(module, recurrent_stages.ACTIVATION_BITS)
    choose_steps(module)
    write_trained(tmp_path, "start", module, sizes, recurrent_stages.ACTIVATION_BITS)
    data = (tmp_path / "start.bin").read_bytes()
    fractions = {name: layer.fraction for name, layer in module.named_modules() if hasattr(layer, "fraction")}
    monkeypatch.setattr(recurrent_representation, "starting_point", lambda name: (data, fractions))
    monkeypatch.setattr(starts, "shipped_starts", lambda: {starts.start_name(data): data})
    return data


def test_a_segment_from_a_start(start: bytes, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the start, takes less for its weights, and is refused by a decoder that does not know it."""
    path = tmp_path / "a.cwrv"
    report = encode(clip, path, replace(NARROW, bpp=1.6))
    assert 0.95 * 1.6 <= report.bpp <= 1.02 * 1.6
    with Decoder(path) as decoder:
        (segment,) = decoder.container.iter_segments()
        decoder.verify()
        (found,) = describe(decoder, path.name)["segments"]
    assert segment.payload[0] >> 4 == IMPLICIT_FROM_START
    assert segment.payload[2 : 2 + starts.NAME_BYTES] == starts.start_name(start)
    assert found["header_bytes"] == 2 + starts.NAME_BYTES
    assert found["zero_weights"] < 0.1 * found["weights"]  # they are those of the start
    assert found["weight_bits"] < 1000
    monkeypatch.setattr(starts, "shipped_starts", dict)
    with pytest.raises(UnsupportedError, match=f"start {starts.start_name(start).hex()}"), Decoder(path) as decoder:
        decoder.verify()


@pytest.mark.parametrize("options", [NARROW, EncodeOptions(effort="fast", device="cpu", threads=1)])
def test_motion_that_is_not_predicted(
    options: EncodeOptions, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a trial says so, the header does, the version is 7, and the file decodes to what was meant."""
    monkeypatch.setattr(GopTrials, "best", lambda self, on_trial: (2, False))
    path = tmp_path / "a.cwrv"
    encode(clip, path, replace(options, bpp=None, quality=25), frames=(0, 3))
    with Decoder(path) as decoder:
        assert decoder.container.major == 7
        assert describe(decoder, path.name)["version"] == "7.0"
        (found,) = decoder.account()["segments"]
        assert (found["gop"], found["motion_prediction"]) == (2, False)
        decoder.verify()
    assert "GOP 2, motion not predicted" in cwrv("info", path).stdout


def test_every_price_begins_with_the_weights_as_they_were_fitted(
    start: bytes, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with those that another price has pruned and tuned."""
    effort = replace(recurrent_stages.EFFORTS["fast"], prices=(0.01, 0.02))
    monkeypatch.setitem(recurrent_stages.EFFORTS, "fast", effort)
    seen: dict[float, list[torch.Tensor]] = {}
    choose = WeightFit.choose

    def watched(self: WeightFit, sensitivity: Any, price: float = 1.0) -> None:
        seen.setdefault(price, [value.detach().clone() for value in self.values.values()])
        choose(self, sensitivity, price)

    monkeypatch.setattr(WeightFit, "choose", watched)
    encode(clip, tmp_path / "a.cwrv", replace(NARROW, bpp=None, quality=20, epochs=2), frames=(0, 3))
    assert all(torch.equal(first, second) for first, second in zip(seen[0.01], seen[0.02], strict=True))


# Encodes that go on

CASES = {"no start": NARROW, "made start": NARROW, "shipped start": OPTIONS}


@pytest.mark.parametrize("name", CASES)
def test_a_stopped_encode_goes_on_to_the_same_bytes(
    name: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Stopped whenever something was kept, between two attempts at the size, too."""
    options = replace(CASES[name], epochs=2, bpp=3.0 if name == "no start" else 1.6)
    is_shipped = starting_point(f"cwrnn{Widths.of(16.5e3).half}") is not None
    if name == "shipped start" and not is_shipped:
        pytest.skip("there is none")
    if name == "made start":
        request.getfixturevalue("start")
    monkeypatch.setattr(checkpoint, "_SHARE", 1e9)  # checkpoints whatever they cost
    frames = (0, 3)
    whole = encode(clip, tmp_path / "whole.cwrv", options, frames=frames)
    keep, stops = Checkpoint.keep, 0

    def keep_and_stop(self: Checkpoint, state: Any) -> None:
        keep(self, state)
        raise Stop

    output = tmp_path / "a.cwrv"
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "keep", keep_and_stop)
        while not output.exists():
            try:
                report = encode(clip, output, options, frames=frames)
            except Stop:
                stops += 1
                assert stops < 30
    assert stops >= 10  # look ahead, two rounds of fit, overfit and its two epochs, settle, tune, final
    assert report.resumed
    assert output.read_bytes() == (tmp_path / "whole.cwrv").read_bytes()
    assert report.stages == whole.stages


# Sizes and segments


def test_one_frame_and_odd_sizes(tmp_path: Path) -> None:
    for width, height, count in ((1, 1, 1), (33, 17, 2)):
        path = tmp_path / f"{width}.y4m"
        with path.open("wb") as stream:
            write_y4m(stream, properties(width, height), tiny_frames(width, height, count))
        report = encode(path, tmp_path / "a.cwrv", replace(NARROW, bpp=None, quality=10, epochs=1), overwrite=True)
        assert report.frames == count
        made = planes(tmp_path / "a.cwrv")
        assert len(made) == count
        assert made[0][0].shape == (height, width)
        assert (width, height) == (1, 1) or report.psnr_yuv > 30


def test_several_segments(clip: Path, tmp_path: Path) -> None:
    """Each with a network and a program of its own, in one size."""
    report = encode(clip, tmp_path / "a.cwrv", replace(NARROW, bpp=None, size=1000, segment=3, epochs=1))
    assert 0.95 * 1000 <= report.file_bytes <= 1.02 * 1000
    assert len(report.stages) == 2
    found = info(tmp_path / "a.cwrv")
    assert [segment["program"] for segment in found["segments"]] in ([0, 1], [0, 0])
    assert sum(found["bytes_by_purpose"].values()) == pytest.approx(report.file_bytes)
    with Decoder(tmp_path / "a.cwrv") as decoder:
        decoder.verify()
        assert len(decoder.programs) == 1 + max(segment["program"] for segment in found["segments"])


# What is refused


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"params": 2999}, "params 2999 lies outside 3000 .. 3000000"),
        ({"params": 3.1e6}, r"params 3.1e\+06 lies outside 3000 .. 3000000"),
        ({"width": 24}, "model cwrnn takes no width"),
        ({"gop": 65}, "gop 65 lies outside 1 .. 64"),
        ({"epochs": 0}, "epochs 0 lies outside 1 .. 100000"),
        ({"effort": "huge"}, "unknown effort 'huge'"),
        ({"quality": 30, "bpp": 1.0}, "give only one of bpp, quality"),
    ],
)
def test_choices_that_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(EncodeError, match=message):
        EncodeOptions(model="cwrnn", **wrong)


@pytest.mark.parametrize("size", [120, 190, 260])
def test_a_size_below_the_network_is_refused(clip: Path, tmp_path: Path, size: int) -> None:
    with pytest.raises(TargetError, match=r"out of reach|cannot be met"):
        encode(clip, tmp_path / "a.cwrv", replace(NARROW, bpp=None, size=size, epochs=1), frames=(0, 2))
    assert not list(tmp_path.glob("a.*"))
