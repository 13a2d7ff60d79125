"""Objective quality: PSNR of planes and frames.

A video's figure is the *mean of its frames' figures in dB*, not the PSNR of the pooled error. The combined
figure weights Y, U and V as 6:1:1, the convention of the JCT-VC and JVET common test conditions for 4:2:0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch

from nvcodec.core.errors import InputError
from nvcodec.core.frame import Frame

__all__ = ["PSNR_CAP_DB", "FramePsnr", "frame_psnr", "mean_psnr", "psnr", "psnr_yuv_611"]

PSNR_CAP_DB = 100.0
"""Given for identical planes, where PSNR is infinite, so that means stay finite; nothing exceeds it."""


class FramePsnr(NamedTuple):
    """PSNR in dB of the three planes of a frame, or means of such figures over frames."""

    y: float
    u: float
    v: float

    @property
    def yuv_611(self) -> float:
        """(6 Y + U + V) / 8, in dB."""
        return (6 * self.y + self.u + self.v) / 8


def psnr(a: torch.Tensor, b: torch.Tensor, peak: float = 255) -> float:
    """PSNR in dB of two tensors of one shape, at most 100 dB.

    Integer tensors are compared exactly (int64 sums); floating-point ones in float64.

    Raises:
        InputError: the shapes differ, or the tensors are empty.
    """
    if a.shape != b.shape:
        raise InputError(f"cannot compare {tuple(a.shape)} with {tuple(b.shape)}")
    if a.numel() == 0:
        raise InputError("cannot compare empty planes")
    wide = torch.float64 if a.is_floating_point() or b.is_floating_point() else torch.int64
    difference = a.to(wide) - b.to(wide)
    squared_error = (difference * difference).sum().item()
    if squared_error == 0:
        return PSNR_CAP_DB
    return min(PSNR_CAP_DB, 10 * math.log10(peak * peak * a.numel() / squared_error))


def frame_psnr(a: Frame, b: Frame) -> FramePsnr:
    """PSNR in dB of each plane of two frames of one size and bit depth; the peak is 255, or 1023 with 10 bits.
    Timestamps do not matter.

    Raises:
        InputError: the sizes or depths differ.
    """
    if a.bit_depth != b.bit_depth:
        raise InputError(f"cannot compare {a.bit_depth} bits with {b.bit_depth}")
    peak = 2**a.bit_depth - 1
    y, u, v = (psnr(plane_a, plane_b, peak) for plane_a, plane_b in zip(a.planes, b.planes, strict=True))
    return FramePsnr(y, u, v)


def psnr_yuv_611(a: Frame, b: Frame) -> float:
    """6:1:1 PSNR in dB of two frames of one size; raises InputError when the sizes differ."""
    return frame_psnr(a, b).yuv_611


def mean_psnr(figures: Iterable[FramePsnr]) -> FramePsnr:
    """Mean over frames, in dB, plane by plane. Its ``yuv_611`` is the mean of the frames' ``yuv_611``.

    Raises:
        InputError: there are no figures.
    """
    rows = list(figures)
    if not rows:
        raise InputError("no frames to compare")
    y, u, v = (math.fsum(column) / len(rows) for column in zip(*rows, strict=True))
    return FramePsnr(y, u, v)
