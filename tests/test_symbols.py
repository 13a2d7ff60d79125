"""Symbols through the range coder: what goes in comes out, damaged data does no harm, and the literal words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensor_versions import TensorContext

from nvcodec.core.errors import BitstreamError, SyntaxViolation, TruncatedError
from nvcodec.core.fixedpoint import Rounding, exact_inference
from nvcodec.entropy.context import (
    FEATURES,
    HIDDEN,
    MARGIN,
    SIDE_FEATURES,
    STAGES,
    ChannelLayout,
    ContextWeights,
    at_stages,
    features,
    location_and_scale,
    stage_of,
)
from nvcodec.entropy.context_cpu import LevelContext
from nvcodec.entropy.symbols import SymbolReader, SymbolWriter, code_level, pad_even
from nvcodec.entropy.tables import BIN_TOTAL, FRACTIONS, SCALES, bits_of_bins, table_frequencies
from nvcodec.grid.levels import appearance_layout
from nvcodec.hybrid.blocks import bins_cpu
from nvcodec.motion.levels import motion_layout

Size = tuple[int, int, int, int]
CHANNELS = (2, 3, 4, 5, 6, 9)


def weights(seed: int) -> ContextWeights:
    """A context model that uses every feature; its tables range over all scales and fractions."""
    rng = np.random.default_rng(seed)

    def integers(bound: int, *shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.integers(-bound, bound + 1, shape)).float()

    return ContextWeights(
        integers(40, HIDDEN, FEATURES),
        integers(60, STAGES, HIDDEN),
        integers(120, 2, HIDDEN),
        integers(300, 8, 5, 2),
        integers(100, 5, 4, 2),
    )


def layout_for(channels: int) -> ChannelLayout:
    """Channels in groups of three."""
    return ChannelLayout(tuple(c // 3 for c in range(channels)))


def side_for(seed: int, size: Size) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    batch, channels, rows, columns = size
    return torch.from_numpy(rng.integers(0, 193, (batch, channels + SIDE_FEATURES - 1, rows, columns))).float()


def level_of(seed: int, size: Size, largest: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.laplace(0, largest / 4, size).round().clip(-largest, largest)).float()


def written(level: torch.Tensor, seed: int) -> tuple[bytes, float]:
    size: Size = tuple(level.shape)  # type: ignore[assignment]
    writer, model = SymbolWriter(), weights(seed)
    with exact_inference():
        layout = layout_for(size[1])
        out = code_level(writer, level, layout, side_for(seed, size), model, model.bias(2, 1, layout))
    assert torch.equal(out, level)
    return writer.finish(), writer.bits


def read(data: bytes, size: Size, seed: int) -> tuple[torch.Tensor, SymbolReader]:
    reader, model = SymbolReader(data), weights(seed)
    with exact_inference():
        layout = layout_for(size[1])
        out = code_level(reader, None, layout, side_for(seed, size), model, model.bias(2, 1, layout))
    return out, reader


# Levels


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 3), st.sampled_from(CHANNELS), st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from([1, 3, 20, 127]),
)
def test_levels_come_back(seed: int, size: Size, largest: int) -> None:
    level = level_of(seed, size, largest)
    data, bits = written(level, seed)
    out, reader = read(data, size, seed)
    assert torch.equal(out, level)
    reader.finish()
    assert reader.bits == pytest.approx(bits, rel=1e-3, abs=0.05)
    assert -1 <= 8 * len(data) - bits <= 64 + 0.001 * bits


@pytest.mark.parametrize("value", [-127, 127])
def test_extreme_symbols_come_back(value: int) -> None:
    """Wherever the model expects them: locations reach 100 symbols to either side."""
    for seed in range(8):
        size = (1, 9, 3, 5)
        level = torch.full(size, float(value))
        level[0, ::2, ::2] *= -1
        data, _ = written(level, seed)
        assert torch.equal(read(data, size, seed)[0], level)


def test_a_level_of_one_symbol() -> None:
    for value in (-127.0, -1.0, 0.0, 1.0, 127.0):
        level = torch.full((1, 2, 1, 1), value)
        data, _ = written(level, 3)
        assert torch.equal(read(data, (1, 2, 1, 1), 3)[0], level)


def test_nothing_costs_nothing() -> None:
    writer = SymbolWriter()
    none = np.zeros(0, dtype=np.uint8)
    assert len(writer.exchange(none, none.astype(np.int32))) == 0
    assert (writer.finish(), writer.bits) == (b"", 0.0)
    reader = SymbolReader(b"")
    assert len(reader.exchange(none)) == 0
    reader.finish()


def test_flags_cost_a_bit_each() -> None:
    flags = np.random.default_rng(0).integers(0, 2, 1000).astype(np.int32)
    writer = SymbolWriter()
    writer.exchange_flags(flags, 1000)
    data = writer.finish()
    assert writer.bits == 1000
    assert len(data) == 128  # 1000 bits, and up to a word to end with
    assert SymbolReader(data).exchange_flags(None, 1000).tolist() == flags.tolist()


def test_symbols_are_coded_in_order_of_their_table() -> None:
    """A reader that knows the tables finds the symbols of the lower table first."""
    writer = SymbolWriter()
    writer.exchange(np.array([200, 4, 200, 4], dtype=np.uint8), np.array([1, 2, 3, 4], dtype=np.int32))
    reader = SymbolReader(writer.finish())
    order = [int(reader.exchange(np.array([table], dtype=np.uint8))[0]) for table in (4, 4, 200, 200)]
    assert order == [2, 4, 1, 3]


def test_bins_come_back_one_by_one() -> None:
    """Between flags and symbols, by every probability there is."""
    rng = np.random.default_rng(1)
    ones = np.array([1, 2, 3, 4, 100, 2048, 4000, 4093, 4094, 4095] * 60)
    bins = (rng.random(len(ones)) * BIN_TOTAL < ones).astype(int)
    flags, table = np.array([1, 0, 1], np.int32), np.full(4, 90, np.uint8)
    writer = SymbolWriter()
    writer.exchange_flags(flags, 3)
    writer.exchange_bins(2 * ones + bins)
    writer.exchange(table, np.array([1, -2, 3, 0], np.int32))
    bits = -np.log2(np.where(bins, ones, BIN_TOTAL - ones) / BIN_TOTAL).sum()
    assert bits_of_bins(2 * ones + bins) == pytest.approx(bits)
    expected = 3 + bits + -np.log2([table_frequencies(22, 2)[127 + s] / 2**24 for s in (1, -2, 3, 0)]).sum()
    assert writer.bits == pytest.approx(expected, rel=1e-5)

    reader = SymbolReader(writer.finish())
    assert reader.exchange_flags(None, 3).tolist() == flags.tolist()
    coder = bins_cpu.new_coder(np.zeros((1, 3), np.int64), reader.decoder.words)
    state = coder[:4].view(np.uint64)
    state[:] = reader.decoder.state
    assert [bins_cpu._read(int(n), coder) for n in ones] == bins.tolist()
    reader.decoder.state[:] = state
    assert reader.exchange(table).tolist() == [1, -2, 3, 0]
    reader.finish()
    with pytest.raises(TypeError):
        reader.exchange_bins(ones)


# The context model


@pytest.mark.parametrize("channels", CHANNELS)
def test_every_sample_is_read_in_one_stage(channels: int) -> None:
    stages = stage_of(channels)
    for c in range(channels):
        assert sorted(stages[s][c] for s in range(STAGES)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for s in range(STAGES):
        assert len({stages[s][c] for c in range(4)} if channels >= 4 else {0, 1, 2, 3}) == 4


def test_stages_of_four_channels() -> None:
    """Each channel is one stage behind the one before it."""
    picture = ["0 2/3 1", "1 3/0 2", "2 0/1 3", "3 1/2 0"]
    for c, cells in enumerate(picture):
        for row, line in enumerate(cells.split("/")):
            for column, stage in enumerate(line.split()):
                assert stage_of(4)[int(stage)][c] == (row, column)


@pytest.mark.parametrize("channels", CHANNELS)
def test_features_do_not_look_ahead(channels: int) -> None:
    """What stage s sees is the same whether the symbols of stages s and later are there or not."""
    size = (2, channels, 6, 8)
    level, side = level_of(1, size, 30), side_for(1, size)
    layout = layout_for(channels)
    full = features(level, layout, tuple(range(STAGES)), side, Rounding.EXACT)
    known = torch.zeros(size)
    for s in range(STAGES):
        assert torch.equal(features(known, layout, (s,), side, Rounding.EXACT)[:, 0], full[:, s]), s
        for c, (row, column) in enumerate(stage_of(channels)[s]):
            known[:, c, row::2, column::2] = level[:, c, row::2, column::2]
    assert torch.equal(known, level)


def test_every_feature_has_something_to_say() -> None:
    size = (1, 9, 8, 8)
    values = features(level_of(4, size, 20), layout_for(9), (3,), side_for(4, size), Rounding.EXACT)
    assert values.shape == (1, 1, 9, FEATURES, 4, 4)
    assert all(len(values[:, :, :, f].unique()) > 3 for f in range(FEATURES))
    assert torch.equal(values, values.round())


def test_at_stages_picks_the_phases() -> None:
    level = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert at_stages(level, (1,)).tolist() == [[[[[5, 7], [13, 15]]]]]


def test_pad_even() -> None:
    assert pad_even(torch.ones(1, 1, 3, 2)).tolist() == [[[[1, 1], [1, 1], [1, 1], [0, 0]]]]
    assert pad_even(torch.ones(1, 1, 2, 4)).shape == (1, 1, 2, 4)


def test_location_and_scale_by_hand() -> None:
    """hidden = (3 * 10 + 64 * 2 + 32) >> 6 = 2, second unit clipped at 0; outputs (2 w + 64 b + 512) >> 10."""
    model = ContextWeights(
        torch.zeros(HIDDEN, FEATURES),
        torch.zeros(STAGES, HIDDEN),
        torch.zeros(2, HIDDEN),
        torch.zeros(0),
        torch.zeros(0),
    )
    model.hidden[0, 1], model.hidden[1, 1] = 3, -30
    model.hidden_bias[1, 0] = 2
    model.output[0, 0], model.output[1, 0] = -700, 2000
    model.output[:, 1] = 2000
    inputs = torch.zeros(1, 1, 1, FEATURES, 1, 1)
    inputs[0, 0, 0, 1] = 10
    bias = torch.tensor([[-40.0, 100.0]])
    location, scale = location_and_scale(inputs, model, (1,), bias, Rounding.EXACT)
    assert (location.item(), scale.item()) == (-4, 10)  # (-1400 - 2560 + 512) >> 10, (4000 + 6400 + 512) >> 10
    for bias_value, expected in ((-2048.0, (-129, 0)), (2048.0, (127, SCALES - 1))):
        location, scale = location_and_scale(inputs, model, (1,), torch.full((1, 2), bias_value), Rounding.EXACT)
        assert (location.item(), scale.item()) == expected


# Damage


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40))
def test_truncated_data_is_told_or_decodes_to_symbols(seed: int, words: int) -> None:
    size = (1, 3, 7, 9)
    data, _ = written(level_of(seed, size, 60), seed)
    try:
        out, _ = read(data[: 4 * words], size, seed)
    except TruncatedError:
        return
    assert out.shape == size
    assert out.abs().max() <= 127


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 20), st.binary(max_size=200))
def test_any_bytes_are_an_error_or_symbols(seed: int, data: bytes) -> None:
    size = (1, 4, 5, 5)
    try:
        out, reader = read(data, size, seed)
        assert torch.equal(out, out.round())
        assert out.abs().max() <= 127
        reader.finish()
    except BitstreamError:
        pass


def test_data_that_ends_early_is_told() -> None:
    """Half a level reads as symbols until the decoder notices; with nothing to read that is sooner or later sure."""
    data, _ = written(level_of(4, (1, 9, 9, 9), 60), 4)
    told = 0
    for words in range(0, len(data) // 4 - 2, 8):
        try:
            read(data[: 4 * words], (1, 9, 9, 9), 4)
        except TruncatedError:
            told += 1
    assert told > 0


def test_flags_in_damaged_data() -> None:
    reader = SymbolReader(b"\xff" * 8)
    with pytest.raises(TruncatedError, match=r"^entropy-coded data ends early or is damaged$"):
        reader.exchange_flags(None, 200)


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_data_is_whole_words(length: int) -> None:
    with pytest.raises(SyntaxViolation, match=f"{length} bytes is not a whole number of 32-bit words"):
        SymbolReader(bytes(length))


def test_data_left_over_is_an_error() -> None:
    data, _ = written(level_of(2, (1, 3, 4, 4), 20), 2)
    _, reader = read(data + bytes(8), (1, 3, 4, 4), 2)
    with pytest.raises(SyntaxViolation, match="goes on after its last symbol"):
        reader.finish()


# Literal words


def test_words_of_a_few_symbols() -> None:
    """Table 112 is scale 28 (b = 0.8) at location 0."""
    writer = SymbolWriter()
    writer.exchange_flags(np.array([1, 0, 1], dtype=np.int32), 3)
    writer.exchange(np.full(5, 28 * FRACTIONS, dtype=np.uint8), np.array([0, 1, -1, 5, -127], dtype=np.int32))
    assert writer.finish().hex(" ", 4) == "89cdf9b3 01e78044"


def test_words_of_a_level() -> None:
    """The whole path, context model included, on hand-made integers."""
    size = (2, 3, 3, 5)

    def pattern(*shape: int, modulus: int) -> torch.Tensor:
        count = int(np.prod(shape))
        return (torch.arange(count).reshape(shape) * 7 % modulus - modulus // 2).float()

    model = ContextWeights(
        pattern(HIDDEN, FEATURES, modulus=31),
        pattern(STAGES, HIDDEN, modulus=41),
        pattern(2, HIDDEN, modulus=101),
        torch.zeros(0),
        torch.zeros(0),
    )
    bias = torch.tensor([[0.0, 300.0], [20.0, 350.0], [-30.0, 400.0]])
    level = pattern(*size, modulus=9)
    side = pattern(2, 5, 3, 5, modulus=60) + 30
    writer = SymbolWriter()
    with exact_inference():
        code_level(writer, level, layout_for(3), side, model, bias)
    data = writer.finish()
    with exact_inference():
        assert torch.equal(code_level(SymbolReader(data), None, layout_for(3), side, model, bias), level)
    assert data.hex(" ", 4) == (
        "50b75101 de63fc4f bfc39066 b8de9195 35c8dc59 d77ca3b9 35660ecc ca974406 c5b1e897 42d129c0 aa52a521 "
        "d73ca64e 86c09974 e7d873ff c6c1c801 3f3243cd 6923ed51 d9fba6d8 e92ddd79 dbfc3ae8"
    )


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.sampled_from([0.05, 0.5, 1.0]),
    st.sampled_from([motion_layout(1, 0), motion_layout(1, 4), motion_layout(2, 0), motion_layout(2, 2),
                     motion_layout(2, 4), appearance_layout(0), appearance_layout(1), appearance_layout(4)]),
)  # fmt: skip
def test_compiled_context_gives_what_tensors_give(
    seed: int, rows: int, columns: int, chance: float, layout: ChannelLayout
) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = 2 * rows, 2 * columns
    level = rng.integers(-127, 128, (2, len(layout), rows, columns)) * (rng.random((2, 1, rows, columns)) < chance)
    side = rng.integers(0, 200, (2, len(layout) + 2, rows, columns))
    weights = ContextWeights(
        *(torch.from_numpy(rng.integers(-2048, 2049, shape)).float()
          for shape in ((HIDDEN, FEATURES), (4, HIDDEN), (2, HIDDEN), (8, 5, 2), (5, 4, 2)))
    )  # fmt: skip
    weights.output.mul_(0.2).round_()
    bias = torch.from_numpy(rng.integers(-2048, 2049, (len(layout), 2))).float()
    compiled = LevelContext(layout, side, weights, bias)
    tensors = TensorContext(layout, torch.from_numpy(side).float(), weights, bias)
    padded = np.pad(level, ((0, 0), (0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN))).astype(np.int32)
    for stage in range(STAGES):
        for found, expected in zip(compiled.stage(padded, stage), tensors.stage(padded, stage), strict=True):
            assert np.array_equal(found, expected)
