"""Encoding with a network of one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nvcodec.encoder.pipeline import OWN_MODEL, EncodeOptions, EncodeReport, Progress, encode
from nvcodec.implicit.encoder.representation import Module

__all__ = ["encode_module"]


def encode_module(
    source: str | Path,
    output: str | Path,
    module: Module,
    *,
    bpp: float | None = None,
    bitrate: float | None = None,
    size: int | None = None,
    effort: str = "medium",
    epochs: int | None = None,
    frames: tuple[int, int | None] | None = None,
    segment: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> EncodeReport:
    """Fit ``module`` to a video and write the .cwrv file ``output``, as ``nvcodec.encode`` does with its own models.

    Args:
        source: anything that PyAV opens; ``frames``: a half-open range of it.
        module: a ``torch.nn.Module`` made of layers of ``nvcodec.exact`` for pictures of this size, or a function that
            makes one from ``nvcodec.exact.Sizes``. ``module(frame)`` takes a ``nvcodec.exact.FrameInputs`` and returns
            a dict: "samples", what a ``Samples`` layer gave, (B, 6, h, w) in -0.5 .. 0.5; where it has such layers also
            "states" and "corrections", tuples in the order of the ``Store`` and ``Correct`` layers' numbers. It may
            have a method ``analyse`` and a child ``analysis`` that make its latents of the frames while it is fitted.
            It is copied: the caller's one stays as it is.
        bpp, bitrate, size: at most one target: bits of the file per luma sample, bits/s, bytes; without one the file
            gets 5.5 bits for each number of the module.
        effort, epochs: how often it sees every frame. ``segment``: most frames in a segment, None for all that can be.

    Raises:
        EncodeError: the module is no program, with the reason; TargetError where the size cannot be met.
        InputError, OutputError: as ``nvcodec.encode``.
    """
    options = EncodeOptions(
        bpp=bpp, bitrate=bitrate, size=size, effort=effort, epochs=epochs, segment=segment, device=device,
        threads=threads, seed=seed, model=OWN_MODEL,
    )  # fmt: skip
    return encode(source, output, options, frames=frames, overwrite=overwrite, progress=progress, module=module)
