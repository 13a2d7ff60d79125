"""What a network comes to as a file: at several sizes, with the rate in the loss of the tuning and without it.

    python tools/bunny_small.py bunny_1280x720_25fps.mp4 -o bunny_160x320.y4m
    python tools/implicit_curve.py bunny_160x320.y4m --params 50k,99.1k,200k --epochs 100 -o curve.json

Every size is fitted once; both ways of tuning go on from the same fit, to the same number of bits. PSNR is that of
``tools/bunny_small.py``: the mean of the frames' figures in 8-bit RGB, of the float model as it was fitted, and of the
decoded file.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from bunny_small import planes_of, psnr, rgb_of
from torch import Tensor

from nvcodec.bitstream.container import Segment, StreamHeader, write_container
from nvcodec.cli.types import parse_count
from nvcodec.core.frame import Frame
from nvcodec.core.limits import level_for
from nvcodec.core.parallel import thread_limit
from nvcodec.decoder import Decoder, output_planes
from nvcodec.encoder.working_domain import working_samples
from nvcodec.exact.operation import FrameInputs, Sizes
from nvcodec.exact.tracing import place
from nvcodec.implicit.encoder.representation import MODELS
from nvcodec.implicit.encoder.settings import Effort
from nvcodec.implicit.encoder.stages import encode_segment
from nvcodec.motion.levels import FrameGeometry


def file_of(payload: bytes, frame_hash: bytes, program: bytes, width: int, height: int, frames: int) -> bytes:
    """A file of one segment."""
    header = StreamHeader(
        level=level_for(width, height, frames), width=width, height=height, frame_count=frames, segment_count=1,
        time_base_num=1, time_base_den=25, frame_duration=1,
    )  # fmt: skip
    return write_container(header, [Segment(payload, frame_hash, frames)], programs=[program])


def rgb_psnr(pictures: Sequence[Any], frames: Sequence[Any]) -> float:
    """Mean over the frames, dB."""
    return float(np.mean([psnr(rgb_of(*a), rgb_of(*b)) for a, b in zip(pictures, frames, strict=True)]))


def float_psnr(
    build: Callable[[Sizes], Any], fitted: dict[str, Any], samples: Tensor, sizes: Sizes, frames: list[Any]
) -> float:
    """Of the model as it was fitted, by its 8-bit output."""
    module = build(sizes)
    place(module, sizes)
    module.load_state_dict(fitted["module"])
    analyse = getattr(module, "analyse", None)
    height, width = frames[0][0].shape
    pictures = []
    with torch.no_grad():
        for n in range(len(samples)):
            number = torch.tensor([n])
            given = analyse(samples[number] / 1024 - 0.5) if analyse else {}
            made = module(FrameInputs(number, given))["samples"][0]
            whole = torch.floor(made * 1024 + 512.5).clamp(0, 1023)
            pictures.append(tuple(plane.numpy() for plane in output_planes(whole, width, height)))
    return rgb_psnr(pictures, frames)


@click.command()
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--model", type=click.Choice(sorted(MODELS)), default="hnerv", show_default=True)
@click.option("--params", default="50k,99.1k,200k", show_default=True, help="Sizes, by commas.")
@click.option("--epochs", type=int, default=100, show_default=True)
@click.option("--threads", type=int, default=2, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The JSON file to write.")
def main(source: Path, model: str, params: str, epochs: int, threads: int, output: Path) -> None:
    """Fit MODEL to SOURCE at several sizes and tell what its files come to."""
    frames = list(planes_of(source))
    height, width = frames[0][0].shape
    samples = torch.stack(
        [working_samples(Frame(tuple(torch.from_numpy(p.copy()) for p in f), n)) for n, f in enumerate(frames)]  # type: ignore[arg-type]
    )
    geometry = FrameGeometry(width, height)
    sizes = Sizes(geometry.half, geometry.blocks, len(frames))
    rows = []
    for text in params.split(","):
        count = parse_count(text)

        def build(sizes: Sizes, count: float = count) -> Any:
            return MODELS[model](sizes, count)

        effort, fitted, programs = Effort(epochs), dict[str, Any](), list[bytes]()
        for priced in (True, False):
            start = time.monotonic()

            def keep(state: Callable[[], dict[str, Any]], fitted: dict[str, Any] = fitted) -> None:
                now = state()
                if now["stage"] == "fit" and now["epoch"] == epochs:
                    fitted.update({k: v for k, v in now.items() if k != "module"})
                    fitted["module"] = {k: v.clone() if isinstance(v, Tensor) else v for k, v in now["module"].items()}

            def index(program: bytes, programs: list[bytes] = programs) -> int:
                programs[:] = [program]
                return 0

            with thread_limit(threads):
                coded, figures = encode_segment(
                    samples, geometry, build, None, replace(effort, priced=priced), 0, index, lambda program: 0,
                    keep=keep, kept=dict(fitted) if fitted else None,
                )  # fmt: skip
            seconds = time.monotonic() - start
            data = file_of(coded.payload, coded.frame_hash, programs[0], width, height, len(frames))
            output.with_suffix(f".{text}.{'rate' if priced else 'plain'}.cwrv").write_bytes(data)
            with Decoder(io.BytesIO(data), device="cpu") as decoder:
                pictures = [tuple(plane.numpy() for plane in frame.planes) for frame in decoder]
            row = vars(figures) | {
                "model": model, "params": text, "rate_in_loss": priced, "file_bytes": len(data),
                "bpp": 8 * len(data) / (len(frames) * width * height),
                "bits_a_weight": figures.weight_bits / figures.weights,
                "bits_a_latent": figures.latent_bits / max(figures.latents, 1),
                "float_rgb_psnr": float_psnr(build, fitted, samples, sizes, frames),
                "file_rgb_psnr": rgb_psnr(pictures, frames), "seconds": seconds,
            }  # fmt: skip
            rows.append(row)
            output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
            click.echo(
                f"{model} {text}, rate in the loss: {priced}: {row['file_bytes']} bytes, {row['bpp']:.4f} bpp, "
                f"{row['bits_a_weight']:.2f} bits a weight, {row['bits_a_latent']:.2f} a latent; RGB float "
                f"{row['float_rgb_psnr']:.2f}, file {row['file_rgb_psnr']:.2f} dB; {seconds:.0f} s"
            )


if __name__ == "__main__":
    main()
