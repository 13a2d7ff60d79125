"""What the context models see besides symbols, and merged motion: compiled code gives what tensor operations give."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensor_versions
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcodec.core.fixedpoint import Rounding
from nvcodec.entropy.context import log_feature
from nvcodec.motion import prediction, side

SEEDS, SIDES = st.integers(0, 2**32 - 1), st.integers(1, 13)


def integers(seed: int, bound: int, shape: Sequence[int]) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(-bound, bound + 1, shape)).float()


@settings(max_examples=40, deadline=None)
@given(SEEDS, SIDES, SIDES)
def test_gradient(seed: int, rows: int, columns: int) -> None:
    planes = integers(seed, 1023, (2, 2, rows, columns))
    assert torch.equal(side.gradient(planes), tensor_versions.gradient(planes))


@settings(max_examples=40, deadline=None)
@given(SEEDS, SIDES, SIDES, st.integers(0, 4), st.booleans())
def test_pooled_logs(seed: int, rows: int, columns: int, level: int, is_more: bool) -> None:
    """Beyond the end of the table of logarithms too."""
    plane = integers(seed, 4 * 2046, (2, 1, rows, columns)).abs()
    pooled = tensor_versions.pool(plane, level)
    more = integers(seed + 1, 300, pooled.shape).abs() if is_more else None
    expected = log_feature(pooled if more is None else pooled + more, Rounding.EXACT)
    assert torch.equal(side.pooled_logs(plane, level, more), expected)


@settings(max_examples=40, deadline=None)
@given(SEEDS, SIDES, SIDES, st.sampled_from([(3, 3), (5, 4), (6, 5), (3, 9), (9, 12)]), st.sampled_from([1, 127]))
def test_parent(seed: int, rows: int, columns: int, channels: tuple[int, int], bound: int) -> None:
    coarser = integers(seed, bound, (2, channels[1], (rows + 1) // 2, (columns + 1) // 2))
    found = side.parent_logs([coarser], channels[0], (rows, columns), 2)
    assert torch.equal(found, tensor_versions.parent(coarser, channels[0], (rows, columns)))


@settings(max_examples=40, deadline=None)
@given(SEEDS, SIDES, SIDES, st.sampled_from([2, 4]))
def test_merged_motion(seed: int, rows: int, columns: int, count: int) -> None:
    """Choices outside of -1 .. 2 name the corner."""
    total = integers(seed, 200, (2, count, (rows + 1) // 2, (columns + 1) // 2))
    level = integers(seed + 1, 3, (2, count + 2, rows, columns))
    expected = tensor_versions.merged(total, level[:, count]) + level[:, :count]
    assert torch.equal(prediction.grid_vectors([level, total]), expected)
    assert torch.equal(prediction.grid_vectors([level[1], total[1]]), expected[1])
    found = prediction.merge_unrest([total], (rows, columns))
    assert torch.equal(found, tensor_versions.unrest(total, (rows, columns)))
