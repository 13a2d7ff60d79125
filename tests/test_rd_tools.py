"""The tools around ``rd``: anchors by hand, and the standing benchmark with its tables."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rd_samples import fake_codec, moving_clip

from nvcodec.core.errors import InputError
from nvcodec.rd import output

TOOLS = Path(__file__).parent.parent / "tools"


def tool(name: str, *arguments: str | Path, **changes: Any) -> Result:
    """Runs a tool in this process, with other constants."""
    program = runpy.run_path(str(TOOLS / f"{name}.py"))
    program["main"].callback.__globals__.update(changes)
    return CliRunner().invoke(program["main"], [str(argument) for argument in arguments])


def test_an_anchor_by_hand(tmp_path: Path) -> None:
    clip = moving_clip(tmp_path / "clip.mkv", 96, 80)
    arguments = ["--codec", "x264", "--preset", "ultrafast", "--crf", "30", "--bytes", "2500"]
    result = tool("anchor", clip, *arguments)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["anchor"], found["frames"], found["points"][0]["crf"]) == ("x264:ultrafast", 6, 30)
    (target,) = found["targets"]
    below, above = target["points"]
    assert below["bytes"] <= 2500 < above["bytes"]
    assert below["crf"] - above["crf"] == pytest.approx(0.01)
    figures = sorted([below["psnr_y"], above["psnr_y"]])
    assert figures[0] <= target["interpolated"]["psnr_y"] <= figures[1]
    assert "no preset 'quick'" in tool("anchor", clip, "--preset", "quick", "--crf", "30").output


def test_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = fake_codec(monkeypatch)
    monkeypatch.setattr(output, "plot_curves", lambda results: (b"", b""))
    clips = tmp_path / "clips"
    clips.mkdir()
    moving_clip(clips / "short.mkv", 176, 176, 3)
    moving_clip(clips / "wide.mkv", 128, 96, 6)
    (clips / "notes.txt").write_text("no clip")
    document = tmp_path / "DOC.md"
    fast = "<!-- benchmark fast -->\nfast\n<!-- /benchmark fast -->\n"
    document.write_text(f"before\n{fast}<!-- benchmark medium -->\nold\n<!-- /benchmark medium -->\nafter\n")
    command = ["benchmark", clips, "-o", tmp_path / "out", "--frames", "4", "--threads", "1"]
    command += ["--bpp", "0.2,0.4,0.8"]
    changes = {"ANCHORS": "x264:ultrafast"}

    result = tool(*command, "--check", document, **changes)
    assert result.exit_code == 1
    assert "DOC.md: not what was measured" in result.output
    assert "old" in document.read_text()
    result = tool(*command, "--update", document, "--check", document, **changes)
    assert result.exit_code == 0, result.output
    assert fake.targets == [0.2, 0.4, 0.8] * 2

    table = (tmp_path / "out" / "table.md").read_text()
    assert result.stdout == table
    medium = f"<!-- benchmark medium -->\n{table}<!-- /benchmark medium -->\n"
    assert document.read_text() == f"before\n{fast}{medium}after\n"
    (short, wide) = json.loads((tmp_path / "out" / "results.json").read_text())["clips"]
    assert (short["frame_count"], wide["frame_count"]) == (3, 4)
    rate = short["anchors"][0]["bd"]["psnr_yuv_611"]["rate"]["value"]
    assert f"| short, 3 | {rate:+.1f} %, " in table
    assert "| mean | " in table
    for clip in (short, wide):
        for point in clip["ours"]:
            assert f"| {clip['name']} | {point['bytes']} | {point['bpp']:.4f} | {point['psnr_y']:.2f} | " in table


@pytest.mark.parametrize(
    "text",
    [
        "none",
        "<!-- /benchmark medium -->\n<!-- benchmark medium -->\n",
        "<!-- benchmark fast -->\n<!-- /benchmark fast -->\n",
    ],
)
def test_documents_without_marks(text: str, tmp_path: Path) -> None:
    (tmp_path / "DOC.md").write_text(text)
    result = tool("benchmark", tmp_path, "-o", tmp_path / "out", "--check", tmp_path / "DOC.md")
    assert result.exit_code == 1
    assert "no place for the tables" in result.output
    assert not (tmp_path / "out").exists()


def test_a_folder_without_clips(tmp_path: Path) -> None:
    result = tool("benchmark", tmp_path, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert f"{tmp_path}: no clips" in result.output


@pytest.mark.parametrize("name", ["fast", "medium", "slow", "hd-fast"])
def test_the_document_has_a_place_for_the_tables(name: str) -> None:
    quoted = runpy.run_path(str(TOOLS / "benchmark.py"))["quoted"]
    document = TOOLS.parent / "docs" / "results" / "hybrid.md"
    before, table, after = quoted(document.read_text(encoding="utf-8"), name, str(document))
    assert before.endswith(f"<!-- benchmark {name} -->\n")
    assert f"effort {name.removeprefix('hd-')};" in table
    assert after.startswith(f"<!-- /benchmark {name} -->")
    assert "make benchmark" in before


def test_frames_of_single_clips() -> None:
    module = runpy.run_path(str(TOOLS / "benchmark.py"))
    assert module["frame_limits"]("33") == (33, {})
    assert module["frame_limits"]("65,one=97,two=5") == (65, {"one": 97, "two": 5})
    for wrong in ("", "0", "many", "5,one", "5,one=0", "5,one=2=3"):
        with pytest.raises(InputError, match="expected N or N,CLIP=M"):
            module["frame_limits"](wrong)


def test_the_benchmark_misses_a_clip_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "clip.y4m").write_bytes(b"")
    result = tool("benchmark", tmp_path, "-o", tmp_path / "out", "--frames", "5,other=3")
    assert result.exit_code
    assert "no clip named other" in result.output
