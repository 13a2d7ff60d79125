"""What the features and the reading order of the motion's context model are worth, each trained for as long.

    python tools/ablation_contexts.py TEST_CLIP [...] --train CLIP [--train CLIP ...] --steps 500

Coding units are gathered from the clips (``tools/train_base.py``). On those of the training clips, the context model
is trained on from the starting network: as it is; without what the references tell (mismatch and activity of the
prediction); and for raster order, in which a symbol sees all before it and none behind it. Printed are the bytes of
the same symbols of the test clips, and what reading costs: a range decoder is called once for a stage of a level, but
in raster order once for a symbol.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor
from train_base import Sample, gather, train_context

from nvcodec.encoder.rate import level_rates
from nvcodec.entropy import context
from nvcodec.entropy.symbols import SymbolReader, SymbolWriter
from nvcodec.hybrid.base import starting_tensors
from nvcodec.hybrid.encoder.twin import Twin
from nvcodec.hybrid.network import Network, NetworkShape

WIDTH = 24
_SYMBOLS = 20000


def raster_kernels(layout: context.ChannelLayout, stage: int) -> tuple[Tensor, Tensor]:
    """As ``stage_kernels``, for symbols read row by row, the channels of a place one after the other."""
    return context.neighbour_kernels(layout, stage, lambda c, other, dy, dx: (dy, dx, other) < (0, 0, c))


def trained_bytes(train: list[Sample], test: list[Sample], steps: int) -> float:
    """Of the motion of ``test`` by a context model trained on ``train``."""
    torch.manual_seed(1)
    random.seed(1)
    shape = NetworkShape(WIDTH)
    twin = Twin(shape, starting_tensors(WIDTH))
    train_context(twin, train, steps)
    weights = Network(shape, twin.values).context()
    found = 0.0
    with torch.no_grad():
        for sample in test:
            if sample.motion_side is not None:
                rates = level_rates(sample.motion, sample.motion_side, weights, sample.fit.unit.depth)
                found += sum(float(r.bits.sum()) for r in rates) / 8
    return found


def without_references(samples: list[Sample]) -> None:
    """Take what the references tell from the side features of ``samples``, in place."""
    for sample in samples:
        if sample.motion_side is not None:
            sample.motion_side.mismatch = torch.zeros_like(sample.motion_side.mismatch)
            sample.motion_side.activity = torch.zeros_like(sample.motion_side.activity)


def reading_seconds(at_a_time: int) -> float:
    """To read _SYMBOLS symbols, ``at_a_time`` of them in a call."""
    tables = np.full(_SYMBOLS, 80, np.uint8)
    writer = SymbolWriter()
    writer.exchange(tables, np.zeros(_SYMBOLS, np.int32))
    reader = SymbolReader(writer.finish())
    start = time.perf_counter()
    for at in range(0, _SYMBOLS, at_a_time):
        reader.exchange(tables[at : at + at_a_time], None)
    return time.perf_counter() - start


@click.command()
@click.argument("clips", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--train", "training", multiple=True, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--steps", type=click.IntRange(1), default=500, show_default=True, help="Of each training.")
def main(clips: tuple[Path, ...], training: tuple[Path, ...], steps: int) -> None:
    """Train the context model in three ways and print what the motion of CLIPS costs by each."""
    torch.manual_seed(0)
    random.seed(0)
    shape = NetworkShape(WIDTH)
    train, test = gather(training, shape, 2), gather(clips, shape, 1)
    results: list[float] = []

    def measure(name: str, change: Callable[[], None]) -> None:
        change()
        results.append(trained_bytes(train, test, steps))
        click.echo(f"{name}: {results[-1]:.0f} bytes, {100 * (results[-1] / results[0] - 1):+.1f} %")

    usual = context.stage_kernels

    def read_by(kernels: Callable[[context.ChannelLayout, int], tuple[Tensor, Tensor]]) -> None:
        context.stage_kernels = kernels  # type: ignore[assignment]
        context._kernels.cache_clear()

    measure("all features", lambda: None)
    measure("raster order", lambda: read_by(raster_kernels))
    read_by(usual)
    measure("without the references' features", lambda: without_references([*train, *test]))
    one, many = reading_seconds(1), reading_seconds(_SYMBOLS // 4)
    click.echo(f"range decoder, {_SYMBOLS} symbols: {1000 * many:.1f} ms in 4 calls, {1000 * one:.0f} ms one by one")


if __name__ == "__main__":
    main()
