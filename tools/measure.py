"""Size and quality of a .cwrv file, against its source and from the file alone.

    python tools/measure.py FILE.cwrv SOURCE [--frames A:B] [--json]

Decodes FILE and compares each frame with SOURCE. PSNR is the mean of the frames' figures in dB; bits per
pixel are those of the whole file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from nvcodec.core.errors import InputError, NvcodecError
from nvcodec.core.metrics import frame_psnr, mean_psnr
from nvcodec.decoder import Decoder
from nvcodec.media.video_io import VideoReader, parse_frame_range


def measure(file: Path, source: Path, frames: tuple[int, int | None] | None = None) -> dict[str, float]:
    """``frames``: those of ``source`` that ``file`` holds.

    Raises:
        InputError: the source has not as many frames as the file, or they have another size.
    """
    with Decoder(file) as decoder, VideoReader(source, frames=frames) as reader:
        p = decoder.properties
        figures = [frame_psnr(decoded, original) for decoded, original in zip(decoder, reader, strict=False)]
        if len(figures) < decoder.frame_count or next(reader, None) is not None:
            raise InputError(f"{file} holds {decoder.frame_count} frames, {source} not as many (see --frames)")
    mean = mean_psnr(figures)
    size = file.stat().st_size
    return {
        "frames": len(figures),
        "bytes": size,
        "bpp": 8 * size / (len(figures) * p.width * p.height),
        "psnr_y": mean.y,
        "psnr_u": mean.u,
        "psnr_v": mean.v,
        "psnr_yuv_611": mean.yuv_611,
    }


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--frames", metavar="A:B", help="The frames of SOURCE that FILE holds.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def main(file: Path, source: Path, frames: str | None, as_json: bool) -> None:
    """Decode FILE (.cwrv) and compare it with SOURCE, the video that it was made from."""
    try:
        found = measure(file, source, parse_frame_range(frames) if frames is not None else None)
    except (NvcodecError, OSError) as error:
        sys.exit(f"measure: {error}")
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(f"{file}: {found['frames']} frames, {found['bytes']} bytes, {found['bpp']:.4f} bpp")
    click.echo(
        f"PSNR against {source}: Y {found['psnr_y']:.2f} dB, U {found['psnr_u']:.2f} dB, "
        f"V {found['psnr_v']:.2f} dB, 6:1:1 {found['psnr_yuv_611']:.2f} dB"
    )


if __name__ == "__main__":
    main()
