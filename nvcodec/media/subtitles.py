"""Subtitles of text in packets of unlike codecs: what a file cannot hold as it is becomes plain text that it can."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import av

__all__ = ["add_text_stream", "blank_packet", "packet_of_text", "text_codec", "text_of_packet"]

_BY_FORMAT = {"matroska": "subrip", "mp4": "mov_text"}
"""The codec of text of each kind of file."""
_MARKS = re.compile(r"<[^>]*>|\{\\[^}]*\}")
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
        text = text.split(",", 8)[-1].replace(r"\N", "\n").replace(r"\n", "\n").replace(r"\h", " ")
    return _MARKS.sub("", text).replace("\r\n", "\n").strip("\n")


def packet_of_text(codec: str, text: str, like: Any) -> Any:
    """A packet of ``codec`` that is shown when ``like`` is."""
    data = text.encode()
    if codec == "mov_text":
        data = data[:65535].decode("utf-8", "ignore").encode()
        data = len(data).to_bytes(2, "big") + data
    packet = av.Packet(data)
    packet.pts, packet.dts, packet.duration = like.pts, like.pts, like.duration
    packet.time_base = like.time_base
    return packet


def blank_packet(stream: Any) -> Any:
    """One that shows nothing, at the start."""
    packet = av.Packet(b"\n")
    packet.pts = packet.dts = packet.duration = 0
    packet.time_base, packet.stream = Fraction(1, 1000), stream
    return packet
