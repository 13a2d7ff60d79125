"""The sound of a .cwrv file put beside the pictures of one that is being written."""

from __future__ import annotations

import io
from fractions import Fraction
from itertools import zip_longest
from typing import Any

import av
import av.error
import numpy as np

from nvcodec.core.errors import OutputError, SyntaxViolation
from nvcodec.media.packet_clock import moved
from nvcodec.media.sound import Sound, SoundReader, Track, Window, copied_stream, layout_of, moved_chapters, titles
from nvcodec.media.subtitles import add_text_stream, joined, packet_of_text, text_codec, text_of_packet, times_of

__all__ = ["SoundWriter", "tracks_of"]

_AAC_RATE = 160_000
"""Bits a second of what has to be encoded anew."""
_SAMPLE_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
"""That AAC has."""
_LAST = Fraction(5)
"""Seconds for which subtitles are shown that say no end, and that nothing follows."""
_LEAST_GAP = Fraction(1, 20)
"""Seconds between two pieces of sound that are filled with silence."""


class SoundWriter:
    """``notes``: what a user should know. ``add_streams`` comes before the first packet of the output, ``write_until``
    as the video goes on."""

    def __init__(self, sound: Sound, start: Fraction, window: Window) -> None:
        """``start``: of the part of the video that is written, in seconds; ``window`` counts from there.

        Raises SyntaxViolation where the file in it cannot be read.
        """
        self.notes: list[str] = []
        self._shift, self._end = sound.offset - start, window[1]
        try:
            self._reader = SoundReader(io.BytesIO(sound.data), start - sound.offset, window, (Fraction(0),))
        except (av.error.FFmpegError, ValueError) as error:
            raise _unreadable(error) from error
        self._waiting: list[tuple[Fraction, Any, Any]] = []

    def close(self) -> None:
        self._reader.close()

    def add_streams(self, output: Any) -> None:
        """One for each track that the file can hold; what it cannot is encoded to AAC.

        Raises OutputError where that fails.
        """
        for track in self._reader.tracks:
            try:
                target = copied_stream(output, track.stream)
            except ValueError:
                self._add_other(output, track)
                continue
            for packet, begin in track.packets:
                moved(packet, self._shift)
                if track.stream.type == "subtitle":
                    _from_start(packet)
                self._waiting.append((begin, packet, target))
        output.set_chapters(moved_chapters(self._reader.container, self._shift, self._end))
        output.metadata.update(titles(self._reader.container))
        self._waiting.sort(key=lambda entry: entry[0])
        self._waiting.reverse()  # the next one stands last

    def _add_other(self, output: Any, track: Track) -> None:
        if track.stream.type != "audio":
            self._add_text(output, track)
            return
        self.notes.append(f"{track} is encoded to aac: {output.format.name} cannot hold it")
        try:
            self._add_encoded(output, track)
        except (av.error.FFmpegError, ValueError) as error:
            raise OutputError(f"{track} cannot be encoded to aac ({error}); --no-audio leaves it out") from error

    def _add_text(self, output: Any, track: Track) -> None:
        codec = text_codec(track.stream)
        try:
            if not codec:
                raise ValueError("these subtitles are pictures")
            target = add_text_stream(output, track.stream)
        except ValueError:
            self.notes.append(f"{track} is left out: {output.format.name} cannot hold it")
            return
        name = target.codec_context.name
        if codec != "subrip":
            self.notes.append(f"{track} becomes plain text ({name}): {output.format.name} cannot hold it")
        cues = []
        following = [begin for _, begin in track.packets[1:]]
        for (packet, _), then in zip_longest(track.packets, following):
            moved(packet, self._shift)
            _from_start(packet)
            begin, end = times_of(packet)
            if end == begin:
                end = begin + _LAST if then is None else max(then, begin)
            cues.append((begin, end, text_of_packet(codec, bytes(packet))))
        for begin, end, text in joined(cues) if name == "mov_text" else cues:
            self._waiting.append((begin, packet_of_text(name, text, begin, end), target))

    def _add_encoded(self, output: Any, track: Track) -> None:
        source, layout = track.stream.codec_context, layout_of(track.stream) or "stereo"
        source.layout = layout
        rate = next((r for r in _SAMPLE_RATES if r <= source.sample_rate), _SAMPLE_RATES[-1])
        made = output.add_stream("aac", rate=rate)
        made.layout, made.bit_rate = layout, _AAC_RATE
        made.metadata.update({k: v for k, v in track.stream.metadata.items() if k.lower() in ("language", "title")})
        made.disposition = track.stream.disposition
        resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
        frames: list[Any] = [f for packet, _ in track.packets for f in packet.decode()]
        frames += source.decode(None)
        at: int | None = None  # where the next sample of the output lies
        for frame in [*frames, None]:
            begin = None if frame is None or frame.pts is None else frame.pts * frame.time_base + self._shift
            for part in resampler.resample(frame):
                if at is None:
                    at = round((begin or Fraction(0)) * rate)
                gap = 0 if begin is None else round(begin * rate) - at
                if gap > _LEAST_GAP * rate:
                    at = self._encode(made, _silence(gap, layout, rate), at, rate)
                at = self._encode(made, part, at, rate)
        self._keep(made, made.encode(None))

    def _encode(self, made: Any, frame: Any, at: int, rate: int) -> int:
        frame.pts, frame.time_base = at, Fraction(1, rate)
        self._keep(made, made.encode(frame))
        return at + int(frame.samples)

    def _keep(self, made: Any, packets: list[Any]) -> None:
        self._waiting += [(packet.pts * packet.time_base, packet, made) for packet in packets]

    def write_until(self, output: Any, seconds: Fraction | None) -> None:
        """The packets that begin before that; None: all that are left.

        Raises OutputError where the file does not take one.
        """
        while self._waiting and (seconds is None or self._waiting[-1][0] < seconds):
            begin, packet, target = self._waiting.pop()
            packet.stream = target
            try:
                output.mux_one(packet)
            except av.error.FFmpegError as error:
                what = f"the sound at {float(begin):.3f} s cannot be written ({error.strerror})"
                raise OutputError(f"{what}; --no-audio leaves it out") from error


def _from_start(packet: Any) -> None:
    """What began before the first picture is shown from there on."""
    if packet.pts is not None and packet.pts < 0:
        packet.duration = max((packet.duration or 0) + packet.pts, 0)
        packet.pts = packet.dts = 0


def _silence(samples: int, layout: str, rate: int) -> av.AudioFrame:
    channels = av.AudioLayout(layout).nb_channels
    frame = av.AudioFrame.from_ndarray(np.zeros((channels, samples), np.float32), "fltp", layout)
    frame.sample_rate = rate
    return frame


def tracks_of(sound: Sound) -> list[dict[str, str]]:
    """What ``info`` tells of each track.

    Raises SyntaxViolation where the file in it cannot be read.
    """
    try:
        reader = SoundReader(io.BytesIO(sound.data), Fraction(0), (None, None), (Fraction(0),))
    except (av.error.FFmpegError, ValueError) as error:
        raise _unreadable(error) from error
    try:
        return [
            {
                "type": track.stream.type,
                "codec": track.stream.codec_context.name if track.stream.codec_context else "",
                "language": track.stream.metadata.get("language", ""),
            }
            for track in reader.tracks
        ]
    finally:
        reader.close()


def _unreadable(error: Exception) -> SyntaxViolation:
    return SyntaxViolation(f"AUDIO: not a readable file ({getattr(error, 'strerror', None) or error})")
