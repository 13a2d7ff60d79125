"""What anchors and measurements depend on beside content and options; for our own files see
:mod:`nvcodec.core.package_versions`.
"""

from __future__ import annotations

import platform
import re
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from nvcodec import __version__
from nvcodec.core.package_versions import codec_versions, fingerprint

__all__ = ["anchor_versions", "environment", "measure_versions"]

_PACKAGE = Path(__file__).parent.parent
_CODED_LIBRARIES = ("SvtAv1Enc", "x264", "x265", "dav1d")


@cache
def anchor_versions() -> dict[str, str]:
    """What an anchor's stream depends on."""
    files = [_PACKAGE / name for name in ("rd/anchors.py", "media/av_frame.py", "media/video_io.py")]
    return {"av": metadata.version("av"), "code": fingerprint(_PACKAGE, files)}


@cache
def measure_versions() -> dict[str, str]:
    """What the quality of decoded frames depends on."""
    names = ("rd/quality.py", "rd/points.py", "core/metrics.py", "core/color.py", "account.py")
    files = [_PACKAGE / name for name in names]
    return {
        "torch": metadata.version("torch"),
        "pytorch-msssim": metadata.version("pytorch-msssim"),
        "code": fingerprint(_PACKAGE, files),
    }


def environment() -> dict[str, Any]:
    """Versions of everything that takes part, and the machine."""
    names = ("torch", "av", "numpy", "bjontegaard", "pytorch-msssim", "matplotlib", "pillow", "constriction")
    return {
        "nvcodec": __version__,
        "codec_code": codec_versions()["code"],
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in names},
        "encoders": encoder_libraries(),
        "machine": platform.machine(),
        "system": platform.system(),
    }


def encoder_libraries() -> dict[str, str]:
    """Versions of the encoders' shared libraries in the wheel of PyAV, by their file names; {} if it has none."""
    found: dict[str, str] = {}
    for file in metadata.files("av") or ():
        match = re.fullmatch(r"lib(\w+?)-[0-9a-f]+\.so\.([0-9.]+)", file.name)
        if match and match[1] in _CODED_LIBRARIES:
            found[match[1]] = match[2]
    return found
