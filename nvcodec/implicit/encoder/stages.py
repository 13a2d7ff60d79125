"""The stages that turn a segment into bytes in the implicit representation, seen at a glance in ``encode_segment``.

::

    overfit -> settle -> prune -> tune -> code
       |         |         |        |       entropy coding with constriction, the exact machine's own frames, their hash
       |         |         |        on quantised weights, latents and activations, the rate in the loss
       |         |         the weights whose loss costs least become zero
       |         latents become numbers of their own, every value a fixed point, every row a sensitivity
       the float model, epoch by epoch

Each can be kept after every epoch, and goes on from there to the same bytes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from nvcodec.core.errors import EncodeError, TargetError
from nvcodec.core.limits import level_by_number, level_for
from nvcodec.decoder import FrameHash, output_planes
from nvcodec.encoder.distortion import plane_errors, psnr_611
from nvcodec.encoder.representation import CodedSegment, Keep, StageReport
from nvcodec.exact.layer import calibrate
from nvcodec.exact.operation import Sizes
from nvcodec.exact.simulation import Rounding, Simulation
from nvcodec.exact.tracing import place, trace
from nvcodec.implicit.encoder.coding import (
    conv_symbols,
    counted_bits,
    fitted_scales,
    latent_symbols,
    weight_bits,
)
from nvcodec.implicit.encoder.prune import prune, sparsity
from nvcodec.implicit.encoder.settings import Effort
from nvcodec.implicit.encoder.steps import Importance, set_latent_steps, set_weight_steps
from nvcodec.implicit.encoder.training import Model, Schedule, evaluate, optimiser_of, run_epoch, sensitivity
from nvcodec.implicit.payload import ImplicitHeader, ImplicitWriter, SegmentTensors
from nvcodec.implicit.unit import UnitSymbols, units_of
from nvcodec.motion.levels import FrameGeometry

__all__ = ["BITS_A_NUMBER", "Figures", "encode_segment"]

UNIT_FRAMES = 8
"""Frames of a coding unit where none refers to another."""
AIM, TOLERANCE = 0.99, (0.96, 1.015)
BITS_A_NUMBER = 5.5
"""Where no size is asked for."""
_FOLLOWED = 0.7
"""Share of the tuning in which the steps still follow the target."""
_UNIT_RANGE = (-24.0, 8.0)
_TIMED_BATCHES = 3


@dataclass
class Figures:
    """What the stages came to: PSNR in dB, chroma weighted, over all frames, and bits."""

    fitted: float = 0.0
    settled: float = 0.0
    pruned: float = 0.0
    quantised: float = 0.0
    tuned: float = 0.0
    sparsity: float = 0.0
    weight_bits: float = 0.0
    latent_bits: float = 0.0


@dataclass
class _Work:
    """A segment between two epochs: all that the rest of its encode depends on."""

    model: Model
    effort: Effort
    wanted: float | None
    optimiser: torch.optim.Adam
    keep: Keep
    tell: Callable[[StageReport], None]
    stage: str = "fit"
    epoch: int = 0
    """Of the stage, how many are done."""
    unit: float = 0.0
    """See ``steps``."""
    price: float = 0.0
    """Of a bit, in distortion summed over frames."""
    importance: Importance | None = None
    figures: Figures = field(default_factory=Figures)

    def state(self) -> dict[str, Any]:
        importance = self.importance
        return {
            "stage": self.stage,
            "epoch": self.epoch,
            "unit": self.unit,
            "price": self.price,
            "importance": (importance.weights, importance.latents) if importance else None,
            "figures": vars(self.figures).copy(),
            "module": dict(self.model.module.state_dict()),
            "optimiser": self.optimiser.state_dict(),
            "random": torch.get_rng_state(),
        }

    def done(self, psnr: float, bits: float | None = None) -> None:
        """An epoch lies behind."""
        self.epoch += 1
        self.keep(self.state)
        self.report(psnr, bits)

    def report(self, psnr: float | None, bits: float | None = None, seconds: float | None = None) -> None:
        epochs, tuning = self.effort.epochs, self.effort.tuning_epochs
        behind = self.epoch if self.stage == "fit" else epochs + (self.epoch if self.stage == "tune" else 0)
        of = {"fit": epochs, "tune": tuning}.get(self.stage)
        name = f"{self.stage}, epoch {self.epoch} of {of}" if of else self.stage
        luma = len(self.model.samples) * 4 * self.model.samples[0, 0].numel()
        self.tell(StageReport(name, 0, behind / (epochs + tuning), bits and bits / luma, psnr, seconds))


def encode_segment(
    samples: Tensor,
    geometry: FrameGeometry,
    build: Callable[[Sizes], nn.Module],
    wanted_bytes: float | None,
    effort: Effort,
    seed: int,
    program_index: Callable[[bytes], int],
    overhead: Callable[[bytes], int],
    tell: Callable[[StageReport], None] = lambda report: None,
    *,
    kept: dict[str, Any] | None = None,
    keep: Keep = lambda state: None,
) -> CodedSegment:
    """Overfit, settle, prune, tune and code one segment.

    ``samples``: (T, 6, h, w), 10 bits. ``build``: the module, from the sizes. ``wanted_bytes``: of the payload and its
    program, None for what suits the number of parameters. ``program_index``: which program of the file this will be;
    ``overhead``: the bytes beside the payload that it takes.
    Raises EncodeError where the module is no program or the fit runs away, TargetError where the size cannot be met.
    """
    torch.manual_seed(seed)
    sizes = Sizes(geometry.half, geometry.blocks, len(samples))
    module = build(sizes).to(samples.device)
    latents = place(module, sizes)
    program = _checked_program(module, sizes, geometry, effort)
    analyse = getattr(module, "analyse", None)
    model = Model(module, list(latents), samples / 1024 - 0.5, effort.batch, analyse)
    wanted = None if wanted_bytes is None else 8 * (wanted_bytes - overhead(program))
    work = _Work(model, effort, wanted, optimiser_of(model), keep, tell)
    if kept is not None:
        _restore(work, kept)
    else:
        work.report(None, seconds=_foreseen(work))

    if work.stage == "fit":
        _fit(work)
        work.stage, work.epoch = "settle", 0
    if work.stage == "settle":
        _settle(work)
        _prune(work)
        work.stage, work.epoch = "tune", 0
        work.optimiser = optimiser_of(work.model)
    if work.stage == "tune":
        _tune(work, sizes)
        work.stage = "code"
    work.report(work.figures.tuned)
    return _code(work, sizes, geometry, program_index)


def _foreseen(work: _Work) -> float:
    """Seconds that all epochs will take here, by a few batches, which leave no trace."""
    model, effort = work.model, work.effort
    few = replace(model, samples=model.samples[: _TIMED_BATCHES * effort.batch])
    before, random = (
        {k: v.clone() for k, v in model.module.state_dict().items() if isinstance(v, Tensor)},
        torch.get_rng_state(),
    )
    optimiser = optimiser_of(model)
    run_epoch(few, optimiser, Schedule(1, 0.0), 0, Simulation())
    start = time.monotonic()
    run_epoch(few, optimiser, Schedule(1, 0.0), 0, Simulation())
    taken = time.monotonic() - start
    model.module.load_state_dict(model.module.state_dict() | before)
    torch.set_rng_state(random)
    return taken * len(model.samples) / len(few.samples) * (effort.epochs + 1.5 * effort.tuning_epochs)


def _checked_program(module: nn.Module, sizes: Sizes, geometry: FrameGeometry, effort: Effort) -> bytes:
    """About what will be stored of the module; what cannot be is refused before anything is fitted."""
    traced = trace(module, sizes, effort.bits)
    traced.program.check(sizes, _max_samples(geometry, sizes))
    if traced.program.refers:
        raise EncodeError("the module refers to other frames, which is not fitted yet")
    return traced.program.write()


def _max_samples(geometry: FrameGeometry, sizes: Sizes) -> int:
    level = level_for(geometry.width, geometry.height, sizes.frames)
    return level_by_number(level).max_picture_samples


def _fit(work: _Work) -> None:
    """The float model."""
    schedule = Schedule(work.effort.epochs, work.effort.rate)
    while work.epoch < schedule.epochs:
        done = run_epoch(work.model, work.optimiser, schedule, work.epoch, Simulation())
        work.done(done.psnr)
    work.figures.fitted = evaluate(work.model, Simulation())


@torch.no_grad()
def _settle(work: _Work) -> None:
    """Latents become numbers of their own; every value gets its fixed point, every row its sensitivity."""
    model = work.model
    if model.analyse is not None:
        made = [model.analyse(model.samples[n]) for n in torch.arange(len(model.samples)).split(8)]
        for latent in model.latents:
            latent.values.copy_(torch.cat([part[latent.level] for part in made]))
        work.model = model = replace(model, analyse=None)
    evaluate(model, Simulation(observe=True))
    calibrate(model.module, work.effort.bits)
    with torch.enable_grad():
        work.importance = sensitivity(model, Simulation())
    for layer in model.layers:
        layer.step.copy_(layer.least_step())
        layer.fit_bias()
    work.figures.settled = evaluate(model, Simulation(bits=work.effort.bits))


def _prune(work: _Work) -> None:
    assert work.importance is not None
    prune(work.model.layers, work.importance.weights, work.effort.pruned)
    work.figures.sparsity = sparsity(work.model.layers)
    work.figures.pruned = evaluate(work.model, Simulation())


def _tune(work: _Work, sizes: Sizes) -> None:
    """On quantised weights and latents: noise first, then the rounding of the decoder."""
    model, bits = work.model, work.effort.bits
    exactly = Simulation(bits, Rounding.THROUGH, Rounding.THROUGH)
    epochs = work.effort.tuning_epochs
    schedule = Schedule(epochs, work.effort.tuning_rate, warm_up=0.0)
    wanted = work.wanted if work.wanted is not None else BITS_A_NUMBER * model.parameters
    if not work.epoch:
        _meet(work, sizes, AIM * wanted)
        work.figures.quantised = evaluate(model, exactly)
        lost = 10 ** (-work.figures.quantised / 10) - 10 ** (-work.figures.pruned / 10)
        work.price = max(lost, 1e-7) * 2 * math.log(2) * len(model.samples) / model.parameters
    while work.epoch < epochs:
        share = work.epoch / epochs
        is_noise = share < 0.4
        simulation = Simulation(
            bits, Rounding.NOISE if is_noise else Rounding.THROUGH, Rounding.NOISE if is_noise else Rounding.THROUGH
        )
        done = run_epoch(model, work.optimiser, schedule, work.epoch, simulation, work.price)
        if share < _FOLLOWED:
            _meet(work, sizes, AIM * wanted)
        for layer in model.layers:
            layer.fit_bias()
        work.done(done.psnr, done.bits)
    if work.wanted is not None and not TOLERANCE[0] <= _bits(work, sizes) / wanted <= TOLERANCE[1]:
        _meet(work, sizes, AIM * wanted)
    work.figures.tuned = evaluate(model, exactly)


def _bits(work: _Work, sizes: Sizes) -> float:
    """Of the payload, as it would be coded now."""
    traced = trace(work.model.module, sizes, work.effort.bits)
    latents, program = latent_symbols(traced), traced.program
    units = units_of(program, sizes.frames, UNIT_FRAMES)
    views = [None] * len(units)
    model = fitted_scales(latents, units, views, 1)
    work.figures.weight_bits = weight_bits(work.model.layers)
    work.figures.latent_bits = counted_bits(latents, model, units, views)
    return work.figures.weight_bits + work.figures.latent_bits + 64


def _meet(work: _Work, sizes: Sizes, bits: float) -> None:
    """Choose the steps with which the model takes so many bits. Raises TargetError, with what can be reached."""
    assert work.importance is not None
    model, importance = work.model, work.importance

    def at(unit: float, *, with_latents: bool = False) -> float:
        if with_latents:
            set_latent_steps(model.latents, importance, unit)
        set_weight_steps(model.layers, importance, unit)
        return _bits(work, sizes)

    if not work.epoch:  # latents have steps of whole octaves: they are chosen once, and the weights meet the rest
        most, least = (at(unit, with_latents=True) for unit in _UNIT_RANGE)
        if not least <= bits <= most:
            raise TargetError(
                f"a model of {model.parameters} parameters takes {least / 8:.0f} to {most / 8:.0f} bytes, "
                f"not {bits / AIM / 8:.0f}: choose other params for this target, or leave them out"
            )
        low, high = _UNIT_RANGE
        while high - low > 0.1:
            middle = (low + high) / 2
            low, high = (middle, high) if at(middle, with_latents=True) > bits else (low, middle)
        work.unit = (low + high) / 2
        at(work.unit, with_latents=True)
    low, high = work.unit - 1, work.unit + 1
    while at(low) < bits and low > _UNIT_RANGE[0]:
        low -= 1
    while at(high) > bits and high < _UNIT_RANGE[1]:
        high += 1
    while high - low > 0.004:
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle) > bits else (low, middle)
    work.unit = (low + high) / 2
    at(work.unit)


def _code(work: _Work, sizes: Sizes, geometry: FrameGeometry, program_index: Callable[[bytes], int]) -> CodedSegment:
    """Entropy-code the segment, and rebuild its frames by the exact machine."""
    traced = trace(work.model.module, sizes, work.effort.bits)
    coded = traced.program.write()
    device = work.model.samples.device
    units = units_of(traced.program, sizes.frames, UNIT_FRAMES)
    symbols = latent_symbols(traced)
    views = [None] * len(units)
    tensors = SegmentTensors(
        {number: conv_symbols(layer, fraction) for number, (layer, fraction) in traced.convolutions.items()},
        fitted_scales(symbols, units, views, 1),
        symbols.grids,
    )
    header = ImplicitHeader(program_index(coded), UNIT_FRAMES)
    writer = ImplicitWriter(
        header, traced.program, tensors, geometry, sizes.frames, device, _max_samples(geometry, sizes)
    )
    planes: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
    quality: list[Tensor] = []
    source = (work.model.samples + 0.5) * 1024
    for unit in units:
        numbers = [frame.display for frame in unit.frames]
        made = writer.code(UnitSymbols([level[numbers] for level in symbols.latents]))
        exact = torch.stack([made[n].frame.appearance.packed for n in numbers])
        quality.append(psnr_611(plane_errors(exact, source[numbers])))
        for n, picture in zip(numbers, exact, strict=True):
            planes[n] = output_planes(picture, geometry.width, geometry.height)
    digest = FrameHash()
    for display in sorted(planes):
        digest.add(planes[display])
    return CodedSegment(writer.finish(), digest.digest(), float(torch.cat(quality).mean()))


def _restore(work: _Work, kept: dict[str, Any]) -> None:
    """Go on from what ``state`` returned."""
    work.stage, work.epoch, work.unit, work.price = kept["stage"], kept["epoch"], kept["unit"], kept["price"]
    work.importance = Importance(*kept["importance"]) if kept["importance"] else None
    work.figures = Figures(**kept["figures"])
    work.model.module.load_state_dict(kept["module"])
    if work.stage != "fit":
        work.model = replace(work.model, analyse=None)
        work.optimiser = optimiser_of(work.model)
    work.optimiser.load_state_dict(kept["optimiser"])
    torch.set_rng_state(kept["random"])
