"""What a video is to the rest of the codec: its properties, and 4:2:0 frames of 8 or 10 bits.

::

    VideoProperties   geometry, clock and colour of a whole video; never changes within one
    Frame             three planes and a timestamp

Colour codes are the code points of ITU-T H.273, numbered as FFmpeg numbers them, so that they pass from a
source file through a ``.cwrv`` file to an output file without a table in between.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from fractions import Fraction

import torch

from nvcodec.core.errors import InputError

__all__ = [
    "CHROMA_CENTER",
    "CHROMA_LEFT",
    "CHROMA_TOP_LEFT",
    "Frame",
    "VideoProperties",
    "chroma_size",
    "is_content_light",
    "is_mastering_display",
    "plane_bytes",
    "video_seconds",
]

MAX_DIMENSION = 65535
MAX_TERM = 2**31 - 1
"""Largest numerator or denominator of a rate, time base or aspect ratio (FFmpeg keeps them in int32)."""

RANGE_UNSPECIFIED, RANGE_LIMITED, RANGE_FULL = 0, 1, 2
CHROMA_UNSPECIFIED, CHROMA_LEFT, CHROMA_CENTER, CHROMA_TOP_LEFT = 0, 1, 2, 3
FIELD_ORDERS = ("tt", "bb", "tb", "bt")
BIT_DEPTHS = (8, 10)
_DEPTHS = {torch.uint8: 8, torch.uint16: 10}
UNSPECIFIED = 2
"""H.273's "unspecified" for primaries, transfer and matrix."""


def is_mastering_display(values: object) -> bool:
    """Whether these can be ``VideoProperties.mastering_display``: coordinates up to 1, luminances of 32 bits."""
    return _are_integers(values, [50_000] * 8 + [2**32 - 1] * 2)


def is_content_light(values: object) -> bool:
    """Whether these can be ``VideoProperties.content_light``."""
    return _are_integers(values, [65_535] * 2)


def _are_integers(values: object, most: list[int]) -> bool:
    if not isinstance(values, list | tuple) or len(values) != len(most):
        return False
    return all(type(value) is int and 0 <= value <= limit for value, limit in zip(values, most, strict=True))


def plane_bytes(plane: torch.Tensor) -> bytes:
    """Samples of a plane row after row, one byte each, or two, the low one first."""
    samples = plane.cpu().contiguous().numpy()
    return samples.astype(samples.dtype.newbyteorder("<"), copy=False).tobytes()


def chroma_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of a 4:2:0 chroma plane, in samples: halves, rounded up."""
    return (width + 1) // 2, (height + 1) // 2


@dataclass(frozen=True, kw_only=True)
class VideoProperties:
    """Everything about a video that is not in its samples.

    Attributes:
        width, height: luma samples, 1 to 65535. Odd sizes are allowed.
        frame_rate: frames per second, nominal when frames are not evenly spaced.
        time_base: seconds per unit of ``Frame.pts``.
        sample_aspect_ratio: width over height of one sample; 0 means unknown.
        color_range: 0 unspecified, 1 limited (16-235), 2 full (0-255).
        color_primaries, color_trc, colorspace: H.273 code points, 0 to 255; 2 means unspecified.
        chroma_location: 0 unspecified, 1 left, 2 centre, 3 top left, 4 top, 5 bottom left, 6 bottom.
        bit_depth: bits per sample, 8 or 10.
        field_order: of interlaced pictures, which field is coded and which shown first, "tt", "bb", "tb" or "bt" as
            FFmpeg has it; empty for progressive ones.
        display_matrix: how a player is to turn and mirror the pictures: nine integers as in MP4's ``tkhd``; empty
            where they are shown as they are.
        mastering_display: HDR10's display that the video was made on, ten integers as HEVC has them: x and y of green,
            blue, red and white point, in units of 0.00002, then most and least luminance, of 0.0001 cd/m2; or empty.
        content_light: HDR10's MaxCLL and MaxFALL, in cd/m2; or empty.

    Raises:
        InputError: a value is out of its range or of the wrong type.
    """

    width: int
    height: int
    frame_rate: Fraction
    time_base: Fraction
    sample_aspect_ratio: Fraction = Fraction(0, 1)
    color_range: int = RANGE_UNSPECIFIED
    color_primaries: int = UNSPECIFIED
    color_trc: int = UNSPECIFIED
    colorspace: int = UNSPECIFIED
    chroma_location: int = CHROMA_UNSPECIFIED
    bit_depth: int = 8
    field_order: str = field(default="", repr=False)
    display_matrix: tuple[int, ...] = field(default=(), repr=False)
    mastering_display: tuple[int, ...] = field(default=(), repr=False)
    content_light: tuple[int, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        kinds = {"int": int, "str": str, "Fraction": Fraction, "tuple[int, ...]": tuple}
        for found in fields(self):
            value = getattr(self, found.name)
            if not isinstance(value, kinds[str(found.type)]) or isinstance(value, bool):
                raise InputError(f"{found.name} must be of type {found.type}, not {type(value).__name__}")
        self._check_integer("width", 1, MAX_DIMENSION)
        self._check_integer("height", 1, MAX_DIMENSION)
        self._check_integer("color_range", 0, 2)
        self._check_integer("chroma_location", 0, 6)
        for name in ("color_primaries", "color_trc", "colorspace"):
            self._check_integer(name, 0, 255)
        for name in ("frame_rate", "time_base", "sample_aspect_ratio"):
            self._check_ratio(name, zero=name == "sample_aspect_ratio")
        if self.field_order not in ("", *FIELD_ORDERS):
            raise InputError(f"field_order {self.field_order!r} is none of {', '.join(FIELD_ORDERS)}")
        if len(self.display_matrix) not in (0, 9) or not all(
            type(n) is int and -(2**31) <= n < 2**31 for n in self.display_matrix
        ):
            raise InputError("a display_matrix has nine integers of 32 bits")
        if self.mastering_display and not is_mastering_display(self.mastering_display):
            raise InputError(f"mastering_display is {self.mastering_display}; it must be ten integers as HEVC has them")
        if self.content_light and not is_content_light(self.content_light):
            raise InputError(f"content_light is {self.content_light}; it must be two integers of 16 bits")
        if self.bit_depth not in BIT_DEPTHS:
            raise InputError(f"bit_depth is {self.bit_depth}; it must be 8 or 10")

    def _check_integer(self, name: str, low: int, high: int) -> None:
        value = getattr(self, name)
        if not low <= value <= high:
            raise InputError(f"{name} is {value}; it must be {low} to {high}")

    def _check_ratio(self, name: str, *, zero: bool) -> None:
        value = getattr(self, name)
        if value < 0 or (value == 0 and not zero):
            raise InputError(f"{name} is {value}; it must be positive")
        if value.numerator > MAX_TERM or value.denominator > MAX_TERM:
            raise InputError(f"{name} is {value}; its terms must be below 2**31")

    @property
    def pix_fmt(self) -> str:
        """FFmpeg's name of the sample layout (of full range, too)."""
        return "yuv420p" if self.bit_depth == 8 else f"yuv420p{self.bit_depth}le"

    @property
    def chroma_width(self) -> int:
        """Samples in a row of U or V."""
        return chroma_size(self.width, self.height)[0]

    @property
    def chroma_height(self) -> int:
        """Rows of U or V."""
        return chroma_size(self.width, self.height)[1]


def video_seconds(properties: VideoProperties, first: int, last: int) -> Fraction:
    """How long a video is shown, in seconds. ``first``, ``last``: timestamps of its first and last frame; that lasts as
    long as the frame rate says."""
    return (last - first) * properties.time_base + 1 / properties.frame_rate


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture: planes Y (H, W), U and V (ceil(H/2), ceil(W/2)) on one device, all ``torch.uint8``, or, with values
    0 .. 1023, all ``torch.uint16``.

    ``pts`` is the presentation time in units of ``VideoProperties.time_base``.

    Raises:
        InputError: the planes are not three matrices of one such type that fit together, or ``pts`` is not an int.
    """

    planes: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    pts: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.planes, tuple) or len(self.planes) != 3:
            raise InputError("a frame has three planes: Y, U, V")
        kind = self.planes[0].dtype
        if kind not in _DEPTHS or any(p.dtype != kind or p.dim() != 2 or p.numel() == 0 for p in self.planes):
            raise InputError("the planes of a frame are non-empty matrices, all uint8 or all uint16")
        chroma = chroma_size(self.width, self.height)[::-1]
        if self.u.shape != chroma or self.v.shape != chroma:
            raise InputError(f"chroma of a {self.width}x{self.height} frame must be {chroma[1]}x{chroma[0]}")
        if not isinstance(self.pts, int):
            raise InputError(f"pts must be an int, not {type(self.pts).__name__}")

    @property
    def y(self) -> torch.Tensor:
        """Luma, (H, W)."""
        return self.planes[0]

    @property
    def u(self) -> torch.Tensor:
        """First chroma plane (Cb), (ceil(H/2), ceil(W/2))."""
        return self.planes[1]

    @property
    def v(self) -> torch.Tensor:
        """Second chroma plane (Cr), (ceil(H/2), ceil(W/2))."""
        return self.planes[2]

    @property
    def bit_depth(self) -> int:
        """Bits per sample, 8 or 10."""
        return _DEPTHS[self.planes[0].dtype]

    @property
    def width(self) -> int:
        """Luma samples in a row."""
        return int(self.planes[0].shape[1])

    @property
    def height(self) -> int:
        """Rows of luma."""
        return int(self.planes[0].shape[0])

    def __repr__(self) -> str:
        y, u, v = ("x".join(str(size) for size in plane.shape) for plane in self.planes)
        return f"Frame(pts={self.pts}, y={y}, u={u}, v={v}, device={self.y.device})"
