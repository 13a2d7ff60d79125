"""The temporal filter: noise goes, what moves stays, and frames without kin are left alone."""

from __future__ import annotations

import pytest
import torch

from nvcodec.encoder.temporal_filter import filtered_frames
from nvcodec.motion.levels import FrameGeometry
from nvcodec.motion.warp import Reference

GEOMETRY = FrameGeometry(96, 64)
LAMBDA = 200.0
NOISE = 16.0
"""Of 10-bit samples, about what a camera adds."""


def scene(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 6, 8, 12, generator=generator) * 823 + 100
    return torch.nn.functional.interpolate(coarse, size=GEOMETRY.half, mode="bicubic")[0].clamp(0, 1023).round()


def moving(count: int, vector: tuple[int, int]) -> torch.Tensor:
    """(count, 6, h, w): a scene that moves by so many quarter luma samples a frame."""
    source = Reference(scene(1))
    steps = torch.tensor(vector, dtype=torch.float32)[:, None, None].expand(-1, *GEOMETRY.blocks)
    return torch.stack([source.warp(steps * n) for n in range(count)])


def noisy(clean: torch.Tensor) -> torch.Tensor:
    noise = NOISE * torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    return (clean + noise).round().clamp(0, 1023)


@pytest.mark.parametrize("vector", [(0, 0), (6, -10)])
def test_noise_goes_and_motion_stays(vector: tuple[int, int]) -> None:
    clean = moving(5, vector)
    source = noisy(clean)
    out = filtered_frames(source, [2], GEOMETRY, LAMBDA)[2]
    before, after = (float((x - clean[2])[:4].square().mean()) for x in (source[2], out))
    assert after < 0.65 * before
    assert torch.equal(out, out.round())


def test_chroma_stays_as_it_is() -> None:
    source = noisy(moving(3, (0, 0)))
    out = filtered_frames(source, [1], GEOMETRY, LAMBDA)[1]
    assert torch.equal(out[4:], source[1, 4:])
    assert not torch.equal(out[:4], source[1, :4])


def test_other_pictures_have_no_part() -> None:
    source = torch.stack([scene(3), scene(4), scene(5)])
    out = filtered_frames(source, [1], GEOMETRY, LAMBDA)[1]
    assert float((out - source[1]).abs().mean()) < 1


def test_frames_at_the_ends_use_what_there_is() -> None:
    source = noisy(moving(2, (0, 0)))
    for number, out in filtered_frames(source, [0, 1], GEOMETRY, LAMBDA).items():
        assert not torch.equal(out, source[number])
    (alone,) = filtered_frames(source[:1], [0], GEOMETRY, LAMBDA).values()
    assert torch.equal(alone, source[0])


def test_the_finer_the_less_is_filtered() -> None:
    source = noisy(moving(5, (0, 0)))
    change = [
        float((filtered_frames(source, [2], GEOMETRY, lmbda)[2] - source[2]).abs().mean())
        for lmbda in (2.0, 20.0, 200.0)
    ]
    assert change == sorted(change)
    assert change[0] < change[-1]
    assert filtered_frames(source, [2], GEOMETRY, 0.5) == {}
