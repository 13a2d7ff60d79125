"""Short segments of clips, encoded in closed loop with a network as it stands: what experiments on it learn from.

    python tools/gathered_segments.py OUT_DIR CLIP [CLIP ...] --segments 250

writes the records of each to a file of its own (some 30 MB), for ``tools/train_cwrnn.py --segments``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path

import click
import torch
from train_cwrnn import Training, blocks_of, load, resize, shown

from nvcodec.core.memory import keep_freed_memory
from nvcodec.core.parallel import thread_limit
from nvcodec.exact.operation import Sizes
from nvcodec.exact.simulation import Simulation
from nvcodec.exact.tracing import place
from nvcodec.grid.contexts import appearance_context
from nvcodec.implicit.encoder.overfit import Overfit
from nvcodec.implicit.encoder.recurrent_stages import ACTIVATION_BITS
from nvcodec.implicit.encoder.start import Start, load_start, starting_point
from nvcodec.implicit.models.cwrnn import CWRNN

__all__ = ["SIZES", "divided", "gathered", "sized", "started"]

SIZES = Sizes((96, 160), (24, 40), 1)
_LAMBDAS = (15.0, 200.0)
_HELD_OUT_LAMBDAS = (30.0, 60.0, 120.0)


def started(point: tuple[bytes, dict[str, int]] | None) -> tuple[CWRNN, Start]:
    """A network with the weights of a start."""
    assert point is not None, "no such start is shipped"
    module = CWRNN(SIZES)
    place(module, SIZES)
    return module, load_start(module, SIZES, ACTIVATION_BITS, *point)


def divided(clips: tuple[Path, ...], words: str) -> tuple[list[Path], list[Path]]:
    """Those to learn from, and those whose names hold one of the words, which are measured only."""
    held_out = [path for path in clips if any(word in path.name for word in words.split(","))]
    return [path for path in clips if path not in held_out], held_out


def gathered(module: CWRNN, clips: list[Path], count: int, seed: int, *, held_out: bool = False) -> Iterator[Overfit]:
    """``count`` segments of 9 or 13 frames, one of each clip in turn, at lambdas of 15 to 200 and GOPs of 2, 4 and 8,
    mirrored and changed by chance; of what is held out as they are, at lambdas of 30, 60, 120 and GOP 2."""
    draw = random.Random(seed)
    random.seed(seed)
    training = Training(module, appearance_context())
    order = draw.sample(clips, len(clips))
    for n in range(count):
        clip, length = load(order[n % len(order)]), draw.choice((9, 9, 13))
        first = draw.randrange(max(1, len(clip) - 2 * length + 1))
        samples = clip[first : first + 2 * length].float()
        samples = (samples if held_out else shown(samples))[:length].contiguous()
        lmbda = math.exp(draw.uniform(*map(math.log, _LAMBDAS)))
        lmbda = _HELD_OUT_LAMBDAS[n % len(_HELD_OUT_LAMBDAS)] if held_out else lmbda
        with torch.no_grad():
            fit = training.encoded(samples, 2 if held_out else draw.choice((2, 2, 4, 8)), lmbda, module)
        yield Overfit(module, fit.all_records(), Simulation(), refines=False)


def sized(module: CWRNN, segment: Overfit) -> None:
    """Make a network ready for the frames of a segment."""
    half = segment.records[0].target.shape[2:]
    sizes = Sizes((half[0], half[1]), blocks_of(half), 1)
    resize(module, sizes)
    place(module, sizes)


@click.command()
@click.argument("out_dir", type=click.Path(file_okay=False, path_type=Path))
@click.argument("clips", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--segments", default=250, show_default=True, help="How many.")
@click.option("--held-out", default="walk,citynight,cup,s_layer_3", help="Clips that are left alone.")
@click.option("--start", default="cwrnn16", show_default=True, help="The network that they are encoded with.")
@click.option("--seed", default=0)
def main(out_dir: Path, clips: tuple[Path, ...], segments: int, held_out: str, start: str, seed: int) -> None:
    """Write the records of segments of CLIPS to OUT_DIR."""
    keep_freed_memory()
    out_dir.mkdir(parents=True, exist_ok=True)
    module, _ = started(starting_point(start))
    with thread_limit(1):
        for number, segment in enumerate(gathered(module, divided(clips, held_out)[0], segments, seed)):
            torch.save(segment.records, out_dir / f"{number:04d}.pt")


if __name__ == "__main__":
    main()
