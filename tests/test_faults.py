"""A sample of ``tools/fault_campaign.py``: no damage passes, and hostile files are refused in little memory."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import zstandard
from fault_campaign import Failure, check_damaged, check_skip, check_strict, commands
from fault_files import (
    HOSTILE,
    Planes,
    byte_flips,
    header_bits,
    payload_bits,
    program_work,
    resealed,
    section_places,
    small_file,
    truncations,
    unpacked,
    verify,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from test_container_faulty import mutate, mutations

from nvcodec.bitstream.container import SectionType
from nvcodec.core.errors import BitstreamError, NvcodecError, SyntaxViolation, UnsupportedError
from nvcodec.core.gop import coding_units
from nvcodec.decoder import Decoder, _placed

TOOLS = Path(__file__).parent.parent / "tools"

Sample = tuple[bytes, list[Planes]]


@pytest.fixture(scope="module")
def small() -> Sample:
    return small_file(8, 6, (1, 2))


def test_small_file_has_every_section(small: Sample) -> None:
    assert set(section_places(small[0])) == {0x01, 0x02, 0x03, 0x04, 0x7F, 0x81, 0x82, 0x90}
    assert check_strict(*small) == "harmless"


# Damage


def test_every_bit_before_the_segments(small: Sample) -> None:
    for _, damaged in header_bits(small[0]):
        assert check_damaged(damaged, small[1]) == "found"


def test_every_eleventh_byte_and_length(small: Sample) -> None:
    data, frames = small
    for cases in (byte_flips(data), truncations(data)):
        for _, damaged in islice(cases, 3, None, 11):
            assert check_damaged(damaged, frames) == "found"


def test_the_last_bytes(small: Sample) -> None:
    """END, its checksum, and what does not belong there: decode, too, looks at them."""
    data, frames = small
    end = len(data) - 6
    for _, damaged in (*islice(byte_flips(data), end, None), *islice(truncations(data), end, None)):
        assert check_damaged(damaged, frames) == "found"
    with pytest.raises(SyntaxViolation, match="bytes after END"):
        list(Decoder(io.BytesIO(data + b"\0"), device="cpu", threads=1))


def test_behind_right_checksums(small: Sample) -> None:
    """What is not found has no effect on the frames: reserved bits, colour tags, timestamps, metadata, and those bits
    of the range coder's last word that end the same intervals."""
    data, frames = small
    results = {check_strict(damaged, frames) for _, damaged in islice(payload_bits(data), 0, None, 9)}
    assert results == {"found", "harmless"}


def test_other_representations_are_refused(small: Sample) -> None:
    data, frames = small
    for start, payload, end in section_places(data)[SectionType.SEGMENT]:
        for representation in (3, 15):
            first = data[payload] & 15 | representation << 4
            damaged = resealed(data, start, bytes([first]) + data[payload + 1 : end - 4])
            assert check_strict(damaged, frames) == "found"
            with pytest.raises(UnsupportedError, match=f"representation {representation} is not defined"):
                verify(damaged)


def test_checks_can_fail(small: Sample) -> None:
    data, frames = small
    with pytest.raises(Failure, match="not noticed"):
        check_damaged(data, frames)
    with pytest.raises(Failure, match="not noticed"):
        check_skip(data, frames)
    with pytest.raises(Failure, match="other frames"):
        check_strict(data, frames[::-1])


def test_skipping_at_every_eleventh_byte_and_length(small: Sample) -> None:
    data, frames = small
    results = set()
    for cases in (byte_flips(data), truncations(data)):
        for _, damaged in islice(cases, 1, None, 11):
            results.add(check_skip(damaged, frames))
    assert results == {"found", "skipped"}


def test_commands_on_damaged_files(small: Sample) -> None:
    """In processes of their own: status 1, one line, no output."""
    size = len(small[0])
    assert commands(islice(byte_flips(small[0]), size // 2, None, size)) == []


def test_campaign_command(tmp_path: Path) -> None:
    """The whole of it, on a file of one frame that is mostly header."""
    path = tmp_path / "a.cwrv"
    path.write_bytes(small_file(1, 1, (1,), optional=False)[0])
    command = [sys.executable, str(TOOLS / "fault_campaign.py"), str(path), "--masks", "one", "--commands", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    size = path.stat().st_size
    lines = [" ".join(line.split()[:3]) for line in done.stdout.splitlines()]
    assert f"bytes {size} cases:" in lines
    assert f"skip {2 * size} cases:" in lines
    assert f"hostile {len(HOSTILE)} cases:" in lines


# Hostile files

REFUSE = """
import io, json, resource, sys, pathlib
sys.path.insert(0, sys.argv[1])
import fault_files
from nvcodec.decoder import Decoder
built = {name: build() for name, (build, _) in fault_files.HOSTILE.items()}
status = pathlib.Path("/proc/self/status").read_text()
used = 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmSize:"))
resource.setrlimit(resource.RLIMIT_AS, (used + 140 * 2**20,) * 2)
found = {}
for name, data in built.items():
    for skip in (False, True):
        try:
            with Decoder(io.BytesIO(data), device="cpu", threads=1, skip_damage=skip) as decoder:
                if skip and decoder.header.width <= 64 and decoder.frame_count <= 64:
                    list(decoder)
                if not skip:
                    decoder.verify()
            found[name, skip] = "accepted"
        except BaseException as error:
            found[name, skip] = type(error).__name__
print(json.dumps([[name, skip, kind] for (name, skip), kind in found.items()]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space as Linux tells it")
def test_hostile_files_are_refused_in_140_mib() -> None:
    """Each with its error; whoever skips damage may get something out of them, but no other error."""
    done = subprocess.run([sys.executable, "-c", REFUSE, str(TOOLS)], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert len(found) == 2 * len(HOSTILE)
    known = {error.__name__ for error in _all_errors(BitstreamError)}
    for name, skip, kind in found:
        if skip:
            assert kind in known | {"accepted"}, name
        else:
            assert kind == HOSTILE[name][1].__name__, name


def _all_errors(kind: type[NvcodecError]) -> list[type[NvcodecError]]:
    return [kind, *(error for child in kind.__subclasses__() for error in _all_errors(child))]


def test_too_little_memory_is_told() -> None:
    for error in (
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ):
        with pytest.raises(UnsupportedError, match="segment 3: to decode it takes more memory than there is"):
            raise_in_place(error)
    with pytest.raises(RuntimeError, match="a bug"):
        raise_in_place(RuntimeError("a bug"))


def raise_in_place(error: Exception) -> None:
    with _placed("segment 3"):
        raise error


def test_no_frame_refers_to_one_that_is_not_decoded() -> None:
    """No file can say otherwise: the coding structure follows from two numbers. All of them up to two GOPs."""
    for gop in range(1, 65):
        for count in range(1, 2 * gop + 3):
            decoded: set[int] = set()
            for unit in coding_units(count, gop):
                assert all(set(frame.references) <= decoded for frame in unit.frames)
                decoded |= {frame.display for frame in unit.frames}
            assert decoded == set(range(count))


# Anything


@settings(max_examples=60, deadline=None)
@given(mutations)
def test_mutated_file(changes: list[tuple[str, int, bytes]]) -> None:
    """Strict or skipping: our errors only, and no frames but the right ones."""
    data, frames = TINY
    damaged = mutate(data, changes)
    if damaged != data:
        check_damaged(damaged, frames)
        check_skip(damaged, frames)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([(0x01, 0), (0x02, 0), (0x03, 0), (0x03, 1), (0x04, 0), (0x81, 0), (0x82, 0)]), mutations)
def test_mutated_payload_with_right_checksums(place: tuple[int, int], changes: list[tuple[str, int, bytes]]) -> None:
    """What PROGRAM holds is changed before it is packed."""
    data, frames = TINY
    kind, number = place
    start, payload, end = section_places(data)[kind][number]
    content = data[payload : end - 4]
    if kind == SectionType.PROGRAM:
        content = zstandard.ZstdCompressor().compress(mutate(unpacked(kind, content), changes))
    else:
        content = mutate(content, changes)
    damaged = resealed(data, start, content)
    try:
        decoded = verify_if_small(damaged)
    except BitstreamError:
        return
    if kind == SectionType.SEGMENT:
        assert check_strict(damaged, frames) == "harmless"
    assert decoded is None or len(decoded) == len(frames)


def verify_if_small(data: bytes) -> list[Planes] | None:
    """A mutated HEAD may ask for large pictures, and a mutated program for much work; that is no fault, and takes
    time."""
    with Decoder(io.BytesIO(data), device="cpu", threads=1) as decoder:
        if decoder.header.width * decoder.header.height > 4096 or program_work(decoder) > 10**7:
            return None
    return verify(data)


TINY = small_file(4, 4, (1, 1))


class _Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False


def test_damage_behind_is_found_before_the_first_frame_of_a_file() -> None:
    """A pipe is decoded as far as it is sound."""
    data, _ = small_file(8, 6, (2, 1))
    second = section_places(data)[SectionType.SEGMENT][1]
    damaged = bytearray(data)
    damaged[second[1]] ^= 1
    for source, sound in ((io.BytesIO(damaged), 0), (_Pipe(damaged), 2)):
        with Decoder(source, device="cpu") as decoder:
            frames = iter(decoder)
            assert len(list(islice(frames, sound))) == sound
            with pytest.raises(BitstreamError, match="SEGMENT 1"):
                next(frames)
