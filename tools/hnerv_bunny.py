"""Big Buck Bunny as papers on neural video representations measure it: 1280x640 of 1280x720, 132 frames, PSNR in RGB.

    python tools/hnerv_bunny.py bunny_1280x720_25fps.mp4 -o DIR --effort fast

HNeRV (Chen et al., CVPR 2023) gives 30.15 dB at 0.026 bpp and 35.57 dB at 0.11 bpp, bits estimated from its weights;
here they are those of the files. PSNR is the mean of the frames' figures, over all samples of 8-bit RGB.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click

from nvcodec import Decoder
from nvcodec.core.color import to_rgb
from nvcodec.core.device import DEVICES
from nvcodec.core.frame import Frame, VideoProperties
from nvcodec.core.metrics import psnr
from nvcodec.encoder.pipeline import EncodeOptions, encode
from nvcodec.hybrid.encoder.stages import EFFORTS
from nvcodec.media.video_io import VideoReader
from nvcodec.media.y4m import write_y4m

FRAMES = 132
SIZE = (1280, 720)
HEIGHT = 640
RATES = (0.026, 0.11)


def cropped(frame: Frame) -> Frame:
    """The middle ``HEIGHT`` rows."""
    top = (frame.height - HEIGHT) // 2
    y, u, v = frame.planes
    rows = slice(top // 2, (top + HEIGHT) // 2)
    return Frame((y[top : top + HEIGHT].contiguous(), u[rows].contiguous(), v[rows].contiguous()), frame.pts)


def source_frames(clip: Path) -> Iterator[Frame]:
    with VideoReader(clip, frames=(0, FRAMES)) as reader:
        yield from (cropped(frame) for frame in reader)


def psnr_rgb(a: Frame, b: Frame, properties: VideoProperties) -> float:
    """In dB, over all samples of the two frames as 8-bit RGB."""
    return psnr(to_rgb(a, properties), to_rgb(b, properties))


@click.command()
@click.argument("clip", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", "folder", required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--effort", type=click.Choice(list(EFFORTS)), default="medium", show_default=True)
@click.option("--bpp", "rates", type=float, multiple=True, default=RATES, show_default=True)
@click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(1))
def main(clip: Path, folder: Path, effort: str, rates: tuple[float, ...], device: str, threads: int | None) -> None:
    """Encode CLIP at each rate and say what it came to."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "source.y4m"
    with VideoReader(clip) as reader:
        properties = reader.properties
    if (properties.width, properties.height) != SIZE:
        sys.exit(f"{clip} has {properties.width}x{properties.height}, not {SIZE[0]}x{SIZE[1]}")
    with source.open("wb") as stream:
        write_y4m(stream, replace(properties, height=HEIGHT), source_frames(clip))
    for rate in rates:
        path = folder / f"{effort}-{rate:g}.cwrv"
        options = EncodeOptions(bpp=rate, effort=effort, device=device, threads=threads, audio=False)
        report = encode(source, path, options, overwrite=True)
        with Decoder(path, device=device, threads=threads) as decoder:
            figures = [psnr_rgb(*pair, properties) for pair in zip(decoder, source_frames(clip), strict=True)]
        click.echo(
            f"{effort}: {len(figures)} frames, {report.bpp:.4f} bpp, RGB {sum(figures) / len(figures):.2f} dB, "
            f"{report.seconds / len(figures):.2f} s a frame"
        )


if __name__ == "__main__":
    main()
