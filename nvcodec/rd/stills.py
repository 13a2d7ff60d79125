"""Still pictures for the viewer of the page: WebP, without loss where they are few, else nearly without.

Which compression a page has, and for which frames, is decided once for each clip, by a budget of bytes; a
compressed still is measured against the frame that it shows, so that the page can tell what is lost.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from PIL import Image, features

from nvcodec.core.color import to_rgb
from nvcodec.core.errors import InputError
from nvcodec.core.frame import Frame, VideoProperties
from nvcodec.core.metrics import psnr

__all__ = ["StillMode", "Stills", "choose_mode", "make_stills"]

LOSSY_QUALITIES = (98, 95, 92)
"""Of libwebp, 0 .. 100; the first that fits is taken."""
MOST_FRAMES = 240
_METHOD = 4
"""Of libwebp: 0 is fastest, 6 smallest."""


@dataclass(frozen=True)
class StillMode:
    """``frames``: numbers of the frames that are shown, rising. ``lossless``: or with ``quality`` (0 .. 100)."""

    frames: tuple[int, ...]
    lossless: bool
    quality: int = 100

    def key(self) -> dict[str, Any]:
        """For the store: what stills depend on beside their frames."""
        return asdict(self) | {"frames": list(self.frames), "pillow": Image.__version__, "method": _METHOD}


@dataclass(frozen=True)
class Stills:
    """WebP files of a variant of a clip, one a frame of the mode, and the least RGB PSNR of a still against its
    frame, in dB (100 without loss)."""

    images: tuple[bytes, ...]
    least_psnr: float


def choose_mode(sample: Frame, properties: VideoProperties, count: int, variants: int, budget: int) -> StillMode:
    """What fits ``budget`` bytes, judged by one frame: first all frames without loss, else all with little loss,
    else some with the most of it, evenly spaced, the first and the last among them and never less than two.

    ``count``: frames of the clip. ``variants``: how many pictures of each (source, ours, anchors).
    """
    wanted = spaced(count, min(count, MOST_FRAMES))
    picture = to_rgb(sample, properties)
    for mode in (StillMode(wanted, True), *(StillMode(wanted, False, quality) for quality in LOSSY_QUALITIES)):
        size = len(encode_still(picture, lossless=mode.lossless, quality=mode.quality))
        if len(wanted) * variants * size <= budget:
            return mode
    fitting = max(2, budget // (size * variants))
    return StillMode(spaced(count, min(len(wanted), fitting)), False, LOSSY_QUALITIES[-1])


def spaced(count: int, chosen: int) -> tuple[int, ...]:
    """``chosen`` of the numbers 0 .. count - 1, evenly spaced, both ends included where there are two or more."""
    if chosen >= count or chosen < 2:
        return tuple(range(min(count, max(chosen, 1))))
    return tuple(round(i * (count - 1) / (chosen - 1)) for i in range(chosen))


def make_stills(frames: Iterable[Frame], properties: VideoProperties, mode: StillMode) -> Stills:
    """``frames``: all of the clip, in order; those of the mode become pictures.

    Raises:
        InputError: the clip ends before the last of them.
    """
    wanted = set(mode.frames)
    images: list[bytes] = []
    least = 100.0
    for number, frame in enumerate(frames):
        if number in wanted:
            picture = to_rgb(frame, properties)
            data = encode_still(picture, lossless=mode.lossless, quality=mode.quality)
            least = min(least, psnr(decode_still(data), picture))
            images.append(data)
        if len(images) == len(wanted):
            break
    if len(images) < len(wanted):
        raise InputError(f"stills of frames up to {max(wanted)} were asked for, but the video ends before")
    return Stills(tuple(images), least)


def encode_still(picture: torch.Tensor, *, lossless: bool, quality: int) -> bytes:
    """``picture``: (3, H, W) uint8 RGB. Returns a WebP file."""
    buffer = io.BytesIO()
    image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
    image.save(buffer, "WEBP", lossless=lossless, quality=60 if lossless else quality, method=_METHOD)
    return buffer.getvalue()


def decode_still(data: bytes) -> torch.Tensor:
    """A WebP file to (3, H, W) uint8 RGB."""
    with Image.open(io.BytesIO(data)) as image:
        rgb = image.convert("RGB")
    samples = torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8)
    return samples.reshape(rgb.height, rgb.width, 3).permute(2, 0, 1)


def check_webp() -> None:
    """Raises InputError where Pillow was built without WebP."""
    if not features.check("webp"):
        raise InputError("this build of Pillow cannot write WebP: pip install --force-reinstall pillow")


def pack(stills: Stills) -> tuple[dict[str, Any], bytes]:
    """Record and payload for the store."""
    return {"sizes": [len(image) for image in stills.images], "least_psnr": stills.least_psnr}, b"".join(stills.images)


def unpack(record: dict[str, Any], data: bytes) -> Stills:
    """What :func:`pack` packed."""
    return Stills(tuple(split(data, record["sizes"])), record["least_psnr"])


def split(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Consecutive parts of ``data``."""
    ends = [sum(sizes[: n + 1]) for n in range(len(sizes))]
    return [data[end - size : end] for end, size in zip(ends, sizes, strict=True)]
