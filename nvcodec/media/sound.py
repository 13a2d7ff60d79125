"""What a video file has beside its pictures: audio tracks, subtitles, chapters, and its title; and how it is read.

Packets are copied as they are, but for MP4's subtitles, of which the text is kept. What a .cwrv file holds of them
(bitstream specification, 7.3) is an offset in whole seconds and a file in the NUT format of FFmpeg, which keeps every
time base, the parameters of codecs, languages, dispositions and chapters; or in Matroska, where there are subtitles,
which NUT knows no end of, or codecs that NUT does not know. Its clock, plus the offset, counts from the first frame of
the video.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import Any

import av
import av.error

from nvcodec.core.errors import InputError, SyntaxViolation
from nvcodec.core.limits import MAX_AUDIO_BYTES
from nvcodec.media.packet_clock import Follower, moved
from nvcodec.media.subtitles import add_text_stream, blank_packet, packet_of_text, text_codec, text_of_packet, times_of

__all__ = ["Sound", "SoundReader", "Track", "Window", "copied_stream", "moved_chapters", "read_sound", "titles"]

Window = tuple[Fraction | None, Fraction | None]
"""From when to when, in seconds; None is as early, or as late, as there is something. Packets that are over before it
begins, or begin when it is over, are left out. One that ends just where it begins stays: it sets a decoder up."""

_NUT, _MATROSKA = "nut", "matroska"
_SIGNATURES = {_NUT: b"nut/multimedia container\0", _MATROSKA: b"\x1a\x45\xdf\xa3"}
_KINDS = ("audio", "subtitle")
_TITLES = ("title", "artist", "album", "date", "comment", "copyright", "genre", "description")
_LAYOUT = "layout"
"""Name of the channels of a track, in the metadata of its stream: NUT knows their number alone."""
_OVER = Fraction(10)
"""Seconds behind the end of a window, after which nothing of it comes any more."""


@dataclass(frozen=True)
class Sound:
    """``data``: a file in NUT or Matroska. ``offset``: whole seconds that its clock lies behind that of the video."""

    offset: int
    data: bytes = field(repr=False)

    def pack(self) -> bytes:
        """The payload of a section AUDIO: the offset, 32 bits with sign, little endian, and the file.

        Raises InputError for more than a file may hold.
        """
        if len(self.data) + 4 > MAX_AUDIO_BYTES or not -(2**31) <= self.offset < 2**31:
            raise InputError(
                f"sound of {len(self.data)} bytes, {self.offset} s behind the pictures, is more than a file holds; "
                "--no-audio leaves it out"
            )
        return self.offset.to_bytes(4, "little", signed=True) + self.data

    @staticmethod
    def unpack(payload: bytes) -> Sound:
        """Raises SyntaxViolation for less than an offset."""
        if len(payload) < 4:
            raise SyntaxViolation("AUDIO: the section ends within its offset")
        return Sound(int.from_bytes(payload[:4], "little", signed=True), payload[4:])


@dataclass(frozen=True)
class Track:
    """``packets``: each with the seconds at which it begins, in the order of the file."""

    stream: Any
    packets: list[tuple[av.Packet, Fraction]]

    def __str__(self) -> str:
        words = [self.stream.codec_context.name if self.stream.codec_context else "of an unknown codec"]
        words += [self.stream.metadata["language"]] if "language" in self.stream.metadata else []
        return f"{self.stream.type} track {self.stream.index} ({', '.join(words)})"


class SoundReader:
    """An open file and its tracks. Raises FFmpegError and ValueError as PyAV does."""

    def __init__(self, file: str | io.BytesIO, start: Fraction, window: Window, offsets: Sequence[Fraction]) -> None:
        """``start``: where the clock of ``window`` is at 0. ``offsets``: of the clock of the video."""
        kind = None if isinstance(file, str) else _format_of(file.getvalue())
        self._most = math.inf if isinstance(file, str) else len(file.getvalue())  # packets may be compressed
        self.container: Any = av.open(file, format=kind, metadata_errors="replace")
        try:
            streams = [s for s in self.container.streams if s.type in _KINDS and (s.codec_context or kind is None)]
            self.tracks = self._read(streams, start, window, offsets) if streams else []
        except BaseException:
            self.container.close()
            raise

    def close(self) -> None:
        self.container.close()

    def _read(self, streams: list[Any], start: Fraction, window: Window, offsets: Sequence[Fraction]) -> list[Track]:
        found: dict[int, list[tuple[av.Packet, Fraction]]] = {s.index: [] for s in streams}
        clocks = {s.index: Follower(offsets) for s in streams}
        size = 0
        for packet in self.container.demux(streams):
            size += packet.size
            if size > self._most:
                raise ValueError("packets that are larger than the file")
            stamp = packet.pts if packet.pts is not None else packet.dts
            if stamp is None or not packet.time_base:
                continue
            clocks[packet.stream_index].set(packet)
            stamp = packet.pts if packet.pts is not None else packet.dts
            assert stamp is not None
            begin = stamp * packet.time_base - start
            if window[1] is None or begin < window[1]:
                found[packet.stream_index].append((packet, begin))
            elif begin > window[1] + _OVER and len(offsets) == 1:
                break
        for s in streams:
            if codec := text_codec(s):
                found[s.index] = [(p, begin) for p, begin in found[s.index] if text_of_packet(codec, bytes(p)).strip()]
        tracks = [Track(s, _not_over(found[s.index], window[0])) for s in streams]
        return [track for track in tracks if track.packets]


def _format_of(data: bytes) -> str:
    """Of the two in which a .cwrv file may have it."""
    return next((name for name, signature in _SIGNATURES.items() if data.startswith(signature)), _NUT)


def _not_over(packets: list[tuple[av.Packet, Fraction]], first: Fraction | None) -> list[tuple[av.Packet, Fraction]]:
    """Those that are not over before ``first``: by their durations, or by where the next one begins."""
    if first is None:
        return packets
    kept = []
    for (packet, begin), (_, then) in zip_longest(packets, packets[1:], fillvalue=(None, first - 1)):
        assert packet is not None
        end = begin + packet.duration * packet.time_base if packet.duration and packet.time_base else then
        if begin >= first or end >= first:
            kept.append((packet, begin))
    return kept


def read_sound(
    source: str | Path, start: Fraction, window: Window, offsets: Sequence[Fraction] = (Fraction(0),)
) -> tuple[Sound | None, list[str]]:
    """What a file has beside its pictures, and notes for its user.

    ``start``: the time of the video's first frame, in the clock of the file; ``window`` counts from there. ``offsets``:
    of the clock of the video, see ``PacketClock``.

    Raises InputError where the file cannot be read.
    """
    notes: list[str] = []
    try:
        reader = SoundReader(f"file:{source}", start, window, offsets)
        try:
            return _kept(reader, start, window, notes), notes
        finally:
            reader.close()
    except av.error.FFmpegError as error:
        raise InputError(f"{source}: its sound cannot be read ({error.strerror}); --no-audio leaves it out") from error


def _kept(reader: SoundReader, start: Fraction, window: Window, notes: list[str]) -> Sound | None:
    if not reader.tracks and not titles(reader.container) and not reader.container.chapters():
        return None
    first = min((begin for track in reader.tracks for _, begin in track.packets), default=Fraction(0))
    offset = first.numerator // first.denominator  # whole seconds: exact in every time base
    shift = -(start + offset)
    kind = _container_for(reader.tracks)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind, options={"fflags": "bitexact"}) as output:
        made: dict[int, Any] = {}
        texts: dict[int, str] = {}
        for track in reader.tracks:
            index, codec = track.stream.index, text_codec(track.stream)
            try:
                if track.stream.type == "subtitle" and kind == _NUT:
                    codec = ""
                    raise ValueError("NUT knows no end of subtitles")
                made[index] = copied_stream(output, track.stream)
            except (ValueError, AttributeError):
                if codec:
                    made[index], texts[index] = add_text_stream(output, track.stream), codec
                    notes.append(f"{track} is kept as plain text")
                else:
                    notes.append(f"{track} cannot be kept and is left out")
        if not made and not titles(reader.container) and not reader.container.chapters():
            return None
        if not made and kind == _MATROSKA:
            empty = add_text_stream(output, None)  # there is no file without a track
        end = None if window[1] is None else window[1] - offset
        output.set_chapters(moved_chapters(reader.container, shift, end))
        output.metadata.update(titles(reader.container))
        for track in reader.tracks:
            if track.stream.type == "audio" and track.stream.index in made:
                made[track.stream.index].metadata[_LAYOUT] = track.stream.layout.name
        packets = [(begin, packet) for track in reader.tracks for packet, begin in track.packets]
        if not made:
            if kind == _NUT:
                return None
            output.mux_one(blank_packet(empty))
        last: dict[int, int] = {}
        track_kinds = {track.stream.index: track.stream.type for track in reader.tracks}
        for _, packet in sorted(packets, key=lambda pair: pair[0]):
            index = packet.stream_index
            if index not in made:
                continue
            moved(packet, shift)
            if index in texts:
                text = text_of_packet(texts[index], bytes(packet))
                if not text:
                    continue
                packet = packet_of_text(made[index].codec_context.name, text, *times_of(packet))
            _rising(packet, last.get(index), 0 if track_kinds[index] == "subtitle" else 1)
            last[index] = packet.dts or 0
            packet.stream = made[index]
            output.mux_one(packet)
    return Sound(offset, buffer.getvalue())


def _container_for(tracks: Sequence[Track]) -> str:
    """NUT where that holds all that can be held at all, or sound that Matroska does not hold; else Matroska."""
    sound = [track for track in tracks if track.stream.type == "audio"]
    in_nut, in_matroska = ([_holds(kind, track) for track in sound] for kind in (_NUT, _MATROSKA))
    if any(one and not other for one, other in zip(in_nut, in_matroska, strict=True)):
        return _NUT
    is_more = len(sound) < len(tracks) or any(m and not n for n, m in zip(in_nut, in_matroska, strict=True))
    return _MATROSKA if is_more or not tracks else _NUT


def _holds(kind: str, track: Track) -> bool:
    try:
        with av.open(io.BytesIO(), "w", format=kind) as trial:
            trial.add_stream_from_template(track.stream)
    except (ValueError, AttributeError):
        return False
    return True


def _rising(packet: Any, before: int | None, step: int) -> None:
    """Files that repeat a time, or go back by a tick, are muxed as if they had gone on. ``step``: at least that far."""
    if packet.dts is None:
        packet.dts = packet.pts
    if before is not None and packet.dts < before + step:
        packet.dts = before + step
        packet.pts = packet.dts if packet.pts is None else max(packet.pts, packet.dts)


def copied_stream(output: Any, stream: Any) -> Any:
    """A stream of ``output`` for the packets of another one. Raises ValueError where it cannot hold them."""
    made = output.add_stream_from_template(stream)
    made.metadata.update({k: v for k, v in stream.metadata.items() if k.lower() in ("language", "title")})
    made.disposition = stream.disposition
    if stream.type == "audio" and (layout := layout_of(stream)):
        made.codec_context.layout = layout
    return made


def layout_of(stream: Any) -> str:
    """Name of the channels of an audio stream: by what was kept with it, or the usual ones of so many."""
    count = stream.layout.nb_channels
    for name in (stream.metadata.get(_LAYOUT), stream.layout.name, *_USUAL_LAYOUTS.get(count, ())):
        try:
            layout = av.AudioLayout(name) if name else None
        except ValueError:
            continue
        if layout is not None and layout.nb_channels == count and layout.channels and "channels" not in layout.name:
            return str(layout.name)
    return ""


_USUAL_LAYOUTS = {1: ("mono",), 2: ("stereo",), 3: ("2.1",), 4: ("4.0",), 5: ("5.0",), 6: ("5.1",), 8: ("7.1",)}


def titles(container: Any) -> dict[str, str]:
    """Of the whole."""
    return {name: value for name, value in container.metadata.items() if name.lower() in _TITLES}


def moved_chapters(container: Any, shift: Fraction, end_of_video: Fraction | None) -> list[Any]:
    """Those of a file, ``shift`` later, as far as they lie within the video."""
    found = []
    for chapter in container.chapters():
        ticks = round(shift / chapter["time_base"])
        start, end = (max(0, chapter[name] + ticks) for name in ("start", "end"))
        if end_of_video is not None:
            end = min(end, int(end_of_video / chapter["time_base"]))
        if end > start:
            found.append(dict(chapter) | {"start": start, "end": end})
    return found
