"""Frames and video properties refuse what does not fit together."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch
from video_samples import frames, properties

from nvcodec.core.errors import InputError
from nvcodec.core.frame import Frame


def test_records_show_their_shapes() -> None:
    assert repr(frames(97, 81)[0]) == "Frame(pts=0, y=81x97, u=41x49, v=41x49, device=cpu)"
    p = properties(97, 81)
    assert (p.chroma_width, p.chroma_height) == (49, 41)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, "width is 0; it must be 1 to 65535"),
        ({"height": 70000}, "height is 70000"),
        ({"width": 8.0}, "width must be of type int, not float"),
        ({"width": True}, "width must be of type int, not bool"),
        ({"frame_rate": Fraction(0)}, "frame_rate is 0; it must be positive"),
        ({"frame_rate": 25}, "frame_rate must be of type Fraction"),
        ({"time_base": Fraction(1, 2**31)}, "terms must be below"),
        ({"sample_aspect_ratio": Fraction(-1)}, "sample_aspect_ratio is -1"),
        ({"color_range": 3}, "color_range is 3"),
        ({"colorspace": 256}, "colorspace is 256"),
        ({"chroma_location": 7}, "chroma_location is 7"),
        ({"bit_depth": 9}, "bit_depth is 9; it must be 8 or 10"),
        ({"mastering_display": (1,) * 9}, "mastering_display is .*; it must be ten integers"),
        ({"content_light": (1, -1)}, "content_light is .*; it must be two integers"),
    ],
)
def test_properties_check_themselves(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        properties(**({"width": 16, "height": 16} | changes))


def test_frames_check_themselves() -> None:
    y, c = torch.zeros(4, 6, dtype=torch.uint8), torch.zeros(2, 3, dtype=torch.uint8)
    assert Frame((y, c, c), 5).pts == 5
    with pytest.raises(InputError, match="chroma of a 6x4 frame must be 3x2"):
        Frame((y, c, c.T), 0)
    with pytest.raises(InputError, match="uint8"):
        Frame((y, c, c.float()), 0)
    with pytest.raises(InputError, match="three planes"):
        Frame((y, c), 0)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="pts"):
        Frame((y, c, c), 0.5)  # type: ignore[arg-type]
