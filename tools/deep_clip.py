"""Make a clip of 10 bits out of a larger one of 8: means over many samples know more than 8 bits.

python tools/deep_clip.py bunny_1280x720_25fps.mp4 -o deep.y4m --size 320x180 --frames 33
cwrv rd deep.y4m -o DIR --bpp 0.05,0.1,0.2 --anchors x265:medium,svtav1:4 --effort fast
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import click
from av.video.reformatter import Interpolation, VideoReformatter

from nvcodec.core.frame import Frame
from nvcodec.media.av_frame import to_planes
from nvcodec.media.output_file import atomic_output
from nvcodec.media.video_io import VideoReader
from nvcodec.media.y4m import write_y4m


@click.command()
@click.argument("clip", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
@click.option("--size", default="320x180", show_default=True)
@click.option("--frames", default=33, show_default=True)
def main(clip: Path, output: Path, size: str, frames: int) -> None:
    """Scale the first frames of CLIP down to 10 bits."""
    width, height = map(int, size.split("x"))
    with VideoReader(clip) as reader:
        properties = replace(
            reader.properties, width=width, height=height, bit_depth=10, time_base=1 / reader.properties.frame_rate,
            sample_aspect_ratio=Fraction(0),
        )  # fmt: skip
    scaler, straight = VideoReformatter(), VideoReformatter()
    made = []
    with av.open(str(clip)) as container:
        for number, picture in enumerate(islice(container.decode(video=0), frames)):
            small = scaler.reformat(picture, width, height, "yuv420p10le", interpolation=Interpolation.AREA)
            made.append(Frame(to_planes(small, straight), number))
    with atomic_output(output, overwrite=True) as temporary, temporary.open("wb") as file:
        write_y4m(file, properties, made)


if __name__ == "__main__":
    main()
