"""The motion of a whole coding unit: searched frame by frame on decoded references, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from nvcodec.core.gop import CodingUnit
from nvcodec.core.parallel import run_all
from nvcodec.encoder.motion_search import LevelPrice, search_motion
from nvcodec.encoder.rate import level_costs
from nvcodec.entropy.context import ContextWeights
from nvcodec.motion.compensation import FrameState
from nvcodec.motion.levels import MOTION_LEVELS, FrameGeometry
from nvcodec.motion.prediction import MotionState
from nvcodec.motion.unit import UnitMotion, compensate_unit, key_unit_inputs, motion_context, predict_unit

__all__ = ["search_unit_motion"]


@torch.no_grad()
def search_unit_motion(
    unit: CodingUnit,
    targets: Tensor,
    states: Mapping[int, FrameState],
    start: list[Tensor],
    weights: ContextWeights,
    geometry: FrameGeometry,
    lmbda: float,
    importance: Tensor,
    searches: int,
) -> UnitMotion:
    """The motion of a unit on its decoded references, and what it predicts.

    ``targets``: (B, 6, h, w), what its frames are made to look like. ``states``: at least those of the references.
    ``start``: levels to improve, see ``search_motion``. ``weights``: of the context model, which says what motion
    costs. ``importance``: (B, block rows, block columns). ``searches``: how often, each time with prices by what the
    last search found.
    """
    if unit.reference_count == 0:
        inputs = key_unit_inputs(unit, geometry, targets.device)
        return UnitMotion([], None, inputs, [MotionState((), ())] * len(unit.frames))
    predictions = predict_unit(unit, states, geometry)
    side = motion_context(predictions, geometry)
    levels = start
    for _ in range(searches):
        rates, _ = level_costs(levels, side, weights, unit.depth)
        found: list[list[Tensor]] = [[]] * len(unit.frames)

        def search(b: int, known: list[Tensor], prices: list[LevelPrice], found: list[list[Tensor]]) -> None:
            frame = unit.frames[b]
            references = tuple(states[r].appearance for r in frame.references)
            found[b] = search_motion(targets[b], references, predictions[b], frame, known, lmbda, prices, importance[b])

        tasks = []
        for b in range(len(unit.frames)):
            prices = [LevelPrice(r.location[b], r.scale[b]) for r in rates]
            tasks.append(partial(search, b, [level[b] for level in levels], prices, found))
        run_all(tasks)
        levels = [torch.stack([of_frame[k] for of_frame in found]) for k in range(MOTION_LEVELS)]
    inputs, motion_states = compensate_unit(unit, states, predictions, levels)
    return UnitMotion(levels, side, inputs, motion_states)
