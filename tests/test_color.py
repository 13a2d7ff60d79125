"""4:2:0 to RGB against values worked out by hand."""

from __future__ import annotations

import pytest
import torch
from video_samples import frames, properties

from nvcodec.core.color import to_rgb
from nvcodec.core.errors import InputError
from nvcodec.core.frame import CHROMA_CENTER, CHROMA_LEFT, CHROMA_TOP_LEFT, Frame


def chroma_step(location: int) -> list[int]:
    """Red along a row of 4:2:0 whose V jumps from 128 to 192 between its first and its second sample."""
    y = torch.full((2, 8), 100, dtype=torch.uint8)
    u = torch.full((1, 4), 128, dtype=torch.uint8)
    v = torch.tensor([[128, 192, 192, 192]], dtype=torch.uint8)
    p = properties(8, 2, colorspace=5, color_range=2, chroma_location=location)
    return [int(value) for value in to_rgb(Frame((y, u, v), 0), p)[0, 0]]


def test_chroma_siting() -> None:
    steps = [round(100 + 1.402 * 64 * share) for share in (0, 0.25, 0.5, 0.75, 1)]
    assert chroma_step(CHROMA_LEFT)[:4] == [steps[0], steps[2], steps[4], steps[4]]
    assert chroma_step(0) == chroma_step(CHROMA_LEFT)
    assert chroma_step(CHROMA_CENTER)[:4] == [steps[0], steps[1], steps[3], steps[4]]
    assert chroma_step(CHROMA_TOP_LEFT) == chroma_step(CHROMA_LEFT)


@pytest.mark.parametrize(
    ("matrix", "height", "red"),
    [(1, 2, 1.5748), (5, 2, 1.402), (9, 2, 1.4746), (2, 2, 1.402), (2, 720, 1.5748)],
)
def test_matrix_and_range(matrix: int, height: int, red: float) -> None:
    planes = (
        torch.full((height, 2), 100),
        torch.full((height // 2, 1), 128),
        torch.full((height // 2, 1), 148),
    )
    frame = Frame((planes[0].byte(), planes[1].byte(), planes[2].byte()), 0)
    full = to_rgb(frame, properties(2, height, colorspace=matrix, color_range=2))
    assert full.shape == (3, height, 2)
    assert full[0, 0, 0] == round(100 + red * 20)
    limited = to_rgb(frame, properties(2, height, colorspace=matrix, color_range=1))
    assert limited[0, 0, 0] == round(84 * 255 / 219 + red * 20 * 255 / 224)
    assert torch.equal(limited, to_rgb(frame, properties(2, height, colorspace=matrix)))


def test_unknown_matrix_is_refused() -> None:
    with pytest.raises(InputError, match="colour matrix 8"):
        to_rgb(frames()[0], properties(colorspace=8))
