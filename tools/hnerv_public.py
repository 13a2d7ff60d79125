"""The public HNeRV code trained on a small clip: the figure that this codec's HNeRV has to come near.

    python tools/bunny_small.py bunny_1280x720_25fps.mp4 -o bunny_160x320.y4m
    git clone https://github.com/haochen-rye/HNeRV DIR
    python tools/hnerv_public.py bunny_160x320.y4m --code DIR --params 100000 --epochs 100 -o result.json

Network, loss, learning rate and quantisation are the public ones, loaded from DIR. What is here is what their training
script does around them: the width from the number of parameters, the loop over the frames, and the evaluation. Their
modules import packages for reading videos that nothing here needs; empty stand-ins take their place while they load.

    frames (RGB by bunny_small.rgb_of, over 255)  -->  encoder  -->  16x2x4 a frame  -->  decoder  -->  RGB
                                                       not counted   counted             counted

Settings are those of their README for 1280x640, less one stage of 4 for a quarter of the size. A checkpoint beside the
output lets a broken run go on.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import click
import numpy as np
import torch
from bunny_small import planes_of, psnr, rgb_of

STRIDES = [5, 4, 2, 2]
EMBEDDING = 16
KERNELS = (1, 5)
"""Width of the decoder's first kernel, and the widest; each stage's is wider by 2 than the one before."""
REDUCE = 1.2
BATCH = 2
SEED = 1
EVERY = 10
"""Epochs from one evaluation and checkpoint to the next."""
WEIGHT_BITS, EMBEDDING_BITS = 8, 6


def stand_in(name: str, **members: Any) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(members)
    return module


def unused(*_: Any, **__: Any) -> Any:
    raise RuntimeError("the public code was thought not to need this")


@contextmanager
def stand_ins() -> Iterator[None]:
    """Modules that the public code imports; of these it only calls ``trunc_normal_``, which is PyTorch's."""
    modules = [
        stand_in("timm"),
        stand_in("timm.models"),
        stand_in("timm.models.layers", trunc_normal_=torch.nn.init.trunc_normal_, DropPath=unused),
        stand_in("pytorchvideo"),
        stand_in("pytorchvideo.data"),
        stand_in("pytorchvideo.data.encoded_video", EncodedVideo=unused),
        stand_in("torchvision"),
        stand_in("torchvision.transforms"),
        stand_in("torchvision.transforms.functional", center_crop=unused, resize=unused),
        stand_in("torchvision.io", read_image=unused),
        stand_in("decord", bridge=SimpleNamespace(set_bridge=lambda _: None)),
        stand_in("matplotlib"),
        stand_in("matplotlib.path", Path=unused),
        stand_in("pytorch_msssim", ms_ssim=unused, ssim=unused),
    ]
    before = {module.__name__: sys.modules.get(module.__name__) for module in modules}
    sys.modules.update({module.__name__: module for module in modules})
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def load_public(folder: Path, name: str) -> Any:
    """A module of the public code, by its file's name."""
    path = folder / f"{name}.py"
    if not path.is_file():
        raise click.ClickException(f"{folder} has no {name}.py; it should be a work tree of the public HNeRV code")
    spec = importlib.util.spec_from_file_location(f"hnerv_public_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with stand_ins():
        spec.loader.exec_module(module)
    return module


def decoder_width(parameters: float) -> int:
    """Channels after the decoder's first layer, with which the decoder has about so many parameters.

    Each stage is narrower than the one before by ``REDUCE``, so its weights are a constant times the square of the
    width; the first layer's grow with the width. Their formula counts 9 weights where that layer has 1, and neither
    biases, nor the lowest width, nor the last layer; so does this one.
    """
    first, widest = KERNELS
    square = 0.0
    for stage, stride in enumerate(STRIDES):
        kernel = min(first + 2 * stage, widest)
        square += (stride * kernel) ** 2 / REDUCE ** (2 * stage + 1)
    linear = 9.0 * EMBEDDING
    return int((math.sqrt(linear**2 + 4 * square * parameters) - linear) / (2 * square))


def settings_of(width: int, epochs: int) -> SimpleNamespace:
    """What the public code reads from its command line."""
    return SimpleNamespace(
        embed="",
        ks=f"0_{KERNELS[0]}_{KERNELS[1]}",
        num_blks="1_1",
        enc_strds=STRIDES,
        enc_dim=f"64_{EMBEDDING}",
        dec_strds=STRIDES,
        conv_type=["convnext", "pshuffel"],
        norm="none",
        act="gelu",
        fc_dim=width,
        reduce=REDUCE,
        lower_width=12,
        out_bias="tanh",
        loss="L2",
        lr=0.001,
        lr_type="cosine_0.1_1_0.1",
        epochs=epochs,
    )


class Clip:
    """All frames as 8-bit RGB, (N, 3, H, W)."""

    def __init__(self, path: Path, channels_last: bool) -> None:
        frames = [rgb_of(*planes).transpose(2, 0, 1) for planes in planes_of(path)]
        if not frames:
            raise click.ClickException(f"{path} has no frames")
        self.bytes = torch.from_numpy(np.stack(frames))
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        unit = math.prod(STRIDES)
        if self.bytes.shape[2] % unit or self.bytes.shape[3] % unit:
            raise click.ClickException(f"height and width have to be multiples of {unit}")

    def __len__(self) -> int:
        return len(self.bytes)

    def batch(self, numbers: torch.Tensor) -> torch.Tensor:
        """Frames by their numbers, 0 to 1."""
        return (self.bytes[numbers].float() / 255).contiguous(memory_format=self.format)


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def measured(model: torch.nn.Module, clip: Clip, embeddings: torch.Tensor | None) -> tuple[dict[str, float], Any]:
    """Mean over the frames of PSNR in RGB, of the output as it is and rounded to 8 bits, and all embeddings."""
    model.eval()
    plain, rounded, seen = [], [], []
    for numbers in torch.arange(len(clip)).split(BATCH):
        target = clip.batch(numbers)
        output, layers, _ = model(target, None if embeddings is None else embeddings[numbers])
        seen.append(layers[0])
        plain += [-10 * math.log10(float(error)) for error in ((output - target) ** 2).double().flatten(1).mean(1)]
        bytes_ = (output * 255).round().clamp(0, 255).to(torch.uint8)
        rounded += [psnr(a.numpy(), b.numpy()) for a, b in zip(bytes_, clip.bytes[numbers], strict=True)]
    model.train()
    return {"psnr": sum(plain) / len(plain), "psnr_8bit": sum(rounded) / len(rounded)}, torch.cat(seen)


def quantised(model: torch.nn.Module, utilities: Any) -> torch.nn.Module:
    """A copy whose decoder has the weights that the public code's quantisation leaves; the encoder stays."""
    copy = deepcopy(model)
    state = copy.state_dict()
    for name, value in state.items():
        if not name.startswith("encoder."):
            state[name] = utilities.quant_tensor(value, WEIGHT_BITS)[1]
    copy.load_state_dict(state)
    return copy


def evaluated(model: torch.nn.Module, clip: Clip, utilities: Any) -> dict[str, dict[str, float]]:
    """The float model's figures, and those of the quantised decoder on quantised embeddings."""
    figures, embeddings = measured(model, clip, None)
    coarse = utilities.quant_tensor(embeddings, EMBEDDING_BITS)[1]
    return {"float": figures, "quantised": measured(quantised(model, utilities), clip, coarse)[0]}


def trained_epoch(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    clip: Clip,
    epoch: int,
    settings: SimpleNamespace,
    utilities: Any,
) -> float:
    """One pass over the frames in an order of its own; returns the mean PSNR seen on the way."""
    order = torch.randperm(len(clip), generator=torch.Generator().manual_seed(SEED * 1_000_003 + epoch))
    batches = [numbers for numbers in order.split(BATCH) if len(numbers) == BATCH]
    figures = []
    for step, numbers in enumerate(batches):
        utilities.adjust_lr(optimizer, (epoch + step / len(batches)) / settings.epochs, settings)
        target = clip.batch(numbers)
        output = model(target)[0]
        loss = utilities.loss_fn(output, target, settings.loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        figures.append(utilities.psnr_fn_single(output, target).mean().item())
    return sum(figures) / len(figures)


def save(path: Path, content: dict[str, Any]) -> None:
    """Replaces the file only when the new one is whole."""
    partial = path.with_name(path.name + ".part")
    torch.save(content, partial)
    partial.replace(path)


@click.command()
@click.argument("frames", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--code", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--params", "parameters", type=click.IntRange(1), default=100_000, show_default=True)
@click.option("--epochs", type=click.IntRange(1), default=100, show_default=True)
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--threads", type=click.IntRange(1))
@click.option("--channels-last/--channels-first", default=False, help="Layout in memory; the mathematics is the same.")
@click.option("--stop-after", type=click.IntRange(1), help="Stop after this epoch, to measure speed or to go on later.")
def main(
    frames: Path,
    code: Path,
    parameters: int,
    epochs: int,
    output: Path,
    threads: int | None,
    channels_last: bool,
    stop_after: int | None,
) -> None:
    """Train the public HNeRV code on FRAMES and write what it came to."""
    if threads is not None:
        torch.set_num_threads(threads)
    networks, utilities = load_public(code, "model_all"), load_public(code, "hnerv_utils")
    clip = Clip(frames, channels_last)
    height, width = clip.bytes.shape[2:]
    embeddings = EMBEDDING * (height // math.prod(STRIDES)) * (width // math.prod(STRIDES)) * len(clip)
    if embeddings >= parameters:
        raise click.ClickException(f"the embeddings alone are {embeddings} parameters")
    settings = settings_of(decoder_width(parameters - embeddings), epochs)
    torch.manual_seed(SEED)
    model = networks.HNeRV(settings).to(memory_format=clip.format)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.lr)
    counts = {
        "decoder": count(model.decoder),
        "last_layer": count(model.head_layer),
        "embeddings": embeddings,
        "encoder_not_counted": count(model.encoder),
    }
    total = counts["decoder"] + counts["last_layer"] + embeddings
    click.echo(f"{len(clip)} frames of {width}x{height}, width {settings.fc_dim}, {counts}, total {total}")

    checkpoint = output.with_suffix(".checkpoint.pt")
    identity = {"settings": vars(settings), "frames": len(clip), "batch": BATCH, "seed": SEED}
    start, seconds, history = 0, 0.0, []
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        if saved["identity"] != identity:
            raise click.ClickException(f"{checkpoint} is of another run")
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        start, seconds, history = saved["epoch"], saved["seconds"], saved["history"]
        click.echo(f"goes on after epoch {start}")

    end = min(epochs, stop_after or epochs)
    for epoch in range(start, end):
        begin = time.perf_counter()
        figure = trained_epoch(model, optimizer, clip, epoch, settings, utilities)
        seconds += time.perf_counter() - begin
        click.echo(f"epoch {epoch + 1}: {seconds / (epoch + 1):.2f} s an epoch, {figure:.2f} dB while training")
        done = epoch + 1
        if done % EVERY == 0 or done == end:
            figures = evaluated(model, clip, utilities)
            history.append({"epoch": done, "training_psnr": figure, **figures})
            click.echo(f"epoch {done}: {json.dumps(figures)}")
            save(
                checkpoint,
                {
                    "identity": identity,
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "epoch": done,
                    "seconds": seconds,
                    "history": history,
                },
            )
    result = {
        **identity,
        "size": [width, height],
        "parameters_asked": parameters,
        "parameters": {**counts, "total": total, "total_as_they_count": counts["decoder"] + embeddings},
        "epochs_done": history[-1]["epoch"],
        "final": {key: history[-1][key] for key in ("float", "quantised")},
        "history": history,
        "bits": {"weights": WEIGHT_BITS, "embeddings": EMBEDDING_BITS},
        "seconds_an_epoch": seconds / history[-1]["epoch"],
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "channels_last": channels_last,
        "machine": platform.machine(),
        "torch": torch.__version__,
    }
    output.write_text(json.dumps(result, indent=1) + "\n")
    click.echo(f"wrote {output}")


if __name__ == "__main__":
    main()
