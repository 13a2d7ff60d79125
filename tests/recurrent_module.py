"""A recurrent network as users bring them: latents of its own, states at two scales, corrections of the motion."""

from __future__ import annotations

from typing import Any

from torch import nn

from nvcodec import exact
from nvcodec.exact import FrameInputs, Sizes

__all__ = ["OwnRecurrent"]

STATE, WIDTH = 4, 8


class OwnRecurrent(nn.Module):
    """``parameters`` is not looked at: about 3 thousand weights."""

    def __init__(self, sizes: Sizes, parameters: float = 0) -> None:
        super().__init__()
        (rows, columns), blocks = sizes.half, sizes.blocks
        quarter = (-(-rows // 2), -(-columns // 2))
        self.half_state, self.quarter_state = exact.Store(0, STATE, rows, columns), exact.Store(1, STATE, *quarter)
        self.eighth, self.second = exact.Latent(2, *blocks), exact.Latent(1, rows, columns)
        self.vectors = nn.ModuleList([exact.Vectors(k) for k in range(2)])
        self.final_vectors = nn.ModuleList([exact.Vectors(k, final=True) for k in range(2)])
        self.half_states = nn.ModuleList([exact.State(k, self.half_state) for k in range(2)])
        self.quarter_states = nn.ModuleList([exact.State(k, self.quarter_state) for k in range(2)])
        self.presence = nn.ModuleList([exact.Presence(k) for k in range(2)])
        self.warp_half, self.warp_quarter = exact.Warp(4, 1), exact.Warp(2, 0)
        self.prediction, self.difference = exact.Prediction(), exact.Difference()

        # motion: where the coarsely warped states, and the coarse latents, say that it is off
        self.fit_blocks, self.to_blocks = exact.Fit(2 * blocks[0], 2 * blocks[1]), exact.PixelUnshuffle(2)
        self.see_motion, self.motion_in, self.motion_act = exact.Concat(), exact.Conv2d(8 * STATE + 2, 8), exact.ReLU()
        self.motion_out = exact.Conv2d(8, 4, 3)
        self.take = nn.ModuleList([exact.Conv2d(4, 2), exact.Conv2d(4, 2)])
        self.corrections = nn.ModuleList([exact.Correct(0), exact.Correct(1)])

        # a quarter of the resolution, then half of it
        self.fit_quarter, self.to_quarter = exact.Fit(2 * quarter[0], 2 * quarter[1]), exact.PixelUnshuffle(2)
        self.see_quarter, self.quarter_in = exact.Concat(), exact.Conv2d(24 + 2 * STATE, STATE)
        self.up, self.fit_half = exact.Upsample(2), exact.Fit(rows, columns)
        self.see_half, self.half_in = exact.Concat(), exact.Conv2d(12 + 3 * STATE + 1, WIDTH, 3)
        self.there, self.is_there, self.add_presence = exact.Concat(), exact.Conv2d(2, WIDTH), exact.Add()
        self.act, self.to_state = exact.LeakyReLU(), exact.Conv2d(WIDTH, STATE)
        self.to_samples = exact.Conv2d(WIDTH, 6, 3)
        self.add_prediction, self.samples = exact.Add(), exact.Samples()
        for layer in (self.motion_out, self.to_samples):  # at first nothing is added
            layer.weight.data.mul_(0.05)
            layer.bias.data.zero_()

    def forward(self, frame: FrameInputs) -> dict[str, Any]:
        rough = [self.warp_quarter(self.quarter_states[k](frame), self.vectors[k](frame)) for k in range(2)]
        seen = [self.to_blocks(self.fit_blocks(x)) for x in rough]
        offsets = self.motion_out(self.motion_act(self.motion_in(self.see_motion(*seen, self.eighth(frame)))))
        prediction, difference = self.prediction(frame), self.difference(frame)

        small = self.to_quarter(self.fit_quarter(prediction))
        warped = [self.warp_quarter(self.quarter_states[k](frame), self.final_vectors[k](frame)) for k in range(2)]
        quarter = self.quarter_in(self.see_quarter(small, *warped))
        warped = [self.warp_half(self.half_states[k](frame), self.final_vectors[k](frame)) for k in range(2)]
        finer = self.fit_half(self.up(quarter))
        half = self.half_in(self.see_half(prediction, difference, *warped, finer, self.second(frame)))
        there = self.is_there(self.there(*(given(frame) for given in self.presence)))
        half = self.act(self.add_presence(half, there))
        return {
            "samples": self.samples(self.add_prediction(prediction, self.to_samples(half))),
            "states": (self.half_state(self.to_state(half)), self.quarter_state(quarter)),
            "corrections": tuple(
                correct(take(offsets)) for correct, take in zip(self.corrections, self.take, strict=True)
            ),
        }
