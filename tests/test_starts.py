"""Changes of tensors that are worth their bits, and the files of starts that they are changes of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nvcodec.core.errors import SyntaxViolation, UnsupportedError
from nvcodec.decoder import Decoder
from nvcodec.encoder.weight_changes import best_change
from nvcodec.entropy.weights import STEPS, TensorSpec
from nvcodec.exact.operation import Sizes
from nvcodec.exact.tracing import place
from nvcodec.implicit import starts
from nvcodec.implicit.encoder.recurrent_stages import ACTIVATION_BITS
from nvcodec.implicit.encoder.start import load_start, starting_point
from nvcodec.implicit.models.cwrnn import CWRNN, Widths
from nvcodec.implicit.payload import ImplicitHeader
from nvcodec.implicit.starts import find_start, read_start, start_name, write_start
from nvcodec.implicit.weights import ConvSymbols

SPEC = TensorSpec("w", (4, 80), 0, 127)


def test_changes_are_kept_where_they_are_worth_their_bits() -> None:
    draw = np.random.default_rng(1)
    difference = draw.normal(0, 20, SPEC.shape)
    difference[2:] = draw.normal(0, 0.3, (2, 80))
    fine = best_change(SPEC, difference, np.full(SPEC.shape, 10.0), 1.0)
    coarse = best_change(SPEC, difference, np.full(SPEC.shape, 0.01), 1.0)
    assert fine is not None
    assert coarse is not None
    assert STEPS[fine.step] < STEPS[coarse.step]
    assert np.abs(fine.symbols * STEPS[fine.step] - difference).max() <= 1
    assert (coarse.symbols[2:] == 0).all()
    assert fine.scales.shape == (4,)
    assert best_change(SPEC, difference, np.full(SPEC.shape, 1e-6), 1.0) is None
    alone = TensorSpec("w", (1, 1), 0, 127)  # ten bits of error, which telling of a change would cost as well
    assert best_change(alone, np.full((1, 1), 3.0), np.full((1, 1), 10 / 9), 1.0) is None
    assert best_change(alone, np.full((1, 1), 3.0), np.full((1, 1), 20 / 9), 1.0) is not None
    assert best_change(SPEC, 0 * difference, np.full(SPEC.shape, 1e6), 1.0) is None


# Starts


def drawn_tensors(shapes: list[tuple[int, tuple[int, int, int, int]]]) -> list[ConvSymbols]:
    draw = np.random.default_rng(2)
    return [
        ConvSymbols(
            draw.integers(-127, 128, shape, np.int32), draw.integers(-256, 97, shape[0], np.int32),
            draw.integers(-127, 128, shape[0], np.int32), int(draw.integers(16)),
        )
        for _, shape in shapes
    ]  # fmt: skip


def test_a_start_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = [(3, (4, 2, 3, 3)), (7, (2, 4, 1, 1))]
    given = drawn_tensors(shapes)
    draw = np.random.default_rng(3)
    directions = [[draw.integers(-127, 128, n) for n in (4, 72, 2, 8)] for _ in range(3)]
    data = write_start(given, directions, 9)
    assert len(data) == 2 + 3 * 6 + 72 + 8 + 2 + 3 * (6 + 72 + 8)
    monkeypatch.setattr(starts, "shipped_starts", lambda: {start_name(data): data})
    found = find_start(start_name(data), shapes)
    for number, one in zip((3, 7), given, strict=True):
        for name in ("weight", "exponent", "bias"):
            assert np.array_equal(getattr(found.convolutions[number], name), getattr(one, name))
        assert found.convolutions[number].bias_shift == one.bias_shift
    assert (found.count, found.shift) == (3, 9)
    for k, (bias_3, weight_3, bias_7, weight_7) in enumerate(directions):
        for number, bias, weight in ((3, bias_3, weight_3), (7, bias_7, weight_7)):
            assert np.array_equal(found.directions[number][0][k], bias)
            assert np.array_equal(found.directions[number][1][k], weight)


def test_a_code_moves_all_tensors() -> None:
    """By hand: sums are rounded to the nearest, halves up, and what comes out stays within 8 bits."""
    shapes = [(0, (2, 1, 1, 2))]
    first = ConvSymbols(np.array([[1, 2], [126, -126]], np.int32).reshape(2, 1, 1, 2), np.zeros(2, np.int32),
                        np.array([5, -5], np.int32), 3)  # fmt: skip
    directions = [[np.array([1, 0]), np.array([1, -1, 8, -8])], [np.array([0, 3]), np.array([0, 0, 1, 1])]]
    start = read_start(write_start([first], directions, 2), shapes)
    made = start.moved(np.array([2, 1]))[0]
    assert made.weight.ravel().tolist() == [2, 2, 127, -127]
    assert made.bias.tolist() == [6, -4]
    assert start.moved(np.array([0, 0]))[0] is start.convolutions[0]


def test_a_start_that_is_unknown_or_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = [(3, (4, 2, 3, 3)), (7, (2, 4, 1, 1))]
    data = write_start(drawn_tensors(shapes))
    with pytest.raises(UnsupportedError, match=f"the start {start_name(data).hex()} of the weights is not known"):
        find_start(start_name(data), shapes)
    monkeypatch.setattr(starts, "shipped_starts", lambda: {start_name(data): data})
    with pytest.raises(SyntaxViolation, match=rf"a start of {len(data)} bytes for a program that has \d+"):
        find_start(start_name(data), shapes[:1])
    with pytest.raises(SyntaxViolation, match="a start of"):
        read_start(data[:-1], shapes)


def test_shipped_starts_fit_the_network() -> None:
    """Those that there are: file, fixed points and network belong together."""
    folder, sizes = Path(starts.__file__).parent, Sizes((24, 32), (6, 8), 1)
    assert {path.stem for path in folder.glob("*.bin")} == {path.stem for path in folder.glob("*.json")}
    for path in sorted(folder.glob("cwrnn*.bin")):
        half = int(path.stem.removeprefix("cwrnn"))
        widths = Widths(half, half // 2, half, half // 4)
        made: Any = CWRNN(sizes, widths=widths)
        place(made, sizes)
        found = starting_point(path.stem)
        assert found is not None
        start = load_start(made, sizes, ACTIVATION_BITS, *found)
        assert start.name in starts.shipped_starts()


@pytest.mark.parametrize(("vector", "name"), [("start_cwrnn", "cwrnn16"), ("start_narrow", "cwrnn8")])
def test_the_encoder_takes_the_start_of_its_size(vector: str, name: str) -> None:
    """What it made for the vectors names them."""
    found = starting_point(name)
    assert found is not None
    with Decoder(Path(__file__).parent / "vectors" / f"{vector}.cwrv", device="cpu") as decoder:
        header = ImplicitHeader.parse(decoder.container.read_segment(0).payload, 16)[0]
        decoder.verify()
    assert header.start == start_name(found[0])
