"""Which GOP length suits a segment of a recurrent network, and whether its motion is to be predicted: its first frames
are fitted with each choice, by the network as it starts. One pass costs a small part of an encode, and tells much more
than the look ahead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn

from nvcodec.encoder.distortion import psnr_611
from nvcodec.encoder.gop_foresight import at_equal_size, different_gops
from nvcodec.encoder.segment_analysis import USUAL_IMPORTANCE, SegmentSource
from nvcodec.exact.operation import Sizes
from nvcodec.exact.tracing import place
from nvcodec.grid.contexts import appearance_context
from nvcodec.implicit.encoder.recurrent_fit import PassEffort, RecurrentFit, TwinSynthesis
from nvcodec.implicit.unit import motion_weights

__all__ = ["TRIAL_FRAMES", "GopTrials"]

TRIAL_FRAMES = 17
"""At most, the first ones."""


class GopTrials:
    """``gops``: lengths to choose among, the usual one first; ``made``: the network as it starts, from the sizes;
    ``lmbda``: about that of the encode. ``scores``: of what was tried so far, dB at equal size: first of all lengths,
    then of the best two of them, where that makes a difference, without prediction of motion."""

    def __init__(
        self,
        source: SegmentSource,
        gops: Sequence[int],
        made: Callable[[Sizes], nn.Module],
        lmbda: float,
        scores: Sequence[float] = (),
    ) -> None:
        self.gops = different_gops(gops, len(source.samples))
        self._sample = replace(source, samples=source.samples[:TRIAL_FRAMES])
        self._made, self._highest_lmbda = made, lmbda * USUAL_IMPORTANCE
        self.scores = list(scores)

    def best(self, on_trial: Callable[[int, bool], None] = lambda gop, predicts: None) -> tuple[int, bool]:
        """The length, and whether motion is predicted. Tries what is still to be tried; where there is but one choice,
        it is taken as it is. ``on_trial``: told of each once it is through."""
        choices = [(gop, True) for gop in self.gops]
        if len(choices) == 1 and not self._unpredicted(choices):
            return choices[0]
        self._try(choices, on_trial)
        ranks = sorted(range(len(choices)), key=lambda n: -self.scores[n])
        choices += self._unpredicted([choices[n] for n in ranks[:2]])
        self._try(choices, on_trial)
        return choices[max(range(len(choices)), key=self.scores.__getitem__)]

    def _try(self, choices: Sequence[tuple[int, bool]], on_trial: Callable[[int, bool], None]) -> None:
        for choice in choices[len(self.scores) :]:
            self.scores.append(self._score(*choice))
            on_trial(*choice)

    def _unpredicted(self, choices: Sequence[tuple[int, bool]]) -> list[tuple[int, bool]]:
        """Where frames lie between two references: others begin at rest in any case."""
        return [(gop, False) for gop, _ in choices if gop > 1 and len(self._sample.samples) > 2]

    def _score(self, gop: int, predicts: bool) -> float:
        sizes = Sizes(self._sample.geometry.half, self._sample.geometry.blocks, len(self._sample.samples))
        module = self._made(sizes).to(self._sample.samples.device)
        place(module, sizes)
        fit = RecurrentFit(replace(self._sample, gop=gop, predicts=predicts), appearance_context())
        fit.look_ahead(motion_weights(), self._highest_lmbda, lambda report: None)
        fit.filter_sources(self._highest_lmbda)
        fit.weigh(self._highest_lmbda)
        fit.start_pass()
        fit.continue_pass(TwinSynthesis(module), self._highest_lmbda, PassEffort())
        reports = [report for report in fit.reports if report]
        psnr = float(torch.cat([psnr_611(report.errors) for report in reports]).mean())
        return at_equal_size(sum(report.bits for report in reports), psnr)
