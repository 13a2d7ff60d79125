"""The decoder: a .cwrv file to frames, bit-exact on every machine.

Needs the file and the decoder's half of the package: nothing of the encoder, and PyAV only to write video.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, BinaryIO, Self

import torch
from torch import Tensor

from nvcodec.container import ContainerReader, Segment, StreamHeader
from nvcodec.errors import BitstreamError, ChecksumError, InputError
from nvcodec.frame import Frame, VideoProperties
from nvcodec.model.grid import FrameGeometry
from nvcodec.model.warp import unpack_luma
from nvcodec.model.warprnn import FrameState
from nvcodec.segment import SegmentDecoder

__all__ = ["Decoder", "FrameHash", "choose_device", "output_planes", "properties_of", "thread_limit"]


class FrameHash:
    """BLAKE2b-128 over the planes of a segment's frames in display order."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, planes: tuple[Tensor, Tensor, Tensor]) -> None:
        for plane in planes:
            self._hash.update(plane.contiguous().numpy().tobytes())

    def digest(self) -> bytes:
        return self._hash.digest()


def choose_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one. Raises InputError for an unknown or absent device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: no CUDA device is available")
    if name not in ("cpu", "cuda"):
        raise InputError(f"unknown device {name!r}; choose auto, cpu or cuda")
    return torch.device(name)


@contextmanager
def thread_limit(threads: int | None) -> Iterator[None]:
    """Let torch use ``threads`` threads (all cores for None) for a while."""
    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(before)


def output_planes(samples: Tensor, width: int, height: int) -> tuple[Tensor, Tensor, Tensor]:
    """Working samples (6, h, w), 10 bits, to 8-bit planes on the CPU: ``min(255, (x + 2) >> 2)``, cropped."""
    rounded = torch.floor((samples + 2) * 0.25).clamp(0, 255).to(torch.uint8).cpu()
    luma = unpack_luma(rounded[:4])[:height, :width].contiguous()
    return luma, rounded[4].contiguous(), rounded[5].contiguous()


def properties_of(header: StreamHeader) -> VideoProperties:
    """What the header says of the video."""
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
    )


class Decoder:
    """An open .cwrv file.

    >>> with Decoder("clip.cwrv") as video:          # doctest: +SKIP
    ...     for frame in video:
    ...         print(frame.pts, frame.y.shape)

    ``properties``: size, rate and colour of the video. ``frame_count``: frames in the file.
    Raises BitstreamError where the file is at fault, with the place; OSError where it cannot be opened.
    """

    def __init__(
        self, source: str | os.PathLike[str] | BinaryIO, *, device: str = "auto", threads: int | None = None
    ) -> None:
        """``device``: auto, cpu or cuda. ``threads``: CPU threads, None for torch's choice."""
        self.device = choose_device(device)
        self.threads = threads
        self.container = ContainerReader(source)
        self.header = self.container.header
        self.properties = properties_of(self.header)
        self.frame_count = self.header.frame_count
        self.geometry = FrameGeometry(self.header.width, self.header.height)

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

        Raises InputError for a range that is empty or goes beyond the end.
        """
        stop = self.frame_count if stop is None else stop
        if not 0 <= start < stop:
            raise InputError(f"frames {start}:{stop}: the range is empty")
        if stop > self.frame_count:
            raise InputError(f"frames {start}:{stop}: the file has {self.frame_count} frames")
        return self._frames(start, stop)

    def _frames(self, start: int, stop: int) -> Iterator[Frame]:
        for number, entry in enumerate(self.container.index):
            first = self.container.segment_starts[number]
            if first >= stop or first + entry.frame_count <= start:
                continue
            segment = self.container.read_segment(number)
            for display, planes in self._segment_frames(number, segment, max(0, start - first), stop - first):
                yield Frame(planes, self.container.pts[first + display])

    def _segment_frames(
        self, number: int, segment: Segment, start: int, stop: int
    ) -> Iterator[tuple[int, tuple[Tensor, Tensor, Tensor]]]:
        """Frames ``start`` .. ``stop - 1`` of one segment, as soon as display order allows."""
        stop = min(stop, segment.frame_count)
        whole = start == 0 and stop == segment.frame_count
        digest = FrameHash()
        waiting: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        due = start
        for decoded in self._segment_states(number, segment, start, stop):
            for display, state in decoded.items():
                if start <= display < stop:
                    waiting[display] = output_planes(state.appearance.packed, self.header.width, self.header.height)
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

    def _segment_states(self, number: int, segment: Segment, start: int, stop: int) -> Iterator[dict[int, FrameState]]:
        with _placed(f"segment {number}"):
            decoder = SegmentDecoder(segment.payload, self.geometry, segment.frame_count, self.device)
        steps = decoder.decode(lambda frame: start <= frame.display < stop)
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
        for number, segment in enumerate(self.container.iter_segments()):
            for _ in self._segment_frames(number, segment, 0, segment.frame_count):
                done += 1
                on_frame(done)

    def account(self) -> dict[str, Any]:
        """Where every byte of the file went, for people and JSON. Decodes the whole file.

        ``container``: bytes that are not entropy-coded payload, and ``payload``. ``segments``: bits of weights, motion
        and each grid level (finest first), per coding unit.
        """
        places = self.container.byte_map()
        segments = []
        for number, segment in enumerate(self.container.iter_segments()):
            with _placed(f"segment {number}"), thread_limit(self.threads):
                decoder = SegmentDecoder(segment.payload, self.geometry, segment.frame_count, self.device)
                for _ in decoder.decode():
                    pass
            segments.append(self._segment_account(number, segment, decoder))
        headers = sum(s["header_bytes"] for s in segments)
        overhead = sum(size for name, size in places.items() if name != "payload") + headers
        total = sum(places.values())
        return {
            "file_bytes": total,
            "bpp": 8 * total / (self.frame_count * self.header.width * self.header.height),
            "container": places,
            "overhead_bytes": overhead,
            "overhead_percent": 100 * overhead / total,
            "segments": segments,
        }

    def _segment_account(self, number: int, segment: Segment, decoder: SegmentDecoder) -> dict[str, Any]:
        units = []
        for unit, bits in decoder.account.units:
            motion, levels = bits.motion[::-1], bits.appearance[::-1]
            units.append(
                {
                    "frames": [self.container.segment_starts[number] + f.display for f in unit.frames],
                    "type": "IPB"[min(unit.depth, 2)],
                    "depth": unit.depth,
                    "motion_bits": sum(motion),
                    "level_bits": levels,
                    "bits": sum(motion) + sum(levels),
                }
            )
        return {
            "first_frame": self.container.segment_starts[number],
            "frames": segment.frame_count,
            "bytes": len(segment.payload),
            "header_bytes": decoder.account.header_bytes,
            "width": decoder.header.width,
            "gop": decoder.header.gop,
            "parameters": decoder.network.shape.parameter_count,
            "weight_bits": decoder.account.weight_bits,
            "motion_bits": sum(u["motion_bits"] for u in units),
            "level_bits": [sum(column) for column in zip(*(u["level_bits"] for u in units), strict=True)],
            "units": units,
        }


@contextmanager
def _placed(place: str) -> Iterator[None]:
    """Name the place in errors of the bitstream."""
    try:
        yield
    except BitstreamError as error:
        if str(error).startswith(place):
            raise
        raise type(error)(f"{place}: {error}") from None
