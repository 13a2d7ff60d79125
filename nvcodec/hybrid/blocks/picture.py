"""A frame of blocks, between the range coder and the samples."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nvcodec.entropy.range_decoder import RangeDecoder
from nvcodec.entropy.symbols import SymbolChannel, SymbolReader
from nvcodec.hybrid.blocks.contexts import initial_probabilities
from nvcodec.hybrid.blocks.layout import BlockLayout, BlockSymbols, decoding_order

__all__ = ["MODEL_DEPTHS", "BinModels", "exchange_picture", "model_of", "noted_bins", "rebuild_picture"]

MODEL_DEPTHS = 4
"""Key frames, P frames, B frames of depth 2, and of 3 and more have probabilities of their own."""


def model_of(depth: int) -> int:
    """Which of MODEL_DEPTHS sets of probabilities frames at ``depth`` of the hierarchy have."""
    return min(depth, MODEL_DEPTHS - 1)


class BinModels:
    """The probabilities of all contexts at each depth, which go on from frame to frame of a segment.

    ``arrays``: of each depth, int64 (contexts, 3), see ``bins_cpu.new_coder``.
    """

    def __init__(self, arrays: list[np.ndarray] | None = None) -> None:
        self.arrays = arrays or [initial_probabilities(depth) for depth in range(MODEL_DEPTHS)]
        self._reader: np.ndarray | None = None
        self._words: np.ndarray | None = None

    def at(self, depth: int) -> np.ndarray:
        """What frames at ``depth`` of the hierarchy change."""
        return self.arrays[model_of(depth)]

    def copy(self) -> BinModels:
        return BinModels([array.copy() for array in self.arrays])

    def read(self, decoder: RangeDecoder, depth: int, layout: BlockLayout, refers: bool) -> BlockSymbols:
        """The symbols of a frame from what ``decoder`` is at. Raises TruncatedError."""
        from nvcodec.hybrid.blocks import (
            bins_cpu,  # brings a compiler: only where frames are coded
            syntax_cpu,  # brings a compiler: only where frames are coded
        )

        if self._reader is None or self._words is not decoder.words:
            self._reader, self._words = bins_cpu.new_coder(self.arrays[0], decoder.words), decoder.words
        coder, model = self._reader, self.at(depth)
        bins_cpu.probabilities_of(coder)[:] = model
        state = coder[: len(decoder.state)].view(np.uint64)
        state[:] = decoder.state
        symbols = BlockSymbols.zeros(layout)
        syntax_cpu.code_roots(bins_cpu.READ, *symbols, refers, coder)
        decoder.check(not coder[bins_cpu.FAILED])
        decoder.state[:] = state
        model[:] = bins_cpu.probabilities_of(coder)
        return symbols


def noted_bins(model: np.ndarray, symbols: BlockSymbols, refers: bool) -> np.ndarray:
    """For each bin of a frame twice the probability of 1 in 4096, and the bin; ``model`` follows."""
    from nvcodec.hybrid.blocks import bins_cpu, syntax_cpu

    coder = bins_cpu.new_coder(model)
    for _ in range(2):  # how many there are, then which
        coder = bins_cpu.new_coder(model, room=int(coder[bins_cpu.COUNT]))
        syntax_cpu.code_roots(bins_cpu.WRITE, *symbols, refers, coder)
    model[:] = bins_cpu.probabilities_of(coder)
    return bins_cpu.notes_of(coder)


def exchange_picture(
    channel: SymbolChannel,
    models: BinModels,
    depth: int,
    layout: BlockLayout,
    refers: bool,
    symbols: BlockSymbols | None,
) -> BlockSymbols:
    """Write the ``symbols`` of a frame, or read them.

    ``refers``: whether other frames predict it. Raises TruncatedError.
    """
    if symbols is not None:
        channel.exchange_bins(noted_bins(models.at(depth), symbols, refers))
        return symbols
    assert isinstance(channel, SymbolReader)
    return models.read(channel.decoder, depth, layout, refers)


def rebuild_picture(
    symbols: BlockSymbols, layout: BlockLayout, prediction: Tensor, gain: int, steps: np.ndarray
) -> Tensor:
    """Samples (6, h, w), 0 .. 1023, in the working domain. ``prediction``: the same, by other frames. ``gain``,
    ``steps``: see ``rebuild_cpu.rebuild_planes``."""
    from nvcodec.hybrid.blocks.rebuild_cpu import rebuild_planes  # brings a compiler: only where frames are coded

    planes = layout.unpacked(prediction.cpu().numpy())
    rebuild_planes(*symbols, planes, decoding_order(*symbols.sizes.shape), gain, steps)
    return torch.from_numpy(layout.packed(planes)).to(prediction.device)
