"""The exact machine: networks of integer operations that decode to the same bits everywhere.

A model is an ordinary ``torch.nn.Module`` made of these layers. It is trained as it stands, in real numbers; traced, it
is a program that a file stores and any decoder plays. Layers are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "arrangement": ("Concat", "Fit", "PixelShuffle", "PixelUnshuffle", "Reshape", "Slice", "Upsample"),
    "convolution": ("Conv2d", "Linear"),
    "latents": ("Grid", "Latent"),
    "layer": ("ExactLayer",),
    "normalisation": ("LayerNorm",),
    "operation": ("FrameInputs", "Sizes"),
    "outputs": ("Correct", "Samples", "Store"),
    "pointwise": ("GELU", "Add", "LeakyReLU", "Multiply", "ReLU", "Scale", "Sigmoid", "Sine", "Tanh"),
    "position": ("Coordinates", "Phases", "Time"),
    "references": (
        "Depth", "Difference", "Distance", "Picture", "Prediction", "Presence", "Quantiser", "Residual", "State",
        "Vectors",
    ),
    "tracing": ("place", "trace"),
    "warping": ("Warp",),
}  # fmt: skip
_PLACES = {name: f"nvcodec.exact.{home}" for home, names in _HOMES.items() for name in names}

__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_PLACES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
