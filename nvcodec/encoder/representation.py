"""What the pipeline asks of the encoder of a representation, and what it gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from nvcodec.encoder.rate_control import Target
from nvcodec.motion.levels import FrameGeometry

__all__ = ["CodedSegment", "Keep", "SegmentEncoder", "StageReport"]


@dataclass(frozen=True)
class CodedSegment:
    """``payload`` for the container, the hash of the frames that it decodes to, and their mean PSNR 6:1:1 in dB.
    ``stages``: what the stages on the way came to, by name, where the representation tells."""

    payload: bytes
    frame_hash: bytes
    psnr: float
    stages: dict[str, float] | None = None

    @property
    def bits(self) -> float:
        return 8.0 * len(self.payload)


@dataclass(frozen=True)
class StageReport:
    """Progress: ``stage`` by name, frames behind it, the share of the segment's work done; ``bpp`` and ``psnr`` (dB) of
    what was just finished. ``seconds``: before long work begins, how long all of it will take."""

    stage: str
    frames: int
    fraction: float
    bpp: float | None = None
    psnr: float | None = None
    seconds: float | None = None


Keep = Callable[[Callable[[], dict[str, Any]]], None]
"""Is told after every unit how the state of the work can be had."""


class SegmentEncoder(Protocol):
    """Makes payloads of segments, as one encode wants them: effort and the like are settled before."""

    def smallest_payload(self, frames: int, geometry: FrameGeometry) -> int:
        """Bytes of the smallest payload there can be."""

    def encode_segment(
        self,
        samples: Tensor,
        geometry: FrameGeometry,
        target: Target,
        seed: int,
        on_unit: Callable[[StageReport], None],
        *,
        kept: dict[str, Any] | None,
        keep: Keep,
    ) -> CodedSegment:
        """Encode a segment. ``samples``: (T, 6, h, w) of the source, 10 bits, where to compute.
        ``target.total_bytes``, if any, is for this payload alone. ``seed``: of the random numbers.

        What ``keep`` can have after every unit is a state of the work, a tree. Given as ``kept`` to a later call with
        the same arguments, the work goes on behind that unit, and ends in the same bytes.
        """
