"""Kill encodes at random moments and start them again; show that the file is the same to the last byte.

    python tools/kill_campaign.py CLIP --kills 20 -- --frames 0:5 --effort fast
    python tools/kill_campaign.py CLIP --kills 20 --signal TERM -- --frames 0:5 --effort fast

An encode without interruption comes first: it gives the bytes, and the time within which the others are killed. Then
one encode after the other is killed and started again, each time after a random time, until its output is there. A
case fails if the bytes differ, if anything lies beside an output, or if a kill costs more than ``--most-lost`` seconds,
the start of the process included. With SIGINT and SIGTERM it also fails if the process takes more than two seconds to
end, or leaves more than its checkpoint.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from nvcodec.media.output_file import checkpoint_path

__all__ = ["Campaign", "after", "encode_command", "kill_when"]


MOST_SECONDS_TO_END = 2.0


def encode_command(clip: Path, output: Path, options: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "nvcodec", "encode", str(clip), "-o", str(output), *options]


def after(seconds: float) -> Callable[[], bool]:
    """Whether so much time has passed since this was called."""
    deadline = time.monotonic() + seconds
    return lambda: time.monotonic() >= deadline


def kill_when(command: Sequence[str], is_time: Callable[[], bool], number: int = signal.SIGKILL) -> float | None:
    """Start a command and send it a signal as soon as ``is_time``. Returns the seconds that it took to end, None if it
    was done before. RuntimeError if it fails."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not is_time():
            time.sleep(0.01)
        process.send_signal(number)
        start = time.monotonic()
        _, error = process.communicate()
        seconds = time.monotonic() - start
    if process.returncode in (-number, 128 + number):
        return seconds
    if process.returncode:
        raise RuntimeError(f"status {process.returncode}: {error}")
    return None


@dataclass
class Campaign:
    """Counts. ``lost``: at each kill, the seconds since this run began or has last kept its work. ``ended``: those that
    the process took to end."""

    folder: Path
    expected: bytes
    most_lost: float
    number: int = signal.SIGKILL
    kills: int = 0
    encodes: int = 0
    lost: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def run(self, command: Sequence[str], output: Path, moments: Callable[[], Callable[[], bool]], kills: int) -> None:
        """One encode after the other, until ``kills`` have been killed; the last one is left to end. ``moments``: what
        tells the time to kill an encode, made as it starts."""
        while self.kills < kills:
            while self.kills < kills and not output.exists():
                start = time.time()
                ended = kill_when(command, moments(), self.number)
                if ended is not None and not output.exists():
                    self._killed(output, start, ended)
            if not output.exists():
                subprocess.run(command, check=True, capture_output=True)
            self._finished(output)

    def _killed(self, output: Path, start: float, ended: float) -> None:
        self.kills += 1
        self.ended.append(ended)
        checkpoint = checkpoint_path(output)
        left = {path.name for path in self.folder.iterdir()} - {checkpoint.name}
        if self.number != signal.SIGKILL and (ended > MOST_SECONDS_TO_END or left):
            self.failures.append(f"kill {self.kills}: ended after {ended:.1f} s, left {', '.join(left) or 'nothing'}")
        kept = checkpoint.stat().st_mtime if checkpoint.exists() else start
        self.lost.append(time.time() - max(kept, start))
        if self.lost[-1] > self.most_lost:
            self.failures.append(f"kill {self.kills}: {self.lost[-1]:.1f} s of work are lost")

    def _finished(self, output: Path) -> None:
        self.encodes += 1
        if output.read_bytes() != self.expected:
            self.failures.append(f"encode {self.encodes}: other bytes")
        output.unlink()
        left = sorted(path.name for path in self.folder.iterdir())
        if left:
            self.failures.append(f"encode {self.encodes}: left {', '.join(left)}")


@click.command()
@click.argument("clip", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("options", nargs=-1)
@click.option("--kills", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--most-lost", type=click.FloatRange(min=0), default=15, show_default=True)
@click.option("--signal", "kind", type=click.Choice(["KILL", "INT", "TERM"]), default="KILL", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def main(clip: Path, options: tuple[str, ...], kills: int, most_lost: float, kind: str, seed: int) -> None:
    """Kill encodes of CLIP with OPTIONS, those of ``cwrv encode``, at random moments."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        output = folder / "out.cwrv"
        command = encode_command(clip, output, options)
        start = time.monotonic()
        subprocess.run(command, check=True, capture_output=True)
        seconds = time.monotonic() - start
        campaign = Campaign(folder, output.read_bytes(), most_lost, signal.Signals[f"SIG{kind}"])
        output.unlink()
        click.echo(f"without interruption: {len(campaign.expected)} bytes in {seconds:.1f} s")
        moments = random.Random(seed)
        start = time.monotonic()
        campaign.run(command, output, lambda: after(moments.uniform(0, seconds)), kills)
    lost = sorted(campaign.lost)
    click.echo(
        f"{campaign.kills} kills in {campaign.encodes} encodes, {time.monotonic() - start:.0f} s; work lost by a kill: "
        f"{lost[len(lost) // 2]:.1f} s (median), {lost[-1]:.1f} s (most); "
        f"ended after {max(campaign.ended):.2f} s (most); {len(campaign.failures)} failed"
    )
    for failure in campaign.failures:
        click.echo(failure, err=True)
    sys.exit(1 if campaign.failures else 0)


if __name__ == "__main__":
    main()
