"""Points of one model on some clips, and its BD-rate against another encoder whose settings text is not counted.

    python tools/curve.py CLIP[:FRAMES] ... -o DIR --model cwrnn --effort slow --bpp 0.03,0.06,0.1,0.2

Every point is a whole file, decoded again. The anchor (x265 medium) has the same frames; of its stream the text about
its settings, some 2 kB, is left out. PSNR is 6:1:1, the mean over the frames; BD-rate is by it. What is finished in DIR
is not computed again. With --anchor none there are points alone: to compare models at equal bytes.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click

import nvcodec
from nvcodec.account import describe
from nvcodec.core.errors import NvcodecError
from nvcodec.core.frame import Frame, VideoProperties
from nvcodec.core.memory import keep_freed_memory
from nvcodec.core.metrics import frame_psnr, mean_psnr
from nvcodec.media.video_io import VideoReader
from nvcodec.rd.anchors import decode_stream, encode_anchor, parse_anchors
from nvcodec.rd.bd import Curve, bd_rate

CRFS = (18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 42, 44)


def frames_of(clip: Path, count: int | None) -> tuple[list[Frame], VideoProperties]:
    with VideoReader(clip) as reader:
        return list(islice(reader, count)), reader.properties


def point(clip: Path, count: int | None, folder: Path, bpp: float, settings: dict[str, Any]) -> dict[str, Any]:
    """One file of ours."""
    name = "_".join([clip.stem, str(count or "all"), *(str(v) for v in settings.values() if v is not None), str(bpp)])
    path = folder / f"{name}.cwrv"
    kept = path.with_suffix(".json")
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    keep_freed_memory()  # as the command does
    started = time.monotonic()
    options = nvcodec.EncodeOptions(bpp=bpp, device="cpu", audio=False, **settings)
    report = nvcodec.encode(clip, path, options, frames=(0, count), overwrite=True)
    seconds = time.monotonic() - started
    with nvcodec.Decoder(path) as decoder:
        purposes = describe(decoder, path.name)["bytes_by_purpose"]
    found = {
        "bytes": report.file_bytes,
        "bpp": report.bpp,
        "psnr": report.psnr_yuv,
        "psnr_y": report.psnr_y,
        "seconds_a_frame": seconds / report.frames,
        "purposes": {name: value for name, value in purposes.items() if value},
        "stages": list(report.stages),
    }
    kept.write_text(json.dumps(found))
    return found


def anchor_points(clip: Path, count: int | None, folder: Path, text: str) -> list[tuple[float, float]]:
    """(bpp, PSNR) of another encoder."""
    kept = folder / f"{clip.stem}_{count or 'all'}_{text.replace(':', '_')}.json"
    if kept.exists():
        return [tuple(pair) for pair in json.loads(kept.read_text())]
    (spec,) = parse_anchors(text)
    frames, properties = frames_of(clip, count)
    found = []
    for crf in CRFS:
        stream = encode_anchor(frames, properties, spec, crf)
        decoded = decode_stream(stream.data, stream.packet_bytes, spec.coder)
        figures = mean_psnr([frame_psnr(one, other) for one, other in zip(decoded, frames, strict=True)])
        luma = len(frames) * properties.width * properties.height
        found.append((8 * len(stream.data) / luma, figures.yuv_611))
    kept.write_text(json.dumps(found))
    return found


def clip_and_count(text: str) -> tuple[Path, int | None]:
    """CLIP or CLIP:FRAMES."""
    name, _, count = text.rpartition(":")
    return (Path(name), int(count)) if name and count.isdigit() else (Path(text), None)


@click.command()
@click.argument("clips", nargs=-1, required=True)
@click.option("-o", "--output", "folder", required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--model", default="cwrnn", show_default=True)
@click.option("--effort", default="slow", show_default=True)
@click.option("--bpp", "bpps", default="0.03,0.06,0.1,0.2", show_default=True)
@click.option("--params", type=float, help="As for cwrv encode.")
@click.option("--epochs", type=int, help="As for cwrv encode.")
@click.option("--threads", type=int, help="Of each encode.")
@click.option("--anchor", default="x265:medium", show_default=True, help="Encoder and preset, or none.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Encodes at a time.")
def main(
    clips: tuple[str, ...], folder: Path, model: str, effort: str, bpps: str, params: float | None,
    epochs: int | None, threads: int | None, anchor: str, jobs: int,
) -> None:  # fmt: skip
    """Encode CLIPS at several rates, and print points and BD-rates."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"model": model, "effort": effort, "params": params, "epochs": epochs, "threads": threads}
    wanted = [clip_and_count(text) for text in clips]
    deltas: list[float] = []
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        futures = {
            (clip, count, bpp): pool.submit(point, clip, count, folder, bpp, settings)
            for clip, count in wanted
            for bpp in map(float, bpps.split(","))
        }
        for clip, count in wanted:
            ours = []
            for (of_clip, of_count, bpp), future in futures.items():
                if (of_clip, of_count) != (clip, count):
                    continue
                try:
                    found = future.result()
                except NvcodecError as error:
                    sys.exit(f"curve: {clip.name} at {bpp}: {error}")
                ours.append((found["bpp"], found["psnr"]))
                purposes = ", ".join(f"{k} {v:.0f}" for k, v in found["purposes"].items())
                click.echo(
                    f"{clip.stem} {found['bytes']} bytes, {found['bpp']:.4f} bpp, {found['psnr']:.2f} dB "
                    f"(Y {found['psnr_y']:.2f}), {found['seconds_a_frame']:.1f} s a frame: {purposes}"
                )
            if anchor != "none":
                delta = bd_rate(Curve(anchor_points(clip, count, folder, anchor)), Curve(ours))
                if delta.value is None:
                    click.echo(f"{clip.stem}: no BD-rate against {anchor}: {delta.note}")
                    continue
                click.echo(f"{clip.stem}: BD-rate against {anchor} {delta.value:+.1f} %  {delta.note or ''}")
                deltas.append(delta.value)
    if len(deltas) > 1:
        click.echo(f"mean: {sum(deltas) / len(deltas):+.1f} %")


if __name__ == "__main__":
    main()
