"""How time and memory grow with the number of frames.

    python tools/growth.py CLIP --frames 33 --frames 66 --frames 99 --segment 33 --effort fast

Encodes and decodes the first frames of CLIP by the command, in processes of their own, and prints for each count the
seconds a frame and the most memory that a process held, start-up included.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from nvcodec.cli.types import EFFORTS, MODELS


def run(*arguments: str) -> tuple[float, int]:
    """Seconds, and the peak of the resident memory in bytes, of ``cwrv`` with these arguments."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "nvcodec", *arguments])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"cwrv {' '.join(arguments)}: exit status {process.returncode}")
    return time.perf_counter() - start, _peak(usage)


def _peak(usage: resource.struct_rusage) -> int:
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@click.command()
@click.argument("clip", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--frames", "counts", type=click.IntRange(1), multiple=True, default=(33, 66, 99), show_default=True)
@click.option("--segment", type=click.IntRange(1), default=33, show_default=True)
@click.option("--effort", type=click.Choice(EFFORTS), default="fast", show_default=True)
@click.option("--model", type=click.Choice(MODELS), default=MODELS[0], show_default=True)
@click.option("--bpp", type=float, default=0.08, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
def main(clip: Path, counts: tuple[int, ...], segment: int, effort: str, model: str, bpp: float, threads: int) -> None:
    """Measure encodes and decodes of the first frames of CLIP."""
    click.echo("| frames | encode, s a frame | MB | decode, s a frame | MB |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        coded, decoded = str(Path(folder, "out.cwrv")), str(Path(folder, "out.y4m"))
        for count in counts:
            common = ["--threads", str(threads), "-y"]
            options = [
                "--bpp",
                str(bpp),
                "--effort",
                effort,
                "--model",
                model,
                "--segment",
                str(segment),
                "--frames",
                f"0:{count}",
            ]
            cells = [str(count)]
            for made in (
                run("encode", str(clip), "-o", coded, *options, *common),
                run("decode", coded, "-o", decoded, *common),
            ):
                cells += [f"{made[0] / count:.2f}", f"{made[1] / 1e6:.0f}"]
            click.echo(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
