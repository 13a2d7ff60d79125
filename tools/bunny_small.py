"""Big Buck Bunny at a quarter of the size, for comparing neural video representations on a processor.

    python tools/bunny_small.py bunny_1280x720_25fps.mp4 -o bunny_160x320.y4m
    python tools/bunny_small.py bunny_160x320.y4m --psnr decoded.cwrv

    1280x720 4:2:0  --middle 640 rows-->  1280x640  --mean of every 4x4 in each plane-->  320x160, the first 132 frames

PSNR is the mean of the frames' figures over all samples of 8-bit RGB; ``rgb_of`` is the one conversion that both sides
of a comparison use. The clip states no matrix and no range; BT.709, limited is what is taken here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import islice, zip_longest
from pathlib import Path

import av
import av.video.stream
import click
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8]
Planes = tuple[Plane, Plane, Plane]

FRAMES = 132
SIZE = (1280, 720)
HEIGHT = 640
FACTOR = 4

_KR, _KB = 0.2126, 0.0722
_KG = 1 - _KR - _KB


def rgb_of(y: Plane, u: Plane, v: Plane) -> NDArray[np.uint8]:
    """The stated conversion of a 4:2:0 frame, (H, W, 3): BT.709 limited range, every chroma sample repeated 2x2,

    calculated in float64, half rounded up, then clipped to 0..255.
    """
    height, width = y.shape
    luma = (y.astype(np.float64) - 16) / 219
    blue, red = ((plane.astype(np.float64).repeat(2, 0).repeat(2, 1)[:height, :width] - 128) / 224 for plane in (u, v))
    r = luma + 2 * (1 - _KR) * red
    b = luma + 2 * (1 - _KB) * blue
    g = (luma - _KR * r - _KB * b) / _KG
    return np.clip(np.floor(np.stack((r, g, b), -1) * 255 + 0.5), 0, 255).astype(np.uint8)


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """In dB over all samples; infinite for equal ones."""
    error = float(np.mean((a.astype(np.float64) - b) ** 2))
    return 10 * math.log10(255**2 / error) if error else math.inf


def reduced(plane: Plane, factor: int = FACTOR) -> Plane:
    """Every ``factor`` x ``factor`` samples become their mean, half rounded up."""
    height, width = plane.shape
    sums = plane.reshape(height // factor, factor, width // factor, factor).sum((1, 3), dtype=np.int64)
    area = factor * factor
    return ((sums * 2 + area) // (2 * area)).astype(np.uint8)


def frame_rate(path: Path) -> Fraction:
    """Frames per second of the first video in a file."""
    with av.open(str(path)) as container:
        return container.streams.video[0].average_rate or Fraction(25)


def planes_of(path: Path) -> Iterator[Planes]:
    """The 4:2:0 frames of a ``.cwrv`` file, or of anything that PyAV reads as 8-bit yuv420p."""
    if path.suffix == ".cwrv":
        from nvcodec import Decoder

        with Decoder(path) as decoder:
            for decoded in decoder:
                y, u, v = (plane.cpu().numpy() for plane in decoded.planes)
                yield y, u, v
        return
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if frame.format.name not in ("yuv420p", "yuvj420p"):
                raise click.ClickException(f"{path} holds {frame.format.name}, not 8-bit 4:2:0")
            y, u, v = (
                np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
                for plane in frame.planes
            )
            yield y, u, v


def small_frames(clip: Path) -> Iterator[Planes]:
    """The clip's first frames, cropped and reduced."""
    top = (SIZE[1] - HEIGHT) // 2
    for y, u, v in islice(planes_of(clip), FRAMES):
        if y.shape != (SIZE[1], SIZE[0]):
            raise click.ClickException(f"{clip} has {y.shape[1]}x{y.shape[0]}, not {SIZE[0]}x{SIZE[1]}")
        rows = slice(top // 2, (top + HEIGHT) // 2)
        yield reduced(y[top : top + HEIGHT]), reduced(u[rows]), reduced(v[rows])


def write_y4m(path: Path, rate: Fraction, frames: Iterable[Planes]) -> int:
    """Writes 8-bit 4:2:0 frames and returns how many there were."""
    count = 0
    with path.open("wb") as stream:
        for frame in frames:
            if count == 0:
                height, width = frame[0].shape
                header = f"YUV4MPEG2 W{width} H{height} F{rate.numerator}:{rate.denominator} Ip A1:1 C420\n"
                stream.write(header.encode("ascii"))
            stream.write(b"FRAME\n")
            for plane in frame:
                stream.write(plane.tobytes())
            count += 1
    return count


def psnr_rgb(source: Path, other: Path) -> list[float]:
    """The PSNR of every frame as ``rgb_of`` shows it; refuses videos of different sizes or lengths."""
    figures = []
    for a, b in zip_longest(planes_of(source), planes_of(other)):
        if a is None or b is None:
            raise click.ClickException("the two videos have different numbers of frames")
        if a[0].shape != b[0].shape:
            raise click.ClickException("the two videos have different sizes")
        figures.append(psnr(rgb_of(*a), rgb_of(*b)))
    if not figures:
        raise click.ClickException("the videos have no frames")
    return figures


@click.command()
@click.argument("clip", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="y4m file to write.")
@click.option(
    "--psnr",
    "other",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Measure this video against CLIP, both as they are; nothing is cropped or reduced.",
)
def main(clip: Path, output: Path | None, other: Path | None) -> None:
    """Write the small version of CLIP, or measure a video against CLIP."""
    if (output is None) == (other is None):
        raise click.UsageError("give one of --output and --psnr")
    if output is not None:
        count = write_y4m(output, frame_rate(clip), small_frames(clip))
        if count < FRAMES:
            raise click.ClickException(f"{clip} has only {count} frames of {FRAMES}")
        click.echo(f"{count} frames")
    if other is not None:
        figures = psnr_rgb(clip, other)
        click.echo(f"{len(figures)} frames, RGB {sum(figures) / len(figures):.3f} dB")


if __name__ == "__main__":
    main()
