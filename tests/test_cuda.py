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
from conftest import Encoded
from stand_in_cuda import stand_in_cuda

from nvcodec.decoder import Decoder, FrameHash
from nvcodec.device import choose_device
from nvcodec.parallel import thread_limit
from nvcodec.segment import SegmentDecoder

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
        decoded = SegmentDecoder(segment.payload, decoder.geometry, segment.frame_count, decoder.device)
        states = [state for unit in decoded.decode() for state in unit.values()]
    assert states
    assert all(state.appearance.packed.is_cuda for state in states)


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("name", GOOD)
def test_vectors(name: str) -> None:
    digest = FrameHash()
    with Decoder(FOLDER / f"{name}.cwrv", device="cuda", threads=1) as decoder:
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


@pytest.mark.parametrize(
    ("name", "luma_samples", "is_there", "chosen"),
    [("auto", 1920 * 1080, True, "cuda"), ("auto", 416 * 240, True, "cpu"), ("auto", 1920 * 1080, False, "cpu"),
     ("cuda", 416 * 240, True, "cuda"), ("cpu", 1920 * 1080, True, "cpu")],
)  # fmt: skip
def test_auto_is_cuda_for_large_pictures(
    monkeypatch: pytest.MonkeyPatch, name: str, luma_samples: int, is_there: bool, chosen: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_there)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert choose_device(name, luma_samples).type == chosen
