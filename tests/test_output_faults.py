"""Sources that break off, disks that are full, two encodes at once: told, and no output damaged."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest
from conftest import tiny_frames
from fault_files import small_file
from run_cwrv import cwrv, fails
from video_samples import frames, properties, write_ffv1

from nvcodec.core.errors import OutputError
from nvcodec.core.frame import Frame
from nvcodec.encoder.pipeline import EncodeOptions, Progress, encode
from nvcodec.media import output_file
from nvcodec.media.av_frame import to_av_frame
from nvcodec.media.output_file import output_lock
from nvcodec.media.source_length import missing_bytes
from nvcodec.media.video_io import VideoReader, write_video
from nvcodec.media.y4m import write_y4m

ENCODE = ("--quality", "45", "--effort", "fast", "--device", "cpu", "--threads", "1")


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


# Sources


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.y4m"
    with path.open("wb") as stream:
        write_y4m(stream, properties(16, 16), tiny_frames(16, 16, 3))
    return path


def test_source_that_ends_within_a_frame(clip: Path, tmp_path: Path) -> None:
    clip.write_bytes(clip.read_bytes()[:-100])
    fails(cwrv("encode", clip, "-o", tmp_path / "a.cwrv", *ENCODE), 1, "clip.y4m: the file ends early, within frame 2")
    assert names(tmp_path) == ["clip.y4m"]


def test_source_that_ends_before_the_range(clip: Path, tmp_path: Path) -> None:
    clip.write_bytes(clip.read_bytes()[: -(16 * 16 * 3 // 2 + 6)])
    fails(cwrv("encode", clip, "-o", tmp_path / "a.cwrv", "--frames", "0:3", *ENCODE), 1, "only 2 frames")
    assert names(tmp_path) == ["clip.y4m"]


def test_matroska_that_is_cut(tmp_path: Path) -> None:
    """Wherever it is cut, the container tells how long it was."""
    clip = tmp_path / "clip.mkv"
    write_video(clip, properties(), frames(), codec="ffv1")
    data = clip.read_bytes()
    with av.open(str(clip)) as container:
        last = [packet for packet in container.demux(video=0) if packet.size][-1]
    assert last.pos is not None
    for length, frame in ((last.pos + last.size // 2, 3), (last.pos, 3), (len(data) - 1, 4)):
        clip.write_bytes(data[:length])
        error = f"ends early, within or behind frame {frame}: {len(data) - length} bytes are missing"
        fails(cwrv("encode", clip, "-o", tmp_path / "a.cwrv", *ENCODE), 1, "clip.mkv: the file " + error)
    assert names(tmp_path) == ["clip.mkv"]
    with VideoReader(clip, frames=(0, 3)) as reader:
        assert len(list(reader)) == 3  # what is there can be had


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".avi"])
def test_length_that_containers_state(tmp_path: Path, suffix: str) -> None:
    clip = tmp_path / f"clip{suffix}"
    with av.open(str(clip), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for picture in (to_av_frame(frame) for frame in frames(64, 48)):
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    data = clip.read_bytes()
    assert missing_bytes(clip) == 0
    for cut in (1, len(data) // 3):
        clip.write_bytes(data[:-cut])
        assert missing_bytes(clip) == cut
    for start in (data[:5], data[:12], b"", b"RIFF"):
        clip.write_bytes(start)
        assert missing_bytes(clip) >= 0
    assert missing_bytes(tmp_path / "nowhere") == 0


def test_length_that_is_unknown(tmp_path: Path) -> None:
    """Matroska as it comes from a stream: the size of its Segment is all ones."""
    clip = tmp_path / "clip.mkv"
    write_video(clip, properties(), frames(), codec="ffv1")
    data = clip.read_bytes()
    place = data.index(b"\x18\x53\x80\x67") + 4
    clip.write_bytes(data[:place] + b"\x01" + b"\xff" * 7 + data[place + 8 : -9])
    assert missing_bytes(clip) == 0


def test_frames_that_change_size(tmp_path: Path) -> None:
    for number, size in enumerate(((32, 32), (32, 32), (48, 32))):
        write_ffv1(tmp_path / f"{number}.mkv", *size, "yuv420p", 1, [90, 120, 130])
        with av.open(str(tmp_path / f"{number}.mkv")) as container:
            next(container.decode(video=0)).save(str(tmp_path / f"img_{number}.png"))
        (tmp_path / f"{number}.mkv").unlink()
    before = names(tmp_path)
    result = cwrv("encode", tmp_path / "img_%d.png", "-o", tmp_path / "a.cwrv", *ENCODE)
    fails(result, 1, "the picture size changes at frame 2, from 32x32 to 48x32")
    assert names(tmp_path) == before


# A full disk


@contextlib.contextmanager
def room_for(count: int) -> Iterator[None]:
    """No file may become longer than ``count`` bytes: what is written beyond fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("earlier", [None, b"an earlier file"])
def test_encode_to_a_full_disk(clip: Path, tmp_path: Path, earlier: bytes | None) -> None:
    output = tmp_path / "a.cwrv"
    if earlier:
        output.write_bytes(earlier)
    with room_for(40):
        result = cwrv("encode", clip, "-o", output, "-y", "--frames", "0:1", *ENCODE)
    warning, error = result.stderr.splitlines()
    assert warning == f"cwrv: warning: no checkpoint: cannot write {output}.checkpoint: File too large"
    assert (result.exit_code, error) == (1, f"cwrv: error: cannot write {output}: File too large")
    assert names(tmp_path) == (["a.cwrv", "clip.y4m"] if earlier else ["clip.y4m"])
    if earlier:
        assert output.read_bytes() == earlier


def test_room_for_the_output_but_not_for_a_checkpoint(clip: Path, tmp_path: Path) -> None:
    with room_for(1500):
        result = cwrv("encode", clip, "-o", tmp_path / "a.cwrv", "--frames", "0:1", *ENCODE)
    assert result.exit_code == 0
    assert result.stderr.startswith("cwrv: warning: no checkpoint: ")
    assert names(tmp_path) == ["a.cwrv", "clip.y4m"]
    assert cwrv("verify", tmp_path / "a.cwrv").exit_code == 0


@pytest.mark.parametrize(
    ("suffix", "options"), [(".y4m", ()), (".mkv", ("--codec", "ffv1")), (".mkv", ()), (".mp4", ())]
)
def test_decode_to_a_full_disk(tmp_path: Path, suffix: str, options: tuple[str, ...]) -> None:
    source, output = tmp_path / "a.cwrv", tmp_path / f"a{suffix}"
    source.write_bytes(small_file(64, 48, (2, 2))[0])
    output.write_bytes(b"an earlier file")
    with room_for(600):
        result = cwrv("decode", source, "-o", output, "-y", *options, "--device", "cpu")
    fails(result, 1, f"cannot write {output}: File too large")
    assert names(tmp_path) == sorted(["a.cwrv", output.name])
    assert output.read_bytes() == b"an earlier file"


def test_full_disk_while_the_trailer_is_written(tmp_path: Path) -> None:
    """An .mp4 gets its index at the very end: one byte too little room fails, too."""
    pictures: list[Frame] = frames()
    whole = tmp_path / "whole.mp4"
    write_video(whole, properties(), pictures)
    size = whole.stat().st_size
    with room_for(size - 1), pytest.raises(OutputError, match=r"cannot write .*a\.mp4"):
        write_video(tmp_path / "a.mp4", properties(), pictures)
    assert names(tmp_path) == ["whole.mp4"]


# Two at once

HOLD = """
import sys
from pathlib import Path
from nvcodec.media.output_file import output_lock
with output_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds ``path``, until its input ends."""
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def test_a_second_encode_is_refused(clip: Path, tmp_path: Path) -> None:
    output, link = tmp_path / "a.cwrv", tmp_path / "link.cwrv"
    link.symlink_to(output)
    with holder(output):
        fails(cwrv("encode", clip, "-o", output, *ENCODE), 1, f"{output} is being written by another process")
        fails(cwrv("encode", clip, "-o", link, "-y", *ENCODE), 1, f"{link} is being written by another process")
        with output_lock(tmp_path / "b.cwrv"):
            pass
    assert names(tmp_path) == ["clip.y4m", "link.cwrv"]
    assert cwrv("encode", clip, "-o", output, "--frames", "0:1", *ENCODE).exit_code == 0
    assert names(tmp_path) == ["a.cwrv", "clip.y4m", "link.cwrv"]


def test_a_killed_process_locks_nothing(tmp_path: Path) -> None:
    output = tmp_path / "a.cwrv"
    with holder(output) as process:
        process.kill()
    assert names(tmp_path) == [".a.cwrv.lock"]
    with output_lock(output):
        assert names(tmp_path) == [".a.cwrv.lock"]
    assert names(tmp_path) == []


def test_the_lock_is_held_within_a_process_too(tmp_path: Path) -> None:
    with output_lock(tmp_path / "a"), pytest.raises(OutputError, match="being written"), output_lock(tmp_path / "a"):
        pytest.fail("the body must not run")
    with output_lock(tmp_path / "a"):
        pass


def test_encode_of_the_api_takes_the_lock(clip: Path, tmp_path: Path) -> None:
    options = EncodeOptions(quality=45, effort="fast", device="cpu", threads=1)
    tried = []

    def try_a_second(progress: Progress) -> None:
        with pytest.raises(OutputError, match=r"a\.cwrv is being written by another process"):
            encode(clip, tmp_path / "a.cwrv", options)
        tried.append(progress)

    encode(clip, tmp_path / "a.cwrv", options, frames=(0, 1), progress=try_a_second)
    assert tried
    assert names(tmp_path) == ["a.cwrv", "clip.y4m"]


def test_a_lock_file_that_vanished_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last holder removed it between our opening and our locking it."""
    lock = tmp_path / ".a.lock"
    faithful, calls = output_file.fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        if not calls:
            lock.unlink()
        calls.append(descriptor)
        faithful(descriptor, operation)

    monkeypatch.setattr(output_file.fcntl, "flock", late)
    with output_lock(tmp_path / "a"):
        assert len(calls) == 2
        assert lock.exists()


def test_systems_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(output_file.fcntl, "flock", unsupported)
    with output_lock(tmp_path / "a"), output_lock(tmp_path / "a"):
        pass
    monkeypatch.setattr(output_file, "fcntl", None)
    with output_lock(tmp_path / "a"), output_lock(tmp_path / "a"):
        assert names(tmp_path) == []


def test_a_directory_that_cannot_hold_the_lock(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"), output_lock(tmp_path / "nowhere" / "a"):
        pytest.fail("the body must not run")
