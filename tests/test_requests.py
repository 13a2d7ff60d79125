"""Ordinary requests of people who come from FFmpeg: answered right, or refused in a line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest
from conftest import tiny_frames
from run_cwrv import cwrv, fails
from video_samples import properties, read, same, save_png

import nvcodec
from nvcodec.core.errors import EncodeError, InputError, NvcodecError
from nvcodec.decoder import properties_of
from nvcodec.encoder.pipeline import EncodeOptions, encode
from nvcodec.media.packet_clock import PacketClock
from nvcodec.media.picture_names import is_picture_of
from nvcodec.media.video_io import ReadOptions, VideoReader, write_video
from nvcodec.media.y4m import write_y4m

USUAL = ("--effort", "fast", "--threads", "1", "--device", "cpu")
COMMAND = [sys.executable, "-m", "nvcodec"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.y4m"
    with path.open("wb") as stream:
        write_y4m(stream, properties(48, 32), tiny_frames(48, 32, 4))
    return path


@pytest.fixture(scope="module")
def file(clip: Path) -> Path:
    path = clip.with_suffix(".cwrv")
    assert cwrv("encode", clip, "-o", path, "--quality", "30", *USUAL).exit_code == 0
    return path


# Standard input and output


def test_encode_to_standard_output(clip: Path, file: Path, tmp_path: Path) -> None:
    command = [*COMMAND, "encode", str(clip), "-o", "-", "--quality", "30", *USUAL]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, check=True)
    assert done.stdout == file.read_bytes()
    assert done.stderr.startswith(b"-: hybrid, ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".y4m", ".mkv"])
def test_encode_from_standard_input(clip: Path, file: Path, tmp_path: Path, suffix: str) -> None:
    """Whatever FFmpeg reads; the copy that is made of it does not stay."""
    source, output, room = clip.with_suffix(suffix), tmp_path / "a.cwrv", tmp_path / "room"
    room.mkdir()
    if not source.exists():
        write_video(source, properties(48, 32), iter(tiny_frames(48, 32, 4)), codec="ffv1")
    command = [*COMMAND, "encode", "-", "-o", str(output), "--quality", "30", *USUAL]
    subprocess.run(command, input=source.read_bytes(), check=True, env=os.environ | {"TMPDIR": str(room)})
    assert not list(room.iterdir())
    with nvcodec.Decoder(output) as made, nvcodec.Decoder(file) as expected:
        assert same(list(made), list(expected))


def test_errors_name_standard_input(tmp_path: Path) -> None:
    command = [*COMMAND, "encode", "-", "-o", str(tmp_path / "a.cwrv")]
    done = subprocess.run(command, input=b"no video", capture_output=True)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"cwrv: error: standard input: not a readable video")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("where", ["2>/dev/full", "2>&-"])
def test_standard_error_that_takes_nothing(clip: Path, file: Path, tmp_path: Path, where: str) -> None:
    """Nothing of it goes into the file, and it is no failure."""
    path = tmp_path / "a.cwrv"
    text = f"{sys.executable} -m nvcodec encode {clip} -o {path} --quality 30 {' '.join(USUAL)} {where}"
    assert subprocess.run(["bash", "-c", text]).returncode == 0
    assert path.read_bytes() == file.read_bytes()


# Outputs that cannot be meant


@pytest.mark.parametrize("name", ["a.mp4", "a.MKV", "a.y4m", "a.png"])
def test_encode_does_not_write_videos(clip: Path, tmp_path: Path, name: str) -> None:
    fails(cwrv("encode", clip, "-o", tmp_path / name), 1, "encode writes .cwrv files; cwrv decode makes a video of one")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("source", ["p%03d", "p*"])
def test_output_among_the_pictures(tmp_path: Path, source: str) -> None:
    fails(cwrv("encode", tmp_path / source, "-o", tmp_path / "p007", "-y"), 1, "is one of the input's pictures")


def test_which_names_are_pictures() -> None:
    assert is_picture_of("d/a%03d.png", "d/a007.png")
    assert is_picture_of("d/a%d.png", "./d/a12345.png")
    assert is_picture_of("d/a*.png", "d/a_x.png")
    assert not is_picture_of("d/a%03d.png", "e/a007.png")
    assert not is_picture_of("d/a%03d.png", "d/b007.png")
    assert not is_picture_of("d/a%03d.png", "d/a007.png.cwrv")
    assert not is_picture_of("d/a.png", "d/b.png")


# Pictures


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[..., Path]:
    def make(*numbers: int) -> Path:
        for number in numbers:
            save_png(tmp_path / f"s_{number}.png", np.full((16, 16, 3), number % 200, np.uint8))
        return tmp_path

    return make


def test_numbered_pictures_begin_where_they_begin(pictures: Callable[..., Path]) -> None:
    folder = pictures(1001, 1002, 1003)
    for name in ("s_%04d.png", "s_%d.png", "s_*.png"):
        video, found = read(folder / name, options=ReadOptions(framerate=Fraction(24)))
        assert video.frame_rate == 24
        assert [int(f.y[0, 0]) for f in found] == sorted(int(f.y[0, 0]) for f in found)
        assert len(found) == 3


def test_a_missing_picture_is_named(pictures: Callable[..., Path]) -> None:
    folder = pictures(998, 999, 1001, 1005)
    with pytest.raises(InputError, match=r"s_1000\.png is missing but s_1001\.png is there"):
        read(folder / "s_%d.png")
    (folder / "s_998.png").unlink()
    (folder / "s_999.png").unlink()
    with pytest.raises(InputError, match=r"s_1002\.png is missing, 3 in all there, but s_1005\.png is there"):
        read(folder / "s_%d.png")
    assert len(read(folder / "s_*.png")[1]) == 2  # a pattern says nothing of numbers


def test_rates_of_pictures(pictures: Callable[..., Path], clip: Path, tmp_path: Path) -> None:
    source, output = pictures(1, 2) / "s_%d.png", tmp_path / "a.cwrv"
    done = cwrv("encode", source, "-o", output, "--framerate", "23.976", "--quality", "40", *USUAL)
    assert done.exit_code == 0, done.stderr
    with nvcodec.Decoder(output) as decoder:
        assert decoder.properties.frame_rate == Fraction(24000, 1001)
    fails(
        cwrv("encode", clip, "-o", tmp_path / "b.cwrv", "--framerate", "24"), 1, "a frame rate is for numbered pictures"
    )
    fails(cwrv("encode", source, "-o", tmp_path / "b.cwrv", "--framerate", "0"), 2, "no frame rate")


# Streams and clocks


def two_streams(path: Path) -> None:
    """A still picture first, then a video."""
    with av.open(str(path), "w") as container:
        still, video = (cast(Any, container.add_stream(c, rate=25)) for c in ("mjpeg", "libx264"))
        still.width, still.height, still.pix_fmt = 64, 64, "yuvj420p"
        video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.zeros((96, 64), np.uint8), "yuvj420p")
        container.mux([*still.encode(picture), *still.encode(None)])
        for n in range(10):
            picture = av.VideoFrame.from_ndarray(np.full((48, 48), 20 * n, np.uint8), "yuv420p")
            picture.pts = n
            container.mux(video.encode(picture))
        container.mux(video.encode(None))


def test_stream_that_ffmpeg_takes(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    two_streams(path)
    with VideoReader(path) as reader:
        assert (reader.properties.width, len(list(reader))) == (48, 10)
        assert reader.notes == ("video stream 1 of 2 is taken (h264, 48x32); --stream takes another one",)
    with VideoReader(path, options=ReadOptions(stream=0)) as reader:
        assert (reader.properties.width, len(list(reader)), reader.notes) == (64, 1, ())
    fails(cwrv("encode", path, "-o", tmp_path / "a.cwrv", "--stream", "2"), 1, "no video stream 2, the last one is 1")
    done = cwrv("encode", path, "-o", tmp_path / "a.cwrv", "--quality", "40", *USUAL)
    assert done.stderr.startswith("cwrv: warning: video stream 1 of 2 is taken")


def transport_stream(path: Path, frames: int = 10) -> bytes:
    with av.open(str(path), "w", format="mpegts") as container:
        video = cast(Any, container.add_stream("libx264", rate=30))
        video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
        video.options = {"bf": "0"}
        for n in range(frames):
            picture = av.VideoFrame.from_ndarray(np.full((48, 48), 10 * n, np.uint8), "yuv420p")
            picture.pts = n
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
    return path.read_bytes()


def test_a_clock_that_starts_again(tmp_path: Path) -> None:
    """A transport stream written twice in a row: the frames go on at the same distance, and a line says so."""
    path = tmp_path / "twice.ts"
    data = transport_stream(tmp_path / "once.ts")
    path.write_bytes(data + data)
    with VideoReader(path) as reader:
        seconds = [float(f.pts * reader.properties.time_base) for f in reader]
        assert seconds == pytest.approx([n / 30 for n in range(20)], abs=1e-3)
        assert len(reader.notes) == 1
        assert "the clock of the source is off by -0.333 s" in reader.notes[0]


def packet(dts: int, pts: int | None = None) -> av.Packet:
    made = av.Packet(b"x")
    made.time_base, made.dts, made.pts, made.duration = Fraction(1, 1000), dts, dts if pts is None else pts, 40
    return made


def test_clocks() -> None:
    """Small steps back and gaps are left alone, as FFmpeg does; jumps are not, where the format may have them."""
    for may_jump, times, expected in (
        (True, [0, 40, 80, 5000, 5040], [0, 40, 80, 5000, 5040]),
        (True, [0, 40, 80, 50_000, 50_040], [0, 40, 80, 120, 160]),
        (True, [5000, 5040, 0, 40, 0], [5000, 5040, 5080, 5120, 5080]),
        (False, [0, 40, 50_000, 50_040], [0, 40, 50_000, 50_040]),
        (False, [0, 40, 200_000_000], [0, 40, 80]),
    ):
        clock, found = PacketClock(may_jump=may_jump, step=Fraction(1, 25)), []
        for time in times:
            one = packet(time, time + 80)
            clock.set(one)
            assert one.dts is not None
            assert one.pts == one.dts + 80
            found.append(one.dts)
        assert found == expected
        assert bool(clock.jumps) == (times != expected)


# How pictures are shown


@pytest.mark.parametrize(("letter", "number", "word"), [("t", 2, "top"), ("b", 3, "bottom")])
def test_interlaced_pictures(clip: Path, tmp_path: Path, letter: str, number: int, word: str) -> None:
    """Coded as they come, which is told; which field comes first is kept to every output."""
    source, file = tmp_path / "a.y4m", tmp_path / "a.cwrv"
    source.write_bytes(clip.read_bytes().replace(b" Ip ", f" I{letter} ".encode(), 1))
    done = cwrv("encode", source, "-o", file, "--quality", "30", *USUAL)
    assert f"cwrv: warning: interlaced pictures ({word} field first) are coded as they come" in done.stderr
    for name in ("b.y4m", "b.mp4", "b.mkv"):
        assert cwrv("decode", file, "-o", tmp_path / name).exit_code == 0
        with av.open(str(tmp_path / name)) as container:
            context: Any = container.streams.video[0].codec_context
            assert context.field_order == number
    assert f" I{letter} ".encode() in (tmp_path / "b.y4m").read_bytes()[:60]
    with nvcodec.Decoder(file) as decoder:
        assert decoder.properties.field_order == (2 * letter)


def test_interlaced_pictures_of_any_height(tmp_path: Path) -> None:
    """H.264 codes fields only of heights that can be divided by four: others keep the order alone."""
    source, file, output = tmp_path / "a.y4m", tmp_path / "a.cwrv", tmp_path / "b.mp4"
    with source.open("wb") as stream:
        write_y4m(stream, properties(48, 38, field_order="tt"), tiny_frames(48, 38, 2))
    assert cwrv("encode", source, "-o", file, "--quality", "40", *USUAL).exit_code == 0
    assert cwrv("decode", file, "-o", output).exit_code == 0
    assert len(read(output)[1]) == 2


def test_rotation_is_kept(tmp_path: Path) -> None:
    """And mirroring: what a player does with the pictures is the same for source and output."""
    source, file, output = tmp_path / "a.mp4", tmp_path / "a.cwrv", tmp_path / "b.mp4"
    turned = (0, 1 << 16, 0, 1 << 16, 0, 0, 0, 0, 1 << 30)  # by a quarter, and mirrored
    write_video(source, properties(48, 32, display_matrix=turned), iter(tiny_frames(48, 32, 3)))
    assert read(source)[0].display_matrix == turned
    assert cwrv("encode", source, "-o", file, "--quality", "30", *USUAL).exit_code == 0
    assert cwrv("decode", file, "-o", output).exit_code == 0
    assert read(output)[0].display_matrix == turned
    assert read(output)[0].width == 48


def test_properties_in_metadata_of_another_form_are_ignored(file: Path) -> None:
    with nvcodec.Decoder(file) as decoder:
        header = decoder.header
    orders: list[Any] = ["xx", 2, None]
    matrices: list[Any] = [[1], [2**31] * 9, [True] * 9, [1.0] * 9, "123456789"]
    for wrong in [*({"field_order": order} for order in orders), *({"display_matrix": m} for m in matrices)]:
        found = properties_of(header, wrong)
        assert (found.field_order, found.display_matrix) == ("", ())
    with pytest.raises(InputError, match="nine integers"):
        properties(display_matrix=(1, 2))
    with pytest.raises(InputError, match="field_order"):
        properties(field_order="top")


@pytest.mark.parametrize(
    ("pix_fmt", "bits", "made"),
    [
        ("yuv420p12le", 12, "yuv420p10le (10 bits)"),
        ("yuv444p10le", 10, "yuv420p10le (10 bits)"),
        ("gray10le", 10, "yuv420p10le (10 bits)"),
        ("yuv422p", 8, "yuv420p (8 bits)"),
        ("yuv444p", 8, "yuv420p (8 bits)"),
        ("gray", 8, "yuv420p (8 bits)"),
        ("bgra", 8, "yuv420p (8 bits)"),
    ],
)
def test_conversions_are_told(tmp_path: Path, pix_fmt: str, bits: int, made: str) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        video = cast(Any, container.add_stream("ffv1", rate=25))
        video.width, video.height, video.pix_fmt = 64, 48, pix_fmt
        picture = av.VideoFrame.from_ndarray(np.full((72, 64), 90, np.uint8), "yuv420p").reformat(format=pix_fmt)
        container.mux([*video.encode(picture), *video.encode(None)])
    text = f"{pix_fmt} ({bits} bits) is converted to {made}"
    done = cwrv("encode", path, "-o", tmp_path / "a.cwrv", "--quality", "40", *USUAL)
    assert (done.exit_code, done.stderr.splitlines()[0]) == (0, f"cwrv: warning: {text}")
    fails(cwrv("encode", path, "-o", tmp_path / "b.cwrv", "--strict"), 1, f"{text}, which --strict refuses")


def test_what_need_not_be_converted(clip: Path, tmp_path: Path) -> None:
    done = cwrv("encode", clip, "-o", tmp_path / "a.cwrv", "--strict", "--quality", "40", *USUAL)
    assert done.exit_code == 0
    assert "warning" not in done.stderr


# Damage in a source


def test_damage_in_a_source_can_be_skipped(tmp_path: Path) -> None:
    """The frame before is shown once more, in its place, and a line says which."""
    path, broken = tmp_path / "a.mov", tmp_path / "b.mov"
    with av.open(str(path), "w") as container:
        video = cast(Any, container.add_stream("png", rate=25))
        video.width, video.height, video.pix_fmt = 48, 32, "rgb24"
        for n in range(6):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.full((32, 48, 3), 40 * n, np.uint8), "rgb24")))
        container.mux(video.encode(None))
    with av.open(str(path)) as container:
        packets = [bytes(p) for p in container.demux(video=0) if p.size]
    data = path.read_bytes()
    at = data.index(packets[3])
    broken.write_bytes(data[:at] + bytes(len(packets[3])) + data[at + len(packets[3]) :])
    with pytest.raises(InputError, match="frame 3"):
        read(broken)
    good = read(path)[1]
    with VideoReader(broken, options=ReadOptions(skips_damage=True)) as reader:
        found = list(reader)
        assert reader.notes[1:] == ("1 damaged frames show the one before them: 3",)
    assert same(found, [*good[:3], good[2], *good[4:]])
    assert [f.pts for f in found] == [f.pts for f in good]
    done = cwrv("encode", broken, "-o", tmp_path / "a.cwrv", "--on-error", "skip", "--quality", "40", *USUAL)
    assert done.exit_code == 0
    assert "cwrv: warning: 1 damaged frames show the one before them: 3" in done.stderr


def test_a_lost_picture_between_others_that_came_before_it(tmp_path: Path) -> None:
    """A P picture of an H.264 stream whose B pictures are shown before it: what is shown again stands in its place."""
    path, broken = tmp_path / "a.mkv", tmp_path / "b.mkv"
    with av.open(str(path), "w") as container:
        video = cast(Any, container.add_stream("libx264", rate=25))
        video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
        video.options = {"bf": "3", "b-adapt": "0"}
        for n in range(17):
            shown = tiny_frames(48, 32, 17)[n].y.numpy()
            picture = av.VideoFrame.from_ndarray(np.vstack([shown, np.full((16, 48), 128, np.uint8)]), "yuv420p")
            picture.pts = n
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
    with av.open(str(path)) as container:
        found = [(p.pts, bytes(p)) for p in container.demux(video=0) if p.size]
    number = next(n for n in range(2, len(found) - 1) if (found[n + 1][0] or 0) < (found[n][0] or 0))
    data = path.read_bytes()
    at = data.index(found[number][1])
    broken.write_bytes(data[:at] + bytes(len(found[number][1])) + data[at + len(found[number][1]) :])
    good = read(path)[1]
    with VideoReader(broken, options=ReadOptions(skips_damage=True)) as reader:
        pts = [f.pts for f in reader]
    assert pts == sorted(pts)
    assert set(pts) <= {f.pts for f in good}


# Values


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "0", "-1"])
def test_targets_that_are_no_numbers(clip: Path, tmp_path: Path, value: str) -> None:
    fails(cwrv("encode", clip, "-o", tmp_path / "a.cwrv", f"--bpp={value}"), 2, "--bpp")


@pytest.mark.parametrize(
    "wrong",
    [{"gop": 2.5}, {"device": "tpu"}, {"seed": -1}, {"seed": 1.5}, {"bpp": "0.1"}, {"bpp": float("nan")},
     {"quality": float("nan")}, {"threads": True}, {"effort": 3}, {"segment": "9"}, {"size": 12.5}, {"model": None}],
)  # fmt: skip
def test_options_are_checked_when_they_are_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(EncodeError, match=next(iter(wrong))):
        EncodeOptions(**wrong)


def test_decoder_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nope: no such file") as found:
        nvcodec.Decoder(tmp_path / "nope")
    assert isinstance(found.value, NvcodecError)
    with pytest.raises(NvcodecError, match="cannot be opened"):
        nvcodec.Decoder(tmp_path)
    with pytest.raises(NvcodecError, match="cannot be opened"):
        nvcodec.Decoder("a\0b")
    fails(cwrv("info", tmp_path / "nope"), 1, "nope: no such file")


def test_encode_to_a_stream(clip: Path, file: Path, tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as stream:
        encode(clip, stream, EncodeOptions(quality=30, effort="fast", device="cpu", threads=1))
    assert (tmp_path / "a").read_bytes() == file.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
