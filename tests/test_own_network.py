"""A network of one's own: the example of the documentation, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nvcodec
from nvcodec import exact, implicit
from nvcodec.core.errors import CheckpointError, EncodeError, TargetError
from nvcodec.encoder import checkpoint

PAGE = Path(__file__).parent.parent / "docs" / "own_network.md"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Six frames of 48x32 in which a bright square moves."""
    path = tmp_path / "clip.y4m"
    with path.open("wb") as stream:
        stream.write(b"YUV4MPEG2 W48 H32 F25:1 Ip A1:1 C420\n")
        for n in range(6):
            luma = torch.full((32, 48), 60, dtype=torch.uint8)
            luma[8:20, 4 + 5 * n : 16 + 5 * n] = 200
            chroma = torch.full((2, 16, 24), 128, dtype=torch.uint8)
            stream.write(b"FRAME\n" + luma.numpy().tobytes() + chroma.numpy().tobytes())
    return path


def test_the_example_of_the_documentation(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(found) == 1
    assert len(found[0].strip().splitlines()) <= 40
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    exec(compile(found[0], str(PAGE), "exec"), {"__name__": "example"})
    size = (tmp_path / "clip.cwrv").stat().st_size
    assert capsys.readouterr().out.startswith(f"{size} ")
    with nvcodec.Decoder(tmp_path / "clip.cwrv") as decoder:
        decoder.verify()
        luma = torch.stack([frame.y for frame in decoder]).float()
    assert luma[0, 14, 10] - luma[0, 14, 40] > 40  # the square
    assert luma[5, 14, 35] - luma[5, 14, 6] > 40  # has moved


class Tiny(nn.Module):
    """One latent and one convolution; ``between`` stands between them."""

    def __init__(self, sizes: exact.Sizes, between: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.latent, self.conv = exact.Latent(3, *sizes.half), exact.Conv2d(3, 6, 3)
        self.samples, self.between = exact.Samples(), between

    def forward(self, frame: exact.FrameInputs) -> dict[str, Any]:
        return {"samples": self.samples(self.conv(self.between(self.latent(frame))))}


@pytest.mark.parametrize(
    ("between", "message"),
    [
        (lambda x: x + 1, r"add: .* use the layer nvcodec\.exact\.Add"),
        (torch.tanh, r"tanh: .* use the layer nvcodec\.exact\.Tanh"),
        (lambda x: x if x.sum() > 0 else 2 * x, "cannot be followed"),
        (lambda x: torch.cat([x, x], 1), r"nvcodec\.exact\.Concat"),
    ],
)
def test_what_is_no_program(clip: Path, tmp_path: Path, between: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(EncodeError, match=message):
        implicit.encode(clip, tmp_path / "out.cwrv", lambda sizes: Tiny(sizes, between), bpp=1.0)
    assert not list(tmp_path.glob("out*"))


def test_layers_of_another_library(clip: Path, tmp_path: Path) -> None:
    def make(sizes: exact.Sizes) -> nn.Module:
        module = Tiny(sizes)
        module.conv = nn.Conv2d(3, 6, 3)  # type: ignore[assignment]
        return module

    with pytest.raises(EncodeError, match=r"conv: Conv2d is not made of layers of nvcodec\.exact"):
        implicit.encode(clip, tmp_path / "out.cwrv", make, bpp=1.0)


def test_wrong_sizes_are_told(clip: Path, tmp_path: Path) -> None:
    class Small(Tiny):
        def __init__(self, sizes: exact.Sizes) -> None:
            super().__init__(sizes._replace(half=(4, 4)))

    with pytest.raises(EncodeError, match="samples: 6x4x4 for a picture of 6x16x24"):
        implicit.encode(clip, tmp_path / "out.cwrv", Small, bpp=1.0)


def test_a_target_out_of_reach_names_the_range(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"takes \d+ to \d+ bytes, the target leaves \d+"):
        implicit.encode(clip, tmp_path / "out.cwrv", Tiny, bpp=12.0, epochs=2)
    assert not list(tmp_path.glob("out*"))


def test_the_module_itself_is_left_alone(clip: Path, tmp_path: Path) -> None:
    module = Tiny(exact.Sizes((16, 24), (4, 6), 6))
    before = {name: value.clone() for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    report = implicit.encode(clip, tmp_path / "out.cwrv", module, epochs=2, effort="fast", threads=1)
    after = module.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert report.model == "module"
    assert report.stages[0]["weights"] == 3 * 6 * 9 + 6
    assert report.stages[0]["latents"] == 6 * 3 * 16 * 24


class Recurrent(nn.Module):
    """Two states that are stored and returned in another order than they are made in, a grid, corrections of one
    reference."""

    def __init__(self, sizes: exact.Sizes) -> None:
        super().__init__()
        self.late, self.early = exact.Store(1, 3, *sizes.half), exact.Store(0, 2, *sizes.half)
        self.grid, self.detail = exact.Grid(2, 2, *sizes.half), exact.Latent(2, *sizes.half)
        self.prediction, self.first, self.second = (
            exact.Prediction(),
            exact.State(0, self.early),
            exact.State(0, self.late),
        )
        self.both, self.mix, self.act = exact.Concat(), exact.Conv2d(2 + 2 + 6 + 2 + 3, 8, 3), exact.LeakyReLU()
        self.to_early, self.to_late, self.out = exact.Conv2d(8, 2), exact.Conv2d(8, 3), exact.Conv2d(8, 6, 3)
        self.add, self.samples = exact.Add(), exact.Samples()
        self.vectors, self.shift, self.correct = exact.Vectors(1), exact.Conv2d(2, 2), exact.Correct(1)

    def forward(self, frame: exact.FrameInputs) -> dict[str, Any]:
        prediction = self.prediction(frame)
        x = self.both(self.grid(frame), self.detail(frame), prediction, self.first(frame), self.second(frame))
        x = self.act(self.mix(x))
        return {
            "samples": self.samples(self.add(prediction, self.out(x))),
            "states": (self.early(self.to_early(x)), self.late(self.to_late(x))),
            "corrections": (self.correct(self.shift(self.vectors(frame))),),
        }


def test_a_recurrent_network_with_a_grid_is_what_its_twin_is(clip: Path, tmp_path: Path) -> None:
    report = implicit.encode(clip, tmp_path / "out.cwrv", Recurrent, epochs=2, threads=1)
    (stages,) = report.stages
    assert stages["latents"] == (6 + 2) * 2 * 16 * 24
    with nvcodec.Decoder(tmp_path / "out.cwrv") as decoder:
        decoder.verify()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, f: {"picture": m.samples(m.conv(m.latent(f)))}, "no dict with what a Samples layer gave"),
        (lambda m, f: {"samples": m.samples(m.conv(m.latent(f))), "more": f}, "'more', which nobody looks at"),
        (lambda m, f: {"samples": m.samples(m.conv(x=m.latent(f)))}, "conv: Conv2d takes its operands one by one"),
        (lambda m, f: {"samples": m.samples(m.conv(m.conv(m.latent(f))))}, "conv: a Conv2d is called once"),
        (lambda m, f: {"samples": m.samples(m.spare(m.latent(f)))}, "conv: nothing calls this Conv2d"),
    ],
)
def test_what_cannot_be_meant(
    clip: Path, tmp_path: Path, change: Callable[[Any, exact.FrameInputs], dict[str, Any]], message: str
) -> None:
    class Odd(Tiny):
        def __init__(self, sizes: exact.Sizes) -> None:
            super().__init__(sizes)
            if "nothing calls" in message:
                self.spare = exact.Conv2d(3, 6)

        def forward(self, frame: exact.FrameInputs) -> dict[str, Any]:
            return change(self, frame)

    with pytest.raises(EncodeError, match=message):
        implicit.encode(clip, tmp_path / "out.cwrv", Odd, bpp=1.0)


def test_another_network_does_not_go_on_from_a_checkpoint(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(BaseException):
        pass

    def stop(progress: nvcodec.Progress) -> None:
        if progress.seconds is None:
            raise Stop

    monkeypatch.setattr(checkpoint, "_SHARE", 1e9)
    factor = [1]

    def make(sizes: exact.Sizes) -> nn.Module:
        return Tiny(sizes, exact.Scale(factor[0]))

    with pytest.raises(Stop):
        implicit.encode(clip, tmp_path / "out.cwrv", make, epochs=3, progress=stop)
    factor[0] = 3
    with pytest.raises(CheckpointError, match="of another network"):
        implicit.encode(clip, tmp_path / "out.cwrv", make, epochs=3)
