"""Where to compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvcodec.core.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = ["DEVICES", "check_device", "choose_device"]

DEVICES = ("auto", "cpu", "cuda")
_CUDA_FROM = 200_000
"""Luma samples of a picture from which CUDA decodes faster than eight CPU threads (BENCHMARKS.md, CUDA)."""


def check_device(name: str) -> None:
    """Raises InputError for an unknown or absent device."""
    import torch  # not where the command line only wants the names

    if name not in DEVICES:
        raise InputError(f"unknown device {name!r}; choose {', '.join(DEVICES[:-1])} or {DEVICES[-1]}")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: no CUDA device is available")


def choose_device(name: str, luma_samples: int) -> torch.device:
    """``auto`` is CUDA where there is one and pictures, of so many luma samples, are large enough to gain by it.

    Raises InputError as ``check_device``.
    """
    import torch

    check_device(name)
    wants_cuda = name == "cuda" or (name == "auto" and luma_samples >= _CUDA_FROM)
    if wants_cuda and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
