"""From a video file to a .cwrv file.

::

    Source: its segments -> choose the GOP, encode (fit, refine, quantise, tune, final) -> container
                              | ^                    -> decode the finished bytes, compare -> file
                              v |
                           checkpoint
"""

from __future__ import annotations

import io
import os
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import torch

from nvcodec.bitstream.bitio import BitReader
from nvcodec.bitstream.container import MAJOR, NEWEST_MAJOR, Segment, audio_bytes, program_bytes, write_container
from nvcodec.bitstream.syntax import StreamHeader
from nvcodec.core.device import DEVICES, check_device, choose_device
from nvcodec.core.errors import BitstreamError, EncodeError, MismatchError, SourceWarning, TargetError
from nvcodec.core.frame import VideoProperties, video_seconds
from nvcodec.core.gop import read_gop
from nvcodec.core.limits import LEVELS, MAX_PROGRAMS, MAX_SEGMENT_FRAMES, level_for, max_segment_frames
from nvcodec.core.metrics import FramePsnr, frame_psnr, mean_psnr
from nvcodec.core.parallel import thread_limit
from nvcodec.decoder import Decoder
from nvcodec.encoder.checkpoint import Checkpoint
from nvcodec.encoder.identity import encode_identity
from nvcodec.encoder.rate_control import Target, check_reachable, lambda_for_quality
from nvcodec.encoder.representation import Keep, SegmentEncoder, StageReport
from nvcodec.encoder.source import Shot, Source
from nvcodec.encoder.working_domain import working_samples
from nvcodec.hybrid.encoder import representation as hybrid
from nvcodec.implicit.encoder import recurrent_representation as recurrent
from nvcodec.implicit.encoder import representation as implicit
from nvcodec.implicit.encoder.recurrent_representation import CWRNN_MODEL
from nvcodec.media.output_file import atomic_output, check_target, checkpoint_path, output_lock
from nvcodec.media.video_io import ReadOptions
from nvcodec.motion.levels import FrameGeometry

__all__ = ["EncodeOptions", "EncodeReport", "Progress", "encode"]

DEFAULT_BPP = 0.1
DEFAULT_QUALITY = 30.0
"""Where no target is given, and the usual one is less than any file of these frames takes: they are few or tiny."""
LEAST_SHARE, LEAST_MISS = 0.95, 8
"""Of a target that is given: a file that is smaller, by more than so many bytes, has missed it."""
DEFAULT_SEGMENT = 129
HYBRID_MODEL = "hybrid"
OWN_MODEL = "module"
"""A module that the caller brings."""
MODELS = (HYBRID_MODEL, CWRNN_MODEL, *implicit.MODELS, OWN_MODEL)
REFERRING_MODELS = (HYBRID_MODEL, CWRNN_MODEL)
"""Those whose frames refer to others: they are cut at scene changes, and take a quality in the place of a size."""


@dataclass(frozen=True, kw_only=True)
class EncodeOptions:
    """At most one of ``bpp`` (bits of the file per luma sample), ``bitrate`` (bits/s), ``size`` (bytes) and
    ``quality`` (0 .. 60, lower is better, as the quantiser parameter of H.265); none means bpp 0.1.

    ``gop``: frames between P frames, None to choose by trial. ``segment``: most frames in a segment.
    ``width``: channels of the hybrid's network, None to choose by the bits there are. ``model``: the representation,
    one of MODELS. ``params``: how many numbers a network has, None to choose by the target; ``epochs``: how often it
    sees every frame, None to choose by the effort. ``audio``: whether audio tracks, subtitles, chapters and title are
    kept; they do not count for a target.

    Raises EncodeError for values outside their range.
    """

    bpp: float | None = None
    bitrate: float | None = None
    size: int | None = None
    quality: float | None = None
    effort: str = "medium"
    gop: int | None = None
    segment: int | None = None
    width: int | None = None
    device: str = "auto"
    threads: int | None = None
    seed: int = 0
    model: str = "hybrid"
    params: float | None = None
    epochs: int | None = None
    audio: bool = True

    def __post_init__(self) -> None:
        self._check_types()
        given = [n for n in ("bpp", "bitrate", "size", "quality") if getattr(self, n) is not None]
        if len(given) > 1:
            raise EncodeError(f"give only one of {', '.join(given)}")
        for name in ("bpp", "bitrate", "size"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1e15:
                raise EncodeError(f"{name} {value} is not a positive number")
        if self.quality is not None and not 0 <= self.quality <= 60:
            raise EncodeError(f"quality {self.quality} lies outside 0 .. 60")
        if self.device not in DEVICES:
            raise EncodeError(f"unknown device {self.device!r}; choose {', '.join(DEVICES)}")
        if self.seed < 0:
            raise EncodeError(f"seed {self.seed} is negative")
        if self.model not in MODELS:
            raise EncodeError(f"unknown model {self.model!r}; choose {', '.join(MODELS)}")
        if self.model == HYBRID_MODEL:
            hybrid.check_choices(self.effort, self.gop, self.width)
            unused = {"params": self.params, "epochs": self.epochs}
        elif self.model == CWRNN_MODEL:
            recurrent.check_choices(self.effort, self.gop, self.params, self.epochs)
            unused = {"width": self.width}
        else:
            implicit.check_choices(self.effort, self.quality, self.params, self.epochs)
            unused = {"gop": self.gop, "width": self.width}
            if self.model == OWN_MODEL:  # it has the size that it has
                unused["params"] = self.params
        for name, value in unused.items():
            if value is not None:
                raise EncodeError(f"model {self.model} takes no {name}")
        if self.segment is not None and not 1 <= self.segment <= MAX_SEGMENT_FRAMES:
            raise EncodeError(f"segment {self.segment} lies outside 1 .. {MAX_SEGMENT_FRAMES}")
        if self.threads is not None and not 1 <= self.threads <= 1024:
            raise EncodeError(f"threads {self.threads} lies outside 1 .. 1024")

    def _check_types(self) -> None:
        for found in fields(self):
            value, wanted = getattr(self, found.name), str(found.type).removesuffix(" | None")
            if value is None and wanted != found.type:
                continue
            kinds: dict[str, tuple[type, ...]] = {"int": (int,), "str": (str,), "float": (int, float), "bool": (bool,)}
            if not isinstance(value, kinds[wanted]) or (isinstance(value, bool) and wanted != "bool"):
                named = {"int": "a whole number", "str": "a word", "float": "a number", "bool": "true or false"}[wanted]
                raise EncodeError(f"{found.name} {value!r} is not {named}")


@dataclass(frozen=True)
class Progress:
    """``frame`` of ``frames`` frames lie behind the ``stage`` that now runs; ``bpp`` and ``psnr`` (6:1:1, dB) of the
    unit just finished; ``fraction`` of the whole encode, 0 .. 1."""

    stage: str
    frame: int
    frames: int
    bpp: float | None
    psnr: float | None
    fraction: float
    seconds: float | None = None
    """Told once, before long work begins: how long all of it will take."""


@dataclass(frozen=True)
class EncodeReport:
    """The finished file: its bits on disk, less ``sound_bytes``, over luma samples, and mean PSNR over the frames (dB).

    ``seconds``: of all the work, that before an interruption included. ``resumed``: whether there was one."""

    file_bytes: int
    bpp: float
    psnr_y: float
    psnr_u: float
    psnr_v: float
    psnr_yuv: float
    frames: int
    seconds: float
    resumed: bool = False
    model: str = "hybrid"
    sound_bytes: int = 0
    stages: tuple[dict[str, float], ...] = ()
    """Of an implicit representation, for each segment, what its stages came to: see
    ``nvcodec.implicit.encoder.stages.Figures``."""


@dataclass
class _Work:
    """An encode between two coding units: finished segments, and the state of the one that is being encoded."""

    segments: list[Segment] = field(default_factory=list)
    segment: dict[str, Any] | None = None
    programs: list[bytes] = field(default_factory=list)
    """Those that the finished segments name."""
    stages: list[dict[str, float]] = field(default_factory=list)
    """What the stages of the finished segments came to."""
    seconds: float = 0.0
    """Of work before this run."""
    met: bool = False
    """Whether a finished segment took what it had: then it could have taken more."""

    def state(self, segment: dict[str, Any], seconds: float) -> dict[str, Any]:
        return {
            "segments": [asdict(s) for s in self.segments],
            "segment": segment,
            "programs": self.programs,
            "stages": self.stages,
            "seconds": seconds,
            "met": self.met,
        }

    def take_segment(self) -> dict[str, Any] | None:
        """Its state, which is large: it is handed over."""
        segment, self.segment = self.segment, None
        return segment

    @staticmethod
    def restored(state: dict[str, Any] | None) -> _Work:
        if state is None:
            return _Work()
        return _Work(**state | {"segments": [Segment(**segment) for segment in state["segments"]]})


def encode(
    source: str | Path,
    output: str | Path | BinaryIO,
    options: EncodeOptions,
    *,
    frames: tuple[int, int | None] | None = None,
    reading: ReadOptions | None = None,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
    module: implicit.Module | None = None,
) -> EncodeReport:
    """Encode ``source`` (anything PyAV opens) to the .cwrv file ``output``; decode it again and compare.

    ``output`` may be a binary stream: it gets the file once that is complete, and there is no checkpoint.
    ``frames``: half-open range. ``reading``: which stream, and what to do with damage; what a user should know of the
    source is a SourceWarning. While it runs, ``output`` is locked, and a checkpoint lies beside it: interrupted in
    whatever way, the same call goes on from there, to the same bytes. Where no checkpoint can be written, there is a
    CheckpointWarning. ``module``: with model "module", what to fit, see ``nvcodec.implicit.encode``.

    Raises InputError, OutputError (also if the output is locked), EncodeError (CheckpointError where the checkpoint
    of another encode lies there, TargetError where the size cannot be met, MismatchError where the file would not
    decode to what was meant).
    """
    started = time.monotonic()
    if (module is not None) != (options.model == OWN_MODEL):
        raise EncodeError(f"model {OWN_MODEL!r} and a module go together")
    stream, path = (None, Path(output)) if isinstance(output, str | os.PathLike) else (output, None)
    if path is not None:
        check_target(path, overwrite=overwrite)
    check_device(options.device)
    with output_lock(path) if path is not None else nullcontext(), thread_limit(options.threads):
        refers = options.model in REFERRING_MODELS
        video = Source(
            source, frames, lambda found: options.segment or _default_segment(found, refers), at_cuts=refers,
            reading=reading or ReadOptions(),
        )  # fmt: skip
        found, notes = video.sound() if options.audio else (None, [])
        sound = None if found is None else found.pack()
        for note in [*video.notes, *notes]:
            warnings.warn(note, SourceWarning, stacklevel=2)
        samples = video.properties.width * video.properties.height
        device = choose_device(options.device, samples)
        choices = asdict(options) | ({"module": implicit.module_identity(module)} if module is not None else {})
        identity = encode_identity(video, choices, device)
        checkpoint = Checkpoint(path and checkpoint_path(path), identity)
        work = _Work.restored(checkpoint.read())
        resumed = work.segment is not None
        started -= work.seconds

        def keep(segment: Callable[[], dict[str, Any]]) -> None:
            checkpoint.keep(lambda: work.state(segment(), time.monotonic() - started))

        try:
            data = _encode_shots(video, options, device, work, keep, progress, module, sound)
            quality = _decode_and_compare(data, video, options)
        except EncodeError:  # to go on would end in the same error
            checkpoint.discard()
            raise
        if path is not None:
            with atomic_output(path, overwrite=overwrite, alone=True) as temporary:
                temporary.write_bytes(data)
        if stream is not None:
            stream.write(data)
        checkpoint.discard()
    of_sound = audio_bytes(sound)
    bpp = 8 * (len(data) - of_sound) / (len(video) * samples)
    mean = mean_psnr(quality)
    seconds = time.monotonic() - started
    return EncodeReport(
        file_bytes=len(data),
        sound_bytes=of_sound,
        bpp=bpp,
        psnr_y=mean.y,
        psnr_u=mean.u,
        psnr_v=mean.v,
        psnr_yuv=mean.yuv_611,
        frames=len(video),
        seconds=seconds,
        resumed=resumed,
        model=options.model,
        stages=tuple(work.stages),
    )


def _default_segment(properties: VideoProperties, refers: bool) -> int:
    """A network of its own for every few seconds, or, where the network is the video, one for as much as can be."""
    if not refers:
        return min(MAX_SEGMENT_FRAMES, max_segment_frames(len(LEVELS), properties.width, properties.height))
    level = level_for(properties.width, properties.height)
    return min(DEFAULT_SEGMENT, MAX_SEGMENT_FRAMES, max_segment_frames(level, properties.width, properties.height))


def _total_bytes(options: EncodeOptions, properties: VideoProperties, pts: Sequence[int]) -> float | None:
    """The target in bytes, None for a fixed quality, or a network whose size is known."""
    is_free = options.bpp is options.bitrate is options.size is None
    if options.quality is not None or (
        is_free and options.model not in REFERRING_MODELS and (options.params is not None or options.model == OWN_MODEL)
    ):
        return None
    if options.size is not None:
        return float(options.size)
    if options.bitrate is not None:
        return options.bitrate * float(video_seconds(properties, pts[0], pts[-1])) / 8
    return (options.bpp or DEFAULT_BPP) * len(pts) * properties.width * properties.height / 8


def _model_name(options: EncodeOptions, module: implicit.Module | None) -> str:
    """What the file says of the network: the decoder needs no name."""
    if module is None:
        return options.model
    return str(getattr(module, "__name__", type(module).__name__))[:64]


def _segment_encoder(
    options: EncodeOptions, total_bytes: float | None, module: implicit.Module | None, programs: list[bytes]
) -> SegmentEncoder:
    """That of the representation which the segments are coded in."""
    if options.model == CWRNN_MODEL:
        return recurrent.RecurrentEncoder.chosen(options.effort, options.gop, options.params, options.epochs, programs)
    if options.model != HYBRID_MODEL:
        model = options.model if module is None else module
        return implicit.ImplicitEncoder.chosen(
            model, options.effort, options.params, options.epochs, total_bytes is not None, programs
        )
    return hybrid.HybridEncoder.chosen(
        options.effort, options.gop, options.width, 8 * total_bytes if total_bytes else 1e6
    )


def _encode_shots(
    video: Source,
    options: EncodeOptions,
    device: torch.device,
    work: _Work,
    keep: Keep,
    progress: Callable[[Progress], None] | None,
    module: implicit.Module | None,
    sound: bytes | None,
) -> bytes:
    """The bytes of the file. What ``work`` holds is not done again; what is done is added to it, and kept."""
    properties, shots, count = video.properties, video.shots, len(video)
    geometry = FrameGeometry(properties.width, properties.height, properties.bit_depth)
    total = _total_bytes(options, properties, video.pts)
    header, ticks = _header(video)
    pts = [pts * ticks for pts in video.pts]
    timestamps = None if pts == list(header.default_pts) else pts
    metadata = _metadata(properties, options, module)
    empty = [Segment(b"\0", b"\0" * 16, s.count) for s in shots]
    overhead = len(write_container(header, empty, timestamps=timestamps, metadata=metadata))
    if options.model not in REFERRING_MODELS and len(shots) > MAX_PROGRAMS:
        raise EncodeError(f"{len(shots)} segments with a network each: a file holds {MAX_PROGRAMS}; make them longer")
    encoder = _segment_encoder(options, total, module, work.programs)
    is_given = any(x is not None for x in (options.bpp, options.bitrate, options.size))
    quality = options.quality or 0.0
    if total is not None and (work.segment is None or not is_given):
        smallest = overhead + sum(encoder.smallest_payload(shot.count, geometry) for shot in shots)
        if is_given:
            check_reachable(smallest, total)
        elif smallest > total:
            total, quality = None, DEFAULT_QUALITY

    frames = video.frames()
    for number, shot in enumerate(shots):
        pictures = islice(frames, shot.count)
        if number < len(work.segments):
            for _ in pictures:
                pass
            continue
        samples = torch.empty(shot.count, 6, *geometry.half)
        for place, picture in zip(samples, pictures, strict=True):
            place.copy_(working_samples(picture))
        samples = samples.to(device)
        known = program_bytes(work.programs)
        if total is None:
            target = Target(lmbda=lambda_for_quality(quality))
        else:
            used = sum(len(s.payload) for s in work.segments) + known
            left = total - overhead - used
            target = Target(total_bytes=max(left * shot.count / (count - shot.start), 16.0))
        result = encoder.encode_segment(
            samples, geometry, target, options.seed + number, _reporter(progress, shot, count),
            kept=work.take_segment(), keep=keep,
        )  # fmt: skip
        taken = len(result.payload) + program_bytes(work.programs) - known
        if is_given and target.total_bytes is not None and taken > 1.02 * max(target.total_bytes, 24):
            raise TargetError(
                f"the target of {total:.0f} bytes cannot be met: segment {number} came to "
                f"{taken} bytes at best, its share is {target.total_bytes:.0f}"
            )
        work.met |= target.total_bytes is None or taken >= LEAST_SHARE * target.total_bytes - LEAST_MISS
        work.segments.append(Segment(result.payload, result.frame_hash, shot.count))
        work.stages += [result.stages] if result.stages else []
        del samples  # before those of the next one are made
    data = write_container(
        header, work.segments, timestamps=timestamps, metadata=metadata, programs=work.programs, sound=sound,
        major=MAJOR if all(map(_predicts, work.segments)) else NEWEST_MAJOR,
    )  # fmt: skip
    size = len(data) - audio_bytes(sound)
    if is_given and total is not None and size < LEAST_SHARE * total - LEAST_MISS:
        if len(shots) > 1 and work.met:
            text = f"{size} of the {total:.0f} bytes that were asked for: the last scenes can take no more"
            warnings.warn(text, SourceWarning, stacklevel=3)
            return data
        raise TargetError(
            f"the target of {total:.0f} bytes is out of reach; the largest file of these frames that was found "
            f"({options.model}, effort {options.effort}) takes {size} bytes, {8 * size / _luma_samples(video):.4g} bpp"
        )
    return data


def _metadata(
    properties: VideoProperties, options: EncodeOptions, module: implicit.Module | None
) -> dict[str, Any] | None:
    """What the section METADATA says; None where there is nothing to say."""
    made: dict[str, Any] = {}
    if options.model != HYBRID_MODEL:
        made["model"] = _model_name(options, module)
    if properties.field_order:
        made["field_order"] = properties.field_order
    if properties.display_matrix:
        made["display_matrix"] = list(properties.display_matrix)
    if properties.mastering_display:
        made["mastering_display"] = list(properties.mastering_display)
    if properties.content_light:
        made["content_light"] = list(properties.content_light)
    return made or None


def _predicts(segment: Segment) -> bool:
    """Whether the motion of a segment is predicted: its header tells behind the first byte, whatever it is."""
    return read_gop(BitReader(segment.payload[1:]).leb128("gop"))[1]


def _luma_samples(video: Source) -> int:
    return len(video) * video.properties.width * video.properties.height


def _reporter(progress: Callable[[Progress], None] | None, shot: Shot, count: int) -> Callable[[StageReport], None]:
    def report(state: StageReport) -> None:
        if progress is None:
            return
        progress(
            Progress(
                state.stage,
                shot.start + state.frames,
                count,
                state.bpp,
                state.psnr,
                (shot.start + state.fraction * shot.count) / count,
                state.seconds,
            )
        )

    return report


def _header(video: Source) -> tuple[StreamHeader, int]:
    """The stream header, and how many of its ticks are one tick of the source's time base."""
    properties = video.properties
    aspect = properties.sample_aspect_ratio
    time_base = properties.time_base
    duration = 1 / (properties.frame_rate * time_base)
    ticks = 1
    if duration.denominator != 1:  # the frame rate does not fit the time base: make one that fits both
        ticks = duration.denominator
        time_base, duration = time_base / ticks, duration * ticks
    longest = max(shot.count for shot in video.shots)
    header = StreamHeader(
        level=level_for(properties.width, properties.height, longest),
        width=properties.width,
        height=properties.height,
        frame_count=len(video),
        segment_count=len(video.shots),
        time_base_num=time_base.numerator,
        time_base_den=time_base.denominator,
        frame_duration=int(duration),
        sar_num=aspect.numerator,
        sar_den=aspect.denominator,
        color_range=properties.color_range,
        color_primaries=properties.color_primaries,
        transfer=properties.color_trc,
        matrix=properties.colorspace,
        chroma_location=properties.chroma_location,
        bit_depth_minus8=properties.bit_depth - 8,
    )
    return header, ticks


def _decode_and_compare(data: bytes, video: Source, options: EncodeOptions) -> list[FramePsnr]:
    """Decode the finished bytes: the decoder compares each segment with the hash of the frames that the encoder
    meant. Returns the quality of each frame."""
    try:
        with Decoder(io.BytesIO(data), device=options.device, threads=options.threads) as decoder:
            return [frame_psnr(decoded, picture) for decoded, picture in zip(decoder, video.frames(), strict=True)]
    except BitstreamError as error:
        raise MismatchError(f"the finished file does not decode to what the encoder meant: {error}") from error
