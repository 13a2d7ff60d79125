"""Trees of numbers and arrays in files: they come back as they were, or not at all."""

from __future__ import annotations

import io
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nvcodec
from nvcodec.encoder.tree_file import TreeFileError, read_tree, write_tree


def written(tree: Any) -> bytes:
    stream = io.BytesIO()
    write_tree(stream, tree)
    return stream.getvalue()


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.stride() == b.stride() and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


TREE = {
    "scalars": [None, True, 0, -(2**70), 0.1, -0.0, math.inf, 5e-324, "", "größer\0"],
    3: ((), (1,), [], {}, b"", b"\0\xff"),
    (1, "key"): {"nested": {"deep": [torch.arange(5)]}},
    "tensors": [
        torch.tensor(1.5),
        torch.zeros(0, 3),
        torch.linspace(-1, 1, 6).to(torch.bfloat16).reshape(2, 3),
        torch.tensor([True, False]),
        torch.get_rng_state(),
    ],
    "strides": [
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.randn(2, 8, 4, 5).to(memory_format=torch.channels_last)[:, 3:][1],
        torch.randn(3, 4).T,
    ],
    "arrays": [np.arange(6, dtype=np.int32).reshape(2, 3), np.float64([1.5]), np.zeros((0, 2), np.uint8)],
}


def test_round_trip() -> None:
    found = read_tree(written(TREE))
    assert same(found, TREE)
    assert math.copysign(1, found["scalars"][5]) == -1
    found["strides"][1].add_(1)  # what comes back can be worked on
    found["tensors"][2].add_(1)
    found["arrays"][0][:] = 1


def test_tensors_that_repeat_themselves() -> None:
    found = read_tree(written(torch.ones(1).expand(3)))
    assert (found.tolist(), found.stride()) == ([1, 1, 1], (1,))


def test_gradients_are_left_out() -> None:
    assert not read_tree(written(torch.ones(2, requires_grad=True))).requires_grad


@pytest.mark.parametrize("tree", [object(), {1, 2}, np.array([None]), np.array(["a"]), Path("a"), 1j])
def test_what_is_no_tree(tree: Any) -> None:
    with pytest.raises(TypeError, match="is no part of a tree"):
        written([tree])


def test_every_changed_byte_and_length_is_found() -> None:
    data = written({"a": [1, 2.5], "b": torch.arange(20)})
    for place in range(len(data)):
        with pytest.raises(TreeFileError):
            read_tree(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(TreeFileError):
            read_tree(data[:place])
    with pytest.raises(TreeFileError, match="hash"):
        read_tree(data + b"\0")


@pytest.mark.parametrize("other", [b"", b"text", pickle.dumps({"a": 1})])
def test_other_files(other: bytes) -> None:
    with pytest.raises(TreeFileError, match="signature or version"):
        read_tree(other)


def test_nothing_is_pickled() -> None:
    """Neither by its own name nor through torch and numpy."""
    for path in Path(nvcodec.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not any(word in text for word in ("import pickle", "torch.load(", "torch.save(", "np.load(")), path
