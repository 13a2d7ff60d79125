"""Coordinate descent on the residual symbols: errors and bits are what they are elsewhere."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from nvcodec.core.fixedpoint import Rounding
from nvcodec.core.gop import CodingUnit, coding_units
from nvcodec.core.quantiser import GAIN_STEPS
from nvcodec.encoder.distortion import CHROMA_WEIGHT, sample_weights
from nvcodec.encoder.rate import laplace_bits, level_costs
from nvcodec.entropy.context import ContextWeights
from nvcodec.entropy.symbols import SymbolWriter
from nvcodec.grid.coding import code_appearance
from nvcodec.grid.contexts import appearance_context
from nvcodec.grid.encoder import descent
from nvcodec.grid.encoder.descent import descended_levels
from nvcodec.grid.encoder.fit import GridFit, gain_index
from nvcodec.grid.levels import APPEARANCE_GAINS, Quantiser, empty_levels
from nvcodec.grid.side import AppearanceSide
from nvcodec.grid.wavelet import expand_grid
from nvcodec.motion.levels import SYMBOL_BOUND, FrameGeometry
from nvcodec.motion.unit import key_unit_inputs

GEOMETRY = FrameGeometry(70, 42)
DEPTH = 2
GAINS = torch.stack([torch.linspace(40, 90, APPEARANCE_GAINS), torch.linspace(30, 60, APPEARANCE_GAINS)])


@pytest.fixture(scope="module")
def context() -> ContextWeights:
    return appearance_context()


@pytest.fixture(scope="module")
def side() -> AppearanceSide:
    torch.manual_seed(1)
    shape = (2, 6, *GEOMETRY.half)
    return AppearanceSide((torch.rand(shape) * 1023).round(), (torch.randn(shape) * 20).round(), GEOMETRY)


def no_symbols() -> list[Tensor]:
    return empty_levels(2, GEOMETRY)


def bits(levels: list[Tensor], side: AppearanceSide, context: ContextWeights) -> float:
    return sum(float(r.bits.sum()) for r in level_costs(levels, side, context, DEPTH, free_empty=False)[0])


def error(levels: list[Tensor], rest: Tensor, weights: Tensor) -> float:
    return float(((expand_grid(levels, GAINS, Rounding.NONE) + rest).square() * weights).sum())


@pytest.mark.parametrize("spread", [0.0, 2.0])
def test_a_visit_lowers_the_cost(side: AppearanceSide, context: ContextWeights, spread: float) -> None:
    """Of all bits and the true error, also where its weight differs much; symbols far off move with every visit."""
    torch.manual_seed(5)
    rest = torch.nn.functional.interpolate(torch.randn(2, 6, 5, 9), size=GEOMETRY.half, mode="bicubic") * 100
    rest += torch.randn(rest.shape) * 20
    weights = torch.exp(torch.randn(2, 1, *rest.shape[2:]) * spread).expand_as(rest)
    lmbda = 500.0
    levels = no_symbols()
    costs = [error(levels, rest, weights) + lmbda * bits(levels, side, context)]
    for _ in range(2):
        levels = descended_levels(levels, GAINS, rest, weights, side, context, DEPTH, lmbda)
        costs.append(error(levels, rest, weights) + lmbda * bits(levels, side, context))
    assert costs[1] < 0.8 * costs[0]
    assert costs[2] < costs[1]


@pytest.mark.parametrize("place", [(0, 1, 5, 7), (1, 0, 0, 16), (2, 5, 4, 3), (4, 7, 0, 1), (4, 9, 0, 1)])
def test_a_lone_symbol_stays_for_what_it_is_worth(
    side: AppearanceSide, context: ContextWeights, place: tuple[int, int, int, int]
) -> None:
    """It goes if, and only if, its bits and those that it costs its surroundings are worth the error without it.

    The coarsest cells are cut by the border, and their weight is that of their samples in the mean.
    """
    level, channel, row, column = place
    levels = no_symbols()
    levels[level][0, channel, row, column] = 1
    lmbda = 1000.0
    saved = lmbda * (bits(levels, side, context) - bits(no_symbols(), side, context))
    assert saved > 0
    rest = -expand_grid(levels, GAINS, Rounding.NONE)
    margin = 1.25 if level < len(levels) - 1 else 1.8
    for share, stays in ((1 / margin, False), (margin, True)):
        weights = torch.full_like(rest, share * saved / float(rest.square().sum()))
        found = descended_levels(levels, GAINS, rest, weights, side, context, DEPTH, lmbda)
        assert bool(found[level][0, channel, row, column]) == stays


def test_symbols_stay_within_the_alphabet(side: AppearanceSide, context: ContextWeights) -> None:
    levels = [torch.full_like(level, SYMBOL_BOUND) for level in no_symbols()]
    rest = torch.full((2, 6, *GEOMETRY.half), -1e5)
    found = descended_levels(levels, GAINS, rest, torch.ones_like(rest), side, context, DEPTH, 1.0)
    assert max(float(level.abs().max()) for level in found) <= SYMBOL_BOUND


def test_each_symbol_knows_what_those_before_it_left(side: AppearanceSide, context: ContextWeights) -> None:
    """With weights that differ much and next to no price of bits, moves on stale slopes would raise the error."""
    torch.manual_seed(5)
    rest = torch.randn(2, 6, *GEOMETRY.half) * 40
    weights = torch.exp(torch.randn(2, 1, *GEOMETRY.half) * 2).expand_as(rest)
    found = descended_levels(no_symbols(), GAINS, rest, weights, side, context, DEPTH, 1.0)
    assert error(found, rest, weights) < 0.4 * error(no_symbols(), rest, weights)


def test_kept_bits_are_those_of_the_symbols(
    side: AppearanceSide, context: ContextWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a visit remembers of a symbol's bits holds after all moves that came later."""
    made: list[descent._Visit] = []
    visit = descent._Visit
    monkeypatch.setattr(descent, "_Visit", lambda *given: made.append(visit(*given)) or made[-1])
    torch.manual_seed(5)
    rest = torch.nn.functional.interpolate(torch.randn(2, 6, 5, 9), size=GEOMETRY.half, mode="bicubic") * 100
    rest += torch.randn(rest.shape) * 20
    levels = no_symbols()
    for _ in range(2):
        levels = descended_levels(levels, GAINS, rest, torch.ones_like(rest), side, context, DEPTH, 500.0)
    rates, checked = level_costs(levels, side, context, DEPTH, free_empty=False)[0], 0
    for k, (level, rate) in enumerate(zip(levels, rates, strict=True)):
        expected = laplace_bits(level, rate.location, rate.scale)
        for b in range(2):
            kept = torch.from_numpy(made[-1]._levels_of(made[-1]._bits)[k][b])
            known = kept >= 0
            checked += int(known.sum())
            assert torch.allclose(kept[known], expected[b][known], rtol=1e-3, atol=1e-3), k
    assert checked > 1000


# A unit


KEY: CodingUnit = coding_units(1, 1)[0]


def fitted(lmbda: float, importance: Tensor | None = None) -> GridFit:
    """The grid of a key frame at the steps that suit ``lmbda``, not yet begun."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(1, 6, 6, 9, generator=generator) * 1023
    target = torch.nn.functional.interpolate(coarse, size=GEOMETRY.half, mode="bicubic")
    target = (target + 30 * torch.randn(target.shape, generator=generator)).clamp(0, 1023).round()
    inputs = key_unit_inputs(KEY, GEOMETRY, torch.device("cpu"))
    gains = Quantiser().gains(gain_index(lmbda, 0))
    weights = torch.ones(1, *GEOMETRY.blocks) if importance is None else importance
    fit = GridFit(KEY, GEOMETRY, target, inputs, weights, appearance_context(), gains)
    fit.start(inputs.prediction)
    return fit


def made_of(fit: GridFit, levels: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Samples of a network that adds the residual to grey."""
    residual = expand_grid(levels, fit.gains)
    return 512 + residual, residual


def squared_error(fit: GridFit) -> Tensor:
    """(6, h, w): of 8-bit samples."""
    return ((made_of(fit, fit.levels)[0].clamp(0, 1023) - fit.target)[0] / 4).square()


def test_a_unit_costs_less_after_every_visit() -> None:
    lmbda = 60.0
    fit = fitted(lmbda)
    costs = []
    for _ in range(3):
        costs.append(float((squared_error(fit) * fit.weights[0]).sum()) + lmbda * fit.bits())
        fit.descend(partial(made_of, fit), lmbda)
    assert costs[1] < 0.97 * costs[0]
    assert costs[2] < costs[1]


def test_a_visit_of_the_finest_levels_leaves_the_others() -> None:
    fit = fitted(60.0)
    before = [level.clone() for level in fit.levels]
    fit.descend(partial(made_of, fit), 60.0, 2)
    assert [torch.equal(*pair) for pair in zip(before, fit.levels, strict=True)] == [False, False, True, True, True]


def test_what_a_unit_says_it_costs_is_what_is_written() -> None:
    fit = fitted(60.0)
    fit.descend(partial(made_of, fit), 60.0)
    writer = SymbolWriter()
    code_appearance(writer, fit.levels, fit.side, 1, KEY.depth, [])
    assert fit.bits() == pytest.approx(writer.bits, rel=0.01)


def test_what_the_network_adds_is_taken_as_given() -> None:
    """Where it makes up for all of the target nothing is left for the grid."""
    fit = fitted(60.0)
    before = sum(float(level.abs().sum()) for level in fit.levels)
    for _ in range(2):
        residual = expand_grid(fit.levels, fit.gains)
        fit.descend(lambda _, residual=residual: (fit.target + residual, residual), 60.0)
    assert sum(float(level.abs().sum()) for level in fit.levels) < 0.02 * before


def test_blocks_that_matter_more_get_less_error() -> None:
    importance = torch.ones(1, *GEOMETRY.blocks)
    importance[:, :, :4] = 16.0
    fit = fitted(200.0, importance)
    for _ in range(2):
        fit.descend(partial(made_of, fit), 200.0)
    errors = squared_error(fit).mean((0, 1))
    assert errors[20:].mean() > 1.5 * errors[:14].mean()


def test_steps_follow_lambda() -> None:
    indices = [[gain_index(lmbda, depth) for lmbda in (1.0, 4.0, 16.0, 64.0)] for depth in range(6)]
    assert all([b - a for a, b in pairwise(row)] == [8, 8, 8] for row in indices)  # twice the step, an octave
    assert [row[0] for row in indices] == sorted((row[0] for row in indices), reverse=True)
    assert indices[3:] == [indices[3]] * 3
    assert gain_index(1e-9, 0) == 0
    assert gain_index(1e12, 0) == GAIN_STEPS - 1


def test_chroma_counts_more_and_blocks_as_they_matter() -> None:
    importance = torch.arange(1.0, 1 + GEOMETRY.blocks[0] * GEOMETRY.blocks[1]).reshape(1, *GEOMETRY.blocks)
    weights = sample_weights(importance, GEOMETRY.half)
    assert weights.shape == (1, 6, *GEOMETRY.half)
    assert torch.equal(weights[:, 0], weights[:, 3])
    assert torch.allclose(weights[:, 4:], CHROMA_WEIGHT * weights[:, :2])
    assert weights[0, 0, 4, 7] == importance[0, 1, 1]
