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

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nvcodec.core.errors import CheckpointError, EncodeError, MismatchError, TargetError
from nvcodec.decoder import FrameHash, output_planes
from nvcodec.encoder.distortion import plane_errors, psnr_611
from nvcodec.encoder.rate_control import AIM, TOLERANCE, first_lambda
from nvcodec.encoder.representation import CodedSegment, Keep, StageReport
from nvcodec.exact.layer import calibrate
from nvcodec.exact.operation import Sizes
from nvcodec.exact.simulation import Rounding, Simulation
from nvcodec.exact.tracing import place, trace
from nvcodec.implicit.encoder.budget import follow_price, meet_by_steps, moved_price
from nvcodec.implicit.encoder.coding import conv_symbols, counted_bits, fitted_scales, latent_symbols, weight_bits
from nvcodec.implicit.encoder.frames import FrameModel
from nvcodec.implicit.encoder.model import Epoch, Model, Schedule, distortion, optimiser_of
from nvcodec.implicit.encoder.prune import prune, sparsity
from nvcodec.implicit.encoder.sequence import SequenceModel
from nvcodec.implicit.encoder.settings import Effort
from nvcodec.implicit.encoder.steps import Importance
from nvcodec.implicit.encoder.storable import check_storable
from nvcodec.implicit.payload import ImplicitHeader, ImplicitWriter, SegmentTensors
from nvcodec.implicit.unit import units_of
from nvcodec.motion.levels import FrameGeometry

__all__ = ["BITS_A_NUMBER", "Figures", "SegmentTask", "encode_segment"]

UNIT_FRAMES, GOP = 8, 4
"""Frames of a coding unit where none refers to another; frames between P frames where they do."""
BITS_A_NUMBER = 5.5
"""Where no size is asked for, and what is planned with where no number of parameters is."""
_FOLLOWED = 0.7
"""Share of the tuning in which steps and price still follow the target."""
_WITH_NOISE = 0.4
"""Share of the tuning in which noise stands for rounding."""
_HEADER_BITS = 96
"""Segment header and the end of the coder."""
_WORST_MISMATCH = 1.5
"""dB by which the exact machine's frames may be worse than the twin's before something is believed to be wrong."""
_ATTEMPTS = 10
"""To meet the size with a model whose bits follow from a price."""
_PLANNED_BITS = 3.0
"""Of a weight, before there are steps."""
_MOST_BITS = 16.0
"""More than any number takes with the finest steps: what no fit can reach is refused before it begins."""
_LEAST_SLACK = 64
"""Bits by which a payload may miss its target anyhow: those of a small file come in lumps."""


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
    motion_bits: float = 0.0
    weights: int = 0
    """How many there are, biases included."""
    latents: int = 0


@dataclass
class _Work:
    """A segment between two epochs: all that the rest of its encode depends on."""

    model: Model
    program: bytes
    """As it is before the fit, with the fixed points that convolutions see: it tells one network from another."""
    sizes: Sizes
    geometry: FrameGeometry
    effort: Effort
    wanted: float | None
    """Bits of the payload."""
    optimiser: torch.optim.Adam
    keep: Keep
    tell: Callable[[StageReport], None]
    stage: str = "fit"
    epoch: int = 0
    """Of the stage, how many are done."""
    unit: float | None = None
    """See ``steps``."""
    importance: Importance | None = None
    figures: Figures = field(default_factory=Figures)

    def enter(self, stage: str) -> None:
        self.stage, self.epoch = stage, 0

    def state(self) -> dict[str, Any]:
        importance, device = self.importance, self.model.samples.device
        return {
            "program": self.program,
            "stage": self.stage,
            "epoch": self.epoch,
            "unit": self.unit,
            "importance": (importance.weights, importance.latents) if importance else None,
            "figures": vars(self.figures).copy(),
            "module": dict(self.model.module.state_dict()),
            "model": self.model.state(),
            "optimiser": self.optimiser.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        }

    def restore(self, kept: dict[str, Any]) -> None:
        """Go on from what ``state`` returned. Raises CheckpointError where that was of another network."""
        if kept["program"] != self.program:
            raise CheckpointError("the checkpoint is of another network; delete it to start anew")
        self.stage, self.epoch, self.unit = kept["stage"], kept["epoch"], kept["unit"]
        if kept["importance"]:
            weights, latents = kept["importance"]
            self.importance = Importance([w.to(self.model.samples.device) for w in weights], latents)
        self.figures = Figures(**kept["figures"])
        self.model.module.load_state_dict(kept["module"])
        self.model.restore(kept["model"], self.stage != "fit")
        self.optimiser = _optimiser_of(self.model)
        self.optimiser.load_state_dict(kept["optimiser"])
        torch.set_rng_state(kept["random"])
        if kept["random_cuda"] is not None:
            torch.cuda.set_rng_state(kept["random_cuda"], self.model.samples.device)

    def done(self, psnr: float, bits: float | None = None) -> None:
        """An epoch lies behind."""
        self.epoch += 1
        self.keep(self.state)
        self.report(psnr, bits)

    def report(self, psnr: float | None, bits: float | None = None, seconds: float | None = None) -> None:
        epochs, tuning = self.effort.epochs, self.effort.tuning_epochs
        behind = {"fit": min(self.epoch, epochs), "tune": epochs + min(self.epoch, tuning)}
        of = {"fit": epochs, "tune": tuning}.get(self.stage)
        name = f"{self.stage}, epoch {self.epoch} of {of}" if of else self.stage
        luma = self.sizes.frames * self.geometry.width * self.geometry.height
        fraction = behind.get(self.stage, epochs + tuning) / (epochs + tuning)
        self.tell(StageReport(name, 0, fraction, bits / luma if bits else None, psnr, seconds))

    def exactly(self) -> Simulation:
        """As the decoder will compute."""
        return Simulation(self.effort.bits, Rounding.THROUGH, Rounding.THROUGH)

    def bits(self, latents_changed: bool = True) -> float:
        """Of the payload, as it would be coded now, on the motion that was found last."""
        model, figures = self.model, self.figures
        if latents_changed:
            latents = latent_symbols(model.latents)
            scales = fitted_scales(latents, model.units, model.views, model.classes)
            figures.latent_bits = counted_bits(latents, scales, model.units, model.views)
        figures.weight_bits = weight_bits(model.layers)
        figures.motion_bits = model.motion_bits
        return figures.weight_bits + figures.latent_bits + figures.motion_bits + _HEADER_BITS


@dataclass(frozen=True)
class SegmentTask:
    """A segment to encode.

    ``samples``: (T, 6, h, w), 10 bits. ``build``: the module, from the sizes. ``wanted_bytes``: of the payload and its
    program, None for what suits the number of parameters. ``program_index``: which program of the file this will be;
    ``overhead``: the bytes beside the payload that it takes.
    """

    samples: Tensor
    geometry: FrameGeometry
    build: Callable[[Sizes], nn.Module]
    wanted_bytes: float | None
    effort: Effort
    seed: int
    program_index: Callable[[bytes], int]
    overhead: Callable[[bytes], int]


def encode_segment(
    task: SegmentTask,
    tell: Callable[[StageReport], None] = lambda report: None,
    *,
    kept: dict[str, Any] | None = None,
    keep: Keep = lambda state: None,
) -> tuple[CodedSegment, Figures]:
    """Overfit, settle, prune, tune and code one segment; also what the stages came to.

    Raises EncodeError where the module is no program or the fit runs away, TargetError where the size cannot be met.
    """
    work = _begin(task, tell, keep)
    if kept is None:
        work.report(None, seconds=_foreseen(work))
    else:
        work.restore(kept)
        del kept

    if work.stage == "fit":
        _overfit(work)
        work.enter("settle")
    if work.stage == "settle":
        _settle(work)
        _prune(work)
        work.enter("tune")
        work.optimiser = _optimiser_of(work.model)
    if work.stage == "tune":
        _tune(work)
        work.enter("code")
    work.report(work.figures.tuned)
    return _coded(work, task.program_index), work.figures


def _begin(task: SegmentTask, tell: Callable[[StageReport], None], keep: Keep) -> _Work:
    """The module with first values; what cannot be stored is refused before anything is fitted."""
    samples, geometry, effort = task.samples, task.geometry, task.effort
    torch.manual_seed(task.seed)
    sizes = Sizes(geometry.half, geometry.blocks, len(samples))
    module = task.build(sizes).to(samples.device)
    latents = place(module, sizes)
    module.to(samples.device)  # the latents, too
    traced = trace(module, sizes, effort.bits)
    program = traced.program
    check_storable(program, sizes)
    fixed_points = bytes(fraction & 255 for _, fraction in traced.convolutions.values())
    units = units_of(program, sizes.frames, GOP if program.refers else UNIT_FRAMES)
    real = samples / 1024 - 0.5
    model: Model
    if program.refers:
        if hasattr(module, "analyse"):
            raise EncodeError("a module that refers to other frames cannot have latents made of the frames")
        model = SequenceModel(module, latents, real, units, geometry, program.moves)
        bpp = (task.wanted_bytes or BITS_A_NUMBER * model.parameters / 8) * 8 / (sizes.frames * model.luma_samples)
        model.price = model.price_of(first_lambda(bpp, sizes.frames))
    else:
        model = FrameModel(module, latents, real, units, effort.batch, getattr(module, "analyse", None))
    wanted = None
    if task.wanted_bytes is not None:
        wanted = 8 * (task.wanted_bytes - task.overhead(program.write()))
        if wanted <= _HEADER_BITS:
            raise TargetError(
                f"the target of {task.wanted_bytes:.0f} bytes for this segment is out of reach: its program alone "
                f"takes {task.overhead(program.write())}"
            )
        if wanted > _MOST_BITS * model.parameters:
            raise TargetError(
                f"a model of {model.parameters} parameters takes fewer than {_MOST_BITS * model.parameters / 8:.0f} "
                f"bytes, the target leaves {wanted / 8:.0f}: choose another target, or other params"
            )
    optimiser = _optimiser_of(model)
    work = _Work(model, program.write() + fixed_points, sizes, geometry, effort, wanted, optimiser, keep, tell)
    work.figures.latents = sum(latent.count for latent in latents)
    work.figures.weights = model.parameters - work.figures.latents
    return work


def _optimiser_of(model: Model) -> torch.optim.Adam:
    return optimiser_of(model, analysis=isinstance(model, FrameModel) and model.analyse is not None)


def _foreseen(work: _Work) -> float:
    """Seconds that all epochs will take here, by a first one that leaves no trace."""
    model, effort = work.model, work.effort
    state = {name: v.clone() for name, v in model.module.state_dict().items() if isinstance(v, Tensor)}
    random = torch.get_rng_state()
    taken = model.time_an_epoch(_optimiser_of(work.model))
    model.module.load_state_dict(model.module.state_dict() | state)
    torch.set_rng_state(random)
    return taken * (effort.epochs + 1.5 * effort.tuning_epochs)


def _overfit(work: _Work) -> None:
    """The float model."""
    schedule = Schedule(work.effort.epochs, work.effort.rate * work.model.rate_factor)
    while work.epoch < schedule.epochs:
        done = work.model.epoch(work.optimiser, schedule, work.epoch, Simulation(), False)
        if isinstance(work.model, SequenceModel):
            _move_price(work)
        work.done(done.psnr)
    work.figures.fitted = work.model.evaluate(Simulation())


def _settle(work: _Work) -> None:
    """Latents become numbers of their own; every value gets its fixed point, every row its sensitivity."""
    model = work.model
    model.settle()
    model.evaluate(Simulation(observe=True))
    calibrate(model.module, work.effort.bits)
    work.importance = model.sensitivity()
    for layer in model.layers:
        layer.step.copy_(layer.least_step())
        layer.fit_bias()
    work.figures.settled = model.evaluate(Simulation(bits=work.effort.bits))


def _prune(work: _Work) -> None:
    assert work.importance is not None
    prune(work.model.layers, work.importance.weights, work.effort.pruned)
    work.figures.sparsity = sparsity(work.model.layers)
    work.figures.pruned = work.model.evaluate(Simulation())


def _tune(work: _Work) -> None:
    """On quantised weights and latents: noise first, then the rounding of the decoder."""
    model, epochs = work.model, work.effort.tuning_epochs
    schedule = Schedule(epochs, work.effort.tuning_rate * model.rate_factor, warm_up=0.0)
    if not work.epoch:
        _meet(work)
        work.figures.quantised = model.evaluate(work.exactly())
        if isinstance(model, FrameModel):
            model.price = _price_of_quantising(work)
    while work.epoch < epochs:
        share = work.epoch / epochs
        rounding = Rounding.NOISE if share < _WITH_NOISE else Rounding.THROUGH
        done = model.epoch(
            work.optimiser, schedule, work.epoch, Simulation(work.effort.bits, rounding, rounding), work.effort.priced
        )
        if share < _FOLLOWED:
            _meet(work)
        for layer in model.layers:
            layer.fit_bias()
        work.done(done.psnr, done.bits)
    if isinstance(model, FrameModel) and work.wanted is not None and _misses(work, work.bits()):
        _meet(work)
    work.figures.tuned = model.evaluate(work.exactly())


def _wanted(work: _Work) -> float:
    return work.wanted if work.wanted is not None else BITS_A_NUMBER * work.model.parameters


def _meet(work: _Work) -> None:
    """Move what decides on the bits towards the target."""
    assert work.importance is not None
    if isinstance(work.model, FrameModel):
        work.unit = meet_by_steps(work.model, work.importance, work.bits, AIM * _wanted(work), work.unit)
        return
    _move_price(work)
    follow_price(work.model, work.importance)


def _move_price(work: _Work) -> None:
    """Let the price of a bit follow what the model takes; weights that have no steps yet are planned for."""
    if work.wanted is None:
        return
    bits = work.bits()
    if work.importance is None:
        planned = _PLANNED_BITS * sum(layer.weight.numel() for layer in work.model.layers)
        bits += min(0.5 * work.wanted, planned) - work.figures.weight_bits
    work.model.price = moved_price(work.model.price, bits, AIM * work.wanted)


def _price_of_quantising(work: _Work) -> float:
    """What a bit less of each number costs: quantising has cost so much, and a bit is a factor of four of that."""
    lost = 10 ** (-work.figures.quantised / 10) - 10 ** (-work.figures.pruned / 10)
    return max(lost, 1e-7) * 1.386 * work.sizes.frames / work.model.parameters


def _misses(work: _Work, bits: float) -> bool:
    if work.wanted is None:
        return False
    least, most = (share * work.wanted for share in TOLERANCE)
    return not least - _LEAST_SLACK <= bits <= most + _LEAST_SLACK


def _coded(work: _Work, program_index: Callable[[bytes], int]) -> CodedSegment:
    """The segment in its final form. What a price decides on is coded again until it meets the target.

    Raises TargetError where it takes more than it may, or less.
    """
    coded = _code(work, program_index)
    if work.wanted is None:
        return coded
    attempts = 0 if isinstance(work.model, FrameModel) else _ATTEMPTS
    schedule = Schedule(_ATTEMPTS, work.effort.tuning_rate * 0.2, warm_up=0.0)
    for attempt in range(attempts):
        if not _misses(work, coded.bits):
            return coded
        assert work.importance is not None
        work.model.price = moved_price(work.model.price, coded.bits, AIM * work.wanted)
        follow_price(work.model, work.importance)
        work.model.epoch(work.optimiser, schedule, attempt, work.exactly(), True)
        work.figures.tuned = work.model.evaluate(work.exactly())
        coded = _code(work, program_index)
    if _misses(work, coded.bits):
        raise TargetError(
            f"the target of {work.wanted / 8:.0f} bytes cannot be met: it came to {len(coded.payload)} at last"
        )
    return coded


def _code(work: _Work, program_index: Callable[[bytes], int]) -> CodedSegment:
    """Entropy-code the segment, and rebuild its frames by the exact machine."""
    model, sizes, geometry = work.model, work.sizes, work.geometry
    traced = trace(model.module, sizes, work.effort.bits)
    symbols = latent_symbols(model.latents)
    tensors = SegmentTensors(
        {number: conv_symbols(layer, fraction) for number, (layer, fraction) in traced.convolutions.items()},
        fitted_scales(symbols, model.units, model.views, model.classes),
        symbols.grids,
    )
    gop = GOP if traced.program.refers else UNIT_FRAMES
    header = ImplicitHeader(program_index(traced.program.write()), gop)
    writer = ImplicitWriter(header, traced.program, tensors, geometry, sizes.frames, model.samples.device)
    made = model.code(writer)
    segment, figures = writer.segment, work.figures
    figures.weight_bits = segment.weight_bits
    figures.latent_bits = sum(segment.grid_bits.values()) + sum(sum(bits.latents) for bits in segment.unit_bits)
    figures.motion_bits = sum(sum(bits.motion) for bits in segment.unit_bits)
    exact = torch.stack([made[n] for n in range(sizes.frames)])
    reached = Epoch(float(distortion(exact / 1024 - 0.5, model.samples))).psnr
    if reached < figures.tuned - _WORST_MISMATCH:
        raise MismatchError(f"the exact frames come to {reached:.2f} dB, the model to {figures.tuned:.2f}")
    errors = plane_errors(exact, (model.samples + 0.5) * 1024, geometry.bit_depth)
    digest = FrameHash()
    for picture in exact:
        digest.add(output_planes(picture, geometry.width, geometry.height, geometry.bit_depth))
    return CodedSegment(writer.finish(), digest.digest(), float(psnr_611(errors).mean()))
