"""Video files in and out, as 4:2:0 :class:`~nvcodec.core.frame.Frame` records.

Reading is here; writing is in :mod:`nvcodec.media.video_write` and re-exported. :mod:`nvcodec.media.av_frame` says how
other pixel formats become 4:2:0. Pictures come as they are stored: how they are to be turned is a property.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import av
import av.error
from av.video.reformatter import VideoReformatter

from nvcodec.core.errors import InputError
from nvcodec.core.frame import CHROMA_CENTER, FIELD_ORDERS, MAX_TERM, UNSPECIFIED, Frame, VideoProperties
from nvcodec.media.av_frame import bit_depth_of, output_format, plane_tags, to_planes
from nvcodec.media.hdr import content_light_of, mastering_display_of
from nvcodec.media.packet_clock import PacketClock
from nvcodec.media.picture_names import check_complete, first_number, is_glob, is_numbered
from nvcodec.media.source_length import missing_bytes
from nvcodec.media.video_write import CODECS, STDOUT, check_output, write_video
from nvcodec.media.y4m import read_chroma_location

__all__ = [
    "CODECS",
    "STDOUT",
    "ReadOptions",
    "VideoReader",
    "check_can_be_read_again",
    "check_output",
    "parse_frame_range",
    "write_video",
]

DEFAULT_RATE = Fraction(25)
"""Assumed when neither container nor codec states a frame rate, as FFmpeg does."""

_FIELD_ORDERS = dict(enumerate(FIELD_ORDERS, 2))
"""By FFmpeg's numbers."""
_AS_THEY_ARE = ("yuv420p", "yuvj420p", "nv12", "nv21", "yuv420p10le", "yuv420p10be", "p010le", "p010be")
"""Layouts whose samples are those of yuv420p, or of yuv420p10le."""
_AS_IT_IS = (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
_TS_DISCONT = cast(int, av.format.Flags.ts_discont.value)

FrameRange = tuple[int, int | None]
"""Half-open range of frame numbers; None is the end of the video."""


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How a source is read. ``framerate``: of pictures, which have none of their own; 25 where it is not given.
    ``stream``: which of its video streams, from 0; that which FFmpeg takes where it is not given. ``skips_damage``:
    whether a frame that cannot be decoded shows the one before it, and is no error. ``strict``: whether samples
    that are not 4:2:0 of 8 or 10 bits already are an error; else they are converted."""

    framerate: Fraction | None = None
    stream: int | None = None
    skips_damage: bool = False
    strict: bool = False


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


_AS_USUAL = ReadOptions()


class VideoReader(Iterator[Frame]):
    """Decodes a video file, numbered pictures (``img_%03d.png``, ``img_*.png``) or a single one, in display order.

    ::

        with VideoReader("clip.mkv", frames=(0, 33)) as reader:
            for frame in reader:
                ...

    An iterator: it reads once, and holds one frame at a time. Timestamps count from the first frame delivered and keep
    the time base and the exact spacing of the source; where its clock starts again, they go on
    (:mod:`nvcodec.media.packet_clock`). A source without timestamps gets them from its frame rate.

    Attributes:
        name: the source, as given.
        properties: known as soon as the reader exists; colour tags are those of the first frame delivered.
        notes: what a user should know of what was read so far, a line each.
        start: when the first frame delivered is shown, in seconds of the source's own clock.

    Raises:
        InputError: the source is missing, is not a video or has no frame in the range; and while iterating:
            it has fewer frames than the range asks for, the decoder reports damage, the picture size changes, or
            the file ends before the length that it states (:mod:`nvcodec.media.source_length`).
    """

    def __init__(
        self, source: str | Path, *, frames: FrameRange | None = None, options: ReadOptions = _AS_USUAL
    ) -> None:
        self.name = str(source)
        self._start, self._end = frames if frames is not None else (0, None)
        if self._start < 0 or (self._end is not None and self._end <= self._start):
            raise InputError(f"frame range {self._start}:{self._end} is empty")
        self._options = options
        self._notes: list[str] = []
        self._container = self._open(source, options.framerate)
        self._number = 0  # of the next frame to decode, in the whole source
        self._reformatter = VideoReformatter()
        try:
            stream = self._video_stream()
            self._read_to = 0  # in the file, by what the demuxer says
            rate = stream.guessed_rate or stream.average_rate or DEFAULT_RATE
            may_jump = bool(self._container.format.flags & _TS_DISCONT)
            self._clock = PacketClock(may_jump=may_jump, step=1 / Fraction(rate))
            self._good: av.VideoFrame | None = None
            self._display: tuple[int, ...] = ()
            self._light: tuple[int, ...] = ()
            self._lost: list[int] = []
            self._decoded = self._pictures(stream)
            self._waiting: tuple[av.VideoFrame, int | None] | None = self._first()
            picture, pts = self._waiting
            self._shape = (picture.width, picture.height)
            self._clocked = pts is not None and bool(picture.time_base)
            self.properties = self._describe(stream, picture)
            self._origin = pts or 0
            self._tell_conversion(picture)
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
        found = self._waiting
        self._waiting = None
        if found is None:
            if self._end is not None and self._number >= self._end:
                raise StopIteration
            found = self._decode()
            if found is None and self._end is not None:
                raise self._too_short()
            if found is None:
                raise StopIteration
        picture, pts = found
        if bit_depth_of(picture) != self.properties.bit_depth:
            raise InputError(f"{self.name}: the bit depth changes at frame {self._number - 1}")
        if (picture.width, picture.height) != self._shape:
            raise InputError(
                f"{self.name}: the picture size changes at frame {self._number - 1}, from "
                f"{self._shape[0]}x{self._shape[1]} to {picture.width}x{picture.height}"
            )
        return self._convert(picture, pts)

    def _open(self, source: str | Path, framerate: Fraction | None) -> av.container.InputContainer:
        path = Path(source)
        try:
            if path.is_dir():
                raise InputError(f"{self.name} is a directory")
            options = {} if framerate is None else {"framerate": str(framerate)}
            if is_numbered(path):
                check_complete(path)
                options["start_number"] = str(first_number(path))
            elif is_glob(path):
                options["pattern_type"] = "glob"
                return av.open(str(path.absolute()), format="image2", options=options)
            elif not path.exists():
                raise InputError(f"{self.name}: no such file")
            elif framerate is not None:
                raise InputError(f"{self.name}: a frame rate is for numbered pictures and patterns of names")
            # The prefix keeps names with a colon from being read as network addresses.
            return av.open(f"file:{path}", options=options, metadata_errors="replace")
        except av.error.FileNotFoundError:
            raise InputError(f"{self.name}: no such file") from None
        except av.error.FFmpegError as error:
            raise InputError(f"{self.name}: not a readable video ({error.strerror})") from error
        except (OSError, ValueError) as error:  # a name that the system or FFmpeg cannot take
            raise InputError(f"{self.name}: cannot be opened ({error})") from error

    def _video_stream(self) -> av.VideoStream:
        streams = list(self._container.streams.video)
        if not streams:
            raise InputError(f"{self.name}: no video stream")
        wanted = self._options.stream
        if wanted is not None and wanted >= len(streams):
            raise InputError(f"{self.name}: there is no video stream {wanted}, the last one is {len(streams) - 1}")
        stream = self._best(streams) if wanted is None else streams[wanted]
        if stream.codec_context is None:
            raise InputError(f"{self.name}: no decoder for its video stream")
        if len(streams) > 1 and wanted is None:
            self._notes.append(
                f"video stream {streams.index(stream)} of {len(streams)} is taken ({stream.codec_context.name}, "
                f"{stream.codec_context.width}x{stream.codec_context.height}); --stream takes another one"
            )
        stream.codec_context.thread_count = 1  # with more, H.264 damage is concealed and not told
        return stream

    def _best(self, streams: list[av.VideoStream]) -> av.VideoStream:
        """That which FFmpeg takes; a cover is no video."""
        videos = [s for s in streams if not s.disposition & av.stream.Disposition.attached_pic]
        if not videos:
            raise InputError(f"{self.name}: no video stream")
        best = self._container.streams.best("video")
        return next((s for s in videos if best is not None and s.index == best.index), videos[0])

    @property
    def start(self) -> Fraction:
        return self._origin * self.properties.time_base

    @property
    def clock_offsets(self) -> tuple[Fraction, ...]:
        """Seconds that were added to the times of the source, from its start on and behind each jump of its clock."""
        return tuple(self._clock.offsets)

    @property
    def notes(self) -> tuple[str, ...]:
        found = list(self._notes)
        if order := self.properties.field_order:
            first = "top" if order in ("tt", "bt") else "bottom"
            found.append(f"interlaced pictures ({first} field first) are coded as they come; the field order is kept")
        if self._clock.jumps:
            at, by = self._clock.jumps[0]
            more = f", and {len(self._clock.jumps) - 1} times more" if len(self._clock.jumps) > 1 else ""
            found.append(f"the clock of the source is off by {by:+.3f} s at {at:.3f} s{more}: the video goes on there")
        if self._lost:
            lost = ", ".join(map(str, self._lost[:20])) + (", ..." if len(self._lost) > 20 else "")
            found.append(f"{len(self._lost)} damaged frames show the one before them: {lost}")
        return tuple(found)

    def _pictures(self, stream: av.VideoStream) -> Iterator[tuple[av.VideoFrame, int | None]]:
        """Pictures and their timestamps. With ``skips_damage``, in the place of one that is lost, by the timestamp of
        its packet, the one that is shown before it."""
        lost: list[int] = []
        for packet in self._packets(stream):
            self._clock.set(packet)
            try:
                decoded = packet.decode()
            except av.error.FFmpegError:
                if not self._options.skips_damage or self._good is None:
                    raise
                if packet.pts is not None:
                    lost.append(packet.pts)
                continue
            for picture in decoded:
                yield from self._repeated(lost, picture.pts)
                yield picture, picture.pts
        yield from self._repeated(lost, None)

    def _repeated(self, lost: list[int], before: int | None) -> Iterator[tuple[av.VideoFrame, int | None]]:
        for pts in sorted(pts for pts in lost if before is None or pts < before):
            lost.remove(pts)
            assert self._good is not None
            self._lost.append(self._number)
            yield self._good, pts

    def _packets(self, stream: av.VideoStream) -> Iterator[av.Packet]:
        packets = self._container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as error:
                if not self._options.skips_damage or self._good is None:
                    raise
                self._notes.append(f"it cannot be read behind frame {self._number - 1} ({error.strerror})")
                return
            if packet is None:
                return
            if packet.pos is not None:
                self._read_to = packet.pos + packet.size
            yield packet

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

    def _decode(self) -> tuple[av.VideoFrame, int | None] | None:
        """The next frame of the source and its timestamp, None at its end."""
        try:
            found = next(self._decoded, None)
        except av.error.FFmpegError as error:
            raise InputError(f"{self.name}: frame {self._number} cannot be decoded ({error.strerror})") from error
        if found is None:
            self._check_whole()
            return None
        picture, pts = found
        if picture.is_corrupt:
            if not self._options.skips_damage or self._good is None:
                raise InputError(f"{self.name}: frame {self._number} is damaged")
            self._lost.append(self._number)
            picture = self._good
        self._good = picture
        self._display = mastering_display_of(picture) or self._display  # H.264 has it in key frames alone
        self._light = content_light_of(picture) or self._light
        self._number += 1
        return picture, pts

    def _first(self) -> tuple[av.VideoFrame, int | None]:
        """Skips to the start of the range."""
        while (found := self._decode()) is not None:
            if self._number > self._start:
                return found
        if self._number == 0:
            raise InputError(f"{self.name}: no frames")
        raise self._too_short()

    def _too_short(self) -> InputError:
        wanted = f"{self._start}:{'' if self._end is None else self._end}"
        count = f"{self._number} frame{'s' if self._number != 1 else ''}"
        return InputError(f"{self.name}: frames {wanted} were asked for, but it has only {count}")

    def _tell_conversion(self, picture: av.VideoFrame) -> None:
        found = picture.format
        if found.name in _AS_THEY_ARE:
            return
        bits = max(component.bits for component in found.components)
        made = bit_depth_of(picture)
        text = f"{found.name} ({bits} bits) is converted to {output_format(made)} ({made} bits)"
        if self._options.strict:
            raise InputError(f"{self.name}: {text}, which --strict refuses")
        self._notes.append(text)

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
                field_order=_FIELD_ORDERS.get(context.field_order, ""),
                bit_depth=bit_depth_of(picture),
                display_matrix=_display_matrix(picture),
                mastering_display=self._display,
                content_light=self._light,
            )
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from error

    def _convert(self, picture: av.VideoFrame, stamp: int | None) -> Frame:
        if self._clocked and stamp is not None:
            pts = max(stamp - self._origin, self._last_pts + 1)  # display order, whatever the file says
        else:
            step = max(1, round(1 / (self.properties.frame_rate * self.properties.time_base)))
            pts = self._last_pts + step if self._last_pts >= 0 else 0
        self._last_pts = pts
        try:
            return Frame(to_planes(picture, self._reformatter), pts)
        except InputError as error:
            raise InputError(f"{self.name}: frame {self._number - 1}: {error}") from error


def _display_matrix(picture: av.VideoFrame) -> tuple[int, ...]:
    for data in cast(Any, picture.side_data):
        if data.type.name == "DISPLAYMATRIX" and len(bytes(data)) == 36:
            matrix = struct.unpack("<9i", bytes(data))
            return () if matrix == _AS_IT_IS else matrix
    return ()


def _tag(code: int, fallback: int) -> int:
    """A frame's colour code, or its stream's where the frame states none; 0 is reserved."""
    return (fallback if code in (0, UNSPECIFIED) else code) or UNSPECIFIED


def _fits(ratio: Fraction) -> bool:
    return ratio >= 0 and ratio.numerator <= MAX_TERM and ratio.denominator <= MAX_TERM
