"""What can still be read of a file whose INDEX or optional sections are damaged.

HEAD must be whole: it gives sizes and limits. So must the PROGRAM sections: segments mean nothing without them. The
rest of what stands before the segments can be found again in a file that can seek, as long as one thing is wrong at a
time:

- *INDEX, its type or length*: the length at which its CRC fits.
- *INDEX, its content or CRC*: each SEGMENT section states its own size, so the sections are counted from front to
  back. The frame counts stand in INDEX alone. Those next to a right size are taken; a single one that is missing
  follows from HEAD's ``frame_count``. If all can be read but their sum is wrong, one of them is: the decoder finds
  out which by the frame hashes (``doubtful``, ``assume``).
- *an optional section*: it is left out, with all that follow it. The segments are found from their sizes: by
  the sections before them, or back from the end of the file. Without TIMESTAMPS, frames are evenly spaced.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Final

from nvcodec.bitstream.bitio import BitReader, BitWriter
from nvcodec.bitstream.container import OPTIONAL, ContainerReader, IndexEntry, SectionType
from nvcodec.core import limits
from nvcodec.core.errors import BitstreamError

__all__ = ["SalvageReader"]

_MAX_SEARCH_BYTES: Final = 4096
"""The longest INDEX whose damaged type or length is searched for: the search takes quadratic time."""
_END_BYTES: Final = 6
_MAX_COUNT_BYTES: Final = 2  # of a segment's frame count


class SalvageReader(ContainerReader):
    """Reads like ContainerReader, and opens files that it refuses.

    ``faults``: what was found and got over while opening. ``doubtful``: segments of which one has a wrong frame
    count; call ``assume`` with each until one decodes to its frame hash.
    """

    faults: list[BitstreamError]
    doubtful: tuple[int, ...]

    def _read_start(self) -> None:
        self.faults = []
        self.doubtful = ()
        self._read_head()
        place = self._source.position
        try:
            self._read_index()
        except BitstreamError as error:
            if not self._source.seekable or not self._rebuild_index(place):
                raise
            self.faults.append(error)
        self._read_programs()
        place = self._source.position
        try:
            self._read_optional_sections()
        except BitstreamError as error:
            first = self._find_first_segment(place) if self._source.seekable else None
            if first is None:
                raise
            if self._source_byte(first) == SectionType.SEGMENT:
                self.faults.append(error)  # else it is the first segment that is damaged, and it will be told of it
            self._source.seek(first)
        self._place_segments()

    def assume(self, number: int) -> None:
        """Take it that this segment's frame count is the wrong one."""
        self.index = self._with_count(number)
        self._source.seek(self._segment_offsets[0])
        self._place_segments()

    # INDEX

    def _rebuild_index(self, place: int) -> bool:
        """INDEX from what is left of it at ``place`` and the sections behind it; the source then stands behind it."""
        for payload, end in self._index_payloads(place):
            sizes = self._section_sizes(end)
            if sizes is None:
                continue
            counts = _frame_counts(payload, sizes)
            if counts is not None and self._take_counts(counts, sizes):
                self._source.seek(end)
                return True
        return False

    def _index_payloads(self, place: int) -> Iterator[tuple[bytes, int]]:
        """What may be the payload of INDEX, and where the section then ends."""
        data = self._bytes_at(place, self._max_index_bytes + 16)
        if data[:1] == bytes([SectionType.INDEX]):
            try:
                reader = BitReader(data[1:])
                payload = reader.raw(reader.leb128("length"), "INDEX")
                yield payload, place + 1 + reader.byte_offset + limits.CRC_BYTES
            except BitstreamError:
                pass
        for length in range(min(len(data), self._max_index_bytes, _MAX_SEARCH_BYTES) + 1):
            writer = BitWriter()
            writer.u(SectionType.INDEX, 8)
            writer.leb128(length)
            start = writer.finish()
            body, end = data[len(start) : len(start) + length], len(start) + length + limits.CRC_BYTES
            crc = zlib.crc32(start + body).to_bytes(limits.CRC_BYTES, "little")
            if data[len(start) + length : end] == crc:
                yield body, place + end

    def _section_sizes(self, place: int) -> list[int] | None:
        """Bytes of each SEGMENT section, by the lengths that the sections from ``place`` on state themselves."""
        sizes: list[int] = []
        for kind, start, end in self._sections(place):
            if kind == SectionType.SEGMENT:
                sizes.append(end - start)
                if len(sizes) == self.header.segment_count:
                    return sizes
            elif sizes or not (kind & OPTIONAL or kind == SectionType.PROGRAM):
                return None
        return None

    def _take_counts(self, counts: list[int | None], sizes: Sequence[int]) -> bool:
        missing = self.header.frame_count - sum(count or 0 for count in counts)
        unknown = [number for number, count in enumerate(counts) if count is None]
        if len(unknown) == 1:
            counts[unknown[0]] = missing
            missing = 0
        elif unknown:
            return False
        self.index = self._index_as_read = tuple(map(IndexEntry, (count or 0 for count in counts), sizes))
        self._missing = missing
        if missing:
            self.doubtful = tuple(n for n in range(len(counts)) if self._is_possible(self._with_count(n)[n]))
            return bool(self.doubtful)
        return all(map(self._is_possible, self.index))

    def _with_count(self, number: int) -> tuple[IndexEntry, ...]:
        """The index, were this segment the one whose count is wrong."""
        entries = list(self._index_as_read)
        entries[number] = IndexEntry(entries[number].frame_count + self._missing, entries[number].section_bytes)
        return tuple(entries)

    def _is_possible(self, entry: IndexEntry) -> bool:
        most = limits.max_segment_frames(self.header.level, self.header.width, self.header.height)
        try:
            payload_bytes = entry.payload_bytes
        except BitstreamError:
            return False
        return 1 <= entry.frame_count <= most and 1 <= payload_bytes <= limits.MAX_SEGMENT_PAYLOAD_BYTES

    # Segments

    def _find_first_segment(self, place: int) -> int | None:
        """Where the first SEGMENT section begins, by the index."""
        total = sum(entry.section_bytes for entry in self.index)
        size = self._source.size
        behind = next((start for kind, start, _ in self._sections(place) if not kind & OPTIONAL), -1)
        candidates = (behind, size - _END_BYTES - total, size - total)
        writer = BitWriter()
        writer.leb128(self.index[0].content_bytes)
        length = writer.finish()
        for start in candidates:
            if start >= place and self._bytes_at(start + 1, len(length)) == length:
                return start
        return None

    # Bytes

    def _sections(self, place: int) -> Iterator[tuple[int, int, int]]:
        """Type, start and end of the sections from ``place`` on, by the lengths that they state."""
        while place < self._source.size:
            data = self._bytes_at(place, 1 + limits.MAX_LEB128_BYTES)
            try:
                reader = BitReader(data[1:])
                length = reader.leb128("length")
            except BitstreamError:
                return
            end = place + 1 + reader.byte_offset + length + limits.CRC_BYTES
            if end > self._source.size:
                return
            yield data[0], place, end
            place = end

    def _source_byte(self, place: int) -> int | None:
        data = self._bytes_at(place, 1)
        return data[0] if data else None

    def _bytes_at(self, place: int, count: int) -> bytes:
        """Up to ``count`` bytes; fewer at the end of the file."""
        self._source.seek(place)
        return self._source.read(max(0, min(count, self._source.size - place)), "salvage")


def _frame_counts(payload: bytes, sizes: Sequence[int]) -> list[int | None] | None:
    """The frame count of each entry of a damaged INDEX; None for one that cannot be read, or for all.

    An entry is a count of one or two bytes and the size of the section. What is damaged still has its place, so the
    known sizes show where each entry begins.
    """
    counts: list[int | None] = []
    position = 0
    for number, size in enumerate(sizes):
        known = _leb128(size)
        ends = [position + n + len(known) for n in range(1, _MAX_COUNT_BYTES + 1)]
        found = [end for end in ends if payload[end - len(known) : end] == known]
        if found:
            end = found[0]
        elif number + 1 == len(sizes):
            end = len(payload)
        else:  # the entry whose successor can be read is the one that was here
            after = _leb128(sizes[number + 1])
            follows = [e for e in ends if any(payload[e + n :].startswith(after) for n in (1, 2))]
            if not follows:
                return None
            end = follows[0]
        counts.append(_read_count(payload[position : end - len(known)]))
        position = end
    return counts if position == len(payload) else None


def _leb128(value: int) -> bytes:
    writer = BitWriter()
    writer.leb128(value)
    return writer.finish()


def _read_count(data: bytes) -> int | None:
    try:
        reader = BitReader(data)
        value = reader.leb128("frame_count")
        reader.expect_end("frame_count")
    except BitstreamError:
        return None
    return value if 1 <= value <= limits.MAX_SEGMENT_FRAMES else None
