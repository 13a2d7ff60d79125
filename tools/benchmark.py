"""The standing benchmark: curves of every clip in a folder, and the tables that the documents quote.

    python tools/benchmark.py CLIPS -o DIR
    python tools/benchmark.py CLIPS -o DIR --effort fast --update docs/results/hybrid.md
    python tools/benchmark.py CLIPS -o DIR --effort fast --check docs/results/hybrid.md

Takes the first frames of every video in CLIPS, at the targets and (by default) with the anchors below, and writes
DIR/table.md beside what ``cwrv rd`` writes. DIR holds finished work: a second run computes only what is new.
In the documents the tables of effort fast stand between ``<!-- benchmark fast -->`` and ``<!-- /benchmark fast -->``,
and likewise those of the others, unless ``--table`` gives another name. ``make benchmark`` runs all of them.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import click

from nvcodec.cli.progress import StatusLine
from nvcodec.core.errors import InputError, NvcodecError
from nvcodec.media.output_file import atomic_output
from nvcodec.media.video_io import VideoReader
from nvcodec.rd.anchors import parse_anchors
from nvcodec.rd.clip import Clip, inspect_clip, name_clips
from nvcodec.rd.extra import require_extra
from nvcodec.rd.output import write_outputs
from nvcodec.rd.points import CodecSettings
from nvcodec.rd.run import Plan, check_clips, check_options, compute

SUFFIXES = {".y4m", ".mkv", ".mp4", ".webm", ".mov", ".avi"}
BPPS = "0.02,0.05,0.1,0.2"
ANCHORS = "x264:medium,x265:medium,x265:veryslow,svtav1:4"
FRAMES = "33"
"""Of each clip, from its start; a shorter clip is taken whole."""


def frame_limits(text: str) -> tuple[int, dict[str, int]]:
    """From ``N`` or ``N,CLIP=M,...``: the most frames of a clip, and of those named, without suffix, how many instead.

    Raises:
        InputError: the text is something else.
    """
    usual, *named = text.split(",")
    try:
        limits = {name: int(count) for name, count in (part.split("=") for part in named)}
        if min(int(usual), *limits.values(), int(usual)) >= 1:
            return int(usual), limits
    except ValueError:
        pass
    raise InputError(f"--frames {text}: expected N or N,CLIP=M,... of positive numbers")


def targets(text: str) -> tuple[float, ...]:
    """From ``F,F,...``.

    Raises:
        InputError: that are no numbers.
    """
    try:
        return tuple(map(float, text.split(",")))
    except ValueError:
        raise InputError(f"--bpp {text}: expected numbers with commas between them") from None


def find_clips(folder: Path, usual: int, named: dict[str, int]) -> list[Clip]:
    """The videos in a folder, by name, ``named`` or else ``usual`` frames of each.

    Raises:
        InputError: there are none, one that is named is not there, or one cannot be read.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not paths:
        raise InputError(f"{folder}: no clips ({', '.join(sorted(SUFFIXES))})")
    if missing := named.keys() - {path.stem for path in paths}:
        raise InputError(f"{folder}: no clip named {min(missing)}")
    clips = []
    for path, name in zip(paths, name_clips(map(str, paths)), strict=True):
        with VideoReader(path) as reader:
            count = sum(1 for _ in islice(reader, named.get(path.stem, usual)))
        clips.append(inspect_clip(str(path), name, (0, count)))
    return clips


def tables(results: dict[str, Any], command: str) -> str:
    """Markdown: BD figures, then the points."""
    anchors = results["settings"]["anchors"]
    e = results["environment"]
    packages = ", ".join(f"{name} {e['packages'][name]}" for name in ("torch", "av", "bjontegaard"))
    lines = [
        f"`{command}`",
        f"nvcodec {e['nvcodec']} (code {e['codec_code']}), effort {results['settings']['effort']}; {packages}.",
        "",
        "BD-rate and BD-PSNR by PSNR 6:1:1, below zero and above zero if better than the anchor:",
        "",
        f"| clip, frames | {' | '.join(anchors)} |",
        f"|---|{'---|' * len(anchors)}",
    ]
    for clip in results["clips"]:
        cells = [_delta(anchor["bd"]["psnr_yuv_611"]) for anchor in clip["anchors"]]
        lines.append(f"| {clip['name']}, {clip['frame_count']} | {' | '.join(cells)} |")
    means = [_delta(mean["metrics"]["psnr_yuv_611"]) for mean in results["mean_bd"]]
    lines += [
        f"| mean | {' | '.join(means)} |",
        "",
        "Points of ours, and the PSNR 6:1:1 of each anchor at its point nearest in bits:",
        "",
        f"| clip | bytes | bpp | Y | 6:1:1 | RGB | MS-SSIM | s a frame | {' | '.join(anchors)} |",
        f"|---|---|---|---|---|---|---|---|{'---|' * len(anchors)}",
    ]
    for clip in results["clips"]:
        lines += [_row(clip, point) for point in clip["ours"]]
    return "\n".join(lines) + "\n"


def _delta(found: dict[str, Any]) -> str:
    rate, quality = found["rate"]["value"], found["quality"]["value"]
    first = "no overlap" if rate is None else f"{rate:+.1f} %"
    return first if quality is None else f"{first}, {quality:+.2f} dB"


def _row(clip: dict[str, Any], point: dict[str, Any]) -> str:
    cells = [clip["name"], str(point["bytes"]), f"{point['bpp']:.4f}"]
    cells += [f"{point[key]:.2f}" for key in ("psnr_y", "psnr_yuv_611", "psnr_rgb")]
    cells.append("" if point["ms_ssim"] is None else f"{point['ms_ssim']:.4f}")
    cells.append(f"{point['encode_seconds'] / clip['frame_count']:.1f}")
    for anchor in clip["anchors"]:
        (match,) = (p for p in anchor["points"] if point["target_bpp"] in p["matches"])
        cells.append(f"{match['psnr_yuv_611']:.2f} ({100 * (match['bytes'] / point['bytes'] - 1):+.1f} % bits)")
    return f"| {' | '.join(cells)} |"


def quoted(text: str, table: str, name: str) -> tuple[str, str, str]:
    """A document before, between and behind the marks of ``table``.

    Raises:
        InputError: it has not both of them, once.
    """
    first, last = f"<!-- benchmark {table} -->\n", f"<!-- /benchmark {table} -->"
    if any(text.count(mark.strip()) != 1 for mark in (first, last)) or text.find(first) > text.find(last):
        raise InputError(f"{name} has no place for the tables, between {first.strip()} and {last}")
    before, _, rest = text.partition(first)
    between, _, after = rest.partition(last)
    return before + first, between, last + after


@click.command()
@click.argument("clips", type=click.Path(path_type=Path))
@click.option("-o", "--output", "folder", required=True, type=click.Path(path_type=Path), help="Results and work.")
@click.option("--effort", default="medium", show_default=True, help="Of our encoder.")
@click.option("--anchors", default=ANCHORS, show_default=True, help="As for cwrv rd.")
@click.option("--frames", default=FRAMES, show_default=True, help="Of each clip, at most: N, or N,CLIP=M,...")
@click.option("--bpp", "bpps", default=BPPS, show_default=True, help="Our targets.")
@click.option("--table", help="Name of the tables in the documents. Default: the effort.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Encodes at a time.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads of each of our encodes.")
@click.option("--update", type=click.Path(path_type=Path), multiple=True, help="Documents to put the tables into.")
@click.option("--check", type=click.Path(path_type=Path), multiple=True, help="Documents that should have them.")
def main(
    clips: Path,
    folder: Path,
    effort: str,
    anchors: str,
    frames: str,
    bpps: str,
    table: str | None,
    jobs: int,
    threads: int | None,
    update: tuple[Path, ...],
    check: tuple[Path, ...],
) -> None:
    """Measure every clip in CLIPS and write the tables that the documents quote."""
    command = ["python", "tools/benchmark.py", clips.name, "-o", "DIR", "--effort", effort, "--frames", frames]
    command += ["--bpp", bpps] if bpps != BPPS else []
    command += ["--anchors", anchors] if anchors != ANCHORS else []
    name = table or effort
    try:
        require_extra()
        limits = frame_limits(frames)
        for path in (*update, *check):
            quoted(path.read_text(encoding="utf-8"), name, str(path))
        plan = Plan(
            sources=("",),
            folder=folder,
            bpps=targets(bpps),
            anchors=parse_anchors(anchors),
            settings=CodecSettings(effort=effort, threads=threads),
            jobs=jobs,
        )
        check_options(plan)
        with StatusLine() as line:
            found = find_clips(clips, *limits)
            plan = replace(plan, sources=tuple(clip.source for clip in found))
            check_clips(plan, found)
            curves = compute(plan, found, lambda p: line.working([f"{p.jobs_done}/{p.jobs}", p.what], p.fraction))
            results = write_outputs(
                plan, curves, shlex.join(command), lambda done, what: line.working([f"report: {what}"], done)
            )
        text = tables(results, shlex.join(command))
        with atomic_output(folder / "table.md", overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
        for path in update:
            before, _, after = quoted(path.read_text(encoding="utf-8"), name, str(path))
            with atomic_output(path, overwrite=True) as temporary:
                temporary.write_text(before + text + after, encoding="utf-8")
        stale = [path for path in check if quoted(path.read_text(encoding="utf-8"), name, str(path))[1] != text]
    except (NvcodecError, OSError) as error:
        sys.exit(f"benchmark: {error}")
    click.echo(text, nl=False)
    if stale:
        sys.exit(f"benchmark: {', '.join(map(str, stale))}: not what was measured")


if __name__ == "__main__":
    main()
