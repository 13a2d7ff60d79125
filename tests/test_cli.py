"""The command line: options become the right calls, errors one line and an exit status."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_codec import Calls, account, install
from run_cwrv import cwrv, fails
from video_samples import frames, read, same

from nvcodec import __version__
from nvcodec.cli import commands as cli
from nvcodec.cli.progress import StatusLine
from nvcodec.cli.types import parse_bitrate, parse_size
from nvcodec.core.errors import ChecksumError, EncodeError, InputError
from nvcodec.media.video_io import CODECS, ReadOptions


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The codec is replaced; what the command line asks of it is recorded."""
    return install(monkeypatch)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.cwrv"
    path.write_bytes(b"x")
    return path


# Values


@pytest.mark.parametrize(
    ("text", "bits"), [("400k", 4e5), ("1.5M", 1.5e6), ("64000", 64e3), (".5k", 500), ("1 M", 1e6)]
)
def test_bitrate(text: str, bits: float) -> None:
    assert parse_bitrate(text) == bits


@pytest.mark.parametrize(
    ("text", "count"),
    [("60kB", 60000), ("2MB", 2 * 10**6), ("1MiB", 2**20), ("70000", 70000), ("1.5 KiB", 1536), ("9.9B", 9)],
)
def test_size(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "k", "-1k", "1e3", "400K", "400kb", "400 k B", "inf", "nan", "0", "\u0661k"])
def test_not_a_bitrate(text: str) -> None:
    with pytest.raises(InputError):
        parse_bitrate(text)


@pytest.mark.parametrize("text", ["", "kB", "-1kB", "1e3", "60kb", "60k", "60mb", "0.5", "0B", "60kB2"])
def test_not_a_size(text: str) -> None:
    with pytest.raises(InputError):
        parse_size(text)


# Encode


def test_encode_defaults(calls: Calls, tmp_path: Path) -> None:
    result = cwrv("encode", "a.mkv", "-o", tmp_path / "a.cwrv")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == (
        f"{tmp_path / 'a.cwrv'}: hybrid, 3300 bytes, 0.1234 bpp, PSNR Y 35.10 dB, 6:1:1 36.50 dB, 33 frames in 1:01\n"
    )
    assert calls.encoded == [
        {
            "source": "a.mkv", "output": str(tmp_path / "a.cwrv"), "bpp": None, "bitrate": None, "size": None,
            "quality": None, "effort": "medium", "gop": None, "segment": None, "width": None,
            "device": "auto", "threads": None, "seed": 0, "frames": None, "overwrite": False,
            "progress": None, "model": "hybrid", "params": None, "epochs": None,
            "reading": ReadOptions(), "audio": True,
        }
    ]  # fmt: skip


def test_encode_options(calls: Calls, tmp_path: Path) -> None:
    options = (
        "--bitrate 400k --effort slow --frames 2:9 --gop 8 --segment 16 --width 24 --device cpu --threads 2 --seed 7 -y"
    )
    assert cwrv("encode", "a.mkv", "-o", tmp_path / "a", *options.split()).exit_code == 0
    expected = {
        "bpp": None, "bitrate": 400_000.0, "effort": "slow", "frames": (2, 9), "gop": 8, "segment": 16,
        "width": 24, "device": "cpu", "threads": 2, "seed": 7, "overwrite": True,
    }  # fmt: skip
    assert calls.encoded[0].items() >= expected.items()


@pytest.mark.parametrize(
    ("option", "value", "name", "parsed"),
    [
        ("--bpp", "0.2", "bpp", 0.2),
        ("--bitrate", "1.5M", "bitrate", 1.5e6),
        ("--size", "60kB", "size", 60000),
        ("--quality", "30", "quality", 30.0),
    ],
)
def test_each_target(
    calls: Calls, tmp_path: Path, option: str, value: str, name: str, parsed: float
) -> None:  # fmt: skip
    assert cwrv("encode", "a.mkv", "-o", tmp_path / "a", option, value).exit_code == 0
    asked = {key: calls.encoded[0][key] for key in ("bpp", "bitrate", "size", "quality")}
    assert asked == dict.fromkeys(asked) | {name: parsed}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("encode a.mkv -o a.cwrv --bpp 0.1 --size 1MB", "only one target: --bpp or --size"),
        ("encode a.mkv -o a.cwrv --bpp 0", "--bpp"),
        ("encode a.mkv -o a.cwrv --size 60kb", "60kB, 2MB or 1MiB"),
        ("encode a.mkv -o a.cwrv --bitrate fast", "400k or 1.5M"),
        ("encode a.mkv -o a.cwrv --frames 5", "A:B"),
        ("encode a.mkv -o a.cwrv --frames 5:5", "empty"),
        ("encode a.mkv -o a.cwrv --gop 65", "1<=x<=64"),
        ("encode a.mkv -o a.cwrv --effort huge", "huge"),
        ("encode a.mkv", "--output"),
        ("encode -o a.cwrv", "INPUT"),
        ("decode a.cwrv -o a.mp4 --codec vp9", "vp9"),
        ("decode a.cwrv -o a.mp4 --threads 0", "--threads"),
        ("verify", "FILE"),
        ("info a b", "unexpected extra argument"),
        ("enhance a", "enhance"),
    ],
)
def test_wrong_usage(calls: Calls, arguments: str, words: str) -> None:
    fails(cwrv(*arguments.split()), 2, words)
    assert not calls.encoded
    assert not calls.opened


def test_encode_checks_its_output_first(calls: Calls, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    fails(cwrv("encode", "a.mkv", "-o", tmp_path / "a"), 1, "exists; use -y")
    fails(cwrv("encode", "a.mkv", "-o", tmp_path / "no" / "a"), 1, "does not exist")
    fails(cwrv("encode", tmp_path / "a", "-o", tmp_path / "a", "-y"), 1, "overwrite itself")
    assert not calls.encoded


# Decode


def test_decode(calls: Calls, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.mkv"
    result = cwrv("decode", source, "-o", output, "--codec", "ffv1", "--device", "cpu", "--threads", "2")
    assert (result.exit_code, result.output) == (0, "")
    assert calls.opened == [(str(source), {"device": "cpu", "threads": 2, "skip_damage": False})]
    assert same(read(output)[1], frames())


def test_part_of_a_file_begins_at_time_zero(calls: Calls, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.mp4"
    assert cwrv("decode", source, "-o", output, "--frames", "1:3", "--crf", "0").exit_code == 0
    assert calls.ranges == [(1, 3)]
    found, pictures = read(output)
    assert [p.pts * found.time_base * 25 for p in pictures] == [0, 2]
    assert same(pictures, frames()[1:3])


def test_decode_to_standard_output(
    calls: Calls, source: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:  # fmt: skip
    assert cwrv("decode", source, "-o", tmp_path / "a.y4m").exit_code == 0
    result = cwrv("decode", source, "-o", "-")
    assert result.exit_code == 0
    assert result.stdout_bytes == (tmp_path / "a.y4m").read_bytes()


def test_decode_checks_its_output_first(calls: Calls, source: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"old")
    fails(cwrv("decode", source, "-o", tmp_path / "a.mp4"), 1, "exists; use -y")
    fails(cwrv("decode", source, "-o", tmp_path / "a.avi"), 1, ".avi")
    fails(cwrv("decode", source, "-o", tmp_path / "b.mp4", "--codec", "ffv1"), 1, "cannot hold ffv1")
    fails(cwrv("decode", source, "-o", tmp_path / "b.mp4", "--crf", "99"), 1, "crf 99")
    fails(cwrv("decode", source, "-o", tmp_path / "b.y4m", "--crf", "9"), 1, "no crf")
    assert not calls.opened
    assert (tmp_path / "a.mp4").read_bytes() == b"old"


def test_codecs_are_those_that_can_be_written() -> None:
    assert set(cli.OUTPUT_CODECS) == set(CODECS)


def test_standard_input(calls: Calls, tmp_path: Path) -> None:
    for arguments in (["verify", "-"], ["info", "-"], ["decode", "-", "-o", str(tmp_path / "a.mkv")]):
        assert cwrv(*arguments, stdin=b"abc").exit_code == 0
    assert [opened.read() for opened, _ in calls.opened] == [b"abc"] * 3


# Errors


def no_file(tmp_path: Path) -> list[list[str]]:
    missing = str(tmp_path / "no.cwrv")
    return [["decode", missing, "-o", str(tmp_path / "a.mkv")], ["info", missing], ["verify", missing]]


def test_missing_file(calls: Calls, tmp_path: Path) -> None:
    for arguments in no_file(tmp_path):
        fails(cwrv(*arguments), 1, "no.cwrv: No such file or directory")
    assert list(tmp_path.iterdir()) == []


def raiser(error: BaseException) -> Any:
    def raise_it() -> None:
        raise error

    return raise_it


def every_command(source: Path) -> list[list[str]]:
    folder = source.parent
    return [
        ["encode", "a.mkv", "-o", str(folder / "a.cwrv")],
        ["decode", str(source), "-o", str(folder / "a.mkv")],
        ["info", str(source)],
        ["verify", str(source)],
    ]


def test_errors_are_one_line(calls: Calls, source: Path) -> None:
    calls.on_work = raiser(EncodeError("out of\nreach"))
    for arguments in every_command(source):
        fails(cwrv(*arguments), 1, "cwrv: error: out of reach")
    calls.on_work = raiser(ZeroDivisionError("bug"))
    for arguments in every_command(source):
        fails(cwrv(*arguments), 1, "internal error, ZeroDivisionError: bug")
    assert [path.name for path in source.parent.iterdir()] == ["in.cwrv"]


def test_bitstream_errors_name_the_file(calls: Calls, source: Path) -> None:
    calls.on_work = raiser(ChecksumError("SEGMENT 0: crc32 is wrong"))
    for arguments in every_command(source)[1:]:
        fails(cwrv(*arguments), 1, f"cwrv: error: {source}: SEGMENT 0")


def test_interrupt(calls: Calls, source: Path) -> None:
    calls.on_work = raiser(KeyboardInterrupt())
    for arguments in every_command(source):
        result = cwrv(*arguments)
        assert (result.exit_code, result.stdout, result.stderr) == (130, "", "cwrv: interrupted\n")
    assert [path.name for path in source.parent.iterdir()] == ["in.cwrv"]


def test_debug_shows_a_traceback(calls: Calls, source: Path) -> None:
    calls.on_work = raiser(ChecksumError("wrong"))
    result = cwrv("--debug", "verify", source)
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1] == f"cwrv: error: {source}: wrong"


def test_version() -> None:
    assert cwrv("--version").stdout == f"cwrv {__version__}\n"


def test_verify(calls: Calls, source: Path) -> None:
    result = cwrv("verify", source)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{source}: all checksums and the hash of 4 decoded frames hold\n"


# Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def step(fraction: float, bpp: float | None = 0.1, psnr: float | None = 35.0) -> Any:
    return SimpleNamespace(stage="fit", frame=3, frames=33, bpp=bpp, psnr=psnr, fraction=fraction, seconds=None)


def test_progress_on_a_terminal() -> None:
    now = 0.0
    terminal = Terminal()
    with StatusLine(terminal, clock=lambda: now) as line:
        line.encoding(step(0.0, None, None))
        now = 0.05
        line.encoding(step(0.1))  # too soon to be shown
        now = 30.0
        line.encoding(step(0.25))
        line.note("done")
        line.warn("beware")
    assert terminal.getvalue() == (
        "\rfit: frame 3/33\x1b[K\rfit: frame 3/33  0.1000 bpp  35.00 dB  1:30 left\x1b[K\r\x1b[Kdone\n\r\x1b[Kbeware\n"
        "\r\x1b[K"
    )


def test_time_left_of_work_that_goes_on() -> None:
    """What was done before is no measure of the speed."""
    now = 0.0
    terminal = Terminal()
    line = StatusLine(terminal, clock=lambda: now)
    line.encoding(step(0.5, None, None))
    now = 30.0
    line.encoding(step(0.75, None, None))
    assert terminal.getvalue() == "\rfit: frame 3/33\x1b[K\rfit: frame 3/33  0:30 left\x1b[K"


def test_progress_is_cut_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "12")
    terminal = Terminal()
    StatusLine(terminal).encoding(step(0.5))
    assert terminal.getvalue() == "\rfit: frame \x1b[K"


def test_no_progress_elsewhere() -> None:
    stream = io.StringIO()
    with StatusLine(stream) as line:
        line.encoding(step(0.5))
        line.counting("decode", 1, 2)
        line.note("done")
        assert stream.getvalue() == ""
        line.warn("beware")
    assert stream.getvalue() == "beware\n"


# Info


def numbers(text: str, name: str) -> list[float]:
    row = next(row for row in text.splitlines() if row.strip().startswith(name))
    return [float(word) for word in row.split()[len(name.split()) :] if word != "%"]


def test_info_text(calls: Calls, source: Path) -> None:
    text = cwrv("info", source).stdout
    assert text.startswith(f"{source}:\n  picture         96x80 yuv420p, 8 bits\n")
    assert numbers(text, "network weights") == [16, 10]
    assert numbers(text, "motion") == [4.2, 2.66]
    assert numbers(text, "blocks") == [48, 30]
    assert numbers(text, "end of entropy coder") == [25.8, 16.09]
    assert numbers(text, "container overhead") == [66, 41.25]
    assert numbers(text, "segment headers") == [6, 3.75]
    assert numbers(text, "total") == [160, 100]
    assert "segment 0: hybrid, frames 0 to 2, 50 bytes, GOP 4\n" in text
    assert "network: width 8, 3900 parameters in 8.0 bytes\n" in text
    assert numbers(text, "2     P") == [1, 15.8, 15.8, 3.8, 12]
    assert numbers(text, "all") == [40.2, 13.4, 4.2, 36]


def test_info_json_adds_up(calls: Calls, source: Path) -> None:
    info = json.loads(cwrv("info", source, "--json").stdout)
    assert info.items() >= account().items()
    parts = info["bytes_by_purpose"]
    assert sum(parts.values()) == info["file_bytes"]
    assert info["bitrate"] == 8 * 160 * 25 / 4
    assert info["frame_rate"] == "25"


def test_a_network_is_asked_for_and_its_time_told(calls: Calls, tmp_path: Path) -> None:
    arguments = ["--model", "hnerv", "--params", "100k", "--epochs", "20"]
    result = cwrv("encode", "a.mkv", "-o", tmp_path / "a", *arguments)
    assert result.exit_code == 0
    told = calls.encoded[0]
    assert (told["model"], told["params"], told["epochs"]) == ("hnerv", 1e5, 20)
    terminal = io.StringIO()
    line = StatusLine(terminal)
    line.encoding(SimpleNamespace(**vars(step(0.0, None, None)) | {"seconds": 75.4}))  # type: ignore[arg-type]
    assert terminal.getvalue() == "this will take about 1:15 here\n"


@pytest.mark.parametrize("text", ["0", "-5", "10x", "k", "nan"])
def test_counts_that_are_none(text: str, tmp_path: Path) -> None:
    result = cwrv("encode", "a.mkv", "-o", tmp_path / "a", "--model", "hnerv", "--params", text)
    assert result.exit_code == 2
