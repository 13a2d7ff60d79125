"""The models of the implicit representation: programs of theirs, and that the exact machine does what they do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from conftest import Encoded
from recurrent_module import OwnRecurrent
from torch import Tensor, nn
from video_samples import read

from nvcodec.bitstream.syntax import write_program
from nvcodec.cli import types
from nvcodec.core.metrics import frame_psnr, mean_psnr
from nvcodec.core.parallel import thread_limit
from nvcodec.decoder import Decoder
from nvcodec.encoder import pipeline
from nvcodec.exact.convolution import Conv2d
from nvcodec.exact.latents import Grid, Latent
from nvcodec.exact.layer import calibrate
from nvcodec.exact.machine import Machine
from nvcodec.exact.operation import FrameInputs, Sizes
from nvcodec.exact.outputs import Store
from nvcodec.exact.references import residual_shape
from nvcodec.exact.simulation import Rounding, Simulation, simulate
from nvcodec.exact.tracing import TracedProgram, place, trace
from nvcodec.implicit.encoder.representation import MODELS
from nvcodec.implicit.models.cwrnn import CWRNN
from nvcodec.motion.levels import FrameGeometry

BITS = 12
PARAMETERS = {"hnerv": 40_000, "nerv": 12_000, "siren": 12_000, "hinerv": 12_000, "cwrnn": 12_000, "own": 3_000}
"""HNeRV is no smaller than 22 thousand."""
BUILDERS = {**MODELS, "cwrnn": CWRNN, "own": OwnRecurrent}
PICTURES = ((64, 48, 6), (33, 17, 5), (16, 16, 1))
EACH = pytest.mark.parametrize("name", BUILDERS)
EACH_PICTURE = pytest.mark.parametrize(("width", "height", "frames"), PICTURES)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Pictures are small."""
    with thread_limit(1):
        yield


def sizes_of(width: int, height: int, frames: int) -> Sizes:
    geometry = FrameGeometry(width, height)
    return Sizes(geometry.half, geometry.blocks, frames)


def count(module: nn.Module, latents: tuple[Latent, ...]) -> int:
    layers = [layer for layer in module.modules() if isinstance(layer, Conv2d)]
    return sum(layer.weight.numel() + len(layer.weight) for layer in layers) + sum(x.count for x in latents)


def build(name: str, sizes: Sizes, parameters: float) -> tuple[nn.Module, tuple[Latent, ...]]:
    torch.manual_seed(1)
    module = BUILDERS[name](sizes, parameters)
    return module, place(module, sizes)


def test_the_command_line_knows_all_models() -> None:
    assert sorted(types.MODELS) == sorted(set(pipeline.MODELS) - {pipeline.OWN_MODEL})
    assert set(MODELS) < set(types.MODELS)


@EACH
@EACH_PICTURE
def test_program(name: str, width: int, height: int, frames: int) -> None:
    sizes = sizes_of(width, height, frames)
    module, latents = build(name, sizes, PARAMETERS[name])
    program = trace(module, sizes, BITS).program
    program.check(sizes)
    assert len(write_program(program.write())) <= 300
    if name != "own":
        assert count(module, latents) == pytest.approx(PARAMETERS[name], rel=0.15)


@pytest.mark.parametrize("name", ["nerv", "siren", "hinerv"])
@pytest.mark.parametrize(
    ("width", "height", "frames", "parameters"),
    [(2, 2, 1, 1e4), (353, 287, 120, 1e4), (353, 287, 8, 8e4), (1920, 1080, 120, 5e4), (1920, 1080, 120, 3e6)],
)
def test_sizes_of_all_kinds(name: str, width: int, height: int, frames: int, parameters: float) -> None:
    sizes = sizes_of(width, height, frames)
    module, latents = build(name, sizes, parameters)
    program = trace(module, sizes, BITS).program
    program.check(sizes)
    if (name, parameters) == ("siren", 3e6):  # a decoder's multiplications end before
        assert 2e5 < count(module, latents) < 5.3e5
    else:
        assert count(module, latents) == pytest.approx(parameters, rel=0.15)


def calibrated(module: nn.Module, sizes: Sizes, inputs: FrameInputs) -> TracedProgram:
    with simulate(Simulation(observe=True)), torch.no_grad():
        module(inputs)
    calibrate(module, BITS)
    for layer in module.modules():
        if isinstance(layer, Conv2d):
            layer.step.copy_(layer.least_step())
            layer.fit_bias()
    return trace(module, sizes, BITS)


def references(module: nn.Module, sizes: Sizes) -> FrameInputs:
    """What is seen of two references, drawn; integers, but for the numbers."""
    frames, draw = sizes.frames, torch.Generator().manual_seed(3)

    def drawn(deviation: float, *shape: int) -> Tensor:
        return (torch.randn(frames, *shape, generator=draw) * deviation).round()

    prediction = (drawn(150, 6, *sizes.half) + 512).clamp(0, 1023)
    vectors = drawn(9, 2, *sizes.blocks), drawn(9, 2, *sizes.blocks)
    stores = [layer for layer in module.modules() if isinstance(layer, Store)]
    first, second = ({store.index: drawn(300, *store.shape) for store in stores} for _ in range(2))
    distances = torch.full((frames,), -1), torch.full((frames,), 2)
    residual = {k: drawn(40, *residual_shape(k, sizes)) for k in range(3)}
    return FrameInputs(
        torch.arange(frames), prediction=prediction, difference=drawn(20, 6, *sizes.half), vectors=vectors,
        final_vectors=vectors, states=(first, second), distances=distances, residual=residual, depth=2, quantiser=30,
    )  # fmt: skip


def as_reals(inputs: FrameInputs, module: nn.Module) -> FrameInputs:
    assert inputs.prediction is not None
    assert inputs.difference is not None
    fractions = {layer.index: layer.fraction for layer in module.modules() if isinstance(layer, Store)}
    states = [{n: x * 2.0 ** -fractions[n] for n, x in s.items()} for s in inputs.states if s is not None]
    return replace(
        inputs, prediction=inputs.prediction / 1024 - 0.5, difference=inputs.difference / 1024,
        states=(states[0], states[1]), residual={k: x / 1024 for k, x in inputs.residual.items()},
    )  # fmt: skip


@EACH
@EACH_PICTURE
def test_the_machine_does_what_the_twin_does(name: str, width: int, height: int, frames: int) -> None:
    sizes = sizes_of(width, height, frames)
    module, latents = build(name, sizes, PARAMETERS[name])
    for latent in latents:
        latent.step_bits = 5
        nn.init.normal_(latent.values, std=20.0)
    inputs = references(module, sizes)
    for _ in range(3):  # the states that are drawn have the fixed point of those that are stored
        traced = calibrated(module, sizes, as_reals(inputs, module))
    for layer in latents:
        (inputs.grids if isinstance(layer, Grid) else inputs.latents)[layer.level] = layer.symbols()
    with torch.inference_mode():
        exact = Machine(traced.program, traced.tensors(), sizes, torch.device("cpu")).run(inputs).samples
    exactly = Simulation(bits=BITS, weights=Rounding.THROUGH, latents=Rounding.THROUGH)
    given = replace(as_reals(inputs, module), latents={}, grids={})
    with simulate(exactly), torch.no_grad():
        twin = (module(given)["samples"] * 1024 + 512).clamp(0, 1023)
    errors = (exact - twin).abs()
    assert float((errors > 2).float().mean()) < 0.005
    assert float(errors.mean()) < 0.5
    assert float(exact.std()) > 1


@pytest.mark.parametrize("name", ["hnerv", "nerv", "siren", "hinerv"])
def test_a_file(name: str, encode_tiny: Callable[..., Encoded]) -> None:
    found = encode_tiny(32, 32, 4, model=name, params=2000, epochs=2)
    _, frames = read(found.source)
    with Decoder(found.path, device="cpu", threads=1) as decoder:
        made = list(decoder)
    mean = mean_psnr([frame_psnr(a, b) for a, b in zip(made, frames, strict=True)])
    assert found.report.psnr_yuv == pytest.approx(mean.yuv_611)
