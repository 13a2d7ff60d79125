"""The parts of ``rd`` by themselves: quality, stills, the store of finished results, processes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from rd_work import work
from video_samples import DEMO, frames, properties, read

from nvcodec.core.color import to_rgb
from nvcodec.core.errors import EncodeError, InputError
from nvcodec.core.metrics import PSNR_CAP_DB, frame_psnr
from nvcodec.rd.quality import FrameQuality, frame_quality, mean_quality, rgb_matrix
from nvcodec.rd.stills import choose_mode, decode_still, make_stills, pack, spaced, unpack
from nvcodec.rd.store import Store
from nvcodec.rd.workers import run_jobs

# Quality


def test_quality_of_a_frame() -> None:
    a, b = frames(176, 176, (0, 1))
    found = frame_quality(b, a, properties(176, 176))
    assert (found.psnr_y, found.psnr_u, found.psnr_v) == tuple(frame_psnr(a, b))
    assert found.psnr_yuv_611 == frame_psnr(a, b).yuv_611
    assert found.ms_ssim is not None
    assert 0 < found.ms_ssim < 1
    same = frame_quality(a, a, properties(176, 176))
    assert (same.psnr_y, same.psnr_rgb, same.ms_ssim) == (PSNR_CAP_DB, PSNR_CAP_DB, pytest.approx(1))


def test_ms_ssim_by_hand() -> None:
    """Of two flat pictures only the luminance of the coarsest scale differs: (2ab + c) / (a² + b² + c), to 0.1333."""
    a, b = (frames(176, 176, (0,))[0] for _ in range(2))
    a.planes[0].fill_(100)
    b.planes[0].fill_(120)
    c = (0.01 * 255) ** 2
    luminance = (2 * 100 * 120 + c) / (100**2 + 120**2 + c)
    found = frame_quality(a, b, properties(176, 176)).ms_ssim
    assert found == pytest.approx(luminance**0.1333, abs=1e-6)


def test_rgb_is_measured_in_rgb() -> None:
    """One step of full-range luma alone is one step of R, G and B."""
    a, b = (frames(64, 64, (0,))[0] for _ in range(2))
    for frame, level in ((a, 100), (b, 101)):
        frame.planes[0].fill_(level)
        frame.planes[1].fill_(128)
        frame.planes[2].fill_(128)
    found = frame_quality(a, b, properties(64, 64, color_range=2))
    assert found.psnr_rgb == pytest.approx(found.psnr_y) == pytest.approx(48.1308, abs=1e-4)


@pytest.mark.parametrize(
    ("height", "tags", "text"),
    [
        (288, {}, "BT.601 (assumed by the number of rows), limited range (assumed)"),
        (720, {}, "BT.709 (assumed by the number of rows), limited range (assumed)"),
        (288, {"colorspace": 1, "color_range": 2}, "BT.709 (tagged), full range (tagged)"),
        (288, {"colorspace": 9, "color_range": 1}, "BT.2020 (tagged), limited range (tagged)"),
    ],
)
def test_the_matrix_is_stated(height: int, tags: dict[str, int], text: str) -> None:
    assert rgb_matrix(properties(320, height, **tags)) == text


def test_an_unknown_matrix_is_refused() -> None:
    with pytest.raises(InputError, match="matrix 8"):
        rgb_matrix(properties(colorspace=8))


def test_means() -> None:
    rows = [FrameQuality(30, 40, 41, 29, 0.9), FrameQuality(32, 42, 43, 31, 0.98)]
    assert mean_quality(rows) == pytest.approx(
        {
            "psnr_y": 31, "psnr_u": 41, "psnr_v": 42, "psnr_yuv_611": (6 * 31 + 41 + 42) / 8, "psnr_rgb": 30,
            "ms_ssim": 0.94, "ms_ssim_db": 12.218487,
        }
    )  # fmt: skip
    assert mean_quality([FrameQuality(1, 1, 1, 1, 1.0)])["ms_ssim_db"] == PSNR_CAP_DB
    assert mean_quality([FrameQuality(1, 1, 1, 1, None)])["ms_ssim"] is None
    with pytest.raises(InputError, match="no frames"):
        mean_quality([])


# Stills


def test_stills_without_loss() -> None:
    pictures, size = frames(64, 48, (0, 1, 2)), properties(64, 48)
    mode = choose_mode(pictures[0], size, 3, 2, 10**6)
    assert (mode.frames, mode.lossless) == ((0, 1, 2), True)
    made = make_stills(pictures, size, mode)
    assert made.least_psnr == PSNR_CAP_DB
    assert all(torch.equal(decode_still(s), to_rgb(f, size)) for s, f in zip(made.images, pictures, strict=True))
    assert unpack(*pack(made)) == made


def test_stills_within_a_budget() -> None:
    pictures = read(DEMO, frames=(0, 12))[1]
    size = properties(320, 180)
    lossy = choose_mode(pictures[0], size, 12, 2, 1_200_000)
    assert (lossy.frames, lossy.lossless) == (tuple(range(12)), False)
    made = make_stills(pictures, size, lossy)
    assert sum(map(len, made.images)) < 600_000
    assert 35 < made.least_psnr < PSNR_CAP_DB
    few = choose_mode(pictures[0], size, 12, 2, 200_000)
    assert not few.lossless
    assert 2 <= len(few.frames) < 12
    assert (few.frames[0], few.frames[-1]) == (0, 11)
    assert choose_mode(pictures[0], size, 12, 2, 1).frames == (0, 11)
    with pytest.raises(InputError, match="ends before"):
        make_stills(pictures[:-1], size, few)


def test_spacing() -> None:
    assert spaced(5, 9) == (0, 1, 2, 3, 4)
    assert spaced(9, 3) == (0, 4, 8)
    assert spaced(1, 1) == (0,)


# The store and the processes


def test_the_store_knows_only_whole_results(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    key = {"a": 1, "b": [1, 2]}
    assert store.get("x", key) is None
    store.put("x", key, {"n": 3}, data=b"payload", suffix=".bin")
    found = store.get("x", {"b": [1, 2], "a": 1})
    assert found is not None
    assert found.payload is not None
    assert (found.record, found.payload.read_bytes()) == ({"n": 3}, b"payload")
    assert store.get("x", {"a": 1, "b": [2, 1]}) is None
    assert store.get("y", key) is None
    found.payload.unlink()
    assert store.get("x", key) is None


def test_processes() -> None:
    told: list[tuple[int, float, str]] = []
    jobs = [partial(work, number) for number in (2, 3, 4)]
    assert run_jobs(jobs, 2, lambda *step: told.append(step)) == [4, 9, 16]
    assert sorted(told) == [(0, 0.5, "job 2"), (1, 0.5, "job 3"), (2, 0.5, "job 4")]
    told.clear()
    assert run_jobs(jobs, 1, lambda *step: told.append(step)) == [4, 9, 16]
    assert len(told) == 3


@pytest.mark.parametrize(("bad", "message"), [(13, "unlucky"), (99, "exit status 3")])
def test_processes_that_fail(bad: int, message: str) -> None:
    with pytest.raises(EncodeError, match=message):
        run_jobs([partial(work, number) for number in (bad, 2)], 2, lambda *step: None)
