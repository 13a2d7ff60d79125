"""How well the encoder chooses a GOP length: each length by itself, beside the one that it chooses.

    python tools/gop_lengths.py CLIP[:FRAMES] ... -o DIR --bpp 0.06 --effort fast

Every figure is a whole file, decoded again: PSNR 6:1:1, less 3.5 dB for every doubling of its bytes over those that
were asked for. What the present code has finished in DIR is not computed again.
"""

from __future__ import annotations

import hashlib
import json
import math
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import click
from curve import clip_and_count

import nvcodec
from nvcodec.core.memory import keep_freed_memory
from nvcodec.rd.tool_versions import codec_versions

LENGTHS = (1, 2, 4, 8)
DECIBELS = 3.5


def figure(clip: Path, count: int | None, folder: Path, bpp: float, effort: str, gop: int | None) -> tuple[float, int]:
    """PSNR at equal size, and the length of the first segment's GOPs."""
    code = hashlib.sha256(f"{clip.resolve()} {codec_versions()}".encode()).hexdigest()[:8]
    path = folder / f"{clip.stem}_{count or 'all'}_{effort}_{bpp}_{gop or 'chosen'}_{code}.cwrv"
    kept = path.with_suffix(".json")
    if not kept.exists():
        keep_freed_memory()  # as the command does
        options = nvcodec.EncodeOptions(bpp=bpp, effort=effort, gop=gop, device="cpu", threads=1, audio=False)
        report = nvcodec.encode(clip, path, options, frames=(0, count), overwrite=True)
        with nvcodec.Decoder(path) as decoder:
            taken = int(decoder.account()["segments"][0]["gop"])
        kept.write_text(json.dumps([report.psnr_yuv - DECIBELS * math.log2(report.bpp / bpp), taken]))
    psnr, taken = json.loads(kept.read_text())
    return psnr, taken


@click.command()
@click.argument("clips", nargs=-1, required=True)
@click.option("-o", "--output", "folder", required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--bpp", default=0.06, show_default=True)
@click.option("--effort", default="fast", show_default=True)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Encodes at a time.")
def main(clips: tuple[str, ...], folder: Path, bpp: float, effort: str, jobs: int) -> None:
    """Encode CLIPS with each GOP length, and with the one that is chosen."""
    folder.mkdir(parents=True, exist_ok=True)
    choices = (*LENGTHS, None)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        futures = {
            text: [pool.submit(figure, *clip_and_count(text), folder, bpp, effort, gop) for gop in choices]
            for text in clips
        }
        click.echo(
            f"| clip | {' | '.join(map(str, LENGTHS))} | chosen | below the best |\n|{'---|' * (len(LENGTHS) + 3)}"
        )
        for text, found in futures.items():
            *fixed, (psnr, taken) = (future.result() for future in found)
            figures = " | ".join(f"{value:.2f}" for value, _ in fixed)
            best = max(value for value, _ in fixed)
            click.echo(f"| {Path(text).name} | {figures} | {psnr:.2f} ({taken}) | {best - psnr:.2f} |")


if __name__ == "__main__":
    main()
