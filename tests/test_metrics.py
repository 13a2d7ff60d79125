"""PSNR against figures worked out by hand, and its conventions."""

from __future__ import annotations

import math

import pytest
import torch

from nvcodec.core.errors import InputError
from nvcodec.core.frame import Frame
from nvcodec.core.metrics import PSNR_CAP_DB, FramePsnr, frame_psnr, mean_psnr, psnr, psnr_yuv_611


def flat(y: int, u: int, v: int, *, width: int = 6, height: int = 4, pts: int = 0) -> Frame:
    """A frame of one colour."""
    chroma = ((height + 1) // 2, (width + 1) // 2)
    planes = tuple(
        torch.full(size, value, dtype=torch.uint8) for size, value in (((height, width), y), (chroma, u), (chroma, v))
    )
    return Frame((planes[0], planes[1], planes[2]), pts)


def test_one_wrong_sample() -> None:
    a = torch.zeros(4, 4, dtype=torch.uint8)
    b = a.clone()
    b[1, 2] = 255
    assert psnr(a, b) == pytest.approx(10 * math.log10(16))


def test_uint8_differences_do_not_wrap() -> None:
    a, b = torch.tensor([[0, 255]], dtype=torch.uint8), torch.tensor([[255, 0]], dtype=torch.uint8)
    assert psnr(a, b) == psnr(b, a) == pytest.approx(0.0)


def test_large_planes_are_summed_exactly() -> None:
    a = torch.zeros(2048, 2048, dtype=torch.uint8)
    b = torch.full_like(a, 255)
    b[0, 0] = 254
    expected = 10 * math.log10(255**2 * 2**22 / ((2**22 - 1) * 255**2 + 254**2))
    assert psnr(a, b) == pytest.approx(expected, rel=1e-12)


def test_identical_planes_are_capped() -> None:
    a = torch.full((3, 5), 7, dtype=torch.uint8)
    assert psnr(a, a) == PSNR_CAP_DB == 100.0
    almost = a.double() + 1e-9
    assert psnr(a.double(), almost) == PSNR_CAP_DB


def test_peak_and_floats() -> None:
    a, b = torch.zeros(2, 2), torch.full((2, 2), 0.1)
    assert psnr(a, b, peak=1) == pytest.approx(20, abs=1e-5)


def test_shapes_must_agree() -> None:
    with pytest.raises(InputError, match=r"cannot compare \(2, 2\) with \(2, 3\)"):
        psnr(torch.zeros(2, 2), torch.zeros(2, 3))
    with pytest.raises(InputError, match="empty"):
        psnr(torch.zeros(0), torch.zeros(0))
    with pytest.raises(InputError, match="cannot compare"):
        psnr_yuv_611(flat(1, 2, 3), flat(1, 2, 3, width=8))


def test_planes_are_weighted_six_to_one_to_one() -> None:
    a, b = flat(100, 100, 100, pts=3), flat(101, 102, 104, pts=9)
    figures = frame_psnr(a, b)
    assert figures == pytest.approx(tuple(20 * math.log10(255 / error) for error in (1, 2, 4)))
    assert psnr_yuv_611(a, b) == pytest.approx((6 * figures.y + figures.u + figures.v) / 8)


def test_mean_is_over_decibels() -> None:
    mean = mean_psnr([FramePsnr(30, 40, 41), FramePsnr(34, 42, 43)])
    assert mean == FramePsnr(32, 41, 42)
    assert mean.yuv_611 == pytest.approx((192 + 41 + 42) / 8)
    with pytest.raises(InputError, match="no frames"):
        mean_psnr([])
