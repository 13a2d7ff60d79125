"""The levels of the format, and the tables of bitstream_spec.md against the code."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from container_samples import HASH, header

from nvcodec import container, limits, syntax
from nvcodec.container import Segment, StreamHeader, write_container
from nvcodec.errors import BitstreamError, LimitError, UnsupportedError

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
    chapter = SPEC.split("\n## 14.")[1].split("\n## ")[0]
    reasons = {cls.reason for cls in BitstreamError.__subclasses__()}
    assert set(re.findall(r"^\| `(\w+)` \|", chapter, flags=re.MULTILINE)) == reasons


def test_spec_contents_match_its_chapters() -> None:
    listed = re.findall(r"^(\d+)\. \[(.+)\]\(#(.+)\)$", SPEC, flags=re.MULTILINE)
    chapters = re.findall(r"^## (\d+)\. (.+)$", SPEC, flags=re.MULTILINE)
    assert [(number, title) for number, title, _ in listed] == chapters
    for number, title, anchor in listed:
        assert anchor == re.sub(r"[^\w -]", "", f"{number} {title}").lower().replace(" ", "-")
