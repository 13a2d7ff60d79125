"""CWRNN-INVR: a coupled WarpRNN over the coding order, with a mixed residual grid (after arXiv 2604.06564).

::

     states of up to two references                    mixed residual grid of the frame
     picture    half    quarter    motion              motion levels      appearance levels
        |         |        |          |                      |              |  (2, 4, 8, 16, 32)
        |         |        |          +--- prediction, merging --> vectors  |
        |         |        |                                   |            |
        |         |   warped coarsely by the vectors --> MotionHalf <-------+ at stride 8
        |         |        |                                   |            |
        |         |        |                            refined vectors     |
        v         v        v        warped by these            |            |
     prediction, difference, states at two scales <------------+            |
        |         |        |                                                |
        |         |        +--> quarter resolution <------------------------+ at stride 4
        +---------+----------->  half resolution   <------------------------+
                                     |        \\--> states of this frame
                                samples

The motion state (the vectors, and what they are predicted from) and the appearance state (features at half and at a
quarter of the resolution) are recurrent over the coding order and coupled both ways: features are warped by the motion,
and the motion is refined where the warped features say so. One program and one set of weights serve key frames, where
nothing is warped, and all others. The motion half's prediction, merging and coding are those of ``nvcodec.motion``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nvcodec.exact.arrangement import Concat, Fit, PixelUnshuffle, Slice, Upsample
from nvcodec.exact.convolution import Conv2d
from nvcodec.exact.operation import FrameInputs, Sizes
from nvcodec.exact.outputs import Correct, Samples, Store
from nvcodec.exact.pointwise import Add, LeakyReLU, Multiply, Scale, Sigmoid, Tanh
from nvcodec.exact.references import (
    Depth,
    Difference,
    Prediction,
    Presence,
    Quantiser,
    Residual,
    State,
    Vectors,
)
from nvcodec.exact.warping import Warp

__all__ = ["CWRNN", "Widths"]

_LOUDER = 3
"""Residual and difference are small beside samples: they are read times ``2**_LOUDER``."""


@dataclass(frozen=True)
class Widths:
    """Channels: of the layers and of the state at half the resolution, and at a quarter of it."""

    half: int = 16
    half_state: int = 8
    quarter: int = 16
    quarter_state: int = 4

    @staticmethod
    def of(parameters: float) -> Widths:
        """The widest with at most so many weights; the narrowest there is where all have more."""
        found = Widths(6, 2, 4, 1)
        for half in range(7, 1024):
            wider = Widths(half, half // 2, half, half // 4)
            if wider.weights > parameters:
                break
            found = wider
        return found

    @property
    def weights(self) -> int:
        """How many numbers a network has."""
        with torch.device("meta"):
            module = CWRNN(Sizes((4, 4), (1, 1), 1), widths=self)
        return sum(p.numel() for p in module.parameters())


class Conditions(nn.Module):
    """(B, 4, 1, 1): which references there are, the depth of the frame in the hierarchy, its quantiser index."""

    def __init__(self) -> None:
        super().__init__()
        self.presence = nn.ModuleList([Presence(0), Presence(1)])
        self.depth, self.depth_scale = Depth(), Scale(-3)
        self.quantiser, self.quantiser_scale = Quantiser(), Scale(-6)
        self.join = Concat()

    def forward(self, frame: FrameInputs) -> Tensor:
        made: Tensor = self.join(
            self.presence[0](frame),
            self.presence[1](frame),
            self.depth_scale(self.depth(frame)),
            self.quantiser_scale(self.quantiser(frame)),
        )
        return made


class MotionHalf(nn.Module):
    """Refines the motion towards both references, before anything is warped finely.

    It sees the quarter states warped by the parsed vectors, these vectors, and the grid at a stride of 8. It runs
    behind the parsing of the frame's symbols.
    """

    def __init__(self, sizes: Sizes, widths: Widths, quarter_state: Store) -> None:
        super().__init__()
        blocks = sizes.blocks
        self.states = nn.ModuleList([State(k, quarter_state) for k in range(2)])
        self.vectors = nn.ModuleList([Vectors(k) for k in range(2)])
        self.warp = Warp(2, 0)
        self.fit_cells, self.to_blocks = Fit(2 * blocks[0], 2 * blocks[1]), PixelUnshuffle(2)
        self.coarse, self.coarse_scale, self.fit_coarse = Residual(2), Scale(_LOUDER), Fit(*blocks)
        self.vectors_scale = Scale(-5)
        self.see, self.enter, self.act = Concat(), Conv2d(8 * widths.quarter_state + 7, widths.quarter), LeakyReLU()
        self.leave, self.away = Conv2d(widths.quarter, 4, 3), Scale(2)
        self.first, self.second = Slice(0, 2), Slice(2, 2)
        self.corrections = nn.ModuleList([Correct(0), Correct(1)])
        with torch.no_grad():  # at first motion is as it was parsed
            self.leave.weight.mul_(0.01)
            self.leave.bias.zero_()

    def forward(self, frame: FrameInputs) -> tuple[Tensor, Tensor]:
        vectors = [given(frame) for given in self.vectors]
        warped = [
            self.to_blocks(self.fit_cells(self.warp(state(frame), v)))
            for state, v in zip(self.states, vectors, strict=True)
        ]
        coarse = self.coarse_scale(self.fit_coarse(self.coarse(frame)))
        seen = self.see(*warped, *(self.vectors_scale(v) for v in vectors), coarse)
        offsets = self.away(self.leave(self.act(self.enter(seen))))
        return self.corrections[0](self.first(offsets)), self.corrections[1](self.second(offsets))


class CWRNN(nn.Module):
    """``parameters``: about how many weights; ``widths``: in the place of that. ``gated``: whether the warped half
    states are multiplied by what the residual says (context modulation)."""

    def __init__(
        self, sizes: Sizes, parameters: float = 0, *, widths: Widths | None = None, gated: bool = False
    ) -> None:
        super().__init__()
        self.widths = w = widths or (Widths.of(parameters) if parameters else Widths())
        half = sizes.half
        quarter = (-(-half[0] // 2), -(-half[1] // 2))
        self.half_state = Store(0, w.half_state, *half)
        self.quarter_state = Store(1, w.quarter_state, *quarter)
        self.motion = MotionHalf(sizes, w, self.quarter_state)
        self.conditions = Conditions()

        # what is warped by the refined motion: states at two scales
        self.vectors = nn.ModuleList([Vectors(k, final=True) for k in range(2)])
        self.dense_vectors, self.fit_vectors = Upsample(4, bilinear=False), Fit(*half)
        self.half_states = nn.ModuleList([State(k, self.half_state) for k in range(2)])
        self.quarter_states = nn.ModuleList([State(k, self.quarter_state) for k in range(2)])
        self.warp_half, self.warp_quarter = Warp(1, 1), Warp(2, 0)

        # a quarter of the resolution
        self.prediction, self.difference, self.difference_scale = Prediction(), Difference(), Scale(_LOUDER)
        self.fit_cells, self.cells = Fit(2 * quarter[0], 2 * quarter[1]), PixelUnshuffle(2)
        self.shrink = Conv2d(24, 6)
        self.residual_quarter, self.quarter_scale = Residual(1), Scale(_LOUDER)
        self.see_quarter, self.enter_quarter = Concat(), Conv2d(9 + 2 * w.quarter_state, w.quarter)
        self.mix_quarter, self.leave_quarter = Conv2d(w.quarter, w.quarter, 3), Conv2d(w.quarter, w.quarter, 3)
        self.act_quarter = LeakyReLU()
        self.keep_quarter, self.squash_quarter = Slice(0, w.quarter_state), Tanh()

        # half of it
        self.up, self.fit_up = Upsample(2), Fit(*half)
        self.residual, self.residual_scale = Residual(0), Scale(_LOUDER)
        self.see_samples, self.enter_samples = Concat(), Conv2d(18, w.half, 3)
        self.see_states, self.enter_states = Concat(), Conv2d(2 * w.half_state + w.quarter, w.half)
        self.join_half = Add()
        self.gated = gated
        if gated:
            self.state_gate, self.open_state, self.let_through = Conv2d(6, w.half_state, 3), Sigmoid(), Multiply()
        self.bias, self.add_bias, self.gate, self.open = Conv2d(4, w.half), Add(), Conv2d(4, w.half), Multiply()
        self.first_half, self.second_half = Conv2d(w.half, w.half, 3), Conv2d(w.half, w.half, 3)
        self.act_half = LeakyReLU()
        self.keep_half, self.squash_half = Conv2d(w.half, w.half_state), Tanh()
        self.correct = Conv2d(w.half, 6, 3)
        self.add_residual, self.add_correction, self.samples = Add(), Add(), Samples()
        with torch.no_grad():
            self.gate.weight.mul_(0.1)
            self.gate.bias.fill_(1.0)
            self.correct.weight.mul_(0.05)
            self.correct.bias.zero_()

    def forward(self, frame: FrameInputs) -> dict[str, object]:
        corrections = self.motion(frame)
        conditions = self.conditions(frame)
        vectors = [given(frame) for given in self.vectors]
        dense = [self.fit_vectors(self.dense_vectors(v)) for v in vectors]
        coarse = [self.warp_quarter(state(frame), v) for state, v in zip(self.quarter_states, vectors, strict=True)]
        fine = [self.warp_half(state(frame), v) for state, v in zip(self.half_states, dense, strict=True)]
        prediction, residual = self.prediction(frame), self.residual(frame)
        difference = self.difference_scale(self.difference(frame))

        small = self.shrink(self.cells(self.fit_cells(prediction)))
        quarter = self.see_quarter(small, self.quarter_scale(self.residual_quarter(frame)), *coarse)
        quarter = self.mix_quarter(self.act_quarter(self.enter_quarter(quarter)))
        quarter = self.leave_quarter(self.act_quarter(quarter))

        samples = self.enter_samples(self.see_samples(self.residual_scale(residual), prediction, difference))
        if self.gated:
            gate = self.open_state(self.state_gate(self.residual_scale(residual)))
            fine = [self.let_through(state, gate) for state in fine]
        states = self.enter_states(self.see_states(*fine, self.fit_up(self.up(quarter))))
        half = self.act_half(self.add_bias(self.join_half(samples, states), self.bias(conditions)))
        half = self.act_half(self.first_half(half))
        half = self.act_half(self.second_half(half))
        open_ = self.open(half, self.gate(conditions))
        rough = self.add_residual(prediction, residual)
        return {
            "samples": self.samples(self.add_correction(rough, self.correct(open_))),
            "states": (
                self.half_state(self.squash_half(self.keep_half(half))),
                self.quarter_state(self.squash_quarter(self.keep_quarter(quarter))),
            ),
            "corrections": corrections,
        }
