"""A coverage-guided fuzzer for everything that reads a .cwrv file.

    pip install atheris                       # beside nvcodec, Python 3.11; no dependency of this project
    python tools/fuzz_decoder.py CORPUS -max_total_time=600 -rss_limit_mb=2048 -timeout=20

CORPUS is a directory, made and seeded if it is empty; the options are libFuzzer's. The first byte of an input says
what the rest is: a whole file, or what stands in one section of an otherwise right file, behind right checksums. That
file has a program, a hybrid and an implicit segment. Seeds are its parts, and the programs of the conformance vectors.
Whatever it is, the decoder gives frames or raises a BitstreamError, strict or skipping damage. Anything else is
kept as a file crash-... or timeout-..., with a traceback; give that file as the argument to see it again.
"""

from __future__ import annotations

import io
import sys
from itertools import pairwise
from pathlib import Path

import atheris
import zstandard

with atheris.instrument_imports(include=["nvcodec"]):
    from fault_files import program_work, resealed, section_places, small_file, unpacked

    from nvcodec.bitstream.container import ContainerReader, SectionType
    from nvcodec.core.errors import BitstreamError
    from nvcodec.decoder import Decoder

COUNTS = (2, 3)
"""Frames of the segments of the valid file; the first one is hybrid, the second implicit."""
MAX_SAMPLES = 64 * 64 * 16
"""Larger videos are not decoded here, only parsed: they take time, and that is no fault."""
MAX_PROGRAM_WORK = 10**7
"""So are those of programs that compute more for a frame."""
VECTORS = Path(__file__).parent.parent / "tests" / "vectors"

VALID, _ = small_file(8, 6, COUNTS)
PARTS = [
    (kind, start) for kind, places in section_places(VALID).items() if kind != SectionType.END for start, *_ in places
]
PACKED = (SectionType.PROGRAM, SectionType.TIMESTAMPS, SectionType.METADATA)


def content(kind: int, start: int, file: bytes = VALID) -> bytes:
    """What stands in a section of a file."""
    payload, end = next((p, e) for s, p, e in section_places(file)[kind] if s == start)
    data = file[payload : end - 4]
    return unpacked(kind, data) if kind in PACKED else data


def seed(corpus: Path) -> None:
    corpus.mkdir(parents=True, exist_ok=True)
    if any(corpus.iterdir()):
        return
    (corpus / "file").write_bytes(b"\0" + VALID)
    for number, (kind, start) in enumerate(PARTS, 1):
        (corpus / f"section-{kind:02x}-{number}").write_bytes(bytes([number]) + content(kind, start))
    place = 1 + next(n for n, (kind, _) in enumerate(PARTS) if kind == SectionType.PROGRAM)
    for path in sorted(VECTORS.glob("*program_*.cwrv")):
        data = path.read_bytes()
        (corpus / path.stem).write_bytes(b"\0" + data)
        for number, (start, *_) in enumerate(section_places(data).get(SectionType.PROGRAM, [])):
            program = content(SectionType.PROGRAM, start, data)
            (corpus / f"{path.stem}-{number}").write_bytes(bytes([place]) + program)


def input_file(data: bytes) -> bytes:
    choice = data[0] % (len(PARTS) + 1) if data else 0
    if choice == 0:
        return data[1:]
    kind, start = PARTS[choice - 1]
    payload = zstandard.ZstdCompressor().compress(data[1:]) if kind in PACKED else data[1:]
    return repaired(resealed(VALID, start, payload)) if kind == SectionType.SEGMENT else resealed(VALID, start, payload)


def repaired(data: bytes) -> bytes:
    """The file with an INDEX that has the sizes of its segments."""
    places = section_places(data)
    sizes = [end - start for start, _, end in places[SectionType.SEGMENT]]
    writer = b"".join(bytes([count]) + leb128(size) for count, size in zip(COUNTS, sizes, strict=True))
    return resealed(data, places[SectionType.INDEX][0][0], writer)


def leb128(value: int) -> bytes:
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def read_everything(data: bytes, *, skip_damage: bool) -> bool:
    """Whether all of it could be read."""
    try:
        with ContainerReader(io.BytesIO(data)) as reader:
            reader.check_complete()
    except BitstreamError:
        pass
    try:
        with Decoder(io.BytesIO(data), device="cpu", threads=1, skip_damage=skip_damage) as decoder:
            samples = decoder.header.width * decoder.header.height * decoder.frame_count
            if samples <= MAX_SAMPLES and program_work(decoder) <= MAX_PROGRAM_WORK:
                frames = list(decoder)
                assert len(frames) == decoder.frame_count
                assert all(a.pts < b.pts for a, b in pairwise(frames))
    except BitstreamError:
        return False
    return True


def one_input(data: bytes) -> None:
    file = input_file(data)
    if not read_everything(file, skip_damage=False):
        read_everything(file, skip_damage=True)


def main() -> None:
    folders = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    if folders and not Path(folders[0]).is_file():
        seed(Path(folders[0]))
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
