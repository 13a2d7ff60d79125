"""Anchors: what x264 and x265 make of the same frames at the same size, measured the same way.

    python tools/anchor.py CLIP --codec x264 --preset medium --frames 0:33 --bytes 33000
    python tools/anchor.py CLIP --codec x265 --frames 0:33 --crf 22 --crf 27.5

Rules: ``tune=psnr``; one key frame, at the start; constant rate factor, fractional; one thread, so that a run
can be repeated to the byte; bytes are those of the elementary stream, no container; the stream is decoded
again and compared with the source; PSNR is the mean of the frames' figures in dB.

Both encoders write their settings as text into the first packet (user data SEI, some 700 bytes for x264 and
2,000 for x265). These bytes belong to the stream and are counted; ``sei_bytes`` tells how many they are, and
a byte target is answered twice, with and without them.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, cast

import av
import click
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import VideoReformatter

from nvcodec.av_frame import to_av_frame, to_planes
from nvcodec.errors import EncodeError, NvcodecError, TargetError
from nvcodec.frame import Frame
from nvcodec.metrics import FramePsnr, frame_psnr, mean_psnr
from nvcodec.video_io import VideoReader, parse_frame_range

CRF_RANGE = (1.0, 51.0)
CRF_STEP = 0.01
"""The search ends when the two points that enclose the target are this close."""

START_CODE = re.compile(rb"\x00?\x00\x00\x01")
USER_DATA_UNREGISTERED = 5


class Coder(NamedTuple):
    """An encoder, its decoder, and how to tell a user data SEI unit by its first bytes."""

    encoder: str
    decoder: str
    params_option: str
    params: str
    is_user_data: Callable[[bytes], bool]


CODERS = {
    "x264": Coder(
        "libx264",
        "h264",
        "x264-params",
        "keyint=infinite:scenecut=0:threads=1:lookahead-threads=1",
        lambda unit: unit[0] & 31 == 6 and unit[1] == USER_DATA_UNREGISTERED,
    ),
    "x265": Coder(
        "libx265",
        "hevc",
        "x265-params",
        "keyint=-1:scenecut=0:pools=none:frame-threads=1:log-level=none",
        lambda unit: unit[0] >> 1 & 63 == 39 and unit[2] == USER_DATA_UNREGISTERED,
    ),
}


class Point(NamedTuple):
    """One encode: rate factor, bytes of the stream, how many of them are SEI text, quality."""

    crf: float
    bytes: int
    sei_bytes: int
    psnr: FramePsnr


class Anchor:
    """Encodes one clip with one encoder, each rate factor once."""

    def __init__(self, frames: list[Frame], rate: Fraction, coder: Coder, preset: str) -> None:
        self.frames, self.rate, self.coder, self.preset = frames, rate, coder, preset
        self._points: dict[float, Point] = {}

    def at(self, crf: float) -> Point:
        """The point of a rate factor, rounded to hundredths."""
        crf = round(crf, 2)
        if crf not in self._points:
            packets = self._encode(crf)
            figures = [frame_psnr(a, b) for a, b in zip(self.frames, self._decode(packets), strict=True)]
            stream = b"".join(bytes(packet) for packet in packets)
            sei = user_data_bytes(stream, self.coder)
            self._points[crf] = Point(crf, len(stream), sei, mean_psnr(figures))
        return self._points[crf]

    def enclose(self, target: int, size: Callable[[Point], int]) -> tuple[Point, Point]:
        """Two points ``CRF_STEP`` apart: the first at most ``target`` bytes by ``size``, the second above.

        Raises:
            TargetError: the target is out of the encoder's reach.
        """
        low, high = CRF_RANGE
        smallest, largest = self.at(high), self.at(low)
        if not size(smallest) <= target < size(largest):
            raise TargetError(f"{target} bytes are not between {size(smallest)} and {size(largest)}")
        while high - low > CRF_STEP * 1.5:
            middle = round((low + high) / 2, 2)
            if size(self.at(middle)) <= target:
                high = middle
            else:
                low = middle
        return self.at(high), self.at(low)

    def _encode(self, crf: float) -> list[av.Packet]:
        context = cast(VideoCodecContext, av.CodecContext.create(self.coder.encoder, "w"))
        context.width, context.height = self.frames[0].width, self.frames[0].height
        context.pix_fmt = "yuv420p"
        context.framerate, context.time_base = self.rate, 1 / self.rate
        context.thread_count = 1
        context.options = {
            "preset": self.preset,
            "tune": "psnr",
            "crf": f"{crf:.2f}",
            self.coder.params_option: self.coder.params,
        }
        packets = []
        for number, frame in enumerate(self.frames):
            picture = to_av_frame(frame)
            picture.pts, picture.time_base = number, 1 / self.rate
            packets += context.encode(picture)
        packets += context.encode(None)
        if sum(packet.is_keyframe for packet in packets) != 1:
            raise EncodeError("the encoder wrote more than one key frame")
        return packets

    def _decode(self, packets: list[av.Packet]) -> list[Frame]:
        context = cast(VideoCodecContext, av.CodecContext.create(self.coder.decoder, "r"))
        context.thread_count = 1
        reformatter = VideoReformatter()
        pictures = [picture for packet in [*packets, None] for picture in context.decode(packet)]
        return [Frame(to_planes(picture, reformatter), number) for number, picture in enumerate(pictures)]


def user_data_bytes(stream: bytes, coder: Coder) -> int:
    """Bytes of all user data SEI units of an Annex B stream, start codes included."""
    starts = [(match.start(), match.end()) for match in START_CODE.finditer(stream)]
    ends = [start for start, _ in starts[1:]] + [len(stream)]
    units = zip(starts, ends, strict=True)
    return sum(end - start for (start, body), end in units if coder.is_user_data(stream[body : body + 3]))


def interpolate(pair: tuple[Point, Point], target: int, size: Callable[[Point], int]) -> dict[str, float]:
    """PSNR at ``target`` bytes, linear in the logarithm of bytes between two points."""
    below, above = pair
    span = math.log(size(above) / size(below))
    share = math.log(target / size(below)) / span
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
        "sei_bytes": point.sei_bytes,
        "bpp": round(point.bytes * 8 / samples, 5),
        "psnr_y": round(point.psnr.y, 3),
        "psnr_u": round(point.psnr.u, 3),
        "psnr_v": round(point.psnr.v, 3),
        "psnr_yuv_611": round(point.psnr.yuv_611, 3),
    }


def answer(anchor: Anchor, target: int, samples: int) -> dict[str, object]:
    """What the encoder reaches at ``target`` bytes, the SEI text counted and not counted."""
    result: dict[str, object] = {"bytes": target, "bpp": round(target * 8 / samples, 5)}
    sizes: dict[str, Callable[[Point], int]] = {
        "with_sei": lambda point: point.bytes,
        "without_sei": lambda point: point.bytes - point.sei_bytes,
    }
    for name, size in sizes.items():
        pair = anchor.enclose(target, size)
        points = [row(point, samples) for point in pair]
        result[name] = {"points": points, "interpolated": interpolate(pair, target, size)}
    return result


@click.command()
@click.argument("clip", type=click.Path(path_type=Path))
@click.option("--codec", type=click.Choice(list(CODERS)), default="x265", show_default=True, help="Encoder.")
@click.option("--preset", default="medium", show_default=True, help="Preset of the encoder.")
@click.option("--frames", "frame_range", default="0:", show_default=True, help="Frames A:B of the clip.")
@click.option("--bytes", "targets", type=click.IntRange(1), multiple=True, help="Size to reach; repeatable.")
@click.option("--crf", "crfs", type=click.FloatRange(*CRF_RANGE), multiple=True, help="Rate factor; repeatable.")
def main(
    clip: Path, codec: str, preset: str, frame_range: str, targets: tuple[int, ...], crfs: tuple[float, ...]
) -> None:
    """Encode frames of CLIP with x264 or x265 and print sizes and qualities as JSON."""
    if not targets and not crfs:
        raise click.UsageError("give --bytes or --crf")
    try:
        with VideoReader(clip, frames=parse_frame_range(frame_range)) as reader:
            properties, frames = reader.properties, list(reader)
        if properties.width % 2 or properties.height % 2 or min(properties.width, properties.height) < 64:
            raise EncodeError(f"{clip}: anchors need even sizes from 64x64 on")
        samples = properties.width * properties.height * len(frames)
        anchor = Anchor(frames, properties.frame_rate, CODERS[codec], preset)
        report = {
            "clip": clip.name,
            "frames": len(frames),
            "size": f"{properties.width}x{properties.height}",
            "frame_rate": str(properties.frame_rate),
            "codec": codec,
            "preset": preset,
            "tune": "psnr",
            "params": CODERS[codec].params,
            "points": [row(anchor.at(crf), samples) for crf in crfs],
            "targets": [answer(anchor, target, samples) for target in targets],
        }
    except (NvcodecError, av.error.FFmpegError) as error:
        sys.exit(f"anchor: {error}")
    click.echo(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
