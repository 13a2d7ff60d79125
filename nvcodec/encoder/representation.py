"""What the pipeline asks of the encoder of a representation, and what it gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from nvcodec.core.gop import CodingUnit
from nvcodec.encoder.rate_control import Target
from nvcodec.motion.levels import FrameGeometry

__all__ = ["CodedSegment", "Keep", "SegmentEncoder", "StageReport", "UnitOutcome"]


@dataclass(frozen=True)
class CodedSegment:
    """``payload`` for the container, the hash of the frames that it decodes to, and their mean PSNR 6:1:1 in dB."""

    payload: bytes
    frame_hash: bytes
    psnr: float

    @property
    def bits(self) -> float:
        return 8.0 * len(self.payload)


class UnitOutcome(Protocol):
    """What a pass made of one unit: bits, and mean squared 8-bit errors (B, 3) of Y, U, V."""

    unit: CodingUnit
    errors: Tensor

    @property
    def bits(self) -> float: ...


@dataclass(frozen=True)
class StageReport:
    """Progress: ``stage`` by name, the unit that was finished, frames behind this stage, and the share of the
    segment's work done."""

    stage: str
    unit: UnitOutcome
    frames: int
    fraction: float


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
