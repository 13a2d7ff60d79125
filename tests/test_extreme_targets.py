"""Targets at the ends of what there is: nearly lossless, beyond that, and pictures of a few samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_frames
from video_samples import DEMO, properties, read

from nvcodec.core.errors import SourceWarning, TargetError
from nvcodec.core.frame import Frame
from nvcodec.encoder.pipeline import EncodeOptions, encode
from nvcodec.hybrid.base import starting_tensors
from nvcodec.hybrid.encoder.twin import Twin
from nvcodec.hybrid.network import NetworkShape
from nvcodec.media.y4m import write_y4m

_USUAL: dict[str, Any] = {"effort": "fast", "device": "cpu", "threads": 1}


@pytest.fixture(scope="module")
def crop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64x48 out of the middle of the demo clip, three frames."""
    made = []
    for frame in read(DEMO, frames=(0, 3))[1]:
        y, u, v = frame.planes
        chroma = [plane[30:54, 50:82].contiguous() for plane in (u, v)]
        made.append(Frame((y[60:108, 100:164].contiguous(), chroma[0], chroma[1]), frame.pts))
    path = tmp_path_factory.mktemp("crop") / "crop.y4m"
    with path.open("wb") as file:
        write_y4m(file, properties(64, 48), made)
    return path


@pytest.mark.parametrize(("bpp", "least"), [(1.5, 41.5), (3.5, 51.0)])
def test_high_targets_are_met(crop: Path, tmp_path: Path, bpp: float, least: float) -> None:
    """What is asked for is spent, and it is worth something: a cell that no longer helps is silent."""
    report = encode(crop, tmp_path / "out.cwrv", EncodeOptions(bpp=bpp, **_USUAL))
    assert 0.95 <= report.bpp / bpp <= 1.02
    assert report.psnr_yuv > least


def test_target_beyond_the_largest_file(crop: Path, tmp_path: Path) -> None:
    """The error names the largest file there is, which can be asked for."""
    path = tmp_path / "out.cwrv"
    with pytest.raises(TargetError, match=r"out of reach; the largest file .* takes \d+ bytes, [0-9.]+ bpp") as refusal:
        encode(crop, path, EncodeOptions(size=10**9, **_USUAL))
    assert not list(tmp_path.iterdir())
    largest = int(str(refusal.value).split(" bytes, ")[-2].split()[-1])
    report = encode(crop, path, EncodeOptions(size=largest, **_USUAL))
    assert 0.95 <= report.file_bytes / largest <= 1.02
    assert report.psnr_yuv > 55


def test_a_last_scene_that_needs_nothing(tmp_path: Path) -> None:
    """The first one had its share and could have taken more: no reason to refuse the file; a line tells."""
    source = tmp_path / "two.y4m"
    textured = tiny_frames(64, 48, 3)
    black = [Frame((0 * f.y + 16, 0 * f.u + 128, 0 * f.v + 128), f.pts + 3) for f in textured]
    with source.open("wb") as file:
        write_y4m(file, properties(64, 48), [*textured, *black])
    with pytest.warns(SourceWarning, match="bytes that were asked for: the last scenes can take no more"):
        report = encode(source, tmp_path / "out.cwrv", EncodeOptions(bpp=1.0, segment=3, **_USUAL))
    assert 0.4 < report.bpp < 0.95


@pytest.mark.parametrize("model", ["hybrid", "cwrnn"])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 5), (64, 1)])
def test_tiny_pictures_without_a_target(width: int, height: int, model: str, tmp_path: Path) -> None:
    """The usual target is less than any file of them takes: no reason to refuse them."""
    source = tmp_path / "tiny.y4m"
    with source.open("wb") as file:
        write_y4m(file, properties(width, height), tiny_frames(width, height, 2))
    report = encode(source, tmp_path / "out.cwrv", EncodeOptions(model=model, **_USUAL))
    assert report.frames == 2
    assert report.psnr_y > 10


def test_silenced_cell_corrects_nothing() -> None:
    twin = Twin(NetworkShape(8), starting_tensors(8))
    generator = torch.Generator().manual_seed(0)
    residual = torch.randint(-99, 99, (1, 6, 8, 8), generator=generator).float()
    rest = torch.full((1, 6, 8, 8), 512.0), torch.zeros(1, 6, 8, 8)
    for depth in range(4):
        before = [twin.network().cell(residual, *rest, d) for d in range(5)]
        twin.silence(depth)
        for d, known in enumerate(before):
            made = twin.network().cell(residual, *rest, d)
            silent = min(d, 3) <= depth
            assert torch.equal(made, 512 + residual) == silent
            assert torch.equal(made, known) == (min(d, 3) != depth)


@pytest.mark.parametrize(("size", "side", "count"), [(250, 64, 3), (110, 32, 1)])
def test_small_targets_of_noise(size: int, side: int, count: int, tmp_path: Path) -> None:
    """Bits that rise steeply with the quality: met, or refused, in a few attempts, though a silent cell has a price."""
    generator = torch.Generator().manual_seed(5)

    def plane(length: int) -> torch.Tensor:
        return torch.randint(0, 256, (length, length), generator=generator).to(torch.uint8)

    source = tmp_path / "noise.y4m"
    with source.open("wb") as file:
        half = side // 2
        write_y4m(
            file, properties(side, side), [Frame((plane(side), plane(half), plane(half)), t) for t in range(count)]
        )
    try:
        report = encode(source, tmp_path / "out.cwrv", EncodeOptions(size=size, **_USUAL))
    except TargetError:
        assert size < 200  # a step of the coder is 4 bytes
    else:
        assert 0.93 <= report.file_bytes / size <= 1.02
