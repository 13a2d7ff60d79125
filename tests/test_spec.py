"""The levels of the format, and the tables of bitstream_spec.md against the code."""

from __future__ import annotations

import bisect
import dataclasses
import importlib.util
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from container_samples import HASH, header

from nvcodec.bitstream import container, syntax
from nvcodec.bitstream.container import Segment, StreamHeader, write_container
from nvcodec.core import gop, limits
from nvcodec.core.errors import BitstreamError, LimitError, UnsupportedError
from nvcodec.entropy import tables, weights
from nvcodec.entropy.symbols import SymbolReader
from nvcodec.grid import contexts, wavelet
from nvcodec.hybrid import base
from nvcodec.hybrid.payload import HybridDecoder
from nvcodec.motion import levels, prediction, warp

SPEC = (Path(__file__).parent.parent / "bitstream_spec.md").read_text(encoding="utf-8")


def test_levels_rise() -> None:
    for low, high in zip(limits.LEVELS, limits.LEVELS[1:], strict=False):
        assert low.number + 1 == high.number
        assert low.max_picture_samples < high.max_picture_samples
        assert low.max_segment_samples < high.max_segment_samples
    for level in limits.LEVELS:
        width, height = map(int, level.example.split("x"))
        assert limits.level_for(width, height) == level.number
        assert 1 <= limits.max_segment_frames(level.number, width, height) <= limits.MAX_SEGMENT_FRAMES


def test_level_counts_the_frames_of_a_segment() -> None:
    most = limits.max_segment_frames(4, 1920, 1080)
    assert limits.level_for(1920, 1080, most) == 4
    assert limits.level_for(1920, 1080, most + 1) == 5
    long = header(level=4, width=1920, height=1080, frame_count=most + 1)
    with pytest.raises(LimitError, match=f"{most + 1} frames, allowed are 1..{most}"):
        write_container(long, [Segment(b"abc", HASH, most + 1)])
    for arguments in ((0, 1), (16384, 16384), (1, 1, 1025), (1, 1, 0), (8192, 8192, 65)):
        with pytest.raises(LimitError):
            limits.level_for(*arguments)
    with pytest.raises(UnsupportedError):
        limits.level_by_number(7)


def spec_table(name: str) -> str:
    found = re.findall(rf"<!-- table: {name} -->\n(.*?)\n<!-- end -->", SPEC, flags=re.DOTALL)
    assert len(found) == 1
    return str(found[0])


def test_spec_header_table() -> None:
    assert spec_table("HEAD") == syntax.fields_table(syntax.HEAD_FIELDS)
    names = {field.name for field in syntax.HEAD_FIELDS if field.kind != "reserved"}
    assert names == {field.name for field in dataclasses.fields(StreamHeader)}


def test_spec_limits_and_levels() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", spec_table("constants"), flags=re.MULTILINE)
    constants = {name: value for name, value in vars(limits).items() if name.isupper() and name != "LEVELS"}
    assert {name: int(value) for name, value in rows} == constants
    levels = [tuple(map(int, row)) for row in re.findall(r"\| (\d+) \| (\d+) \| (\d+) \|", spec_table("levels"))]
    assert levels == [(v.number, v.max_picture_samples, v.max_segment_samples) for v in limits.LEVELS]


def test_spec_sections_and_errors() -> None:
    rows = re.findall(r"^\| (0x\w\w) \| (\w+) \|", SPEC, flags=re.MULTILINE)
    assert {name: int(kind, 16) for kind, name in rows} == {k.name: k.value for k in container.SectionType}
    assert container.SIGNATURE.hex(" ").upper() in SPEC
    chapter = SPEC.split("\n## 16.")[1].split("\n## ")[0]
    reasons = {cls.reason for cls in BitstreamError.__subclasses__()}
    assert set(re.findall(r"^\| `(\w+)` \|", chapter, flags=re.MULTILINE)) == reasons


def test_spec_contents_match_its_chapters() -> None:
    listed = re.findall(r"^(\d+)\. \[(.+)\]\(#(.+)\)$", SPEC, flags=re.MULTILINE)
    chapters = re.findall(r"^## (\d+)\. (.+)$", SPEC, flags=re.MULTILINE)
    assert [(number, title) for number, title, _ in listed] == chapters
    for number, title, anchor in listed:
        assert anchor == re.sub(r"[^\w -]", "", f"{number} {title}").lower().replace(" ", "-")


def test_spec_generated_tables() -> None:
    """After a change of a file that belongs to the specification: python tools/make_spec_tables.py."""
    path = Path(__file__).parent.parent / "tools" / "make_spec_tables.py"
    found = importlib.util.spec_from_file_location("make_spec_tables", path)
    assert found is not None
    assert found.loader is not None
    tool = importlib.util.module_from_spec(found)
    found.loader.exec_module(tool)
    for name, table in tool.generated_tables().items():
        assert spec_table(name) == table, name


def test_spec_constants_of_the_decoding_process() -> None:
    for taps in (warp._LUMA_TAPS, warp._CHROMA_TAPS, wavelet._LOW_TAPS, wavelet._HIGH_TAPS):
        for row in taps:
            assert "{ " + ", ".join(map(str, row)) + " }" in SPEC
    assert "STEPS[16] = { " + ", ".join(map(str, weights.STEPS)) + " }" in SPEC
    assert f"is {', '.join(map(str, base.WIDTHS))} for the values 0..5" in SPEC
    assert f"LN2  = {tables._LN2}\nROOT = {tables._ROOT}" in SPEC
    assert " ".join(f"({dy},{dx})" for dy, dx in prediction._NEIGHBOURS) in SPEC
    assert " ".join(f"({step}, {penalty})" for step, penalty in prediction._REFINEMENT) in SPEC


def test_spec_bounds_of_the_grid() -> None:
    """The sums of the wavelet, and those of its context model, are exact in binary32."""
    assert f"Clip3(-{wavelet.BAND_BOUND}, {wavelet.BAND_BOUND}, q * gain)" in SPEC
    assert f"each sample of all of them = Clip3(-{wavelet.RESIDUAL_BOUND}, {wavelet.RESIDUAL_BOUND}, .)" in SPEC
    largest = int(abs(wavelet.grid_filters() * 512).sum((1, 2)).max()) * wavelet.BAND_BOUND
    assert f"({largest}, without the offset" in SPEC
    assert largest + 256 < 2**24
    found = contexts.appearance_context()
    most = [part.abs().flatten(0, -2).amax(0) for part in (found.output_bias, found.group_bias)]
    sums = 1023 * found.output.abs().sum(1) + 64 * (most[0] + most[1])
    assert sums.max() < 15728640
    features = 192 * (found.hidden.abs().sum(1) - found.hidden[:, 3].abs()) + 255 * found.hidden[:, 3].abs()
    assert (features + 64 * found.hidden_bias.abs()).max() < 15728640


def test_spec_coding_structure() -> None:
    listed = re.search(r"`n` = (\d+) and `gop` = (\d+): units (.+)\.$", SPEC, flags=re.MULTILINE)
    assert listed is not None
    units = gop.coding_units(int(listed[1]), int(listed[2]))
    assert listed[3] == ", ".join("(" + ", ".join(str(f.display) for f in unit.frames) + ")" for unit in units)


def test_spec_range_decoder() -> None:
    """Chapter 11 step by step, and constriction with the same words."""
    rows = [line.strip("| ").split(" | ") for line in spec_table("range decoder").splitlines()[2:]]
    data = re.search(r"words of the eight bytes `([0-9a-f ]+)`", SPEC)
    assert data is not None
    words = [*np.frombuffer(bytes.fromhex(data[1]), dtype="<u4").tolist(), 0]
    lower, span, point = 0, 2**64 - 1, words[0] << 32 | words[1]
    words = words[2:]
    assert [int(text, 16) for text in rows[0][-3:]] == [lower, span, point]
    for element, *numbers in rows[1:]:
        quantile, value = map(int, numbers[:2])
        frequencies, first = [1 << 23, 1 << 23], 0
        if element != "bit":
            table = int(element.removeprefix("table "))
            frequencies = tables.table_frequencies(table // 4, table % 4).tolist()
            first = -tables.TABLE_BOUND
        edges = [0, *itertools.accumulate(frequencies)]
        unit = span >> 24
        assert quantile == (point - lower) % 2**64 // unit
        position = bisect.bisect_right(edges, quantile) - 1
        assert value == position + first
        lower = (lower + unit * edges[position]) % 2**64
        span = unit * frequencies[position]
        if span < 2**32:
            lower, span, point = (lower << 32) % 2**64, span << 32, (point << 32) % 2**64 + words.pop(0)
        assert [int(text, 16) for text in numbers[2:]] == [lower, span, point]
    assert not words
    assert (point - lower) % 2**64 < 2**33 - 1

    reader = SymbolReader(bytes.fromhex(data[1]))
    bits = [int(row[2]) for row in rows[1:] if row[0] == "bit"]
    assert reader.exchange_flags(None, len(bits)).tolist() == bits
    run = re.search(r"with tables\n?([\d, ]+), which", SPEC)
    assert run is not None
    indices = np.array([int(text) for text in run[1].split(",")], dtype=np.uint8)
    symbols = re.search(r"the run is ([-\d, ]+)\.", SPEC)
    assert symbols is not None
    assert reader.exchange(indices).tolist() == [int(text) for text in symbols[1].split(",")]
    reader.finish()


def test_spec_shortest_payload() -> None:
    payload = bytes.fromhex("000800")
    assert "`00 08 00` is a segment payload" in SPEC
    decoder = HybridDecoder(payload, levels.FrameGeometry(20, 10), 3, torch.device("cpu"))
    assert sorted(display for unit in decoder.decode() for display in unit) == [0, 1, 2]
