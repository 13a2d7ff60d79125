"""The command line with the codec behind it: a small video all the way, pipes and signals included."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from run_cwrv import cwrv, fails
from video_samples import frames, properties, read, same

from nvcodec.bitstream.container import ContainerReader, write_container
from nvcodec.cli import types as cli_types
from nvcodec.core.metrics import frame_psnr, mean_psnr
from nvcodec.decoder import Decoder
from nvcodec.encoder import pipeline
from nvcodec.hybrid.base import WIDTHS
from nvcodec.hybrid.encoder.stages import EFFORTS, GOPS
from nvcodec.implicit.encoder import recurrent_representation
from nvcodec.media.video_io import write_video

COUNT = 5


def outside(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own, fed by a pipe."""
    return subprocess.run(
        [sys.executable, "-m", "nvcodec", *map(str, arguments)], input=stdin, capture_output=True, check=False
    )


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    write_video(path, properties(), frames(pts=tuple(range(COUNT))), codec="ffv1")
    return path


@pytest.fixture(scope="module")
def encoded(clip: Path) -> tuple[Path, str]:
    """The file, and what the encoder said of it."""
    path = clip.with_suffix(".cwrv")
    arguments = ["encode", clip, "-o", path, "--quality", "30", "--effort", "fast", "--segment", "3"]
    result = cwrv(*arguments, "--threads", "1")
    assert (result.exit_code, result.stdout) == (0, "")
    return path, result.stderr


@pytest.fixture(scope="module")
def file(encoded: tuple[Path, str]) -> Path:
    return encoded[0]


def test_summary_is_true(encoded: tuple[Path, str], clip: Path) -> None:
    path, summary = encoded
    size = path.stat().st_size
    with Decoder(path) as decoder:
        mean = mean_psnr(frame_psnr(a, b) for a, b in zip(decoder, read(clip)[1], strict=True))
    assert summary.startswith(
        f"{path}: hybrid, {size} bytes, {8 * size / (96 * 80 * COUNT):.4f} bpp, PSNR Y {mean.y:.2f} dB, "
        f"6:1:1 {mean.yuv_611:.2f} dB, {COUNT} frames in 0:"
    )
    assert summary.count("\n") == 1


def test_decode(file: Path, tmp_path: Path) -> None:
    assert cwrv("decode", file, "-o", tmp_path / "a.mkv", "--codec", "ffv1").output == ""
    assert cwrv("decode", file, "-o", tmp_path / "a.y4m").output == ""
    found, pictures = read(tmp_path / "a.mkv")
    assert (found.width, found.height, found.frame_rate, len(pictures)) == (96, 80, 25, COUNT)
    assert same(pictures, read(tmp_path / "a.y4m")[1])
    assert cwrv("decode", file, "-o", tmp_path / "b.y4m", "--frames", "2:4").output == ""
    assert same(read(tmp_path / "b.y4m")[1], pictures[2:4])


def test_pipes(file: Path, tmp_path: Path) -> None:
    assert cwrv("decode", file, "-o", tmp_path / "a.y4m").output == ""
    result = outside("decode", "-", "-o", "-", stdin=file.read_bytes())
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout == (tmp_path / "a.y4m").read_bytes()
    result = outside("verify", "-", stdin=file.read_bytes())
    assert (result.returncode, result.stderr) == (0, b"")


def test_a_reader_that_hangs_up(file: Path) -> None:
    command = [sys.executable, "-m", "nvcodec", "decode", str(file), "-o", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_verify(file: Path, tmp_path: Path) -> None:
    result = cwrv("verify", file)
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"hash of {COUNT} decoded frames" in result.stdout
    data = file.read_bytes()
    damaged = tmp_path / "damaged.cwrv"
    for position in (0, 30, len(data) // 2, len(data) - 1):
        damaged.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        fails(cwrv("verify", damaged), 1, f"{damaged}: ")


def test_verify_finds_a_wrong_hash(file: Path, tmp_path: Path) -> None:
    """With right checksums, only the decoded frames can tell."""
    with ContainerReader(file) as reader:
        segments = list(reader.iter_segments())
        segments[1] = replace(segments[1], frame_hash=bytes(16))
        wrong = write_container(reader.header, segments, timestamps=reader.pts)
    (tmp_path / "wrong.cwrv").write_bytes(wrong)
    fails(cwrv("verify", tmp_path / "wrong.cwrv"), 1, "segment 1", "hash")


def test_info(file: Path) -> None:
    info = json.loads(cwrv("info", file, "--json").stdout)
    assert info["file_bytes"] == file.stat().st_size
    with ContainerReader(file) as reader:
        assert info["container"] == reader.byte_map()
    parts = info["bytes_by_purpose"]
    assert 0 <= parts["coder_end"] < 16 * len(info["segments"])
    assert sum(parts.values()) == pytest.approx(info["file_bytes"])
    assert parts["blocks"] > 0
    assert sorted(n for s in info["segments"] for u in s["units"] for n in u["frames"]) == list(range(COUNT))
    text = cwrv("info", file).stdout
    assert f"size            {file.stat().st_size} bytes" in text
    assert "segment 1: hybrid, frames 3 to 4" in text


def test_errors(file: Path, clip: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (["decode", file, "-o", tmp_path / "a.mkv", "--frames", "3:9"], f"file has {COUNT} frames"),
        (["decode", clip, "-o", tmp_path / "a.mkv"], "clip.mkv: not a .cwrv file"),
        (["info", clip], "clip.mkv: not a .cwrv file"),
        (["verify", tmp_path], "Is a directory"),
        (["encode", file, "-o", tmp_path / "a.cwrv"], "clip.cwrv: not a readable video"),
        (["encode", clip, "-o", tmp_path / "a.cwrv", "--frames", "3:9"], f"only {COUNT} frames"),
        (["encode", clip, "-o", tmp_path / "a.cwrv", "--size", "60B"], "bytes"),
        (["encode", clip, "-o", tmp_path / "a.cwrv", "--width", "9"], "width 9"),
    ):
        fails(cwrv(*arguments), 1, message)
    assert list(tmp_path.iterdir()) == []


def test_help_states_the_defaults_of_the_encoder() -> None:
    text = " ".join(cwrv("encode", "--help").stdout.split())
    assert f"without any target: {pipeline.DEFAULT_BPP}." in text
    assert "between P-frames. Default: 1, 2, 4 or 8, by trial." in text
    assert sorted(GOPS) == sorted(recurrent_representation.GOPS) == [1, 2, 4, 8]
    assert f"without the others. Default: {pipeline.DEFAULT_SEGMENT}; of a network, all it can." in text
    assert f"{', '.join(map(str, WIDTHS[:-1]))} or {WIDTHS[-1]}." in text
    assert set(cli_types.EFFORTS) == set(EFFORTS)
    assert {*cli_types.MODELS, pipeline.OWN_MODEL} == set(pipeline.MODELS)


@pytest.mark.parametrize(("number", "status", "message"), [(signal.SIGINT, 130, "cwrv: interrupted\n"),
                                                           (signal.SIGTERM, 143, "cwrv: terminated\n")])  # fmt: skip
def test_signals_leave_no_half_file(file: Path, number: int, status: int, message: str) -> None:
    """The first bytes of the output are awaited, then the decoder is stopped in the middle of its work."""
    folder = file.parent / f"signal{int(number)}"
    folder.mkdir()
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "nvcodec", "decode", "-", "-o", str(folder / "a.mkv")]
    with subprocess.Popen(command, stdin=reader, stderr=subprocess.PIPE) as process:
        os.close(reader)
        os.write(writer, file.read_bytes()[:-50])  # it waits for the rest
        deadline = time.monotonic() + 60
        while not list(folder.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        assert process.stderr is not None
        error = process.stderr.read().decode()
    os.close(writer)
    assert (process.returncode, error) == (status, message)
    assert list(folder.iterdir()) == []
