"""Coordinate descent on the residual symbols: errors and bits are what they are elsewhere."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nvcodec.encoder import descent
from nvcodec.encoder.descent import descended_levels
from nvcodec.encoder.rate import laplace_bits, level_costs
from nvcodec.entropy.context import ContextWeights
from nvcodec.fixedpoint import Rounding
from nvcodec.model.base import starting_tensors
from nvcodec.model.grid import APPEARANCE_CHANNELS, APPEARANCE_GAINS, SYMBOL_BOUND, FrameGeometry, expand_grid
from nvcodec.model.network import Network, NetworkShape
from nvcodec.model.warprnn import AppearanceSide

GEOMETRY = FrameGeometry(70, 42)
DEPTH = 2
GAINS = torch.stack([torch.linspace(40, 90, APPEARANCE_GAINS), torch.linspace(30, 60, APPEARANCE_GAINS)])


@pytest.fixture(scope="module")
def context() -> ContextWeights:
    return Network(NetworkShape(8), starting_tensors(8)).context("appearance")


@pytest.fixture(scope="module")
def side() -> AppearanceSide:
    torch.manual_seed(1)
    shape = (2, 6, *GEOMETRY.half)
    return AppearanceSide((torch.rand(shape) * 1023).round(), (torch.randn(shape) * 20).round(), GEOMETRY)


def no_symbols() -> list[Tensor]:
    return [torch.zeros(2, c, *GEOMETRY.appearance_size(k)) for k, c in enumerate(APPEARANCE_CHANNELS)]


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
