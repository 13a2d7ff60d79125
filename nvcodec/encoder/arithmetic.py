"""What networks compute in while they are trained."""

from __future__ import annotations

import torch

__all__ = ["training_dtype"]


def training_dtype(device: torch.device) -> torch.dtype:
    """What a network computes in while it is trained: bfloat16 where the hardware multiplies it, else float32.

    A processor without such instructions takes 14 times as long in bfloat16 (docs/experiments/hybrid.md, eleventh
    round).
    """
    if device.type == "cuda":
        return torch.bfloat16
    has_bfloat16 = any(
        getattr(torch.cpu, name, lambda: False)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return torch.bfloat16 if has_bfloat16 else torch.float32
