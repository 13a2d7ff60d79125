"""Puts a frame of a source beside what a .cwrv file makes of it, with bits per pixel and PSNR.

    python tools/make_picture.py FILE.cwrv SOURCE OUT.png [--frame N]

The picture of the README is that of `make demo`'s file.
"""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

import click
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from nvcodec.core.color import to_rgb
from nvcodec.core.errors import InputError, NvcodecError
from nvcodec.core.frame import Frame, VideoProperties
from nvcodec.core.metrics import frame_psnr
from nvcodec.decoder import Decoder
from nvcodec.media.output_file import atomic_output
from nvcodec.media.video_io import VideoReader

_GAP = 8
_CAPTION = 22


def side_by_side(file: Path, source: Path, number: int) -> Image.Image:
    """Frame ``number`` of ``source`` and of ``file``, captions below.

    Raises:
        InputError: one of them has no such frame.
    """
    with Decoder(file) as decoder, VideoReader(source) as reader:
        properties = decoder.properties
        decoded = next(islice(decoder, number, None), None)
        original = next(islice(reader, number, None), None)
        samples = decoder.frame_count * properties.width * properties.height
    if decoded is None or original is None:
        raise InputError(f"no frame {number}")
    bpp = 8 * file.stat().st_size / samples
    psnr = frame_psnr(decoded, original).y
    width, height = properties.width, properties.height
    page = Image.new("RGB", (2 * width + _GAP, height + _CAPTION), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    captions = (f"source, frame {number}", f"nvcodec: clip {bpp:.3f} bpp, this frame Y {psnr:.1f} dB")
    for x, frame, caption in zip((0, width + _GAP), (original, decoded), captions, strict=True):
        page.paste(_image(frame, properties), (x, 0))
        draw.text((x + 2, height + 2), caption, fill="black", font=font)
    return page


def _image(frame: Frame, properties: VideoProperties) -> Image.Image:
    rgb: Tensor = to_rgb(frame, properties)
    return Image.fromarray(rgb.to(torch.uint8).permute(1, 2, 0).contiguous().numpy())


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--frame", "number", default=0, show_default=True, help="Which frame to show.")
def main(file: Path, source: Path, output: Path, number: int) -> None:
    """Show SOURCE beside FILE (.cwrv) in the picture OUTPUT."""
    try:
        with atomic_output(output, overwrite=True) as path:
            side_by_side(file, source, number).save(path, format="PNG", optimize=True)
    except (NvcodecError, OSError) as error:
        sys.exit(f"make_picture: {error}")


if __name__ == "__main__":
    main()
