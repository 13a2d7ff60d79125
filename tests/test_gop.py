"""The coding structure: what must hold for every length, and the small cases in full."""

from __future__ import annotations

from itertools import pairwise

import pytest

from nvcodec.core.errors import LimitError
from nvcodec.core.gop import MAX_DEPTH, MAX_GOP, CodedFrame, CodingUnit, coding_units, last_uses, read_gop, write_gop

ALL = [(frames, gop) for frames in range(1, 71) for gop in range(1, MAX_GOP + 1)]


def test_longest_gop_is_64() -> None:
    assert MAX_GOP == 64


def test_nine_frames_with_gop_8() -> None:
    """The picture in the module's docstring."""
    assert coding_units(9, 8) == [
        CodingUnit((CodedFrame(0, 0, ()),)),
        CodingUnit((CodedFrame(8, 1, (0,)),)),
        CodingUnit((CodedFrame(4, 2, (0, 8)),)),
        CodingUnit((CodedFrame(2, 3, (0, 4)), CodedFrame(6, 3, (4, 8)))),
        CodingUnit(
            (
                CodedFrame(1, 4, (0, 2)),
                CodedFrame(3, 4, (2, 4)),
                CodedFrame(5, 4, (4, 6)),
                CodedFrame(7, 4, (6, 8)),
            )
        ),
    ]


def test_last_gop_is_cut_short() -> None:
    assert coding_units(6, 3) == [
        CodingUnit((CodedFrame(0, 0, ()),)),
        CodingUnit((CodedFrame(3, 1, (0,)),)),
        CodingUnit((CodedFrame(1, 2, (0, 3)),)),
        CodingUnit((CodedFrame(5, 1, (3,)),)),
        CodingUnit((CodedFrame(2, 3, (1, 3)),)),
        CodingUnit((CodedFrame(4, 2, (3, 5)),)),
    ]


def test_p_frames_run_ahead_of_the_deeper_b_frames() -> None:
    """The second picture in the module's docstring."""
    order = [[frame.display for frame in unit.frames] for unit in coding_units(17, 4)]
    assert order == [[0], [4], [2], [8], [1, 3], [6], [12], [5, 7], [10], [16], [9, 11], [14], [13, 15]]


def test_hardly_any_unit_refers_to_the_one_before_it() -> None:
    units = coding_units(65, 4)
    at_once = [
        number
        for number, (before, unit) in enumerate(pairwise(units), 1)
        if {f.display for f in before.frames} & {r for f in unit.frames for r in f.references}
    ]
    assert at_once == [1, 2, len(units) - 1]


def test_distances_have_signs() -> None:
    assert CodedFrame(4, 2, (1, 9)).distances == (-3, 5)
    assert CodedFrame(0, 0, ()).distances == ()


def test_every_frame_is_coded_once() -> None:
    for frames, gop in ALL:
        displays = [f.display for unit in coding_units(frames, gop) for f in unit.frames]
        assert sorted(displays) == list(range(frames)), (frames, gop)


def test_references_are_coded_in_earlier_units() -> None:
    """So the frames of a unit are independent of each other."""
    for frames, gop in ALL:
        coded: set[int] = set()
        for unit in coding_units(frames, gop):
            for frame in unit.frames:
                assert coded.issuperset(frame.references), (frames, gop, frame)
            coded.update(f.display for f in unit.frames)


def test_types_and_depths() -> None:
    """I: no reference; P: one, in the past; B: two, around the frame. A unit holds one type and one depth."""
    for frames, gop in ALL:
        units = coding_units(frames, gop)
        assert units[0] == CodingUnit((CodedFrame(0, 0, ()),))
        for unit in units:
            depths = {f.depth for f in unit.frames}
            assert depths == {unit.depth}
            assert unit.depth <= MAX_DEPTH
            for frame in unit.frames:
                assert len(frame.references) == unit.reference_count == min(frame.depth, 2), (frames, gop, frame)
                assert all(0 <= r < frames for r in frame.references)
            if unit.depth == 1:
                (frame,) = unit.frames
                assert frame.display == min(frame.references[0] + gop, frames - 1)
                assert frame.references[0] % gop == 0
            if unit.depth >= 2:
                assert all(f.references[0] < f.display < f.references[1] for f in unit.frames)


def test_deepest_frame_of_the_longest_gop() -> None:
    depths = {f.depth for unit in coding_units(65, 64) for f in unit.frames}
    assert depths == set(range(MAX_DEPTH + 1))


@pytest.mark.parametrize(("frames", "gop"), [(0, 8), (-1, 8), (4, 0), (4, 65)])
def test_refuses_what_has_no_structure(frames: int, gop: int) -> None:
    with pytest.raises(ValueError, match=f"{frames} frames with GOP {gop}"):
        coding_units(frames, gop)


def test_states_are_kept_until_their_last_use() -> None:
    units = coding_units(6, 3)
    assert last_uses(units) == {0: 2, 3: 5, 1: 4, 5: 5, 2: 4, 4: 5}


def test_a_header_says_whether_motion_is_predicted() -> None:
    """In one number with the length: 64 more where it is not."""
    for gop in range(1, MAX_GOP + 1):
        for predicts in (True, False):
            assert read_gop(write_gop(gop, predicts)) == (gop, predicts)
            assert all(unit.predicts == predicts for unit in coding_units(9, gop, predicts))
    assert (write_gop(4, True), write_gop(4, False)) == (4, 68)
    for value in (0, 2 * MAX_GOP + 1, 1000):
        with pytest.raises(LimitError, match="gop"):
            read_gop(value)
