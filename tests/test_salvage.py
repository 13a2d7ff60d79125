"""What is left of a damaged file: every frame of every segment that is whole, and word of all the others."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from container_samples import Pipe
from fault_files import Planes, resealed, section_places, small_file
from run_cwrv import cwrv, fails
from video_samples import properties, read, same

from nvcodec.bitstream.bitio import BitReader
from nvcodec.bitstream.container import SectionType
from nvcodec.core.errors import BitstreamError, ChecksumError, SyntaxViolation, TruncatedError
from nvcodec.core.frame import Frame
from nvcodec.decoder import Damage, Decoder

COUNTS = (2, 1, 3)
Sample = tuple[bytes, list[Planes]]


@pytest.fixture(scope="module")
def small() -> Sample:
    return small_file(8, 6, COUNTS)


@pytest.fixture(scope="module")
def plain() -> Sample:
    return small_file(8, 6, COUNTS, optional=False)


def place(data: bytes, kind: int, number: int = 0, into: int = 2) -> int:
    return section_places(data)[kind][number][0] + into


def flipped(data: bytes, *positions: int, mask: int = 0xFF) -> bytes:
    damaged = bytearray(data)
    for position in positions:
        damaged[position] ^= mask
    return bytes(damaged)


def salvaged(data: bytes, start: int = 0, stop: int | None = None) -> tuple[list[Frame], list[Damage]]:
    with Decoder(io.BytesIO(data), device="cpu", threads=1, skip_damage=True) as decoder:
        frames = list(decoder.frames(start, stop))
        return frames, decoder.damage


def shows(frames: list[Frame], planes: list[Planes], *numbers: int) -> bool:
    """Whether ``frames`` are the good ones of these numbers."""
    return same(frames, [Frame(planes[n], k) for k, n in enumerate(numbers)])


def lost(damage: list[Damage]) -> list[tuple[int, int, int]]:
    return [(d.start, d.stop, d.shown) for d in damage]


# Programs


@pytest.mark.parametrize("into", [1, 10])
def test_a_damaged_program_is_an_error(small: Sample, into: int) -> None:
    """Nothing says any longer what the segments that name it mean."""
    data, _ = small
    with pytest.raises(BitstreamError, match="PROGRAM"):
        salvaged(flipped(data, place(data, SectionType.PROGRAM, 0, into), mask=0x01))


# Segments


def test_a_whole_file_has_no_damage(small: Sample) -> None:
    data, planes = small
    frames, damage = salvaged(data)
    assert shows(frames, planes, 0, 1, 2, 3, 4, 5)
    assert damage == []


@pytest.mark.parametrize(
    ("segments", "shown", "told"),
    [
        ([0], [2, 2, 2, 3, 4, 5], [(0, 2, 2)]),
        ([1], [0, 1, 1, 3, 4, 5], [(2, 3, 1)]),
        ([2], [0, 1, 2, 2, 2, 2], [(3, 6, 2)]),
        ([0, 1], [3, 3, 3, 3, 4, 5], [(0, 2, 3), (2, 3, 3)]),
        ([1, 2], [0, 1, 1, 1, 1, 1], [(2, 3, 1), (3, 6, 1)]),
        ([0, 2], [2, 2, 2, 2, 2, 2], [(0, 2, 2), (3, 6, 2)]),
    ],
)
@pytest.mark.parametrize("into", [0, 1, 30])
def test_damaged_segments(
    small: Sample, segments: list[int], shown: list[int], told: list[tuple[int, int, int]], into: int
) -> None:  # fmt: skip
    """In the type, in the length, in the payload: the others are exact, and have their timestamps."""
    data, planes = small
    damaged = flipped(data, *(place(data, SectionType.SEGMENT, n, into) for n in segments), mask=0x80)
    frames, damage = salvaged(damaged)
    assert shows(frames, planes, *shown)
    assert [f.pts for f in frames] == [0, 2, 3, 4, 5, 6]
    assert lost(damage) == told
    assert all("EGMENT" in str(d.error) for d in damage)


def test_wrong_frames_behind_right_checksums(small: Sample) -> None:
    """What only the frame hash shows costs the segment, too: none of its frames is given out before."""
    data, planes = small
    start, payload, end = section_places(data)[SectionType.SEGMENT][1]
    damaged = resealed(data, start, data[payload : end - 5] + bytes([data[end - 5] ^ 1]))
    frames, damage = salvaged(damaged)
    assert shows(frames, planes, 0, 1, 1, 3, 4, 5)
    assert "hash" in str(damage[0])


def test_no_good_frame_is_an_error(small: Sample) -> None:
    data, _ = small
    damaged = flipped(data, *(place(data, SectionType.SEGMENT, n, 30) for n in range(3)))
    with pytest.raises(ChecksumError, match="SEGMENT 0"):
        salvaged(damaged)
    with pytest.raises(ChecksumError, match="SEGMENT 1"):
        salvaged(flipped(data, place(data, SectionType.SEGMENT, 1, 30)), 2, 3)


def test_a_part_of_a_damaged_file(small: Sample) -> None:
    data, planes = small
    damaged = flipped(data, place(data, SectionType.SEGMENT, 1, 30))
    frames, damage = salvaged(damaged, 1, 5)
    assert shows(frames, planes, 1, 1, 3, 4)
    assert lost(damage) == [(2, 3, 1)]
    assert salvaged(damaged, 3)[1] == []


def test_a_file_that_ends_early(small: Sample) -> None:
    data, planes = small
    frames, damage = salvaged(data[: place(data, SectionType.SEGMENT, 2, 50)])
    assert shows(frames, planes, 0, 1, 2, 2, 2, 2)
    assert lost(damage) == [(3, 6, 2), (0, 0, 0)]
    assert isinstance(damage[0].error, TruncatedError)


def test_from_a_pipe(small: Sample) -> None:
    data, planes = small
    damaged = flipped(data, place(data, SectionType.SEGMENT, 1, 0))
    with Decoder(Pipe(damaged), device="cpu", threads=1, skip_damage=True) as decoder:  # type: ignore[arg-type]
        assert shows(list(decoder), planes, 0, 1, 1, 3, 4, 5)
    index = flipped(data, place(data, SectionType.INDEX))
    with pytest.raises(BitstreamError):
        Decoder(Pipe(index), device="cpu", skip_damage=True)  # type: ignore[arg-type]


# What is not a segment


def test_every_byte_of_the_index(small: Sample, plain: Sample) -> None:
    for data, planes in (small, plain):
        start, _, end = section_places(data)[SectionType.INDEX][0]
        for position in range(start, end):
            for mask in (0x01, 0x80):
                frames, damage = salvaged(flipped(data, position, mask=mask))
                assert shows(frames, planes, 0, 1, 2, 3, 4, 5), (position, mask)
                assert lost(damage) == [(0, 0, 0)]
                assert "no frame is lost" in str(damage[0])


def test_index_and_a_segment(small: Sample) -> None:
    """Two faults in different places are got over, where the second leaves the lengths alone."""
    data, planes = small
    damaged = flipped(data, place(data, SectionType.INDEX, 0, 3), place(data, SectionType.SEGMENT, 2, 30))
    frames, damage = salvaged(damaged)
    assert shows(frames, planes, 0, 1, 2, 2, 2, 2)
    assert lost(damage) == [(0, 0, 0), (3, 6, 2)]


def count_places(data: bytes) -> list[int]:
    """Where INDEX states the frames of each segment."""
    ((_, start, _),) = section_places(data)[SectionType.INDEX]
    reader, found = BitReader(data[start:]), []
    for _ in COUNTS:
        found.append(start + reader.byte_offset)
        reader.leb128("segment_frame_count")
        reader.leb128("section_bytes")
    return found


def test_an_index_that_cannot_be_settled(small: Sample) -> None:
    """A wrong count, and the only segment whose hash could tell is lost."""
    data, _ = small
    damaged = flipped(data, place(data, SectionType.INDEX, 0, 2), mask=1)
    damaged = flipped(damaged, place(data, SectionType.SEGMENT, 0, 30))
    with pytest.raises(BitstreamError):
        salvaged(damaged)
    with pytest.raises(ChecksumError, match="INDEX: crc32"):
        salvaged(flipped(data, *count_places(data)[:2], mask=4))


def test_verify_does_not_skip(small: Sample) -> None:
    data, _ = small
    damaged = flipped(data, place(data, SectionType.INDEX))
    with Decoder(io.BytesIO(damaged), device="cpu", skip_damage=True) as decoder, pytest.raises(BitstreamError):
        decoder.verify()


@pytest.mark.parametrize("kind", [0x81, 0x82, 0x90])
@pytest.mark.parametrize("into", [0, 1, 5])
def test_optional_sections(small: Sample, kind: int, into: int) -> None:
    data, planes = small
    frames, damage = salvaged(flipped(data, place(data, kind, 0, into), mask=0x80))
    assert shows(frames, planes, 0, 1, 2, 3, 4, 5)
    assert lost(damage) == [(0, 0, 0)]
    assert [f.pts for f in frames] == ([0, 1, 2, 3, 4, 5] if kind == 0x81 else [0, 2, 3, 4, 5, 6])


@pytest.mark.parametrize("change", [lambda d: d[:-6], lambda d: d[:-3], lambda d: d + b"x", lambda d: flipped(d, -1)])
def test_end(small: Sample, change: Callable[[bytes], bytes]) -> None:
    data, planes = small
    frames, damage = salvaged(change(data))
    assert shows(frames, planes, 0, 1, 2, 3, 4, 5)
    assert lost(damage) == [(0, 0, 0)]


def test_head_cannot_be_skipped(small: Sample) -> None:
    start, _, end = section_places(small[0])[SectionType.HEAD][0]
    for position in (0, 8, *range(start, end)):
        with pytest.raises(BitstreamError):
            salvaged(flipped(small[0], position))


# The command


def test_command(small: Sample, tmp_path: Path) -> None:
    data, planes = small
    source, output = tmp_path / "a.cwrv", tmp_path / "a.y4m"
    source.write_bytes(flipped(data, place(data, SectionType.SEGMENT, 0, 30), place(data, SectionType.SEGMENT, 2, 30)))
    fails(cwrv("decode", source, "-o", output), 1, f"{source}: SEGMENT 0: crc32")
    fails(cwrv("decode", source, "-o", output, "--on-error", "stop"), 1, "SEGMENT 0")
    assert os.listdir(tmp_path) == ["a.cwrv"]
    result = cwrv("decode", source, "-o", output, "--on-error", "skip")
    assert (result.exit_code, result.stdout) == (3, "")
    lines = result.stderr.splitlines()
    assert lines[0].startswith(f"cwrv: damage: {source}: SEGMENT 0: crc32 is ")
    assert lines[0].endswith("; frames 0 to 1 lost, frame 2 is shown instead")
    assert lines[1].endswith("; frames 3 to 5 lost, frame 2 is shown instead")
    assert lines[2:] == [f"cwrv: {output}: 5 of 6 frames lost, all others are exact"]
    assert shows(read(output)[1], planes, 2, 2, 2, 2, 2, 2)
    assert sorted(os.listdir(tmp_path)) == ["a.cwrv", "a.y4m"]


def test_command_without_damage(small: Sample, tmp_path: Path) -> None:
    source, output = tmp_path / "a.cwrv", tmp_path / "a.y4m"
    source.write_bytes(small[0])
    result = cwrv("decode", source, "-o", output, "--on-error", "skip")
    assert (result.exit_code, result.output) == (0, "")
    assert shows(read(output)[1], small[1], 0, 1, 2, 3, 4, 5)


def test_command_where_nothing_is_left(small: Sample, tmp_path: Path) -> None:
    source, output = tmp_path / "a.cwrv", tmp_path / "a.y4m"
    source.write_bytes(flipped(small[0], *(place(small[0], SectionType.SEGMENT, n, 30) for n in range(3))))
    fails(cwrv("decode", source, "-o", output, "--on-error", "skip"), 1, "SEGMENT 0")
    source.write_bytes(flipped(small[0], 20))
    fails(cwrv("decode", source, "-o", output, "--on-error", "skip"), 1, "HEAD")
    assert os.listdir(tmp_path) == ["a.cwrv"]


def test_command_tells_of_damage_without_loss(small: Sample, tmp_path: Path) -> None:
    source, output = tmp_path / "a.cwrv", tmp_path / "a.y4m"
    source.write_bytes(small[0][:-1])
    result = cwrv("decode", source, "-o", output, "--on-error", "skip")
    assert result.exit_code == 3
    assert "END: crc32: needs 4 bytes" in result.stderr
    assert "0 of 6 frames lost" in result.stderr
    fails(cwrv("decode", source, "-o", tmp_path / "b.y4m"), 1, "END: crc32")


def test_help_states_the_status() -> None:
    text = " ".join(cwrv("decode", "--help").stdout.split())
    assert "3 damage was skipped" in text
    assert "exit status is 3" in text


def test_properties_are_those_of_the_file(small: Sample) -> None:
    with Decoder(io.BytesIO(small[0]), device="cpu", skip_damage=True) as decoder:
        assert decoder.properties == properties(8, 6)


def test_errors_keep_their_kind(small: Sample) -> None:
    damage = salvaged(small[0] + b"x")[1]
    assert isinstance(damage[0].error, SyntaxViolation)
