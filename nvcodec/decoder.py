"""The decoder: a .cwrv file to frames, bit-exact on every machine.

Needs the file and the decoder's half of the package: nothing of the encoder, and PyAV only to write video.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, BinaryIO, Protocol, Self

import torch
from torch import Tensor

from nvcodec.bitstream.container import ContainerReader, Segment, StreamHeader
from nvcodec.bitstream.salvage import SalvageReader
from nvcodec.core.device import check_device, choose_device
from nvcodec.core.errors import BitstreamError, ChecksumError, InputError, UnsupportedError
from nvcodec.core.frame import (
    FIELD_ORDERS,
    Frame,
    VideoProperties,
    is_content_light,
    is_mastering_display,
    plane_bytes,
)
from nvcodec.core.parallel import thread_limit
from nvcodec.exact.operation import Sizes
from nvcodec.exact.program import Program
from nvcodec.hybrid.payload import HYBRID, HybridDecoder
from nvcodec.implicit.payload import IMPLICIT, IMPLICIT_FROM_START, ImplicitDecoder
from nvcodec.motion.levels import FrameGeometry
from nvcodec.motion.warp import unpack_luma

__all__ = ["Damage", "Decoder", "FrameHash", "SegmentDecoder", "output_planes", "properties_of"]


_NO_MEMORY = re.compile(r"can't allocate memory|bad_alloc|not enough memory")
"""What torch says, in a plain RuntimeError, where the CPU's memory does not suffice."""


class SegmentDecoder(Protocol):
    """What a representation makes of the payload of a segment. Whatever is wrong there is a BitstreamError."""

    def decode(self, wanted: range | None = None) -> Iterator[dict[int, Tensor]]:
        """Samples (6, h, w) of the working domain, integers 0 .. 1023, by display position, in the order in which
        frames are rebuilt. It may end behind the last frame of ``wanted`` (None for all); frames that are not wanted
        may be among them."""

    def account(self) -> dict[str, Any]:
        """Where the bits of what has been decoded went.

        ``header_bytes``, ``weight_bits``, ``motion_bits``, ``gop``, ``parameters``, and ``units``: of each its
        ``frames``, by display position, ``type``, ``depth``, ``motion_bits`` and ``bits``. Hybrid segments and their
        units have ``block_bits``, the segments ``width``; implicit ones ``latent_bits``, by level, and ``program``.
        """


class FrameHash:
    """BLAKE2b-128 over the planes of a segment's frames in display order."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, planes: tuple[Tensor, Tensor, Tensor]) -> None:
        for plane in planes:
            self._hash.update(plane_bytes(plane))

    def digest(self) -> bytes:
        return self._hash.digest()


def output_planes(samples: Tensor, width: int, height: int, bit_depth: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Working samples (6, h, w), 10 bits, to planes on the CPU, cropped: in 8 bits ``min(255, (x + 2) >> 2)``, uint8,
    in 10 bits as they are, uint16."""
    if bit_depth == 8:
        out = torch.floor((samples + 2) * 0.25).clamp(0, 255).to(torch.uint8)
    else:
        out = samples.to(torch.int16)
    planes = unpack_luma(out[:4])[:height, :width], out[4], out[5]
    y, u, v = (plane.cpu().contiguous() for plane in planes)
    return (y, u, v) if bit_depth == 8 else (y.view(torch.uint16), u.view(torch.uint16), v.view(torch.uint16))


def properties_of(header: StreamHeader, metadata: Mapping[str, Any] | None = None) -> VideoProperties:
    """What the header says of the video, and METADATA of how it is shown."""
    order = (metadata or {}).get("field_order")
    matrix = (metadata or {}).get("display_matrix")
    is_matrix = (
        isinstance(matrix, list) and len(matrix) == 9 and all(type(n) is int and -(2**31) <= n < 2**31 for n in matrix)
    )

    display, light = ((metadata or {}).get(name) for name in ("mastering_display", "content_light"))
    time_base = Fraction(header.time_base_num, header.time_base_den)
    return VideoProperties(
        width=header.width,
        height=header.height,
        frame_rate=1 / (time_base * header.frame_duration),
        time_base=time_base,
        sample_aspect_ratio=Fraction(header.sar_num, header.sar_den),
        color_range=header.color_range,
        color_primaries=header.color_primaries,
        color_trc=header.transfer,
        colorspace=header.matrix,
        chroma_location=header.chroma_location,
        field_order=order if isinstance(order, str) and order in FIELD_ORDERS else "",
        bit_depth=8 + header.bit_depth_minus8,
        display_matrix=tuple(matrix or ()) if is_matrix else (),
        mastering_display=tuple(display or ()) if is_mastering_display(display) else (),
        content_light=tuple(light or ()) if is_content_light(light) else (),
    )


@dataclass(frozen=True)
class Damage:
    """What a decoder that skips damage met: the error, and the frames ``start`` .. ``stop - 1`` that it cost.

    ``shown`` is the frame that stands in their place. Damage outside of the segments costs no frame: ``start`` and
    ``stop`` are equal.
    """

    error: BitstreamError
    start: int = 0
    stop: int = 0
    shown: int = 0

    def __str__(self) -> str:
        if self.start == self.stop:
            return f"{self.error}; no frame is lost"
        lost = f"frame {self.start}" if self.stop == self.start + 1 else f"frames {self.start} to {self.stop - 1}"
        return f"{self.error}; {lost} lost, frame {self.shown} is shown instead"


class Decoder:
    """An open .cwrv file.

    >>> with Decoder("clip.cwrv") as video:          # doctest: +SKIP
    ...     for frame in video:
    ...         print(frame.pts, frame.y.shape)

    ``properties``: size, rate and colour of the video. ``frame_count``: frames in the file.
    Raises BitstreamError where the file is at fault, with the place; OSError where it cannot be opened.
    """

    damage: list[Damage]
    """With ``skip_damage``, what has been met so far, opening the file included; else empty."""

    def __init__(
        self,
        source: str | os.PathLike[str] | BinaryIO,
        *,
        device: str = "auto",
        threads: int | None = None,
        skip_damage: bool = False,
    ) -> None:
        """``device``: auto, cpu or cuda. ``threads``: CPU threads, None for torch's choice.

        ``skip_damage``: frames go on behind a damaged segment. Its frames show the last good frame before them, or
        the first good one where there is none before; ``damage`` tells which these are. All other frames are exact.
        A damaged INDEX or optional section is got over where it can be (:mod:`nvcodec.bitstream.salvage`), so is a
        damaged or missing END. A file with damage in HEAD, or without one good frame in the range, is refused all the
        same. A segment's frames are held in memory until all of them are known to be good.
        """
        check_device(device)
        self.threads = threads
        self.skip_damage = skip_damage
        self.container = SalvageReader(source) if skip_damage else ContainerReader(source)
        self.header = self.container.header
        self.device = choose_device(device, self.header.width * self.header.height)
        self.properties = properties_of(self.header, self.container.metadata)
        self.frame_count = self.header.frame_count
        self.geometry = FrameGeometry(self.header.width, self.header.height)
        try:
            self.programs = self._checked_programs()
        except BaseException:
            self.close()
            raise
        if isinstance(self.container, SalvageReader):
            try:
                self._settle_index(self.container)
            except BaseException:
                self.close()
                raise
        self.damage = self._damage_of_opening()

    def _settle_index(self, container: SalvageReader) -> None:
        """One frame count in INDEX is wrong, and the sum tells by how much: the frame hashes tell which one."""
        for number in container.doubtful:
            container.assume(number)
            try:
                segment = container.read_segment(number)
                for _ in self._segment_frames(number, segment, 0, segment.frame_count):
                    pass
            except BitstreamError:
                continue
            return
        if container.doubtful:
            raise container.faults[0]

    def _damage_of_opening(self) -> list[Damage]:
        faults = self.container.faults if isinstance(self.container, SalvageReader) else []
        return [Damage(error) for error in faults]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.container.close()

    def __len__(self) -> int:
        return self.frame_count

    def __iter__(self) -> Iterator[Frame]:
        return self.frames()

    def __getitem__(self, index: int) -> Frame:
        """Frame ``index`` in display order; decodes what it needs of its segment. Raises IndexError."""
        position = index + self.frame_count if index < 0 else index
        if not 0 <= position < self.frame_count:
            raise IndexError(f"frame {index} of {self.frame_count}")
        return next(self.frames(position, position + 1))

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """Frames ``start`` .. ``stop - 1`` in display order; only the segments that hold them are read.

        Where all frames are asked for, every checksum of a file is checked before the first one is decoded; a pipe is
        checked as it is read, its end after the last frame. Raises InputError for a range that is empty or goes beyond
        the end.
        """
        stop = self.frame_count if stop is None else stop
        if not 0 <= start < stop:
            raise InputError(f"frames {start}:{stop}: the range is empty")
        if stop > self.frame_count:
            raise InputError(f"frames {start}:{stop}: the file has {self.frame_count} frames")
        return self._salvaged_frames(start, stop) if self.skip_damage else self._frames(start, stop)

    def _frames(self, start: int, stop: int) -> Iterator[Frame]:
        if (start, stop) == (0, self.frame_count):
            self._check_container()
        for number, _ in self._segments_within(start, stop):
            yield from self._frames_of(number, start, stop)
        if (start, stop) == (0, self.frame_count):
            self.container.check_end()

    def _check_container(self) -> None:
        """Refuse a file whose container is damaged before anything of it is decoded; of a pipe nothing is known yet."""
        if self.container.seekable and not self.skip_damage:
            self.container.check_complete()

    def _salvaged_frames(self, start: int, stop: int) -> Iterator[Frame]:
        self.damage = self._damage_of_opening()
        pts = self.container.pts
        shown: int | None = None  # the last good frame
        good: tuple[Tensor, Tensor, Tensor] | None = None
        early: list[tuple[BitstreamError, range]] = []  # lost before the first good frame
        for number, lost in self._segments_within(start, stop):
            try:
                decoded = list(self._frames_of(number, start, stop))
            except BitstreamError as error:
                if good is None or shown is None:
                    early.append((error, lost))
                    continue
                self.damage.append(Damage(error, lost.start, lost.stop, shown))
                yield from (Frame(good, pts[n]) for n in lost)
                continue
            for cause, missing in early:
                self.damage.append(Damage(cause, missing.start, missing.stop, lost.start))
                yield from (Frame(decoded[0].planes, pts[n]) for n in missing)
            early = []
            yield from decoded
            shown, good = lost.stop - 1, decoded[-1].planes
        if early:
            raise early[0][0]
        if (start, stop) == (0, self.frame_count):
            try:
                self.container.check_end()
            except BitstreamError as error:
                self.damage.append(Damage(error))

    def _segments_within(self, start: int, stop: int) -> Iterator[tuple[int, range]]:
        """The segments that hold frames of ``start`` .. ``stop - 1``, each with those frames."""
        for number, entry in enumerate(self.container.index):
            first = self.container.segment_starts[number]
            held = range(max(start, first), min(stop, first + entry.frame_count))
            if held:
                yield number, held

    def _frames_of(self, number: int, start: int, stop: int) -> Iterator[Frame]:
        first = self.container.segment_starts[number]
        segment = self.container.read_segment(number)
        for display, planes in self._segment_frames(number, segment, max(0, start - first), stop - first):
            yield Frame(planes, self.container.pts[first + display])

    def _segment_frames(
        self, number: int, segment: Segment, start: int, stop: int
    ) -> Iterator[tuple[int, tuple[Tensor, Tensor, Tensor]]]:
        """Frames ``start`` .. ``stop - 1`` of one segment, as soon as display order allows."""
        stop = min(stop, segment.frame_count)
        whole = start == 0 and stop == segment.frame_count
        digest, p = FrameHash(), self.properties
        waiting: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        due = start
        for decoded in self._segment_samples(number, segment, range(start, stop)):
            with thread_limit(self.threads):
                for display, samples in decoded.items():
                    if start <= display < stop:
                        waiting[display] = output_planes(samples, p.width, p.height, p.bit_depth)
            while due in waiting:
                planes = waiting.pop(due)
                digest.add(planes)
                yield due, planes
                due += 1
        if whole and digest.digest() != segment.frame_hash:
            raise ChecksumError(
                f"segment {number} (frames from {self.container.segment_starts[number]}): the decoded frames do not "
                "have the hash that the file states"
            )

    def _checked_programs(self) -> list[Program]:
        """Those of the file. Raises BitstreamError unless all of them keep the limits."""
        sizes = Sizes(self.geometry.half, self.geometry.blocks, 1)
        programs = []
        for number, coded in enumerate(self.container.programs):
            with _placed(f"PROGRAM {number}"):
                programs.append(Program.parse(coded))
                programs[-1].check(sizes)
        return programs

    def _segment_decoder(self, segment: Segment) -> SegmentDecoder:
        """By the representation that the payload states."""
        representation = segment.payload[0] >> 4
        if representation == HYBRID:
            return HybridDecoder(segment.payload, self.geometry, segment.frame_count, self.device)
        if representation in (IMPLICIT, IMPLICIT_FROM_START):
            return ImplicitDecoder(segment.payload, self.programs, self.geometry, segment.frame_count, self.device)
        raise UnsupportedError(f"representation {representation} is not defined")

    def _segment_samples(self, number: int, segment: Segment, wanted: range) -> Iterator[dict[int, Tensor]]:
        with _placed(f"segment {number}"):
            decoder = self._segment_decoder(segment)
        steps = decoder.decode(wanted)
        while True:
            with _placed(f"segment {number}"), thread_limit(self.threads):
                decoded = next(steps, None)
            if decoded is None:
                return
            yield decoded

    def verify(self, on_frame: Callable[[int], None] = lambda frame: None) -> None:
        """Check every checksum, decode every frame and compare the hashes; BitstreamError at the first fault.

        ``on_frame`` is called with the number of frames verified so far.
        """
        done = 0
        for damage in self._damage_of_opening():
            raise damage.error
        self._check_container()
        for number, segment in enumerate(self.container.iter_segments()):
            for _ in self._segment_frames(number, segment, 0, segment.frame_count):
                done += 1
                on_frame(done)

    def account(self) -> dict[str, Any]:
        """Where every byte of the file went, for people and JSON. Decodes the whole file.

        ``container``: bytes that are not entropy-coded payload, and ``payload``. ``segments``: bits of the weights,
        and of motion and blocks per coding unit.
        """
        places = self.container.byte_map()
        segments = []
        for number, segment in enumerate(self.container.iter_segments()):
            with _placed(f"segment {number}"), thread_limit(self.threads):
                decoder = self._segment_decoder(segment)
                for _ in decoder.decode():
                    pass
            segments.append(self._segment_account(number, segment, decoder.account()))
        headers = sum(s["header_bytes"] for s in segments)
        overhead = sum(size for name, size in places.items() if name not in ("payload", "audio")) + headers
        total, sound = sum(places.values()), self.container.audio_bytes
        return {
            "file_bytes": total,
            "sound_bytes": sound,
            "bpp": 8 * (total - sound) / (self.frame_count * self.header.width * self.header.height),
            "container": places,
            "overhead_bytes": overhead,
            "overhead_percent": 100 * overhead / total,
            "segments": segments,
        }

    def _segment_account(self, number: int, segment: Segment, account: dict[str, Any]) -> dict[str, Any]:
        """``account``: of the segment's decoder."""
        first = self.container.segment_starts[number]
        units = [unit | {"frames": [first + display for display in unit["frames"]]} for unit in account["units"]]
        place = {"first_frame": first, "frames": segment.frame_count, "bytes": len(segment.payload)}
        return place | account | {"units": units}


@contextmanager
def _placed(place: str) -> Iterator[None]:
    """Name the place in errors of the bitstream."""
    try:
        yield
    except BitstreamError as error:
        if str(error).startswith(place):
            raise
        raise type(error)(f"{place}: {error}") from None
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not _NO_MEMORY.search(str(error)):
            raise
        raise UnsupportedError(f"{place}: to decode it takes more memory than there is") from error
