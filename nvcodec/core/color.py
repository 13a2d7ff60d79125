"""4:2:0 frames to 8-bit RGB, in pure torch: for looking and for RGB metrics, never for coding.

::

    Y, U, V  --upsample chroma-->  Y, U, V at (H, W)  --range, matrix-->  R, G, B  --round, clamp-->  uint8

The transfer function is left alone: RGB here is the non-linear R'G'B' that a display is sent.
"""

from __future__ import annotations

import torch

from nvcodec.core.errors import InputError
from nvcodec.core.frame import RANGE_FULL, UNSPECIFIED, Frame, VideoProperties

__all__ = ["HD_HEIGHT", "luma_weights", "to_rgb"]

HD_HEIGHT = 720
"""From this height on, an unspecified matrix is taken to be BT.709; below it, BT.601."""

BT709, BT601_625, BT601_525, BT2020_NCL = 1, 5, 6, 9

_WEIGHTS = {
    BT709: (0.2126, 0.0722),
    BT601_625: (0.299, 0.114),
    BT601_525: (0.299, 0.114),
    BT2020_NCL: (0.2627, 0.0593),
}
"""Weights of red and blue in luma, by H.273 matrix code."""

_OFFSETS = {
    0: (0.0, 0.5),
    1: (0.0, 0.5),
    2: (0.5, 0.5),
    3: (0.0, 0.0),
    4: (0.5, 0.0),
    5: (0.0, 1.0),
    6: (0.5, 1.0),
}
"""Where chroma sample (0, 0) lies, (x, y) in luma samples, by chroma location. Unspecified means left, as in
H.264 and H.265."""


def luma_weights(properties: VideoProperties) -> tuple[float, float]:
    """Weights (Kr, Kb) of red and blue in luma.

    An unspecified matrix is BT.601 for fewer than 720 rows and BT.709 from there on.

    Raises:
        InputError: a matrix other than BT.601, BT.709 and BT.2020 non-constant luminance.
    """
    code = properties.colorspace
    if code == UNSPECIFIED:
        code = BT601_525 if properties.height < HD_HEIGHT else BT709
    if code not in _WEIGHTS:
        raise InputError(f"cannot convert colour matrix {code} to RGB (known: {sorted(_WEIGHTS)})")
    return _WEIGHTS[code]


def _upsample_axis(plane: torch.Tensor, size: int, offset: float, dim: int) -> torch.Tensor:
    """Linear interpolation along ``dim`` to ``size`` samples; borders are replicated."""
    position = (torch.arange(size, dtype=torch.float32, device=plane.device) - offset) / 2
    position = position.clamp(0, plane.shape[dim] - 1)
    low = position.floor()
    weight = position - low
    index = low.long()
    following = (index + 1).clamp(max=plane.shape[dim] - 1)
    weight = weight.unsqueeze(1) if dim == 0 else weight.unsqueeze(0)
    return torch.lerp(plane.index_select(dim, index), plane.index_select(dim, following), weight)


def _upsample(plane: torch.Tensor, height: int, width: int, location: int) -> torch.Tensor:
    """Chroma (ceil(H/2), ceil(W/2)) -> (H, W) float32, bilinear, sited as ``location`` says."""
    x_offset, y_offset = _OFFSETS[location]
    rows = _upsample_axis(plane.float(), height, y_offset, 0)
    return _upsample_axis(rows, width, x_offset, 1)


def to_rgb(frame: Frame, properties: VideoProperties) -> torch.Tensor:
    """The frame as RGB: uint8, (3, H, W), on the frame's device.

    Matrix as in :func:`luma_weights`; an unspecified range is limited. Chroma is upsampled bilinearly from
    where ``properties.chroma_location`` puts it; unspecified means left (level with every second luma sample,
    half-way between two rows).

    Raises:
        InputError: the colour matrix is not supported.
    """
    red, blue = luma_weights(properties)
    is_full = properties.color_range == RANGE_FULL
    scale = 255 / (2**frame.bit_depth - 1) if is_full else 2.0 ** (8 - frame.bit_depth)
    neutral = scale * (1 << (frame.bit_depth - 1))
    y = frame.y.float() * scale
    u = _upsample(frame.u, frame.height, frame.width, properties.chroma_location) * scale - neutral
    v = _upsample(frame.v, frame.height, frame.width, properties.chroma_location) * scale - neutral
    if not is_full:
        y = (y - 16) * (255 / 219)
        u = u * (255 / 224)
        v = v * (255 / 224)
    r = y + v * (2 * (1 - red))
    b = y + u * (2 * (1 - blue))
    g = (y - red * r - blue * b) / (1 - red - blue)
    return torch.stack((r, g, b)).round().clamp(0, 255).to(torch.uint8)
