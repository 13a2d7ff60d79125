"""CWRNN as the pipeline uses it: from what the user chose to an encoder of segments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from nvcodec.bitstream.container import program_bytes
from nvcodec.core.errors import EncodeError
from nvcodec.core.gop import MAX_GOP
from nvcodec.core.limits import MAX_PROGRAMS
from nvcodec.encoder.gop_trials import GopTrials, trial_report
from nvcodec.encoder.rate_control import Target
from nvcodec.encoder.representation import CodedSegment, Keep, StageReport
from nvcodec.encoder.segment_analysis import SegmentSource, UnitReport
from nvcodec.exact.operation import Sizes
from nvcodec.exact.tracing import place
from nvcodec.implicit.encoder.recurrent_fit import trial_pass
from nvcodec.implicit.encoder.recurrent_stages import (
    ACTIVATION_BITS,
    EFFORTS,
    RecurrentEffort,
    RecurrentTask,
    encode_recurrent,
)
from nvcodec.implicit.encoder.start import Start, load_start, starting_point
from nvcodec.implicit.models.cwrnn import CWRNN, Widths
from nvcodec.motion.levels import FrameGeometry

__all__ = ["CWRNN_MODEL", "RecurrentEncoder", "check_choices"]

CWRNN_MODEL = "cwrnn"
GOPS = (4, 2, 8, 1)
"""Lengths to choose among, the usual one first."""
DEFAULT_PARAMETERS = 15.5e3


def check_choices(effort: str, gop: int | None, params: float | None, epochs: int | None) -> None:
    """Raises EncodeError for values outside their range."""
    if effort not in EFFORTS:
        raise EncodeError(f"unknown effort {effort!r}; choose {', '.join(EFFORTS)}")
    if gop is not None and not 1 <= gop <= MAX_GOP:
        raise EncodeError(f"gop {gop} lies outside 1 .. {MAX_GOP}")
    if params is not None and not 3e3 <= params <= 3e6:
        raise EncodeError(f"params {params:g} lies outside 3000 .. 3000000")
    if epochs is not None and not 1 <= epochs <= 100_000:
        raise EncodeError(f"epochs {epochs} lies outside 1 .. 100000")


@dataclass(frozen=True)
class RecurrentEncoder:
    """A ``nvcodec.encoder.representation.SegmentEncoder``. ``gops``: lengths to choose among, the usual one first.
    ``programs``: those of the file so far, as coded."""

    effort: RecurrentEffort
    gops: Sequence[int]
    widths: Widths
    programs: list[bytes]

    @staticmethod
    def chosen(
        effort: str, gop: int | None, params: float | None, epochs: int | None, programs: list[bytes]
    ) -> RecurrentEncoder:
        """By what the user chose; None leaves a choice to the encoder."""
        settings = EFFORTS[effort]
        if epochs is not None:
            settings = replace(settings, epochs=epochs)
        return RecurrentEncoder(settings, (gop,) if gop else GOPS, Widths.of(params or DEFAULT_PARAMETERS), programs)

    def smallest_payload(self, frames: int, geometry: FrameGeometry) -> int:
        """Of frames that are as they are predicted: a flag a level."""
        return 16 + 2 * frames

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
        def overhead(program: bytes) -> int:
            return 0 if program in self.programs else program_bytes([program])

        known = list(self.programs)  # what is kept under way holds the programs of finished segments alone

        def index(program: bytes) -> int:
            if program not in known:
                if len(known) == MAX_PROGRAMS:
                    raise EncodeError(
                        f"more than {MAX_PROGRAMS} segments with a network that has no shipped start: make them "
                        "longer, or leave params away"
                    )
                known.append(program)
            return known.index(program)

        source = SegmentSource(samples, geometry, self.gops[0])
        if kept is None or "gop" not in kept:
            gop, predicts = self._best_gop(source, target, seed, on_unit, kept, keep)
            kept = None
        else:
            gop, predicts, kept = kept["gop"], kept["predicts"], kept["work"]
        source = replace(source, gop=gop, predicts=predicts)
        task = RecurrentTask(source, self._build, self._load, target, self.effort, seed, index, overhead)
        coded = encode_recurrent(
            task,
            on_unit,
            kept=kept,
            keep=lambda state: keep(lambda: {"gop": gop, "predicts": predicts, "work": state()}),
        )
        self.programs[:] = known
        return coded

    def _best_gop(
        self,
        source: SegmentSource,
        target: Target,
        seed: int,
        on_unit: Callable[[StageReport], None],
        kept: dict[str, Any] | None,
        keep: Keep,
    ) -> tuple[int, bool]:
        def started(sizes: Sizes) -> nn.Module:
            torch.manual_seed(seed)
            module = self._build(sizes)
            place(module, sizes)
            self._load(module, sizes)
            return module

        def measure(sample: SegmentSource, lmbda: float) -> Sequence[UnitReport]:
            return trial_pass(sample, started, lmbda)

        trials = GopTrials(source, self.gops, target, measure, kept)

        def tried(gop: int, predicts: bool) -> None:
            keep(trials.state)
            on_unit(trial_report(gop, predicts))

        return trials.best(tried)

    def _build(self, sizes: Sizes) -> nn.Module:
        return CWRNN(sizes, widths=self.widths)

    def _load(self, module: nn.Module, sizes: Sizes) -> Start | None:
        found = starting_point(f"cwrnn{self.widths.half}")
        return load_start(module, sizes, ACTIVATION_BITS, *found) if found else None
