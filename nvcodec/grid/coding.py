"""The appearance levels of a coding unit in the bitstream."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nvcodec.entropy.symbols import SymbolChannel, code_level
from nvcodec.grid.contexts import appearance_context
from nvcodec.grid.levels import APPEARANCE_CHANNELS, APPEARANCE_LEVELS
from nvcodec.grid.side import AppearanceSide

__all__ = ["code_appearance"]


def code_appearance(
    channel: SymbolChannel, given: list[Tensor] | None, side: AppearanceSide, batch: int, depth: int, bits: list[float]
) -> list[Tensor]:
    """Write the levels ``given``, finest first, (B, channels, rows, columns) each, or read them; coarsest first in the
    stream. A flag for each frame says whether its level holds anything but zeros.

    ``depth``: of the frames in the hierarchy. Appends the bits of each level to ``bits``, coarsest first.
    """
    weights = appearance_context()
    levels: list[Tensor] = []
    for k in reversed(range(APPEARANCE_LEVELS)):
        before = channel.bits
        layout = side.layout(k)
        level = torch.zeros(batch, APPEARANCE_CHANNELS[k], *side.size(k))
        flags = None if given is None else given[k].flatten(1).any(1).numpy().astype(np.int32)
        used = torch.from_numpy(np.flatnonzero(channel.exchange_flags(flags, batch)))
        if len(used):
            symbols = None if given is None else given[k][used]
            level[used] = code_level(
                channel, symbols, layout, side(k, levels)[used], weights, weights.bias(depth, k, layout)
            )
        levels.insert(0, level)
        bits.append(channel.bits - before)
    return levels
