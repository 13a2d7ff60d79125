"""The command ``cwrv rd``. What it needs beside the codec is an extra of the distribution, loaded when it runs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from nvcodec.cli import options
from nvcodec.cli.interrupt import loading_libraries
from nvcodec.cli.progress import StatusLine
from nvcodec.cli.types import BPP_LIST

__all__ = ["rd"]

DEFAULT_BPPS = "0.02,0.05,0.1,0.2"
DEFAULT_ANCHORS = "x264:medium,x265:medium,x265:veryslow,svtav1:4"


@click.command()
@click.argument("sources", metavar="INPUT...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    "folder",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The directory for the report, and for finished work, which is never done twice.",
)
@click.option(
    "--bpp",
    "bpps",
    type=BPP_LIST,
    default=DEFAULT_BPPS,
    show_default=True,
    metavar="F,F,...",
    help="Our targets: bits of the whole file per pixel.",
)
@options.frames("Frames A up to, not including, B of every INPUT; either may be left out. Default: all.")
@options.effort("How long our encoder searches for a better picture at the same size.")
@options.model()
@options.epochs()
@click.option(
    "--anchors",
    default=DEFAULT_ANCHORS,
    show_default=True,
    metavar="E:P,...",
    help="Encoders and their presets to compare with: x264, x265 or svtav1; none for our curve alone.",
)
@options.gop("Our frames between P-frames. Default: what encode takes.")
@options.segment(
    "Our frames in a segment at most, and the anchors' key frame interval. Default: what encode takes, and one key "
    "frame at the start."
)
@click.option(
    "--jobs", type=click.IntRange(1, 256), default=1, show_default=True, metavar="N", help="Encodes at a time."
)
@options.device("Where our codec computes.")
@options.threads(
    "CPU threads of each of our encodes. Default: what PyTorch chooses, or with --jobs the cores divided by N."
)
@options.seed()
def rd(
    sources: tuple[str, ...],
    folder: Path,
    bpps: tuple[float, ...],
    frames: tuple[int, int | None] | None,
    anchors: str,
    jobs: int,
    **settings: Any,
) -> None:
    """Measure rate-distortion curves of every INPUT, ours and other encoders', and write a report to DIR.

    Writes results.json, results.csv, rd.svg, rd.png and report.html, a page to be opened in a browser. Interrupted, it
    goes on where it was when it is run again.
    """
    with loading_libraries():
        from nvcodec.rd.extra import require_extra

        require_extra()
        from nvcodec.rd.anchors import parse_anchors
        from nvcodec.rd.output import write_outputs
        from nvcodec.rd.points import CodecSettings
        from nvcodec.rd.results import summary_lines
        from nvcodec.rd.run import Plan, check_plan, compute
        from nvcodec.rd.stills import check_webp

    check_webp()
    plan = Plan(
        sources=sources,
        folder=folder,
        bpps=bpps,
        frames=frames,
        anchors=parse_anchors(anchors),
        settings=CodecSettings(**settings),
        jobs=jobs,
    )
    with StatusLine() as line:
        clips = check_plan(plan)
        curves = compute(plan, clips, lambda p: line.working([f"rd: {p.jobs_done}/{p.jobs}", p.what], p.fraction))
    with StatusLine() as line:
        command = shlex.join(["cwrv", *sys.argv[1:]])
        results = write_outputs(plan, curves, command, lambda done, what: line.working([f"report: {what}"], done))
    for text in summary_lines(results):
        click.echo(text)
    click.echo(f"{folder / 'report.html'}", err=True)
