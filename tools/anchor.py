"""Anchors by hand: what x264, x265 or SVT-AV1 make of the same frames at the same size, measured the same way.

    python tools/anchor.py CLIP --codec x264 --preset medium --frames 0:33 --bytes 33000
    python tools/anchor.py CLIP --codec x265 --frames 0:33 --crf 22 --crf 27.5

How they are run says :mod:`nvcodec.rd.anchors`; for whole curves there is ``cwrv rd``. PSNR is the mean of the
frames' figures. The text that x264 and x265 write of their settings is not counted.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import NamedTuple

import click

from nvcodec.core.errors import NvcodecError, TargetError
from nvcodec.core.frame import Frame, VideoProperties
from nvcodec.core.metrics import FramePsnr, frame_psnr, mean_psnr
from nvcodec.media.video_io import VideoReader, parse_frame_range
from nvcodec.rd.anchors import CODERS, AnchorSpec, decode_stream, encode_anchor


class Point(NamedTuple):
    """One encode: rate factor, bytes of the stream, quality."""

    crf: float
    bytes: int
    psnr: FramePsnr


class Anchor:
    """Encodes one clip with one encoder, each rate factor once."""

    def __init__(self, frames: list[Frame], properties: VideoProperties, spec: AnchorSpec) -> None:
        self.frames, self.properties, self.spec = frames, properties, spec
        self._points: dict[float, Point] = {}

    def at(self, crf: float) -> Point:
        """The point of a rate factor, rounded to what the encoder takes."""
        coder = self.spec.coder
        crf = coder.round_crf(crf)
        if crf not in self._points:
            stream = encode_anchor(self.frames, self.properties, self.spec, crf)
            decoded = decode_stream(stream.data, stream.packet_bytes, coder)
            quality = mean_psnr(frame_psnr(a, b) for a, b in zip(self.frames, decoded, strict=True))
            self._points[crf] = Point(crf, len(stream.data), quality)
        return self._points[crf]

    def enclose(self, target: int) -> tuple[Point, Point]:
        """Two neighbouring points: the first at most ``target`` bytes, the second above.

        Raises:
            TargetError: the target is out of the encoder's reach.
        """
        coder = self.spec.coder
        low, high = coder.crf_range
        smallest, largest = self.at(high), self.at(low)
        if not smallest.bytes <= target < largest.bytes:
            raise TargetError(f"{target} bytes are not between {smallest.bytes} and {largest.bytes}")
        while high - low > coder.crf_step * 1.5:
            middle = coder.round_crf((low + high) / 2)
            if self.at(middle).bytes <= target:
                high = middle
            else:
                low = middle
        return self.at(high), self.at(low)


def interpolate(pair: tuple[Point, Point], target: int) -> dict[str, float]:
    """PSNR at ``target`` bytes, linear in the logarithm of bytes between two points."""
    below, above = pair
    span = math.log(above.bytes / below.bytes)
    share = math.log(target / below.bytes) / span
    figures = {
        "psnr_y": (below.psnr.y, above.psnr.y),
        "psnr_yuv_611": (below.psnr.yuv_611, above.psnr.yuv_611),
    }
    return {name: round(a + share * (b - a), 3) for name, (a, b) in figures.items()}


def row(point: Point, samples: int) -> dict[str, float]:
    """A point as it is printed. ``samples`` is the number of luma samples of the whole clip."""
    return {
        "crf": point.crf,
        "bytes": point.bytes,
        "bpp": round(point.bytes * 8 / samples, 5),
        "psnr_y": round(point.psnr.y, 3),
        "psnr_u": round(point.psnr.u, 3),
        "psnr_v": round(point.psnr.v, 3),
        "psnr_yuv_611": round(point.psnr.yuv_611, 3),
    }


def answer(anchor: Anchor, target: int, samples: int) -> dict[str, object]:
    """What the encoder reaches at ``target`` bytes."""
    pair = anchor.enclose(target)
    return {
        "bytes": target,
        "bpp": round(target * 8 / samples, 5),
        "points": [row(point, samples) for point in pair],
        "interpolated": interpolate(pair, target),
    }


@click.command()
@click.argument("clip", type=click.Path(path_type=Path))
@click.option("--codec", type=click.Choice(list(CODERS)), default="x265", show_default=True, help="Encoder.")
@click.option("--preset", help="Preset of the encoder. Default: medium, and 4 for svtav1.")
@click.option("--frames", "frame_range", default="0:", show_default=True, help="Frames A:B of the clip.")
@click.option("--bytes", "targets", type=click.IntRange(1), multiple=True, help="Size to reach; repeatable.")
@click.option("--crf", "crfs", type=click.FloatRange(1, 70), multiple=True, help="Rate factor; repeatable.")
def main(
    clip: Path, codec: str, preset: str | None, frame_range: str, targets: tuple[int, ...], crfs: tuple[float, ...]
) -> None:
    """Encode frames of CLIP with x264, x265 or SVT-AV1 and print sizes and qualities as JSON."""
    if not targets and not crfs:
        raise click.UsageError("give --bytes or --crf")
    try:
        spec = AnchorSpec(codec, preset or ("4" if codec == "svtav1" else "medium"))
        with VideoReader(clip, frames=parse_frame_range(frame_range)) as reader:
            properties, frames = reader.properties, list(reader)
        samples = properties.width * properties.height * len(frames)
        anchor = Anchor(frames, properties, spec)
        report = {
            "clip": clip.name,
            "frames": len(frames),
            "size": f"{properties.width}x{properties.height}",
            "frame_rate": str(properties.frame_rate),
            "anchor": spec.name,
            "options": spec.coder.options(spec.preset, 0.0, None),
            "points": [row(anchor.at(crf), samples) for crf in crfs],
            "targets": [answer(anchor, target, samples) for target in targets],
        }
    except NvcodecError as error:
        sys.exit(f"anchor: {error}")
    click.echo(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
