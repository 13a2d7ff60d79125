"""Whether a video file is as long as it says of itself.

FFmpeg takes the end of a file for the end of the video, wherever it comes. Containers state their length, though: a
download or a copy that was cut short shows by it. Matroska and WebM, MP4 and MOV, and AVI are known here; the others
say nothing, and neither does a file that was written as a stream.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

__all__ = ["missing_bytes"]

_EBML: Final = b"\x1a\x45\xdf\xa3"
_SEGMENT: Final = b"\x18\x53\x80\x67"
_MAX_EBML_HEADER: Final = 1024


def missing_bytes(path: Path) -> int:
    """How many bytes the file lacks of the length that it states; 0 where it states none."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            return max(0, _stated(file, size) - size)
    except (OSError, ValueError, IndexError):
        return 0


def _stated(file: BinaryIO, size: int) -> int:
    start = file.read(12)
    known: list[tuple[bool, Callable[[BinaryIO, int], int]]] = [
        (start[:4] == _EBML, _matroska),
        (start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"), _mp4),
        (start[:4] == b"RIFF" and start[8:] == b"AVI ", _avi),
    ]
    return next((read(file, size) for is_it, read in known if is_it), 0)


def _matroska(file: BinaryIO, size: int) -> int:
    """EBML header, then the Segment; its size may be unknown: all bits 1."""
    file.seek(4)
    length, _ = _ebml_size(file)
    if length > _MAX_EBML_HEADER:
        return 0
    file.seek(length, 1)
    if file.read(4) != _SEGMENT:
        return 0
    length, unknown = _ebml_size(file)
    return 0 if unknown else file.tell() + length


def _ebml_size(file: BinaryIO) -> tuple[int, bool]:
    first = file.read(1)[0]
    more = 8 - first.bit_length()
    value = int.from_bytes(bytes([first]) + file.read(more), "big") & (1 << 7 * (more + 1)) - 1
    return value, value == (1 << 7 * (more + 1)) - 1


def _mp4(file: BinaryIO, size: int) -> int:
    """Boxes one after the other; size 1 is followed by a size of 64 bits, size 0 reaches to the end."""
    place = 0
    while place < size:
        file.seek(place)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8 or not header[4:8].isalnum():
            break
        place += length
    return place


def _avi(file: BinaryIO, size: int) -> int:
    file.seek(4)
    return 8 + int.from_bytes(file.read(4), "little")
