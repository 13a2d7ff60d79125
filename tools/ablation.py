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
from functools import partial
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
import torch
from cwrnn_parts import adopted_start, blind_point, silenced, without_states
from torch import Tensor, nn

import nvcodec
from nvcodec.core.errors import NvcodecError
from nvcodec.core.memory import keep_freed_memory
from nvcodec.core.metrics import frame_psnr, mean_psnr
from nvcodec.encoder import segment_analysis, unit_motion_search, weight_changes
from nvcodec.exact.convolution import Conv2d
from nvcodec.exact.layer import ExactLayer
from nvcodec.exact.operation import Sizes
from nvcodec.exact.tracing import place
from nvcodec.grid.encoder import fit as grid_fit
from nvcodec.hybrid.encoder import stages
from nvcodec.implicit.encoder import recurrent_representation, recurrent_stages, start
from nvcodec.implicit.models.cwrnn import CWRNN, Widths
from nvcodec.media.video_io import VideoReader
from nvcodec.motion import unit
from nvcodec.rd.bd import MIN_POINTS, Curve, bd_rate

BPPS = (0.05, 0.1, 0.2)


def _put(module: ModuleType, name: str, replacement: Callable[..., Any]) -> None:
    if not hasattr(module, name):
        raise AttributeError(f"{module.__name__} has no {name}: this tool is behind the code")
    setattr(module, name, replacement)


def _no_motion_prediction() -> None:
    predict = unit.predict_motion
    _put(unit, "predict_motion", lambda *arguments: predict(*arguments).at_rest())


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
        symbols = np.rint(target).clip(-weight_changes.TABLE_BOUND, weight_changes.TABLE_BOUND).astype(np.int32)
        bits = weight_changes._COSTS[:, symbols + weight_changes.TABLE_BOUND].sum(2)
        cost = float((sensitivity * (target - symbols) ** 2).sum() + price * bits.min(0).sum())
        return symbols, bits.argmin(0), cost

    _put(weight_changes, "_choose_symbols", nearest)


def _no_tuning() -> None:
    efforts = stages.EFFORTS
    efforts["medium"] = replace(efforts["medium"], tuning=False)


@dataclass(frozen=True)
class Variant:
    """``take_out``: run in a process of its own before the encode. ``effort``: of it and its comparison."""

    name: str
    take_out: Callable[[], None]
    effort: str = "fast"
    model: str = "hybrid"


def _nothing() -> None:
    pass


def _convolution(module: nn.Module, name: str) -> Conv2d:
    layer = module.get_submodule(name)
    assert isinstance(layer, Conv2d)
    return layer


def _convolutions(module: nn.Module) -> dict[str, Conv2d]:
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, Conv2d)}


def _widths(module: nn.Module) -> Widths:
    assert isinstance(module, CWRNN)
    return module.widths


def _changed_start(change: Callable[[nn.Module], dict[str, Tensor]]) -> None:
    """Let the encoder, and the decoder in this process, start from other weights. ``change``: of a module with the
    weights of the shipped start makes one with others, and says which weights (masks by name of the layer) stay so."""
    load = recurrent_representation.load_start

    def load_changed(module: nn.Module, sizes: Sizes, bits: int, data: bytes, fractions: dict[str, int]) -> start.Start:
        found = load(module, sizes, bits, data, fractions)
        masks = change(module)
        for name, mask in masks.items():
            _convolution(module, name).weight.register_hook(lambda grad, mask=mask: grad * mask)
        return adopted_start(module, sizes, bits, _convolutions(module), found, masks)

    _put(recurrent_representation, "load_start", load_changed)


def _no_hidden_state() -> None:
    """From a start that was trained on without states."""
    _put(recurrent_representation, "starting_point", lambda name: blind_point())
    _changed_start(without_states)


def _one_scale() -> None:
    def change(module: nn.Module) -> dict[str, Tensor]:
        widths = _widths(module)
        return silenced(
            module,
            {
                "motion.enter": slice(0, 8 * widths.quarter_state),
                "enter_states": slice(2 * widths.half_state, None),
            },
        )

    _changed_start(change)


def _no_refined_motion() -> None:
    @torch.no_grad()
    def change(module: nn.Module) -> dict[str, Tensor]:
        leave = _convolution(module, "motion.leave")
        leave.weight.zero_()
        leave.bias.zero_()
        leave.bias.register_hook(torch.zeros_like)
        return {"motion.leave": torch.zeros_like(leave.weight)}

    _changed_start(change)


def _no_fine_levels() -> None:
    descend = grid_fit.descended_levels

    def coarse(levels: list[Tensor], *arguments: Any) -> list[Tensor]:
        found = descend(levels, *arguments)
        return [torch.zeros_like(level) for level in found[:2]] + found[2:]

    _put(grid_fit, "descended_levels", coarse)


def _recurrent(**settings: Any) -> Callable[[], None]:
    def change() -> None:
        efforts = recurrent_stages.EFFORTS
        for name, effort in efforts.items():
            efforts[name] = replace(effort, **settings)

    return change


def _gated_state() -> None:
    cwrnn = recurrent_representation.CWRNN
    _put(recurrent_representation, "CWRNN", partial(cwrnn, gated=True))
    load = recurrent_representation.load_start

    def load_gated(module: nn.Module, sizes: Sizes, bits: int, data: bytes, fractions: dict[str, int]) -> start.Start:
        plain = cwrnn(sizes, widths=_widths(module))
        place(plain, sizes)
        found = load(plain, sizes, bits, data, fractions)
        layers = dict(plain.named_modules())
        for name, layer in module.named_modules():
            if isinstance(layer, ExactLayer) and name in layers:
                layer.load_state_dict(layers[name].state_dict())
        choose = _convolution(module, "state_gate")
        with torch.no_grad():
            choose.weight.zero_()
            choose.bias.fill_(4.0)
            choose.step.fill_(-40.0)
        choose.fit_bias()
        return adopted_start(module, sizes, bits, _convolutions(plain), found, {})

    _put(recurrent_representation, "load_start", load_gated)


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
    Variant("all parts", _nothing, model="cwrnn"),
    Variant("network frozen at its start", _recurrent(learns=False), model="cwrnn"),
    Variant("without the hidden state", _no_hidden_state, model="cwrnn"),
    Variant("without learned refinement of motion", _no_refined_motion, model="cwrnn"),
    Variant("without joint refinement", _recurrent(joint=False), model="cwrnn"),
    Variant("at one scale", _one_scale, model="cwrnn"),
    Variant("state gated by the residual", _gated_state, model="cwrnn"),
    Variant("without motion prediction", _no_motion_prediction, model="cwrnn"),
    Variant("without the grid at strides 2 and 4", _no_fine_levels, model="cwrnn"),
    Variant("without motion channels", _no_grid_motion, model="cwrnn"),
    Variant("without pruning", _recurrent(prunes=False), model="cwrnn"),
    Variant("without tuning", _recurrent(tuning=0), model="cwrnn"),
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
    keep_freed_memory()  # as the command does
    variant = VARIANTS[job.variant]
    variant.take_out()
    path = folder / f"{job.variant}_{job.clip.stem}_{job.frames}_{job.bpp}.cwrv"
    options = nvcodec.EncodeOptions(
        bpp=job.bpp, effort=variant.effort, model=variant.model, device="cpu", threads=1, audio=False
    )
    report_at = path.with_suffix(".json")
    if report_at.exists():
        return dict(json.loads(report_at.read_text()))
    start = time.perf_counter()
    report = nvcodec.encode(job.clip, path, options, frames=(0, job.frames), overwrite=True)
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
    if report.stages:
        found |= {"weights": report.stages[0]["weight_bits"] / 8, "sparsity": report.stages[0].get("sparsity", 1.0)}
    report_at.write_text(json.dumps(found))
    return found


def _difference(anchor: list[tuple[float, float]], test: list[tuple[float, float]]) -> str:
    """Bits at equal PSNR; of points that are too few for that, the mean difference in dB at equal targets."""
    if len(anchor) < MIN_POINTS:
        return f"{sum(t[1] - a[1] for a, t in zip(anchor, test, strict=True)) / len(anchor):+.2f} dB"
    delta = bd_rate(Curve(tuple(anchor)), Curve(tuple(test)))
    return delta.note if delta.value is None else f"{delta.value:+.1f} %"


def table(found: dict[Job, dict[str, float]], clips: Sequence[Path]) -> str:
    """Markdown: a row for each variant that was run."""
    more = " bytes of weights | not changed one by one |" if "weights" in next(iter(found.values())) else ""
    lines = [
        f"| | {' | '.join(clip.stem for clip in clips)} | encode | decode |{more}",
        f"|---|{'---|' * len(clips)}---|---|{'---|' * more.count('|')}",
    ]
    whole = {(v.model, v.effort): number for number, v in reversed(list(enumerate(VARIANTS)))}
    for number, variant in enumerate(VARIANTS):
        if all(job.variant != number for job in found):
            continue
        cells = []
        for clip in clips:
            anchor, test = (
                [(f["bytes"], f["psnr"]) for job, f in found.items() if (job.variant, job.clip) == (n, clip)]
                for n in (whole[variant.model, variant.effort], number)
            )
            cells.append(_difference(anchor, test))
        for what in ("encode", "decode"):
            total, usual = (
                sum(f[what] for job, f in found.items() if job.variant == n)
                for n in (number, whole[variant.model, variant.effort])
            )
            cells.append(f"{total / usual:.2f}")
        if "weights" in next(iter(found.values())):
            here = [f for job, f in found.items() if job.variant == number]
            cells.append(f"{sum(f['weights'] for f in here) / len(here):.0f}")
            cells.append(f"{100 * sum(f['sparsity'] for f in here) / len(here):.0f} %")
        lines.append(f"| {variant.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


@click.command()
@click.argument("clips", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", "folder", required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--frames", type=click.IntRange(2), default=17, show_default=True, help="Most of each clip, from its start."
)
@click.option("--effort", type=click.Choice(["fast", "medium", "both"]), default="both", help="Only its variants.")
@click.option("--model", type=click.Choice(["hybrid", "cwrnn"]), default="hybrid", help="Which is taken to pieces.")
@click.option("--only", help="Only variants whose name holds this, and the whole.")
@click.option("--bpp", "rates", type=float, multiple=True, default=BPPS, show_default=True, help="Again for more.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Encodes at a time.")
def main(
    clips: tuple[Path, ...],
    folder: Path,
    frames: int,
    effort: str,
    model: str,
    only: str | None,
    rates: tuple[float, ...],
    jobs: int,
) -> None:
    """Encode CLIPS with and without each part and print the table."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = [
        number
        for number, variant in enumerate(VARIANTS)
        if effort in (variant.effort, "both") and variant.model == model
    ]
    if only:
        numbers = [n for n in numbers if only in VARIANTS[n].name or VARIANTS[n].name.startswith("all parts")]
    lengths = {clip: _length(clip, frames) for clip in clips}
    wanted = [Job(number, clip, bpp, lengths[clip]) for number in numbers for clip in clips for bpp in rates]
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
