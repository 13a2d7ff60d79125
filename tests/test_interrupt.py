"""Encodes that are killed, interrupted or terminated, in processes of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import tiny_frames
from kill_campaign import Campaign, encode_command, kill_when
from run_cwrv import cwrv
from video_samples import properties

from nvcodec.media.output_file import checkpoint_path
from nvcodec.media.y4m import write_y4m

OPTIONS = ("--bpp", "1.2", "--effort", "medium", "--segment", "2", "--device", "cpu", "--threads", "1")
SIGNALS = [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.y4m"
    with path.open("wb") as stream:
        write_y4m(stream, properties(64, 48), tiny_frames(64, 48, 4))
    return path


@pytest.fixture(scope="module")
def whole(clip: Path) -> bytes:
    """The bytes of an encode that nobody interrupts."""
    path = clip.with_suffix(".cwrv")
    assert cwrv("encode", clip, "-o", path, *OPTIONS).exit_code == 0
    return path.read_bytes()


HELD = """
import runpy, sys, time
from nvcodec.encoder import checkpoint
keep, left = checkpoint.Checkpoint.keep, int(sys.argv.pop(1))
def keep_and_wait(self, state):
    global left
    keep(self, state)
    left -= 1
    if left == 0:
        time.sleep(600)
checkpoint._SHARE = 1e9  # checkpoints whatever they cost
checkpoint.Checkpoint.keep = keep_and_wait
runpy.run_module("nvcodec", run_name="__main__")
"""


def held_command(times: int, *arguments: object) -> list[str]:
    """That of an encode which waits once it has kept its work so often, so that it never ends before it is stopped."""
    python, _, _, *rest = encode_command(*arguments)  # type: ignore[arg-type]
    return [python, "-c", HELD, str(times), *rest]


def renewed(path: Path, times: int) -> Callable[[], bool]:
    """Whether a file has been replaced so often."""
    seen = {identity(path)}

    def is_time() -> bool:
        seen.add(identity(path))
        return len(seen) > times

    return is_time


def identity(path: Path) -> int | None:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime_ns
    return None


def test_killed_and_started_again(clip: Path, whole: bytes, tmp_path: Path) -> None:
    """Killed again and again once it has kept its work; each run goes on from the one before."""
    output = tmp_path / "a.cwrv"
    command = encode_command(clip, output, OPTIONS)
    for times in (1, 2, 1):  # at the latest it waits there
        before = identity(checkpoint_path(output))
        held = held_command(times, clip, output, OPTIONS)
        assert kill_when(held, renewed(checkpoint_path(output), 1)) is not None
        assert identity(checkpoint_path(output)) != before
        assert not output.exists()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.endswith(", interruptions left out\n")
    assert output.read_bytes() == whole
    assert names(tmp_path) == ["a.cwrv"]


def test_the_campaign_can_fail(clip: Path, whole: bytes, tmp_path: Path) -> None:
    """It is given other bytes than those it will find, and a file that nobody removes. What it kills waits for that:
    it has left a mark, and only where there is one does it write its file."""
    stray = tmp_path / "stray"
    campaign = Campaign(tmp_path, whole[:-1], most_lost=60)
    program = f"""
import pathlib, time
if not pathlib.Path("stray").exists():
    pathlib.Path("stray").touch()
    time.sleep(600)
pathlib.Path("a.cwrv").write_bytes({whole!r})
"""
    with contextlib.chdir(tmp_path):
        campaign.run([sys.executable, "-c", program], tmp_path / "a.cwrv", lambda: stray.exists, 1)
    assert campaign.failures == ["encode 1: other bytes", "encode 1: left stray"]
    with pytest.raises(RuntimeError, match="status 3"):
        kill_when([sys.executable, "-c", "raise SystemExit(3)"], lambda: False)


@pytest.mark.parametrize(("number", "status", "word"), SIGNALS)
def test_signals(clip: Path, whole: bytes, tmp_path: Path, number: int, status: int, word: str) -> None:
    """Promptly, with a checkpoint, with no half file, and with one line that tells how to go on."""
    output = tmp_path / "a.cwrv"
    with subprocess.Popen(held_command(2, clip, output, OPTIONS), stderr=subprocess.PIPE, text=True) as process:
        is_time = renewed(checkpoint_path(output), 1)
        while process.poll() is None and not is_time():
            time.sleep(0.01)
        process.send_signal(number)
        start = time.monotonic()
        _, error = process.communicate()
        seconds = time.monotonic() - start
    assert (process.returncode, seconds < 2) == (status, True)
    assert error == f"cwrv: {word}; the same command goes on from {checkpoint_path(output)}\n"
    assert names(tmp_path) == ["a.cwrv.checkpoint"]
    assert cwrv("encode", clip, "-o", output, *OPTIONS).exit_code == 0
    assert output.read_bytes() == whole


# Where the main thread is in the middle of something long

LONG = """
import hashlib, sys
from pathlib import Path
from nvcodec.cli.interrupt import ends_promptly
from nvcodec.media.output_file import atomic_output, output_lock
path = Path(sys.argv[1])
with ends_promptly(lambda number: f"stopped by {number}"), output_lock(path), atomic_output(path, overwrite=False):
    print("begun", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""
"""The last call takes hours, and hears no signal."""


@pytest.mark.parametrize(("number", "status", "word"), SIGNALS)
def test_signals_while_python_cannot_hear_them(tmp_path: Path, number: int, status: int, word: str) -> None:
    command = [sys.executable, "-c", LONG, str(tmp_path / "a")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        assert len(names(tmp_path)) == 2
        time.sleep(0.3)
        process.send_signal(number)
        start = time.monotonic()
        _, error = process.communicate()
        seconds = time.monotonic() - start
    assert (process.returncode, error) == (status, f"stopped by {number}\n")
    assert seconds < 2
    assert names(tmp_path) == []


LOST = """
import ctypes, signal, sys, time
from nvcodec.cli.interrupt import ends_promptly
with ends_promptly(lambda number: f"stopped by {number}"):
    ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(int(sys.argv[1])))()
    time.sleep(60)
"""
"""The signal comes while compiled code has called a function, where what is raised goes no further."""


@pytest.mark.parametrize(("number", "status", "word"), SIGNALS)
def test_signals_that_compiled_code_loses(number: int, status: int, word: str) -> None:
    done = subprocess.run([sys.executable, "-c", LOST, str(int(number))], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (status, f"stopped by {number}\n")


# While libraries are loaded

STUCK = """
import sys, time
from nvcodec.cli.interrupt import ends_at_once, ends_promptly
with ends_promptly(lambda number: "never said"), ends_at_once():
    print("begun", flush=True)
    sum(range(10**12))
"""
"""The last line never lets another thread have a turn: so does a library that waits for memory."""


@pytest.mark.parametrize(("number", "status", "word"), SIGNALS)
def test_signals_while_libraries_are_loaded(number: int, status: int, word: str) -> None:
    command = [sys.executable, "-c", STUCK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        start = time.monotonic()
        _, error = process.communicate()
        seconds = time.monotonic() - start
    assert (process.returncode, error) == (-number, "")
    assert seconds < 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("delay", [0.05, 0.15, 0.4, 1.0])
def test_signals_from_the_first_moment_on(clip: Path, tmp_path: Path, number: int, delay: float) -> None:
    """However early one comes: no traceback, nothing left."""
    command = encode_command(clip, tmp_path / "a.cwrv", ("--bpp", "1.2"))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(delay)
        process.send_signal(number)
        start = time.monotonic()
        _, error = process.communicate()
        assert time.monotonic() - start < 2
    assert process.returncode in (-number, 128 + number)
    assert "Traceback" not in error or delay < 0.1  # before any line of ours runs
    assert not (tmp_path / "a.cwrv").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v")
@pytest.mark.parametrize("arguments", ["info a.cwrv", "rd a.y4m -o out"])
def test_too_little_memory_is_an_error(tmp_path: Path, arguments: str) -> None:
    """A library that cannot have what it needs waits for it for ever: it is not loaded."""
    command = f"cd {tmp_path}; ulimit -v 1000000; exec {sys.executable} -m nvcodec {arguments}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == (
        "cwrv: error: too little memory: the address space is limited to 1024 MB (ulimit -v), 1450 MB are needed\n"
    )
