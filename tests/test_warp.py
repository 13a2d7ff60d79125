"""Motion compensation against the definition: an endless picture with repeated borders, one sample at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcodec.motion.warp import (
    _CHROMA_TAPS,
    _LUMA_TAPS,
    SAMPLE_MAX,
    InterpolatedPlane,
    Reference,
    _overlapped,
    _overlapped_anywhere,
    pack_luma,
    unpack_luma,
)

LUMA = {
    0: (0, 0, 0, 64, 0, 0, 0, 0),
    1: (-1, 4, -10, 58, 17, -5, 1, 0),
    2: (-1, 4, -11, 40, 40, -11, 4, -1),
    3: (0, 1, -5, 17, 58, -10, 4, -1),
}
CHROMA = {0: (0, 64, 0, 0), 1: (-4, 54, 16, -2), 2: (-4, 36, 36, -4), 3: (-2, 16, 54, -4)}


def at(plane: np.ndarray, row: int, column: int, y: int, x: int, taps: dict[int, tuple[int, ...]]) -> int:
    """The sample at (row + y / 4, column + x / 4) of a plane whose border goes on for ever."""
    before = len(taps[0]) // 2 - 1
    total = 0
    for i, vertical in enumerate(taps[y & 3]):
        for j, horizontal in enumerate(taps[x & 3]):
            r = min(max(row + (y >> 2) + i - before, 0), plane.shape[0] - 1)
            c = min(max(column + (x >> 2) + j - before, 0), plane.shape[1] - 1)
            total += vertical * horizontal * int(plane[r, c])
    return min(max((total + 2048) >> 12, 0), SAMPLE_MAX)


def gathered(
    plane: np.ndarray, field: np.ndarray, block: int, taps: dict[int, tuple[int, ...]], step: int = 1
) -> np.ndarray:
    """Every ``step``-th sample of the plane, displaced by the vector of its block."""
    return np.array(
        [
            [
                at(plane, r, c, *(int(v) for v in field[:, r // block, c // block]), taps)
                for c in range(0, plane.shape[1], step)
            ]
            for r in range(0, plane.shape[0], step)
        ]
    )


OWN = {8: (5, 6, 7, 8, 8, 7, 6, 5), 4: (6, 8, 8, 6)}


def overlapped(plane: np.ndarray, field: np.ndarray, block: int, taps: dict[int, tuple[int, ...]]) -> np.ndarray:
    """Four vectors for every sample: its block's, and those of the blocks beyond the nearer edges of its block."""
    out = np.zeros(plane.shape, dtype=int)
    last_row, last_column = field.shape[1] - 1, field.shape[2] - 1
    for r, c in np.ndindex(plane.shape):
        i, j = r // block, c // block
        near_row = min(max(i - 1 if r % block < block // 2 else i + 1, 0), last_row)
        near_column = min(max(j - 1 if c % block < block // 2 else j + 1, 0), last_column)
        p, q = OWN[block][r % block], OWN[block][c % block]
        for row, row_share in ((i, p), (near_row, 8 - p)):
            for column, column_share in ((j, q), (near_column, 8 - q)):
                sample = at(plane, r, c, *(int(v) for v in field[:, row, column]), taps)
                out[r, c] += row_share * column_share * sample
    return (out + 32) >> 6


def blocks_of(plane: np.ndarray, block: int) -> tuple[int, int]:
    return -(-plane.shape[0] // block), -(-plane.shape[1] // block)


def build(planes: np.ndarray, taps: dict[int, tuple[int, ...]]) -> InterpolatedPlane:
    return InterpolatedPlane.build(torch.from_numpy(planes).float(), tuple(taps.values()))


def noise(seed: int, *shape: int) -> np.ndarray:
    """Mostly extremes, so that filters overshoot and clip."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < 0.5, rng.integers(0, 2, shape) * SAMPLE_MAX, rng.integers(0, 1024, shape))


def test_filters_have_unit_gain() -> None:
    assert all(sum(taps) == 64 for table in (LUMA, CHROMA) for taps in table.values())


def test_pack_takes_cells_in_raster_order() -> None:
    luma = torch.arange(8).reshape(2, 4)
    assert pack_luma(luma).tolist() == [[[0, 2]], [[1, 3]], [[4, 6]], [[5, 7]]]
    assert torch.equal(unpack_luma(pack_luma(luma)), luma)


def test_half_sample_of_an_edge() -> None:
    """0 0 0 0 | 1023 ...: the half-way sample is 1023 / 2, rounded up; one sample on, 60 / 64 less a ripple."""
    row = np.repeat([0, SAMPLE_MAX], 8)[None]
    luma, chroma = (build(row[None], taps) for taps in (LUMA, CHROMA))
    half = torch.zeros(2, 1, 4)
    half[1] = 2
    # sums of the right half of the taps, from four samples before the edge on: -1, 3, -8, 32, 72, 61, 65, 64
    assert luma.gather(half[:, :, :2], 8)[0, 0, 3:12].tolist() == [0, 0, 48, 0, 512, 1023, 975, 1023, 1023]
    assert chroma.gather(half, 4)[0, 0, 5:10].tolist() == [0, 0, 512, 1023, 1023]


@pytest.mark.parametrize("taps", [LUMA, CHROMA], ids=["luma", "chroma"])
@pytest.mark.parametrize("step", [1, 2])
def test_all_sixteen_phases(taps: dict[int, tuple[int, ...]], step: int) -> None:
    plane, block = noise(1, 10, 14), len(taps[0])
    built = build(plane[None], taps)
    field = np.zeros((2, *blocks_of(plane, block)), dtype=int)
    for y in range(4):
        for x in range(4):
            field[0], field[1] = y - 4, x
            got = built.gather(torch.from_numpy(field).float(), block, step)[0].numpy()
            assert np.array_equal(got, gathered(plane, field, block, taps, step)), (y, x)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 19),
    st.integers(1, 19),
    st.sampled_from([3, 40, 80, 120, 2047]),
    st.sampled_from([LUMA, CHROMA]),
    st.sampled_from([1, 2]),
)
def test_gather_at_borders_and_far_outside(
    seed: int, rows: int, columns: int, reach: int, taps: dict[int, tuple[int, ...]], step: int
) -> None:
    rng = np.random.default_rng(seed)
    plane, block = noise(seed, rows, columns), len(taps[0])
    field = rng.integers(-reach, reach + 1, (2, *blocks_of(plane, block)))
    got = build(plane[None], taps).gather(torch.from_numpy(field).float(), block, step)[0].numpy()
    assert np.array_equal(got, gathered(plane, field, block, taps, step))


@pytest.mark.parametrize("taps", [LUMA, CHROMA], ids=["luma", "chroma"])
def test_gather_at_every_distance_from_the_border(taps: dict[int, tuple[int, ...]]) -> None:
    """One block that leaves the picture on each side, in steps of a quarter sample."""
    block = len(taps[0])
    plane = noise(9, block, block)
    built = build(plane[None], taps)
    for distance in range(-30 * 4, 30 * 4 + 1, 7):
        for vector in ((distance, 2), (3, distance), (distance, distance)):
            field = np.array(vector).reshape(2, 1, 1)
            got = built.gather(torch.from_numpy(field).float(), block)[0].numpy()
            assert np.array_equal(got, gathered(plane, field, block, taps)), vector


@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (5, 7), (3, 9), (1, 1)])
def test_warp_of_a_frame(rows: int, columns: int) -> None:
    """Overlapping blocks: luma by the vectors, chroma by half of them (rounded)."""
    rng = np.random.default_rng(rows * 10 + columns)
    luma, chroma = noise(rows, 2 * rows, 2 * columns), noise(columns, 2, rows, columns)
    blocks = rng.integers(-45, 46, (2, (rows + 3) // 4, (columns + 3) // 4))
    blocks[:, 0, 0] = (-2047, 2047)
    packed = torch.cat([pack_luma(torch.from_numpy(luma)), torch.from_numpy(chroma)]).float()
    samples = Reference(packed).warp(torch.from_numpy(blocks).float())

    assert np.array_equal(unpack_luma(samples[:4]).numpy(), overlapped(luma, blocks, 8, LUMA))
    for c in range(2):
        assert np.array_equal(samples[4 + c].numpy(), overlapped(chroma[c], (blocks + 1) >> 1, 4, CHROMA))


def test_zero_motion_changes_nothing() -> None:
    packed = torch.from_numpy(noise(3, 6, 6, 10)).float()
    assert torch.equal(Reference(packed).warp(torch.zeros(2, 2, 3)), packed)


@pytest.mark.parametrize(("block", "taps"), [(8, _LUMA_TAPS), (4, _CHROMA_TAPS)])
@pytest.mark.parametrize("size", [(2, 2), (6, 10), (18, 34)])
def test_compiled_overlap_is_that_of_tensors(
    size: tuple[int, int], block: int, taps: tuple[tuple[int, ...], ...]
) -> None:
    generator = torch.Generator().manual_seed(6)
    planes = torch.randint(0, SAMPLE_MAX + 1, (2, *size), generator=generator).float()
    plane = InterpolatedPlane.build(planes, taps)
    rows, columns = -(-size[0] // block), -(-size[1] // block)
    for reach in (3, 40, 2047):
        vectors = torch.randint(-reach, reach + 1, (2, rows, columns), generator=generator).float()
        expected = _overlapped_anywhere(plane, vectors, block)
        assert torch.equal(_overlapped(plane, vectors, block), expected)


@pytest.mark.parametrize("taps", [_LUMA_TAPS, _CHROMA_TAPS])
@pytest.mark.parametrize("size", [(1, 1), (6, 10), (18, 34)])
def test_compiled_interpolation_is_that_of_tensors(size: tuple[int, int], taps: tuple[tuple[int, ...], ...]) -> None:
    planes = torch.from_numpy(noise(7, 2, *size)).float()
    plane = InterpolatedPlane.build(planes, taps)
    expected = InterpolatedPlane._build_anywhere(planes, taps)
    assert torch.equal(plane.samples, expected.samples)
