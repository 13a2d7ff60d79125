"""Scene cuts of the source, where segments begin."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from nvcodec.encoder.working_domain import LUMA_PLANES, SAMPLE_STEP

__all__ = ["CutDetector"]

_CUT_DIFFERENCE = 18.0
"""Mean absolute difference of the thumbnails, in grey levels, below which nothing is a cut."""
_CUT_RATIO = 3.0
"""A cut changes this much more than the frames before it did."""
_THUMBNAIL = 16


class CutDetector:
    """Tells scene cuts from the differences of small thumbnails, frame by frame."""

    def __init__(self) -> None:
        self._last: Tensor | None = None
        self._usual = 0.0

    def is_cut(self, samples: Tensor) -> bool:
        """Whether the frame with these working samples (6, h, w) begins a new scene."""
        mean = samples[:LUMA_PLANES].mean(0)[None, None]
        thumbnail = F.avg_pool2d(mean, min(_THUMBNAIL, *mean.shape[2:]), ceil_mode=True)[0, 0] / SAMPLE_STEP
        last, self._last = self._last, thumbnail
        if last is None:
            return False
        change = float((thumbnail - last).abs().mean())
        cut = change > max(_CUT_DIFFERENCE, _CUT_RATIO * self._usual)
        self._usual = 0.0 if cut else max(change, 0.7 * self._usual)
        return cut
