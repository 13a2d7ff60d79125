"""Integer arithmetic in float32: every operator against Python's and numpy's integers."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nvcodec.core import fixedpoint
from nvcodec.core.errors import LimitError
from nvcodec.core.fixedpoint import (
    EXACT_LIMIT,
    Rounding,
    check_exact_bound,
    conv2d,
    exact_inference,
    leaky_relu,
    round_nearest,
    shift_right,
)

ROUNDED = (Rounding.EXACT, Rounding.STRAIGHT_THROUGH)
ACCUMULATOR_LIMIT = EXACT_LIMIT - (1 << 20)


def exact(values: list[int]) -> torch.Tensor:
    tensor = torch.tensor(values, dtype=torch.float32)
    assert tensor.long().tolist() == values  # the test's own numbers survive float32
    return tensor


# shifts and activations


@pytest.mark.parametrize("rounding", ROUNDED)
@pytest.mark.parametrize(
    ("value", "bits", "expected"),
    [(0, 1, 0), (1, 1, 1), (-1, 1, 0), (-3, 1, -1), (3, 2, 1), (2, 2, 1), (-2, 2, 0), (-6, 2, -1), (-7, 2, -2)],
)
def test_halves_round_up(value: int, bits: int, expected: int, rounding: Rounding) -> None:
    assert shift_right(torch.tensor(float(value)), bits, rounding).item() == expected


@settings(deadline=None)
@given(st.integers(1, 16), st.lists(st.integers(-EXACT_LIMIT + 1, EXACT_LIMIT - 1), min_size=1, max_size=50))
def test_shift_is_that_of_integers(bits: int, values: list[int]) -> None:
    """Up to the last integer for which the rounding offset itself stays below 2**24."""
    half = 1 << (bits - 1)
    values = [v for v in values if abs(v) + half < EXACT_LIMIT] + [EXACT_LIMIT - 1 - half, half + 1 - EXACT_LIMIT]
    for rounding in ROUNDED:
        assert shift_right(exact(values), bits, rounding).long().tolist() == [(v + half) >> bits for v in values]


@settings(deadline=None)
@given(st.lists(st.integers(-EXACT_LIMIT + 1, EXACT_LIMIT - 1), min_size=1, max_size=50))
def test_leaky_relu_is_a_shift_of_negative_integers(values: list[int]) -> None:
    for rounding in ROUNDED:
        assert leaky_relu(exact(values), rounding).long().tolist() == [v if v >= 0 else v >> 3 for v in values]


def test_leaky_relu_of_small_integers() -> None:
    assert leaky_relu(exact([-17, -16, -9, -8, -1, 0, 1, 9])).tolist() == [-3, -2, -2, -1, -1, 0, 1, 9]


def test_no_rounding_keeps_the_fraction() -> None:
    x = exact([-3, 5])
    assert shift_right(x, 2, Rounding.NONE).tolist() == [-0.75, 1.25]
    assert leaky_relu(x, Rounding.NONE).tolist() == [-0.375, 5.0]
    assert round_nearest(x * 0.1, Rounding.NONE).tolist() == (x * 0.1).tolist()


def test_gradients_pass_through_rounding() -> None:
    x = exact([-13, -4, 3, 22]).requires_grad_()
    y = shift_right(x, 3, Rounding.STRAIGHT_THROUGH) + leaky_relu(x, Rounding.STRAIGHT_THROUGH)
    (gradient,) = torch.autograd.grad((y * exact([1, 2, 3, 4])).sum(), x)
    assert gradient.tolist() == [0.25, 0.5, 3.375, 4.5]  # (1/8 + 1/8), 2 (1/8 + 1/8), 3 (1/8 + 1), 4 (1/8 + 1)


def test_exact_rounding_has_no_gradient() -> None:
    x = exact([5]).requires_grad_()
    (gradient,) = torch.autograd.grad(shift_right(x, 1).sum(), x)
    assert gradient.tolist() == [0.0]


# the bound


def test_bound_at_its_edge() -> None:
    """One output: sum|w| * bound + |b| is accepted up to the limit less one, and refused at the limit."""
    weight = torch.tensor([[[[1023.0, -1024.0]]]])
    bound = torch.tensor([7000.0])
    room = ACCUMULATOR_LIMIT - 2047 * 7000
    check_exact_bound(weight, exact([room - 1]), bound, "layer")
    check_exact_bound(weight, exact([1 - room]), bound, "layer")
    for bias in (room, -room):
        with pytest.raises(LimitError, match=f"layer: the accumulator reaches {ACCUMULATOR_LIMIT}, "):
            check_exact_bound(weight, exact([bias]), bound, "layer")


def test_bound_looks_at_every_output_input_and_bias_row() -> None:
    weight = torch.zeros(3, 2, 3, 3)
    weight[1, 0] = 100
    bound = torch.tensor([1000.0, 1023.0])
    bias = torch.zeros(2, 3)
    check_exact_bound(weight, bias, bound, "layer")
    for place, tensor, value in (((1, 0, 2, 2), weight, 15000), ((2, 1, 0, 0), weight, -15400), ((1, 2), bias, 15.8e6)):
        before = float(tensor[place])
        tensor[place] = value
        with pytest.raises(LimitError):
            check_exact_bound(weight, bias, bound, "layer")
        tensor[place] = before


# convolution


def reference_conv(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """Convolution by its definition, in int64."""
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    kh, kw = weight.shape[2:]
    rows = (padded.shape[2] - kh) // stride + 1
    columns = (padded.shape[3] - kw) // stride + 1
    out = np.zeros((len(x), len(weight), rows, columns), dtype=np.int64)
    for i in range(rows):
        for j in range(columns):
            patch = padded[:, :, i * stride : i * stride + kh, j * stride : j * stride + kw]
            out[:, :, i, j] = np.einsum("bchw,ochw->bo", patch, weight) + bias
    return out


def near_the_bound(seed: int, inputs: int, outputs: int, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Integers x, w, b whose worst accumulator lies just below 2**24; every second output truly reaches it."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-1023, 1024, (2, inputs, side, side + 3))
    weight = rng.integers(-900, 901, (outputs, inputs, 3, 3))
    per_output = np.abs(weight).sum((1, 2, 3))
    weight = weight * ((EXACT_LIMIT - 70000) // 1023) // per_output[:, None, None, None]
    x[0, :, 1:4, 1:4] = 1023 * np.where(weight[0] < 0, -1, 1)
    reach = np.abs(weight).sum((1, 2, 3)) * 1023
    bias = (EXACT_LIMIT - 1 - reach) * np.where(rng.random(outputs) < 0.5, -1, 1)
    bias[0] = abs(bias[0])
    return x, weight, bias


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 24), st.integers(1, 8), st.integers(5, 9), st.sampled_from([1, 2]))
def test_convolution_is_exact_below_the_bound(seed: int, inputs: int, outputs: int, side: int, stride: int) -> None:
    x, weight, bias = near_the_bound(seed, inputs, outputs, side)
    expected = reference_conv(x, weight, bias, stride, 1)
    if stride == 1:
        assert expected.max() == EXACT_LIMIT - 1
    with exact_inference():
        got = conv2d(*(torch.from_numpy(a).float() for a in (x, weight, bias)), stride=stride, padding=1)
    assert np.array_equal(got.numpy().astype(np.int64), expected)


class OnCuda(torch.Tensor):
    """A CPU tensor that says it is on a CUDA device."""

    is_cuda = True

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_matrix_product_form_is_the_convolution(stride: int, padding: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The form that CUDA takes, carried out on the CPU; ``F.conv2d`` must not be reached."""
    x, weight, bias = near_the_bound(7, 5, 4, 8)
    expected = reference_conv(x, weight, bias, stride, padding)
    disguised = torch.from_numpy(x).float().as_subclass(OnCuda)
    monkeypatch.setattr(fixedpoint.F, "conv2d", None)
    with torch.no_grad():
        got = conv2d(
            disguised,
            torch.from_numpy(weight).float(),
            torch.from_numpy(bias).float(),
            stride=stride,
            padding=padding,
        )
        plain = conv2d(disguised, torch.from_numpy(weight).float(), stride=stride, padding=padding)
    assert np.array_equal(got.numpy().astype(np.int64), expected)
    assert np.array_equal(plain.numpy().astype(np.int64), expected - bias[:, None, None])


# the setting of the decode process


def test_exact_inference_restores_what_was_set() -> None:
    def state() -> tuple[object, ...]:
        return (
            torch.get_float32_matmul_precision(),
            torch.backends.cudnn.allow_tf32,
            torch._C._get_nnpack_enabled(),
            torch.is_inference_mode_enabled(),
        )

    outside = state()
    with exact_inference():
        inside = state()
    assert inside == ("highest", False, False, True)
    assert state() == outside
    with pytest.raises(RuntimeError, match="inner"), exact_inference():
        raise RuntimeError("inner")
    assert state() == outside


def test_settings_stay_exact_until_the_last_thread_leaves() -> None:
    """One that ends earlier must not take them away from the others."""
    torch.set_float32_matmul_precision("high")
    try:
        inner_is_over = threading.Event()

        def outlast() -> str:
            with exact_inference():
                assert inner_is_over.wait(timeout=30)
                return torch.get_float32_matmul_precision()

        with ThreadPoolExecutor(1) as pool:
            with exact_inference():
                found = pool.submit(outlast)
                while not found.running():
                    time.sleep(0.001)
                time.sleep(0.05)
            inner_is_over.set()
            assert found.result() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
