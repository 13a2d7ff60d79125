"""Motion-compensated temporal filter: source frames less what the frames around them do not share.

Frames that others refer to are coded finely, and much of what they cost is noise that nothing inherits. Before they are
coded, each luma sample becomes a weighted mean of itself and of what overlapped motion compensation brings from the
frames before and behind::

    weight = share(distance) exp(-d**2 / (2 s**2)) exp(-D / (2 s**2)),    s = 3 / 8 (Q - 10) grey levels

d is the difference of the two samples, D the mean squared difference of their blocks, Q the quantiser parameter of
H.265 that belongs to lambda. Shares and s follow the filter of the HM and VTM encoders (JVET-O0549), with half its s;
the factor by blocks is ours. Chroma stays as it is: with the motion of luma it lost more than it saved
(docs/experiments/hybrid.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from nvcodec.core.parallel import run_all
from nvcodec.encoder.motion_search import matching_fields
from nvcodec.encoder.rate_control import quality_for_lambda
from nvcodec.encoder.working_domain import LUMA_PLANES, SAMPLE_STEP, block_means, over_blocks
from nvcodec.motion.levels import FrameGeometry
from nvcodec.motion.warp import Reference, pack_luma

__all__ = ["filtered_frames"]

_SHARES = {1: 0.456, 2: 0.38}
"""Of a frame by its distance; the frame itself has 1."""
_STRENGTH = 3 / 8
_NO_NOISE = 10.0
"""Quantiser parameter at which nothing is filtered."""


@torch.no_grad()
def filtered_frames(
    samples: Tensor, numbers: Sequence[int], geometry: FrameGeometry, lmbda: float
) -> dict[int, Tensor]:
    """The frames ``numbers`` of ``samples`` (T, 6, h, w) filtered, (6, h, w) each, integers 0 .. 1023.

    ``lmbda``: squared 8-bit error per bit of frames that nothing refers to.
    """
    spread = _STRENGTH * (quality_for_lambda(lmbda) - _NO_NOISE)
    if spread <= 0:
        return {}
    found = {}
    for number in numbers:
        around = [n for d in _SHARES for n in (number - d, number + d) if 0 <= n < len(samples)]
        parts = [(_SHARES[abs(n - number)], Reference(samples[n])) for n in around]
        found[number] = _filtered(samples[number], parts, geometry, lmbda, spread)
    return found


def _filtered(
    frame: Tensor, parts: list[tuple[float, Reference]], geometry: FrameGeometry, lmbda: float, spread: float
) -> Tensor:
    """``frame`` (6, h, w) after the filter. ``parts``: share and frame of each neighbour. ``spread``: s above."""
    luma = frame[:LUMA_PLANES]
    brought: dict[int, tuple[Tensor, Tensor]] = {}

    def bring(k: int) -> None:
        share, other = parts[k]
        warped = _compensated(frame, other, geometry, lmbda)
        squares = ((warped - luma) / SAMPLE_STEP).square()
        around = over_blocks(block_means(squares), luma.shape[1:])
        weight = share * torch.exp((squares + around) * (-0.5 / spread**2))
        brought[k] = weight, weight * warped

    for _, other in parts:
        _ = other.luma  # interpolated here: threads may share it then
    run_all([partial(bring, k) for k in range(len(parts))])
    weights, total = torch.ones_like(luma), luma.clone()
    for k in range(len(parts)):
        weights += brought[k][0]
        total += brought[k][1]
    return torch.cat([torch.floor(total / weights + 0.5), frame[LUMA_PLANES:]])


def _compensated(frame: Tensor, other: Reference, geometry: FrameGeometry, lmbda: float) -> Tensor:
    """Luma (4, h, w) of ``other`` where it moved to in ``frame``, by the field that is better in each block."""
    alone, around = (field.to(frame) for field in matching_fields(frame, other, geometry, lmbda))
    errors = [block_means((pack_luma(other.warp_luma(f)) - frame[:LUMA_PLANES]).square()) for f in (alone, around)]
    return pack_luma(other.warp_luma(torch.where(errors[1] < errors[0], around, alone)))
