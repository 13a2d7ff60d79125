"""Pictures between PyAV and the codec: 8-bit 4:2:0 planes as torch tensors, and back.

How sources become 4:2:0:

- ``yuv420p`` and ``yuvj420p`` samples are taken as they are; the latter are full range.
- Other YUV (4:2:2, 4:4:4, more than 8 bits, alpha) keeps its matrix and range. Alpha is dropped.
- Grey becomes luma, with neutral chroma.
- RGB and palettes become limited range, BT.601 below 720 rows and BT.709 from there on.

Conversions are swscale's (bicubic, bit-exact mode), but for the last step from 4:4:4: chroma is the rounded
mean of each 2x2 block, which undoes :func:`to_av_frame` exactly and lies in the centre of the block. swscale
would stretch chroma planes of odd size.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import av
import numpy as np
import torch
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from nvcodec.core.color import BT601_525, BT709, HD_HEIGHT
from nvcodec.core.errors import InputError
from nvcodec.core.frame import (
    CHROMA_CENTER,
    CHROMA_UNSPECIFIED,
    RANGE_FULL,
    RANGE_LIMITED,
    RANGE_UNSPECIFIED,
    UNSPECIFIED,
    Frame,
    chroma_size,
)

__all__ = ["PlaneTags", "Planes", "plane_tags", "to_av_frame", "to_planes"]

Planes = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

_PALETTES = ("pal8", "monob", "monow", "ya8", "ya16be", "ya16le")
_SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


class PlaneTags(NamedTuple):
    """What is true of the planes that :func:`to_planes` makes, as in ``VideoProperties``."""

    color_range: int
    colorspace: int
    chroma_location: int


def plane_tags(picture: av.VideoFrame) -> PlaneTags:
    """Range, matrix and chroma location of the planes after conversion; unspecified where unknown."""
    pix_fmt = picture.format
    if _is_rgb(pix_fmt):
        return PlaneTags(RANGE_LIMITED, _rgb_matrix(picture), CHROMA_CENTER)
    color_range = picture.color_range if picture.color_range <= RANGE_FULL else RANGE_UNSPECIFIED
    if pix_fmt.name.startswith("yuvj"):
        color_range = RANGE_FULL
    # A matrix of 0 is RGB's and cannot be meant.
    location = CHROMA_CENTER if _has_full_chroma(pix_fmt) else CHROMA_UNSPECIFIED
    return PlaneTags(color_range, picture.colorspace or UNSPECIFIED, location)


def to_planes(picture: av.VideoFrame, reformatter: VideoReformatter) -> Planes:
    """Y (H, W), U and V (ceil(H/2), ceil(W/2)) as uint8 tensors of their own memory.

    Raises:
        InputError: swscale cannot convert the pixel format.
    """
    name = picture.format.name
    try:
        if name.startswith("gray"):
            y = _plane(reformatter.reformat(picture, format="gray"), 0)
            width, height = chroma_size(picture.width, picture.height)
            neutral = torch.full((height, width), 128, dtype=torch.uint8)
            return y, neutral, neutral.clone()
        if _is_rgb(picture.format):
            hd = _rgb_matrix(picture) == BT709
            picture = reformatter.reformat(
                picture,
                format="yuv444p",
                dst_colorspace=Colorspace.ITU709 if hd else Colorspace.ITU601,
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.MPEG,
                interpolation=_SCALING,
            )
        elif name not in ("yuv420p", "yuvj420p", "yuv444p", "yuvj444p"):
            color_range = plane_tags(picture).color_range or RANGE_LIMITED
            picture = reformatter.reformat(
                picture,
                format="yuv444p" if _has_full_chroma(picture.format) else "yuv420p",
                src_color_range=color_range,
                dst_color_range=color_range,
                interpolation=_SCALING,
            )
    except (av.error.FFmpegError, ValueError) as error:
        raise InputError(f"cannot convert {name} to yuv420p ({error})") from error
    y, u, v = _plane(picture, 0), _plane(picture, 1), _plane(picture, 2)
    return (y, u, v) if picture.format.name in ("yuv420p", "yuvj420p") else (y, _halve(u), _halve(v))


def to_av_frame(frame: Frame, *, full_chroma: bool = False) -> av.VideoFrame:
    """A copy as PyAV frame: ``yuv420p``, or ``yuv444p`` with chroma samples repeated if ``full_chroma``."""
    planes = [plane.cpu() for plane in frame.planes]
    if full_chroma:
        for index in (1, 2):
            wide = planes[index].repeat_interleave(2, 0).repeat_interleave(2, 1)
            planes[index] = wide[: frame.height, : frame.width]
    result = av.VideoFrame(frame.width, frame.height, "yuv444p" if full_chroma else "yuv420p")
    for target, plane in zip(result.planes, planes, strict=True):
        padded = np.zeros((target.buffer_size // target.line_size, target.line_size), np.uint8)
        padded[: plane.shape[0], : plane.shape[1]] = plane.numpy()
        target.update(cast(bytes, padded))
    result.pts = frame.pts
    return result


def _plane(picture: av.VideoFrame, index: int) -> torch.Tensor:
    """One 8-bit plane without its row padding, copied."""
    plane = picture.planes[index]
    count = plane.line_size * plane.height
    rows = np.frombuffer(memoryview(plane), np.uint8, count).reshape(plane.height, plane.line_size)
    return torch.from_numpy(rows[:, : plane.width].copy())


def _halve(plane: torch.Tensor) -> torch.Tensor:
    """(H, W) to (ceil(H/2), ceil(W/2)): means of 2x2 blocks, rounded; odd edges are repeated."""
    height, width = plane.shape
    rows = torch.arange(height + height % 2).clamp(max=height - 1)
    columns = torch.arange(width + width % 2).clamp(max=width - 1)
    even = plane[rows][:, columns].to(torch.int16)
    total = even[0::2, 0::2] + even[0::2, 1::2] + even[1::2, 0::2] + even[1::2, 1::2]
    return ((total + 2) >> 2).to(torch.uint8)


def _is_rgb(pix_fmt: av.VideoFormat) -> bool:
    return bool(pix_fmt.is_rgb) or pix_fmt.name in _PALETTES


def _has_full_chroma(pix_fmt: av.VideoFormat) -> bool:
    """Whether there is a chroma sample for every luma sample: 4:4:4."""
    return len(pix_fmt.components) >= 3 and pix_fmt.chroma_width(64) == pix_fmt.chroma_height(64) == 64


def _rgb_matrix(picture: av.VideoFrame) -> int:
    """The matrix that RGB of this size is converted with."""
    return BT709 if picture.height >= HD_HEIGHT else BT601_525
