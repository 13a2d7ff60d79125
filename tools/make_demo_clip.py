"""Cuts and shrinks the demo clip of the tests from a longer video.

    python tools/make_demo_clip.py bunny_640x360_25fps.mkv tests/data/bunny_demo.mkv --frames 8:32

The result is lossless, so that the same command gives the same samples again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import click
from av.video.reformatter import Interpolation, VideoReformatter

from nvcodec.core.errors import NvcodecError
from nvcodec.core.frame import Frame
from nvcodec.media.av_frame import to_av_frame, to_planes
from nvcodec.media.video_io import VideoReader, parse_frame_range, write_video

SCALING = Interpolation.LANCZOS | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


def shrink(frames: Iterator[Frame], width: int, height: int) -> Iterator[Frame]:
    """Every frame scaled to ``width`` x ``height`` luma samples (Lanczos), numbered 0, 1, 2, ..."""
    scaler, converter = VideoReformatter(), VideoReformatter()
    for number, frame in enumerate(frames):
        picture: av.VideoFrame = scaler.reformat(to_av_frame(frame), width=width, height=height, interpolation=SCALING)
        yield Frame(to_planes(picture, converter), number)


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--frames", "frame_range", default="8:32", show_default=True, help="Frames to cut, A:B.")
@click.option("--width", default=320, show_default=True, help="Luma columns.")
@click.option("--height", default=180, show_default=True, help="Luma rows.")
@click.option("-y", "--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")
def main(source: Path, output: Path, frame_range: str, width: int, height: int, overwrite: bool) -> None:
    """Cut frames from SOURCE, scale them and store them losslessly in OUTPUT (.mkv, H.264 at crf 0)."""
    try:
        with VideoReader(source, frames=parse_frame_range(frame_range)) as reader:
            p = reader.properties
            aspect = p.sample_aspect_ratio * Fraction(p.width * height, p.height * width)
            properties = replace(p, width=width, height=height, time_base=1 / p.frame_rate, sample_aspect_ratio=aspect)
            count = write_video(
                output, properties, shrink(reader, width, height), codec="h264", crf=0, overwrite=overwrite
            )
    except NvcodecError as error:
        sys.exit(f"make_demo_clip: {error}")
    click.echo(f"{output}: {count} frames, {output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
