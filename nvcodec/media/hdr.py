"""HDR10's static metadata between FFmpeg's pictures, the properties of a video, and the encoders of output.

SMPTE ST 2086 tells of the display that a video was made on, CEA-861.3 how bright its light gets. Properties hold both
in the units of HEVC's SEI messages; see ``VideoProperties``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, cast

import av

from nvcodec.core.frame import VideoProperties, is_content_light, is_mastering_display

__all__ = ["content_light_of", "hdr_options", "mastering_display_of"]

_CHROMATICITY, _LUMINANCE = 50000, 10000
"""Units in 1, and in one candela a square metre."""
_MASTERING = struct.Struct("=22i")
"""FFmpeg's AVMasteringDisplayMetadata: x and y of red, green, blue and white, least and most luminance, each a
numerator and a denominator; then whether it has the colours, and the luminance."""
_LIGHT = struct.Struct("=2I")


def mastering_display_of(picture: av.VideoFrame) -> tuple[int, ...]:
    """As ``VideoProperties.mastering_display``; empty where the picture has none, or not all of it."""
    data = _side_data(picture, "MASTERING_DISPLAY_METADATA", _MASTERING)
    if not data or not data[20] or not data[21] or 0 in data[1:20:2]:
        return ()
    ratios = [(data[n], data[n + 1]) for n in range(0, 20, 2)]
    red, green, blue, white = (
        [round(_CHROMATICITY * top / bottom) for top, bottom in ratios[n : n + 2]] for n in (0, 2, 4, 6)
    )
    least, most = (round(_LUMINANCE * top / bottom) for top, bottom in ratios[8:])
    found = (*green, *blue, *red, *white, most, least)
    return found if is_mastering_display(found) else ()


def content_light_of(picture: av.VideoFrame) -> tuple[int, ...]:
    """As ``VideoProperties.content_light``; empty where the picture has none."""
    found = _side_data(picture, "CONTENT_LIGHT_LEVEL", _LIGHT)
    return found if is_content_light(found) else ()


def hdr_options(encoder: str, properties: VideoProperties) -> Iterator[str]:
    """What an encoder is told, as parameters ``name=value``; nothing for one that cannot be told."""
    display, light = properties.mastering_display, properties.content_light
    levels = ",".join(map(str, light))
    if encoder == "libsvtav1":
        if display:
            places = [f"{x / _CHROMATICITY:.5f},{y / _CHROMATICITY:.5f}" for x, y in _pairs(display[:8])]
            most, least = (value / _LUMINANCE for value in display[8:])
            green, blue, red, white = places
            yield f"mastering-display=G({green})B({blue})R({red})WP({white})L({most:.4f},{least:.4f})"
        if light:
            yield f"content-light={levels}"
    elif encoder in _PARAMETERS:
        of_display, of_light = _PARAMETERS[encoder]
        if display:
            green, blue, red, white, luminance = (f"{x},{y}" for x, y in _pairs(display))
            yield f"{of_display}=G({green})B({blue})R({red})WP({white})L({luminance})"
        if light:
            yield f"{of_light}={levels}"


_PARAMETERS = {"libx264": ("mastering-display", "cll"), "libx265": ("master-display", "max-cll")}


def _pairs(values: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    return zip(values[::2], values[1::2], strict=True)


def _side_data(picture: av.VideoFrame, name: str, layout: struct.Struct) -> tuple[int, ...]:
    for data in cast(Any, picture.side_data):
        if data.type.name == name and len(bytes(data)) >= layout.size:
            return layout.unpack_from(bytes(data))
    return ()
