"""Reading real files: ranges, timestamps, pixel formats, and every way to be refused."""

from __future__ import annotations

import hashlib
import wave
from fractions import Fraction
from pathlib import Path

import av.logging
import numpy as np
import pytest
import torch
from video_samples import DEMO, frames, properties, read, same, save_png, write_ffv1

from nvcodec.core.color import to_rgb
from nvcodec.core.errors import InputError
from nvcodec.core.frame import CHROMA_CENTER
from nvcodec.media.video_io import VideoReader, parse_frame_range, write_video

DEMO_SHA256 = "0a00781caf2159b3f2956307252039a3fdb9c8df085705e4b235c71512ff1fdd"


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """Libav's own messages about broken files do not belong in the output of tests."""
    av.logging.set_level(None)


@pytest.mark.parametrize(("text", "expected"), [("0:33", (0, 33)), ("5:", (5, None)), (":7", (0, 7)), (":", (0, None))])
def test_frame_ranges(text: str, expected: tuple[int, int | None]) -> None:
    assert parse_frame_range(text) == expected


@pytest.mark.parametrize("text", ["", "5", "a:b", "-1:5", "1:2:3", "3:3", "9:2", "1.5:3", "²:5", " 1:2"])
def test_bad_frame_ranges(text: str) -> None:
    with pytest.raises(InputError, match="frame range"):
        parse_frame_range(text)


def test_demo_clip() -> None:
    p, clip = read(DEMO)
    assert (p.width, p.height, p.frame_rate, len(clip)) == (320, 180, 25, 24)
    digest = hashlib.sha256(b"".join(plane.numpy().tobytes() for f in clip for plane in f.planes))
    assert digest.hexdigest() == DEMO_SHA256
    assert DEMO.stat().st_size < 1_500_000


def test_range_is_half_open_and_starts_at_time_zero() -> None:
    _, clip = read(DEMO)
    p, part = read(DEMO, frames=(5, 9))
    assert same(part, clip[5:9])
    assert [f.pts * p.time_base for f in part] == [Fraction(i, 25) for i in range(4)]
    assert same(read(DEMO, frames=(20, None))[1], clip[20:])
    assert same(read(DEMO, frames=(0, 24))[1], clip)


def test_range_beyond_the_end() -> None:
    with pytest.raises(InputError, match=r"bunny_demo\.mkv: frames 20:25 .* it has only 24 frames$"):
        read(DEMO, frames=(20, 25))
    with pytest.raises(InputError, match="frames 24: were asked for, but it has only 24 frames"):
        read(DEMO, frames=(24, None))
    with pytest.raises(InputError, match="empty"):
        read(DEMO, frames=(3, 3))


def test_a_closed_reader_is_exhausted() -> None:
    reader = VideoReader(DEMO, frames=(0, 5))
    assert next(reader).pts == 0
    reader.close()
    assert list(reader) == []
    assert repr(reader).endswith("320x180, 25 fps)")


def test_sources_that_are_no_video(tmp_path: Path) -> None:
    text, sound, empty = tmp_path / "a.txt", tmp_path / "a.wav", tmp_path / "empty.y4m"
    text.write_text("not a video\n")
    with wave.open(str(sound), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(1600))
    empty.write_bytes(b"YUV4MPEG2 W16 H16 F25:1 C420jpeg\n")
    for source, message in (
        (tmp_path / "missing.mp4", r"missing\.mp4: no such file$"),
        (tmp_path / "missing_%03d.png", r"missing_%03d\.png: no such file$"),
        (tmp_path, "is a directory$"),
        (text, r"a\.txt: not a readable video \(Invalid data found when processing input\)$"),
        (sound, r"a\.wav: no video stream$"),
        (empty, r"empty\.y4m: no frames$"),
        (Path("nul\0byte"), "no such file"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            read(source)
        assert "\n" not in str(caught.value)


def test_a_damaged_frame_is_named(tmp_path: Path) -> None:
    path = tmp_path / "damaged.mp4"
    with VideoReader(DEMO, frames=(0, 8)) as reader:
        write_video(path, reader.properties, reader)
    data = bytearray(path.read_bytes())
    for offset in range(len(data) // 3, len(data) // 3 + 300):
        data[offset] ^= 0x55
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"damaged\.mp4: frame \d (is damaged|cannot be decoded .*)$"):
        read(path)
    broken = tmp_path / "broken.png"
    save_png(broken, np.zeros((16, 16, 3), np.uint8))
    broken.write_bytes(broken.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"broken\.png: "):
        read(broken)


def test_picture_size_must_not_change(tmp_path: Path) -> None:
    for number, width in enumerate((32, 32, 48), 1):
        save_png(tmp_path / f"img_{number:03d}.png", np.zeros((16, width, 3), np.uint8))
    source = tmp_path / "img_%03d.png"
    with pytest.raises(InputError, match="the picture size changes at frame 2, from 32x16 to 48x16"):
        read(source)
    assert len(read(source, frames=(0, 2))[1]) == 2


def test_image_sequence_and_single_image(tmp_path: Path) -> None:
    for number in range(1, 4):
        save_png(tmp_path / f"img_{number:03d}.png", np.full((17, 33, 3), 60 * number, np.uint8))
    p, clip = read(tmp_path / "img_%03d.png")
    assert (p.width, p.height, p.frame_rate) == (33, 17, 25)
    assert [f.pts * p.time_base * 25 for f in clip] == [0, 1, 2]
    assert [int(f.y.float().mean().round()) for f in clip] == [16 + round(219 * v / 255) for v in (60, 120, 180)]
    p, clip = read(tmp_path / "img_002.png")
    assert len(clip) == 1
    assert clip[0].pts == 0


def test_names_with_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video("http:clip.y4m", properties(), frames())
    assert same(read(Path("http:clip.y4m"))[1], frames())


@pytest.mark.parametrize(("height", "matrix"), [(64, 6), (720, 1)])
@pytest.mark.parametrize("rgb", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (40, 90, 200)])
def test_rgb_comes_back_as_the_same_rgb(tmp_path: Path, height: int, matrix: int, rgb: tuple[int, int, int]) -> None:
    save_png(tmp_path / "a.png", np.full((height, 16, 3), rgb, np.uint8))
    p, clip = read(tmp_path / "a.png")
    assert (p.color_range, p.colorspace, p.chroma_location) == (1, matrix, CHROMA_CENTER)
    error = to_rgb(clip[0], p).int() - torch.tensor(rgb).view(3, 1, 1)
    assert error.abs().max() <= 2


def test_grey_keeps_its_luma(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint8)[None].repeat(16, 0)
    write_ffv1(tmp_path / "grey.mkv", 256, 16, "gray", 1, [ramp.tobytes()])
    p, (frame,) = read(tmp_path / "grey.mkv")
    assert p.color_range == 1
    assert torch.equal(frame.y, torch.from_numpy(ramp))
    assert (frame.u == 128).all()
    assert (frame.v == 128).all()


@pytest.mark.parametrize(
    ("pix_fmt", "color_range", "scale"),
    [
        ("yuv422p", 2, 1),
        ("yuv444p", 2, 1),
        ("yuva420p", 2, 1),
        ("yuv420p10le", 1, 4),
        ("yuv422p10le", 1, 4),
        ("yuv444p10le", 1, 4),
        ("yuv420p12le", 1, 16),
    ],
)
def test_other_yuv_becomes_420(tmp_path: Path, pix_fmt: str, color_range: int, scale: int) -> None:
    """Flat colour must survive to the last bit, range and matrix too; odd sizes must come out right."""
    values: list[bytes | int] = [value * scale for value in (200, 90, 160)]
    if pix_fmt.startswith("yuva"):
        values.append(255)
    write_ffv1(tmp_path / "a.mkv", 35, 21, pix_fmt, color_range, values)
    p, (frame,) = read(tmp_path / "a.mkv")
    bits = 8 if scale == 1 else 10
    assert (p.pix_fmt, p.bit_depth) == (("yuv420p", 8) if scale == 1 else ("yuv420p10le", 10))
    assert (p.color_range, p.colorspace, frame.bit_depth) == (color_range, 1, bits)
    assert repr(frame) == "Frame(pts=0, y=21x35, u=11x18, v=11x18, device=cpu)"
    scale = min(scale, 4)
    assert [plane.int().unique().tolist() for plane in frame.planes] == [[200 * scale], [90 * scale], [160 * scale]]
