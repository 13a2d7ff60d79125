"""Fit the blocks of a coding unit by rate-distortion search, and with them the cell that mends what they leave.

The search decides on integers, by the exact error of what they come to and by the bits of the contexts as they stand.
Then the cell takes Adam steps on the rebuilt frames of the unit: no rounding is simulated, what is optimised is what is
coded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from nvcodec.core.gop import CodingUnit
from nvcodec.core.parallel import run_all
from nvcodec.core.quantiser import GAIN_STEPS, GAIN_STEPS_PER_OCTAVE, LEAST_GAIN, quantiser_steps
from nvcodec.encoder.distortion import sample_weights
from nvcodec.encoder.rate import level_costs
from nvcodec.encoder.working_domain import SAMPLE_STEP
from nvcodec.entropy.tables import bits_of_bins
from nvcodec.hybrid.blocks.layout import BlockLayout, BlockSymbols, decoding_order
from nvcodec.hybrid.blocks.picture import BinModels, noted_bins
from nvcodec.hybrid.encoder.twin import Twin
from nvcodec.hybrid.network import CELL_REACH, cell_kind
from nvcodec.motion.compensation import Compensated
from nvcodec.motion.levels import FrameGeometry
from nvcodec.motion.side import MotionSide
from nvcodec.motion.warp import SAMPLE_MAX

__all__ = ["FitSettings", "UnitFit", "context_sensitivity"]

_LAMBDA_OF_STEP = 0.13
"""Lambda over the squared quantiser step that goes best with it."""
_STEP_INERTIA = 2
"""A root keeps the quantiser step of the one before it unless it is off by more indices than this."""
_LEARNT_SHARE = 0.25
"""Of a frame, what one step of the cell looks at."""
_LEAST_CROP = 24
"""Rows and columns of the working domain that a step of the cell looks at, at least."""


@dataclass(frozen=True)
class FitSettings:
    """``lmbda``: squared 8-bit error per bit. ``iterations``: of the cell, 0 where it does not learn. ``modes``:
    how many modes of a block of 4, 8, 16 and 32 samples are coded to see what they cost, of those that look best.
    ``splits_empty``: whether a block without levels is tried in parts, too."""

    lmbda: float
    iterations: int
    modes: tuple[int, int, int, int]
    splits_empty: bool


_ROOT_BLOCKS = 4
"""Of 8x8 luma samples, on a side of a root of the quadtree."""


def context_sensitivity(twin: Twin, levels: list[Tensor], side: MotionSide, depth: int) -> dict[str, Tensor]:
    """Bits lost per squared unit of the context model's parameters: the Fisher information of the symbols, by one
    random probe."""
    names = [n for n in twin.values if n.startswith("context.")]
    signs = [torch.randint(0, 2, level.shape) * 2.0 - 1 for level in levels]
    _, slopes = level_costs(levels, side, twin.network().context(), depth, slopes=True, signs=signs)
    assert slopes is not None
    return {
        n: g.reshape(twin.values[n].shape).square() * (0.5 * math.log(2)) for n, g in zip(names, slopes, strict=True)
    }


class UnitFit:
    """The blocks of one unit while they are being fitted."""

    def __init__(
        self,
        unit: CodingUnit,
        geometry: FrameGeometry,
        target: Tensor,
        inputs: Compensated,
        importance: Tensor,
    ) -> None:
        """``target``: (B, 6, h, w), what the frames are made to look like, 10 bits.
        ``importance``: (B, block rows, block columns), weight of the errors of each block."""
        self.unit = unit
        self.target = target
        self.inputs = inputs
        self.layout = BlockLayout(*geometry.half)
        self.importance = importance
        self.weights = sample_weights(importance.to(target.device), geometry.half)
        self.blocks: list[BlockSymbols] = []
        self.rebuilt = inputs.prediction

    def search(self, gain: int, models: BinModels, settings: FitSettings) -> list[float]:
        """Find the blocks; ``models`` follow what they would code. The bits of each frame."""
        found: dict[int, tuple[BlockSymbols, Tensor]] = {}

        def search(b: int) -> None:
            found[b] = self._searched(b, gain, models.at(self.unit.depth).copy(), settings)

        run_all([partial(search, b) for b in range(len(self.target))])
        self.blocks = [found[b][0] for b in range(len(found))]
        self.rebuilt = torch.stack([found[b][1] for b in range(len(found))]).to(self.target.device)
        model, refers = models.at(self.unit.depth), self.unit.reference_count > 0
        return [bits_of_bins(noted_bins(model, symbols, refers)) for symbols in self.blocks]

    def learn(self, twin: Twin, settings: FitSettings) -> None:
        """The steps of the cell behind ``twin`` on what the search left."""
        kind = cell_kind(self.unit.depth)
        for _ in range(settings.iterations):
            gradients = torch.autograd.grad(self._crop_error(twin), twin.synthesis[kind])
            twin.step_synthesis(kind, gradients, settings.lmbda)

    def _searched(self, b: int, gain: int, model: np.ndarray, settings: FitSettings) -> tuple[BlockSymbols, Tensor]:
        """The symbols of one frame, and what they come to, (6, h, w)."""
        from nvcodec.hybrid.blocks.bins_cpu import new_coder
        from nvcodec.hybrid.encoder import block_kernels as kernels  # brings a compiler: only where frames are encoded

        layout = self.layout
        source = layout.unpacked(self.target[b].cpu().numpy())
        foreseen = np.zeros((3, 0, 0), np.int32)
        if self.unit.reference_count:
            foreseen = layout.unpacked(self.inputs.prediction[b].cpu().numpy())
        symbols = BlockSymbols.zeros(layout)
        symbols.offsets[:] = _offsets(self.importance[b].numpy(), settings.lmbda, gain)
        planes = np.zeros(layout.planes, np.int32)
        kernels.search_picture(
            source, self._plane_weights(b), planes, symbols.levels, *symbols[:4],
            decoding_order(*symbols.sizes.shape), gain, quantiser_steps(), np.float32(settings.lmbda), new_coder(model),
            foreseen, np.array([*settings.modes, settings.splits_empty]),
        )  # fmt: skip
        return symbols, torch.from_numpy(layout.packed(planes))

    def _plane_weights(self, b: int) -> np.ndarray:
        """float32 (2, rows, columns): of squared errors of 10 bits in luma and chroma; 0 outside of the picture."""
        weights = self.weights[b].cpu().numpy() * (1 / SAMPLE_STEP**2)
        rows, columns = weights.shape[1:]
        out = np.zeros((2, *self.layout.planes[1:]), np.float32)
        out[0, : 2 * rows, : 2 * columns] = weights[0].repeat(2, 0).repeat(2, 1)
        out[1, :rows, :columns] = weights[4]
        return out

    @torch.no_grad()
    def samples(self, twin: Twin) -> Tensor:
        """The reconstruction (B, 6, h, w) as references hold it: integers 0 .. 1023."""
        return torch.floor(self._synthesise(twin) + 0.5).clamp(0, SAMPLE_MAX)

    def cell_gain(self, samples: Tensor, lmbda: float) -> float:
        """The bits that it is worth, at a price of ``lmbda``, that ``samples``, (B, 6, h, w), are nearer to what is
        meant than they were without the cell."""
        without = (self.rebuilt - self.target).square()
        gain = ((without - (samples - self.target).square()) * self.weights).sum() * (1 / SAMPLE_STEP**2)
        return float(gain) / lmbda

    def _crop_error(self, twin: Twin) -> Tensor:
        """The weighted squared error of a part of the frames at a random place."""
        spans = []
        for length in self.target.shape[2:]:
            part = min(max(round(length * _LEARNT_SHARE**0.5), _LEAST_CROP), length)
            start = int(torch.randint(0, length - part + 1, ()))
            spans.append((start, start + part))
        (top, bottom), (left, right) = spans
        above, before = min(top, CELL_REACH), min(left, CELL_REACH)
        seen = slice(top - above, bottom + CELL_REACH), slice(left - before, right + CELL_REACH)
        samples = self._synthesise(twin, *seen)[..., above : above + bottom - top, before : before + right - left]
        meant, weights = self.target[..., top:bottom, left:right], self.weights[..., top:bottom, left:right]
        return ((samples - meant).square() * weights).sum() * (1 / SAMPLE_STEP**2)

    def _synthesise(self, twin: Twin, rows: slice = slice(None), columns: slice = slice(None)) -> Tensor:
        """What the cell makes of a part of the frames, or of all."""
        prediction, difference, rebuilt = (
            x[..., rows, columns] for x in (self.inputs.prediction, self.inputs.difference, self.rebuilt)
        )
        return twin.network().cell(
            rebuilt - prediction, prediction, difference, self.unit.depth, twin.rounding, twin.dtype
        )

    def sensitivity(self, twin: Twin, lmbda: float) -> dict[str, Tensor]:
        """Bits lost per squared unit of each parameter of the cell, one random probe (Hutchinson's estimator)."""
        samples = self._synthesise(twin)
        signs = torch.randint(0, 2, samples.shape, device=samples.device) * 2.0 - 1
        probe = (samples * signs * self.weights.sqrt()).sum() * (1 / SAMPLE_STEP)
        leaves = {n: twin.values[n] for n in twin.synthesis_names(cell_kind(self.unit.depth))}
        found = dict(zip(leaves, torch.autograd.grad(probe, list(leaves.values())), strict=True))
        return {name: g.square() / lmbda for name, g in found.items()}


def _offsets(importance: np.ndarray, lmbda: float, gain: int) -> np.ndarray:
    """(root rows, root columns): by how many indices each root's quantiser step should lie above that of the frame.

    ``importance``: of 8x8 blocks. A root's step follows from its lambda, that of the frame over its mean importance.
    """
    rows, columns = importance.shape
    padded = np.pad(importance, [(0, -rows % _ROOT_BLOCKS), (0, -columns % _ROOT_BLOCKS)], mode="edge")
    roots = padded.reshape(-1, _ROOT_BLOCKS, padded.shape[1] // _ROOT_BLOCKS, _ROOT_BLOCKS)
    mean = np.log2(roots).mean((1, 3))
    by_lambda = 0.5 * GAIN_STEPS_PER_OCTAVE * (math.log2(lmbda / _LAMBDA_OF_STEP) - mean)
    wanted = by_lambda - GAIN_STEPS_PER_OCTAVE * math.log2(LEAST_GAIN / SAMPLE_STEP) - gain
    out, before = np.zeros(mean.shape, np.int32), 0
    for place in np.ndindex(*mean.shape):
        if abs(wanted[place] - before) > _STEP_INERTIA:
            before = round(float(wanted[place]))
        out[place] = before = min(max(before, -gain), GAIN_STEPS - 1 - gain)
    return out
