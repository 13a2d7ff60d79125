"""The implicit representation: a network that was fitted to the video, its weights and its latents, as a file.

``encode`` fits any module made of layers of ``nvcodec.exact``, prunes it, tunes it to its quantised form, codes it and
verifies the file. It is loaded when it is first used, so that a program that only decodes never loads it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PLACES = {"encode": ("nvcodec.encoder.own_module", "encode_module")}

__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_PLACES[name][0]), _PLACES[name][1])
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
