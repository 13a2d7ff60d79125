"""The page: one file that needs no other, no network and no build step.

``page/`` holds its parts: HTML with places marked ``{{...}}``, CSS, and scripts that are put behind one another.
A content security policy in the page forbids every request.
"""

from __future__ import annotations

import base64
import html
import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from nvcodec.rd.stills import StillMode, Stills

__all__ = ["ClipStills", "build_page"]

_SCRIPTS = ("dom.js", "chart.js", "viewer.js", "main.js")


@dataclass(frozen=True)
class ClipStills:
    """Pictures of a clip: ``variants`` by the ``file`` of their point, and ``"source"``."""

    mode: StillMode
    variants: dict[str, Stills]

    def as_json(self) -> dict[str, Any]:
        return {
            "frames": list(self.mode.frames),
            "lossless": self.mode.lossless,
            "quality": self.mode.quality,
            "least_psnr": min(stills.least_psnr for stills in self.variants.values()),
            "variants": {
                name: [base64.b64encode(image).decode("ascii") for image in stills.images]
                for name, stills in self.variants.items()
            },
        }


@cache
def _part(name: str) -> str:
    return (resources.files("nvcodec.rd") / "page" / name).read_text(encoding="utf-8")


def build_page(results: dict[str, Any], stills: list[ClipStills]) -> str:
    """``stills``: of each clip of the results (:func:`nvcodec.rd.results.build_results`), in their order."""
    clips = [clip | {"stills": pictures.as_json()} for clip, pictures in zip(results["clips"], stills, strict=True)]
    # "<" could end the element that holds the data.
    data = json.dumps(results | {"clips": clips}, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    names = ", ".join(clip["name"] for clip in clips)
    parts = {
        "title": html.escape(
            f"Rate and distortion: {names}" if len(clips) <= 3 else f"Rate and distortion of {len(clips)} clips"
        ),
        "style": _part("style.css"),
        "scripts": "\n".join(_part(name) for name in _SCRIPTS),
        "data": data,
    }
    page = _part("page.html")
    pieces = []
    while "{{" in page:
        before, _, rest = page.partition("{{")
        name, _, page = rest.partition("}}")
        pieces += [before, parts[name]]
    return "".join([*pieces, page])
