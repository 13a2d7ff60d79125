"""Fit the grid of a coding unit, and with it the network, by direct rate-distortion optimisation.

Symbols are integers throughout. In every iteration the gradient of the distortion and its curvature predict
what moving a symbol would do; a random half of the symbols take the neighbouring value with the lowest
rate-distortion cost. The network takes an Adam step on the same integers. No rounding is simulated, so
what is optimised is what is coded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from nvcodec.encoder.decisions import best_symbols
from nvcodec.encoder.descent import descended_levels
from nvcodec.encoder.rate import LevelRate, level_costs
from nvcodec.encoder.transform import amplitudes, symbol_energies
from nvcodec.encoder.twin import Twin
from nvcodec.gop import CodingUnit
from nvcodec.model.grid import SYMBOL_BOUND, FrameGeometry, channel_gains, expand_grid
from nvcodec.model.network import cell_kind
from nvcodec.model.unit import Grid
from nvcodec.model.warp import SAMPLE_MAX
from nvcodec.model.warprnn import AppearanceSide, Compensated, MotionSide
from nvcodec.parallel import beside

__all__ = ["FitSettings", "UnitFit", "UnitResult", "context_sensitivity"]

SAMPLE_STEP = 4.0
"""Working samples have 10 bits: four steps are one 8-bit grey level."""


_DESCENTS = 2
"""Visits of every symbol after the moves of many."""
_LEAST_ENERGY = 0.05
"""Of a symbol, in the curvature: high samples behind the end of a line of odd length have none at all."""
_RESTRAINT = 2.0
"""By how much moves are damped more after some that overshot."""
_DEAD_ZONE = 0.66
"""Of a quantiser step: smaller coefficients start as zero."""


@dataclass(frozen=True)
class FitSettings:
    """``lmbda``: squared 8-bit error per bit. ``iterations``: of symbols and network together. ``through_cell``:
    whether the symbols' gradients go back through the cell; otherwise what the cell adds is taken as given."""

    lmbda: float
    iterations: int
    train_network: bool = True
    through_cell: bool = True
    share: float = 0.55
    damping: float = 1.2


@dataclass
class UnitResult:
    """Of each frame of a unit, (B,): weighted squared error (8-bit), and bits."""

    error: Tensor
    bits: Tensor


CHROMA_WEIGHT = 2.6
"""Weight of chroma errors. The 6:1:1 mean of PSNRs asks for 2/3 of the ratio of luma's squared error to chroma's,
which is 3 to 4 in most videos."""
_BLOCK_BITS = 2
"""A block has 2**_BLOCK_BITS samples of the working domain on a side."""


def _sample_weights(importance: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 6, *size): weight of the squared error of each working sample; ``importance``: (B, block rows, columns)."""
    rows, columns = size
    dense = importance.repeat_interleave(1 << _BLOCK_BITS, 1).repeat_interleave(1 << _BLOCK_BITS, 2)
    dense = dense[:, None, :rows, :columns]
    return torch.cat([dense.expand(-1, 4, -1, -1), CHROMA_WEIGHT * dense.expand(-1, 2, -1, -1)], dim=1)


def _level_importance(importance: Tensor, level: int, size: tuple[int, int]) -> Tensor:
    """(B, 1, *size): importance where each sample of an appearance level lies, the mean of the blocks around it."""
    cells = importance[:, None]
    if level > _BLOCK_BITS:
        cells = F.avg_pool2d(cells, 1 << (level - _BLOCK_BITS), ceil_mode=True)
    around = F.avg_pool2d(F.pad(cells, (1, 1, 1, 1), mode="replicate"), 3, 1)
    repeats = 1 << max(_BLOCK_BITS - level, 0)
    return around.repeat_interleave(repeats, 2).repeat_interleave(repeats, 3)[:, :, : size[0], : size[1]]


def context_sensitivity(
    twin: Twin, kind: str, levels: list[Tensor], side: AppearanceSide | MotionSide, depth: int
) -> dict[str, Tensor]:
    """Bits lost per squared unit of a context model's parameters: the Fisher information of the symbols, by one random
    probe."""
    names = [n for n in twin.values if n.startswith(f"context.{kind}.")]
    signs = [torch.randint(0, 2, level.shape, device=level.device) * 2.0 - 1 for level in levels]
    _, slopes = level_costs(levels, side, twin.network().context(kind), depth, slopes=True, signs=signs)
    assert slopes is not None
    return {
        n: g.reshape(twin.values[n].shape).square() * (0.5 * math.log(2))
        for n, g in zip(names, slopes.parameters, strict=True)
    }


class UnitFit:
    """The grid of one unit while it is being fitted."""

    def __init__(
        self,
        unit: CodingUnit,
        geometry: FrameGeometry,
        target: Tensor,
        inputs: Compensated,
        importance: Tensor,
    ) -> None:
        """``target``: (B, 6, h, w) source samples with 10 bits.
        ``importance``: (B, block rows, block columns), weight of the errors of each block."""
        self.unit = unit
        self.target = target
        self.inputs = inputs
        self.levels = Grid.zeros(unit, geometry, target.device).appearance
        self.importance = importance
        self.weights = _sample_weights(importance, geometry.half)
        self.side = AppearanceSide(inputs.prediction, inputs.difference, geometry)

    def start(self, twin: Twin) -> None:
        """Begin with the transform of the prediction's error, every symbol rounded towards zero."""
        gains = twin.network().gains(self.unit.depth).detach()
        goal = amplitudes(self.target - self.inputs.prediction)
        levels = [level / channel_gains(gains, k) for k, level in enumerate(goal)]
        rounded = [torch.sign(x) * torch.floor(x.abs() + 1 - _DEAD_ZONE) for x in levels]
        self.levels = [x.clamp(-SYMBOL_BOUND, SYMBOL_BOUND) for x in rounded]

    def run(self, twin: Twin, settings: FitSettings) -> UnitResult:
        """Optimise the levels in place (and the network behind ``twin``).

        Moves that overshoot are taken back: when the cost rises, the best symbols so far return and the curvature is
        taken for larger. Where the importance of blocks differs much, the bands are far from orthogonal.
        """
        kind = cell_kind(self.unit.depth)
        best_cost, best = float("inf"), self.levels
        damping = settings.damping
        for _ in range(settings.iterations):
            with beside(partial(self._rates, twin, settings.train_network)) as priced:
                leaves = [level.detach().requires_grad_() for level in self.levels]
                error = self._error(twin, leaves, settings.through_cell).sum()
                parameters = twin.synthesis[kind] if settings.train_network else []
                gradients = torch.autograd.grad(error, [*leaves, *parameters])
            rates, neighbours = priced.result()
            cost = float(error.detach()) + settings.lmbda * sum(float(r.bits.sum()) for r in rates)
            if cost > best_cost * 1.01:
                self.levels, damping = best, _RESTRAINT * damping
                continue
            if cost < best_cost:
                best_cost, best = cost, self.levels
            if settings.train_network:
                twin.step_synthesis(kind, gradients[len(leaves) :], settings.lmbda)
            curvature = self._curvature(twin, damping)
            slopes = [g + settings.lmbda * n for g, n in zip(gradients, neighbours, strict=False)]
            self.levels = best_symbols(self.levels, slopes, curvature, rates, settings.lmbda, settings.share)
        self._descend(twin, settings.lmbda)
        result = self.measure(twin)
        if float(result.error.sum() + settings.lmbda * result.bits.sum()) > best_cost:
            self.levels = best
            result = self.measure(twin)
        return result

    @torch.no_grad()
    def _descend(self, twin: Twin, lmbda: float) -> None:
        network = twin.network()
        gains = network.gains(self.unit.depth).detach()
        for _ in range(_DESCENTS):
            samples = self._synthesise(twin, self.levels)
            rest = samples - expand_grid(self.levels, gains, twin.rounding) - self.target
            self.levels = descended_levels(
                self.levels, gains, rest, self.weights * (1 / SAMPLE_STEP**2), self.side,
                network.context("appearance"), self.unit.depth, lmbda,
            )  # fmt: skip

    @torch.no_grad()
    def measure(self, twin: Twin) -> UnitResult:
        """Error and bits of the present integers."""
        rates, _ = level_costs(self.levels, self.side, twin.network().context("appearance"), self.unit.depth)
        return UnitResult(self._error(twin, self.levels), torch.stack([r.bits for r in rates]).sum(0))

    @torch.no_grad()
    def samples(self, twin: Twin) -> Tensor:
        """The reconstruction (B, 6, h, w) as references hold it: integers 0 .. 1023."""
        return torch.floor(self._synthesise(twin, self.levels) + 0.5).clamp(0, SAMPLE_MAX)

    def _error(self, twin: Twin, levels: list[Tensor], through_cell: bool = True) -> Tensor:
        samples = self._synthesise(twin, levels, through_cell)
        return ((samples - self.target).square() * self.weights).flatten(1).sum(1) * (1 / SAMPLE_STEP**2)

    def _synthesise(self, twin: Twin, levels: list[Tensor], through_cell: bool = True) -> Tensor:
        network, inputs = twin.network(), self.inputs
        residual = expand_grid(levels, network.gains(self.unit.depth), twin.rounding)
        seen = residual if through_cell else residual.detach()
        samples = network.cell(seen, inputs.prediction, inputs.difference, self.unit.depth, twin.rounding, twin.dtype)
        return samples if through_cell else samples + (residual - seen)

    def _rates(self, twin: Twin, train: bool) -> tuple[list[LevelRate], list[Tensor]]:
        """Rates of all levels, and what a step of each symbol adds to the bits of the symbols that it is context of."""
        context = twin.network().context("appearance")
        rates, slopes = level_costs(
            self.levels, self.side, context, self.unit.depth, free_empty=False, slopes=True, learns=train
        )
        assert slopes is not None
        if train:
            twin.step_context("appearance", slopes.parameters)
        return rates, slopes.symbols

    def sensitivity(self, twin: Twin, lmbda: float) -> dict[str, Tensor]:
        """Bits lost per squared unit of each parameter, one random probe (Hutchinson's estimator)."""
        samples = self._synthesise(twin, self.levels)
        signs = torch.randint(0, 2, samples.shape, device=samples.device) * 2.0 - 1
        probe = (samples * signs * self.weights.sqrt()).sum() * (1 / SAMPLE_STEP)
        leaves = {n: twin.values[n] for n in twin.synthesis_names(cell_kind(self.unit.depth))}
        found = dict(zip(leaves, torch.autograd.grad(probe, list(leaves.values())), strict=True))
        result = {name: g.square() / lmbda for name, g in found.items()}
        result.update(context_sensitivity(twin, "appearance", self.levels, self.side, self.unit.depth))
        return result

    @torch.no_grad()
    def _curvature(self, twin: Twin, factor: float) -> list[Tensor]:
        """``factor`` times the second derivative of the error by each symbol, of the shape of the levels.

        The bands are all but orthogonal, so each symbol counts for itself; the cell's own gain is left to ``factor``.
        """
        gains = twin.network().gains(self.unit.depth)
        energies = symbol_energies((self.target.shape[2], self.target.shape[3]))
        result = []
        for k, level in enumerate(self.levels):
            gain = channel_gains(gains, k).flatten()
            plane = torch.ones_like(gain)
            if k:
                plane[3:9] = CHROMA_WEIGHT
                plane[10:] = CHROMA_WEIGHT
            channels = (2 * factor / SAMPLE_STEP**2 * gain.square() * plane).reshape(1, -1, 1, 1)
            place = _level_importance(self.importance, k, (level.shape[2], level.shape[3]))
            result.append((channels * place * energies[k].clamp(min=_LEAST_ENERGY).to(place.device)).contiguous())
        return result
