"""Frames a second of the decoder in a loop, without the start of the process.

    python tools/decode_speed.py IN.cwrv [IN.cwrv ...] --threads 2 --rounds 3

Every file is decoded once before the clock starts, and whenever it is, its frames are compared with the hash that it
states. The files take turns, so that their figures may be compared.
"""

from __future__ import annotations

import time
from pathlib import Path

import click

from nvcodec import Decoder
from nvcodec.core.device import DEVICES
from nvcodec.core.memory import keep_freed_memory


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--device", type=click.Choice(DEVICES), default="cpu", show_default=True)
def main(files: tuple[Path, ...], threads: int, rounds: int, device: str) -> None:
    """Measure how fast FILES are decoded."""
    keep_freed_memory()  # as the command does
    for turn in range(rounds + 1):
        for path in files:
            start = time.perf_counter()
            with Decoder(path, device=device, threads=threads) as decoder:
                count = sum(1 for _ in decoder)
            if turn:
                click.echo(f"{path}: {count / (time.perf_counter() - start):.1f} frames/s")


if __name__ == "__main__":
    main()
