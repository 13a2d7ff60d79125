"""Stand-ins for the codec, so that the command line can be tested by itself and in no time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Self

import pytest
from video_samples import frames, properties

from nvcodec.core.frame import Frame

BLOCK_BITS = 96.0
"""Of each coding unit."""


def account() -> dict[str, Any]:
    """A file of 160 bytes with two segments: four frames in four coding units."""

    def unit(frames: list[int], kind: str, depth: int, motion_bits: float) -> dict[str, Any]:
        return {
            "frames": frames,
            "type": kind,
            "depth": depth,
            "motion_bits": motion_bits,
            "block_bits": BLOCK_BITS,
            "bits": motion_bits + BLOCK_BITS,
        }

    def segment(first: int, frames: int, units: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "first_frame": first,
            "frames": frames,
            "bytes": 50,
            "header_bytes": 3,
            "width": 8,
            "gop": 4,
            "motion_prediction": True,
            "parameters": 3900,
            "representation": "hybrid",
            "weight_bits": 64.0,
            "motion_bits": sum(u["motion_bits"] for u in units),
            "block_bits": BLOCK_BITS * len(units),
            "units": units,
        }

    container = {"signature": 10, "head": 20, "index": 4, "payload": 100, "frame_hash": 16, "crc": 10}
    return {
        "file_bytes": 160,
        "bpp": 8 * 160 / (4 * 96 * 80),
        "container": container,
        "sound_bytes": 0,
        "overhead_bytes": 66,
        "overhead_percent": 41.25,
        "segments": [
            segment(0, 3, [unit([0], "I", 0, 0.0), unit([2], "P", 1, 30.0), unit([1], "B", 2, 4.0)]),
            segment(3, 1, [unit([3], "I", 0, 0.0)]),
        ],
    }


@dataclass
class Calls:
    """What the command line asked for, and what the codec does when asked."""

    encoded: list[dict[str, Any]] = field(default_factory=list)
    opened: list[tuple[Any, dict[str, Any]]] = field(default_factory=list)
    ranges: list[tuple[int, int | None]] = field(default_factory=list)
    on_work: Callable[[], None] = lambda: None


def install(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Replaces encoder and decoder; returns the record of how they are called."""
    calls = Calls()

    class Decoder:
        properties = properties()
        frame_count = 4
        damage = ()
        header = SimpleNamespace(level=1, frame_count=4, frame_duration=1)
        container = SimpleNamespace(
            major=6, minor=0, metadata={"title": "x"}, pts=(0, 1, 2, 3), read_sound=lambda: None
        )

        def __init__(self, source: Any, **options: Any) -> None:
            calls.opened.append((source, options))
            if isinstance(source, str):
                Path(source).open("rb").close()

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
            calls.ranges.append((start, stop))
            for frame in frames(pts=(3, 4, 6, 7))[start:stop]:
                calls.on_work()
                yield frame

        def verify(self, on_frame: Callable[[int], None]) -> None:
            on_frame(1)
            calls.on_work()

        def account(self) -> dict[str, Any]:
            calls.on_work()
            return account()

    def encode(source: str, output: str, options: SimpleNamespace, **rest: Any) -> SimpleNamespace:
        calls.encoded.append({"source": source, "output": output} | vars(options) | rest)
        calls.on_work()
        return SimpleNamespace(
            sound_bytes=0,
            file_bytes=3300, bpp=0.1234, psnr_y=35.1, psnr_u=40.0, psnr_v=41.0, psnr_yuv=36.5, frames=33,
            seconds=61.0, resumed=False, model="hybrid", stages=(),
        )  # fmt: skip

    decoder, pipeline = ModuleType("nvcodec.decoder"), ModuleType("nvcodec.encoder.pipeline")
    vars(decoder).update(Decoder=Decoder)
    vars(pipeline).update(EncodeOptions=SimpleNamespace, encode=encode)
    monkeypatch.setitem(sys.modules, "nvcodec.decoder", decoder)
    monkeypatch.setitem(sys.modules, "nvcodec.encoder.pipeline", pipeline)
    return calls
