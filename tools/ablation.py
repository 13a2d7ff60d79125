"""What each part of the codec is worth: whole encodes with one part taken out at a time.

    python tools/ablation.py CLIP [CLIP ...] -o DIR --frames 17

Every variant encodes every CLIP at three targets, to real files that are decoded again (by a decoder that lacks the
same part). BD-rate is that of the variant against the encoder with all its parts, by PSNR 6:1:1; times are of the
encodes and of decoding in a loop, as a multiple of those with all parts, summed over clips and targets. What is
finished in DIR is not computed again.

The context features of the motion from the references, and raster order in the place of the four stages, are measured
by ``tools/ablation_contexts.py``: their context models have to be trained first.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

import nvcodec
from nvcodec.core.errors import NvcodecError
from nvcodec.core.metrics import frame_psnr, mean_psnr
from nvcodec.encoder import segment_analysis, unit_motion_search
from nvcodec.hybrid.encoder import quantise, stages
from nvcodec.media.video_io import VideoReader
from nvcodec.motion import unit
from nvcodec.motion.prediction import MotionPrediction
from nvcodec.rd.bd import Curve, bd_rate

BPPS = (0.05, 0.1, 0.2)


def _put(module: ModuleType, name: str, replacement: Callable[..., Any]) -> None:
    if not hasattr(module, name):
        raise AttributeError(f"{module.__name__} has no {name}: this tool is behind the code")
    setattr(module, name, replacement)


def _no_motion_prediction() -> None:
    predict = unit.predict_motion

    def at_rest(*arguments: Any) -> MotionPrediction:
        found = predict(*arguments)
        return MotionPrediction(tuple(torch.zeros_like(field) for field in found.fields), found.disagreement)

    _put(unit, "predict_motion", at_rest)


def _no_grid_motion() -> None:
    def nothing_found(*arguments: Any) -> list[Tensor]:
        start = arguments[4]
        return [torch.zeros_like(level) for level in start]

    _put(unit_motion_search, "search_motion", nothing_found)


def _no_look_ahead() -> None:
    _put(stages, "_weigh", lambda work: None)


def _no_temporal_filter() -> None:
    _put(segment_analysis, "filtered_frames", lambda *arguments: {})


def _no_learning() -> None:
    _put(stages, "quantise_network", lambda twin, sensitivity, price: {})


def _no_pruning() -> None:
    """Every weight goes to its nearest step, whatever its bits; steps and untouched tensors are still chosen."""

    def nearest(target: np.ndarray, sensitivity: np.ndarray, price: float) -> tuple[np.ndarray, np.ndarray, float]:
        symbols = np.rint(target).clip(-quantise.TABLE_BOUND, quantise.TABLE_BOUND).astype(np.int32)
        bits = quantise._COSTS[:, symbols + quantise.TABLE_BOUND].sum(2)
        cost = float((sensitivity * (target - symbols) ** 2).sum() + price * bits.min(0).sum())
        return symbols, bits.argmin(0), cost

    _put(quantise, "_choose_symbols", nearest)


def _no_tuning() -> None:
    efforts = stages.EFFORTS
    efforts["medium"] = replace(efforts["medium"], tuning=False)


@dataclass(frozen=True)
class Variant:
    """``take_out``: run in a process of its own before the encode. ``effort``: of it and its comparison."""

    name: str
    take_out: Callable[[], None]
    effort: str = "fast"


def _nothing() -> None:
    pass


VARIANTS = (
    Variant("all parts", _nothing),
    Variant("without motion prediction", _no_motion_prediction),
    Variant("without the grid's motion part", _no_grid_motion),
    Variant("without looking ahead", _no_look_ahead),
    Variant("without the temporal filter", _no_temporal_filter),
    Variant("without learned weights", _no_learning),
    Variant("without pruning", _no_pruning),
    Variant("all parts, medium", _nothing, "medium"),
    Variant("without quantisation-aware tuning, medium", _no_tuning, "medium"),
)


@dataclass(frozen=True)
class Job:
    """One encode: ``variant`` is an index into VARIANTS."""

    variant: int
    clip: Path
    bpp: float
    frames: int


def _length(clip: Path, most: int) -> int:
    """Frames of a clip, at most so many."""
    with VideoReader(clip) as reader:
        return sum(1 for _ in islice(reader, most))


def run(job: Job, folder: Path) -> dict[str, float]:
    """Bytes, PSNR 6:1:1, and seconds of the encode and of decoding in a loop."""
    variant = VARIANTS[job.variant]
    variant.take_out()
    path = folder / f"{job.variant}_{job.clip.stem}_{job.frames}_{job.bpp}.cwrv"
    options = nvcodec.EncodeOptions(bpp=job.bpp, effort=variant.effort, device="cpu", threads=1)
    report_at = path.with_suffix(".json")
    if report_at.exists():
        return dict(json.loads(report_at.read_text()))
    start = time.perf_counter()
    nvcodec.encode(job.clip, path, options, frames=(0, job.frames), overwrite=True)
    encoded = time.perf_counter()
    with nvcodec.Decoder(path, device="cpu", threads=1) as decoder, VideoReader(job.clip, frames=(0, job.frames)) as r:
        figures = mean_psnr([frame_psnr(one, other) for one, other in zip(decoder, r, strict=True)])
    decoding = time.perf_counter()
    with nvcodec.Decoder(path, device="cpu", threads=1) as decoder:
        for _ in decoder:
            pass
    found = {
        "bytes": path.stat().st_size,
        "psnr": figures.yuv_611,
        "encode": encoded - start,
        "decode": time.perf_counter() - decoding,
    }
    report_at.write_text(json.dumps(found))
    return found


def table(found: dict[Job, dict[str, float]], clips: Sequence[Path]) -> str:
    """Markdown: a row for each variant that was run."""
    lines = [
        f"| | {' | '.join(clip.stem for clip in clips)} | encode | decode |",
        f"|---|{'---|' * len(clips)}---|---|",
    ]
    whole = {variant.effort: number for number, variant in reversed(list(enumerate(VARIANTS)))}
    for number, variant in enumerate(VARIANTS):
        if all(job.variant != number for job in found):
            continue
        cells = []
        for clip in clips:
            anchor, test = (
                Curve(
                    tuple((f["bytes"], f["psnr"]) for job, f in found.items() if (job.variant, job.clip) == (n, clip))
                )
                for n in (whole[variant.effort], number)
            )
            delta = bd_rate(anchor, test)
            cells.append(delta.note if delta.value is None else f"{delta.value:+.1f} %")
        for what in ("encode", "decode"):
            total, usual = (
                sum(f[what] for job, f in found.items() if job.variant == n) for n in (number, whole[variant.effort])
            )
            cells.append(f"{total / usual:.2f}")
        lines.append(f"| {variant.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


@click.command()
@click.argument("clips", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", "folder", required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--frames", type=click.IntRange(2), default=17, show_default=True, help="Most of each clip, from its start."
)
@click.option("--effort", type=click.Choice(["fast", "medium", "both"]), default="both", help="Only its variants.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Encodes at a time.")
def main(clips: tuple[Path, ...], folder: Path, frames: int, effort: str, jobs: int) -> None:
    """Encode CLIPS with and without each part and print the table."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = [number for number, variant in enumerate(VARIANTS) if effort in (variant.effort, "both")]
    lengths = {clip: _length(clip, frames) for clip in clips}
    wanted = [Job(number, clip, bpp, lengths[clip]) for number in numbers for clip in clips for bpp in BPPS]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn, max_tasks_per_child=1) as pool:
        futures = {job: pool.submit(run, job, folder) for job in wanted}
        found = {}
        for job, future in futures.items():
            try:
                found[job] = future.result()
            except NvcodecError as error:
                sys.exit(f"ablation: {VARIANTS[job.variant].name}, {job.clip.name} at {job.bpp}: {error}")
            click.echo(f"{VARIANTS[job.variant].name}, {job.clip.stem} at {job.bpp}: {found[job]}", err=True)
    click.echo(table(found, clips), nl=False)


if __name__ == "__main__":
    main()
