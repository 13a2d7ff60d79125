"""Pictures between PyAV and the codec: 4:2:0 planes of 8 or 10 bits as torch tensors, and back.

How sources become 4:2:0:

- ``yuv420p``, ``yuvj420p`` and ``yuv420p10`` samples are taken as they are; those of ``yuvj420p`` are full range.
- What has more than 8 bits a sample becomes 10 bits, all else 8.
- Other YUV (4:2:2, 4:4:4, other depths, alpha) keeps its matrix and range. Alpha is dropped.
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

__all__ = ["PlaneTags", "Planes", "bit_depth_of", "output_format", "plane_tags", "to_av_frame", "to_planes"]

Planes = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

_TAKEN = ("yuv420p", "yuvj420p", "yuv420p10le")
"""Layouts that need no conversion."""
_LARGEST = 1023
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
    """Y (H, W), U and V (ceil(H/2), ceil(W/2)) as uint8 or uint16 tensors of their own memory.

    Raises:
        InputError: swscale cannot convert the pixel format, or a sample of 10 bits is above 1023.
    """
    name, depth = picture.format.name, bit_depth_of(picture)
    suffix = "" if depth == 8 else f"{depth}le"
    try:
        if name.startswith("gray"):
            y = _plane(reformatter.reformat(picture, format=f"gray{suffix}"), 0)
            width, height = chroma_size(picture.width, picture.height)
            neutral = torch.full((height, width), 1 << (depth - 1), dtype=y.dtype)
            return y, neutral, neutral.clone()
        if _is_rgb(picture.format):
            hd = _rgb_matrix(picture) == BT709
            picture = reformatter.reformat(
                picture,
                format=f"yuv444p{suffix}",
                dst_colorspace=Colorspace.ITU709 if hd else Colorspace.ITU601,
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.MPEG,
                interpolation=_SCALING,
            )
        elif name not in (*_TAKEN, "yuv444p", "yuvj444p", "yuv444p10le"):
            color_range = plane_tags(picture).color_range or RANGE_LIMITED
            picture = reformatter.reformat(
                picture,
                format=("yuv444p" if _has_full_chroma(picture.format) else "yuv420p") + suffix,
                src_color_range=color_range,
                dst_color_range=color_range,
                interpolation=_SCALING,
            )
    except (av.error.FFmpegError, ValueError) as error:
        raise InputError(f"cannot convert {name} to yuv420p{suffix} ({error})") from error
    y, u, v = _plane(picture, 0), _plane(picture, 1), _plane(picture, 2)
    return (y, u, v) if picture.format.name in _TAKEN else (y, _halve(u), _halve(v))


def bit_depth_of(picture: av.VideoFrame) -> int:
    """Of the planes that :func:`to_planes` makes, 8 or 10."""
    return 10 if max(component.bits for component in picture.format.components) > 8 else 8


def output_format(bit_depth: int, *, full_chroma: bool = False) -> str:
    """What :func:`to_av_frame` makes of frames of this depth."""
    return ("yuv444p" if full_chroma else "yuv420p") + ("" if bit_depth == 8 else f"{bit_depth}le")


def to_av_frame(frame: Frame, *, full_chroma: bool = False) -> av.VideoFrame:
    """A copy as PyAV frame: ``yuv420p``, or ``yuv444p`` with chroma samples repeated if ``full_chroma``; of 10 bits
    where the frame has them."""
    planes = [plane.cpu() for plane in frame.planes]
    if full_chroma:
        for index in (1, 2):
            wide = planes[index].repeat_interleave(2, 0).repeat_interleave(2, 1)
            planes[index] = wide[: frame.height, : frame.width]
    result = av.VideoFrame(frame.width, frame.height, output_format(frame.bit_depth, full_chroma=full_chroma))
    kind = np.dtype("u1" if frame.bit_depth == 8 else "<u2")
    for target, plane in zip(result.planes, planes, strict=True):
        rows = target.buffer_size // target.line_size
        padded = np.zeros((rows, target.line_size // kind.itemsize), kind)
        padded[: plane.shape[0], : plane.shape[1]] = plane.numpy()
        target.update(cast(bytes, padded.view(np.uint8)))
    result.pts = frame.pts
    return result


def _plane(picture: av.VideoFrame, index: int) -> torch.Tensor:
    """One plane without its row padding, copied."""
    plane = picture.planes[index]
    count = plane.line_size * plane.height
    rows = np.frombuffer(memoryview(plane), np.uint8, count).reshape(plane.height, plane.line_size)
    if bit_depth_of(picture) == 8:
        return torch.from_numpy(rows[:, : plane.width].copy())
    samples = rows[:, : 2 * plane.width].copy().view("<u2").astype(np.uint16, copy=False)
    if samples.max() > _LARGEST:
        raise InputError(f"a sample of 10 bits is {samples.max()}, more than {_LARGEST}")
    return torch.from_numpy(samples)


def _halve(plane: torch.Tensor) -> torch.Tensor:
    """(H, W) to (ceil(H/2), ceil(W/2)): means of 2x2 blocks, rounded; odd edges are repeated."""
    height, width = plane.shape
    rows = torch.arange(height + height % 2).clamp(max=height - 1)
    columns = torch.arange(width + width % 2).clamp(max=width - 1)
    even = plane[rows][:, columns].to(torch.int16)
    total = even[0::2, 0::2] + even[0::2, 1::2] + even[1::2, 0::2] + even[1::2, 1::2]
    return ((total + 2) >> 2).to(plane.dtype)


def _is_rgb(pix_fmt: av.VideoFormat) -> bool:
    return bool(pix_fmt.is_rgb) or pix_fmt.name in _PALETTES


def _has_full_chroma(pix_fmt: av.VideoFormat) -> bool:
    """Whether there is a chroma sample for every luma sample: 4:4:4."""
    return len(pix_fmt.components) >= 3 and pix_fmt.chroma_width(64) == pix_fmt.chroma_height(64) == 64


def _rgb_matrix(picture: av.VideoFrame) -> int:
    """The matrix that RGB of this size is converted with."""
    return BT709 if picture.height >= HD_HEIGHT else BT601_525
