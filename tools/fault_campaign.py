"""Damages a .cwrv file in every way there is room for, and shows that no damage passes.

    python tools/fault_campaign.py FILE [--masks all] [--commands N]
    python tools/fault_campaign.py --small

FILE should be small, a kilobyte or two: it is decoded thousands of times. ``--small`` makes one that has every
section. The parts of the campaign:

bytes        every byte changed by 0xff, by every single bit, or (--masks all) by all 255 values
header       every bit before the first segment
truncations  every length but the whole
payloads     a bit of every byte of what stands in the sections, behind checksums that are made right again
skip         the damage of "bytes" (0xff) and "truncations", decoded with skip_damage
commands     N damaged files through ``cwrv verify`` and ``cwrv decode`` in processes of their own
hostile      the files of fault_files.HOSTILE, each in a process of its own, with processor time and peak memory

A case is *found* (an error that names a place), *harmless* (all frames are exact; only behind right checksums), or,
with skip, *skipped* (all frames but those told are exact). Everything else is a failure: another exception, a wrong
frame, more than 60 s, more than 1 GiB. Exit status 1 if there is any. Unix only.
"""

from __future__ import annotations

import io
import math
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import chain, islice
from multiprocessing import get_context
from pathlib import Path

import click
import torch
from fault_files import (
    ALL_MASKS,
    BIT_MASKS,
    HOSTILE,
    Planes,
    byte_flips,
    header_bits,
    payload_bits,
    small_file,
    truncations,
    verify,
)

from nvcodec.core.errors import BitstreamError, NvcodecError
from nvcodec.decoder import Decoder

SECONDS_A_CASE = 60
BYTES_OF_MEMORY = 2**30
HOSTILE_SECONDS, HOSTILE_MIB = 1.0, 300
_PLACE = re.compile(
    r"signature|version|not a \.cwrv file|HEAD|INDEX|PROGRAM|TIMESTAMPS|METADATA|AUDIO|END|SEGMENT|segment|section|"
    r"at byte|= \d+|picture"
)

Check = Callable[[bytes, list[Planes]], str]


class Failure(Exception):
    """Damage that passed, or was met in a wrong way."""


def check_strict(data: bytes, frames: list[Planes]) -> str:
    """Decoding and verifying must agree about the file."""
    try:
        decoded = verify(data)
    except BitstreamError as error:
        try:
            with Decoder(io.BytesIO(data), device="cpu", threads=1) as decoder:
                _ = list(decoder)
        except BitstreamError:
            pass
        else:
            raise Failure(f"verify finds it ({error}), decode does not") from None
        if not _PLACE.search(str(error)):
            raise Failure(f"no place is named: {error}") from None
        return "found"
    if not same(decoded, frames):
        raise Failure("other frames, and no error")
    return "harmless"


def check_damaged(data: bytes, frames: list[Planes]) -> str:
    """With checksums as they were, nothing is harmless."""
    result = check_strict(data, frames)
    if result != "found":
        raise Failure("damage was not noticed")
    return result


def check_skip(data: bytes, frames: list[Planes]) -> str:
    try:
        with Decoder(io.BytesIO(data), device="cpu", threads=1, skip_damage=True) as decoder:
            decoded = [frame.planes for frame in decoder]
            damage = decoder.damage
    except BitstreamError:
        return "found"
    if not damage:
        raise Failure("damage was not noticed")
    shown = {n: d.shown for d in damage for n in range(d.start, d.stop)}
    if not same(decoded, [frames[shown.get(n, n)] for n in range(len(frames))]):
        raise Failure("other frames than were told")
    return "skipped"


def same(a: list[Planes], b: list[Planes]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(p, q) for x, y in zip(a, b, strict=True) for p, q in zip(x, y, strict=True)
    )


def campaign(
    name: str, cases: Iterator[tuple[str, bytes]], check: Check, frames: list[Planes]
) -> list[str]:  # fmt: skip
    """Runs the cases, prints a line of counts, and returns what failed."""
    results: Counter[str] = Counter()
    failures = []
    started = time.monotonic()
    for case, data in cases:
        signal.alarm(SECONDS_A_CASE)
        try:
            results[check(data, frames)] += 1
        except (Exception, Failure) as error:
            failures.append(f"{name}, {case}: {type(error).__name__}: {error}")
        finally:
            signal.alarm(0)
    _tell(name, results, failures, time.monotonic() - started)
    return failures


def _tell(name: str, results: Counter[str], failures: list[str], seconds: float) -> None:
    told = ", ".join(f"{count} {result}" for result, count in sorted(results.items()))
    click.echo(f"{name:12} {results.total() + len(failures):7} cases: {told}, {len(failures)} failed, {seconds:.0f} s")


def commands(cases: Iterator[tuple[str, bytes]]) -> list[str]:
    """Damaged files through the command: status 1, one line, no output."""
    results: Counter[str] = Counter()
    failures = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path, output = Path(folder, "damaged.cwrv"), Path(folder, "out.y4m")
        for case, data in cases:
            path.write_bytes(data)
            for arguments in (["verify", str(path)], ["decode", str(path), "-o", str(output)]):
                command = [sys.executable, "-m", "nvcodec", *arguments, "--device", "cpu", "--threads", "1"]
                done = subprocess.run(command, capture_output=True, timeout=SECONDS_A_CASE, check=False, text=True)
                lines = done.stderr.splitlines()
                good = done.returncode == 1 and len(lines) == 1 and lines[0].startswith(f"cwrv: error: {path}: ")
                if good and not output.exists():
                    results["found"] += 1
                else:
                    failures.append(f"{arguments[0]}, {case}: status {done.returncode}, {done.stderr!r}")
    _tell("commands", results, failures, time.monotonic() - started)
    return failures


def hostile() -> list[str]:
    """The processor time and the peak memory of each hostile file."""
    failures, slowest, largest = [], ("", 0.0), ("", 0)
    started = time.monotonic()
    built = [(name, build(), expected) for name, (build, expected) in HOSTILE.items()]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        measured = apart.submit(_measured, built).result()
    for name, status, seconds, mib in measured:
        slowest, largest = max(slowest, (name, seconds), key=_second), max(largest, (name, mib), key=_second)
        if status or seconds > HOSTILE_SECONDS or mib > HOSTILE_MIB:
            failures.append(f"hostile, {name}: status {status}, {seconds:.2f} s, {mib} MiB")
    _tell("hostile", Counter(found=len(HOSTILE) - len(failures)), failures, time.monotonic() - started)
    click.echo(f"{'':12} slowest {slowest[1]:.2f} s ({slowest[0]}), largest {largest[1]} MiB ({largest[0]})")
    return failures


def _measured(built: Sequence[tuple[str, bytes, type[NvcodecError]]]) -> list[tuple[str, int, float, int]]:
    """Name, exit status, seconds and MiB of each, in a fork of a process that has loaded the package and coded nothing.

    What codes brings the compiler that only decoding needs (``nvcodec.entropy.context_cpu``). Other work on the machine
    makes processor time longer: what takes too long is measured twice more, and the least counts.
    """
    result = []
    for name, data, expected in built:
        least = math.inf
        for _ in range(3):
            if (child := os.fork()) == 0:
                os._exit(_refuse(data, expected))
            _, status, usage = os.wait4(child, 0)
            least = min(least, usage.ru_utime + usage.ru_stime)
            if status or least <= HOSTILE_SECONDS:
                break
        result.append((name, status, least, usage.ru_maxrss // 1024))
    return result


def _second(pair: tuple[str, float]) -> float:
    return pair[1]


def _refuse(data: bytes, expected: type[NvcodecError]) -> int:
    try:
        with Decoder(io.BytesIO(data), device="cpu", threads=1) as decoder:
            decoder.verify()
    except expected:
        return 0
    except BaseException as error:
        click.echo(f"{type(error).__name__}: {error}", err=True)
    return 1


def _too_long(number: int, frame: object) -> None:
    raise Failure(f"takes more than {SECONDS_A_CASE} s")


@click.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--small", is_flag=True, help="Take a small file with every section instead of FILE.")
@click.option("--masks", type=click.Choice(["one", "bits", "all"]), default="bits", show_default=True)
@click.option("--commands", "command_count", type=click.IntRange(min=0), default=8, show_default=True)
def main(file: Path | None, small: bool, masks: str, command_count: int) -> None:
    """Damage FILE in every way there is room for; show that no damage passes."""
    if small == (file is not None):
        raise click.UsageError("give FILE or --small")
    torch.set_num_threads(1)
    failures = hostile()  # first, while this process is small
    data = small_file(8, 6, (2, 1, 2))[0] if file is None else file.read_bytes()
    frames = verify(data)
    click.echo(f"{len(data)} bytes, {len(frames)} frames")
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + BYTES_OF_MEMORY,) * 2)
    signal.signal(signal.SIGALRM, _too_long)
    chosen = {"one": (0xFF,), "bits": (0xFF, *BIT_MASKS), "all": ALL_MASKS}[masks]
    failures += campaign("bytes", byte_flips(data, chosen), check_damaged, frames)
    failures += campaign("header", header_bits(data), check_damaged, frames)
    failures += campaign("truncations", truncations(data), check_damaged, frames)
    failures += campaign("payloads", payload_bits(data), check_strict, frames)
    failures += campaign("skip", chain(byte_flips(data), truncations(data)), check_skip, frames)
    if command_count:
        every = max(1, len(data) // command_count)
        failures += commands(islice(byte_flips(data), 0, None, every))
    for failure in failures:
        click.echo(failure, err=True)
    sys.exit(1 if failures else 0)


def _address_space() -> int:
    """Bytes of address space that this process has."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmSize:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmSize")


if __name__ == "__main__":
    main()
