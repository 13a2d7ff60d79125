"""A CUDA device makes the frames that every CPU makes, and files that every CPU decodes.

Where there is none, a stand-in shows that the code for one runs, and that its operations come to the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Encoded, tiny_frames
from stand_in_cuda import stand_in_cuda
from video_samples import properties

from nvcodec.core.device import choose_device
from nvcodec.core.parallel import thread_limit
from nvcodec.decoder import Decoder, FrameHash
from nvcodec.encoder import checkpoint
from nvcodec.encoder.pipeline import EncodeOptions, Progress, encode
from nvcodec.hybrid.payload import HybridDecoder
from nvcodec.media.y4m import write_y4m

FOLDER = Path(__file__).parent / "vectors"
LISTED: dict[str, dict[str, Any]] = json.loads((FOLDER / "vectors.json").read_text(encoding="utf-8"))
GOOD = {name: str(record["frame_hash"]) for name, record in LISTED.items() if "error" not in record}
LONG = {"deep", "deepest", "drift", "medium"}
"""Vectors, and an effort, that take too long with the stand-in."""


@pytest.fixture
def cuda(request: pytest.FixtureRequest) -> Iterator[None]:
    if torch.cuda.is_available():
        yield
        return
    parameters = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    if LONG & set(parameters.values()):
        pytest.skip("takes too long without a CUDA device")
    if parameters.get("threads", 1) > 1:
        pytest.skip("the stand-in is there on one thread only")
    with stand_in_cuda():
        yield


def test_the_stand_in_forbids_what_a_device_forbids() -> None:
    with stand_in_cuda():
        there, here = torch.arange(4.0, device="cuda:0"), torch.arange(4.0)
        assert there.is_cuda
        assert torch.equal((there + 1)[[3, 0]].cpu(), torch.tensor([4.0, 1.0]))
        with pytest.raises(RuntimeError, match="on CUDA and on the CPU"):
            _ = there + here
        with pytest.raises(RuntimeError, match="on CUDA and on the CPU"):
            there[here.long()] = here
        with pytest.raises(RuntimeError):
            there.numpy()


@pytest.mark.usefixtures("cuda")
def test_decoding_is_done_on_the_device() -> None:
    with Decoder(FOLDER / "blocks.cwrv", device="cuda") as decoder, thread_limit(1):
        segment = next(iter(decoder.container.iter_segments()))
        decoded = HybridDecoder(segment.payload, decoder.geometry, segment.frame_count, decoder.device)
        pictures = [samples for unit in decoded.decode() for samples in unit.values()]
    assert pictures
    assert all(samples.is_cuda for samples in pictures)


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("name", GOOD)
def test_vectors(name: str, threads: int) -> None:
    digest = FrameHash()
    with Decoder(FOLDER / f"{name}.cwrv", device="cuda", threads=threads) as decoder:
        assert decoder.device.type == "cuda"
        for frame in decoder:
            digest.add(frame.planes)
    assert digest.digest().hex() == GOOD[name]


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("effort", ["fast", "medium"])
def test_what_is_encoded_on_cuda_decodes_on_the_cpu(encode_tiny: Callable[..., Encoded], effort: str) -> None:
    made = encode_tiny(24, 16, 3, quality=20, effort=effort, device="cuda", gop=2)
    with Decoder(made.path, device="cpu", threads=1) as decoder:
        decoder.verify()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a device does not always add up gradients in the same order")
def test_an_encode_on_cuda_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after every unit, to the same bytes."""
    monkeypatch.setattr(checkpoint, "_SHARE", 1e9)
    source = tmp_path / "clip.y4m"
    with source.open("wb") as stream:
        write_y4m(stream, properties(24, 16), tiny_frames(24, 16, 3))
    options = EncodeOptions(bpp=3, effort="fast", device="cuda", threads=1, gop=2)

    class Stop(BaseException):
        pass

    def stop(progress: Progress) -> None:
        raise Stop

    told: list[Progress] = []
    with stand_in_cuda():
        encode(source, tmp_path / "whole.cwrv", options, progress=told.append)
        for _ in told:
            with pytest.raises(Stop):
                encode(source, tmp_path / "a.cwrv", options, progress=stop)
        assert encode(source, tmp_path / "a.cwrv", options).resumed
    assert (tmp_path / "a.cwrv").read_bytes() == (tmp_path / "whole.cwrv").read_bytes()


@pytest.mark.parametrize(
    ("name", "luma_samples", "is_there", "chosen"),
    [("auto", 200_000, True, "cuda"), ("auto", 199_999, True, "cpu"), ("auto", 1920 * 1080, False, "cpu"),
     ("cuda", 416 * 240, True, "cuda"), ("cpu", 1920 * 1080, True, "cpu")],
)  # fmt: skip
def test_auto_is_cuda_for_large_pictures(
    monkeypatch: pytest.MonkeyPatch, name: str, luma_samples: int, is_there: bool, chosen: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_there)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert choose_device(name, luma_samples).type == chosen
