"""YUV4MPEG2: the uncompressed video that every tool reads, from a file or from a pipe.

::

    YUV4MPEG2 W416 H240 F50:1 Ip A1:1 C420jpeg XCOLORRANGE=LIMITED\\n
    FRAME\\n  <Y rows>  <U rows>  <V rows>       for every frame

The format holds a frame rate but no timestamps: frames that are not evenly spaced come out evenly spaced.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from nvcodec.core.errors import OutputError
from nvcodec.core.frame import (
    CHROMA_CENTER,
    CHROMA_LEFT,
    CHROMA_TOP_LEFT,
    CHROMA_UNSPECIFIED,
    RANGE_FULL,
    RANGE_LIMITED,
    Frame,
    VideoProperties,
    plane_bytes,
)

__all__ = ["check_frame", "read_chroma_location", "write_y4m", "y4m_header"]

_MAGIC = b"YUV4MPEG2 "
_MAX_HEADER_BYTES = 1024
_CHROMA_TAGS = {CHROMA_LEFT: "420mpeg2", CHROMA_CENTER: "420jpeg", CHROMA_TOP_LEFT: "420paldv"}
_DEEP_TAG = "420p10 XYSCSS=420P10"
_FIELD_TAGS = {"tt": "t", "bt": "t", "bb": "b", "tb": "b"}
_RANGE_TAGS = {RANGE_FULL: " XCOLORRANGE=FULL", RANGE_LIMITED: " XCOLORRANGE=LIMITED"}


def y4m_header(properties: VideoProperties) -> bytes:
    """The stream header, newline included. An unspecified chroma location is written as ``420jpeg``; with 10 bits, none
    is written."""
    rate, aspect = properties.frame_rate, properties.sample_aspect_ratio
    ratio = f"{aspect.numerator}:{aspect.denominator}" if aspect else "0:0"
    text = (
        f"YUV4MPEG2 W{properties.width} H{properties.height} F{rate.numerator}:{rate.denominator}"
        f" I{_FIELD_TAGS.get(properties.field_order, 'p')} A{ratio}"
        f" C{_DEEP_TAG if properties.bit_depth > 8 else _CHROMA_TAGS.get(properties.chroma_location, '420jpeg')}"
        f"{_RANGE_TAGS.get(properties.color_range, '')}\n"
    )
    return text.encode("ascii")


def check_frame(frame: Frame, properties: VideoProperties, number: int) -> None:
    """Raises OutputError when frame ``number`` has not the size, or the bit depth, of the video."""
    if (frame.width, frame.height) != (properties.width, properties.height):
        size, wanted = f"{frame.width}x{frame.height}", f"{properties.width}x{properties.height}"
        raise OutputError(f"frame {number} is {size}, the video {wanted}")
    if frame.bit_depth != properties.bit_depth:
        raise OutputError(f"frame {number} has {frame.bit_depth} bits, the video {properties.bit_depth}")


def write_y4m(stream: BinaryIO, properties: VideoProperties, frames: Iterable[Frame]) -> int:
    """Writes all frames to a binary stream and returns how many there were.

    Raises:
        OutputError: a frame has another size or bit depth than the video.
        OSError: from the stream.
    """
    count = 0
    for frame in frames:
        check_frame(frame, properties, count)
        if count == 0:
            stream.write(y4m_header(properties))
        stream.write(b"FRAME\n")
        for plane in frame.planes:
            stream.write(plane_bytes(plane))
        count += 1
    stream.flush()
    return count


def read_chroma_location(path: Path) -> int:
    """Chroma location that the header of a y4m file states; 0 when it does not, or for any other file.

    A plain ``C420`` states nothing, and neither does the absence of the tag.
    """
    if not path.is_file():  # a pipe would lose what is read of it here, or wait
        return CHROMA_UNSPECIFIED
    try:
        with path.open("rb") as file:
            header = file.read(_MAX_HEADER_BYTES)
    except (OSError, ValueError):
        return CHROMA_UNSPECIFIED
    if not header.startswith(_MAGIC):
        return CHROMA_UNSPECIFIED
    tags = header.split(b"\n", 1)[0].split()[1:]
    for location, name in _CHROMA_TAGS.items():
        if b"C" + name.encode("ascii") in tags:
            return location
    return CHROMA_UNSPECIFIED
