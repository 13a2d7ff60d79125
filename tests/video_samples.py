"""Small videos for the tests, and ways to read and compare them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import torch

from nvcodec.core.frame import Frame, VideoProperties
from nvcodec.media.video_io import VideoReader

DEMO = Path(__file__).parent / "data" / "bunny_demo.mkv"


def properties(width: int = 96, height: int = 80, **changes: Any) -> VideoProperties:
    values = {"frame_rate": Fraction(25), "time_base": Fraction(1, 25)} | changes
    return VideoProperties(width=width, height=height, **values)


def frames(width: int = 96, height: int = 80, pts: tuple[int, ...] = (0, 1, 2, 3)) -> list[Frame]:
    """A smooth picture that moves down one row a frame, with different chroma planes."""

    def plane(rows: int, columns: int, shift: int, turn: float) -> torch.Tensor:
        y = torch.arange(rows).unsqueeze(1) + shift
        x = torch.arange(columns).unsqueeze(0)
        return (128 + 90 * torch.sin(x / 9 + y / 13 + turn)).round().to(torch.uint8)

    half = ((height + 1) // 2, (width + 1) // 2)
    return [
        Frame((plane(height, width, 2 * i, 0), plane(*half, i, 1), plane(*half, i, 2)), t) for i, t in enumerate(pts)
    ]


def read(path: Path, **options: Any) -> tuple[VideoProperties, list[Frame]]:
    with VideoReader(path, **options) as reader:
        return reader.properties, list(reader)


def same(a: list[Frame], b: list[Frame]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(p, q) for x, y in zip(a, b, strict=True) for p, q in zip(x.planes, y.planes, strict=True)
    )


def save_png(path: Path, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    av.VideoFrame.from_ndarray(pixels, "rgb24").save(str(path))


def write_ffv1(path: Path, width: int, height: int, pix_fmt: str, color_range: int, planes: list[bytes | int]) -> None:
    """One frame of any format, BT.709; a plane is its bytes, row padding included, or a sample to repeat."""
    with av.open(str(path), "w") as container:
        stream = cast(Any, container.add_stream("ffv1", rate=25))
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.color_range, stream.codec_context.colorspace = color_range, 1
        picture = av.VideoFrame(width, height, pix_fmt)
        for plane, content in zip(picture.planes, planes, strict=True):
            if isinstance(content, int):
                sample = content.to_bytes(2 if pix_fmt.endswith("le") else 1, "little")
                content = sample * (plane.buffer_size // len(sample))
            plane.update(content)
        container.mux(stream.encode(picture))
        container.mux(stream.encode())
