"""CWRNN-INVR: an implicit neural video codec with a real bitstream and bit-exact decoding.

::

    import nvcodec

    nvcodec.encode("clip.mkv", "clip.cwrv", nvcodec.EncodeOptions(bpp=0.1))
    with nvcodec.Decoder("clip.cwrv") as decoder:
        for frame in decoder:
            ...

What stands here is loaded when it is first used, so that a program that only decodes never loads the encoder,
nor PyAV.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nvcodec.core.errors import BitstreamError, EncodeError, InputError, NvcodecError, OutputError
    from nvcodec.core.frame import Frame, VideoProperties
    from nvcodec.decoder import Damage, Decoder
    from nvcodec.encoder.pipeline import EncodeOptions, EncodeReport, Progress, encode

__all__ = [
    "BitstreamError",
    "Damage",
    "Decoder",
    "EncodeError",
    "EncodeOptions",
    "EncodeReport",
    "Frame",
    "InputError",
    "NvcodecError",
    "OutputError",
    "Progress",
    "VideoProperties",
    "__version__",
    "encode",
]

__version__ = "0.1.0"

_HOMES = {
    "Damage": "nvcodec.decoder",
    "Decoder": "nvcodec.decoder",
    "EncodeOptions": "nvcodec.encoder.pipeline",
    "EncodeReport": "nvcodec.encoder.pipeline",
    "Progress": "nvcodec.encoder.pipeline",
    "encode": "nvcodec.encoder.pipeline",
    "BitstreamError": "nvcodec.core.errors",
    "EncodeError": "nvcodec.core.errors",
    "InputError": "nvcodec.core.errors",
    "NvcodecError": "nvcodec.core.errors",
    "OutputError": "nvcodec.core.errors",
    "Frame": "nvcodec.core.frame",
    "VideoProperties": "nvcodec.core.frame",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
