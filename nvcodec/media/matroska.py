"""The shape of the picture in a finished Matroska file.

PyAV cannot tell libavformat the sample aspect ratio of a track. H.264 and H.265 carry it in their own
headers; FFV1 and AV1 rely on Matroska's DisplayWidth and DisplayHeight, which would be missing. So the writer
reserves room with a track name of known length, and :func:`set_display_aspect` puts the elements there:

::

    TrackEntry: ... Name "xxxx" ... Video{...} ...
    TrackEntry: ... Video{... DisplayWidth DisplayHeight DisplayUnit} ... Void        (same length)

Nothing else in the file moves.
"""

from __future__ import annotations

import zlib
from fractions import Fraction
from pathlib import Path

from nvcodec.core.errors import OutputError

__all__ = ["PLACEHOLDER_TITLE", "set_display_aspect"]

PLACEHOLDER_TITLE = "-" * 40
"""The track name that reserves room; it does not survive :func:`set_display_aspect`."""

_SEGMENT, _TRACKS, _TRACK_ENTRY, _NAME, _VIDEO = 0x18538067, 0x1654AE6B, 0xAE, 0x536E, 0xE0
_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT = 0x54B0, 0x54BA, 0x54B2
_VOID, _CRC32 = 0xEC, 0xBF
_UNIT_ASPECT_RATIO = 3
_HEAD_BYTES = 1 << 16
"""The tracks are written before any picture; this much of the file holds them."""

Element = tuple[int, int, int, int]
"""Identifier, and offsets of the element, of its payload and of its end."""


def _number(data: bytes, offset: int, *, keep_marker: bool) -> tuple[int, int]:
    """An EBML variable-length number at ``offset``, and the offset behind it."""
    length = 9 - data[offset].bit_length()
    value = int.from_bytes(data[offset : offset + length], "big")
    return (value if keep_marker else value & ((1 << 7 * length) - 1)), offset + length


def _children(data: bytes, offset: int, end: int) -> list[Element]:
    """The elements from ``offset`` to ``end``, as far as ``data`` reaches."""
    found = []
    while offset < min(end, len(data) - 12):
        identifier, behind = _number(data, offset, keep_marker=True)
        size, payload = _number(data, behind, keep_marker=False)
        found.append((identifier, offset, payload, payload + size))
        offset = payload + size
    return found


def _find(data: bytes, identifier: int, offset: int, end: int) -> Element:
    return next(element for element in _children(data, offset, end) if element[0] == identifier)


def _element(identifier: int, payload: bytes) -> bytes:
    """An element with the shortest length field that holds its size."""
    length = 1
    while len(payload) >= (1 << 7 * length) - 1:
        length += 1
    size = (len(payload) | 1 << 7 * length).to_bytes(length, "big")
    return identifier.to_bytes((identifier.bit_length() + 7) // 8, "big") + size + payload


def _uint(identifier: int, value: int) -> bytes:
    return _element(identifier, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))


def set_display_aspect(path: Path, aspect: Fraction) -> None:
    """Stores the display aspect ratio (width over height of the whole picture) of the only track.

    The track must have been written with the name ``PLACEHOLDER_TITLE``.

    Raises:
        OutputError: the file is not laid out as expected.
        OSError: the file cannot be read or written.
    """
    with path.open("r+b") as file:
        data = file.read(_HEAD_BYTES)
        try:
            _, _, segment, segment_end = _find(data, _SEGMENT, 0, len(data))
            _, _, tracks, tracks_end = _find(data, _TRACKS, segment, segment_end)
            _, _, start, end = _find(data, _TRACK_ENTRY, tracks, tracks_end)
            data = data[:start] + _with_aspect(data[start:end], aspect) + data[end:]
            crc = _children(data, tracks, tracks_end)[0]
        except (StopIteration, IndexError):
            raise OutputError(f"cannot store the aspect ratio in {path}: unexpected layout") from None
        if crc[0] == _CRC32:  # always the first child, over all that follows it
            digest = zlib.crc32(data[crc[3] : tracks_end]).to_bytes(4, "little")
            data = data[: crc[2]] + digest + data[crc[3] :]
        file.seek(tracks)
        file.write(data[tracks:tracks_end])


def _with_aspect(entry: bytes, aspect: Fraction) -> bytes:
    """The payload of a track entry with the placeholder exchanged for display elements; same length."""
    display = (
        _uint(_DISPLAY_WIDTH, aspect.numerator)
        + _uint(_DISPLAY_HEIGHT, aspect.denominator)
        + _uint(_DISPLAY_UNIT, _UNIT_ASPECT_RATIO)
    )
    padded = entry + bytes(12)  # _children stops short of the end of its data
    result = b""
    for identifier, offset, payload, end in _children(padded, 0, len(entry)):
        if identifier == _VIDEO:
            result += _element(_VIDEO, entry[payload:end] + display)
        elif not (identifier == _NAME and entry[payload:end] == PLACEHOLDER_TITLE.encode()):
            result += entry[offset:end]
    room = len(entry) - len(result) - 2
    if not 0 <= room < 127:
        raise IndexError("no room was reserved")
    return result + _element(_VOID, bytes(room))
