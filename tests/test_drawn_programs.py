"""Drawn programs and symbols: the decoder and the reference decoder, which share no code, come to the same frames.

``test_reference_machine`` has programs of every operation, and writes files of drawn symbols with a coder of its own.
"""

from __future__ import annotations

import hashlib
import io
import random
import zlib
from collections.abc import Callable, Iterator

import pytest
import reference_basics
import reference_decoder
import reference_machine
import test_reference_machine as drawn

from nvcodec.core.errors import BitstreamError
from nvcodec.decoder import Decoder, FrameHash
from nvcodec.implicit import starts


def product(data: bytes) -> str:
    """The hash of the frames that the decoder makes, or the name of its error."""
    digest = FrameHash()
    try:
        with Decoder(io.BytesIO(data), device="cpu", threads=1) as decoder:
            for frame in decoder:
                digest.add(frame.planes)
    except BitstreamError as error:
        return error.reason
    return digest.digest().hex()


def reference(data: bytes) -> str:
    try:
        return str(drawn.decoded(data))
    except reference_basics.DecodeError as error:
        return str(error).split(":")[0]


@pytest.mark.parametrize(("bits", "gop", "count"), [(8, 1, 3), (9, 4, 6), (12, 16, 9), (16, 3, 4)])
@pytest.mark.parametrize("size", [(20, 34), (19, 33)])
def test_every_operation(bits: int, gop: int, count: int, size: tuple[int, int]) -> None:
    data, expected = drawn.file_of(drawn.assemble(drawn.FULL, bits), *size, gop, count, gop)
    assert product(data) == expected


@pytest.fixture
def start_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], bytes]]:
    """A function that makes both decoders know one start, and gives its name."""
    known: dict[bytes, bytes] = {}
    monkeypatch.setattr(starts, "shipped_starts", lambda: known)
    monkeypatch.setattr(reference_decoder, "starts", lambda: known)

    def ship(data: bytes) -> bytes:
        name = hashlib.sha256(data).digest()[:4]
        known[name] = data
        return name

    return ship


@pytest.mark.parametrize("nodes", [drawn.FULL, drawn.SMALL, drawn.STILL])
@pytest.mark.parametrize(("seed", "directions", "shift"), [(1, 0, 0), (2, 1, 15), (3, 5, 7)])
def test_changes_of_a_start(
    nodes: list[drawn.Written], seed: int, directions: int, shift: int, start_of: Callable[[bytes], bytes]
) -> None:
    program = drawn.assemble(nodes, 12)
    name = start_of(drawn.drawn_start(program, seed, directions, shift))
    data, expected = drawn.file_of(program, 20, 34, 3, 4, seed, name)
    assert product(data) == reference(data) == expected
    from_nothing, other = drawn.file_of(program, 20, 34, 3, 4, seed)
    assert product(from_nothing) == other != expected


def test_starts_that_are_refused(start_of: Callable[[bytes], bytes]) -> None:
    program = drawn.assemble(drawn.STILL)
    right = drawn.drawn_start(program, 0, 2, 3)
    data, _ = drawn.file_of(program, 20, 34, 3, 4, 0, start_of(right))
    place = data.index(hashlib.sha256(right).digest()[:4])
    for unfit in (right + b"\0", right[:-1], b""):
        renamed = with_name(data, place, start_of(unfit))
        assert product(renamed) == reference(renamed) == "syntax"
    out_of_range = {0: 16, 2: 1, 19: 128, 26: 16, 27: 128}  # bias_shift, exponent, weight, direction_shift, a direction
    for at, value in out_of_range.items():
        wrong = with_name(data, place, start_of(right[:at] + bytes([value]) + right[at + 1 :]))
        assert product(wrong) == reference(wrong) == "limit"
    unknown = with_name(data, place, b"none")
    assert product(unknown) == reference(unknown) == "unsupported"
    assert product(with_name(data, place, start_of(right))) == reference(data)


def with_name(data: bytes, place: int, name: bytes) -> bytes:
    """A file of one segment whose start, at ``place``, has another name."""
    changed = data[:place] + name + data[place + 4 :]
    end = len(data) - 6  # of the segment's crc32, before END
    known = data[end - 4 : end]
    start = next(n for n in range(place, 0, -1) if zlib.crc32(data[n : end - 4]).to_bytes(4, "little") == known)
    crc = zlib.crc32(changed[start : end - 4]).to_bytes(4, "little")
    return changed[: end - 4] + crc + changed[end:]


def test_changed_programs() -> None:
    """Programs with some bytes drawn anew: most are refused, by both for the same reason, and the others decode."""
    drawn_bytes = random.Random(5)
    outcomes = set()
    decoded = 0
    while decoded < 8:
        program = bytearray(drawn.assemble(drawn.FULL, drawn_bytes.choice((10, 12, 14, 16))))
        for _ in range(drawn_bytes.randint(1, 4)):
            place = drawn_bytes.randrange(2, len(program))
            program[place] = drawn_bytes.choice([drawn_bytes.randrange(256), drawn_bytes.randrange(16)])
        reason, parsed = checked(bytes(program))
        if parsed is None:
            outcomes.add(reason)
            assert refusal(bytes(program)) == reason
            continue
        if max(node.elements for node in parsed.nodes) > 20_000:
            continue
        if sum(n.elements * n.p.get("slices", 1) for n in parsed.of("latent", "grid")) > 2_000:
            continue
        try:
            data, expected = drawn.file_of(bytes(program), 20, 34, 2, 3, decoded)
        except reference_basics.DecodeError:
            continue
        assert product(data) == expected
        decoded += 1
    assert {"limit", "syntax", "unsupported"} <= outcomes


def checked(program: bytes) -> tuple[str, reference_machine.Program | None]:
    """Why the reference decoder refuses a program, or the program."""
    try:
        parsed = reference_machine.parse_program(program)
        reference_machine.check_program(parsed, drawn.PICTURE)
    except reference_basics.DecodeError as error:
        return str(error).split(":")[0], None
    return "", parsed


def refusal(program: bytes) -> str:
    """Why the decoder refuses a file with this program."""
    good = drawn.file_of(drawn.assemble(drawn.SMALL), 20, 34, 2, 1, 0)[0]
    reader = reference_basics.Reader(good, 10)
    reference_decoder.read_section(reader, 1, 1024, 0)
    reference_decoder.read_section(reader, 2, 1024)
    start = reader.pos
    reference_decoder.read_section(reader, 4, 1024)
    payload = drawn.packed(program)
    section = b"\x04" + drawn.leb(len(payload)) + payload
    section += zlib.crc32(section).to_bytes(4, "little")
    return product(good[:start] + section + good[reader.pos :])
