"""A CUDA device that is not there: its tensors lie in the CPU's memory, and do not mix with those of the CPU.

That shows, without such a device, whether code for one runs at all, and that it mixes no devices. It shows nothing of
the device's own arithmetic, nor of its speed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["stand_in_cuda"]

_CUDA = torch.device("cuda", 0)
_COPIES = ("copy_", "_to_copy")
"""Operations that take tensors of both devices. Those with indices take the indices from either."""
_INDEXED = ("index", "index_put", "index_put_")


class _There(Tensor):
    """A tensor on the device: ``here`` holds its values. To PyTorch's own code it lies on "meta", which every build
    knows."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> _There:
        made = Tensor._make_wrapper_subclass(
            cls,
            here.shape,
            dtype=here.dtype,
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            device="meta",
        )
        made.here = here
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return _CUDA

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    def __getitem__(self, places: Any) -> Tensor:
        found: Tensor = super().__getitem__(_placed(places))
        return found

    def __setitem__(self, places: Any, values: Any) -> None:
        super().__setitem__(_placed(places), values)

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _called(function, args, kwargs or {})


def _placed(places: Any) -> Any:
    """Lists among indices as tensors: PyTorch's own code would make them on "meta"."""
    if isinstance(places, tuple):
        return tuple(_placed(x) for x in places)
    return torch.tensor(places) if isinstance(places, list) else places


def _called(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Carry out an operation of PyTorch where its arguments, or ``device``, say."""
    name = function.overloadpacket.__name__
    where = [args[0], *args[2:]] if name in _INDEXED else args
    tensors = [x for x in _leaves([*where, *kwargs.values()]) if isinstance(x, Tensor)]
    is_there = any(isinstance(x, _There) for x in tensors)
    if is_there and name not in _COPIES and any(not isinstance(x, _There) and x.dim() for x in tensors):
        raise RuntimeError(f"{function}: tensors on CUDA and on the CPU")
    if kwargs.get("device") is not None:
        is_there = torch.device(kwargs["device"]).type != "cpu"
        kwargs = kwargs | {"device": torch.device("cpu")}
    elif name == "copy_":
        is_there = isinstance(args[0], _There)
    found = function(*map(_here, args), **{key: _here(x) for key, x in kwargs.items()})
    if name.endswith("_") and not name.endswith("__"):
        return args[0]
    return _there(found) if is_there else found


def _leaves(tree: Sequence[Any]) -> Iterator[Any]:
    for x in tree:
        if isinstance(x, list | tuple):
            yield from _leaves(x)
        else:
            yield x


def _here(x: Any) -> Any:
    if isinstance(x, list | tuple):
        return type(x)(map(_here, x))
    return x.here if isinstance(x, _There) else x


def _there(x: Any) -> Any:
    if isinstance(x, list | tuple):
        return type(x)(map(_there, x))
    return _There(x) if isinstance(x, Tensor) else x


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _called(function, args, kwargs or {})


def _tensor(data: Any, *, device: Any = None, _make: Any = torch.tensor, **options: Any) -> Tensor:
    """``torch.tensor``, which makes nothing on a device that PyTorch was not built for."""
    made: Tensor = _make(data, **options)
    return made if device is None else made.to(device)


def _no_grad(mode: bool = True) -> Any:
    return torch.no_grad() if mode else nullcontext()


@contextmanager
def stand_in_cuda() -> Iterator[None]:
    """Within it PyTorch has a CUDA device, on this thread."""
    states = {"get_rng_state": lambda device: torch.zeros(0, dtype=torch.uint8), "set_rng_state": lambda *_: None}
    with (
        mock.patch.object(torch.cuda, "_lazy_init"),
        mock.patch.object(torch.cuda, "is_available", return_value=True),
        mock.patch.object(torch.cuda, "current_device", return_value=0),
        mock.patch.object(torch.cuda, "get_device_name", return_value="stand-in"),
        mock.patch.object(torch, "tensor", _tensor),
        mock.patch.object(torch, "inference_mode", _no_grad),  # it knows no tensors but PyTorch's own
        mock.patch.multiple(torch.cuda, **states),
        _Mode(),
    ):
        yield
