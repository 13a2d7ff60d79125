"""Everything of a video file that is not its pictures: audio tracks, subtitles, chapters, and its title.

Packets are copied as they are. What a .cwrv file holds of them (bitstream specification, 7.3) is an offset in whole
seconds and a file in the NUT format of FFmpeg: that keeps every time base, the parameters of every codec, languages,
dispositions and chapters. Its clock, plus the offset, counts from the first frame of the video.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

import av
import av.error

from nvcodec.core.errors import InputError, OutputError
from nvcodec.media.packet_clock import PacketClock

__all__ = ["Sound", "SoundWriter", "Window", "read_sound", "tracks_of"]

Window = tuple[Fraction | None, Fraction | None]
"""From when to when, in seconds; None is as early, or as late, as there is something. Packets that are over before it
begins, or begin when it is over, are left out. One that ends just where it begins stays: it sets a decoder up."""

_KINDS = ("audio", "subtitle")
_FORMAT = "nut"
_AAC_RATE = 160_000
"""Bits a second of what has to be encoded anew."""
_TITLES = ("title", "artist", "album", "date", "comment", "copyright", "genre", "description")


@dataclass(frozen=True)
class Sound:
    """``data``: a NUT file. ``offset``: whole seconds that its clock lies behind that of the video."""

    offset: int
    data: bytes

    def pack(self) -> bytes:
        """The payload of a section AUDIO: the offset, 32 bits with sign, little endian, and the file."""
        return self.offset.to_bytes(4, "little", signed=True) + self.data

    @staticmethod
    def unpack(payload: bytes) -> Sound:
        """Raises InputError for less than an offset."""
        if len(payload) < 4:
            raise InputError("AUDIO: the section ends within its offset")
        return Sound(int.from_bytes(payload[:4], "little", signed=True), payload[4:])


@dataclass(frozen=True)
class _Track:
    """``packets``: each with the seconds at which it begins, in the order of the file."""

    stream: Any
    packets: list[tuple[av.Packet, Fraction]]


def read_sound(source: str | Path, start: Fraction, window: Window) -> tuple[Sound | None, list[str]]:
    """What a file has beside its pictures, and notes for its user.

    ``start``: the time of the video's first frame, in the clock of the file; ``window`` counts from there.

    Raises InputError where the file cannot be read.
    """
    notes: list[str] = []
    try:
        with av.open(f"file:{source}") as container:
            streams = [s for s in container.streams if s.type in _KINDS]
            if not streams:
                return None, notes
            tracks = _tracks(container, streams, start, window)
            return _kept(container, tracks, start, window, notes), notes
    except av.error.FFmpegError as error:
        raise InputError(f"{source}: its sound cannot be read ({error.strerror}); --no-audio leaves it out") from error


def _tracks(container: Any, streams: list[Any], start: Fraction, window: Window) -> list[_Track]:
    """The packets of a window; ``start``: where its clock is at 0."""
    may_jump = bool(container.format.flags & cast(int, av.format.Flags.ts_discont.value))
    found: dict[int, list[tuple[av.Packet, Fraction]]] = {s.index: [] for s in streams}
    clocks = {s.index: PacketClock(may_jump=may_jump, step=Fraction(1, 50)) for s in streams}
    for packet in container.demux(streams):
        if packet.dts is None and packet.pts is None:
            continue
        clocks[packet.stream_index].set(packet)
        begin = (packet.pts if packet.pts is not None else packet.dts) * packet.time_base - start
        if window[1] is None or begin < window[1]:
            found[packet.stream_index].append((packet, begin))
    tracks = [_Track(s, _not_over(found[s.index], window[0])) for s in streams]
    return [track for track in tracks if track.packets]


def _not_over(packets: list[tuple[av.Packet, Fraction]], first: Fraction | None) -> list[tuple[av.Packet, Fraction]]:
    """Those that are not over before ``first``: by their durations, or by where the next one begins."""
    if first is None:
        return packets
    kept = []
    for (packet, begin), (_, then) in zip_longest(packets, packets[1:], fillvalue=(None, first - 1)):
        assert packet is not None
        end = max(begin + (packet.duration or 0) * packet.time_base, then)
        if begin >= first or end >= first:
            kept.append((packet, begin))
    return kept


def _kept(container: Any, tracks: list[_Track], start: Fraction, window: Window, notes: list[str]) -> Sound | None:
    if not tracks:
        return None
    first = min(begin for track in tracks for _, begin in track.packets)
    offset = first.numerator // first.denominator  # whole seconds: exact in every time base
    shift = start + offset
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=_FORMAT) as output:
        made: dict[int, Any] = {}
        for track in tracks:
            try:
                made[track.stream.index] = _copied_stream(output, track.stream)
            except ValueError:
                notes.append(f"{_named(track.stream)} cannot be kept and is left out")
        if not made:
            return None
        output.set_chapters(_moved_chapters(container, -shift, None if window[1] is None else window[1] - offset))
        output.metadata.update({k: v for k, v in container.metadata.items() if k.lower() in _TITLES})
        packets = [(begin, packet) for track in tracks for packet, begin in track.packets]
        for _, packet in sorted(packets, key=lambda pair: pair[0]):
            if packet.stream_index in made:
                _move(packet, -shift)
                packet.stream = made[packet.stream_index]
                output.mux_one(packet)
    return Sound(offset, buffer.getvalue())


def _copied_stream(output: Any, stream: Any) -> Any:
    made = output.add_stream_from_template(stream)
    made.metadata.update({k: v for k, v in stream.metadata.items() if k.lower() in ("language", "title")})
    made.disposition = stream.disposition
    return made


def _move(packet: Any, seconds: Fraction) -> None:
    ticks = round(seconds / packet.time_base)
    packet.pts = None if packet.pts is None else packet.pts + ticks
    packet.dts = None if packet.dts is None else packet.dts + ticks


def _moved_chapters(container: Any, shift: Fraction, end_of_video: Fraction | None) -> list[Any]:
    """Those of a file, ``shift`` later, as far as they lie within the video."""
    moved = []
    for chapter in container.chapters():
        ticks = round(shift / chapter["time_base"])
        start, end = (max(0, chapter[name] + ticks) for name in ("start", "end"))
        if end_of_video is not None:
            end = min(end, int(end_of_video / chapter["time_base"]))
        if end > start:
            moved.append(dict(chapter) | {"start": start, "end": end})
    return moved


def _named(stream: Any) -> str:
    language = stream.metadata.get("language")
    name = stream.codec_context.name if stream.codec_context else "of an unknown codec"
    return f"{stream.type} track {stream.index} ({name}{f', {language}' if language else ''})"


class SoundWriter:
    """Puts sound beside the pictures of a file that is being written. ``notes``: what a user should know.

    ``add_streams`` comes before the first packet of the output, ``write_until`` as the video goes on.
    """

    def __init__(self, sound: Sound, start: Fraction, window: Window) -> None:
        """``start``: of the part of the video that is written, in seconds; ``window`` counts from there."""
        self.notes: list[str] = []
        self._start, self._end, self._offset = start, window[1], sound.offset
        try:
            self._container = av.open(io.BytesIO(sound.data), format=_FORMAT)
            streams = [s for s in self._container.streams if s.type in _KINDS]
            self._tracks = _tracks(self._container, streams, start - sound.offset, window)
        except av.error.FFmpegError as error:
            raise InputError(f"AUDIO: not a readable file ({error.strerror})") from error
        self._waiting: list[tuple[Fraction, Any, Any]] = []

    def close(self) -> None:
        self._container.close()

    def add_streams(self, output: Any) -> None:
        """One for each track that the file can hold; what it cannot is encoded to AAC."""
        targets: dict[int, Any] = {}
        for track in self._tracks:
            try:
                targets[track.stream.index] = _copied_stream(output, track.stream)
            except ValueError:
                if track.stream.type == "audio":
                    self.notes.append(f"{_named(track.stream)} is encoded to aac: {output.format.name} cannot hold it")
                    self._add_encoded(output, track)
                else:
                    self.notes.append(f"{_named(track.stream)} is left out: {output.format.name} cannot hold it")
        shift = self._offset - self._start
        output.set_chapters(_moved_chapters(self._container, shift, self._end))
        output.metadata.update({k: v for k, v in self._container.metadata.items() if k.lower() in _TITLES})
        for track in self._tracks:
            for packet, begin in track.packets if track.stream.index in targets else ():
                _move(packet, shift)
                self._waiting.append((begin, packet, targets[track.stream.index]))
        self._waiting.sort(key=lambda entry: entry[0])
        self._waiting.reverse()

    def _add_encoded(self, output: Any, track: _Track) -> None:
        source = track.stream.codec_context
        made = output.add_stream("aac", rate=source.sample_rate)
        made.layout = source.layout
        made.bit_rate = _AAC_RATE
        made.metadata.update({k: v for k, v in track.stream.metadata.items() if k.lower() in ("language", "title")})
        made.disposition = track.stream.disposition
        shift = self._offset - self._start
        resampler = av.AudioResampler(format="fltp", layout=source.layout, rate=source.sample_rate)
        frames: list[Any] = [f for packet, _ in track.packets for f in packet.decode()]
        frames += source.decode(None)
        for frame in frames:
            frame.pts = None if frame.pts is None else frame.pts + round(shift / frame.time_base)
            for packet in (p for part in resampler.resample(frame) for p in made.encode(part)):
                self._waiting.append((packet.pts * packet.time_base, packet, made))
        for packet in (p for part in resampler.resample(None) for p in made.encode(part)):
            self._waiting.append((packet.pts * packet.time_base, packet, made))
        self._waiting += [(packet.pts * packet.time_base, packet, made) for packet in made.encode(None)]

    def write_until(self, output: Any, seconds: Fraction | None) -> None:
        """The packets that begin before that; None: all that are left."""
        while self._waiting and (seconds is None or self._waiting[-1][0] < seconds):
            _, packet, target = self._waiting.pop()
            packet.stream = target
            output.mux_one(packet)


def tracks_of(sound: Sound) -> list[Mapping[str, Any]]:
    """What ``info`` tells of each track.

    Raises OutputError where the file in it cannot be read.
    """
    try:
        with av.open(io.BytesIO(sound.data), format=_FORMAT) as container:
            return [
                {
                    "type": s.type,
                    "codec": s.codec_context.name if s.codec_context else "",
                    "language": s.metadata.get("language", ""),
                }
                for s in container.streams
                if s.type in _KINDS
            ]
    except av.error.FFmpegError as error:
        raise OutputError(f"AUDIO: not a readable file ({error.strerror})") from error
