"""A first CWRNN: two references, states at two scales, a learned grid, one network for key and inter frames.

::

    latents  stride 16, 8, 4      states of the references at a quarter, warped
         |            |                 |
         |            +---> quarter resolution: convolutions --> state at a quarter
         |            |                 |        \\--> corrections of motion (from states warped by parsed motion)
         |            |                 v
    latent stride 2 --+---> half resolution: prediction, difference, states warped --> samples, state at a half

It is the skeleton of the model that this project is named for: its inputs and outputs are there, and its sizes are
small. Nothing in it was trained before it meets a video.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nvcodec.exact.arrangement import Concat, Fit, PixelUnshuffle, Upsample
from nvcodec.exact.convolution import Conv2d
from nvcodec.exact.latents import Latent
from nvcodec.exact.operation import FrameInputs, Sizes
from nvcodec.exact.outputs import Correct, Samples, Store
from nvcodec.exact.pointwise import Add, LeakyReLU
from nvcodec.exact.references import Difference, Prediction, Presence, State, Vectors
from nvcodec.exact.warping import Warp

__all__ = ["CWRNN"]

QUARTER_STATE, HALF_STATE = 8, 8
COARSE_WIDTH, FINE_WIDTH = 12, 12


class CWRNN(nn.Module):
    """``parameters`` is not looked at yet: about 8 thousand weights."""

    def __init__(self, sizes: Sizes, parameters: float = 0) -> None:
        super().__init__()
        rows, columns = sizes.half
        quarter, blocks = (-(-rows // 2), -(-columns // 2)), sizes.blocks
        self.half_state = Store(0, HALF_STATE, rows, columns)
        self.quarter_state = Store(1, QUARTER_STATE, *quarter)
        self.sixteenth = Latent(2, -(-blocks[0] // 2), -(-blocks[1] // 2))
        self.eighth = Latent(2, *blocks)
        self.fourth = Latent(1, *quarter)
        self.second = Latent(1, rows, columns)
        self.vectors, self.final_vectors = _pair(lambda k: Vectors(k)), _pair(lambda k: Vectors(k, final=True))
        self.half_states = _pair(lambda k: State(k, self.half_state))
        self.quarter_states = _pair(lambda k: State(k, self.quarter_state))
        self.presence = _pair(Presence)
        self.warp_half, self.warp_quarter = Warp(4, 1), Warp(2, 0)
        self.prediction, self.difference = Prediction(), Difference()

        # motion: where the coarsely warped states, and the coarse latents, say that it is off
        self.coarse_up = Upsample(2)
        self.fit_blocks, self.fit_quarter, self.fit_half = Fit(*blocks), Fit(*quarter), Fit(rows, columns)
        self.to_blocks_fit = Fit(2 * blocks[0], 2 * blocks[1])
        self.to_blocks = PixelUnshuffle(2)
        self.see_motion, self.motion_act = Concat(), LeakyReLU()
        self.motion_in = Conv2d(2 * 4 * QUARTER_STATE + 4, 12, 1)
        self.motion_out = Conv2d(12, 4, 3)
        self.first_correction, self.second_correction = Correct(0), Correct(1)
        self.take_first, self.take_second = Conv2d(4, 2, 1), Conv2d(4, 2, 1)

        # a quarter of the resolution
        self.up_eighth, self.up_sixteenth = Upsample(2), Upsample(2)
        self.to_quarter_fit, self.to_quarter = Fit(2 * quarter[0], 2 * quarter[1]), PixelUnshuffle(2)
        self.see_quarter = Concat()
        self.shrink = Conv2d(24, 8, 1)
        self.quarter_in = Conv2d(8 + 2 * QUARTER_STATE + 5, COARSE_WIDTH, 3)
        self.quarter_out = Conv2d(COARSE_WIDTH, QUARTER_STATE, 3)
        self.quarter_act = LeakyReLU()

        # half of it
        self.up_quarter = Upsample(2)
        self.see_half = Concat()
        self.half_in = Conv2d(12 + 2 * HALF_STATE + QUARTER_STATE + 1, FINE_WIDTH, 3)
        self.half_mid = Conv2d(FINE_WIDTH, FINE_WIDTH, 3)
        self.half_act, self.mid_act = LeakyReLU(), LeakyReLU()
        self.is_there, self.there = Conv2d(2, FINE_WIDTH, 1), Concat()
        self.add_presence = Add()
        self.to_state, self.to_samples = Conv2d(FINE_WIDTH, HALF_STATE, 1), Conv2d(FINE_WIDTH, 6, 3)
        self.add_prediction, self.samples = Add(), Samples()
        for layer in (self.motion_out, self.to_samples):  # at first nothing is added
            with torch.no_grad():
                layer.weight.mul_(0.05)
                layer.bias.zero_()

    def forward(self, frame: FrameInputs) -> dict[str, Tensor]:
        latent8, latent16 = self.eighth(frame), self.sixteenth(frame)
        coarse8 = self.fit_blocks(self.coarse_up(latent16))

        seen = []
        for k in range(2):
            rough = self.warp_quarter(self.quarter_states[k](frame), self.vectors[k](frame))
            seen.append(self.to_blocks(self.to_blocks_fit(rough)))
        motion = self.motion_act(self.motion_in(self.see_motion(*seen, latent8, coarse8)))
        offsets = self.motion_out(motion)
        corrections = (
            self.first_correction(self.take_first(offsets)),
            self.second_correction(self.take_second(offsets)),
        )

        prediction, difference = self.prediction(frame), self.difference(frame)
        small = self.shrink(self.to_quarter(self.to_quarter_fit(prediction)))
        warped = [self.warp_quarter(self.quarter_states[k](frame), self.final_vectors[k](frame)) for k in range(2)]
        up8 = self.fit_quarter(self.up_eighth(latent8))
        up16 = self.fit_quarter(self.up_sixteenth(coarse8))
        quarter = self.see_quarter(small, *warped, self.fourth(frame), up8, up16)
        quarter = self.quarter_out(self.quarter_act(self.quarter_in(quarter)))

        finer = self.fit_half(self.up_quarter(quarter))
        warped = [self.warp_half(self.half_states[k](frame), self.final_vectors[k](frame)) for k in range(2)]
        half = self.half_in(self.see_half(prediction, difference, *warped, finer, self.second(frame)))
        there = self.is_there(self.there(self.presence[0](frame), self.presence[1](frame)))
        half = self.mid_act(self.half_mid(self.half_act(self.add_presence(half, there))))
        return {
            "samples": self.samples(self.add_prediction(prediction, self.to_samples(half))),
            "states": (self.half_state(self.to_state(half)), self.quarter_state(quarter)),
            "corrections": corrections,
        }


def _pair(make) -> nn.ModuleList:  # type: ignore[no-untyped-def]
    """One for each reference."""
    return nn.ModuleList([make(0), make(1)])
