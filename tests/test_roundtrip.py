"""From a clip to a file and back: what the encoder says is what every way of decoding gives."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Encoded, tiny_frames
from video_samples import DEMO, properties, read, same

from nvcodec.account import describe
from nvcodec.bitstream.container import ContainerReader, write_container
from nvcodec.core.errors import BitstreamError, ChecksumError, InputError, MismatchError, TargetError
from nvcodec.core.frame import Frame
from nvcodec.core.metrics import frame_psnr, mean_psnr
from nvcodec.decoder import Decoder, output_planes
from nvcodec.encoder.pipeline import EncodeOptions, Progress, _total_bytes, encode
from nvcodec.encoder.working_domain import working_samples
from nvcodec.hybrid.encoder import final_pass
from nvcodec.hybrid.encoder.final_pass import _check_twin
from nvcodec.hybrid.encoder.twin import Twin
from nvcodec.hybrid.network import Network
from nvcodec.hybrid.payload import HybridDecoder
from nvcodec.media.video_io import write_video
from nvcodec.media.y4m import write_y4m
from nvcodec.motion.levels import FrameGeometry

Maker = Callable[..., Encoded]


def decoded(data: Path | bytes) -> list[Frame]:
    with Decoder(io.BytesIO(data) if isinstance(data, bytes) else data, device="cpu", threads=1) as decoder:
        return list(decoder)


def verify(data: bytes) -> None:
    with Decoder(io.BytesIO(data), device="cpu", threads=1) as decoder:
        decoder.verify()


@pytest.fixture(scope="module")
def odd(encode_tiny: Maker) -> Encoded:
    """35x21, three frames, two segments."""
    return encode_tiny(35, 21, 3, quality=22, segment=2)


# The demo clip


def test_report_is_true(demo: Encoded) -> None:
    frames, source = decoded(demo.path), read(demo.source, frames=demo.frames)[1]
    report = demo.report
    assert report.frames == len(frames) == 4
    assert report.file_bytes == demo.path.stat().st_size
    assert report.bpp == pytest.approx(8 * report.file_bytes / (4 * 320 * 180))
    mean = mean_psnr([frame_psnr(a, b) for a, b in zip(frames, source, strict=True)])
    found = (report.psnr_y, report.psnr_u, report.psnr_v, report.psnr_yuv)
    assert found == pytest.approx((mean.y, mean.u, mean.v, mean.yuv_611))
    assert report.psnr_y > 24  # a picture, not grey: a flat frame has less than 15


def test_file_meets_its_target(tmp_path: Path) -> None:
    """95 % to 102 % of what was asked for."""
    path, wanted = tmp_path / "demo.cwrv", 0.15 * 4 * 320 * 180 / 8
    report = encode(DEMO, path, EncodeOptions(bpp=0.15, effort="fast", device="cpu", threads=1), frames=(0, 4))
    assert report.file_bytes == path.stat().st_size
    assert 0.95 * wanted <= report.file_bytes <= 1.02 * wanted


def test_properties_survive(demo: Encoded) -> None:
    meant, source = read(demo.source, frames=demo.frames)
    with Decoder(demo.path, device="cpu") as decoder:
        assert decoder.properties == meant
        assert len(decoder) == decoder.frame_count == 4
        times = [frame.pts * decoder.properties.time_base for frame in decoder]
    assert times == [frame.pts * meant.time_base for frame in source]


def test_verify_passes_and_counts(demo: Encoded) -> None:
    counts: list[int] = []
    with Decoder(demo.path, device="cpu", threads=1) as decoder:
        decoder.verify(counts.append)
    assert counts == [1, 2, 3, 4]


def test_parts_are_slices_of_the_whole(demo: Encoded) -> None:
    whole = decoded(demo.path)
    with Decoder(demo.path, device="cpu", threads=1) as decoder:
        for start, stop in ((0, 4), (0, 1), (1, 3), (2, 4), (3, 4)):
            part = list(decoder.frames(start, stop))
            assert same(part, whole[start:stop]), (start, stop)
            assert [f.pts for f in part] == [f.pts for f in whole[start:stop]]
        assert same(list(decoder.frames(2)), whole[2:])
        for index in (0, 2, 3, -1, -4):
            assert same([decoder[index]], [whole[index]]), index


def test_ranges_beyond_the_file(demo: Encoded) -> None:
    with Decoder(demo.path, device="cpu") as decoder:
        for start, stop in ((0, 5), (4, 5), (2, 2), (3, 1), (-1, 2)):
            with pytest.raises(InputError, match=rf"frames {start}:{stop}: "):
                decoder.frames(start, stop)
        for index in (4, -5):
            with pytest.raises(IndexError, match=rf"frame {index} of 4"):
                decoder[index]


def test_account_adds_up(demo: Encoded) -> None:
    with Decoder(demo.path, device="cpu", threads=1) as decoder:
        account = decoder.account()
    assert account["file_bytes"] == sum(account["container"].values()) == demo.path.stat().st_size
    (segment,) = account["segments"]
    assert sorted(f for unit in segment["units"] for f in unit["frames"]) == [0, 1, 2, 3]
    bits = segment["weight_bits"] + sum(unit["bits"] for unit in segment["units"])
    assert bits == pytest.approx(segment["weight_bits"] + segment["motion_bits"] + segment["block_bits"])
    assert abs(8 * (segment["bytes"] - segment["header_bytes"]) - bits) <= 64 + 0.001 * bits


# Damage


def test_a_flipped_byte_is_noticed_anywhere(demo: Encoded) -> None:
    data = demo.path.read_bytes()
    rng = np.random.default_rng(6)
    places = {*rng.integers(0, len(data), 30).tolist(), *range(0, 60, 9), *range(len(data) - 40, len(data), 9)}
    for place in sorted(places):
        damaged = bytearray(data)
        damaged[place] ^= int(rng.integers(1, 256))
        with pytest.raises(BitstreamError):
            verify(bytes(damaged))


def test_a_file_that_ends_early_is_noticed(demo: Encoded) -> None:
    data = demo.path.read_bytes()
    for length in (0, 7, 10, 25, 40, len(data) // 2, len(data) - 7, len(data) - 1):
        with pytest.raises(BitstreamError):
            verify(data[:length])


def reassembled(data: bytes, change: Callable[[bytes, bytes], tuple[bytes, bytes]]) -> bytes:
    """The file with payload and frame hash of its first segment changed, and all checksums right."""
    with ContainerReader(io.BytesIO(data)) as container:
        segments = list(container.iter_segments())
        payload, frame_hash = change(segments[0].payload, segments[0].frame_hash)
        segments[0] = type(segments[0])(payload, frame_hash, segments[0].frame_count)
        return write_container(container.header, segments, timestamps=container.pts)


def test_wrong_frames_behind_a_right_checksum(odd: Encoded) -> None:
    data = reassembled(odd.path.read_bytes(), lambda payload, digest: (payload, digest[:-1] + b"?"))
    with pytest.raises(ChecksumError, match=r"segment 0 .*do not have the hash that the file states"):
        verify(data)
    assert len(list(Decoder(io.BytesIO(data), device="cpu").frames(0, 1))) == 1  # a part has no hash of its own


def test_damaged_payload_behind_a_right_checksum(odd: Encoded) -> None:
    """Whatever a segment's bytes are, there are frames or an error of ours that names the segment."""
    data = odd.path.read_bytes()
    rng = np.random.default_rng(3)
    for _ in range(40):

        def change(payload: bytes, digest: bytes) -> tuple[bytes, bytes]:
            damaged = bytearray(payload)
            damaged[int(rng.integers(0, min(len(damaged), 200)))] ^= int(rng.integers(1, 256))
            return bytes(damaged), digest

        with pytest.raises(BitstreamError, match=r"^segment 0"):
            verify(reassembled(data, change))


@pytest.mark.parametrize("kept", [1, 2, 3, 7, 35])
def test_truncated_payload_behind_a_right_checksum(odd: Encoded, kept: int) -> None:
    data = reassembled(odd.path.read_bytes(), lambda payload, digest: (payload[:kept], digest))
    with pytest.raises(BitstreamError, match=r"^segment 0"):
        verify(data)


def test_payload_that_goes_on(odd: Encoded) -> None:
    data = reassembled(odd.path.read_bytes(), lambda payload, digest: (payload + bytes(64), digest))
    with pytest.raises(BitstreamError, match=r"segment 0: .*goes on after its last symbol"):
        verify(data)


# Small clips


def test_two_segments_at_an_odd_size(odd: Encoded) -> None:
    frames = decoded(odd.path)
    assert [(f.width, f.height) for f in frames] == [(35, 21)] * 3
    with Decoder(odd.path, device="cpu", threads=1) as decoder:
        assert [entry.frame_count for entry in decoder.container.index] == [2, 1]
        assert same(list(decoder.frames(1, 3)), frames[1:])
        assert same([decoder[2]], frames[2:])
        decoder.verify()
    source = read(odd.source)[1]
    assert min(frame_psnr(a, b).y for a, b in zip(frames, source, strict=True)) > 22


def test_segments_are_independent(odd: Encoded) -> None:
    """The second segment decodes where the first is destroyed."""
    data = bytearray(odd.path.read_bytes())
    with ContainerReader(io.BytesIO(bytes(data))) as container:
        place = container._segment_offsets[0] + 20
    frames = decoded(bytes(data))
    data[place] ^= 255
    decoder = Decoder(io.BytesIO(bytes(data)), device="cpu")
    assert same([decoder[2]], frames[2:])
    with pytest.raises(ChecksumError, match="SEGMENT 0"):
        decoder[0]


def test_one_frame(encode_tiny: Maker) -> None:
    made = encode_tiny(48, 32, 1, bpp=2)
    (frame,) = decoded(made.path)
    assert frame_psnr(frame, read(made.source)[1][0]).y > 22
    verify(made.path.read_bytes())


@pytest.mark.parametrize(("width", "height"), [(1, 1), (2, 9)])
def test_smallest_pictures(encode_tiny: Maker, width: int, height: int) -> None:
    made = encode_tiny(width, height, 3, quality=20)
    frames = decoded(made.path)
    assert [(f.width, f.height) for f in frames] == [(width, height)] * 3
    verify(made.path.read_bytes())


def test_quality_orders_size_and_error(encode_tiny: Maker) -> None:
    good, bad = (encode_tiny(48, 32, 1, quality=q).report for q in (15, 40))
    assert good.file_bytes > 1.5 * bad.file_bytes
    assert good.psnr_yuv > bad.psnr_yuv + 3


def test_highest_qualities_are_better_still(encode_tiny: Maker) -> None:
    better, good = (encode_tiny(48, 32, 1, quality=q).report for q in (12, 25))
    assert better.psnr_yuv > good.psnr_yuv


def test_targets_in_bytes() -> None:
    """Ten frames of 64x64 at 25 frames a second last 0.4 s."""
    video = properties(64, 64)
    for options, expected in (
        (EncodeOptions(), 512.0),
        (EncodeOptions(bpp=0.5), 2560.0),
        (EncodeOptions(bitrate=20_000), 1000.0),
        (EncodeOptions(size=777), 777.0),
        (EncodeOptions(quality=30), None),
    ):
        assert _total_bytes(options, video, range(10)) == expected, options


def test_bitrate_counts_the_time_that_frames_are_shown(tmp_path: Path) -> None:
    """Unevenly spaced frames: their timestamps say how long it takes, and not the nominal rate."""
    video, pts = properties(64, 64, time_base=Fraction(1, 1000)), [0, 33, 70, 134, 150, 201, 290, 340, 500, 594]
    assert _total_bytes(EncodeOptions(bitrate=20_000), video, pts) == pytest.approx(20_000 * 0.634 / 8)
    source, path = tmp_path / "uneven.mkv", tmp_path / "uneven.cwrv"
    made = [replace(f, pts=t) for f, t in zip(tiny_frames(64, 48, 10), pts, strict=True)]
    write_video(str(source), properties(64, 48, time_base=Fraction(1, 1000)), iter(made), codec="ffv1")
    report = encode(source, path, EncodeOptions(bitrate=20_000, effort="fast", device="cpu", threads=1))
    assert 0.95 <= report.file_bytes / (20_000 * 0.634 / 8) <= 1.02
    with Decoder(path, device="cpu", threads=1) as decoder:
        told = describe(decoder, "uneven")
    assert told["seconds"] == pytest.approx(0.634)
    assert told["bitrate"] == pytest.approx(8 * report.file_bytes / 0.634)


def test_timestamps_and_rate_survive(tmp_path: Path) -> None:
    source, path = tmp_path / "clip.y4m", tmp_path / "clip.cwrv"
    meant = properties(
        16, 16, frame_rate=Fraction(30000, 1001), time_base=Fraction(1001, 30000),
        sample_aspect_ratio=Fraction(4, 3), color_range=2, chroma_location=3,
    )  # fmt: skip
    with source.open("wb") as stream:
        write_y4m(stream, meant, tiny_frames(16, 16, 2))
    encode(source, path, EncodeOptions(quality=35, effort="fast", device="cpu", threads=1))
    with Decoder(path, device="cpu") as decoder:
        found = decoder.properties
        assert found.frame_rate == meant.frame_rate
        assert found.sample_aspect_ratio == meant.sample_aspect_ratio
        assert (found.color_range, found.chroma_location) == (2, 3)
        assert [frame.pts * found.time_base for frame in decoder] == [0, Fraction(1001, 30000)]


def test_same_seed_same_bytes(encode_tiny: Maker) -> None:
    first, again = (encode_tiny(32, 24, 3, quality=25, seed=5).path.read_bytes() for _ in range(2))
    assert first == again


def test_progress_goes_forward_to_the_end(tmp_path: Path, odd: Encoded) -> None:
    seen: list[Progress] = []
    options = EncodeOptions(quality=22, segment=2, effort="fast", device="cpu", threads=1)
    encode(odd.source, tmp_path / "again.cwrv", options, progress=seen.append)
    fractions = [p.fraction for p in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1)
    assert all(1 <= p.frame <= p.frames == 3 for p in seen)
    assert {p.stage for p in seen} == {"look ahead", "fit", "final"}


# Refusals


def test_target_out_of_reach(odd: Encoded, tmp_path: Path) -> None:
    path = tmp_path / "never.cwrv"
    with pytest.raises(TargetError, match=r"target of 20 bytes is out of reach; the smallest file takes \d+ bytes"):
        encode(odd.source, path, EncodeOptions(size=20, device="cpu", threads=1))
    assert not path.exists()


def test_smallest_file_can_be_asked_for(odd: Encoded, tmp_path: Path) -> None:
    """What the refusal names is reachable, to a few words of the range coder."""
    common: dict[str, Any] = {"effort": "fast", "device": "cpu", "threads": 1}
    with pytest.raises(TargetError) as refusal:
        encode(odd.source, tmp_path / "a.cwrv", EncodeOptions(size=20, **common), frames=(0, 1))
    smallest = int(str(refusal.value).split()[-2])
    report = encode(odd.source, tmp_path / "b.cwrv", EncodeOptions(size=smallest, **common), frames=(0, 1))
    assert report.file_bytes <= smallest + 16


# The float twin


def test_twin_must_agree_on_every_sample() -> None:
    exact = torch.zeros(2, 6, 3, 3)
    _check_twin(exact.clone(), exact)
    other = exact.clone()
    other[1, 5, 2, 2] = -3
    with pytest.raises(MismatchError, match="differ by up to 3"):
        _check_twin(other, exact)


def test_perturbed_twin_is_noticed(odd: Encoded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bias that is off by one sample value in one output of the twin stops the encode, and leaves no file."""
    faithful = Twin.frozen

    def perturbed(network: Network) -> Twin:
        twin = faithful(network)
        twin.values["cell.key.leave.bias"] = twin.values["cell.key.leave.bias"].clone()
        twin.values["cell.key.leave.bias"][0, 3] += 4
        return twin

    monkeypatch.setattr(final_pass.Twin, "frozen", staticmethod(perturbed))
    path = tmp_path / "never.cwrv"
    with pytest.raises(MismatchError, match="float twin and the integer decoder differ by up to 1"):
        encode(odd.source, path, EncodeOptions(quality=30, effort="fast", device="cpu", threads=1))
    assert not path.exists()


def test_decoder_that_differs_is_noticed(odd: Encoded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder decodes its own bytes: a decoder that gives other frames stops it."""
    faithful = HybridDecoder.decode

    def wrong(self: HybridDecoder, *arguments: Any) -> Any:
        self.network.tensors["cell.key.leave.bias"] = self.network.tensors["cell.key.leave.bias"] + 16
        return faithful(self, *arguments)

    monkeypatch.setattr(HybridDecoder, "decode", wrong)
    with pytest.raises(MismatchError, match="does not decode to what the encoder meant: segment 0"):
        encode(odd.source, tmp_path / "x.cwrv", EncodeOptions(quality=30, effort="fast", device="cpu", threads=1))
    assert not (tmp_path / "x.cwrv").exists()


# Samples


def test_working_samples_and_back() -> None:
    """8 bits to 10 and back is lossless; odd sizes repeat their last row and column."""
    frame = tiny_frames(7, 5, 1)[0]
    samples = working_samples(frame)
    assert samples.shape == (6, *FrameGeometry(7, 5).half)
    for a, b in zip(output_planes(samples, 7, 5), frame.planes, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(samples[2, 2], samples[0, 2])  # the row below the last
    assert torch.equal(samples[1, :2, 3], samples[0, :2, 3])  # the column beyond the last


def test_output_rounds_to_eight_bits() -> None:
    values = torch.tensor([0.0, 1, 2, 5, 6, 1017, 1018, 1021, 1022, 1023])
    planes = output_planes(values.expand(6, 1, 10), 20, 2)
    assert planes[1].tolist() == [[0, 0, 1, 1, 2, 254, 255, 255, 255, 255]]
