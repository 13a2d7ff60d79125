"""The wavelet transform that the grid undoes, and how large the picture of each symbol is.

The analysis filters are those of Cohen, Daubechies and Feauveau 1992, 9 and 7 taps long, in the orthonormal scaling
of the synthesis (``nvcodec.grid.wavelet``). At the ends of a line both mirror it, so that synthesis undoes analysis
there too, but for what the integers of its taps are off. Towards a border symbols are no longer of equal weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nvcodec.core.quantiser import CHROMA_GAIN_STEPS, GAIN_STEPS, GAIN_STEPS_PER_OCTAVE, LEAST_GAIN
from nvcodec.grid.levels import APPEARANCE_GAINS, APPEARANCE_LEVELS, BANDS
from nvcodec.grid.wavelet import BAND_BOUND, grid_filters
from nvcodec.grid.wavelet_cpu import source_place
from nvcodec.motion.levels import SYMBOL_BOUND

__all__ = ["Reach", "amplitudes", "image_energies", "line_energies", "symbol_energies"]

_LOW = (0.037828455507, -0.023849465019, -0.110624404418, 0.377402855613, 0.852698679009)
_HIGH = (0.064538882629, -0.040689417609, -0.418092273222, 0.788485616406)
"""From the outermost tap to the one in the middle."""
_REACH = 4
_LITTLE = 0.1
"""Of the noise of a quantiser: what symbols may lose because they cannot be larger."""


@lru_cache(maxsize=64)
def _places(length: int, device: torch.device) -> Tensor:
    """The samples at -4 .. length + 5 of a line that is mirrored at both ends."""
    last = max(length - 1, 1)
    distance = torch.arange(-_REACH, length + _REACH + 2, device=device).remainder(2 * last)
    return torch.minimum(distance, 2 * last - distance).clamp(max=length - 1)


def _split(planes: Tensor) -> tuple[Tensor, Tensor]:
    """(N, rows, columns) to low and high samples of its lines, (N, rows, columns / 2 rounded up) each; a high sample
    behind the last one of the line is 0."""
    count, rows, length = planes.shape
    line = planes.index_select(2, _places(length, planes.device)).reshape(-1, 1, length + 2 * _REACH + 2)
    taps = [torch.tensor([*side, *side[-2::-1]], device=planes.device)[None, None] for side in (_LOW, _HIGH)]
    half = (length + 1) // 2
    low = F.conv1d(line, taps[0], stride=2)[..., :half].reshape(count, rows, half)
    high = F.conv1d(line[..., 2:], taps[1], stride=2)[..., :half].reshape(count, rows, half).clone()
    if length % 2:
        high[..., -1] = 0
    return low, high


def _split_planes(planes: Tensor) -> tuple[Tensor, Tensor]:
    """(B, P, rows, columns) to the low samples of both directions (B, P, r, c), and the bands (B, 3 P, r, c)."""
    upper, lower = (half.transpose(1, 2) for half in _split(planes.flatten(0, 1).transpose(1, 2)))
    (low, first), (second, third) = _split(upper), _split(lower)
    bands = torch.stack([first, second, third], dim=1).unflatten(0, planes.shape[:2]).flatten(1, 2)
    return low.unflatten(0, planes.shape[:2]), bands


def amplitudes(residual: Tensor) -> list[Tensor]:
    """The amplitudes of all symbols, finest level first, that expand to ``residual`` (B, 6, h, w)."""
    low, bands = _split_planes(F.pixel_shuffle(residual[:, :4], 2))
    planes, levels = torch.cat([low, residual[:, 4:]], dim=1), [bands]
    for _ in range(1, APPEARANCE_LEVELS):
        planes, bands = _split_planes(planes)
        levels.append(bands)
    levels[-1] = torch.cat([levels[-1], planes], dim=1)
    return levels


@dataclass(frozen=True)
class Reach:
    """What symbols fall short of. ``lost``: (APPEARANCE_GAINS, GAIN_STEPS), of each level and the means, at each index
    of their gain, squared amplitudes beyond the largest symbol, summed. ``count``: (APPEARANCE_GAINS,), symbols."""

    lost: Tensor
    count: Tensor

    @staticmethod
    def nothing() -> Reach:
        """Before the first picture: every gain will do."""
        return Reach(torch.zeros(APPEARANCE_GAINS, GAIN_STEPS), torch.zeros(APPEARANCE_GAINS))

    @staticmethod
    def of(residual: Tensor) -> Reach:
        """For ``residual`` (B, 6, h, w). Chroma, whose gains are finer, counts in the measure of luma's."""
        levels = amplitudes(residual)
        finer = 2 ** (CHROMA_GAIN_STEPS / GAIN_STEPS_PER_OCTAVE)
        lost, count = [], []
        for k, level in enumerate([*(level[:, :BANDS] for level in levels), levels[-1][:, BANDS:]]):
            magnitudes = level.abs().clamp(max=BAND_BOUND).transpose(0, 1).flatten(1).cpu()
            magnitudes[magnitudes.shape[0] // (3 if k else 1) :] *= finer
            lost.append(_squares_beyond(magnitudes.flatten(), SYMBOL_BOUND * _gain_steps()))
            count.append(float(magnitudes.numel()))
        return Reach(torch.stack(lost), torch.tensor(count))

    def __add__(self, other: Reach) -> Reach:
        return Reach(self.lost + other.lost, self.count + other.count)

    def least_gains(self) -> Tensor:
        """(APPEARANCE_GAINS,): of each gain the smallest index at which ``lost`` is little beside quantiser noise."""
        noise = _gain_steps().square() / 12 * self.count[:, None]
        return (self.lost > _LITTLE * noise).sum(1)


def _gain_steps() -> Tensor:
    """(GAIN_STEPS,): the amplitude of symbol 1 for each gain index, not rounded."""
    return LEAST_GAIN * torch.exp2(torch.arange(GAIN_STEPS) / GAIN_STEPS_PER_OCTAVE)


def _squares_beyond(values: Tensor, limits: Tensor) -> Tensor:
    """For each of ``limits``, ascending: the sum of the squares of what ``values`` exceed it by."""
    large = values[values > limits[0]].double().sort().values
    sums = torch.stack([torch.ones_like(large), large, large.square()]).flip(1).cumsum(1).flip(1)
    sums = torch.cat([sums, torch.zeros(3, 1)], dim=1)[:, torch.searchsorted(large, limits.double())]
    return (sums[2] - 2 * limits * sums[1] + limits.double().square() * sums[0]).clamp(min=0).float()


def _merging(length: int) -> np.ndarray:
    """(2, length, samples of half the length): what one low, one high sample adds to a line of ``length``."""
    filters = grid_filters()
    out = np.zeros((2, length, (length + 1) // 2), np.float32)
    for place in range(length):
        for t in range(filters.shape[2]):
            for part in range(2):
                source = source_place(place // 2 + t - filters.shape[2] // 2, part, length)
                out[part, place, source] += filters[place % 2, part, t]
    return out


@lru_cache(maxsize=16)
def line_energies(length: int, levels: int) -> list[np.ndarray]:
    """For the lines behind 1 .. ``levels`` halvings of a line of ``length`` samples, (2, samples): the sum of the
    squares of what one low, one high sample there adds to that line."""
    found, chain = [], np.eye(length, dtype=np.float32)
    for _ in range(levels):
        low, high = _merging(chain.shape[1])
        found.append(np.stack([np.square(chain @ low).sum(0), np.square(chain @ high).sum(0)]))
        chain = chain @ low
    return found


def _energies(size: tuple[int, int], halvings: int, *, high_y: bool = False, high_x: bool = False) -> np.ndarray:
    """(rows, columns): the energy of each sample behind so many halvings of a plane of ``size``; that of the plane
    itself where there are none."""
    if not halvings:
        return np.ones(size, np.float32)
    by_y, by_x = (line_energies(length, APPEARANCE_LEVELS)[halvings - 1] for length in size)
    return np.outer(by_y[int(high_y)], by_x[int(high_x)])


def _plane_sizes(half: tuple[int, int]) -> list[tuple[tuple[int, int], int]]:
    """Of Y, U and V: the size of the plane, and by how many halvings fewer than luma it comes to a level."""
    return [((2 * half[0], 2 * half[1]), 0), (half, 1), (half, 1)]


@lru_cache(maxsize=4)
def symbol_energies(half: tuple[int, int]) -> list[Tensor]:
    """Of each appearance level, finest first, (channels, rows, columns): the sum of the squares of what amplitude 1 of
    a symbol adds to its plane. 1 but for some per cent, and for the borders. ``half``: (h, w) of the working domain."""
    levels = []
    for k in range(APPEARANCE_LEVELS):
        planes = _plane_sizes(half)[: 3 if k else 1]
        bands = [
            _energies(size, k + 1 - fewer, high_y=high_y, high_x=high_x)
            for size, fewer in planes
            for high_y, high_x in ((False, True), (True, False), (True, True))
        ]
        levels.append(torch.from_numpy(np.stack(bands)))
    means = [_energies(size, APPEARANCE_LEVELS - fewer) for size, fewer in _plane_sizes(half)]
    levels[-1] = torch.cat([levels[-1], torch.from_numpy(np.stack(means))])
    return levels


@lru_cache(maxsize=4)
def image_energies(half: tuple[int, int]) -> list[Tensor]:
    """The same of the samples of the images that the bands of each level are added to (``expand_steps``), and of the
    means at last: (planes, rows, columns)."""
    images = []
    for k in range(APPEARANCE_LEVELS + 1):
        planes = _plane_sizes(half)[: 3 if k else 1]
        images.append(torch.from_numpy(np.stack([_energies(size, k - fewer) for size, fewer in planes])))
    return images
