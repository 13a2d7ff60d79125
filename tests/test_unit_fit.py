"""The residual symbols of one coding unit."""

from __future__ import annotations

import pytest
import torch

from nvcodec.encoder.fit import FitSettings, UnitFit
from nvcodec.encoder.twin import Twin
from nvcodec.gop import coding_units
from nvcodec.model.base import starting_tensors
from nvcodec.model.grid import FrameGeometry
from nvcodec.model.network import NetworkShape
from nvcodec.model.unit import key_unit_inputs

GEOMETRY = FrameGeometry(128, 96)
LAMBDA = 300.0


def costs(seed: int, spread: float, iterations: int) -> tuple[float, float]:
    """What a noisy key frame costs after its start and after the fit; ``spread``: of the logarithm of importance."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 6, 12, 16, generator=generator) * 1023
    target = torch.nn.functional.interpolate(coarse, size=GEOMETRY.half, mode="bicubic").clamp(0, 1023)
    target = (target + 30 * torch.randn(target.shape, generator=generator)).clamp(0, 1023)
    importance = torch.exp(torch.randn(1, *GEOMETRY.blocks, generator=generator) * spread)
    importance /= importance.log().mean().exp()
    unit = coding_units(1, 1)[0]
    twin = Twin(NetworkShape(8), starting_tensors(8))
    twin.shift_gains(30)
    fit = UnitFit(unit, GEOMETRY, target, key_unit_inputs(unit, GEOMETRY, torch.device("cpu")), importance)
    fit.start(twin)
    torch.manual_seed(0)
    results = fit.measure(twin), fit.run(twin, FitSettings(LAMBDA, iterations, train_network=False, through_cell=False))
    before, after = (float(r.error.sum() + LAMBDA * r.bits.sum()) for r in results)
    return before, after


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.5, 3.0])
def test_a_fit_never_ends_dearer_than_it_began(spread: float) -> None:
    before, after = costs(1, spread, 3)
    assert after <= before


def test_moves_that_overshoot_do_not_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the importance of blocks differs much, the first moves raise the cost: later, smaller ones shall not.

    Without the descent, which would make up for it.
    """
    monkeypatch.setattr(UnitFit, "_descend", lambda self, twin, lmbda: None)
    before, after = costs(2, 1.5, 16)
    assert after < 0.99 * before
