"""Coding structure: which frame refers to which, and in which order they are coded.

Inside a segment the first frame is a key frame (I). The frames at multiples of the GOP length, and the last
frame, are P frames that refer to the one before them. The frames between two of these are B frames in a
dyadic hierarchy::

    display order   0   1   2   3   4   5   6   7   8
    type            I   B   B   B   B   B   B   B   P
    depth           0   4   3   4   2   4   3   4   1

All B frames of one depth in one GOP form a coding unit: none refers to another, so a decoder may process
them as one batch. The P frame of the next GOP stands behind the first unit of B frames::

    I0  P4  B2  P8  B1,3  B6  P12  B5,7 ...                GOP 4

so that hardly any unit refers to the one just before it, whose frames a decoder may rebuild meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from nvcodec.core.errors import LimitError

__all__ = ["MAX_DEPTH", "MAX_GOP", "CodedFrame", "CodingUnit", "coding_units", "last_uses", "read_gop", "write_gop"]

MAX_DEPTH = 7
"""Depth of the deepest B frame: GOP lengths up to 64."""
MAX_GOP = 1 << (MAX_DEPTH - 1)


@dataclass(frozen=True)
class CodedFrame:
    """``display``: position in the segment. ``references``: display positions, 0, 1 or 2 of them."""

    display: int
    depth: int
    references: tuple[int, ...]

    @property
    def distances(self) -> tuple[int, ...]:
        """Signed distance in frames to each reference."""
        return tuple(r - self.display for r in self.references)


@dataclass(frozen=True)
class CodingUnit:
    """Frames of one depth that are coded together; all have the same number of references. ``predicts``: whether their
    motion is predicted from that of their references."""

    frames: tuple[CodedFrame, ...]
    predicts: bool = True

    @property
    def depth(self) -> int:
        return self.frames[0].depth

    @property
    def reference_count(self) -> int:
        return len(self.frames[0].references)


def coding_units(frame_count: int, gop: int, predicts: bool = True) -> list[CodingUnit]:
    """The coding units of a segment in coding order.

    ``frame_count``: at least 1. ``gop``: distance between P frames, 1 .. 64. ``predicts``: of all units.
    """
    if frame_count < 1 or not 1 <= gop <= MAX_GOP:
        raise ValueError(f"no coding structure for {frame_count} frames with GOP {gop}")
    units = [CodingUnit((CodedFrame(0, 0, ()),))]
    deeper: list[CodingUnit] = []  # of the GOP before: its B frames of depth 3 and more
    anchor = 0
    while anchor < frame_count - 1:
        far = min(anchor + gop, frame_count - 1)
        first, *rest = [CodingUnit((CodedFrame(far, 1, (anchor,)),)), *_b_units(anchor, far)]
        units += [first, *deeper, *rest[:1]]
        deeper = rest[1:]
        anchor = far
    return [replace(unit, predicts=predicts) for unit in units + deeper]


def write_gop(gop: int, predicts: bool) -> int:
    """What a segment header has in the place of a GOP length: that, or, where motion is not predicted, 64 more."""
    return gop + MAX_GOP * (not predicts)


def read_gop(value: int) -> tuple[int, bool]:
    """GOP length, and whether motion is predicted. Raises LimitError for what is neither."""
    if not 1 <= value <= 2 * MAX_GOP:
        raise LimitError(f"gop {value} lies outside 1 .. {2 * MAX_GOP}")
    return (value - 1) % MAX_GOP + 1, value <= MAX_GOP


def _b_units(anchor: int, far: int) -> list[CodingUnit]:
    """The B frames between two frames, by depth."""
    units = []
    intervals, depth = [(anchor, far)], 2
    while intervals := [(a, b) for a, b in intervals if b - a > 1]:
        middles = [CodedFrame((a + b) // 2, depth, (a, b)) for a, b in intervals]
        units.append(CodingUnit(tuple(middles)))
        intervals = [
            pair for (a, b), m in zip(intervals, middles, strict=True) for pair in ((a, m.display), (m.display, b))
        ]
        depth += 1
    return units


def last_uses(units: list[CodingUnit]) -> dict[int, int]:
    """For each frame (display position) the number of the last unit that refers to it, or its own."""
    uses: dict[int, int] = {}
    for number, unit in enumerate(units):
        for frame in unit.frames:
            uses.setdefault(frame.display, number)
            for reference in frame.references:
                uses[reference] = number
    return uses
