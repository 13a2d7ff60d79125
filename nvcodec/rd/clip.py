"""The clips that curves are made for: what they are, read once before any work, and their frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from nvcodec.core.errors import InputError
from nvcodec.core.frame import Frame, VideoProperties, video_seconds
from nvcodec.media.video_digest import VideoDigest
from nvcodec.media.video_io import FrameRange, VideoReader, check_can_be_read_again
from nvcodec.rd.quality import rgb_matrix

__all__ = ["Clip", "inspect_clip", "name_clips", "open_clip"]


@dataclass(frozen=True)
class Clip:
    """A range of frames of a video.

    Attributes:
        source: as given on the command line.
        name: short, for people and file names; no two clips of a run share one.
        frames: the range that was asked for, None for all.
        count: frames in it.
        seconds: how long they are shown.
        properties: of the video.
        rgb_matrix: by what its frames become RGB, in words.
        digest: ``VideoDigest`` of those frames.
    """

    source: str
    name: str
    frames: FrameRange | None
    count: int
    seconds: Fraction
    properties: VideoProperties
    rgb_matrix: str
    digest: str

    @property
    def samples(self) -> int:
        """Luma samples of all its frames: what bits per pixel divide by."""
        return self.count * self.properties.width * self.properties.height


def name_clips(sources: Iterable[str]) -> list[str]:
    """A name for each source: that of the file without its suffix, numbered where two are the same."""
    names: list[str] = []
    for source in sources:
        stem = "".join(c if c.isalnum() or c in "-_.+" else "_" for c in Path(source).stem)[:60] or "clip"
        number, name = 1, stem
        while name in names:
            number += 1
            name = f"{stem}-{number}"
        names.append(name)
    return names


def inspect_clip(source: str, name: str, frames: FrameRange | None) -> Clip:
    """Reads all frames of the range once, one at a time.

    Raises:
        InputError: the source cannot be read, is shorter than the range, or has a colour matrix that cannot
            become RGB.
    """
    check_can_be_read_again(source)
    pts: list[int] = []
    with VideoReader(source, frames=frames) as reader:
        properties = reader.properties
        try:
            matrix = rgb_matrix(properties)
        except InputError as error:
            raise InputError(f"{source}: {error}") from error
        digest = VideoDigest(properties)
        for frame in reader:
            digest.add(frame)
            pts.append(frame.pts)
    seconds = video_seconds(properties, pts[0], pts[-1])
    return Clip(source, name, frames, len(pts), seconds, properties, matrix, digest.text())


@contextmanager
def open_clip(clip: Clip) -> Iterator[Iterator[Frame]]:
    """Its frames, one at a time."""
    with VideoReader(clip.source, frames=clip.frames) as reader:
        yield reader
