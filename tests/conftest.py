"""What several test files share: one encoded excerpt of the demo clip, and tiny clips made on the spot."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from video_samples import DEMO, properties

from nvcodec.core.frame import Frame
from nvcodec.encoder.pipeline import EncodeOptions, EncodeReport, encode
from nvcodec.media.y4m import write_y4m

# A shell without job control starts background work with SIGINT ignored, which programs that are started inherit: those
# that the tests interrupt would run for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Encoded:
    """A finished file, what the encoder said of it, and the frames it was made from: ``frames`` of ``source``."""

    path: Path
    report: EncodeReport
    source: Path
    frames: tuple[int, int]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Encoded:
    """Four frames of the demo clip at a fixed quality: one pass, whatever rate control does."""
    path = tmp_path_factory.mktemp("demo") / "demo.cwrv"
    options = EncodeOptions(quality=32, effort="fast", device="cpu", threads=1)
    return Encoded(path, encode(DEMO, path, options, frames=(0, 4)), DEMO, (0, 4))


def tiny_frames(width: int, height: int, count: int) -> list[Frame]:
    """Noise over a gradient that moves two samples to the right a frame: nothing compresses to nothing."""
    generator = torch.Generator().manual_seed(width * 1000 + height)
    grain = torch.randint(0, 40, (height, width + 2 * count), generator=generator)
    slope = torch.arange(width + 2 * count) * 3 + torch.arange(height)[:, None] * 2
    wide = (40 + grain + slope).clamp(0, 255).to(torch.uint8)
    half = ((height + 1) // 2, (width + 1) // 2)

    def chroma(base: int, number: int) -> torch.Tensor:
        rows, columns = torch.arange(half[0])[:, None], torch.arange(half[1])[None]
        return (base + 3 * rows - 2 * columns + number).to(torch.uint8)

    luma = [wide[:, 2 * (count - i) : 2 * (count - i) + width].contiguous() for i in range(count)]
    return [Frame((y, chroma(120, i), chroma(140, 2 * i)), i) for i, y in enumerate(luma)]


@pytest.fixture(scope="session")
def encode_tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Encoded]:
    """A function (width, height, count, **options) that writes a tiny clip as y4m and encodes it."""

    def make(width: int, height: int, count: int, **options: Any) -> Encoded:
        folder = tmp_path_factory.mktemp("tiny")
        source = folder / "tiny.y4m"
        with source.open("wb") as stream:
            write_y4m(stream, properties(width, height), tiny_frames(width, height, count))
        chosen = EncodeOptions(**({"effort": "fast", "device": "cpu", "threads": 1} | options))
        path = folder / "tiny.cwrv"
        return Encoded(path, encode(source, path, chosen), source, (0, count))

    return make
