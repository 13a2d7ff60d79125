"""Frames to video files: MP4 and Matroska through PyAV, YUV4MPEG2 by our own hand.

::

    .mp4   h264 (default), hevc, av1          timestamps exact
    .mkv   h264 (default), hevc, av1, ffv1    timestamps rounded to milliseconds, as Matroska always does
    .y4m   uncompressed                       no timestamps, only the frame rate
    -      y4m on standard output

FFV1 is lossless. The others are visually lossless by default, see ``CODECS``; h264 at ``crf=0`` is lossless.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import av.error

from nvcodec.core.errors import OutputError
from nvcodec.core.frame import FIELD_ORDERS, UNSPECIFIED, Frame, VideoProperties
from nvcodec.media.av_frame import output_format, to_av_frame
from nvcodec.media.hdr import hdr_options
from nvcodec.media.matroska import PLACEHOLDER_TITLE, set_display_aspect
from nvcodec.media.output_file import atomic_output, check_target
from nvcodec.media.sound_write import SoundWriter
from nvcodec.media.y4m import check_frame, write_y4m

__all__ = ["CODECS", "STDOUT", "OutputCodec", "check_output", "write_video"]

STDOUT = "-"
DEFAULT_CODEC = "h264"
DEEP_CODEC = "hevc"
"""Of 10 bits, which few players show in H.264."""


@dataclass(frozen=True, kw_only=True)
class OutputCodec:
    """An encoder that output may be written with.

    ``default_crf`` and ``max_crf`` are None where there is no constant rate factor. ``min_size`` is the least
    width and height in samples. ``odd_sizes`` tells whether the encoder takes 4:2:0 pictures of odd width or
    height; where not, such video is written as 4:4:4 with every chroma sample repeated. ``aspect_in_stream``
    tells whether the coded stream itself holds the sample aspect ratio.
    """

    encoder: str
    suffixes: tuple[str, ...]
    options: dict[str, str]
    default_crf: int | None = None
    max_crf: int | None = None
    min_size: int = 1
    odd_sizes: bool = False
    aspect_in_stream: bool = False


CODECS = {
    "h264": OutputCodec(
        encoder="libx264",
        suffixes=(".mp4", ".mkv"),
        options={"preset": "medium"},
        default_crf=16,
        max_crf=51,
        aspect_in_stream=True,
    ),
    "hevc": OutputCodec(
        encoder="libx265",
        suffixes=(".mp4", ".mkv"),
        options={"preset": "medium", "x265-params": "log-level=none"},
        default_crf=18,
        max_crf=51,
        min_size=64,  # x265 corrupts the heap on narrower pictures, 40x40 for one
        aspect_in_stream=True,
    ),
    "av1": OutputCodec(
        encoder="libsvtav1",
        suffixes=(".mp4", ".mkv"),
        options={"preset": "8"},
        default_crf=20,
        max_crf=63,
        min_size=64,  # SVT-AV1 hangs on some smaller pictures, 128x16 for one
        odd_sizes=True,
    ),
    "ffv1": OutputCodec(encoder="ffv1", suffixes=(".mkv",), options={"level": "3", "slicecrc": "1"}, odd_sizes=True),
}

# H.273 code points that every encoder here takes; 2 is "unspecified".
_PRIMARIES = frozenset((1, *range(4, 13)))
_TRANSFERS = frozenset((1, *range(4, 19)))
_MATRICES = frozenset((1, *range(4, 15)))

_DISK_ERRORS = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO)
"""What the system says where a file cannot grow: not the encoder's fault."""

_PARAMETER_OPTIONS = {"libx264": "x264-params", "libx265": "x265-params", "libsvtav1": "svtav1-params"}
_CHROMA_LOCATIONS = ("", "left", "center", "topleft", "top", "bottomleft", "bottom")


def check_output(
    path: Path | str, codec: str | None = None, crf: int | None = None, *, overwrite: bool = False
) -> OutputCodec | None:
    """Whether :func:`write_video` can be asked this, before any work is done.

    ``codec`` is a key of ``CODECS`` or None for the default of the file type. Returns the codec that will be
    used, None for y4m.

    Raises:
        OutputError: unknown file type or codec, a codec that the file type or this build of PyAV does not
            have, ``crf`` out of range or not applicable, or the target cannot be written
            (:func:`nvcodec.media.output_file.check_target`).
    """
    suffix = ".y4m" if str(path) == STDOUT else Path(path).suffix.lower()
    if suffix not in (".mp4", ".mkv", ".y4m"):
        raise OutputError(f"{path}: unknown output type {suffix!r} (known: .mp4, .mkv, .y4m, - for y4m)")
    if codec is not None and codec not in CODECS:
        raise OutputError(f"unknown codec {codec!r} (known: {', '.join(CODECS)})")
    if suffix == ".y4m":
        if codec is not None or crf is not None:
            raise OutputError("y4m is not compressed: it takes no codec and no crf")
        chosen = None
    else:
        chosen = _check_codec(codec or DEFAULT_CODEC, suffix, crf)
    if str(path) != STDOUT:
        check_target(Path(path), overwrite=overwrite)
    elif sys.stdout.isatty():
        raise OutputError("will not write video to a terminal")
    return chosen


def _check_codec(codec: str, suffix: str, crf: int | None) -> OutputCodec:
    chosen = CODECS[codec]
    if suffix not in chosen.suffixes:
        raise OutputError(f"{suffix} cannot hold {codec} (use {' or '.join(chosen.suffixes)})")
    if chosen.encoder not in av.codecs_available:
        raise OutputError(f"this build of PyAV has no encoder for {codec} ({chosen.encoder})")
    if crf is not None and chosen.max_crf is None:
        raise OutputError(f"{codec} is lossless: it takes no crf")
    if crf is not None and chosen.max_crf is not None and not 0 <= crf <= chosen.max_crf:
        raise OutputError(f"crf {crf} is out of range for {codec} (0 to {chosen.max_crf})")
    return chosen


def write_video(
    path: Path | str,
    properties: VideoProperties,
    frames: Iterable[Frame],
    *,
    codec: str | None = None,
    crf: int | None = None,
    overwrite: bool = False,
    sound: SoundWriter | None = None,
) -> int:
    """Writes all frames and returns how many there were.

    The file appears whole or not at all. Its type follows from the suffix of ``path``; ``-`` is y4m on
    standard output, where a reader that hangs up early ends the writing quietly. Frame rate, sample aspect
    ratio, colour tags and, but for y4m, timestamps and ``sound`` are kept. hevc and av1 have no unspecified range: it
    becomes limited.

    Raises:
        OutputError: as :func:`check_output`; or there are no frames, a frame has another size or depth than the video,
            timestamps do not increase, or the encoder or the operating system fails.
    """
    chosen = check_output(path, codec, crf, overwrite=overwrite)
    if chosen is not None and codec is None and properties.bit_depth > 8:
        deep = CODECS[DEEP_CODEC]
        if min(properties.width, properties.height) >= deep.min_size and deep.encoder in av.codecs_available:
            chosen = deep
    if str(path) == STDOUT:
        return _write_stdout(properties, frames)
    with atomic_output(Path(path), overwrite=overwrite) as temporary:
        if chosen is None:
            with temporary.open("wb") as file:
                count = write_y4m(file, properties, frames)
        else:
            count = _encode(temporary, properties, frames, chosen, crf, sound)
        if count == 0:
            raise OutputError(f"no frames to write to {path}")
    return count


def _write_stdout(properties: VideoProperties, frames: Iterable[Frame]) -> int:
    count = 0

    def counted() -> Iterator[Frame]:
        nonlocal count
        for frame in frames:
            yield frame
            count += 1

    try:
        write_y4m(sys.stdout.buffer, properties, counted())
    except BrokenPipeError:
        # Python would complain once more when it flushes at exit; give it somewhere to flush to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise OutputError(f"cannot write to standard output: {error.strerror or error}") from error
    return count


def _known(code: int, known: frozenset[int]) -> int:
    """A colour code that encoders take: reserved and private ones become unspecified."""
    return code if code in known else UNSPECIFIED


def _with_durations(properties: VideoProperties, frames: Iterable[Frame]) -> Iterator[tuple[int, Frame, int]]:
    """(number, frame, duration in time base units); the last frame lasts as long as the rate says."""
    last_duration = max(1, round(1 / (properties.frame_rate * properties.time_base)))
    previous: Frame | None = None
    number = 0
    for number, frame in enumerate(frames):
        check_frame(frame, properties, number)
        if previous is not None:
            if frame.pts <= previous.pts:
                raise OutputError(f"timestamp of frame {number} ({frame.pts}) does not follow {previous.pts}")
            yield number - 1, previous, frame.pts - previous.pts
        previous = frame
    if previous is not None:
        yield number, previous, last_duration


def _encode(
    path: Path,
    properties: VideoProperties,
    frames: Iterable[Frame],
    codec: OutputCodec,
    crf: int | None,
    sound: SoundWriter | None,
) -> int:
    width, height = properties.width, properties.height
    if min(width, height) < codec.min_size:
        raise OutputError(f"{codec.encoder} needs at least {codec.min_size} rows and columns")
    full_chroma = not codec.odd_sizes and (width % 2 == 1 or height % 2 == 1)
    options = dict(codec.options)
    if codec.default_crf is not None:
        options["crf"] = str(codec.default_crf if crf is None else crf)
    if properties.chroma_location and not full_chroma and codec.encoder != "libsvtav1":
        options["chroma_sample_location"] = _CHROMA_LOCATIONS[properties.chroma_location]
    if codec.encoder == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")  # its only switch for what it prints on standard error
    if codec.encoder == "ffv1" and min(width, height) < 32:
        options |= {"level": "1", "slicecrc": "0"}  # too small for slices
    aspect = properties.sample_aspect_ratio
    late_aspect = path.suffix.lower() == ".mkv" and not codec.aspect_in_stream and aspect not in (0, 1)
    count = 0
    try:
        muxer_options = {"movflags": "+faststart"} if path.suffix.lower() == ".mp4" else {}
        with av.open(str(path), "w", container_options=muxer_options) as container:
            stream = cast(Any, container.add_stream(codec.encoder, rate=properties.frame_rate))
            _configure(stream, properties, output_format(properties.bit_depth, full_chroma=full_chroma), options)
            if codec.encoder == "libx265" and path.suffix.lower() == ".mp4":
                stream.codec_context.codec_tag = "hvc1"
            if late_aspect:
                stream.metadata["title"] = PLACEHOLDER_TITLE
            if sound is not None:
                sound.add_streams(container)
            for number, frame, duration in _with_durations(properties, frames):
                picture = to_av_frame(frame, full_chroma=full_chroma)
                picture.time_base = properties.time_base
                picture.duration = duration
                if sound is not None:
                    sound.write_until(container, frame.pts * properties.time_base)
                container.mux(stream.encode(picture))
                count = number + 1
            if count:
                container.mux(stream.encode())
                if sound is not None:
                    sound.write_until(container, None)
    except av.error.FFmpegError as error:
        if error.errno in _DISK_ERRORS:
            raise OSError(error.errno, error.strerror) from error
        raise OutputError(f"{codec.encoder} failed at frame {count}: {error.strerror or error}") from error
    if late_aspect and count:
        set_display_aspect(path, aspect * Fraction(width, height))
    return count


def _configure(stream: Any, properties: VideoProperties, pix_fmt: str, options: dict[str, str]) -> None:
    """Geometry, clock and colour of an encoder's stream (PyAV forwards these to the codec context)."""
    stream.width, stream.height, stream.pix_fmt = properties.width, properties.height, pix_fmt
    stream.time_base = properties.time_base
    context = stream.codec_context
    context.time_base = properties.time_base
    if properties.sample_aspect_ratio:
        context.sample_aspect_ratio = properties.sample_aspect_ratio
    context.color_range = properties.color_range
    context.color_primaries = _known(properties.color_primaries, _PRIMARIES)
    context.color_trc = _known(properties.color_trc, _TRANSFERS)
    context.colorspace = _known(properties.colorspace, _MATRICES)
    parameters = list(hdr_options(context.name, properties))
    if properties.field_order:
        order = properties.field_order
        context.field_order = 2 + FIELD_ORDERS.index(order)
        top_first = order in ("tt", "bt")
        if context.name == "libx264" and properties.height % 4 == 0 and "420" in pix_fmt:  # else it has none
            context.flags |= av.codec.context.Flags.interlaced_dct.value
            parameters.append("tff=1" if top_first else "bff=1")
    if properties.display_matrix:
        stream.set_display_matrix(properties.display_matrix)
    if parameters:
        name = _PARAMETER_OPTIONS[context.name]
        options = options | {name: ":".join([*filter(None, [options.get(name)]), *parameters])}
    context.options = options
