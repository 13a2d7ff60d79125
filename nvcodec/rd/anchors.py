"""Anchors: what x264, x265 and SVT-AV1 make of the same frames, through PyAV.

Rules: tuned for PSNR (``tune=psnr``; in SVT-AV1's numbers ``tune=1``); one key frame, at the start, unless an
interval is given, then one every so many frames and closed groups of pictures; constant rate factor; one
thread, so that a run can be repeated to the byte. Bytes are those of the elementary stream (Annex B, or the
AV1 low-overhead format with its temporal delimiters), without any container.

x264 and x265 write their settings as text into the first packet (user data SEI, some 700 bytes for x264 and
2,000 for x265), which no decoder needs: it is taken out, and :attr:`AnchorStream.settings_text` says it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import av
import av.error
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import VideoReformatter

from nvcodec.core.errors import EncodeError, InputError
from nvcodec.core.frame import Frame, VideoProperties
from nvcodec.media.av_frame import to_av_frame, to_planes

__all__ = ["CODERS", "AnchorSpec", "AnchorStream", "Coder", "check_anchor", "decode_stream", "encode_anchor"]
__all__ += ["parse_anchors", "without_user_data"]

MIN_SIDE = 64
"""Below it x265 writes beyond its buffers and SVT-AV1 may hang."""

_X26_PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo",
)  # fmt: skip
_START_CODE = re.compile(rb"\x00?\x00\x00\x01")
_USER_DATA_UNREGISTERED = 5
_SEI_TEXT = re.compile(rb"(x264 - core|x265 \(build)[\x20-\x7e]+")


def _x264_options(preset: str, crf: float, interval: int | None) -> dict[str, str]:
    keys = "keyint=infinite" if interval is None else f"keyint={interval}:min-keyint={interval}:open-gop=0"
    params = f"{keys}:scenecut=0:threads=1:lookahead-threads=1"
    return {"preset": preset, "tune": "psnr", "crf": f"{crf:.2f}", "x264-params": params}


def _x265_options(preset: str, crf: float, interval: int | None) -> dict[str, str]:
    keys = "keyint=-1" if interval is None else f"keyint={interval}:min-keyint={interval}:open-gop=0"
    params = f"{keys}:scenecut=0:pools=none:frame-threads=1:log-level=none"
    return {"preset": preset, "tune": "psnr", "crf": f"{crf:.2f}", "x265-params": params}


def _svtav1_options(preset: str, crf: float, interval: int | None) -> dict[str, str]:
    keys = "-1" if interval is None else str(interval)  # -1: no key frame but the first
    return {"preset": preset, "svtav1-params": f"tune=1:crf={crf:.2f}:keyint={keys}:irefresh-type=2:scd=0:lp=1"}


@dataclass(frozen=True)
class Coder:
    """An encoder in PyAV and how it is driven.

    Attributes:
        encoder, decoder: FFmpeg's names.
        suffix: of a file with its elementary stream.
        presets: those it knows, fastest or slowest first as the encoder counts them.
        crf_range: lowest and highest constant rate factor, both usable.
        crf_step: its resolution.
        options: (preset, rate factor, key frame interval or None) to the options of the codec context.
        is_user_data: whether a NAL unit that begins with these bytes is a user data SEI message; None for AV1.
    """

    encoder: str
    decoder: str
    suffix: str
    presets: tuple[str, ...]
    crf_range: tuple[float, float]
    crf_step: float
    options: Callable[[str, float, int | None], dict[str, str]]
    is_user_data: Callable[[bytes], bool] | None

    def round_crf(self, crf: float) -> float:
        """The nearest rate factor that the encoder can be given."""
        low, high = self.crf_range
        return round(min(max(round(crf / self.crf_step) * self.crf_step, low), high), 4)


CODERS = {
    "x264": Coder(
        "libx264",
        "h264",
        ".264",
        _X26_PRESETS,
        (1.0, 51.0),
        0.01,
        _x264_options,
        lambda unit: unit[0] & 31 == 6 and unit[1] == _USER_DATA_UNREGISTERED,
    ),
    "x265": Coder(
        "libx265",
        "hevc",
        ".265",
        _X26_PRESETS,
        (1.0, 51.0),
        0.01,
        _x265_options,
        lambda unit: unit[0] >> 1 & 63 == 39 and unit[2] == _USER_DATA_UNREGISTERED,
    ),
    "svtav1": Coder(
        "libsvtav1",
        "libdav1d",
        ".obu",
        tuple(str(number) for number in range(14)),
        (1.0, 70.0),
        0.25,
        _svtav1_options,
        None,
    ),
}


@dataclass(frozen=True, order=True)
class AnchorSpec:
    """An encoder of ``CODERS`` with one of its presets.

    Raises:
        InputError: there is no such encoder or preset.
    """

    codec: str
    preset: str

    def __post_init__(self) -> None:
        if self.codec not in CODERS:
            raise InputError(f"unknown anchor {self.codec!r} (known: {', '.join(CODERS)})")
        presets = self.coder.presets
        if self.preset not in presets:
            known = f"{presets[0]} to {presets[-1]}" if presets[0].isdigit() else ", ".join(presets)
            raise InputError(f"{self.codec} has no preset {self.preset!r} (known: {known})")

    @property
    def name(self) -> str:
        """As on the command line: ``x265:medium``."""
        return f"{self.codec}:{self.preset}"

    @property
    def coder(self) -> Coder:
        return CODERS[self.codec]


def parse_anchors(text: str) -> tuple[AnchorSpec, ...]:
    """``"x264:medium,svtav1:4"`` to anchors, in that order; ``"none"`` is no anchor.

    Raises:
        InputError: not of that form, an unknown encoder or preset, or one given twice.
    """
    if text.strip() == "none":
        return ()
    anchors: list[AnchorSpec] = []
    for part in text.split(","):
        codec, colon, preset = part.strip().partition(":")
        if not colon or not preset:
            raise InputError(f"anchor {part.strip()!r} is not of the form ENCODER:PRESET, such as x265:medium")
        spec = AnchorSpec(codec, preset)
        if spec in anchors:
            raise InputError(f"anchor {spec.name} is given twice")
        anchors.append(spec)
    return tuple(anchors)


def check_anchor(spec: AnchorSpec, properties: VideoProperties) -> None:
    """Whether :func:`encode_anchor` can take such video.

    Raises:
        InputError: this build of PyAV lacks the encoder or its decoder, or the picture is too small or odd.
    """
    for codec in (spec.coder.encoder, spec.coder.decoder):
        if codec not in av.codecs_available:
            raise InputError(f"anchor {spec.name}: this build of PyAV has no {codec}")
    width, height = properties.width, properties.height
    if width % 2 or height % 2 or min(width, height) < MIN_SIDE:
        raise InputError(
            f"anchor {spec.name} needs an even width and height of at least {MIN_SIDE}, not {width}x{height}"
        )


@dataclass(frozen=True)
class AnchorStream:
    """One encode.

    Attributes:
        data: the elementary stream.
        packet_bytes: sizes of its packets, in coding order; they add up to ``len(data)``.
        packet_frames: for each packet, the number of the frame it shows, in display order from 0. An AV1 packet
            is a temporal unit: frames that are coded early and not shown yet are counted with the next shown one.
        key_frames: how many of them are key frames.
        options: what the codec context was given.
        settings_text: what the encoder wrote of its settings, which is not in the stream; empty where it wrote nothing.
    """

    data: bytes
    packet_bytes: tuple[int, ...]
    packet_frames: tuple[int, ...]
    key_frames: int
    options: dict[str, str]
    settings_text: str

    @property
    def frame_bytes(self) -> list[int]:
        """Bytes by frame, in display order."""
        return [size for _, size in sorted(zip(self.packet_frames, self.packet_bytes, strict=True))]


def encode_anchor(
    frames: Iterable[Frame],
    properties: VideoProperties,
    spec: AnchorSpec,
    crf: float,
    *,
    key_interval: int | None = None,
) -> AnchorStream:
    """Encodes frames of one size. ``key_interval``: frames from key frame to key frame; None is one in all.

    Raises:
        EncodeError: the encoder fails, or does not write the packets and key frames that it was told to.
        InputError: as :func:`check_anchor`.
    """
    check_anchor(spec, properties)
    coder = spec.coder
    options = coder.options(spec.preset, coder.round_crf(crf), key_interval)
    packets: list[av.Packet] = []
    count = 0
    try:
        context = _encoder(coder, properties, options)
        for count, frame in enumerate(frames, 1):
            picture = to_av_frame(frame)
            picture.pts, picture.time_base = count - 1, 1 / properties.frame_rate
            packets += context.encode(picture)
        packets += context.encode(None)
    except av.error.FFmpegError as error:
        raise EncodeError(f"anchor {spec.name} failed at frame {count} ({error.strerror})") from error
    shown = [packet.pts for packet in packets]
    if sorted(pts for pts in shown if pts is not None) != list(range(count)):
        raise EncodeError(f"anchor {spec.name} wrote {len(packets)} packets for {count} frames")
    keys = sum(packet.is_keyframe for packet in packets)
    wanted = 1 if key_interval is None else -(-count // key_interval)
    if keys != wanted:
        raise EncodeError(f"anchor {spec.name} wrote {keys} key frames where {wanted} were asked for")
    written = [bytes(packet) for packet in packets]
    text = _SEI_TEXT.search(b"".join(written)) if coder.is_user_data else None
    payloads = [without_user_data(packet, coder) for packet in written]
    return AnchorStream(
        data=b"".join(payloads),
        packet_bytes=tuple(map(len, payloads)),
        packet_frames=tuple(cast(int, pts) for pts in shown),
        key_frames=keys,
        options=options,
        settings_text=text[0].decode("ascii") if text else "",
    )


def _encoder(coder: Coder, properties: VideoProperties, options: dict[str, str]) -> VideoCodecContext:
    if coder.encoder == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")  # its only switch for what it prints on standard error
    context = cast(VideoCodecContext, av.CodecContext.create(coder.encoder, "w"))
    context.width, context.height, context.pix_fmt = properties.width, properties.height, properties.pix_fmt
    context.framerate, context.time_base = properties.frame_rate, 1 / properties.frame_rate
    context.thread_count = 1
    context.options = options
    return context


def decode_stream(data: bytes, packet_bytes: Sequence[int], coder: Coder) -> Iterator[Frame]:
    """The frames of a stream in display order; ``pts`` counts them from 0. Holds one at a time.

    Raises:
        InputError: the sizes do not add up to the stream, or the decoder refuses it.
    """
    if sum(packet_bytes) != len(data):
        raise InputError(f"a stream of {len(data)} bytes cannot have packets of {sum(packet_bytes)} bytes")
    context = cast(VideoCodecContext, av.CodecContext.create(coder.decoder, "r"))
    context.thread_count = 1
    reformatter = VideoReformatter()
    number = 0
    try:
        for packet in _packets(data, packet_bytes):
            for picture in context.decode(packet):
                yield Frame(to_planes(picture, reformatter), number)
                number += 1
    except av.error.FFmpegError as error:
        raise InputError(f"the stream cannot be decoded after frame {number} ({error.strerror})") from error


def _packets(data: bytes, packet_bytes: Sequence[int]) -> Iterator[av.Packet | None]:
    position = 0
    for size in packet_bytes:
        yield av.Packet(data[position : position + size])
        position += size
    yield None


def without_user_data(packet: bytes, coder: Coder) -> bytes:
    """An Annex B packet without its user data SEI units, start codes included; of AV1, the packet."""
    is_user_data = coder.is_user_data
    if is_user_data is None or not packet:
        return packet
    starts = [(match.start(), match.end()) for match in _START_CODE.finditer(packet)]
    ends = [start for start, _ in starts[1:]] + [len(packet)]
    units = zip(starts, ends, strict=True)
    return b"".join(packet[start:end] for (start, body), end in units if not is_user_data(packet[body : body + 3]))
