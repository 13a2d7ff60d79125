"""Subtitles of text in packets of unlike codecs: what a file cannot hold as it is becomes plain text that it can."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av

__all__ = ["add_text_stream", "blank_packet", "joined", "packet_of_text", "text_codec", "text_of_packet", "times_of"]

_BY_FORMAT = {"matroska": "subrip", "mp4": "mov_text"}
"""The codec of text of each kind of file."""
_TAGS, _BRACES = re.compile(r"</?[A-Za-z][^>]*>"), re.compile(r"\{\\[^}]*\}")
_DRAWING = re.compile(r"\{[^}]*\\p[1-9][^}]*\}.*?(?=\{[^}]*\\p0[^}]*\}|$)", re.DOTALL)
_HEADER = b"""[Script Info]
ScriptType: v4.00+
PlayResX: 384
PlayResY: 288

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
""".replace(b"\n", b"\r\n")
"""What FFmpeg's encoders of text want to know of its style."""


def text_codec(stream: Any) -> str:
    """The codec of a stream of subtitles if that is text, else nothing."""
    name = stream.codec_context.codec.canonical_name if stream.type == "subtitle" and stream.codec_context else ""
    return name if name in ("subrip", "mov_text", "text", "webvtt", "ass", "ssa") else ""


def add_text_stream(output: Any, like: Any | None) -> Any:
    """A stream of plain text in ``output``, with the language and title of another one, if there is one.

    Raises ValueError where the file has none.
    """
    kind = "matroska" if "matroska" in output.format.name else output.format.name
    if kind not in _BY_FORMAT:
        raise ValueError(f"{output.format.name} has no subtitles of text")
    made = output.add_stream(_BY_FORMAT[kind])
    made.codec_context.subtitle_header = _HEADER
    if like is not None:
        made.metadata.update({k: v for k, v in like.metadata.items() if k.lower() in ("language", "title")})
        made.disposition = like.disposition
    return made


def text_of_packet(codec: str, data: bytes) -> str:
    """Lines without marks of style; empty where nothing is shown."""
    if codec == "mov_text":
        data = data[2 : 2 + int.from_bytes(data[:2], "big")]
    text = data.decode("utf-8", "replace")
    if codec in ("ass", "ssa"):  # ReadOrder, Layer, Style, Name, MarginL, MarginR, MarginV, Effect, Text
        text = _DRAWING.sub("", text.split(",", 8)[-1])
        text = text.replace(r"\N", "\n").replace(r"\n", "\n").replace(r"\h", " ")
    if codec in ("ass", "ssa", "subrip"):
        text = _BRACES.sub("", text)
    if codec in ("subrip", "webvtt"):
        text = _TAGS.sub("", text)
    if codec == "webvtt":
        text = html.unescape(text)
    return text.replace("\r\n", "\n").strip("\n")


def joined(cues: Sequence[tuple[Fraction, Fraction, str]]) -> list[tuple[Fraction, Fraction, str]]:
    """What is shown from when to when, one text at a time: of those (begin, end, text) that overlap, all lines."""
    times = sorted({time for begin, end, _ in cues for time in (begin, end)})
    found = []
    for begin, end in pairwise(times):
        if lines := [text for first, last, text in cues if first < end and last > begin]:
            found.append((begin, end, "\n".join(lines)))
    return found


def packet_of_text(codec: str, text: str, begin: Fraction, end: Fraction) -> Any:
    """A packet of ``codec`` that is shown between these seconds, to a millisecond."""
    data = text.encode()
    if codec == "mov_text":
        data = data[:65535].decode("utf-8", "ignore").encode()
        data = len(data).to_bytes(2, "big") + data
    packet = av.Packet(data)
    packet.pts = packet.dts = round(1000 * begin)
    packet.duration = round(1000 * end) - round(1000 * begin)
    packet.time_base = Fraction(1, 1000)
    return packet


def times_of(packet: Any) -> tuple[Fraction, Fraction]:
    """From when to when it is shown, in seconds; both alike where it says no end."""
    begin = (packet.dts if packet.pts is None else packet.pts) * packet.time_base
    return begin, begin + (packet.duration or 0) * packet.time_base


def blank_packet(stream: Any) -> Any:
    """One that shows nothing, at the start."""
    packet = av.Packet(b"\n")
    packet.pts = packet.dts = packet.duration = 0
    packet.time_base, packet.stream = Fraction(1, 1000), stream
    return packet
