"""Anchors: what they are told, what they write, and that another tool measures the same."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import pytest
from rd_samples import demo_frames
from video_samples import properties

from nvcodec.core.errors import EncodeError, InputError
from nvcodec.core.frame import Frame
from nvcodec.core.metrics import frame_psnr, mean_psnr
from nvcodec.media.av_frame import to_av_frame
from nvcodec.rd.anchors import (
    CODERS,
    AnchorSpec,
    AnchorStream,
    check_anchor,
    decode_stream,
    encode_anchor,
    parse_anchors,
    without_user_data,
)
from nvcodec.rd.ladder import MATCH_TOLERANCE, build_ladder

SIZE = properties(320, 180)
PRESETS = {"x264": "veryfast", "x265": "ultrafast", "svtav1": "10"}
CRF = {"x264": 30, "x265": 30, "svtav1": 45}


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return demo_frames(9)


@pytest.fixture(scope="module", params=list(CODERS))
def coded(request: pytest.FixtureRequest, frames: list[Frame]) -> tuple[AnchorSpec, AnchorStream]:
    spec = AnchorSpec(request.param, PRESETS[request.param])
    return spec, encode_anchor(frames, SIZE, spec, CRF[spec.codec])


def psnr_by_ffmpeg(path: Path, source: list[Frame]) -> tuple[float, ...]:
    """Mean over the frames of the PSNR of Y, U, V that FFmpeg's filter ``psnr`` finds, from the file alone."""
    graph = av.filter.Graph()
    inputs = [
        graph.add_buffer(width=320, height=180, format="yuv420p", time_base=SIZE.time_base, name=name)
        for name in ("decoded", "source")
    ]
    psnr, sink = graph.add("psnr"), graph.add("buffersink")
    inputs[0].link_to(psnr, 0, 0)
    inputs[1].link_to(psnr, 0, 1)
    psnr.link_to(sink)
    graph.configure()
    rows = []
    with av.open(str(path)) as container:
        for number, (decoded, original) in enumerate(zip(container.decode(video=0), source, strict=True)):
            for node, picture in zip(inputs, (decoded, to_av_frame(original)), strict=True):
                picture.pts, picture.time_base = number, SIZE.time_base
                node.push(picture)
            told = sink.pull().metadata
            rows.append([float(told[f"lavfi.psnr.psnr.{plane}"]) for plane in "yuv"])
    return tuple(sum(column) / len(rows) for column in zip(*rows, strict=True))


def test_another_tool_measures_the_same(
    coded: tuple[AnchorSpec, AnchorStream], frames: list[Frame], tmp_path: Path
) -> None:
    """The stream as a file, read by FFmpeg's own demuxer, against our packets and our PSNR."""
    spec, stream = coded
    path = tmp_path / f"a{spec.coder.suffix}"
    path.write_bytes(stream.data)
    decoded = decode_stream(stream.data, stream.packet_bytes, spec.coder)
    ours = mean_psnr(frame_psnr(a, b) for a, b in zip(decoded, frames, strict=True))
    assert psnr_by_ffmpeg(path, frames) == pytest.approx(tuple(ours), abs=0.01)
    with av.open(str(path)) as container:
        packets = [packet.size for packet in container.demux(video=0)]
    assert sum(packets) == pytest.approx(len(stream.data), rel=0.01)


def test_running_the_encoder_by_hand_gives_the_same_bits(
    coded: tuple[AnchorSpec, AnchorStream], frames: list[Frame], tmp_path: Path
) -> None:
    """FFmpeg's own options and muxer instead of ours and our packets; of our options only the tuning, and one thread
    (slices for more threads and wavefronts cost bits)."""
    spec, stream = coded
    path = tmp_path / f"hand{spec.coder.suffix}"
    options = {"preset": spec.preset, "crf": str(CRF[spec.codec])}
    options |= {
        "x264": {"tune": "psnr", "threads": "1"},
        "x265": {"tune": "psnr", "x265-params": "pools=none:log-level=none"},
        "svtav1": {"svtav1-params": "tune=1"},
    }[spec.codec]
    with av.open(str(path), "w") as container:
        output = container.add_stream(spec.coder.encoder, rate=25, options=options)
        output.width, output.height, output.pix_fmt = 320, 180, "yuv420p"
        for number, frame in enumerate(frames):
            picture = to_av_frame(frame)
            picture.pts, picture.time_base = number, SIZE.time_base
            container.mux(output.encode(picture))
        container.mux(output.encode())
    with av.open(str(path)) as container:
        size = sum(len(without_user_data(bytes(packet), spec.coder)) for packet in container.demux(video=0))
    assert size == pytest.approx(len(stream.data), rel=0.01)
    assert psnr_by_ffmpeg(path, frames) == pytest.approx(_psnr(spec, stream, frames), abs=0.01)


def _psnr(spec: AnchorSpec, stream: AnchorStream, frames: list[Frame]) -> tuple[float, ...]:
    decoded = decode_stream(stream.data, stream.packet_bytes, spec.coder)
    return tuple(mean_psnr(frame_psnr(a, b) for a, b in zip(decoded, frames, strict=True)))


def test_bits_by_frame(coded: tuple[AnchorSpec, AnchorStream]) -> None:
    _, stream = coded
    assert sum(stream.packet_bytes) == len(stream.data) == sum(stream.frame_bytes)
    assert sorted(stream.packet_frames) == list(range(9))
    assert stream.frame_bytes[0] == stream.packet_bytes[0] == max(stream.packet_bytes)
    assert stream.key_frames == 1


def test_settings_are_told(coded: tuple[AnchorSpec, AnchorStream]) -> None:
    spec, stream = coded
    assert stream.options == spec.coder.options(spec.preset, CRF[spec.codec], None)
    if spec.codec == "svtav1":
        assert stream.settings_text == ""
        assert stream.options["svtav1-params"].startswith("tune=1:crf=45.00:keyint=-1:")
    else:
        assert stream.options["tune"] == "psnr"
        assert stream.settings_text.encode() not in stream.data
        assert re.search(rf"^{spec.codec} .*\bcrf=30\.0", stream.settings_text)


def test_a_run_can_be_repeated(coded: tuple[AnchorSpec, AnchorStream], frames: list[Frame]) -> None:
    spec, stream = coded
    assert encode_anchor(frames, SIZE, spec, CRF[spec.codec]).data == stream.data


@pytest.mark.parametrize("codec", list(CODERS))
def test_key_frames(codec: str, frames: list[Frame]) -> None:
    spec = AnchorSpec(codec, PRESETS[codec])
    stream = encode_anchor(frames, SIZE, spec, CRF[codec], key_interval=4)
    assert stream.key_frames == 3
    third = sorted(zip(stream.packet_frames, range(9), strict=True))[8][1]
    tail = decode_stream(b"".join(parts(stream)[third:]), stream.packet_bytes[third:], spec.coder)
    assert len(list(tail)) == 9 - third  # the last key frame needs nothing before it


@pytest.mark.parametrize("codec", list(CODERS))
def test_a_single_frame(codec: str, frames: list[Frame]) -> None:
    spec = AnchorSpec(codec, PRESETS[codec])
    stream = encode_anchor(frames[:1], SIZE, spec, CRF[codec])
    (decoded,) = decode_stream(stream.data, stream.packet_bytes, spec.coder)
    assert 25 < frame_psnr(decoded, frames[0]).y < 45


def parts(stream: AnchorStream) -> list[bytes]:
    ends = [sum(stream.packet_bytes[: n + 1]) for n in range(len(stream.packet_bytes))]
    return [stream.data[a:b] for a, b in pairwise([0, *ends])]


def test_parse() -> None:
    assert [spec.name for spec in parse_anchors("x264:medium, svtav1:4")] == ["x264:medium", "svtav1:4"]
    assert parse_anchors("none") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vp9:good", "unknown anchor 'vp9' .known: x264, x265, svtav1"),
        ("x264:quick", "x264 has no preset 'quick'"),
        ("svtav1:14", "svtav1 has no preset '14' .known: 0 to 13"),
        ("x264", "ENCODER:PRESET"),
        ("x264:", "ENCODER:PRESET"),
        ("", "ENCODER:PRESET"),
        ("x264:fast,x264:fast", "x264:fast is given twice"),
    ],
)
def test_parse_errors(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_anchors(text)


def test_unfit_clips_are_refused() -> None:
    for width, height in ((62, 80), (96, 81), (97, 80)):
        with pytest.raises(InputError, match=f"at least 64, not {width}x{height}"):
            check_anchor(AnchorSpec("x265", "medium"), properties(width, height))


def test_wrong_packet_sizes(coded: tuple[AnchorSpec, AnchorStream]) -> None:
    spec, stream = coded
    with pytest.raises(InputError, match="cannot have packets"):
        list(decode_stream(stream.data, stream.packet_bytes[1:], spec.coder))


def test_key_frames_are_counted(frames: list[Frame], monkeypatch: pytest.MonkeyPatch) -> None:
    spec = AnchorSpec("x264", "veryfast")
    told = {"preset": "veryfast", "x264-params": "keyint=3:min-keyint=1:scenecut=0"}
    monkeypatch.setitem(CODERS, "x264", replace(CODERS["x264"], options=lambda *_: told))
    with pytest.raises(EncodeError, match="3 key frames where 1 were asked for"):
        encode_anchor(frames, SIZE, spec, 30)


class Model:
    """An encoder by its laws: bits halve every ``halving`` rate factors, quality falls 0.5 dB a rate factor."""

    def __init__(self, halving: float, ripple: float = 0.0) -> None:
        self.halving, self.ripple = halving, ripple
        self.asked: list[float] = []

    def size(self, crf: float) -> int:
        self.asked.append(crf)
        wave = 1 + self.ripple * (1 if round(crf * 100) % 2 else -1)
        return round(1e6 * 2 ** (-crf / self.halving) * wave)

    def quality(self, crf: float) -> float:
        return 55 - 0.5 * crf


@pytest.mark.parametrize("codec", list(CODERS))
@pytest.mark.parametrize("halving", [4.0, 6.0, 8.0])
def test_ladders_bracket_and_match(codec: str, halving: float) -> None:
    model, coder = Model(halving), CODERS[codec]
    ours = [(15_000, 33.0), (30_000, 36.0), (60_000, 38.0)]
    ladder = build_ladder(ours, coder, model.size, model.quality)
    sizes = [model.size(crf) for crf in ladder.crfs]
    qualities = [model.quality(crf) for crf in ladder.crfs]
    assert len(ladder.crfs) >= 4
    assert sizes[0] >= 60_000
    assert qualities[0] >= 38
    assert sizes[-1] <= 15_000
    assert qualities[-1] <= 33
    assert ladder.crfs == tuple(sorted(ladder.crfs))
    assert set(ladder.matched) <= set(ladder.crfs)
    for (target, _), crf in zip(ours, ladder.matched, strict=True):
        nearest = min(
            abs(model.size(coder.round_crf(crf + d)) / target - 1) for d in (-coder.crf_step, 0, coder.crf_step)
        )
        assert abs(model.size(crf) / target - 1) <= max(MATCH_TOLERANCE, 1.001 * nearest)


def test_ladders_end_at_the_encoders_range() -> None:
    model = Model(6)
    ladder = build_ladder([(10, 5.0), (10**9, 80.0)], CODERS["x264"], model.size, model.quality)
    assert (ladder.crfs[0], ladder.crfs[-1]) == (1.0, 51.0)
    assert ladder.matched == (51.0, 1.0)


def test_ladders_have_four_points_and_ask_once() -> None:
    model = Model(6, ripple=0.05)  # no rate factor meets the target within the tolerance
    ladder = build_ladder([(30_000, 37.0)], CODERS["x265"], model.size, model.quality)
    assert len(ladder.crfs) >= 4
    assert len(model.asked) == len(set(model.asked)) <= 12
