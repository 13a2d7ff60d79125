"""What the context model's features and its reading order are worth, each trained for as long.

    python tools/ablation_contexts.py TEST_CLIP [...] --train CLIP [--train CLIP ...] --steps 500

Coding units are gathered from the clips (``tools/train_base.py``). On those of the training clips, the context models
are trained on from the starting network: as they are; without what the references tell (mismatch and activity of the
prediction); and for raster order, in which a symbol sees all before it and none behind it. Printed are the bits of
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
from nvcodec.encoder.twin import Twin
from nvcodec.entropy import context
from nvcodec.entropy.symbols import SymbolReader, SymbolWriter
from nvcodec.model.base import starting_tensors
from nvcodec.model.network import Network, NetworkShape

WIDTH = 24
_SYMBOLS = 20000


def raster_kernels(layout: context.ChannelLayout, stage: int) -> tuple[Tensor, Tensor]:
    """As ``stage_kernels``, for symbols read row by row, the channels of a place one after the other."""
    return context.neighbour_kernels(layout, stage, lambda c, other, dy, dx: (dy, dx, other) < (0, 0, c))


def trained_bits(train: list[Sample], test: list[Sample], steps: int) -> dict[str, float]:
    """Bytes of the motion and of the residual of ``test`` by context models trained on ``train``."""
    torch.manual_seed(1)
    random.seed(1)
    shape = NetworkShape(WIDTH)
    twin = Twin(shape, starting_tensors(WIDTH))
    for kind in ("motion", "appearance"):
        train_context(twin, kind, train, steps)
    network = Network(shape, twin.values)
    found = {"motion": 0.0, "appearance": 0.0}
    with torch.no_grad():
        for sample in test:
            rates = level_rates(
                sample.fit.levels, sample.fit.side, network.context("appearance"), sample.fit.unit.depth
            )
            found["appearance"] += sum(float(r.bits.sum()) for r in rates) / 8
            if sample.motion_side is not None:
                rates = level_rates(sample.motion, sample.motion_side, network.context("motion"), sample.fit.unit.depth)
                found["motion"] += sum(float(r.bits.sum()) for r in rates) / 8
    return found


def without_references(samples: list[Sample]) -> None:
    """Take what the references tell from the side features of ``samples``, in place."""
    for sample in samples:
        sample.fit.side._fixed = [torch.zeros_like(plane) for plane in sample.fit.side._fixed]
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
@click.option("--steps", type=click.IntRange(1), default=500, show_default=True, help="Of each context model.")
def main(clips: tuple[Path, ...], training: tuple[Path, ...], steps: int) -> None:
    """Train the context models in three ways and print what CLIPS cost by each."""
    torch.manual_seed(0)
    random.seed(0)
    shape = NetworkShape(WIDTH)
    train, test = gather(training, shape, 2), gather(clips, shape, 1)
    results: dict[str, dict[str, float]] = {}

    def measure(name: str, change: Callable[[], None]) -> None:
        change()
        results[name] = trained_bits(train, test, steps)
        all_bytes = sum(results[name].values()) / sum(results["all features"].values())
        parts = ", ".join(f"{kind} {size:.0f} bytes" for kind, size in results[name].items())
        click.echo(f"{name}: {parts}, {100 * (all_bytes - 1):+.1f} %")

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
