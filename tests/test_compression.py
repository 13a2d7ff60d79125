"""What the demo clip comes to at a fixed quality: no change of the encoder makes it worse, or better, unseen."""

from __future__ import annotations

from pathlib import Path

import pytest
from video_samples import DEMO

from nvcodec.encoder.pipeline import EncodeOptions, encode

KNOWN = {
    ("hybrid", "fast"): (1651, 29.83),
    ("hybrid", "medium"): (1655, 29.78),
    ("hybrid", "slow"): (1711, 29.85),
    ("cwrnn", "fast"): (2002, 30.00),
}
"""Bytes, and PSNR 6:1:1 in dB, of five frames at quality 34. Who means to change them writes the new ones here."""


@pytest.mark.parametrize(("model", "effort"), KNOWN)
def test_bytes_and_psnr_at_a_fixed_quality(model: str, effort: str, tmp_path: Path) -> None:
    size, psnr = KNOWN[model, effort]
    options = EncodeOptions(quality=34, effort=effort, model=model, device="cpu", threads=1)
    report = encode(DEMO, tmp_path / "a.cwrv", options, frames=(0, 5))
    tolerance = 0.01 if model == "hybrid" else 0.03  # a network that is fitted depends on the processor
    assert report.file_bytes == pytest.approx(size, rel=tolerance)
    assert report.psnr_yuv == pytest.approx(psnr, abs=0.05)
