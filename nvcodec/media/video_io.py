"""Video files in and out, as 8-bit 4:2:0 :class:`~nvcodec.core.frame.Frame` records.

Reading is here; writing is in :mod:`nvcodec.media.video_write` and re-exported. :mod:`nvcodec.media.av_frame` says how
other pixel formats become 4:2:0. Rotation tags are ignored: pictures come as they are stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import av.error
from av.video.reformatter import VideoReformatter

from nvcodec.core.errors import InputError
from nvcodec.core.frame import CHROMA_CENTER, MAX_TERM, UNSPECIFIED, Frame, VideoProperties
from nvcodec.media.av_frame import plane_tags, to_planes
from nvcodec.media.source_length import missing_bytes
from nvcodec.media.video_write import CODECS, STDOUT, check_output, write_video
from nvcodec.media.y4m import read_chroma_location

__all__ = [
    "CODECS",
    "STDOUT",
    "VideoReader",
    "check_can_be_read_again",
    "check_output",
    "parse_frame_range",
    "write_video",
]

DEFAULT_RATE = Fraction(25)
"""Assumed when neither container nor codec states a frame rate, as FFmpeg does."""

FrameRange = tuple[int, int | None]
"""Half-open range of frame numbers; None is the end of the video."""


def parse_frame_range(text: str) -> FrameRange:
    """``"A:B"`` to (A, B): frames A up to, not including, B. ``"A:"`` and ``":B"`` are open at one end.

    Raises:
        InputError: not of that form, negative, or empty.
    """
    start, colon, end = text.partition(":")
    if not colon or not all(part == "" or (part.isascii() and part.isdigit()) for part in (start, end)):
        raise InputError(f"frame range {text!r} is not of the form A:B")
    first, last = int(start or 0), int(end) if end else None
    if last is not None and last <= first:
        raise InputError(f"frame range {text!r} is empty (A:B means A up to, not including, B)")
    return first, last


def check_can_be_read_again(source: str | Path) -> None:
    """Raises InputError for a pipe or a device."""
    path = Path(source)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(f"{source} is a pipe or device: save it to a file first, it is read more than once")


class VideoReader(Iterator[Frame]):
    """Decodes a video file, an image sequence (``img_%03d.png``) or a single image, in display order.

    ::

        with VideoReader("clip.mkv", frames=(0, 33)) as reader:
            for frame in reader:
                ...

    An iterator: it reads once, and holds one frame at a time. Timestamps count from the first frame delivered
    and keep the time base and the exact spacing of the source. A source without timestamps gets them from its
    frame rate.

    Attributes:
        name: the source, as given.
        properties: known as soon as the reader exists; colour tags are those of the first frame delivered.

    Raises:
        InputError: the source is missing, is not a video or has no frame in the range; and while iterating:
            it has fewer frames than the range asks for, the decoder reports damage, the picture size changes, or
            the file ends before the length that it states (:mod:`nvcodec.media.source_length`).
    """

    def __init__(self, source: str | Path, *, frames: FrameRange | None = None) -> None:
        self.name = str(source)
        self._start, self._end = frames if frames is not None else (0, None)
        if self._start < 0 or (self._end is not None and self._end <= self._start):
            raise InputError(f"frame range {self._start}:{self._end} is empty")
        self._container = self._open(source)
        self._number = 0  # of the next frame to decode, in the whole source
        self._reformatter = VideoReformatter()
        try:
            stream = self._video_stream()
            self._read_to = 0  # in the file, by what the demuxer says
            self._decoded = self._pictures(stream)
            self._waiting: av.VideoFrame | None = self._first()
            self._shape = (self._waiting.width, self._waiting.height)
            self._clocked = self._waiting.pts is not None and bool(self._waiting.time_base)
            self.properties = self._describe(stream, self._waiting)
            self._origin = self._waiting.pts or 0
            self._last_pts = -1
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Releases the file. Iteration ends."""
        self._waiting, self._decoded = None, iter(())
        self._end = self._number
        self._container.close()

    def __repr__(self) -> str:
        p = self.properties
        return f"VideoReader({self.name!r}, {p.width}x{p.height}, {p.frame_rate} fps)"

    def __next__(self) -> Frame:
        picture = self._waiting
        self._waiting = None
        if picture is None:
            if self._end is not None and self._number >= self._end:
                raise StopIteration
            picture = self._decode()
            if picture is None and self._end is not None:
                raise self._too_short()
            if picture is None:
                raise StopIteration
        if (picture.width, picture.height) != self._shape:
            raise InputError(
                f"{self.name}: the picture size changes at frame {self._number - 1}, from "
                f"{self._shape[0]}x{self._shape[1]} to {picture.width}x{picture.height}"
            )
        return self._convert(picture)

    def _open(self, source: str | Path) -> av.container.InputContainer:
        path = Path(source)
        try:
            if path.is_dir():
                raise InputError(f"{self.name} is a directory")
            if not path.exists() and "%" not in path.name:
                raise InputError(f"{self.name}: no such file")
            # The prefix keeps names with a colon from being read as network addresses.
            return av.open(f"file:{path}")
        except av.error.FileNotFoundError:
            raise InputError(f"{self.name}: no such file") from None
        except av.error.FFmpegError as error:
            raise InputError(f"{self.name}: not a readable video ({error.strerror})") from error
        except (OSError, ValueError) as error:  # a name that the system or FFmpeg cannot take
            raise InputError(f"{self.name}: cannot be opened ({error})") from error

    def _video_stream(self) -> av.VideoStream:
        for stream in self._container.streams.video:
            if stream.codec_context is None:
                raise InputError(f"{self.name}: no decoder for its video stream")
            if not stream.disposition & av.stream.Disposition.attached_pic:
                stream.codec_context.thread_count = 1  # with more, H.264 damage is concealed and not told
                return stream
        raise InputError(f"{self.name}: no video stream")

    def _pictures(self, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
        for packet in self._container.demux(stream):
            if packet.pos is not None:
                self._read_to = packet.pos + packet.size
            yield from packet.decode()

    def _check_whole(self) -> None:
        """At the end of the source: FFmpeg does not tell when that comes too early."""
        path = Path(self.name)
        if not path.is_file():  # an image sequence
            return
        if missing := missing_bytes(path):
            raise InputError(
                f"{self.name}: the file ends early, within or behind frame {self._number}: {missing} bytes are missing"
            )
        is_y4m = self._container.format.name == "yuv4mpegpipe"
        if is_y4m and self._number and path.stat().st_size > self._read_to:
            raise InputError(f"{self.name}: the file ends early, within frame {self._number}")

    def _decode(self) -> av.VideoFrame | None:
        """The next frame of the source, None at its end."""
        try:
            picture = next(self._decoded, None)
        except av.error.FFmpegError as error:
            raise InputError(f"{self.name}: frame {self._number} cannot be decoded ({error.strerror})") from error
        if picture is not None and picture.is_corrupt:
            raise InputError(f"{self.name}: frame {self._number} is damaged")
        if picture is None:
            self._check_whole()
        self._number += picture is not None
        return picture

    def _first(self) -> av.VideoFrame:
        """Skips to the start of the range."""
        while (picture := self._decode()) is not None:
            if self._number > self._start:
                return picture
        if self._number == 0:
            raise InputError(f"{self.name}: no frames")
        raise self._too_short()

    def _too_short(self) -> InputError:
        wanted = f"{self._start}:{'' if self._end is None else self._end}"
        count = f"{self._number} frame{'s' if self._number != 1 else ''}"
        return InputError(f"{self.name}: frames {wanted} were asked for, but it has only {count}")

    def _describe(self, stream: av.VideoStream, picture: av.VideoFrame) -> VideoProperties:
        context = stream.codec_context
        rate = next((r for r in (stream.guessed_rate, stream.average_rate) if r and _fits(r)), DEFAULT_RATE)
        time_base = picture.time_base if self._clocked and picture.time_base else 1 / rate
        aspect = stream.sample_aspect_ratio or Fraction(0, 1)
        tags = plane_tags(picture)
        location = CHROMA_CENTER if context.name == "mjpeg" else tags.chroma_location
        try:
            return VideoProperties(
                width=picture.width,
                height=picture.height,
                frame_rate=Fraction(rate),
                time_base=Fraction(time_base),
                sample_aspect_ratio=Fraction(aspect) if _fits(aspect) else Fraction(0, 1),
                color_range=tags.color_range,
                color_primaries=_tag(picture.color_primaries, context.color_primaries),
                color_trc=_tag(picture.color_trc, context.color_trc),
                colorspace=_tag(tags.colorspace, context.colorspace),
                chroma_location=location or read_chroma_location(Path(self.name)),
            )
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from error

    def _convert(self, picture: av.VideoFrame) -> Frame:
        if self._clocked and picture.pts is not None:
            pts = max(picture.pts - self._origin, self._last_pts + 1)  # display order, whatever the file says
        else:
            step = max(1, round(1 / (self.properties.frame_rate * self.properties.time_base)))
            pts = self._last_pts + step if self._last_pts >= 0 else 0
        self._last_pts = pts
        try:
            return Frame(to_planes(picture, self._reformatter), pts)
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from error


def _tag(code: int, fallback: int) -> int:
    """A frame's colour code, or its stream's where the frame states none; 0 is reserved."""
    return (fallback if code in (0, UNSPECIFIED) else code) or UNSPECIFIED


def _fits(ratio: Fraction) -> bool:
    return ratio >= 0 and ratio.numerator <= MAX_TERM and ratio.denominator <= MAX_TERM
