"""The blocks of one coding unit, and the cell behind them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nvcodec.core.gop import CodingUnit, coding_units
from nvcodec.entropy.symbols import SymbolWriter
from nvcodec.hybrid.base import starting_tensors
from nvcodec.hybrid.blocks.picture import BinModels
from nvcodec.hybrid.encoder.fit import FitSettings, UnitFit
from nvcodec.hybrid.encoder.twin import Twin
from nvcodec.hybrid.network import Network, NetworkShape
from nvcodec.hybrid.unit import UnitSymbols, code_unit, rebuild_blocks
from nvcodec.motion.compensation import Compensated
from nvcodec.motion.levels import FrameGeometry
from nvcodec.motion.unit import key_unit_inputs

GEOMETRY = FrameGeometry(123, 90)
LAMBDA = 60.0
MODES = (3, 2, 2, 2)
KEY: CodingUnit = coding_units(1, 1)[0]


def picture(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 6, 12, 16, generator=generator) * 1023
    target = torch.nn.functional.interpolate(coarse, size=GEOMETRY.half, mode="bicubic").clamp(0, 1023)
    return (target + 30 * torch.randn(target.shape, generator=generator)).clamp(0, 1023).round()


def twin() -> Twin:
    made = Twin(NetworkShape(8), starting_tensors(8), torch.float32)
    made.shift_gains(16)
    made.set_learning(0.3)
    return made


def importance(seed: int, spread: float) -> torch.Tensor:
    """``spread``: of its logarithm."""
    found = torch.exp(torch.randn(1, *GEOMETRY.blocks, generator=torch.Generator().manual_seed(seed)) * spread)
    return found / found.log().mean().exp()


def fitted(spread: float = 0.0, lmbda: float = LAMBDA, iterations: int = 0) -> tuple[UnitFit, Twin, BinModels]:
    inputs = key_unit_inputs(KEY, GEOMETRY, torch.device("cpu"))
    fit, learner, models = UnitFit(KEY, GEOMETRY, picture(1), inputs, importance(2, spread)), twin(), BinModels()
    torch.manual_seed(0)
    return fit, run(fit, learner, models, FitSettings(lmbda, iterations, MODES, splits_empty=False)), learner, models


def run(fit: UnitFit, learner: Twin, models: BinModels, settings: FitSettings) -> list[float]:
    bits = fit.search(learner.network().gain(fit.unit.depth), models, settings)
    fit.learn(learner, settings)
    return bits


@pytest.mark.parametrize("spread", [0.0, 1.5])
def test_what_was_fitted_is_what_is_coded(spread: float) -> None:
    """Its bits, the probabilities behind it, and the picture that a decoder makes of it."""
    fit, bits, learner, models = fitted(spread)
    network = Network(learner.shape, {name: value.detach().round() for name, value in learner.values.items()})
    coded, writer = BinModels(), SymbolWriter()
    code_unit(writer, network, KEY, {}, GEOMETRY, coded, UnitSymbols([], fit.blocks))
    assert sum(bits) == pytest.approx(writer.bits, rel=1e-5)
    assert all(map(np.array_equal, models.arrays, coded.arrays))
    assert not np.array_equal(models.at(0), BinModels().at(0))
    assert torch.equal(rebuild_blocks(network, KEY, fit.inputs, fit.blocks, fit.layout), fit.rebuilt)


def test_blocks_that_matter_more_get_smaller_steps_and_less_error() -> None:
    fit, *_ = fitted(0.0)
    assert len(np.unique(fit.blocks[0].offsets)) == 1
    weights = torch.ones(1, *GEOMETRY.blocks)
    weights[:, :, :8] = 8.0
    uneven = UnitFit(KEY, GEOMETRY, picture(1), fit.inputs, weights)
    run(uneven, twin(), BinModels(), FitSettings(LAMBDA, 0, MODES, splits_empty=False))
    offsets = uneven.blocks[0].offsets
    assert offsets[:, 2:].min() >= offsets[:, :2].max() + 6  # half of 8 * log2(8)
    errors = (uneven.rebuilt - uneven.target).square().mean((0, 1, 2))
    assert errors[40:].mean() > 2 * errors[:30].mean()


def test_the_cell_learns_what_the_blocks_leave() -> None:
    before, after = (fitted(lmbda=600.0, iterations=count) for count in (0, 12))
    errors = [float((fit.samples(learner) - fit.target).square().mean()) for fit, _, learner, _ in (before, after)]
    assert errors[1] < errors[0]
    assert after[1] == before[1]


def test_frames_of_a_unit_are_searched_by_the_same_probabilities() -> None:
    """Side by side, each from where the unit begins; what they cost is by those that the frame before leaves."""
    unit = coding_units(5, 4)[-1]
    assert (len(unit.frames), unit.reference_count) == (2, 2)
    target = picture(3).repeat(2, 1, 1, 1)
    inputs = Compensated(target + 40 * (torch.arange(GEOMETRY.half[1]) > 30), torch.zeros_like(target))
    fit = UnitFit(unit, GEOMETRY, target, inputs, torch.ones(2, *GEOMETRY.blocks))
    models = BinModels()
    bits = run(fit, twin(), models, FitSettings(LAMBDA, 0, MODES, splits_empty=False))
    assert all(map(np.array_equal, *fit.blocks))
    assert bits[1] < bits[0]
    changed = [not np.array_equal(*pair) for pair in zip(models.arrays, BinModels().arrays, strict=True)]
    assert changed == [depth == unit.depth for depth in range(4)]
