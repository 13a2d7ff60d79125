"""The motion grid: which symbols of motion a frame has.

It is a pyramid of integer tensors, the motion levels, with strides of 8 to 128 luma samples. What else a frame has
stands in blocks, see ``nvcodec.hybrid.blocks``.
"""

from __future__ import annotations

from dataclasses import dataclass

from nvcodec.entropy.context import ChannelLayout

__all__ = [
    "BLEND_CHANNEL",
    "MOTION_LEVELS",
    "SYMBOL_BOUND",
    "FrameGeometry",
    "merge_channel",
    "motion_layout",
]

MOTION_LEVELS = 5
_FIRST_GROUP, _SECOND_GROUP, _MERGE_GROUP, _BLEND_GROUP = range(4)
BLEND_CHANNEL = 5
"""Of the finest motion level with two references."""

SYMBOL_BOUND = 127
"""Symbols lie in -SYMBOL_BOUND .. SYMBOL_BOUND."""


@dataclass(frozen=True)
class FrameGeometry:
    """Sizes of everything that belongs to a picture of ``width`` x ``height`` luma samples. ``bit_depth``: of its
    output, 8 or 10."""

    width: int
    height: int
    bit_depth: int = 8

    @property
    def half(self) -> tuple[int, int]:
        """(h, w) of the working domain."""
        return (self.height + 1) // 2, (self.width + 1) // 2

    @property
    def blocks(self) -> tuple[int, int]:
        """(rows, columns) of 8x8 luma blocks."""
        return (self.height + 7) // 8, (self.width + 7) // 8

    def motion_size(self, level: int) -> tuple[int, int]:
        """(rows, columns) of motion level ``level`` (0 is the finest, one sample for a block)."""
        return _ceil_shift(self.blocks, level)


def motion_layout(references: int, level: int) -> ChannelLayout:
    """Channels of a motion level: correction of the first vector (y, x), of the second one (y, x), but for the coarsest
    level the merge choice, and at the finest level, with two references, the blend."""
    groups = [_FIRST_GROUP] * 2 + [_SECOND_GROUP] * 2 * (references - 1)
    if merge_channel(references, level) is not None:
        groups.append(_MERGE_GROUP)
    if level == 0 and references == 2:
        groups.append(_BLEND_GROUP)
    return ChannelLayout(tuple(groups))


def merge_channel(references: int, level: int) -> int | None:
    """Channel of the merge choice, behind those of the vectors; the coarsest level has nothing to take over."""
    return 2 * references if level + 1 < MOTION_LEVELS else None


def _ceil_shift(size: tuple[int, int], bits: int) -> tuple[int, int]:
    return -(-size[0] >> bits), -(-size[1] >> bits)
