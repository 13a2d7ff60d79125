"""How much each block matters: what later frames inherit from it.

A block that others are predicted from passes its errors on to them, as far as they do not code anew what it shows. With
squared error D after the coding of a block whose prediction from the source frames has error E, about ``D / (D + E)``
of what its reference lacks comes back in the cost of the block: at high rates because the residual's variance is the
sum of both (d rate / d reference error = 1 / (2 ln 2 (D + E)), times lambda = 2 ln 2 D), at low rates because what is
not coded is taken over as it is. Going back through the coding order this gives each block its importance, the
derivative of the whole cost by its error; 1 where nothing refers to it. D grows with lambda, but not beyond the
variance of the block: a flat one has no error to hand on. The idea is that of x264's macroblock tree
(Garrett-Glaser 2009), with this share in the place of its ratio of intra and inter costs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from nvcodec.core.gop import CodedFrame
from nvcodec.motion.warp import BLOCK

__all__ = ["FrameForecast", "estimated_bits", "importance"]

_DISTORTION = 0.6
"""Mean squared 8-bit error up to which a block is taken over rather than coded anew, of its lambda."""
_LEAST_ERROR = 0.1
"""Even still pictures are not taken over without loss."""
_UNEVEN = 0.7
"""Power of the share that is handed on: the error of a prediction lies in few coefficients, others hand on all."""
_BITS = 0.65
"""Of the rate of a Gaussian source, see ``estimated_bits``."""
_SHARED = 0.4
"""What each of two references that are averaged hands on of its errors."""


@dataclass(frozen=True)
class FrameForecast:
    """How a frame can be predicted from source frames: the vectors into each reference, (2, rows, columns) of blocks,
    the blend (rows, columns), 1 for the first reference alone, and the mean squared 8-bit luma error of each block. A
    block without references has no vectors and the error of what can be told from its neighbours. ``detail``: variance
    of each block's luma."""

    frame: CodedFrame
    fields: tuple[Tensor, ...]
    blend: Tensor
    error: Tensor
    detail: Tensor


def importance(forecasts: list[FrameForecast], size: tuple[int, int], lmbda: float) -> dict[int, np.ndarray]:
    """For each frame, by display position, the importance of its blocks, (rows, columns), at least 1.

    ``forecasts``: of all frames in coding order. ``lmbda``: squared error per bit in blocks of importance 1.
    """
    found = {f.frame.display: np.ones(size) for f in forecasts}
    for forecast in reversed(forecasts):
        own = found[forecast.frame.display]
        distortion = np.minimum(_DISTORTION * lmbda / own, forecast.detail.double().numpy() + _LEAST_ERROR)
        share = distortion / (distortion + forecast.error.double().numpy() + _LEAST_ERROR)
        handed = own * share**_UNEVEN
        blend = forecast.blend.numpy()
        for k, (reference, field) in enumerate(zip(forecast.frame.references, forecast.fields, strict=True)):
            share = np.where(blend == 0, _SHARED, blend == 1 - 2 * k)
            _spread(found[reference], handed * share, field.double().numpy() / (4 * BLOCK))
    return {display: _smooth(own) for display, own in found.items()}


def estimated_bits(forecasts: list[FrameForecast], weights: dict[int, np.ndarray], lmbda: float) -> float:
    """About what the frames of ``forecasts`` take at ``lmbda`` over the importance ``weights`` of their blocks.

    A block whose prediction has error E takes its 64 samples times ``_BITS log2(1 + E / lambda)``, which is the rate of
    a Gaussian source at a distortion of lambda; the constant was fitted to foreman, BasketballPass, tennis and bunny,
    where it is right to 15 % from 0.03 to 0.06 bpp.
    """
    bits = 0.0
    for forecast in forecasts:
        error = forecast.error.double().numpy()
        bits += float(np.log2(1 + error * weights[forecast.frame.display] / lmbda).sum())
    return _BITS * BLOCK * BLOCK * bits


def _smooth(blocks: np.ndarray) -> np.ndarray:
    """The mean of 3x3 blocks, the border repeats."""
    padded = np.pad(blocks, 1, mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).mean((2, 3))


def _spread(into: np.ndarray, amount: np.ndarray, shift: np.ndarray) -> None:
    """Add ``amount`` of every block to the four blocks that it comes from, ``shift`` (2, rows, columns) in blocks."""
    rows, columns = into.shape
    y = np.arange(rows)[:, None] + shift[0]
    x = np.arange(columns)[None] + shift[1]
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    for dy in (0, 1):
        for dx in (0, 1):
            part = np.abs(1 - dy - (y - top)) * np.abs(1 - dx - (x - left))
            where = (top + dy).clip(0, rows - 1), (left + dx).clip(0, columns - 1)
            np.add.at(into, where, amount * part)
