"""How long the exact machine takes for a network, beside PyTorch's own float32 of the same network, in turns.

    python tools/machine_speed.py --model hnerv --params 100k --size 320x160 --threads 2

The network is untrained: what it computes does not matter for the time. Both see eight frames, side by side.
"""

from __future__ import annotations

import statistics
import time
from functools import partial
from typing import Any

import click
import torch

from nvcodec.cli.types import parse_count
from nvcodec.core.fixedpoint import exact_inference
from nvcodec.core.parallel import run_all, thread_limit
from nvcodec.exact.layer import calibrate
from nvcodec.exact.machine import Machine
from nvcodec.exact.operation import FrameInputs, Sizes
from nvcodec.exact.simulation import Simulation, simulate
from nvcodec.exact.tracing import place, trace
from nvcodec.implicit.encoder.frames import FrameModel
from nvcodec.implicit.encoder.model import optimiser_of
from nvcodec.implicit.encoder.representation import MODELS
from nvcodec.motion.levels import FrameGeometry

BATCH, BITS = 8, 12


def prepared(model: str, params: float, geometry: FrameGeometry, frames: int) -> tuple[Any, Machine, FrameInputs]:
    """The module, its machine, and what a batch of frames is given."""
    sizes = Sizes(geometry.half, geometry.blocks, frames)
    torch.manual_seed(0)
    module = MODELS[model](sizes, params)
    latents = place(module, sizes)
    for latent in latents:
        torch.nn.init.normal_(latent.values, std=8)
    numbers = torch.arange(BATCH)
    with torch.no_grad(), simulate(Simulation(observe=True)):
        module(FrameInputs(numbers))
    calibrate(module, BITS)
    traced = trace(module, sizes, BITS)
    for layer, _ in traced.convolutions.values():
        layer.step.copy_(layer.least_step())
        layer.fit_bias()
    given = {latent.level: latent.symbols()[numbers] for latent in latents}
    machine = Machine(traced.program, traced.tensors(), sizes, torch.device("cpu"))
    return module.to(memory_format=torch.channels_last), machine, FrameInputs(numbers, given)  # type: ignore[call-overload]


def epoch_seconds(module: Any, machine: Machine, frames: int) -> float:
    """Of the fit, in steps of two frames as it takes them, on noise: the least of three."""
    samples = torch.rand(frames, 6, *machine.sizes.half) - 0.5
    sizes = machine.sizes._replace(frames=frames)
    latents = place(module, sizes)
    model = FrameModel(module, latents, samples, [], 2, getattr(module, "analyse", None))
    optimiser = optimiser_of(model, analysis=model.analyse is not None)
    return min(model.time_an_epoch(optimiser) for _ in range(3))


@click.command()
@click.option("--model", type=click.Choice(["hnerv", "nerv"]), default="hnerv", show_default=True)
@click.option("--params", default="100k", show_default=True)
@click.option("--size", default="320x160", show_default=True, help="Width x height.")
@click.option("--threads", type=int, default=2, show_default=True)
@click.option("--rounds", type=int, default=9, show_default=True)
@click.option("--epoch", type=int, default=0, help="Also time an epoch of the fit with so many frames.")
def main(model: str, params: str, size: str, threads: int, rounds: int, epoch: int) -> None:
    """Measure MODEL."""
    width, height = map(int, size.split("x"))
    module, machine, inputs = prepared(model, parse_count(params), FrameGeometry(width, height), 64)
    exact: list[float] = []
    plain: list[float] = []
    halves = [inputs.numbers[n::threads] for n in range(threads)]
    with thread_limit(threads), exact_inference():
        for _ in range(rounds + 1):
            start = time.perf_counter()
            machine.run(inputs)
            exact.append((time.perf_counter() - start) / BATCH)
            start = time.perf_counter()
            run_all([partial(module, FrameInputs(half)) for half in halves])
            plain.append((time.perf_counter() - start) / BATCH)
    pairs = [a / b for a, b in zip(exact[1:], plain[1:], strict=True)]
    luma = width * height
    fast, slow = 1 / statistics.median(plain[1:]), 1 / statistics.median(exact[1:])
    click.echo(
        f"{model}, {size}, {machine.multiplications / luma:.0f} multiplications a luma sample, {threads} threads: "
        f"exact {slow:.1f} frames/s, float32 {fast:.1f}, ratio of times {statistics.median(pairs):.2f} "
        f"({min(pairs):.2f} to {max(pairs):.2f})"
    )
    if epoch:
        with thread_limit(2 * threads):  # PyTorch gets half of them
            click.echo(f"an epoch of {epoch} frames: {epoch_seconds(module, machine, epoch):.2f} s")


if __name__ == "__main__":
    main()
