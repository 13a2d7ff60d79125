"""Blocks: what is written is read, what the search says is what comes out, and no words do harm."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np
import pytest
from draw_blocks import draw_blocks
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nvcodec.core.errors import SyntaxViolation, TruncatedError
from nvcodec.core.quantiser import GAIN_STEPS, quantiser_steps
from nvcodec.entropy.symbols import SymbolReader, SymbolWriter
from nvcodec.entropy.tables import BIN_TOTAL
from nvcodec.hybrid.blocks import bins_cpu
from nvcodec.hybrid.blocks.contexts import CONTEXTS, initial_probabilities
from nvcodec.hybrid.blocks.layout import (
    CHROMA_MODES,
    COMPENSATED,
    DC,
    HORIZONTAL,
    LEVEL_BOUND,
    MODES,
    PLANAR,
    SKIPPED,
    STEP_BOUND,
    VERTICAL,
    BlockLayout,
    BlockSymbols,
    decoding_order,
    scans,
)
from nvcodec.hybrid.blocks.picture import MODEL_DEPTHS, BinModels, exchange_picture, noted_bins
from nvcodec.hybrid.blocks.prediction_cpu import predict, predict_linear, smoothed, surroundings
from nvcodec.hybrid.blocks.rebuild_cpu import rebuild_planes
from nvcodec.hybrid.blocks.syntax_cpu import likely_modes
from nvcodec.hybrid.blocks.transform_cpu import add_inverse, matrices
from nvcodec.hybrid.encoder.block_kernels import search_picture

SIZES = st.tuples(st.integers(1, 37), st.integers(1, 37))
"""Of the working domain: half of the picture."""


def written(
    layout: BlockLayout, frames: list[tuple[int, bool, BlockSymbols]], models: BinModels | None = None
) -> bytes:
    """``frames``: depth, whether it refers, symbols."""
    writer = SymbolWriter()
    models = models or BinModels()
    for depth, refers, symbols in frames:
        exchange_picture(writer, models, depth, layout, refers, symbols)
    return writer.finish()


def copied(symbols: BlockSymbols) -> BlockSymbols:
    return BlockSymbols(*(array.copy() for array in symbols))


# The layout


@given(SIZES, st.integers(0, 1 << 32))
@settings(deadline=None)
def test_planes_hold_every_sample(size: tuple[int, int], seed: int) -> None:
    layout = BlockLayout(*size)
    samples = np.random.default_rng(seed).integers(0, 1024, (6, *size)).astype(np.float32)
    planes = layout.unpacked(samples)
    assert planes.shape == layout.planes
    assert (planes.dtype, layout.packed(planes).dtype) == (np.int32, np.float32)
    assert np.array_equal(layout.packed(planes), samples)
    rows, columns = (2 * n for n in size)
    assert (planes[0, rows:, :columns] == planes[0, rows - 1, :columns]).all()
    assert (planes[0, :, columns:] == planes[0, :, columns - 1 : columns]).all()
    inner = planes[1:, : layout.planes[1] // 2, : layout.planes[2] // 2]
    assert (inner[:, size[0] :] == inner[:, size[0] - 1 : size[0]]).all()
    assert (inner[:, :, size[1] :] == inner[:, :, size[1] - 1 : size[1]]).all()


@given(st.integers(1, 40), st.integers(1, 40))
@settings(deadline=None)
def test_the_order_of_decoding_is_an_order(rows: int, columns: int) -> None:
    order = decoding_order(rows, columns)
    assert order.shape == (rows, columns)
    assert len(set(order.ravel().tolist())) == rows * columns
    assert 0 <= order.min() <= order.max() < 64 * (-(-rows // 8)) * (-(-columns // 8))
    for y, x in np.ndindex(rows, columns):  # of each node the parts follow one another as a z
        for side in (2, 4, 8):
            top, left = y - y % side, x - x % side
            part = 2 * ((y - top) >= side // 2) + ((x - left) >= side // 2)
            assert order[y, x] - order[top, left] in range(part * side * side // 4, (part + 1) * side * side // 4)


@pytest.mark.parametrize("n", range(4))
def test_scans_rise_along_diagonals(n: int) -> None:
    side = 4 << n
    places = [tuple(map(int, place)) for place in scans()[n, : side * side]]
    assert sorted(places) == list(np.ndindex(side, side))
    assert places[:3] == [(0, 0), (1, 0), (0, 1)]
    assert places == sorted(places, key=lambda place: (sum(place), place[1]))


# Bins


def even(contexts: int) -> np.ndarray:
    """Probabilities of contexts that know nothing."""
    return np.array([[32768, 32768, 0]] * contexts)


def test_probabilities_stay_within_their_bounds() -> None:
    least = most = BIN_TOTAL // 2
    for bit in (0, 1):
        coder = bins_cpu.new_coder(even(2), room=3000)
        for _ in range(3000):
            assert bins_cpu.code_bin(bins_cpu.WRITE, 1, bit, coder) == bit
            ones = bins_cpu.one_in_4096(coder, 1)
            least, most = min(least, ones), max(most, ones)
        assert bins_cpu.one_in_4096(coder, 0) == BIN_TOTAL // 2  # untouched
        fast, slow, count = bins_cpu.probabilities_of(coder)[1]
        assert 0 <= min(fast, slow) <= max(fast, slow) <= 65535
        assert count == 24
        assert coder[bins_cpu.COUNT] == 3000
    assert (least, most) == (3, BIN_TOTAL - 5)  # shifts round down: a mean falls all the way and stops short above


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9])
def test_probabilities_find_the_share_of_ones(share: float) -> None:
    coder = bins_cpu.new_coder(even(1), room=4000)
    seen = []
    for bit in np.random.default_rng(1).random(4000) < share:
        bins_cpu.code_bin(bins_cpu.WRITE, 0, int(bit), coder)
        seen.append(bins_cpu.one_in_4096(coder, 0) / BIN_TOTAL)
    assert np.mean(seen[200:]) == pytest.approx(share, abs=0.02)


def test_prices_are_what_bins_cost_and_move_nothing() -> None:
    probabilities = even(2)
    probabilities[0, :2] = 9000
    coder = bins_cpu.new_coder(probabilities)
    before = coder.copy()
    bins_cpu.code_bin(bins_cpu.COST, 0, 1, coder)
    bins_cpu.code_plain(bins_cpu.COST, 0, coder)
    expected = 1 - np.log2(bins_cpu.one_in_4096(coder, 0) / BIN_TOTAL)
    assert coder[bins_cpu.BITS] / (1 << bins_cpu.PRICE_BITS) == pytest.approx(expected, abs=1e-4)
    coder[bins_cpu.BITS] = before[bins_cpu.BITS]
    assert np.array_equal(coder, before)


# Round trips


@dataclass(frozen=True)
class Drawn:
    """How the symbols of a frame are drawn, see ``draw_blocks``."""

    seed: int
    refers: bool
    depth: int
    chance: float
    amplitude: int
    steps: int

    def symbols(self, layout: BlockLayout) -> BlockSymbols:
        return draw_blocks(Random(self.seed), layout, self.refers, self.chance, self.amplitude, self.steps)


DRAWN = st.builds(
    Drawn,
    seed=st.integers(0, 1 << 32),
    refers=st.booleans(),
    depth=st.integers(0, 7),
    chance=st.sampled_from([0.0, 0.01, 0.2, 1.0]),
    amplitude=st.sampled_from([1, 4, 40, LEVEL_BOUND]),
    steps=st.sampled_from([0, 3, STEP_BOUND]),
)
EXTREME = Drawn(1, False, 0, 1.0, LEVEL_BOUND, STEP_BOUND)


@given(SIZES, st.lists(DRAWN, min_size=1, max_size=3))
@example((37, 35), [EXTREME, Drawn(2, True, 1, 0.2, 4, STEP_BOUND), Drawn(3, True, 2, 0.01, 1, 0)])
@example((1, 1), [EXTREME])
@settings(deadline=None, max_examples=60)
def test_what_is_written_is_read(size: tuple[int, int], drawn: list[Drawn]) -> None:
    layout = BlockLayout(*size)
    frames = [(d.depth, d.refers, d.symbols(layout)) for d in drawn]
    given_symbols = [copied(symbols) for *_, symbols in frames]
    ours, theirs = BinModels(), BinModels()
    data = written(layout, frames, ours)
    for (*_, symbols), before in zip(frames, given_symbols, strict=True):
        assert all(map(np.array_equal, symbols, before))  # writing changes nothing that reading would give
    reader = SymbolReader(data)
    for depth, refers, symbols in frames:
        read = exchange_picture(reader, theirs, depth, layout, refers, None)
        for name, one, other in zip(BlockSymbols._fields, read, symbols, strict=True):
            assert np.array_equal(one, other), name
    reader.finish()  # all of the words, and no more
    for one, other in zip(ours.arrays, theirs.arrays, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("level", [1, 2, 3, 14, 15, 16, 17, 4000, LEVEL_BOUND - 1, LEVEL_BOUND])
@pytest.mark.parametrize("log2", [2, 3, 4, 5])
def test_every_place_and_size_of_a_level_comes_back(level: int, log2: int) -> None:
    layout = BlockLayout(16, 16)
    side = 1 << log2
    places = [(y, x) for y in range(side) for x in range(side) if y in (0, 1, side - 1) or x in (0, 2, side - 1)]
    frames = []
    for n, (y, x) in enumerate(places):
        symbols = BlockSymbols.empty(layout, False)
        symbols.sizes[:] = log2
        symbols.levels[0, y, x] = level if n % 2 else -level
        symbols.levels[0, 0, 0] = symbols.levels[0, 0, 0] or n % 3
        frames.append((0, False, symbols))
    reader, models = SymbolReader(written(layout, frames)), BinModels()
    for _, _, symbols in frames:
        assert np.array_equal(exchange_picture(reader, models, 0, layout, False, None).levels, symbols.levels)
    reader.finish()


def test_frames_of_a_depth_share_probabilities() -> None:
    layout = BlockLayout(20, 20)
    models = BinModels()
    before = models.copy()
    written(layout, [(5, True, Drawn(3, True, 5, 0.2, 4, 3).symbols(layout))], models)
    changed = [not np.array_equal(one, other) for one, other in zip(models.arrays, before.arrays, strict=True)]
    assert changed == [False, False, False, True]
    assert len(changed) == MODEL_DEPTHS
    assert models.at(3) is models.at(7)


def test_a_reader_of_other_words_may_take_over_the_models() -> None:
    layout, models = BlockLayout(9, 9), BinModels()
    for seed in (1, 2):
        symbols = Drawn(seed, False, 0, 0.2, 4, 3).symbols(layout)
        data = written(layout, [(0, False, copied(symbols))], models.copy())
        read = exchange_picture(SymbolReader(data), models, 0, layout, False, None)
        assert all(map(np.array_equal, read, symbols))


def test_what_is_predicted_costs_next_to_nothing() -> None:
    layout = BlockLayout(120, 160)  # 80 roots
    for refers in (False, True):
        symbols = BlockSymbols.empty(layout, refers)
        assert 8 * len(written(layout, [(0, refers, symbols)])) < 4 * 80
    sizes = BlockSymbols.empty(BlockLayout(20, 17), True).sizes
    assert (sizes[:8, :8] == 5).all()
    assert (sizes[8:10, :8] == 3).all()
    assert {*sizes.ravel().tolist()} == {3, 5}


# Hostile words


def check_symbols(symbols: BlockSymbols, refers: bool) -> None:
    sizes, modes, choices, offsets, levels = symbols
    assert 2 <= sizes.min() <= sizes.max() <= 5
    assert 0 <= modes.min() <= modes.max() <= (COMPENSATED if refers else MODES - 1)
    assert 0 <= choices.min() <= choices.max() < CHROMA_MODES
    assert np.abs(offsets).max() <= STEP_BOUND
    assert np.abs(levels).max() <= LEVEL_BOUND


def read_all(data: bytes, layout: BlockLayout, frames: list[tuple[int, bool]]) -> list[BlockSymbols]:
    """What is read before the words belong to nothing; each of it is checked and can be rebuilt."""
    reader, models = SymbolReader(data), BinModels()
    found: list[BlockSymbols] = []
    for depth, refers in frames:
        try:
            symbols = exchange_picture(reader, models, depth, layout, refers, None)
        except TruncatedError:
            break
        check_symbols(symbols, refers)
        planes = np.full(layout.planes, 700, np.int32)
        rebuild_planes(*symbols, planes, decoding_order(*symbols.sizes.shape), 50, quantiser_steps())
        assert 0 <= planes.min() <= planes.max() <= 1023
        found.append(symbols)
    return found


@given(SIZES, st.binary(max_size=1500).map(lambda data: data[: len(data) & ~3]), st.booleans())
@settings(deadline=None, max_examples=60)
def test_any_words_are_symbols_or_truncated(size: tuple[int, int], data: bytes, refers: bool) -> None:
    read_all(data, BlockLayout(*size), [(0, refers), (2, True), (1, refers)])


@pytest.mark.parametrize("refers", [False, True])
def test_many_random_words(refers: bool) -> None:
    random = np.random.default_rng(8)
    layout, refused = BlockLayout(21, 37), 0
    for _ in range(300):
        data = random.integers(0, 256, 4 * int(random.integers(1, 400))).astype(np.uint8).tobytes()
        refused += not read_all(data, layout, [(0, refers)])
    assert 10 < refused < 290  # both happen


@pytest.mark.parametrize("refers", [False, True])
def test_damaged_words(refers: bool) -> None:
    layout = BlockLayout(20, 26)
    frames = [(d, refers, Drawn(d, refers, d, 0.2, 6, 9).symbols(layout)) for d in range(2)]
    data = written(layout, frames)
    kinds = [(depth, refers) for depth, *_ in frames]
    whole = read_all(data, layout, kinds)
    assert len(whole) == 2
    different = 0
    for position in range(0, len(data), 3):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        found = read_all(bytes(damaged), layout, kinds)
        same = len(found) == 2 and all(
            np.array_equal(one, other)
            for pair in zip(found, whole, strict=True)
            for one, other in zip(*pair, strict=True)
        )
        different += not same
    assert different > 0.9 * len(range(0, len(data), 3))
    for length in range(0, len(data), 16):
        read_all(data[:length], layout, kinds)


def test_levels_and_steps_beyond_their_bounds_are_refused() -> None:
    layout = BlockLayout(4, 4)
    for level, is_refused in ((LEVEL_BOUND, False), (LEVEL_BOUND + 1, True), (60000, True)):
        symbols = BlockSymbols.empty(layout, False)
        symbols.levels[0, 1, 1] = level
        assert is_refused == (not read_all(noted(symbols), layout, [(0, False)]))
    for step, is_refused in ((-STEP_BOUND, False), (STEP_BOUND + 1, True), (-STEP_BOUND - 1, True)):
        symbols = BlockSymbols.empty(layout, False)
        symbols.offsets[0, 0], symbols.levels[0, 0, 0] = step, 1
        assert is_refused == (not read_all(noted(symbols), layout, [(0, False)]))


def noted(symbols: BlockSymbols) -> bytes:
    """The words of a frame by which the writer's own checks are passed over."""
    writer = SymbolWriter()
    writer.exchange_bins(all_bins(symbols))
    return writer.finish()


def all_bins(symbols: BlockSymbols) -> np.ndarray:
    """Writing stops behind what it refuses: the bins up to there."""
    return noted_bins(initial_probabilities(0), symbols, False)


def test_words_that_go_on_are_noticed() -> None:
    layout = BlockLayout(9, 9)
    data = written(layout, [(0, False, Drawn(4, False, 0, 0.2, 6, 9).symbols(layout))])
    reader = SymbolReader(data + bytes(7) + b"\1")
    exchange_picture(reader, BinModels(), 0, layout, False, None)
    with pytest.raises(SyntaxViolation):
        reader.finish()


# Prediction


def line_of(block: np.ndarray, side: int) -> np.ndarray:
    """Of a block whose corner is at (0, 0): the samples around it in a (2 side + 1) square, from the lowest on."""
    line = np.zeros(129, np.int32)
    line[: 2 * side] = block[:0:-1, 0]
    line[2 * side : 4 * side + 1] = block[0]
    return line


@pytest.mark.parametrize("log2", [2, 3, 4, 5])
@pytest.mark.parametrize("mode", range(MODES))
def test_what_is_flat_is_predicted_flat(mode: int, log2: int) -> None:
    out = np.full((32, 32), -1, np.int32)
    predict(mode, np.full(129, 345, np.int32), log2, out)
    side = 1 << log2
    assert (out[:side, :side] == 345).all()
    out[:side, :side] = -1
    assert (out == -1).all()  # nothing beside it is written


@pytest.mark.parametrize("log2", [2, 3, 4, 5])
def test_straight_lines_and_planes(log2: int) -> None:
    side = 1 << log2
    y, x = np.mgrid[0 : 2 * side + 1, 0 : 2 * side + 1]
    random = np.random.default_rng(log2).integers(0, 1024, 2 * side + 1)
    out = np.zeros((side, side), np.int32)
    cases = [
        (VERTICAL, random[x]),
        (HORIZONTAL, random[y]),
        (34, random[np.minimum(x + y, 2 * side)]),
        (18, random[(x - y) % (2 * side + 1)]),
    ]
    for mode, picture in cases:
        predict(mode, line_of(picture, side), log2, out)
        assert np.array_equal(out, picture[1 : side + 1, 1 : side + 1]), mode
    predict(PLANAR, line_of(np.clip(200 + 4 * x + 5 * y, 0, 1023), side), log2, out)
    right, below = 200 + 4 * (side + 1), 200 + 5 * (side + 1)
    assert out[-1, -1] == (right + below + 1) >> 1  # between the ends of the line
    assert abs(out[0, 0] - 209) <= 4  # and beside the corner as the samples there are
    assert np.abs(out[:, 0] - (204 + 5 * np.arange(1, side + 1))).max() <= side
    predict(DC, line_of(random[x], side), log2, out)
    inner = out[-1, -1]  # the far corner is left as the mean is
    assert inner == (side + random[1 : side + 1].sum() + side * random[0]) >> (log2 + 1)


@given(st.integers(0, MODES - 1), st.integers(2, 5), st.integers(0, 1 << 32))
@settings(deadline=None)
def test_modes_mirrored_at_the_diagonal_predict_the_same(mode: int, log2: int, seed: int) -> None:
    side = 1 << log2
    line = np.random.default_rng(seed).integers(0, 1024, 129).astype(np.int32)
    turned = line.copy()
    turned[: 4 * side + 1] = line[: 4 * side + 1][::-1]
    out, other = np.zeros((side, side), np.int32), np.zeros((side, side), np.int32)
    predict(mode, line, log2, out)
    predict(mode if mode < 2 else 36 - mode, turned, log2, other)
    assert np.array_equal(out, other.T)
    assert 0 <= out.min() <= out.max() <= 1023
    line[4 * side + 1 :] = -5  # what lies behind the line is not looked at
    predict(mode, line, log2, other)
    assert np.array_equal(out, other)


@pytest.mark.parametrize("unit", [4, 2])
@pytest.mark.parametrize("log2", [2, 3, 4, 5])
def test_the_line_around_a_block_holds_what_is_known(log2: int, unit: int) -> None:
    """Against its definition, at every aligned place of a picture that ends within a root."""
    rows, columns = 10, 14
    side = (1 << log2) * unit // 4
    order = decoding_order(rows, columns)
    plane = np.random.default_rng(3).integers(0, 1024, (rows * unit, columns * unit)).astype(np.int32)
    units = 1 << (log2 - 2)
    nothing = 0
    for row in range(0, rows - units + 1, units):
        for column in range(0, columns - units + 1, units):
            top, left = row * unit, column * unit
            places = [(top + 2 * side - 1 - k, left - 1) for k in range(2 * side)]
            places += [(top - 1, left - 1 + k) for k in range(2 * side + 1)]
            expected: list[int | None] = []
            for y, x in places:
                inside = 0 <= y < plane.shape[0] and 0 <= x < plane.shape[1]
                known = inside and order[y // unit, x // unit] < order[row, column]
                expected.append(int(plane[y, x]) if known else expected[-1] if expected else None)
            first = next((value for value in expected if value is not None), 512)
            nothing += all(value is None for value in expected)
            line = np.full(129, -1, np.int32)
            surroundings(plane, order, order[row, column], top, left, side, unit, line)
            assert line[: 4 * side + 1].tolist() == [first if v is None else v for v in expected], (row, column)
            assert (line[4 * side + 1 :] == -1).all()
    assert nothing == 1  # the first block alone


def test_smoothing() -> None:
    line = np.random.default_rng(1).integers(0, 1024, 129).astype(np.int32)
    out = np.zeros(129, np.int32)
    smoothed(line, 8, out)
    inner = (line[:31] + 2 * line[1:32] + line[2:33] + 2) >> 2
    assert np.array_equal(out[:33], [line[0], *inner, line[32]])
    assert (out[33:] == 0).all()


@given(st.integers(-900, 900), st.integers(0, 1023), st.integers(0, 1 << 32))
@settings(deadline=None)
def test_chroma_that_is_linear_in_luma_is_found(slope: int, base: int, seed: int) -> None:
    luma = np.random.default_rng(seed).integers(0, 1024, (32, 32)).astype(np.int32)
    mean = (luma[::2, ::2] + luma[1::2, ::2] + luma[::2, 1::2] + luma[1::2, 1::2] + 2) >> 2
    plane = np.zeros((32, 32), np.int32)
    plane[:16, :16] = base + ((slope * mean) >> 8)
    out = np.zeros((8, 8), np.int32)
    predict_linear(luma, plane, 8, 8, 8, out)
    expected = np.clip(plane[8:16, 8:16], 0, 1023)
    assert np.abs(out - expected).max() <= 10
    predict_linear(luma, plane, 0, 0, 8, out)
    assert (out == 512).all()  # nothing is known


@given(st.integers(0, COMPENSATED), st.integers(0, COMPENSATED))
def test_likely_modes_are_three(left: int, above: int) -> None:
    modes = np.array([[0, above], [left, 0]], np.int32)
    found = likely_modes(modes, 1, 1)
    assert len(set(found)) == 3
    assert all(0 <= mode < MODES for mode in found)
    assert {mode for mode in (left, above) if mode < MODES} <= set(found)
    assert likely_modes(modes, 0, 0) == (PLANAR, DC, VERTICAL)


# The transform


@pytest.mark.parametrize("n", range(4))
def test_the_matrices_are_orthonormal(n: int) -> None:
    side = 4 << n
    real = matrices()[n, :side, :side] / 8192 * np.sqrt(2 / side)
    assert np.abs(real @ real.T - np.eye(side)).max() < 2e-4
    k, i = np.mgrid[0:side, 0:side]
    cosines = np.sqrt(2 / side) * np.cos((2 * i + 1) * k * np.pi / (2 * side)) * np.where(k, 1, np.sqrt(0.5))
    assert np.abs(real - cosines).max() < 1e-4


@given(st.integers(2, 5), st.integers(0, 1 << 32))
@settings(deadline=None)
def test_the_inverse_restores(log2: int, seed: int) -> None:
    """Levels are the exact transform of a block, in steps: what comes out is off by rounding alone."""
    side, step = 1 << log2, 4
    random = np.random.default_rng(seed)
    real = matrices()[log2 - 2, :side, :side] / 8192 * np.sqrt(2 / side)
    wanted = random.integers(200, 801, (side, side))
    prediction = np.full((side, side), 500, np.int32)
    levels = np.zeros((40, 40), np.int32)
    levels[3 : 3 + side, 5 : 5 + side] = np.rint(real @ (wanted - prediction) @ real.T / step)
    out = prediction.copy()
    add_inverse(levels, 3, 5, log2, step, out)
    expected = prediction + real.T @ (levels[3 : 3 + side, 5 : 5 + side] * step) @ real
    assert np.abs(out - expected).max() < 0.6
    assert np.sqrt(np.square(out - wanted).mean()) < step / np.sqrt(12) * 1.5


@given(
    st.integers(2, 5), st.integers(0, 1 << 32), st.sampled_from([3, 100, LEVEL_BOUND]), st.sampled_from([4, 61, 939])
)
@settings(deadline=None)
def test_the_inverse_is_that_of_integers(log2: int, seed: int, largest: int, step: int) -> None:
    side = 1 << log2
    random = np.random.default_rng(seed)
    levels = random.integers(-largest, largest + 1, (side, side)) * (random.random((side, side)) < 0.2)
    prediction = random.integers(0, 1024, (side, side)).astype(np.int32)
    matrix = matrices()[log2 - 2, :side, :side].astype(np.int64)
    half = (matrix.T @ (levels * step).clip(-(2**19) + 1, 2**19 - 1) + 2**8) >> 9
    shift = 26 - 9 + log2 - 1
    expected = (prediction + ((half @ matrix + (1 << (shift - 1))) >> shift)).clip(0, 1023)
    out = prediction.copy()
    add_inverse(levels.astype(np.int32), 0, 0, log2, step, out)
    assert np.array_equal(out, expected)


def test_the_inverse_clips_and_overflows_nowhere() -> None:
    for log2 in range(2, 6):
        side = 1 << log2
        for sign in (1, -1):
            out = np.full((side, side), 512, np.int32)
            levels = np.full((side, side), sign * LEVEL_BOUND, np.int32)
            add_inverse(levels, 0, 0, log2, int(quantiser_steps().max()), out)
            assert 0 <= out.min() <= out.max() <= 1023
            levels[:] = 0
            levels[0, 0] = sign * LEVEL_BOUND
            add_inverse(levels, 0, 0, log2, int(quantiser_steps().max()), out)
            assert (out == (1023 if sign > 0 else 0)).all()


# The search


def natural(layout: BlockLayout, seed: int) -> np.ndarray:
    """int32 planes with edges, waves and grain."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0 : layout.planes[1], 0 : layout.planes[2]]
    planes = [
        500 + 200 * np.sin(x / 9 + seed + k) + 150 * np.cos(y / 7 - x / 13) + 100 * ((x + 2 * y) % 40 > 20)
        + random.normal(0, 12, x.shape)
        for k in range(3)
    ]  # fmt: skip
    return np.clip(np.rint(planes), 0, 1023).astype(np.int32)


def noise(layout: BlockLayout, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1024, layout.planes).astype(np.int32)


@dataclass
class Searched:
    symbols: BlockSymbols
    planes: np.ndarray
    bits: float
    error: float
    model: np.ndarray


def searched(
    layout: BlockLayout,
    source: np.ndarray,
    foreseen: np.ndarray | None,
    lmbda: float,
    gain: int = 24,
    offsets: int = 0,
    tries: tuple[int, ...] = (5, 4, 3, 3, 0),
) -> Searched:
    symbols = BlockSymbols.zeros(layout)
    sizes, modes, choices, steps, levels = symbols
    steps[:] = np.random.default_rng(2).integers(-offsets, offsets + 1, steps.shape)
    planes = np.zeros(layout.planes, np.int32)
    weights = np.full((2, *layout.planes[1:]), 1 / 16, np.float32)
    coder = bins_cpu.new_coder(initial_probabilities(0))
    known = np.zeros((3, 0, 0), np.int32) if foreseen is None else foreseen
    search_picture(
        source, weights, planes, levels, sizes, modes, choices, steps, decoding_order(*sizes.shape), gain,
        quantiser_steps(), np.float32(lmbda), coder, known, np.array(tries),
    )  # fmt: skip
    writer = SymbolWriter()
    models = BinModels()
    exchange_picture(writer, models, 0, layout, foreseen is not None, symbols)
    assert np.array_equal(models.at(0), bins_cpu.probabilities_of(coder))  # they are what coding leaves
    rows, columns = layout.planes[1:]
    parts = (slice(rows), slice(columns)), (slice(rows // 2), slice(columns // 2))
    squares = [np.square(source[c] - planes[c])[parts[min(c, 1)]].sum() / 16 for c in range(3)]
    return Searched(symbols, planes, writer.bits, float(sum(squares)), models.at(0))


def rebuilt(layout: BlockLayout, symbols: BlockSymbols, foreseen: np.ndarray | None, gain: int = 24) -> np.ndarray:
    planes = np.zeros(layout.planes, np.int32) if foreseen is None else foreseen.copy()
    rebuild_planes(*symbols, planes, decoding_order(*symbols.sizes.shape), gain, quantiser_steps())
    return planes


def parts_of(planes: np.ndarray) -> list[np.ndarray]:
    """Y, U and V: the latter two fill a quarter of theirs."""
    _, rows, columns = planes.shape
    return [planes[0], planes[1, : rows // 2, : columns // 2], planes[2, : rows // 2, : columns // 2]]


@pytest.mark.parametrize("content", [natural, noise])
@pytest.mark.parametrize("size", [(1, 1), (5, 9), (20, 26), (33, 47)])
@pytest.mark.parametrize("refers", [False, True])
@pytest.mark.parametrize("lmbda", [0.5, 20.0, 800.0])
def test_the_search_says_what_comes_out(content, size: tuple[int, int], refers: bool, lmbda: float) -> None:  # type: ignore[no-untyped-def]
    layout = BlockLayout(*size)
    source = content(layout, 3)
    foreseen = None
    if refers:  # half of the picture is as foreseen
        foreseen = content(layout, 4)
        foreseen[:, :, : layout.planes[2] // 4] = source[:, :, : layout.planes[2] // 4]
    found = searched(layout, source, foreseen, lmbda, offsets=5)
    check_symbols(found.symbols, refers)
    made = rebuilt(layout, found.symbols, foreseen)
    for one, other in zip(parts_of(made), parts_of(found.planes), strict=True):
        assert np.array_equal(one, other)
    reader = SymbolReader(written(layout, [(0, refers, copied(found.symbols))]))
    read = exchange_picture(reader, BinModels(), 0, layout, refers, None)
    for one, other in zip(parts_of(rebuilt(layout, read, foreseen)), parts_of(made), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("refers", [False, True])
def test_a_higher_price_buys_fewer_bits_and_more_error(refers: bool) -> None:
    layout = BlockLayout(36, 44)
    source, foreseen = natural(layout, 1), natural(layout, 2) if refers else None
    found = [searched(layout, source, foreseen, lmbda) for lmbda in (1.0, 10.0, 100.0, 1000.0)]
    bits, errors = [f.bits for f in found], [f.error for f in found]
    assert bits == sorted(bits, reverse=True)
    assert bits[0] > 1.3 * bits[1] > 1.3**2 * bits[2] > 1.3**3 * bits[3]
    assert errors == sorted(errors)
    for at, lmbda in enumerate((1.0, 10.0, 100.0, 1000.0)):  # each is the best of them at its own price, or nearly so
        costs = [error + lmbda * size for error, size in zip(errors, bits, strict=True)]
        assert costs[at] < 1.01 * min(costs)


def test_a_smaller_step_brings_less_error() -> None:
    layout = BlockLayout(36, 44)
    errors = [searched(layout, natural(layout, 1), None, 0.01, gain).error for gain in (0, 16, 32)]
    assert errors[0] < 0.3 * errors[1] < 0.09 * errors[2]


def test_what_needs_no_levels_costs_next_to_nothing() -> None:
    layout = BlockLayout(64, 64)  # 16 roots
    for value in (0, 512, 777):
        found = searched(layout, np.full(layout.planes, value, np.int32), None, 20.0)
        assert found.bits < 12 * 16
        assert np.abs(np.concatenate([p.ravel() for p in parts_of(found.planes)]) - value).max() <= 8
    source = noise(layout, 1)
    found = searched(layout, source, source.copy(), 20.0)
    assert found.bits < 60
    assert (found.symbols.modes == SKIPPED).all()
    assert (found.error, (found.symbols.sizes == 5).all()) == (0, True)


def test_directions_are_found() -> None:
    layout = BlockLayout(32, 32)
    y, x = np.mgrid[0:64, 0:64]
    stripes = np.random.default_rng(1).integers(200, 800, 200)
    for mode, place in ((VERTICAL, x), (HORIZONTAL, y), (34, x + y), (18, x - y + 70)):
        source = np.full(layout.planes, 512, np.int32)
        source[0] = stripes[place]
        found = searched(layout, source, None, 20.0).symbols.modes[2:]
        assert (found == mode).mean() > 0.5, mode


def test_weights_say_where_errors_count() -> None:
    layout = BlockLayout(32, 32)
    source = natural(layout, 1)
    weights = np.full((2, *layout.planes[1:]), 1 / 16, np.float32)
    weights[:, :, 32:] *= 0.05
    symbols = BlockSymbols.zeros(layout)
    planes = np.zeros(layout.planes, np.int32)
    search_picture(
        source, weights, planes, symbols.levels, *symbols[:4], decoding_order(16, 16), 24, quantiser_steps(),
        np.float32(20), bins_cpu.new_coder(initial_probabilities(0)), np.zeros((3, 0, 0), np.int32),
        np.array((5, 4, 3, 3, 0)),
    )  # fmt: skip
    squares = np.square(source[0] - planes[0])
    assert squares[:, 32:].mean() > 2 * squares[:, :32].mean()


def test_the_more_is_tried_the_less_it_costs() -> None:
    layout = BlockLayout(48, 48)
    source, lmbda = natural(layout, 1), 40.0
    found = [searched(layout, source, None, lmbda, tries=tries) for tries in ((1, 1, 1, 1, 0), (10, 8, 6, 6, 1))]
    few, many = (result.error + lmbda * result.bits for result in found)
    assert many < few


def test_quantiser_steps() -> None:
    steps = quantiser_steps()
    assert steps.shape == (GAIN_STEPS, 2)
    assert (np.diff(steps, axis=0) >= 0).all()
    assert np.array_equal(steps[8::8, 0], 2 * steps[:-8:8, 0])
    assert np.array_equal(steps[4:, 1], steps[:-4, 0])


@pytest.mark.parametrize("depth", range(MODEL_DEPTHS))
def test_first_probabilities_are_those_of_as_many_contexts(depth: int) -> None:
    first = initial_probabilities(depth)
    assert first.shape == (CONTEXTS, 3)
    assert 0 <= first[:, :2].min() <= first[:, :2].max() <= 65535
    assert not first[:, 2].any()
    assert np.array_equal(first[:, 0], first[:, 1])
    first[:] = 1  # a copy
    assert not np.array_equal(initial_probabilities(depth), first)
