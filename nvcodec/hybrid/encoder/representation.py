"""The hybrid representation as the pipeline uses it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nvcodec.core.errors import EncodeError
from nvcodec.core.gop import MAX_GOP
from nvcodec.encoder.gop_trials import GopTrials, trial_report
from nvcodec.encoder.rate_control import Target
from nvcodec.encoder.representation import CodedSegment, Keep, StageReport
from nvcodec.encoder.segment_analysis import SegmentSource, UnitReport
from nvcodec.hybrid.base import WIDTHS
from nvcodec.hybrid.encoder.stages import EFFORTS, GOPS, Effort, encode_segment, smallest_payload, trial_pass
from nvcodec.motion.levels import FrameGeometry

__all__ = ["HybridEncoder", "check_choices"]


def check_choices(effort: str, gop: int | None, width: int | None) -> None:
    """Raises EncodeError for values outside their range."""
    if effort not in EFFORTS:
        raise EncodeError(f"unknown effort {effort!r}; choose {', '.join(EFFORTS)}")
    if gop is not None and not 1 <= gop <= MAX_GOP:
        raise EncodeError(f"gop {gop} lies outside 1 .. {MAX_GOP}")
    if width is not None and width not in WIDTHS:
        raise EncodeError(f"width {width}; choose {', '.join(map(str, WIDTHS))}")


@dataclass(frozen=True)
class HybridEncoder:
    """A ``nvcodec.encoder.representation.SegmentEncoder``. ``gops``: lengths to choose among, the usual one first.
    ``width``: channels of the network."""

    effort: Effort
    gops: Sequence[int]
    width: int

    @staticmethod
    def chosen(effort: str, gop: int | None, width: int | None, bits: float) -> HybridEncoder:
        """By what the user chose; None leaves a choice to the encoder. ``bits``: about those of the file."""
        found = EFFORTS[effort]
        return HybridEncoder(found, (gop,) if gop else GOPS, width or _choose_width(bits))

    def smallest_payload(self, frames: int, geometry: FrameGeometry) -> int:
        return smallest_payload(frames, geometry, self.gops[0], self.width)

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
        source = SegmentSource(samples, geometry, self.gops[0])
        if kept is None or "work" not in kept:
            gop, predicts = self._best_gop(source, target, on_unit, kept, keep)
            work = None
            torch.manual_seed(seed)
        else:
            gop, predicts, work = kept["gop"], kept["predicts"], kept.pop("work")
        return encode_segment(
            replace(source, gop=gop, predicts=predicts), self.width, target, self.effort, on_unit, kept=work,
            keep=lambda state: keep(lambda: {"gop": gop, "predicts": predicts, "work": state()}),
        )  # fmt: skip

    def _best_gop(
        self,
        source: SegmentSource,
        target: Target,
        on_unit: Callable[[StageReport], None],
        kept: dict[str, Any] | None,
        keep: Keep,
    ) -> tuple[int, bool]:
        def measure(sample: SegmentSource, lmbda: float) -> Sequence[UnitReport]:
            return trial_pass(sample, self.width, lmbda)

        trials = GopTrials(source, self.gops, target, measure, kept)

        def tried(gop: int, predicts: bool) -> None:
            keep(trials.state)
            on_unit(trial_report(gop, predicts))

        return trials.best(tried)


def _choose_width(bits: float) -> int:
    """Wider networks where there are bits, and therefore samples, for them."""
    for width, enough in ((288, 4e9), (160, 4e8), (96, 1e8), (48, 2e7), (24, 3e4)):
        if bits >= enough:
            return width
    return WIDTHS[0]
