"""What the bytes of a finished file depend on, so that a checkpoint is used for no other encode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from nvcodec.core.package_versions import codec_versions
from nvcodec.core.parallel import thread_count
from nvcodec.encoder.arithmetic import training_dtype
from nvcodec.encoder.source import Source

__all__ = ["encode_identity"]


def encode_identity(source: Source, options: Mapping[str, Any], device: torch.device) -> dict[str, str]:
    """By name: the input (not where it lies), ``options``, the versions of code and libraries, and what computes.

    To be asked for under the thread limit of the encode: sums depend on the number of threads.
    """
    identity = {"frames": str(len(source)), "input": source.digest}
    identity |= {name: _text_of(value) for name, value in options.items()}
    identity |= {"device": _name_of(device), "threads": str(thread_count())}
    return identity | codec_versions()


def _text_of(value: Any) -> str:
    if value is None:
        return "not given"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _name_of(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    arithmetic = str(training_dtype(device)).removeprefix("torch.")
    return f"{device.type} ({torch.backends.cpu.get_cpu_capability()}, {arithmetic})"
