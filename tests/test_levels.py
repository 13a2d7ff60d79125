"""Sizes and channels of the motion levels."""

from __future__ import annotations

from nvcodec.core.gop import coding_units
from nvcodec.hybrid.blocks.layout import SKIPPED
from nvcodec.hybrid.unit import UnitSymbols
from nvcodec.motion.levels import BLEND_CHANNEL, MOTION_LEVELS, FrameGeometry, merge_channel, motion_layout


def test_sizes_of_an_odd_picture() -> None:
    geometry = FrameGeometry(35, 21)
    assert geometry.half == (11, 18)
    assert geometry.blocks == (3, 5)
    assert [geometry.motion_size(k) for k in range(MOTION_LEVELS)] == [(3, 5), (2, 3), (1, 2), (1, 1), (1, 1)]


def test_smallest_picture_has_one_sample_everywhere() -> None:
    geometry = FrameGeometry(1, 1)
    assert {geometry.motion_size(k) for k in range(MOTION_LEVELS)} == {(1, 1)}


def test_channels_of_the_motion_levels() -> None:
    groups = {references: [motion_layout(references, k).groups for k in range(MOTION_LEVELS)] for references in (1, 2)}
    assert groups[1] == [*[(0, 0, 2)] * 4, (0, 0)]
    assert groups[2] == [(0, 0, 1, 1, 2, 3), *[(0, 0, 1, 1, 2)] * 3, (0, 0, 1, 1)]
    assert groups[2][0][BLEND_CHANNEL] == 3
    assert [merge_channel(2, k) for k in range(MOTION_LEVELS)] == [4, 4, 4, 4, None]


def test_an_empty_unit_is_what_is_predicted() -> None:
    geometry = FrameGeometry(35, 21)
    key, inter, bidirectional = coding_units(3, 2)
    empty = UnitSymbols.empty(key, geometry)
    assert (empty.motion, len(empty.blocks)) == ([], 1)
    assert not any(symbols.any() for symbols in empty.blocks[0][1:])
    for unit in (inter, bidirectional):
        empty = UnitSymbols.empty(unit, geometry)
        assert [level.shape[1:] for level in empty.motion] == [
            (len(motion_layout(unit.reference_count, k)), *geometry.motion_size(k)) for k in range(MOTION_LEVELS)
        ]
        assert not any(level.any() for level in empty.motion)
        assert (empty.blocks[0].modes == SKIPPED).all()
