"""What the tests of ``rd`` share: a clip, a plan, and an encoder of ours that takes no time."""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from video_samples import DEMO, frames, properties

from nvcodec.core.frame import Frame
from nvcodec.encoder.pipeline import EncodeOptions, EncodeReport
from nvcodec.media.video_io import VideoReader, write_video
from nvcodec.rd import points
from nvcodec.rd.anchors import parse_anchors
from nvcodec.rd.points import CodecSettings
from nvcodec.rd.run import Plan

FAST = CodecSettings(effort="fast", device="cpu", threads=1)
COUNT = 6
SHARES = {"grid": 0.0, "latents": 0.0, "weights": 0.05, "motion": 0.1, "blocks": 0.7}
"""Of a stand-in's file."""


def moving_clip(path: Path, width: int = 176, height: int = 176, count: int = COUNT) -> Path:
    """A clip with motion, and large enough for MS-SSIM."""
    write_video(path, properties(width, height), frames(width, height, tuple(range(count))), codec="ffv1")
    return path


def demo_frames(count: int, start: int = 0) -> list[Frame]:
    with VideoReader(DEMO, frames=(start, start + count)) as reader:
        return list(reader)


def plan(source: Path, folder: Path, **changes: Any) -> Plan:
    options = {
        "bpps": (0.1, 0.2, 0.4, 0.8),
        "anchors": parse_anchors("x264:ultrafast,svtav1:12"),
        "settings": FAST,
    } | changes
    return Plan(sources=(str(source),), folder=folder, **options)


@dataclass
class FakeCodec:
    """Counts encodes. Its files are as large as they should be; its frames have fewer levels at lower rates."""

    targets: list[float] = field(default_factory=list)
    decoded: int = 0
    on_encode: Callable[[float], None] = lambda bpp: None

    def encode(self, source: Any, output: Path, options: EncodeOptions, **rest: Any) -> EncodeReport:
        assert options.bpp is not None
        self.targets.append(options.bpp)
        self.on_encode(options.bpp)
        with VideoReader(source, frames=rest["frames"]) as reader:
            p, count = reader.properties, len(list(reader))
        size = round(options.bpp * p.width * p.height * count / 8)
        header = f"{source}|{rest['frames']}|{options.bpp}|".encode()
        Path(output).write_bytes(header.ljust(size, b"\0")[: max(size, len(header))])
        return EncodeReport(size, options.bpp, 0, 0, 0, 0, count, 1.0)


class FakeDecoder:
    """Of the files of :class:`FakeCodec`: the source, coarser where there are fewer bits."""

    def __init__(self, path: Path, **_: Any) -> None:
        source, self.range, bpp, _rest = Path(path).read_bytes().decode().split("|", 3)
        self.size = Path(path).stat().st_size
        self.step = max(2, round(1.2 / float(bpp)))
        with VideoReader(source, frames=None if self.range == "None" else literal_eval(self.range)) as reader:
            self.source = list(reader)

    def __enter__(self) -> FakeDecoder:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Any:
        for frame in self.source:
            planes = tuple(
                ((plane.to(torch.int16) // self.step) * self.step + self.step // 2).clamp(0, 255).to(torch.uint8)
                for plane in frame.planes
            )
            yield Frame((planes[0], planes[1], planes[2]), frame.pts)


def fake_describe(decoder: FakeDecoder, name: str) -> dict[str, Any]:
    count = len(decoder.source)
    bits = 8 * 0.8 * decoder.size / count
    units = [{"frames": [0], "bits": bits}, {"frames": list(range(1, count)), "bits": bits * (count - 1)}]
    return {
        "file": name,
        "file_bytes": decoder.size,
        "segments": [{"width": 8, "units": units}],
        "bytes_by_purpose": {purpose: share * decoder.size for purpose, share in SHARES.items()},
    }


def fake_codec(monkeypatch: pytest.MonkeyPatch) -> FakeCodec:
    """Puts stand-ins for our encoder and decoder into ``rd``."""
    from nvcodec.rd import output

    fake = FakeCodec()
    monkeypatch.setattr(points, "encode", fake.encode)
    monkeypatch.setattr(points, "Decoder", FakeDecoder)
    monkeypatch.setattr(points, "describe", fake_describe)
    monkeypatch.setattr(output, "Decoder", FakeDecoder)
    return fake
