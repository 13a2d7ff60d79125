"""Train the directions of a start: how its weights go together where they are overfitted to a video.

    python tools/train_directions.py OUT_DIR CLIP [CLIP ...] --minutes 45 --held-out walk,cup

Segments are encoded in closed loop with the start as it is shipped. Then the weights of each segment s become

    start + sum over d of code[s][d] * direction[d]

and code and directions are learned together from the errors that the segments' frames then have: each step is one on
the code of a segment and on all directions. They begin with the singular vectors of the segments' first gradients, each
weight's by its root mean square over the segments. Clips whose name holds a word of --held-out are measured only: with
directions that stay, their codes alone are fitted, and a line tells by how much their errors fall.

Writes OUT_DIR/directions.pt, and with --write the start, with its directions, where it is shipped. Behind that run
tools/make_spec_tables.py and tools/make_vectors.py.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch
from gathered_segments import SIZES, divided, gathered, sized, started
from torch import Tensor

from nvcodec.core.memory import keep_freed_memory
from nvcodec.core.parallel import thread_limit
from nvcodec.exact.arithmetic import WEIGHT_BOUND
from nvcodec.exact.tracing import trace
from nvcodec.implicit.encoder.overfit import Overfit
from nvcodec.implicit.encoder.recurrent_stages import ACTIVATION_BITS
from nvcodec.implicit.encoder.start import starting_point
from nvcodec.implicit.encoder.weight_fit import WeightFit
from nvcodec.implicit.starts import write_start

_STEPS = 6
"""On a segment, before the next one is drawn."""
_REFRESHED = 0.3
"""Of these times, how often all frames of the segment are made anew."""
_KEY_SHARE = 0.1
_FIRST = 0.3
"""Root mean square of the codes and of the directions, in integer steps of the weights, to begin with."""
_CODE_RATE, _DIRECTION_RATE = 0.08, 3e-3
_FIT_EPOCHS, _FIT_RATE = 4, 0.15
"""Of what is held out."""
_UNIT_BITS = 2.0
"""Of error, that one unit of a code costs where it is not wanted, by the diagonal of the Hessian, in a segment of nine
or thirteen frames: rounding costs a twelfth of it, and longer segments would take less."""


class Adam:
    """Of one tensor whose steps are counted by itself."""

    def __init__(self, value: Tensor, betas: tuple[float, float]) -> None:
        self.value, self.betas, self.count = value, betas, 0
        self.mean, self.square = torch.zeros_like(value), torch.zeros_like(value)

    def step(self, gradient: Tensor, rate: float) -> None:
        self.count += 1
        first, second = self.betas
        self.mean.lerp_(gradient, 1 - first)
        self.square.lerp_(gradient.square(), 1 - second)
        mean, square = self.mean / (1 - first**self.count), self.square / (1 - second**self.count)
        self.value -= rate * mean / (square.sqrt() + 1e-9)


class Network:
    """The start as a vector of integer steps, (P,), of all weights and biases that the appearance half has."""

    def __init__(self, start: str) -> None:
        self.module, self.start = started(starting_point(start))
        self.weights = WeightFit(trace(self.module, SIZES, ACTIVATION_BITS).program, SIZES, self.start)
        motion = {id(layer) for layer in self.module.motion.modules()}
        self.names = [
            f"{number}.{part}"
            for number, layer in self.start.layers.items()
            for part in ("bias", "weight")
            if id(layer) not in motion
        ]
        values = [self.weights.values[name] for name in self.names]
        self.sizes = [value.numel() for value in values]
        self.unit = torch.cat(
            [self._flat(self.weights.units[n].expand(v.shape)) for n, v in zip(self.names, values, strict=True)]
        )
        self.first = torch.cat([self._flat(value) for value in values])

    @staticmethod
    def _flat(value: Tensor) -> Tensor:
        return value.detach().reshape(-1).clone()

    @torch.no_grad()
    def go_to(self, steps: Tensor) -> None:
        for name, part in zip(self.names, (self.first + self.unit * steps).split(self.sizes), strict=True):
            value = self.weights.values[name]
            value.copy_(part.view(value.shape))

    def gradient(self, segment: Overfit, number: int) -> Tensor:
        """Of the loss of a unit, by integer steps."""
        for value in self.weights.values.values():
            value.grad = None
        segment.loss(number).backward()
        found = []
        for name in self.names:
            value = self.weights.values[name]
            found.append(torch.zeros(value.numel()) if value.grad is None else value.grad.reshape(-1))
        return torch.cat(found) * self.unit

    def errors(self, segment: Overfit, steps: Tensor) -> float:
        sized(self.module, segment)
        self.go_to(steps)
        return segment.refresh()


def more_directions(
    network: Network, pool: list[Overfit], count: int, directions: Tensor, codes: Tensor
) -> tuple[Tensor, Tensor]:
    """(K, P) directions and (S, K) codes: the given ones, and more from the gradients of the segments where these have
    led."""
    slopes = []
    for segment, code in zip(pool, codes, strict=True):
        network.errors(segment, code @ directions)
        units = range(len(segment.records))
        slopes.append(torch.stack([network.gradient(segment, n) for n in units]).mean(0))
    found, more = torch.stack(slopes), count - len(directions)
    scale = found.square().mean(0).sqrt()
    left, _, right = torch.linalg.svd(-found / (scale + 0.1 * scale.median()), full_matrices=False)
    return (
        torch.cat([directions, right[:more] * (_FIRST * len(right[0]) ** 0.5)]),
        torch.cat([codes, left[:, :more] * (_FIRST * len(pool) ** 0.5)], 1),
    )


def fitted_code(network: Network, segment: Overfit, directions: Tensor) -> tuple[float, float]:
    """Errors at the start, and with the code of the best epoch."""
    code = torch.zeros(len(directions))
    before = best = network.errors(segment, code @ directions)
    adam, units = Adam(code, (0.9, 0.99)), len(segment.records)
    for epoch in range(_FIT_EPOCHS):
        for k, number in enumerate(torch.randperm(units).tolist()):
            network.go_to(code @ directions)
            done = (epoch + k / units) / _FIT_EPOCHS
            adam.step(
                directions @ network.gradient(segment, number), _FIT_RATE * min(1, adam.count / 10) * (1 - 0.9 * done)
            )
        best = min(best, network.errors(segment, code @ directions))
    return before, best


def gains(network: Network, held_out: list[Overfit], directions: Tensor) -> list[float]:
    """In percent, of the errors of each segment."""
    pairs = [fitted_code(network, segment, directions) for segment in held_out]
    return [100 * (after / before - 1) for before, after in pairs]


def sensitivity(network: Network, pool: list[Overfit]) -> Tensor:
    """(P,): bits of error that a squared integer step of each weight costs, of a segment in the mean."""
    total = torch.zeros(len(network.first))
    for segment in pool:
        network.errors(segment, total * 0)
        found = network.weights.sensitivity(segment)
        total += torch.cat([found[name].reshape(-1) for name in network.names]) / len(pool)
    return total


def in_units(directions: Tensor, codes: Tensor, sensitivity: Tensor) -> tuple[Tensor, Tensor]:
    """Directions at right angles and their codes, so that a unit of each code costs ``_UNIT_BITS`` of error."""
    left, sizes, right = torch.linalg.svd(codes @ directions, full_matrices=False)
    count = len(directions)
    unit = (_UNIT_BITS / (right[:count].square() @ sensitivity)).sqrt()
    return right[:count] * unit[:, None], left[:, :count] * sizes[:count] / unit


def write(network: Network, directions: Tensor, mean: Tensor, name: str) -> None:
    """The start with its directions, moved by the mean of what segments change, in the place of the shipped one."""
    tensors = network.start.tensors
    shift = min(15, math.floor(math.log2(127 / float(directions.abs().max()))))
    if shift < 0:
        raise click.ClickException("a unit of a code would change a weight by more than 127 steps")
    integers = (directions * 2**shift).round().clamp(-127, 127)

    def parts(values: Tensor) -> dict[str, np.ndarray]:
        split = values.numpy().astype(np.int32)
        cuts = np.cumsum(network.sizes)[:-1]
        return dict(zip(network.names, np.split(split, cuts, axis=-1), strict=True))

    of_rows, of_mean = parts(integers), parts(mean.round())
    rows: list[list[np.ndarray]] = [[] for _ in directions]
    moved = []
    for number, found in tensors.convolutions.items():
        arrays = {"bias": found.bias, "weight": found.weight}
        for part, first in arrays.items():
            known = of_rows.get(f"{number}.{part}")
            for k, row in enumerate(rows):
                row.append(np.zeros(first.size, np.int32) if known is None else known[k])
            if known is not None:
                change = of_mean[f"{number}.{part}"].reshape(first.shape)
                arrays[part] = (first + change).clip(-WEIGHT_BOUND, WEIGHT_BOUND)
        moved.append(replace(found, bias=arrays["bias"], weight=arrays["weight"]))
    folder = Path(__file__).parent.parent / "nvcodec" / "implicit" / "starts"
    folder.joinpath(f"{name}.bin").write_bytes(write_start(moved, rows, shift))


@click.command()
@click.argument("out_dir", type=click.Path(file_okay=False, path_type=Path))
@click.argument("clips", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--directions", "count", default=64, help="How many.")
@click.option("--known", type=click.Path(exists=True), help="File of directions of the same segments to begin with.")
@click.option("--segments", default=250, help="That are learned from.")
@click.option("--minutes", default=45.0, help="How long to learn, once the segments are there.")
@click.option("--held-out", default="walk,citynight,cup,s_layer_3", help="Clips that are only measured.")
@click.option("--start", default="cwrnn16")
@click.option("--write", "writes", is_flag=True, help="Put the directions into the start that is shipped.")
@click.option("--seed", default=0)
def main(
    out_dir: Path, clips: tuple[Path, ...], count: int, known: str | None, segments: int, minutes: float,
    held_out: str, start: str, writes: bool, seed: int,
) -> None:  # fmt: skip
    keep_freed_memory()
    torch.manual_seed(seed)
    random.seed(seed)
    out_dir.mkdir(parents=True, exist_ok=True)
    network = Network(start)
    with thread_limit(1):
        torch.set_num_threads(1)
        learned, only_measured = divided(clips, held_out)
        measured = list(gathered(network.module, only_measured, 9, seed, held_out=True))
        pool = list(gathered(network.module, learned, segments, seed))
        directions, codes = torch.zeros(0, len(network.first)), torch.zeros(len(pool), 0)
        if known is not None:
            kept = torch.load(known)
            directions, codes = kept["directions"], kept["codes"]
        directions, codes = more_directions(network, pool, count, directions, codes)
        of_directions = Adam(directions, (0.95, 0.995))
        of_codes = [Adam(code, (0.9, 0.99)) for code in codes]
        begun, next_measure, visits = time.monotonic(), 600.0, 0
        while (seconds := time.monotonic() - begun) < 60 * minutes:
            rate = min(1.0, visits / 30) * (1 - seconds / (60 * minutes)) ** 0.7 + 0.02
            chosen = random.randrange(len(pool))
            segment, code, visits = pool[chosen], codes[chosen], visits + 1
            sized(network.module, segment)
            if not segment.states or random.random() < _REFRESHED:
                network.go_to(code @ directions)
                segment.refresh()
            for _ in range(_STEPS):
                number = 0 if random.random() < _KEY_SHARE else random.randrange(len(segment.records))
                network.go_to(code @ directions)
                slope = network.gradient(segment, number)
                of_code, of_all = directions @ slope, code[:, None] * slope
                of_codes[chosen].step(of_code, _CODE_RATE * rate)
                of_directions.step(of_all, _DIRECTION_RATE * rate)
            if seconds > next_measure:
                next_measure += 600
                found = gains(network, measured, directions)
                click.echo(f"{seconds:.0f} s, {visits} visits: {sum(found) / len(found):+.2f} % of the errors held out")
        found = gains(network, measured, directions)
        click.echo(f"at the end {sum(found) / len(found):+.2f} %: {', '.join(f'{x:+.1f}' for x in found)}")
        torch.save({"directions": directions, "codes": codes, "names": network.names}, out_dir / "directions.pt")
        mean = codes.mean(0) @ directions
        network.first += network.unit * mean.round()
        directions, codes = in_units(directions, codes - codes.mean(0), sensitivity(network, pool[::6]))
    if writes:
        write(network, directions, mean, start)


if __name__ == "__main__":
    main()
