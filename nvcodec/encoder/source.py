"""The video that is encoded: gone through once to find its segments, then read again as often as its frames are needed.

Its frames are handed on one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from nvcodec.core.errors import InputError
from nvcodec.core.frame import Frame, VideoProperties, video_seconds
from nvcodec.encoder.cuts import CutDetector
from nvcodec.encoder.working_domain import working_samples
from nvcodec.media.sound import Sound, read_sound
from nvcodec.media.video_digest import VideoDigest
from nvcodec.media.video_io import FrameRange, ReadOptions, VideoReader, check_can_be_read_again

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
        notes: what a user should know of it, a line each.
    """

    def __init__(
        self,
        name: str | Path,
        frames: FrameRange | None,
        longest_shot: Callable[[VideoProperties], int],
        *,
        at_cuts: bool = True,
        reading: ReadOptions | None = None,
    ) -> None:
        """Goes through the video. ``longest_shot``: from its properties, how many frames a segment may have.
        ``at_cuts``: whether segments begin at scene cuts.

        Raises InputError as ``VideoReader``, and for what cannot be read again.
        """
        check_can_be_read_again(name)
        self._name, self._range, self._reading = name, frames, reading or ReadOptions()
        self.pts: list[int] = []
        self.shots: list[Shot] = []
        self._digests: list[str] = []
        with VideoReader(name, frames=frames, options=self._reading) as reader:
            self.properties = reader.properties
            digest, detector, longest = VideoDigest(self.properties), CutDetector(), longest_shot(self.properties)
            start = 0

            def end_shot() -> None:
                self.shots.append(Shot(start, len(self.pts) - start))
                self._digests.append(digest.text())

            for frame in reader:
                if (at_cuts and detector.is_cut(working_samples(frame))) or len(self.pts) - start == longest:
                    end_shot()
                    start = len(self.pts)
                self.pts.append(frame.pts)
                digest.add(frame)
            end_shot()
            self.notes = reader.notes
            self._start, self._offsets = reader.start, reader.clock_offsets

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def digest(self) -> str:
        """A hash of the samples and timestamps of all frames, and of the properties."""
        return self._digests[-1]

    def sound(self) -> tuple[Sound | None, list[str]]:
        """What the video has beside its pictures while they are shown, and notes for its user.

        Raises InputError where it cannot be read.
        """
        if not Path(self._name).is_file():  # pictures
            return None, []
        first, last = self._range or (0, None)
        end = video_seconds(self.properties, self.pts[0], self.pts[-1])
        return read_sound(
            self._name, self._start, (Fraction(0) if first else None, None if last is None else end), self._offsets
        )

    def frames(self) -> Iterator[Frame]:
        """All frames, in order, one at a time; those that the video has got since do not count.

        Raises InputError where they are not those of the first reading, at the latest in the place of the last frame of
        a shot: who has all frames of a shot has the right ones.
        """
        with VideoReader(self._name, frames=self._range, options=self._reading) as reader:
            digest = VideoDigest(reader.properties)
            if reader.properties != self.properties:
                raise self._changed()
            for shot, expected in zip(self.shots, self._digests, strict=True):
                for number in range(1, shot.count + 1):
                    frame = next(reader, None)
                    if frame is not None:
                        digest.add(frame)
                    if frame is None or (number == shot.count and digest.text() != expected):
                        raise self._changed()
                    yield frame

    def _changed(self) -> InputError:
        return InputError(f"{self._name} was changed while it was encoded")
