"""Fitting frames that refer to others: unit by unit in coding order, each on what came out of those before.

An epoch is one pass over the units. Motion is searched on the frames as they came out of the same pass, from where the
pass before left it; then weights and latents take some steps; then the unit is made, with the latents rounded, and is
what later units refer to. Gradients stay within a unit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from nvcodec.core.errors import EncodeError
from nvcodec.core.gop import CodingUnit, last_uses
from nvcodec.encoder.rate import level_costs
from nvcodec.encoder.unit_motion_search import search_unit_motion
from nvcodec.exact.latents import Grid, Latent
from nvcodec.exact.operation import FrameInputs, slots
from nvcodec.exact.outputs import GREY, Correct, Store
from nvcodec.exact.simulation import Rounding, Simulation, simulate
from nvcodec.implicit.encoder.model import Epoch, Model, Schedule, distortion, error_scale
from nvcodec.implicit.encoder.rate import latent_bits, weight_bits
from nvcodec.implicit.encoder.steps import Importance
from nvcodec.implicit.latents import ReferenceView
from nvcodec.implicit.payload import ImplicitWriter
from nvcodec.implicit.unit import ImplicitState, UnitSymbols, motion_weights
from nvcodec.motion.compensation import FrameState
from nvcodec.motion.levels import BLEND_CHANNEL, MOTION_LEVELS, FrameGeometry, motion_layout
from nvcodec.motion.prediction import VECTOR_BOUND, MotionState
from nvcodec.motion.unit import UnitMotion
from nvcodec.motion.warp import Reference

__all__ = ["SequenceModel"]

_Act: TypeAlias = Callable[[int, CodingUnit, FrameInputs], float]
"""Works on a unit with what the module is given of it; returns what its latents cost."""

_SCALE = 2.0 * GREY
_LUMA_SHARE = 3
"""Of the distortion a third counts luma."""
_KEY_STEPS, _STEPS = 40, 8
"""Of the optimiser on a key frame and on another unit, each time it is visited."""
_KEY_WEIGHT, _DEPTH_FACTOR = 4.0, 1.6
"""Weight of a key frame's errors, and by how much less those of each depth weigh: what refers to them inherits them."""


class SequenceModel(Model):
    """``moves``: whether the module looks at motion."""

    classes = 2
    rate_factor = 0.5

    def __init__(
        self,
        module: nn.Module,
        latents: Sequence[Latent],
        samples: Tensor,
        units: list[CodingUnit],
        geometry: FrameGeometry,
        moves: bool,
    ) -> None:
        super().__init__(module, latents, samples, units)
        self.geometry, self.moves = geometry, moves
        self.motion = [_no_motion(unit, geometry) for unit in units]
        self._uses = last_uses(units)
        self._stores = sorted(layer.index for layer in module.modules() if isinstance(layer, Store))
        self._corrected = sorted(layer.slot for layer in module.modules() if isinstance(layer, Correct))

    def weight(self, unit: CodingUnit) -> float:
        """Of the errors of a unit's frames."""
        return max(_KEY_WEIGHT / _DEPTH_FACTOR**unit.depth, 0.5)

    @property
    def luma_samples(self) -> int:
        """Of a frame."""
        return 4 * self.samples[0, 0].numel()

    def price_of(self, lmbda: float) -> float:
        """The price of a bit where so many squared 8-bit errors of luma in a key frame are worth one."""
        return lmbda * self.weight(self.units[0]) / (_LUMA_SHARE * 256.0**2 * self.luma_samples)

    def _lmbda(self, unit: CodingUnit) -> float:
        """What motion is searched at: squared 8-bit errors of luma for a bit."""
        return max(self.price, 1e-12) * _LUMA_SHARE * 256.0**2 * self.luma_samples / self.weight(unit)

    def search(self, number: int, states: Mapping[int, FrameState]) -> UnitMotion | None:
        """The motion of a unit on given references, which later passes start from; None where nothing looks at it."""
        unit = self.units[number]
        if not self.moves or not unit.reference_count:
            return None
        targets = self.target(unit) * _SCALE + GREY
        even = torch.ones(len(unit.frames), *self.geometry.blocks)
        found = search_unit_motion(
            unit, targets, states, self.motion[number], motion_weights(), self.geometry, self._lmbda(unit), even, 1
        )
        self.motion[number] = found.levels
        self.views[number] = ReferenceView.of(found.inputs.prediction, found.inputs.difference)
        return found

    def target(self, unit: CodingUnit) -> Tensor:
        return self.samples[[frame.display for frame in unit.frames]]

    def inputs(self, unit: CodingUnit, motion: UnitMotion | None, states: Mapping[int, _Twin]) -> FrameInputs:
        """What the module is given of a unit, real numbers; motion without the module's own corrections."""
        which = range(unit.reference_count)
        device = self.samples.device
        made = FrameInputs(torch.tensor([frame.display for frame in unit.frames], device=device), depth=unit.depth)
        distances = [[frame.distances[k] for frame in unit.frames] for k in which]
        made.distances = slots([torch.tensor(of_slot, device=device) for of_slot in distances])
        references = [[states[frame.references[k]].states for frame in unit.frames] for k in which]
        made.states = slots([{n: torch.cat([s[n] for s in found]) for n in found[0]} for found in references])
        if motion is not None:
            fields = [torch.stack([state.fields[k] for state in motion.states]).to(device) for k in which]
            made.vectors = made.final_vectors = slots(fields)
            made.prediction = (motion.inputs.prediction - GREY) / _SCALE
            made.difference = motion.inputs.difference / _SCALE
            if len(fields) == 1:
                made.pictures = (made.prediction, None)
            else:  # first (1 + b) + second (1 - b) is twice the prediction, first - second the difference
                blend = (
                    motion.levels[0][:, BLEND_CHANNEL : BLEND_CHANNEL + 1]
                    .to(device)
                    .clamp(-1, 1)
                    .repeat_interleave(4, 2)
                    .repeat_interleave(4, 3)
                )
                blend = blend[..., : made.prediction.shape[2], : made.prediction.shape[3]]
                first = made.prediction + made.difference * (1 - blend) / 2
                made.pictures = (first, first - made.difference)
        return made

    def _visit(self, simulation: Simulation, act: _Act) -> Epoch:
        """One pass: ``act`` works on each unit before it is made."""
        states: dict[int, _Twin] = {}
        total, bits = 0.0, 0.0
        self.motion_bits = 0.0
        exactly = Simulation(simulation.bits, simulation.weights and Rounding.THROUGH, Rounding.THROUGH)
        for number, unit in enumerate(self.units):
            motion = self.search(number, {d: twin.frame for d, twin in states.items()})
            if motion is not None and motion.side is not None:
                rates, _ = level_costs(motion.levels, motion.side, motion_weights(), unit.depth)
                self.motion_bits += sum(float(rate.bits.sum()) for rate in rates)
            frame = self.inputs(unit, motion, states)
            bits += act(number, unit, frame)
            with torch.no_grad(), simulate(exactly):
                out = self.module(frame)
                total += float(distortion(out["samples"], self.target(unit))) * len(unit.frames)
            self._keep(unit, motion, out, states)
            for display in [d for d in states if self._uses[d] <= number]:
                del states[display]
        if not math.isfinite(total):
            raise EncodeError("the fit ran away: its error is no longer a number")
        return Epoch(total / len(self.samples), bits)

    def _keep(
        self, unit: CodingUnit, motion: UnitMotion | None, out: Mapping[str, Any], states: dict[int, _Twin]
    ) -> None:
        picture = torch.floor(out["samples"] * _SCALE + GREY + 0.5).clamp(0, 2 * GREY - 1)
        picture = picture[..., : self.samples.shape[2], : self.samples.shape[3]].contiguous()
        kept = {n: state.detach() for n, state in zip(self._stores, out.get("states", ()), strict=True)}
        given = zip(self._corrected, out.get("corrections", ()), strict=True)
        corrections = {slot: torch.floor(c.detach().cpu() + 0.5) for slot, c in given}
        for b, frame in enumerate(unit.frames):
            fields = motion.states[b].fields if motion is not None else ()
            if corrections and fields:
                moved = [f + corrections[k][b] if k in corrections else f for k, f in enumerate(fields)]
                fields = tuple(field.clamp(-VECTOR_BOUND, VECTOR_BOUND) for field in moved)
            state = FrameState(Reference(picture[b]), MotionState(fields, frame.distances if fields else ()))
            states[frame.display] = _Twin(state, {n: s[b : b + 1] for n, s in kept.items()})

    def epoch(
        self, optimiser: torch.optim.Adam, schedule: Schedule, number: int, simulation: Simulation, priced: bool
    ) -> Epoch:
        count = len(self.units)

        def act(place: int, unit: CodingUnit, frame: FrameInputs) -> float:
            schedule.apply(optimiser, (number + place / count) / schedule.epochs)
            target, bits = self.target(unit), 0.0
            with simulate(simulation):
                for _ in range(_STEPS if unit.reference_count else _KEY_STEPS):
                    loss = distortion(self.module(frame)["samples"], target) * len(unit.frames) * self.weight(unit)
                    of_latents = self._latent_bits(frame.numbers)
                    bits = float(of_latents.detach())
                    loss = loss + self.price * of_latents
                    if priced:
                        loss = loss + self.price / count * torch.stack([weight_bits(x) for x in self.layers]).sum()
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()
            return bits

        return self._visit(simulation, act)

    def time_an_epoch(self, optimiser: torch.optim.Adam) -> float:
        units, before = self.units, self.motion
        self.units, self.motion = units[:2], list(before)
        for _ in range(2):  # the first one is slower
            start = time.monotonic()
            self.epoch(optimiser, Schedule(1, 0.0), 0, Simulation(), False)
        steps = [_STEPS if unit.reference_count else _KEY_STEPS for unit in units]
        taken = (time.monotonic() - start) * sum(steps) / sum(steps[: len(self.units)])
        self.units, self.motion = units, before
        return taken

    def _latent_bits(self, numbers: Tensor) -> Tensor:
        """Of the latents of some frames; of a grid their share."""
        total = torch.zeros((), device=self.samples.device)
        for latent in self.latents:
            if isinstance(latent, Grid):
                share = len(numbers) / len(self.samples)
                total = total + latent_bits(latent, latent.rounded(latent.values)) * share
            elif latent.count:
                total = total + latent_bits(latent, latent.rounded(latent.values[numbers]))
        return total

    def evaluate(self, simulation: Simulation) -> float:
        def act(number: int, unit: CodingUnit, frame: FrameInputs) -> float:
            if simulation.observe:
                with torch.no_grad(), simulate(simulation):
                    self.module(frame)
            return 0.0

        return self._visit(simulation, act).psnr

    def sensitivity(self) -> Importance:
        weights = [torch.zeros_like(layer.weight) for layer in self.layers]
        latents = [0.0 for _ in self.latents]

        def act(number: int, unit: CodingUnit, frame: FrameInputs) -> float:
            self.module.zero_grad()
            made = self.module(frame)["samples"]
            signs = torch.randint(0, 2, made.shape, generator=torch.Generator().manual_seed(number)) * 2.0 - 1
            scale = error_scale(made) * math.sqrt(self.weight(unit) * len(unit.frames))
            (made * signs.to(made) * scale).sum().backward()
            for total, layer in zip(weights, self.layers, strict=True):
                if layer.weight.grad is not None:
                    total += layer.weight.grad.square()
            for k, latent in enumerate(self.latents):
                if latent.values.grad is not None and latent.count:
                    is_grid = isinstance(latent, Grid)
                    by_symbol = latent.values.grad if is_grid else latent.values.grad[frame.numbers]
                    share = 1.0 if is_grid else 1 / len(self.units)
                    latents[k] += float(by_symbol.square().mean()) * 4.0**latent.step_bits * share
            return 0.0

        self._visit(Simulation(), act)
        self.module.zero_grad()
        return Importance(weights, latents)

    def settle(self) -> None:
        """Latents are numbers of their own from the beginning."""

    def state(self) -> dict[str, Any]:
        return super().state() | {"motion": self.motion}

    def restore(self, state: dict[str, Any], is_settled: bool) -> None:
        super().restore(state, is_settled)
        self.motion = state["motion"]

    def code(self, writer: ImplicitWriter) -> dict[int, Tensor]:
        made: dict[int, Tensor] = {}
        for number, unit in enumerate(self.units):
            known: Mapping[int, ImplicitState] = writer.segment.states
            motion = self.search(number, {display: state.frame for display, state in known.items()})
            numbers = [frame.display for frame in unit.frames]
            levels = [latent.symbols().cpu()[numbers] for latent in self.latents if not isinstance(latent, Grid)]
            states = writer.code(UnitSymbols(levels, motion.levels if motion else []))
            made |= {display: state.frame.appearance.packed for display, state in states.items()}
        self.motion_bits = sum(sum(bits.motion) for bits in writer.segment.unit_bits)
        return made


class _Twin:
    """What a frame of the twin hands on: picture and motion, and real-valued states."""

    def __init__(self, frame: FrameState, states: dict[int, Tensor]) -> None:
        self.frame, self.states = frame, states


def _no_motion(unit: CodingUnit, geometry: FrameGeometry) -> list[Tensor]:
    if not unit.reference_count:
        return []
    return [
        torch.zeros(len(unit.frames), len(motion_layout(unit.reference_count, k)), *geometry.motion_size(k))
        for k in range(MOTION_LEVELS)
    ]
