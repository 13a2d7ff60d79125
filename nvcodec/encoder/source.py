"""The video that is encoded: gone through once to find its segments, then read again as often as its frames are needed.

No more than a segment of it is ever in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

from nvcodec.encoder.cuts import CutDetector
from nvcodec.encoder.working_domain import working_samples
from nvcodec.errors import InputError
from nvcodec.frame import Frame, VideoProperties
from nvcodec.video_io import FrameRange, VideoReader

__all__ = ["Shot", "Source"]


@dataclass(frozen=True)
class Shot:
    """Consecutive frames that become one segment: ``count`` from ``start`` on."""

    start: int
    count: int


class Source:
    """A range of frames of a video.

    Attributes:
        properties: of the video.
        shots: its segments, in order: they begin at scene cuts, and after as many frames as one may have.
        pts: timestamp of each frame.
        digest: a hash of the samples, timestamps and properties.
    """

    def __init__(
        self, name: str | Path, frames: FrameRange | None, longest_shot: Callable[[VideoProperties], int]
    ) -> None:
        """Goes through the video. ``longest_shot``: from its properties, how many frames a segment may have.

        Raises InputError as ``VideoReader``.
        """
        self._name, self._range = name, frames
        self.pts: list[int] = []
        starts = [0]
        with VideoReader(name, frames=frames) as reader:
            self.properties = reader.properties
            digest, detector, longest = _Digest(self.properties), CutDetector(), longest_shot(self.properties)
            for frame in reader:
                if detector.is_cut(working_samples(frame)) or len(self.pts) - starts[-1] == longest:
                    starts.append(len(self.pts))
                self.pts.append(frame.pts)
                digest.add(frame)
        self.digest = digest.text()
        ends = [*starts[1:], len(self.pts)]
        self.shots = [Shot(start, end - start) for start, end in zip(starts, ends, strict=True)]

    def __len__(self) -> int:
        return len(self.pts)

    def frames(self) -> Iterator[Frame]:
        """All frames, in order, one at a time. Raises InputError where they are not those of the first reading."""
        digest = _Digest(self.properties)
        with VideoReader(self._name, frames=self._range) as reader:
            for frame in reader:
                digest.add(frame)
                yield frame
        if digest.text() != self.digest:
            raise InputError(f"{self._name} was changed while it was encoded")


class _Digest:
    def __init__(self, properties: VideoProperties) -> None:
        self._hash = hashlib.blake2b(repr(astuple(properties)).encode(), digest_size=8)

    def add(self, frame: Frame) -> None:
        self._hash.update(frame.pts.to_bytes(8, "little", signed=True))
        for plane in frame.planes:
            self._hash.update(plane.contiguous().numpy().data)

    def text(self) -> str:
        return self._hash.hexdigest()
