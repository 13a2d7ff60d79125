"""What the command line tells while it works: one line on standard error, rewritten, on a terminal only."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from nvcodec.core.frame import Frame
    from nvcodec.encoder.pipeline import Progress

__all__ = ["CLEAR_LINE", "StatusLine", "format_duration", "format_stages"]

CLEAR_LINE = "\r\x1b[K"
"""For a terminal."""

_MIN_INTERVAL_SECONDS = 0.1
_MIN_FRACTION = 0.01
"""Before this part of the work has been seen to pass, the time left is a guess that nobody should read."""


def format_duration(seconds: float) -> str:
    """
    >>> format_duration(7.4), format_duration(75), format_duration(3723)
    ('0:07', '1:15', '1:02:03')
    """
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def _format_recurrent(stages: Mapping[str, float]) -> str:
    """The same of a segment whose frames refer to others: see ``nvcodec.implicit.encoder.recurrent_stages``."""
    text = f"  stages: fitted {stages['fit_psnr']:.2f} dB, weights of {stages['weight_bits'] / 8:.0f} bytes"
    if "sparsity" in stages:
        alone = round((1 - stages["sparsity"]) * stages["weights"])
        directions = f"a code of {stages['directions']:.0f} numbers, " if stages["directions"] else ""
        text += f": {directions}{alone} of {stages['weights']:.0f} changed one by one"
    if "float_psnr" in stages:
        text += f"; unquantised they would come to {stages['float_psnr']:.2f} dB"
    return text


def format_stages(stages: Mapping[str, float]) -> str:
    """What the stages of an implicit segment came to, in a line; see ``nvcodec.implicit.encoder.stages.Figures``.

    Their PSNR is that of the loss: the error of luma and both chromas together, pooled over the frames. It says what
    a stage cost, and is another measure than the PSNR of luma and of 6:1:1 in the line before.
    """
    if "latents" not in stages:
        return _format_recurrent(stages)
    weights, latents = max(stages["weights"], 1), stages["latents"]
    text = (
        f"  stages, PSNR of the loss: fitted {stages['fitted']:.2f} dB, in integers {stages['settled']:.2f}, "
        f"{100 * stages['sparsity']:.0f} % pruned {stages['pruned']:.2f}, quantised {stages['quantised']:.2f}, "
        f"tuned {stages['tuned']:.2f}; {stages['weight_bits'] / weights:.2f} bits a weight"
    )
    return text + (f", {stages['latent_bits'] / latents:.2f} a latent" if latents else "")


class StatusLine:
    """Shows how far the work is. Silent, and next to free, unless ``stream`` is a terminal.

    A context manager: on leaving, whatever the reason, the line is gone.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._start = clock()
        self._last = float("-inf")
        self._first: tuple[float, float] | None = None
        self.is_shown = self._stream.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.is_shown:
            self._stream.write(CLEAR_LINE)
            self._stream.flush()

    @property
    def elapsed_seconds(self) -> float:
        return self._clock() - self._start

    def encoding(self, progress: Progress) -> None:
        """The callback that the encoder wants."""
        if progress.seconds is not None:
            self.warn(f"this will take about {format_duration(progress.seconds)} here")
        parts = [f"{progress.stage}: frame {progress.frame}/{progress.frames}" if progress.frame else progress.stage]
        if progress.bpp is not None:
            parts.append(f"{progress.bpp:.4f} bpp")
        if progress.psnr is not None:
            parts.append(f"{progress.psnr:.2f} dB")
        self._show(parts, progress.fraction)

    def counting(self, verb: str, done: int, total: int) -> None:
        """``done`` of ``total`` frames."""
        rate = done / max(self.elapsed_seconds, 1e-9)
        self._show([f"{verb}: frame {done}/{total}", f"{rate:.1f} fps"], done / total)

    def count(self, verb: str, frames: Iterable[Frame], total: int) -> Iterator[Frame]:
        """``frames``, shown as they pass."""
        for number, frame in enumerate(frames, 1):
            yield frame
            self.counting(verb, number, total)

    def working(self, parts: list[str], fraction: float) -> None:
        """Any other work: what is done now, and which part of all of it is done, 0 .. 1."""
        self._show(parts, fraction)

    def note(self, text: str) -> None:
        """A line that stays, on a terminal only."""
        if self.is_shown:
            self._stream.write(f"{CLEAR_LINE}{text}\n")

    def warn(self, text: str) -> None:
        """A line that stays, wherever standard error goes."""
        self._stream.write(f"{CLEAR_LINE}{text}\n" if self.is_shown else f"{text}\n")

    def _show(self, parts: list[str], fraction: float) -> None:
        now = self._clock()
        if self._first is None:
            self._first = now, fraction  # of work that goes on, much is done when it begins
        start, before = self._first
        if not self.is_shown or (now - self._last < _MIN_INTERVAL_SECONDS and fraction < 1):
            return
        self._last = now
        if fraction < 1 and fraction - before >= _MIN_FRACTION:
            parts = [*parts, f"{format_duration((now - start) * (1 - fraction) / (fraction - before))} left"]
        width = shutil.get_terminal_size().columns - 1
        self._stream.write("\r" + "  ".join(parts)[:width] + "\x1b[K")
        self._stream.flush()
