"""Writing real files and reading them again, and every way to be refused."""

from __future__ import annotations

import io
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from video_samples import DEMO, frames, properties, read, same

from nvcodec.core.errors import InputError, OutputError
from nvcodec.core.frame import CHROMA_LEFT
from nvcodec.core.metrics import frame_psnr
from nvcodec.media.matroska import PLACEHOLDER_TITLE
from nvcodec.media.video_io import VideoReader, check_output, write_video
from nvcodec.media.y4m import y4m_header

ODD = (97, 81)
TAGGED = {
    "frame_rate": Fraction(30000, 1001),
    "time_base": Fraction(1001, 30000),
    "sample_aspect_ratio": Fraction(12, 11),
    "color_range": 2,
    "color_primaries": 9,
    "color_trc": 16,
    "colorspace": 9,
}
UNEVEN = (0, 1, 2, 4, 9, 11)


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        ("h264", ".mp4"),
        ("h264", ".mkv"),
        ("hevc", ".mp4"),
        ("hevc", ".mkv"),
        ("av1", ".mp4"),
        ("av1", ".mkv"),
        ("ffv1", ".mkv"),
    ],
)
@pytest.mark.parametrize("size", [(96, 80), ODD])
def test_everything_survives(tmp_path: Path, codec: str, suffix: str, size: tuple[int, int]) -> None:
    path = tmp_path / f"clip{suffix}"
    source, wanted = frames(*size, pts=UNEVEN), properties(*size, **TAGGED)
    assert write_video(path, wanted, source, codec=codec) == len(source)
    got, clip = read(path)
    for name in ("width", "height", *TAGGED):
        if name != "time_base":
            assert getattr(got, name) == getattr(wanted, name), name
    tolerance = Fraction(1, 2000) if suffix == ".mkv" else 0  # Matroska counts milliseconds
    for a, b in zip(source, clip, strict=True):
        assert abs(a.pts * wanted.time_base - b.pts * got.time_base) <= tolerance
        assert min(frame_psnr(a, b)) > 40
    if codec == "ffv1":
        assert same(source, clip)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    if suffix == ".mkv":
        assert PLACEHOLDER_TITLE.encode() not in path.read_bytes()


@pytest.mark.parametrize("size", [(96, 80), ODD, (1, 1), (3, 5)])
@pytest.mark.parametrize(("codec", "crf", "name"), [("ffv1", None, "a.mkv"), ("h264", 0, "a.mp4")])
def test_lossless(tmp_path: Path, size: tuple[int, int], codec: str, crf: int | None, name: str) -> None:
    write_video(tmp_path / name, properties(*size), frames(*size), codec=codec, crf=crf)
    assert same(read(tmp_path / name)[1], frames(*size))


def test_crf_changes_the_size(tmp_path: Path) -> None:
    sizes = []
    for crf in (10, 35):
        write_video(tmp_path / "a.mp4", properties(), frames(), crf=crf, overwrite=True)
        sizes.append((tmp_path / "a.mp4").stat().st_size)
    assert sizes[0] > sizes[1]


def test_reserved_colour_codes_become_unspecified(tmp_path: Path) -> None:
    p = properties(color_primaries=3, color_trc=200, colorspace=0)
    write_video(tmp_path / "a.mp4", p, frames())
    got, _ = read(tmp_path / "a.mp4")
    assert (got.color_primaries, got.color_trc, got.colorspace) == (2, 2, 2)


def test_y4m_to_the_byte(tmp_path: Path) -> None:
    source = frames(5, 3, pts=(0, 1))
    p = properties(
        5,
        3,
        frame_rate=Fraction(30000, 1001),
        sample_aspect_ratio=Fraction(4, 3),
        color_range=1,
        chroma_location=CHROMA_LEFT,
    )
    path = tmp_path / "a.y4m"
    assert write_video(path, p, source) == 2
    header = b"YUV4MPEG2 W5 H3 F30000:1001 Ip A4:3 C420mpeg2 XCOLORRANGE=LIMITED\n"
    body = b"".join(b"FRAME\n" + b"".join(plane.contiguous().numpy().tobytes() for plane in f.planes) for f in source)
    assert path.read_bytes() == header + body
    got, clip = read(path)
    assert same(source, clip)
    assert (got.frame_rate, got.sample_aspect_ratio) == (p.frame_rate, p.sample_aspect_ratio)
    assert (got.color_range, got.chroma_location) == (1, CHROMA_LEFT)


@pytest.mark.parametrize(
    ("location", "tag"), [(0, b" C420jpeg\n"), (2, b" C420jpeg\n"), (3, b" C420paldv\n"), (6, b" C420jpeg\n")]
)
def test_y4m_chroma_tags(tmp_path: Path, location: int, tag: bytes) -> None:
    write_video(tmp_path / "a.y4m", properties(chroma_location=location), frames())
    header = (tmp_path / "a.y4m").read_bytes().split(b"FRAME", 1)[0]
    assert header.endswith(tag)
    assert b" A0:0 " in header


def test_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdout:
        buffer = io.BytesIO()

        def isatty(self) -> bool:
            return False

    monkeypatch.setattr(sys, "stdout", Stdout())
    assert write_video("-", properties(), frames()) == 4
    assert len(Stdout.buffer.getvalue()) == len(y4m_header(properties())) + 4 * (6 + 96 * 80 * 3 // 2)


def test_a_terminal_gets_no_video(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with pytest.raises(OutputError, match="terminal"):
        check_output("-")


def test_a_reader_that_hangs_up_is_no_error() -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from nvcodec.media.video_io import VideoReader, write_video\n"
        "with VideoReader(sys.argv[2]) as reader:\n"
        "    count = write_video('-', reader.properties, reader)\n"
        "print('frames', count, file=sys.stderr)\n"
    )
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", script, str(root), str(DEMO)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(10) == b"YUV4MPEG2 "
        process.stdout.close()
        message = process.stderr.read().decode()
    assert process.returncode == 0
    assert message.startswith("frames ")
    assert int(message.split()[1]) < 24


@pytest.mark.parametrize(
    ("name", "codec", "crf", "message"),
    [
        ("a.avi", None, None, "unknown output type '.avi'"),
        ("a", None, None, "unknown output type ''"),
        ("a.mp4", "vp9", None, "unknown codec 'vp9'"),
        ("a.mp4", "ffv1", None, r"\.mp4 cannot hold ffv1 \(use \.mkv\)"),
        ("a.mkv", "ffv1", 10, "ffv1 is lossless: it takes no crf"),
        ("a.mkv", "h264", 52, r"crf 52 is out of range for h264 \(0 to 51\)"),
        ("a.mkv", "av1", -1, "crf -1 is out of range"),
        ("a.y4m", "h264", None, "y4m is not compressed"),
        ("a.y4m", None, 20, "y4m is not compressed"),
        ("nowhere/a.mkv", None, None, "does not exist"),
    ],
)
def test_refused_before_any_work(tmp_path: Path, name: str, codec: str | None, crf: int | None, message: str) -> None:
    def never() -> Any:
        pytest.fail("no frame must be asked for")
        yield

    with pytest.raises(OutputError, match=message):
        check_output(tmp_path / name, codec, crf)
    with pytest.raises(OutputError, match=message):
        write_video(tmp_path / name, properties(), never(), codec=codec, crf=crf)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.y4m"])
def test_failed_writes_leave_nothing(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(OutputError, match="no frames to write"):
        write_video(path, properties(), [])
    with pytest.raises(OutputError, match="frame 4 is 32x16, the video 96x80"):
        write_video(path, properties(), [*frames(), *frames(32, 16, pts=(9,))])
    with pytest.raises(InputError):
        write_video(path, properties(320, 180), VideoReader(DEMO, frames=(23, 99)))
    if name != "a.y4m":
        with pytest.raises(OutputError, match=r"timestamp of frame 2 \(1\) does not follow 1"):
            write_video(path, properties(), frames(pts=(0, 1, 1, 2)))
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match="exists; use -y"):
        write_video(path, properties(), frames())
    assert path.read_bytes() == b"old"
    write_video(path, properties(), frames(), overwrite=True)
    assert len(read(path)[1]) == 4


@pytest.mark.parametrize("codec", ["hevc", "av1"])
def test_pictures_too_small_for_the_encoder(tmp_path: Path, codec: str) -> None:
    with pytest.raises(OutputError, match="needs at least 64 rows and columns"):
        write_video(tmp_path / "a.mp4", properties(128, 16), frames(128, 16), codec=codec)
    assert list(tmp_path.iterdir()) == []
