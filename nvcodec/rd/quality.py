"""What a decoded frame is measured by, against the frame of the source.

::

    psnr_y, psnr_u, psnr_v   dB, peak 255 (1023 with 10 bits), of the planes; 100 dB for identical ones
    psnr_yuv_611             (6 Y + U + V) / 8 of the three, the weights of JCT-VC's common test conditions
    psnr_rgb                 dB, of the squared error of R, G and B together, both frames as 8-bit RGB
    ms_ssim                  of luma, 0 .. 1, five scales; none where a side is shorter than 161 samples
    ms_ssim_db               -10 log10(1 - ms_ssim), for curves and BD figures; at most 100 dB

The figure of a video is the mean of its frames' figures; ``ms_ssim_db`` is that of the mean ``ms_ssim``.
MS-SSIM: Z. Wang, E. P. Simoncelli, A. C. Bovik, "Multiscale structural similarity for image quality
assessment", Asilomar 2003, as ``pytorch-msssim`` computes it, here in float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from nvcodec.core.color import HD_HEIGHT, luma_weights, to_rgb
from nvcodec.core.errors import InputError
from nvcodec.core.frame import RANGE_FULL, RANGE_UNSPECIFIED, UNSPECIFIED, Frame, VideoProperties
from nvcodec.core.metrics import PSNR_CAP_DB, frame_psnr, psnr

__all__ = ["METRICS", "FrameQuality", "Metric", "frame_quality", "has_ms_ssim", "mean_quality", "rgb_matrix"]

MS_SSIM_MIN_SIDE = 161
"""Samples: a window of 11 must fit after the picture was halved four times."""

_MATRIX_NAMES = {1: "BT.709", 5: "BT.601", 6: "BT.601", 9: "BT.2020"}


@dataclass(frozen=True)
class Metric:
    """A quality that has a curve: ``key`` as in results.json, ``label`` and ``unit`` for people."""

    key: str
    label: str
    unit: str


METRICS = (
    Metric("psnr_yuv_611", "PSNR 6:1:1", "dB"),
    Metric("psnr_y", "PSNR Y", "dB"),
    Metric("psnr_u", "PSNR U", "dB"),
    Metric("psnr_v", "PSNR V", "dB"),
    Metric("psnr_rgb", "PSNR RGB", "dB"),
    Metric("ms_ssim_db", "MS-SSIM", "dB"),
)


@dataclass(frozen=True)
class FrameQuality:
    """Figures of one frame; dB, but for ``ms_ssim`` (0 .. 1, None for small pictures)."""

    psnr_y: float
    psnr_u: float
    psnr_v: float
    psnr_rgb: float
    ms_ssim: float | None

    @property
    def psnr_yuv_611(self) -> float:
        """(6 Y + U + V) / 8, in dB."""
        return (6 * self.psnr_y + self.psnr_u + self.psnr_v) / 8


def has_ms_ssim(properties: VideoProperties) -> bool:
    """Whether pictures of this size are large enough for MS-SSIM."""
    return min(properties.width, properties.height) >= MS_SSIM_MIN_SIDE


def rgb_matrix(properties: VideoProperties) -> str:
    """In words, by what frames become RGB, and whether the clip says so or it is assumed.

    Raises:
        InputError: :func:`nvcodec.core.color.to_rgb` does not know the matrix.
    """
    luma_weights(properties)
    assumed = properties.colorspace == UNSPECIFIED
    name = (
        ("BT.601" if properties.height < HD_HEIGHT else "BT.709") if assumed else _MATRIX_NAMES[properties.colorspace]
    )
    matrix = f"{name} ({'assumed by the number of rows' if assumed else 'tagged'})"
    full = "full" if properties.color_range == RANGE_FULL else "limited"
    return f"{matrix}, {full} range ({'assumed' if properties.color_range == RANGE_UNSPECIFIED else 'tagged'})"


def frame_quality(decoded: Frame, source: Frame, properties: VideoProperties) -> FrameQuality:
    """Compares two frames of one size; both become RGB by the source's ``properties``.

    Raises:
        InputError: the sizes differ, or the colour matrix is not supported.
    """
    y, u, v = frame_psnr(decoded, source)
    rgb = psnr(to_rgb(decoded, properties), to_rgb(source, properties))
    return FrameQuality(y, u, v, rgb, _ms_ssim(decoded, source) if has_ms_ssim(properties) else None)


def _ms_ssim(decoded: Frame, source: Frame) -> float:
    from pytorch_msssim import ms_ssim

    a, b = (frame.y.double()[None, None] for frame in (decoded, source))
    return min(1.0, float(ms_ssim(a, b, data_range=2**source.bit_depth - 1)))


def mean_quality(frames: Iterable[FrameQuality]) -> dict[str, float | None]:
    """Means over the frames, by the keys of the table at the top of this module.

    Raises:
        InputError: there are no frames.
    """
    rows = list(frames)
    if not rows:
        raise InputError("no frames to compare")
    ms_ssim = _mean_or_none([row.ms_ssim for row in rows])
    return {
        "psnr_y": fmean(row.psnr_y for row in rows),
        "psnr_u": fmean(row.psnr_u for row in rows),
        "psnr_v": fmean(row.psnr_v for row in rows),
        "psnr_yuv_611": fmean(row.psnr_yuv_611 for row in rows),
        "psnr_rgb": fmean(row.psnr_rgb for row in rows),
        "ms_ssim": ms_ssim,
        "ms_ssim_db": None if ms_ssim is None else _loss_db(ms_ssim),
    }


def _mean_or_none(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return fmean(present) if len(present) == len(values) else None


def _loss_db(similarity: float) -> float:
    """``-10 log10(1 - similarity)``, capped as PSNR is."""
    return min(PSNR_CAP_DB, -10 * math.log10(1 - similarity)) if similarity < 1 else PSNR_CAP_DB
