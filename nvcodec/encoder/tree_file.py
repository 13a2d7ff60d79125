"""Nested lists, tuples and dicts of numbers, texts, bytes and arrays, as a file that is whole or refused.

::

    signature (8 bytes) | length of the header u(64) little endian | header (JSON) | arrays (zstd) | BLAKE2b-128

The header holds the tree, with a number in the place of each array, and the type and shape of the arrays, whose bytes
follow one after the other. The hash is over all that stands before it. Nothing in such a file is ever executed.

Tensors come back with the strides they had: the order of a sum, and with it the last bit of the result, may depend
on them.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import torch
import zstandard
from torch import Tensor

__all__ = ["Tree", "TreeFileError", "read_tree", "write_tree"]

Tree = Any
"""None, bool, int, float, str, bytes, Tensor, ndarray, or a list, tuple or dict of trees (keys: any but arrays)."""

_SIGNATURE = b"\x89CWT\r\n\x1a\x01"
"""The last byte is the version of the layout."""
_HASH_BYTES = 16
_LEVEL = 1
"""Of compression: symbols are mostly zeros, and time matters more than space."""


class TreeFileError(ValueError):
    """The file is not one of these, or damaged."""


def write_tree(stream: BinaryIO, tree: Tree) -> None:
    """Raises TypeError for what is no tree."""
    arrays: list[tuple[dict[str, Any], np.ndarray]] = []
    text = _to_json(tree, arrays)
    header = json.dumps({"tree": text, "arrays": [kind for kind, _ in arrays]}, separators=(",", ":")).encode()
    digest = hashlib.blake2b(digest_size=_HASH_BYTES)

    def write(data: bytes) -> None:
        digest.update(data)
        stream.write(data)

    write(_SIGNATURE + struct.pack("<Q", len(header)))
    write(header)
    compressor = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
    for _, array in arrays:
        write(compressor.compress(array.data))
    write(compressor.flush())
    stream.write(digest.digest())


def read_tree(data: bytes) -> Tree:
    """The tree in the bytes of a file. Raises TreeFileError."""
    start = len(_SIGNATURE) + 8
    if not data.startswith(_SIGNATURE):
        raise TreeFileError("it has another signature or version")
    content, digest = data[:-_HASH_BYTES], data[-_HASH_BYTES:]
    if len(content) < start or hashlib.blake2b(content, digest_size=_HASH_BYTES).digest() != digest:
        raise TreeFileError("its hash is wrong")
    (length,) = struct.unpack_from("<Q", content, len(_SIGNATURE))
    try:
        header = json.loads(content[start : start + length])
        return _from_json(header["tree"], list(_arrays(header["arrays"], content[start + length :])))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, zstandard.ZstdError) as error:
        raise TreeFileError(f"its content is wrong: {error}") from error


def _to_json(tree: Tree, arrays: list[tuple[dict[str, Any], np.ndarray]]) -> Any:
    """``tree`` as JSON can hold it; every JSON object has one key, which tells what it stands for."""
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    if isinstance(tree, list):
        return [_to_json(part, arrays) for part in tree]
    if isinstance(tree, tuple):
        return {"tuple": [_to_json(part, arrays) for part in tree]}
    if isinstance(tree, dict):
        return {"dict": [[_to_json(key, arrays), _to_json(value, arrays)] for key, value in tree.items()]}
    arrays.append(_flat(tree))
    return {"array": len(arrays) - 1}


def _flat(array: Tree) -> tuple[dict[str, Any], np.ndarray]:
    """What an array is, and its bytes."""
    if isinstance(array, bytes):
        return {"bytes": len(array)}, np.frombuffer(array, np.uint8)
    if isinstance(array, np.ndarray) and array.dtype.kind in "biuf":
        kind = {"numpy": array.dtype.str, "shape": list(array.shape)}
        return kind, np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    if isinstance(array, Tensor):
        kind = {"torch": str(array.dtype).removeprefix("torch."), "shape": list(array.shape)}
        if not array.is_contiguous() and not _overlaps(array):
            kind["strides"] = list(array.stride())
        return kind, array.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    raise TypeError(f"{type(array).__name__} is no part of a tree")


def _overlaps(tensor: Tensor) -> bool:
    return any(stride == 0 and size > 1 for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def _from_json(part: Any, arrays: list[Tree]) -> Tree:
    if isinstance(part, list):
        return [_from_json(child, arrays) for child in part]
    if not isinstance(part, dict):
        return part
    ((kind, content),) = part.items()
    if kind == "tuple":
        return tuple(_from_json(child, arrays) for child in content)
    if kind == "dict":
        return {_from_json(key, arrays): _from_json(value, arrays) for key, value in content}
    if kind == "array":
        return arrays[content]
    raise TreeFileError(f"unknown part {kind!r}")


def _arrays(kinds: list[dict[str, Any]], packed: bytes) -> Iterator[Tree]:
    sizes = [_byte_count(kind) for kind in kinds]
    data = zstandard.ZstdDecompressor().decompressobj().decompress(packed)
    if len(data) != sum(sizes):
        raise TreeFileError("its arrays have another length than stated")
    start = 0
    for kind, size in zip(kinds, sizes, strict=True):
        yield _shaped(kind, data[start : start + size])
        start += size


def _byte_count(kind: dict[str, Any]) -> int:
    if "bytes" in kind:
        return int(kind["bytes"])
    item = np.dtype(kind["numpy"]).itemsize if "numpy" in kind else _torch_type(kind).itemsize
    return item * math.prod(kind["shape"])


def _torch_type(kind: dict[str, Any]) -> torch.dtype:
    found = getattr(torch, kind["torch"])
    if not isinstance(found, torch.dtype):
        raise TreeFileError(f"{kind['torch']} is no type of a tensor")
    return found


def _shaped(kind: dict[str, Any], data: bytes) -> Tree:
    if "bytes" in kind:
        return data
    if "numpy" in kind:
        return np.frombuffer(data, np.dtype(kind["numpy"])).reshape(kind["shape"]).copy()
    tensor = torch.empty(kind["shape"], dtype=_torch_type(kind))
    if data:
        tensor.reshape(-1).view(torch.uint8).copy_(torch.from_numpy(np.frombuffer(data, np.uint8).copy()))
    if "strides" not in kind:
        return tensor
    return torch.empty_strided(tensor.shape, kind["strides"], dtype=tensor.dtype).copy_(tensor)
