"""The tools that take parts out of the codec: that they still find the parts, and what they count."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from nvcodec.encoder import segment_analysis, unit_motion_search, weight_changes
from nvcodec.entropy.context import ChannelLayout, stage_of
from nvcodec.grid.encoder import fit
from nvcodec.hybrid.encoder import stages
from nvcodec.implicit.encoder import recurrent_representation, recurrent_stages
from nvcodec.motion import unit

TOOLS = Path(__file__).parents[1] / "tools"


@pytest.fixture(scope="module")
def ablation() -> dict[str, Any]:
    return runpy.run_path(str(TOOLS / "ablation.py"))


def test_every_part_is_found_and_replaced(ablation: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    places = (
        (unit, "predict_motion"),
        (unit_motion_search, "search_motion"),
        (stages, "_weigh"),
        (segment_analysis, "filtered_frames"),
        (stages, "quantise_network"),
        (weight_changes, "_choose_symbols"),
        (recurrent_representation, "load_start"),
        (recurrent_representation, "starting_point"),
        (recurrent_representation, "CWRNN"),
        (fit, "descended_levels"),
    )
    before = [getattr(*place) for place in places]
    for place, value in zip(places, before, strict=True):
        monkeypatch.setattr(*place, value)  # put back behind the test
    for module in (stages, recurrent_stages):
        monkeypatch.setattr(module, "EFFORTS", dict(module.EFFORTS))
    for variant in ablation["VARIANTS"]:
        variant.take_out()
    assert all(getattr(*place) is not value for place, value in zip(places, before, strict=True))
    assert not stages.EFFORTS["medium"].tuning
    effort = recurrent_stages.EFFORTS["fast"]
    assert not any((effort.learns, effort.joint, effort.prunes, effort.tuning))


def test_the_table_compares_with_all_parts_of_the_same_effort(ablation: dict[str, Any]) -> None:
    clip = Path("clip.mkv")
    found = {}
    for number in range(len(ablation["VARIANTS"])):
        more = 1 + number / 10
        for bpp, psnr in ((0.05, 30.0), (0.1, 33.0), (0.2, 36.0)):
            figures = {"bytes": 1e5 * bpp * more, "psnr": psnr, "encode": 2.0 * more, "decode": 1.0}
            found[ablation["Job"](number, clip, bpp, 5)] = figures
    rows = ablation["table"](found, [clip]).splitlines()
    assert rows[2] == "| all parts | +0.0 % | 1.00 | 1.00 |"
    assert rows[3] == "| without motion prediction | +10.0 % | 1.10 | 1.00 |"
    assert rows[9] == "| all parts, medium | +0.0 % | 1.00 | 1.00 |"
    assert rows[10] == "| without quantisation-aware tuning, medium | +5.9 % | 1.06 | 1.00 |"  # 1.8 / 1.7


@pytest.mark.parametrize("channels", [3, 6])
def test_raster_order_looks_at_nothing_that_comes_later(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    kernels = runpy.run_path(str(TOOLS / "ablation_contexts.py"))["raster_kernels"]
    layout = ChannelLayout((0,) * channels)
    seen = 0
    for stage, phases in enumerate(stage_of(channels)):
        magnitude, signed = kernels(layout, stage)
        together = magnitude.reshape(3, channels, channels, 6, 6).abs().sum(0) + signed.abs()
        for c, other, y, x in torch.nonzero(together).tolist():
            row, column = phases[c]
            assert (y - 2 - row, x - 2 - column, other) < (0, 0, c)
            seen += 1
    assert seen > 100
