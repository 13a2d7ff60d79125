"""Videos of 10 bits, from the source to the output, and HDR10's static metadata."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from av.video.reformatter import VideoReformatter
from run_cwrv import cwrv, fails
from video_samples import properties, read, same

from nvcodec.core.color import to_rgb
from nvcodec.core.errors import InputError, OutputError
from nvcodec.core.frame import Frame, VideoProperties, plane_bytes
from nvcodec.core.metrics import frame_psnr, mean_psnr
from nvcodec.decoder import Decoder, properties_of
from nvcodec.encoder.pipeline import EncodeOptions, encode
from nvcodec.media.av_frame import bit_depth_of, to_av_frame, to_planes
from nvcodec.media.video_io import write_video
from nvcodec.media.y4m import write_y4m
from nvcodec.rd.anchors import decode_stream, encode_anchor, parse_anchors

USUAL = ("--effort", "fast", "--threads", "1", "--device", "cpu")
DISPLAY = (13250, 34500, 7500, 3000, 34000, 16000, 15635, 16450, 10000000, 50)
LIGHT = (1000, 400)
HDR: dict[str, Any] = {
    "color_primaries": 9, "color_trc": 16, "colorspace": 9, "color_range": 1,
    "mastering_display": DISPLAY, "content_light": LIGHT,
}  # fmt: skip


def deep_frames(width: int, height: int, count: int) -> list[Frame]:
    """A slope finer than 8 bits that moves, under a little noise."""
    random = np.random.default_rng(5)

    def plane(rows: int, columns: int, base: int, shift: int) -> torch.Tensor:
        y, x = np.mgrid[:rows, :columns]
        values = base + 150 * np.sin((x - shift) / 9) * np.cos(y / 7) + random.integers(0, 4, (rows, columns))
        return torch.from_numpy(values.clip(0, 1023).astype(np.uint16))

    half = ((height + 1) // 2, (width + 1) // 2)
    return [
        Frame((plane(height, width, 500, 2 * n), plane(*half, 480, n), plane(*half, 600, n)), n) for n in range(count)
    ]


def written(path: Path, video: VideoProperties, count: int = 4) -> list[Frame]:
    frames = deep_frames(video.width, video.height, count)
    with path.open("wb") as stream:
        write_y4m(stream, video, frames)
    return frames


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("deep") / "clip.y4m"
    written(path, properties(70, 64, bit_depth=10))
    return path


@pytest.fixture(scope="module")
def file(clip: Path) -> Path:
    path = clip.with_suffix(".cwrv")
    done = cwrv("encode", clip, "-o", path, "--quality", "5", "--strict", *USUAL)
    assert (done.exit_code, "warning" in done.stderr) == (0, False)
    return path


def of_all(frames: list[Frame]) -> str:
    return hashlib.sha256(b"".join(plane_bytes(p) for frame in frames for p in frame.planes)).hexdigest()


def test_a_source_of_ten_bits_is_read_as_it_is(clip: Path) -> None:
    found, frames = read(clip)
    assert (found.bit_depth, found.pix_fmt) == (10, "yuv420p10le")
    assert same(frames, deep_frames(70, 64, 4))
    assert clip.read_bytes().startswith(b"YUV4MPEG2 W70 H64 F25:1 Ip A0:0 C420p10 XYSCSS=420P10\n")


def test_frames_come_out_with_ten_bits(clip: Path, file: Path) -> None:
    with Decoder(file) as decoder:
        assert (decoder.properties.bit_depth, decoder.container.minor) == (10, 2)
        frames = list(decoder)
        decoder.verify()
    assert {plane.dtype for frame in frames for plane in frame.planes} == {torch.uint16}
    assert any(int(value) % 4 for value in frames[0].y.int().unique())
    source = read(clip)[1]
    psnr = mean_psnr(frame_psnr(a, b) for a, b in zip(frames, source, strict=True)).y
    errors = [(a.y.double() - b.y.double()).square().mean().item() for a, b in zip(frames, source, strict=True)]
    assert psnr == pytest.approx(np.mean([10 * math.log10(1023**2 / error) for error in errors]))
    rounded = [
        10 * math.log10(1023**2 / ((4 * torch.floor((a.y.double() + 2) / 4)) - b.y.double()).square().mean().item())
        for a, b in zip(frames, source, strict=True)
    ]
    assert psnr > np.mean(rounded) + 0.2  # the last two bits say something
    assert json.loads(cwrv("info", file, "--json").stdout)["bit_depth"] == 10


@pytest.mark.parametrize("name", ["a.y4m", "a.mkv"])
def test_output_without_loss(file: Path, tmp_path: Path, name: str) -> None:
    codec = ["--codec", "ffv1"] if name.endswith("mkv") else []
    assert cwrv("decode", file, "-o", tmp_path / name, *codec).exit_code == 0
    with Decoder(file) as decoder:
        expected = of_all(list(decoder))
    found, frames = read(tmp_path / name)
    assert (found.pix_fmt, of_all(frames)) == ("yuv420p10le", expected)


@pytest.mark.parametrize(("codec", "name"), [("h264", "h264"), ("hevc", "hevc"), ("av1", "av1")])
def test_hdr10_reaches_the_output(tmp_path: Path, codec: str, name: str) -> None:
    """Through the file, and through each codec; tags, too."""
    video = properties(96, 64, bit_depth=10, **HDR)
    write_video(tmp_path / "a.mp4", video, deep_frames(96, 64, 3), codec="hevc")
    assert (
        encode(tmp_path / "a.mp4", tmp_path / "a.cwrv", EncodeOptions(quality=10, effort="fast", threads=1)).frames == 3
    )
    with Decoder(tmp_path / "a.cwrv") as decoder:
        assert (decoder.properties.mastering_display, decoder.properties.content_light) == (DISPLAY, LIGHT)
    done = cwrv("decode", tmp_path / "a.cwrv", "-o", tmp_path / "b.mp4", "--codec", codec)
    assert done.exit_code == 0
    found, frames = read(tmp_path / "b.mp4")
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p10le"
        assert container.streams.video[0].codec_context.codec.canonical_name == name
    assert found.content_light == LIGHT
    assert np.abs(np.subtract(found.mastering_display, DISPLAY)).max() <= 1  # AV1 has units of its own
    assert (found.color_primaries, found.color_trc, found.colorspace) == (9, 16, 9)
    assert len(frames) == 3


def test_hdr10_of_a_part(tmp_path: Path) -> None:
    """H.264 tells of it in its key frame alone, which is not the first frame of the part."""
    video = properties(96, 64, bit_depth=10, **HDR)
    write_video(tmp_path / "a.mp4", video, deep_frames(96, 64, 4), codec="h264")
    found, frames = read(tmp_path / "a.mp4", frames=(2, 4))
    assert (found.mastering_display, found.content_light, len(frames)) == (DISPLAY, LIGHT, 2)


def test_ten_bits_become_hevc_unless_a_codec_is_asked_for(tmp_path: Path) -> None:
    for size, expected in (((96, 64), "hevc"), ((48, 32), "h264")):  # x265 takes no smaller pictures than 64x64
        write_video(tmp_path / "a.mkv", properties(*size, bit_depth=10), deep_frames(*size, 3), overwrite=True)
        with av.open(str(tmp_path / "a.mkv")) as container:
            assert container.streams.video[0].codec_context.codec.canonical_name == expected


def test_full_range_of_ten_bits_reaches_white(tmp_path: Path) -> None:
    for depth, kind in ((8, torch.uint8), (10, torch.uint16)):
        top, middle = 2**depth - 1, 1 << (depth - 1)
        planes = [torch.full((2, 2), top).to(kind), *[torch.full((1, 1), middle).to(kind)] * 2]
        frame = Frame((planes[0], planes[1], planes[2]))
        assert to_rgb(frame, properties(2, 2, bit_depth=depth, color_range=2)).unique().tolist() == [255]


def test_metadata_of_another_form_is_ignored(file: Path) -> None:
    with Decoder(file) as decoder:
        header = decoder.header
    for wrong in [[1], "1234567890", [True] * 10, [2**32] * 10, [-1] * 10, [50_001] * 10, [70_000] * 2, None]:
        assert properties_of(header, {"mastering_display": wrong}).mastering_display == ()
        assert properties_of(header, {"content_light": wrong}).content_light == ()
    assert properties_of(header, {"content_light": [1, 2]}).content_light == (1, 2)


def test_incomplete_metadata_of_a_source_is_left_out(tmp_path: Path) -> None:
    video = properties(96, 64, bit_depth=10, content_light=LIGHT)
    write_video(tmp_path / "a.mp4", video, deep_frames(96, 64, 1), codec="hevc")
    found, _ = read(tmp_path / "a.mp4")
    assert (found.mastering_display, found.content_light) == ((), LIGHT)


@pytest.mark.parametrize("model", ["cwrnn", "hnerv"])
def test_other_models(tmp_path: Path, model: str) -> None:
    written(tmp_path / "a.y4m", properties(48, 32, bit_depth=10), 3)
    options = EncodeOptions(
        model=model, effort="fast", threads=1, device="cpu", bpp=0.9 if model == "cwrnn" else None,
        params=None if model == "cwrnn" else 2e3, epochs=1 if model == "cwrnn" else 2,
    )  # fmt: skip
    encode(tmp_path / "a.y4m", tmp_path / "a.cwrv", options)
    with Decoder(tmp_path / "a.cwrv") as decoder:
        assert {frame.y.dtype for frame in decoder} == {torch.uint16}
        decoder.verify()


def test_samples_beyond_ten_bits_are_refused(tmp_path: Path) -> None:
    video = properties(32, 32, bit_depth=10)
    written(tmp_path / "a.y4m", video, 2)
    data = bytearray((tmp_path / "a.y4m").read_bytes())
    data[-1] = 4
    (tmp_path / "a.y4m").write_bytes(data)
    fails(cwrv("encode", tmp_path / "a.y4m", "-o", tmp_path / "a.cwrv", *USUAL), 1, "frame 1", "10 bits", "1023")


def test_frames_of_another_depth_are_refused(tmp_path: Path) -> None:
    deep, shallow = deep_frames(32, 32, 1)[0], Frame((torch.zeros(32, 32, dtype=torch.uint8),) + 2 * (
        torch.zeros(16, 16, dtype=torch.uint8),))  # fmt: skip
    with pytest.raises(InputError, match="cannot compare 10 bits with 8"):
        frame_psnr(deep, shallow)
    with pytest.raises(InputError, match="all uint8 or all uint16"):
        Frame((deep.y, shallow.u, shallow.v))
    with pytest.raises(OutputError, match="frame 1 has 8 bits, the video 10"):
        write_video(tmp_path / "a.mkv", properties(32, 32, bit_depth=10), [deep, replace(shallow, pts=1)])


def test_semi_planar_samples_are_those_of_yuv420p10() -> None:
    """P010, as hardware has it, needs no conversion."""
    frame = deep_frames(48, 32, 1)[0]
    picture = to_av_frame(frame).reformat(format="p010le")
    assert picture.format.name == "p010le"
    assert bit_depth_of(picture) == 10
    made = to_planes(picture, VideoReformatter())
    assert all(torch.equal(a, b) for a, b in zip(made, frame.planes, strict=True))


@pytest.mark.parametrize("name", ["x264:ultrafast", "x265:ultrafast", "svtav1:12"])
def test_anchors_of_curves_have_ten_bits(name: str) -> None:
    video, frames = properties(70, 64, bit_depth=10), deep_frames(70, 64, 3)
    (spec,) = parse_anchors(name)
    stream = encode_anchor(frames, video, spec, 1)
    decoded = list(decode_stream(stream.data, stream.packet_bytes, spec.coder))
    assert {frame.y.dtype for frame in decoded} == {torch.uint16}
    assert mean_psnr(frame_psnr(a, b) for a, b in zip(decoded, frames, strict=True)).y > 55


def test_curves_of_ten_bits(clip: Path, tmp_path: Path) -> None:
    arguments = ["--bpp", "0.4,0.8,1.6", "--anchors", "x265:ultrafast", "--effort", "fast", "--device", "cpu"]
    done = cwrv("rd", clip, "-o", tmp_path / "rd", *arguments)
    assert done.exit_code == 0, done.stderr
    (made,) = json.loads((tmp_path / "rd" / "results.json").read_text())["clips"]
    assert [point["psnr_y"] > 35 for point in made["ours"]] == 3 * [True]
    assert all(35 < point["psnr_y"] < 70 for anchor in made["anchors"] for point in anchor["points"])
