"""Make a shipped start of what ``tools/train_cwrnn.py`` has trained.

    python tools/make_start.py TRAINED.pt CLIP [CLIP ...]
    python tools/make_start.py BLIND.pt CLIP [CLIP ...] --only tools/starts --name blind16

The network is run on the clips, so that every layer has a fixed point that holds what it gives; then its weights are
rounded to 8 bits. Writes nvcodec/implicit/starts/cwrnnN.bin and .json, nvcodec/grid/contexts.bin, and, as its program
is the one that is met most often, nvcodec/bitstream/programs.dict. The start has no directions then: behind it run
tools/train_directions.py --write, tools/make_spec_tables.py and tools/make_vectors.py. With --only, the network alone
is written, into that folder: what ablations begin with.
"""

from __future__ import annotations

import random
from pathlib import Path

import click
import torch
from train_cwrnn import Training, load, resize

from nvcodec.core.parallel import thread_limit
from nvcodec.entropy.context import ContextWeights
from nvcodec.exact.convolution import Conv2d
from nvcodec.exact.layer import calibrate, exact_layers
from nvcodec.exact.operation import Sizes
from nvcodec.exact.simulation import Rounding, Simulation
from nvcodec.exact.tracing import place, trace
from nvcodec.grid.contexts import CONTEXT_SHAPES
from nvcodec.implicit.encoder.overfit import Overfit
from nvcodec.implicit.encoder.recurrent_stages import ACTIVATION_BITS
from nvcodec.implicit.encoder.start import write_trained
from nvcodec.implicit.models.cwrnn import CWRNN

ROOT = Path(__file__).parent.parent / "nvcodec"
_MARGIN = 1.25
"""Of the largest values that were seen."""
_WEIGHT_MARGIN = 6
"""Eighths of an octave by which the largest weight of a channel may still grow; so that sums of products of 13 bits
stay within what one convolution in binary32 holds."""
_LAMBDAS = (12.0, 60.0, 250.0)


@click.command()
@click.argument("trained", type=click.Path(exists=True, path_type=Path))
@click.argument("clips", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--only", type=click.Path(file_okay=False, path_type=Path), help="Write the network alone, there.")
@click.option("--name", help="Of the start; from its channels where it is not given.")
def main(trained: Path, clips: tuple[Path, ...], only: Path | None, name: str | None) -> None:
    random.seed(0)
    kept = torch.load(trained, weights_only=False)
    module = CWRNN(Sizes((96, 160), (24, 40), 1), widths=kept["widths"])
    module.load_state_dict(kept["module"])
    context = ContextWeights(**{name: value.round().clamp(-2047, 2047) for name, value in kept["context"].items()})
    training = Training(module, context)
    errors = []
    with thread_limit(2):
        for number, path in enumerate(clips):
            fit = training.encoded(load(path)[:9], 4, _LAMBDAS[number % len(_LAMBDAS)], module)
            records = [fit.records[n] for n in range(len(fit.units))]
            errors.append((records, Overfit(module, records, Simulation(observe=True)).refresh()))
    for layer in exact_layers(module):
        layer.peak *= _MARGIN
    calibrate(module, ACTIVATION_BITS)
    for convolution in module.modules():
        if isinstance(convolution, Conv2d):
            with torch.no_grad():
                convolution.step.copy_(convolution.least_step() + _WEIGHT_MARGIN)
            convolution.fit_bias()
            convolution.bias_shift += 1
    sizes = Sizes((96, 160), (24, 40), 1)
    place(module, sizes)
    resize(module, sizes)
    folder = only or ROOT / "implicit" / "starts"
    folder.mkdir(exist_ok=True)
    write_trained(folder, name or f"cwrnn{module.widths.half}", module, sizes, ACTIVATION_BITS)
    if not only:
        large = Sizes((180, 320), (45, 80), 33)
        resize(module, large)
        (ROOT / "bitstream" / "programs.dict").write_bytes(trace(module, large, ACTIVATION_BITS).program.write())
        resize(module, sizes)
        parts = [getattr(context, name) for name in CONTEXT_SHAPES]
        (ROOT / "grid" / "contexts.bin").write_bytes(b"".join(p.numpy().astype("<i2").tobytes() for p in parts))
    rounded = Simulation(bits=ACTIVATION_BITS, weights=Rounding.THROUGH)
    for records, before in errors:
        half = records[0].target.shape[2:]
        here = Sizes((half[0], half[1]), (-(-half[0] // 4), -(-half[1] // 4)), 1)
        resize(module, here)
        place(module, here)
        click.echo(
            f"errors in bits of a sample: {before:.5f}, rounded {Overfit(module, records, rounded).refresh():.5f}"
        )


if __name__ == "__main__":
    main()
