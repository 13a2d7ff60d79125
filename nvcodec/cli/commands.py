"""The command ``cwrv``: encode, decode, info, verify; rd is in :mod:`nvcodec.cli.rd`.

No logic here: options are turned into calls, errors into one line on standard error. Exit status: 0 done, 1 an error,
2 wrong usage, 3 decoded with damage skipped, 130 interrupted, 143 terminated. What the commands need is loaded when
they run, so that help is instant and decoding never loads the encoder.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from nvcodec import __version__
from nvcodec.cli import options
from nvcodec.cli.interrupt import ends_promptly, loading_libraries
from nvcodec.cli.progress import StatusLine, format_duration, format_stages
from nvcodec.cli.rd import rd
from nvcodec.cli.types import BITRATE, COUNT, FRAMERATE, MODELS, SIZE, FiniteRange
from nvcodec.core.errors import BitstreamError, CheckpointWarning, InputError, NvcodecError, OutputError, SourceWarning
from nvcodec.core.memory import keep_freed_memory

if TYPE_CHECKING:
    from nvcodec.core.frame import Frame
    from nvcodec.decoder import Decoder
    from nvcodec.media.sound_write import SoundWriter

__all__ = ["main"]

ON_ERROR = ("stop", "skip")
OUTPUT_CODECS = ("h264", "hevc", "av1", "ffv1")
STDIN = STDOUT = "-"
FILE_TYPES = frozenset({
    ".264", ".265", ".avi", ".bmp", ".gif", ".hevc", ".ivf", ".jpeg", ".jpg", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4",
    ".mpeg", ".mpg", ".pgm", ".png", ".ppm", ".tif", ".ts", ".webm", ".webp", ".y4m", ".yuv",
})  # fmt: skip
"""Suffixes of what a .cwrv file is not."""
EXIT_ERROR, EXIT_DAMAGED, EXIT_INTERRUPTED = 1, 3, 128 + signal.SIGINT


@dataclass
class Run:
    """What the commands share. ``source``: the .cwrv file that is at fault when a bitstream is. ``checkpoint``: what
    the same command would go on from, if it is there."""

    debug: bool = False
    source: str = ""
    checkpoint: Path | None = None

    def last_words(self, number: int) -> str:
        """At the signal ``number``."""
        text = "cwrv: interrupted" if number == signal.SIGINT else "cwrv: terminated"
        if self.checkpoint is not None and self.checkpoint.exists():
            text += f"; the same command goes on from {self.checkpoint}"
        return text


class Commands(click.Group):
    """Commands whose every failure is one line and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        run = ctx.obj = Run()
        keep_freed_memory()
        try:
            with ends_promptly(run.last_words):
                return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click's own: usage errors, and a reader of our output that hung up
        except KeyboardInterrupt:
            message, status = run.last_words(signal.SIGINT), EXIT_INTERRUPTED
        except Exception as error:
            message, status = f"cwrv: error: {_explain(error, run)}", EXIT_ERROR
            if run.debug:
                traceback.print_exc()
        click.echo(message, err=True)
        ctx.exit(status)


def _explain(error: Exception, run: Run) -> str:
    if isinstance(error, BitstreamError) and run.source:
        text = f"{run.source}: {error}"
    elif isinstance(error, NvcodecError):
        text = str(error)
    elif isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # the latter is torch's
        text = f"too little memory: {error}"
    elif isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        text = name + (error.strerror or str(error))
    else:
        text = f"internal error, {type(error).__name__}: {error} (--debug shows where)"
    return " ".join(text.split())


def _frames(what: str) -> options.Option:
    return options.frames(f"{what} frames A up to, not including, B; either may be left out. Default: all.")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cwrv", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="On an error, show where in the program it happened.")
@click.pass_context
def main(context: click.Context, debug: bool) -> None:
    """An implicit neural video codec: a video becomes one small .cwrv file, and decodes bit-exactly."""
    context.obj.debug = debug


@main.command()
@click.argument("source", metavar="INPUT")
@click.option("-o", "--output", required=True, metavar="OUT.cwrv", help="The file to write, or - for standard output.")
@click.option(
    "--bpp",
    type=FiniteRange(min=0, min_open=True),
    metavar="F",
    help="Target: bits of the whole file per pixel. Default, without any target: 0.1.",
)
@click.option("--bitrate", type=BITRATE, metavar="R", help="Target: bits per second, as 400k or 1.5M.")
@click.option("--size", type=SIZE, metavar="S", help="Target: size of the file, as 60kB, 2MB or 1MiB.")
@click.option(
    "--quality",
    type=FiniteRange(0, 60),
    metavar="Q",
    help="Target: constant quality, whatever the size; 0 to 60, lower is better, like the QP of H.265.",
)
@options.effort("How long to search for a better picture at the same size.")
@options.model()
@click.option(
    "--params",
    type=COUNT,
    metavar="N",
    help="Numbers that a network has, as 100k. Default: by the target; without one, the size follows from them.",
)
@options.epochs()
@_frames("Encode")
@click.option("--framerate", type=FRAMERATE, metavar="R", help="Of pictures: 24, 23.976 or 30000/1001. Default: 25.")
@click.option(
    "--stream", type=click.IntRange(min=0), metavar="N", help="Which video stream, from 0. Default: as FFmpeg chooses."
)
@click.option(
    "--on-error",
    type=click.Choice(ON_ERROR),
    default="stop",
    show_default=True,
    help="At damage in the source: stop, and write nothing, or skip: the frame before is shown once more.",
)
@click.option("--strict", is_flag=True, help="Refuse what is not 4:2:0 of 8 or 10 bits, rather than convert it.")
@options.audio("Leave out sound, subtitles and chapters. They do not count for a target.")
@options.gop("Frames between P-frames. Default: 1, 2, 4 or 8, by trial.")
@options.segment(
    "At most so many frames share a network and decode without the others. Default: 129; of a network, all it can."
)
@click.option(
    "--width",
    type=click.IntRange(min=1),
    metavar="N",
    help="Channels of the network: 8, 24, 48, 96, 160 or 288. Default: by the bits that there are.",
)
@options.device()
@options.threads()
@options.seed()
@options.overwrite()
@click.pass_obj
def encode(
    run: Run,
    source: str,
    output: str,
    frames: tuple[int, int | None] | None,
    framerate: Fraction | None,
    stream: int | None,
    on_error: str,
    strict: bool,
    overwrite: bool,
    **settings: Any,
) -> None:
    """Compress the video INPUT (anything that FFmpeg reads, - for standard input) into a .cwrv file.

    At most one target: --bpp, --bitrate, --size or --quality. Interrupted, even killed, the same command goes on from
    the checkpoint beside its output.
    """
    targets = [name for name in ("bpp", "bitrate", "size", "quality") if settings[name] is not None]
    if len(targets) > 1:
        raise click.UsageError(f"only one target: --{targets[0]} or --{targets[1]}")

    from nvcodec.media.output_file import check_target, checkpoint_path

    if output == STDOUT:
        if sys.stdout.isatty():
            raise OutputError("will not write a .cwrv file to a terminal")
    else:
        if Path(output).suffix.lower() in FILE_TYPES:
            raise OutputError(f"{output}: encode writes .cwrv files; cwrv decode makes a video of one")
        check_target(Path(output), overwrite=overwrite)
        _check_distinct(source, output)
        run.checkpoint = checkpoint_path(Path(output))

    with loading_libraries():
        from nvcodec.encoder.pipeline import EncodeOptions
        from nvcodec.encoder.pipeline import encode as encode_video
        from nvcodec.media.video_io import ReadOptions

    options = EncodeOptions(**settings)
    with StatusLine() as line, _warnings_on(line), _translation_on(line), _readable(source) as readable:
        report = encode_video(
            readable,
            sys.stdout.buffer if output == STDOUT else output,
            options,
            frames=frames,
            reading=ReadOptions(framerate=framerate, stream=stream, skips_damage=on_error == "skip", strict=strict),
            overwrite=overwrite,
            progress=line.encoding if line.is_shown or settings["model"] != MODELS[0] else None,
        )
    click.echo(
        f"{output}: {report.model}, {report.file_bytes} bytes, {report.bpp:.4f} bpp, PSNR Y {report.psnr_y:.2f} dB, "
        f"6:1:1 {report.psnr_yuv:.2f} dB, {report.frames} frames in {format_duration(report.seconds)}"
        + (", interruptions left out" if report.resumed else "")
        + (f", {report.sound_bytes} bytes of sound" if report.sound_bytes else ""),
        err=True,
    )
    for stages in report.stages:
        click.echo(format_stages(stages), err=True)


@main.command()
@click.argument("source", metavar="IN.cwrv")
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="OUT",
    help="The video to write: .mp4, .mkv, .y4m, or - for y4m on standard output.",
)
@_frames("Decode")
@options.device()
@click.option(
    "--codec",
    type=click.Choice(OUTPUT_CODECS),
    help="How to compress .mp4 and .mkv; ffv1 is lossless. Default: h264.",
)
@click.option(
    "--crf", type=click.IntRange(min=0), metavar="N", help="Constant rate factor; lower is better and larger."
)
@click.option(
    "--on-error",
    type=click.Choice(ON_ERROR),
    default="stop",
    show_default=True,
    help="At damage in the file: stop, and write nothing, or skip what is damaged. With skip, lost frames show the "
    "last good frame before them, or the first good one; all others are exact. Standard error tells which are lost, "
    "and the exit status is 3.",
)
@options.audio("Leave out sound, subtitles and chapters.")
@options.threads()
@options.overwrite()
@click.pass_context
def decode(
    context: click.Context,
    source: str,
    output: str,
    frames: tuple[int, int | None] | None,
    device: str,
    codec: str | None,
    crf: int | None,
    on_error: str,
    audio: bool,
    threads: int | None,
    overwrite: bool,
) -> None:
    """Decode IN.cwrv (- for standard input) into a video file.

    Exit status: 0 all is exact, 1 an error, and no output, 3 damage was skipped (--on-error skip).
    """
    with loading_libraries():
        from nvcodec.media.video_io import check_output, write_video

    check_output(output, codec, crf, overwrite=overwrite)
    _check_distinct(source, output)
    start, stop = frames or (0, None)
    chosen = {"device": device, "threads": threads, "skip_damage": on_error == "skip"}
    with _open(context.obj, source, **chosen) as decoder, StatusLine() as line, _translation_on(line):
        total = (decoder.frame_count if stop is None else stop) - start
        pictures = decoder.frames(start, stop)
        pictures = line.count("decode", _from_zero(pictures) if start else pictures, total)
        with _sound(decoder, start, start + total, output) if audio else nullcontext() as sound:
            count = write_video(
                output, decoder.properties, pictures, codec=codec, crf=crf, overwrite=overwrite, sound=sound
            )
            for note in sound.notes if sound else []:
                line.warn(f"cwrv: warning: {note}")
        line.note(f"{output}: {count} frames, {count / line.elapsed_seconds:.1f} fps")
    if decoder.damage:
        for damage in decoder.damage:
            click.echo(f"cwrv: damage: {source}: {damage}", err=True)
        lost = sum(damage.stop - damage.start for damage in decoder.damage)
        click.echo(f"cwrv: {output}: {lost} of {count} frames lost, all others are exact", err=True)
        context.exit(EXIT_DAMAGED)


@main.command()
@click.argument("source", metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object, for programs.")
@click.pass_obj
def info(run: Run, source: str, as_json: bool) -> None:
    """Show the properties of a .cwrv file (- for standard input), and where every byte of it went."""
    with loading_libraries():
        from nvcodec.account import describe
        from nvcodec.cli.info import format_info

    with _open(run, source) as decoder, StatusLine() as line, _translation_on(line):
        described = describe(decoder, source)
        sound = decoder.container.read_sound()
        if sound is not None:
            described["sound_tracks"] = _tracks(sound)
    click.echo(json.dumps(described, indent=2) if as_json else format_info(described))


@main.command()
@click.argument("source", metavar="FILE")
@options.device()
@options.threads()
@click.pass_obj
def verify(run: Run, source: str, device: str, threads: int | None) -> None:
    """Check a whole .cwrv file (- for standard input): all checksums, and the hash of the decoded frames.

    Exit status 0 only if everything holds.
    """
    with _open(run, source, device=device, threads=threads) as decoder, StatusLine() as line, _translation_on(line):
        decoder.verify(lambda done: line.counting("verify", done, decoder.frame_count))
    click.echo(f"{source}: all checksums and the hash of {decoder.frame_count} decoded frames hold")


main.add_command(rd)


@contextmanager
def _open(run: Run, source: str, **settings: Any) -> Iterator[Decoder]:
    with loading_libraries():
        from nvcodec.decoder import Decoder

    run.source = source
    with Decoder(_standard_input() if source == STDIN else source, **settings) as decoder:
        yield decoder


def _tracks(sound: bytes) -> list[dict[str, str]] | None:
    """None where nothing can be read."""
    from nvcodec.media.sound import Sound
    from nvcodec.media.sound_write import tracks_of

    try:
        return tracks_of(Sound.unpack(sound))
    except BitstreamError:
        return None


@contextmanager
def _sound(decoder: Decoder, start: int, stop: int, output: str) -> Iterator[SoundWriter | None]:
    """That of frames ``start`` .. ``stop - 1``, None where there is none, or where ``output`` cannot have any."""
    payload = decoder.container.read_sound()
    if payload is None or output == STDOUT or output.lower().endswith(".y4m"):
        yield None
        return
    from nvcodec.core.frame import video_seconds
    from nvcodec.media.sound import Sound
    from nvcodec.media.sound_write import SoundWriter

    pts, video = decoder.container.pts, decoder.properties
    end = None if stop == decoder.frame_count else video_seconds(video, pts[start], pts[stop - 1])
    window = Fraction(0) if start else None, end
    try:
        sound = SoundWriter(Sound.unpack(payload), (pts[start] - pts[0]) * video.time_base, window)
    except BitstreamError as error:
        if not decoder.skip_damage:
            raise
        click.echo(f"cwrv: warning: {error}: it is left out", err=True)
        yield None
        return
    try:
        yield sound
    finally:
        sound.close()


def _standard_input() -> BinaryIO:
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError("will not read a file from a terminal")
    return sys.stdin.buffer


@contextmanager
def _readable(source: str) -> Iterator[str]:
    """``source``, of standard input a copy: it is read more than once."""
    if source != STDIN:
        yield source
        return
    from nvcodec.media.output_file import temporary_copy

    with temporary_copy(_standard_input()) as path:
        try:
            yield str(path)
        except InputError as error:
            raise InputError(str(error).replace(str(path), "standard input")) from error


@contextmanager
def _warnings_on(line: StatusLine) -> Iterator[None]:
    """Warnings as lines of ours."""
    with warnings.catch_warnings():
        for kind in (CheckpointWarning, SourceWarning):
            warnings.simplefilter("always", kind)
        warnings.showwarning = lambda message, *_, **__: line.warn(f"cwrv: warning: {message}")
        yield


@contextmanager
def _translation_on(line: StatusLine) -> Iterator[None]:
    """Tells on a terminal why a first use takes so long."""
    if not line.is_shown:
        yield
        return
    from nvcodec.core.compiled import telling_of_translation

    with telling_of_translation(
        lambda: line.note("cwrv: translating what runs often, usually once on a machine: it can take minutes")
    ):
        yield


def _check_distinct(source: str, output: str) -> None:
    if os.path.exists(source) and os.path.exists(output) and os.path.samefile(source, output):
        raise InputError(f"{output} is the input: it would overwrite itself")
    from nvcodec.media.picture_names import is_picture_of

    if is_picture_of(source, output):
        raise InputError(f"{output} is one of the input's pictures: it would overwrite it")


def _from_zero(frames: Iterator[Frame]) -> Iterator[Frame]:
    """Timestamps that count from the first frame of a part."""
    first: int | None = None
    for frame in frames:
        first = frame.pts if first is None else first
        yield replace(frame, pts=frame.pts - first)
