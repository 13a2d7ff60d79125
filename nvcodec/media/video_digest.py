"""A hash by which two readings of a video are known to be the same."""

from __future__ import annotations

import hashlib

from nvcodec.core.frame import Frame, VideoProperties, plane_bytes

__all__ = ["VideoDigest"]


class VideoDigest:
    """Of the properties of a video and the samples and timestamps of its frames: equal content, equal digest, whatever
    the file that it comes from."""

    def __init__(self, properties: VideoProperties) -> None:
        self._hash = hashlib.blake2b(repr(properties).encode(), digest_size=16)

    def add(self, frame: Frame) -> None:
        self._hash.update(f"{frame.pts}\0".encode())
        for plane in frame.planes:
            self._hash.update(plane_bytes(plane))

    def text(self) -> str:
        """Of the frames so far, 32 hexadecimal digits."""
        return self._hash.hexdigest()
