"""What symbols cost: compiled code says what autograd says of the same formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tensor_versions import costs_by_autograd
from torch import Tensor

from nvcodec.core.fixedpoint import Rounding
from nvcodec.core.parallel import thread_limit
from nvcodec.encoder.power_kernels import exp2, log2
from nvcodec.encoder.rate import level_costs
from nvcodec.entropy import context as entropy_context
from nvcodec.entropy.context import ContextWeights
from nvcodec.hybrid.base import starting_tensors
from nvcodec.hybrid.network import Network, NetworkShape
from nvcodec.motion.levels import MOTION_LEVELS, FrameGeometry, motion_layout
from nvcodec.motion.side import MotionSide

GEOMETRY = FrameGeometry(280, 168)
DEPTH = 2
REFERENCES = 2


@pytest.fixture(scope="module")
def context() -> ContextWeights:
    return Network(NetworkShape(8), starting_tensors(8)).context()


@pytest.fixture
def side() -> MotionSide:
    torch.manual_seed(1)
    disagreement, predicted = torch.rand(2, 1, *GEOMETRY.blocks) * 1023, torch.randn(2, 2, *GEOMETRY.blocks) * 20
    return MotionSide(disagreement.round(), predicted.round(), REFERENCES, GEOMETRY)


@pytest.fixture
def levels() -> list[Tensor]:
    """Two frames with symbols here and there, one level of one frame empty."""
    torch.manual_seed(2)
    made = []
    for k in range(MOTION_LEVELS):
        shape = (2, len(motion_layout(REFERENCES, k)), *GEOMETRY.motion_size(k))
        made.append((torch.randn(shape) * 3).round() * (torch.rand(shape) < 0.1))
    made[1][1] = 0
    return made


def close(one: Tensor, other: Tensor, share: float) -> bool:
    """Whether two tensors differ, in the mean, by less than ``share`` of what they are."""
    return one.shape == other.shape and bool((one - other).abs().mean() <= share * other.abs().mean() + 1e-6)


@pytest.mark.parametrize("free_empty", [False, True])
@pytest.mark.parametrize("with_signs", [False, True])
def test_compiled_costs_are_those_of_autograd(
    levels: list[Tensor],
    side: MotionSide,
    context: ContextWeights,
    free_empty: bool,
    with_signs: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The compiled code takes the logarithms of the features from the decoder's table; here all do so."""
    smooth = entropy_context.log_feature
    monkeypatch.setattr(entropy_context, "log_feature", lambda x, _: smooth(x, Rounding.EXACT))
    signs = [torch.randint(0, 2, x.shape) * 2.0 - 1 for x in levels] if with_signs else None
    options = {"free_empty": free_empty, "slopes": True, "signs": signs}
    rates, slopes = level_costs(levels, side, context, DEPTH, **options)
    expected, by_autograd = costs_by_autograd(levels, side, context, DEPTH, *options.values())
    assert slopes is not None
    assert by_autograd is not None
    for one, other in zip(rates, expected, strict=True):
        assert close(one.bits, other.bits, 1e-4)
        assert close(one.location, other.location, 1e-3)
        assert close(one.scale, other.scale, 1e-4)
    for one, other in zip(slopes, by_autograd, strict=True):
        assert close(one, other, 2e-3)
    if free_empty:
        assert rates[1].bits[1] == 1


def test_two_threads_give_what_one_gives(levels: list[Tensor], side: MotionSide, context: ContextWeights) -> None:
    results = []
    for threads in (1, 2):
        with thread_limit(threads):
            rates, slopes = level_costs(levels, side, context, DEPTH, slopes=True)
        assert slopes is not None
        results.append([*(r.bits for r in rates), *slopes])
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_compiled_powers_and_logarithms_are_those_of_float64() -> None:
    power = np.random.default_rng(0).uniform(-125, 60, 5000).astype(np.float32)
    exact = 2.0 ** power.astype(np.float64)
    found = np.array([exp2(x) for x in power], np.float64)
    assert np.abs(found / exact - 1).max() < 3e-7
    assert float(exp2(np.float32(-1e6))) == 2.0**-126
    number = np.concatenate([exact, np.linspace(0.5, 2, 5000)]).astype(np.float32)
    assert max(abs(log2(x) - np.log2(np.float64(x))) for x in number) < 1e-6
