"""Train the start of a CWRNN, and the context model of the mixed residual grid: what the encoder makes of clips.

    python tools/train_cwrnn.py OUT_DIR CLIP [CLIP ...] --minutes 60 --held-out walk,cup

One segment after the other is encoded in closed loop with the network as it stands, at random lambda and GOP length;
the network is fitted to what that leaves, jointly with segments before it, and so is the context model. Frames are
mirrored and transposed, their planes negated, U and V exchanged, by chance. Clips whose name holds a word of --held-out
are measured only: every now and then OUT_DIR/curve.csv gets a line with what they cost. Interrupted, it goes on from
OUT_DIR/training.pt, with other random numbers. The motion half is not trained: motion stays as it is parsed.

A second network for the same files is trained quicker. With --segments FOLDER it learns for the first share of the time
from what a network that is there already left (``tools/gathered_segments.py``), with the shipped context model, which
stays as it is:

    python tools/train_cwrnn.py OUT_DIR CLIP [CLIP ...] --parameters 5.1e3 --segments FOLDER

What the shipped start was trained on stands in nvcodec/implicit/starts/SOURCES.md.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import click
import torch
from cwrnn_parts import without_states
from torch import Tensor
from torch.nn import functional as F

from nvcodec.core.memory import keep_freed_memory
from nvcodec.core.parallel import thread_limit
from nvcodec.encoder.rate import level_costs
from nvcodec.encoder.segment_analysis import USUAL_IMPORTANCE, SegmentSource
from nvcodec.encoder.working_domain import working_samples
from nvcodec.entropy.context import ContextWeights
from nvcodec.exact.operation import Sizes
from nvcodec.exact.simulation import Simulation
from nvcodec.exact.tracing import place
from nvcodec.grid.contexts import CONTEXT_SHAPES, appearance_context
from nvcodec.grid.levels import Quantiser
from nvcodec.implicit.encoder.overfit import Overfit, rate_at
from nvcodec.implicit.encoder.recurrent_fit import FittedUnit, PassEffort, RecurrentFit, TwinSynthesis
from nvcodec.implicit.models.cwrnn import CWRNN, Widths
from nvcodec.implicit.unit import motion_weights
from nvcodec.media.video_io import VideoReader
from nvcodec.motion.levels import FrameGeometry

_LAMBDAS = (12.0, 250.0)
_FRAMES = (9, 9, 13)
_POOL = 32
"""Segments that steps are taken on."""
_STEPS = 120
"""For each segment."""
_LEAST_POOL = 6
"""With fewer no step is taken."""
_REFRESHED = 0.06
"""Of the steps: before so many all frames of the segment are made anew."""
_KEY_SHARE = 0.1
"""Of the steps: those on key frames."""
_TAUGHT_SHARE = 0.75
"""Of the time: on given segments, before the network makes its own."""
_VISIT = 12
"""Steps on a given segment, before the next one is drawn."""
_CONTEXT_ROUNDS = 2
_HELD_OUT_LAMBDAS = (30.0, 120.0)
_MEANS_GAIN = 40
"""Least gain index of the means, as the encoder has it at these lambdas."""


class Gathering(RecurrentFit):
    """Keeps what a pass leaves."""

    def __init__(self, source: SegmentSource, context: ContextWeights, quantiser: Quantiser) -> None:
        super().__init__(source, context, quantiser)
        self.found: dict[int, FittedUnit] = {}

    def fitted_unit(self, number: int, *arguments: object) -> FittedUnit:
        made = super().fitted_unit(number, *arguments)  # type: ignore[arg-type]
        self.found[number] = made
        return made


def first_context() -> ContextWeights:
    """A context model by hand: magnitudes around a symbol widen its distribution."""
    generator = torch.Generator().manual_seed(0)
    made = {name: torch.zeros(shape) for name, shape in CONTEXT_SHAPES.items()}
    made["hidden"] = torch.randint(-8, 9, CONTEXT_SHAPES["hidden"], generator=generator).float()
    for unit, (feature, weight) in enumerate(((0, 150.0), (1, 100.0), (2, 50.0), (5, 100.0))):
        made["hidden"][unit] = 0
        made["hidden"][unit, feature] = 64
        made["output"][1, unit] = weight
    made["output_bias"][..., 1] = 80
    return ContextWeights(**made)


def shown(samples: Tensor) -> Tensor:
    """(T, 6, h, w) frames mirrored, transposed, planes negated, U and V exchanged, each or not by chance."""
    luma, chroma = F.pixel_shuffle(samples[:, :4], 2), samples[:, 4:]
    flips = [axis for axis in (2, 3) if random.random() < 0.5]
    luma, chroma = luma.flip(flips), chroma.flip(flips)
    if random.random() < 0.3:
        luma, chroma = luma.transpose(2, 3), chroma.transpose(2, 3)
    if random.random() < 0.5:
        chroma = chroma.flip(1)
    if random.random() < 0.3:
        chroma = torch.where(torch.rand(1, 2, 1, 1) < 0.5, 1023 - chroma, chroma)
    if random.random() < 0.15:
        luma = 1023 - luma
    if random.random() < 0.3:
        samples_ = torch.cat([F.pixel_unshuffle(luma, 2), chroma], 1)
        return samples_[::2] if len(samples_) >= 17 else samples_
    return torch.cat([F.pixel_unshuffle(luma, 2), chroma], 1)


def load(path: Path) -> Tensor:
    with VideoReader(path) as reader:
        return torch.stack([working_samples(frame) for frame in reader])


@dataclass
class Training:
    """What is trained, and how far it is."""

    module: CWRNN
    context: ContextWeights
    seconds: float = 0.0

    def encoded(self, samples: Tensor, gop: int, lmbda: float, module: CWRNN) -> Gathering:
        """A pass over a segment."""
        geometry = FrameGeometry(2 * samples.shape[3], 2 * samples.shape[2])
        sizes = Sizes(geometry.half, geometry.blocks, len(samples))
        place(module, sizes)
        resize(module, sizes)
        fit = Gathering(SegmentSource(samples, geometry, gop), self.context, Quantiser((0, 0, 0, 0, 0, _MEANS_GAIN)))
        fit.look_ahead(motion_weights(), lmbda * USUAL_IMPORTANCE, lambda report: None)
        fit.filter_sources(lmbda * USUAL_IMPORTANCE)
        fit.weigh(lmbda * USUAL_IMPORTANCE)
        fit.start_pass()
        fit.continue_pass(TwinSynthesis(module), lmbda * USUAL_IMPORTANCE, PassEffort())
        return fit

    def learn_context(self, fit: Gathering, optimiser: torch.optim.Adam) -> float:
        """Steps on the symbols of a segment; bits of all of them before."""
        total = 0.0
        for _ in range(_CONTEXT_ROUNDS):
            total = 0.0
            for found in fit.found.values():
                rates, slopes = level_costs(
                    found.grid.levels, found.grid.side, self.context, found.record.unit.depth,
                    free_empty=False, slopes=True,
                )  # fmt: skip
                bits = sum(float(rate.bits.sum()) for rate in rates)
                total += bits
                assert slopes is not None
                for field, slope in zip(fields(self.context), slopes, strict=True):
                    getattr(self.context, field.name).grad = slope / (bits + 300)
                optimiser.step()
        return total


def resize(module: CWRNN, sizes: Sizes) -> None:
    """Make a network for pictures of another size: its layers that know one."""
    like = _network_for(sizes, module.widths)
    for (_, layer), (_, other) in zip(module.named_modules(), like.named_modules(), strict=True):
        for key in ("rows", "columns", "shape"):
            if hasattr(other, key) and not isinstance(getattr(other, key), type(lambda: 0)):
                setattr(layer, key, getattr(other, key))


@lru_cache(maxsize=256)
def _network_for(sizes: Sizes, widths: Widths) -> CWRNN:
    return CWRNN(sizes, widths=widths)


def held_out_cost(training: Training, clips: list[Tensor]) -> list[float]:
    """Bits and weighted errors of the clips that are only measured, in bits of a luma sample, at two lambdas; then the
    errors alone of the network, and of the same records without any network."""
    costs = []
    sums = [0.0, 0.0]
    for lmbda in _HELD_OUT_LAMBDAS:
        bits, errors, samples = 0.0, 0.0, 0.0
        for clip in clips:
            fit = training.encoded(clip, 4, lmbda, training.module)
            records = [fit.records[n] for n in range(len(fit.units))]
            luma = sum(r.target.numel() for r in records) / 1.5
            bits += sum(r.bits for r in records)
            error = Overfit(training.module, records, Simulation()).refresh()
            errors += error * luma
            samples += luma
            sums[0] += error
            plain = 0.0
            for r in records:
                base = (r.prediction if r.prediction is not None else 512.0) + r.residual[0]
                plain += float(((base - r.target).square() * r.weights).sum() / (16 * r.lmbda))
            sums[1] += plain / luma
        costs.append((bits + errors) / samples)
    return costs + [s / (len(_HELD_OUT_LAMBDAS) * len(clips)) for s in sums]


def learn(segment: Overfit, optimiser: torch.optim.Optimizer, steps: int, losses: list[float]) -> None:
    """Steps on units of a segment, drawn by chance."""
    module, half = segment.synthesis.module, segment.records[0].target.shape[2:]
    assert isinstance(module, CWRNN)
    sizes = Sizes((half[0], half[1]), blocks_of(half), 1)
    resize(module, sizes)
    place(module, sizes)
    for _ in range(steps):
        if not segment.states or random.random() < _REFRESHED:
            segment.refresh()
        number = 0 if random.random() < _KEY_SHARE else random.randrange(len(segment.records))
        losses.append(segment.step(optimiser, number))


@click.command()
@click.argument("out_dir", type=click.Path(file_okay=False, path_type=Path))
@click.argument("clips", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--parameters", default=15500.0, help="Weights of the network.")
@click.option("--minutes", default=60.0, help="How long to train in all.")
@click.option("--held-out", default="walk,citynight,cup,s_layer_3", help="Clips that are only measured.")
@click.option("--rate", default=2.5e-3, help="Learning rate of the weights.")
@click.option("--threads", default=2)
@click.option("--states/--no-states", default=True, help="Whether the network reads what it keeps of other frames.")
@click.option("--segments", type=click.Path(exists=True, file_okay=False, path_type=Path), help="To learn from first.")
@click.option("--seed", default=0)
def main(
    out_dir: Path, clips: tuple[Path, ...], parameters: float, minutes: float, held_out: str, rate: float,
    threads: int, states: bool, segments: Path | None, seed: int,
) -> None:  # fmt: skip
    keep_freed_memory()
    torch.manual_seed(seed)
    random.seed(seed)
    out_dir.mkdir(parents=True, exist_ok=True)
    words = held_out.split(",")
    measured = [load(p)[:9] for p in clips if any(w in p.name for w in words)][::4]
    pool_of_clips = [load(p).to(torch.int16) for p in clips if not any(w in p.name for w in words)]
    sizes = Sizes((96, 160), (24, 40), 1)
    widths = Widths.of(parameters)
    torch.manual_seed(seed)
    module = CWRNN(sizes, widths=widths)
    training = Training(module, first_context() if segments is None else appearance_context())
    optimiser = torch.optim.Adam(module.parameters(), lr=rate, betas=(0.9, 0.99))
    context_optimiser = torch.optim.Adam(
        [getattr(training.context, f.name) for f in fields(training.context)], lr=1.0, betas=(0.9, 0.99)
    )
    kept_file = out_dir / "training.pt"
    if kept_file.exists():
        kept = torch.load(kept_file, weights_only=False)
        module.load_state_dict(kept["module"])
        optimiser.load_state_dict(kept["optimiser"])
        for name, value in kept["context"].items():
            getattr(training.context, name).copy_(value)
        context_optimiser.load_state_dict(kept["context_optimiser"])
        training.seconds = kept["seconds"]
    with torch.no_grad():
        module.motion.leave.weight.zero_()
        module.motion.leave.bias.zero_()
    if not states:
        for name, mask in without_states(module).items():
            module.get_parameter(f"{name}.weight").register_hook(lambda grad, mask=mask: grad * mask)
    given = [
        Overfit(module, torch.load(path, weights_only=False), Simulation(), refines=False)
        for path in ([] if segments is None else sorted(segments.glob("*.pt")))
    ]
    if segments is not None and not given:
        raise click.ClickException(f"{segments} holds no segments")
    pool: list[Overfit] = []
    begun, before, next_measure, losses = time.monotonic(), training.seconds, training.seconds, [0.0]
    low, high = map(math.log, _LAMBDAS)
    count = 0
    with thread_limit(threads):
        torch.set_num_threads(threads)
        while training.seconds < 60 * minutes:
            done = training.seconds / (60 * minutes)
            for group in optimiser.param_groups:
                group["lr"] = rate_at(done, rate)
            if given and done < _TAUGHT_SHARE:
                learn(random.choice(given), optimiser, _VISIT, losses)
            else:
                clip = random.choice(pool_of_clips)
                length = random.choice(_FRAMES)
                start = random.randrange(max(1, len(clip) - 2 * length + 1))
                samples = shown(clip[start : start + 2 * length].float())[:length].contiguous()
                fit = training.encoded(
                    samples, random.choice((2, 4, 4, 8)), math.exp(random.uniform(low, high)), module
                )
                records = [fit.records[n] for n in range(len(fit.units))]
                if segments is None:
                    for group in context_optimiser.param_groups:
                        group["lr"] = rate_at(done, 1.0)
                    training.learn_context(fit, context_optimiser)
                pool.append(Overfit(module, records, Simulation(), refines=False))
                if len(pool) < _LEAST_POOL:
                    continue
                del pool[:-_POOL]
                for _ in range(_STEPS):
                    learn(random.choice(pool), optimiser, 1, losses)
            count += 1
            training.seconds = before + time.monotonic() - begun
            if training.seconds >= min(next_measure, 60 * minutes):
                next_measure = training.seconds + 300
                costs = held_out_cost(training, measured)
                line = f"{training.seconds:.0f},{count}," + ",".join(f"{c:.5f}" for c in costs)
                click.echo(f"{line} loss {sum(losses[-2000:]) / len(losses[-2000:]):.5f}")
                with (out_dir / "curve.csv").open("a") as curve:
                    curve.write(line + "\n")
                torch.save(
                    {
                        "module": module.state_dict(),
                        "optimiser": optimiser.state_dict(),
                        "context": vars(training.context),
                        "context_optimiser": context_optimiser.state_dict(),
                        "seconds": training.seconds,
                        "widths": widths,
                    },
                    kept_file,
                )


def blocks_of(half: tuple[int, int] | torch.Size) -> tuple[int, int]:
    return -(-half[0] // 4), -(-half[1] // 4)


if __name__ == "__main__":
    main()
