"""Options that several commands share: each is declared once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from nvcodec.cli.types import EFFORTS, FRAMES, MODELS
from nvcodec.core.device import DEVICES

__all__ = [
    "Option",
    "audio",
    "device",
    "effort",
    "epochs",
    "frames",
    "gop",
    "model",
    "overwrite",
    "seed",
    "segment",
    "threads",
]

Option = Callable[[Any], Any]
"""Decorates the function of a command."""


def device(text: str = "Where to compute. Decoded frames are the same everywhere.") -> Option:
    return click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True, help=text)


def threads(text: str = "CPU threads. Default: what PyTorch chooses.") -> Option:
    return click.option("--threads", type=click.IntRange(min=1), metavar="N", help=text)


def seed() -> Option:
    return click.option(
        "--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N", help="Of random choices."
    )


def effort(text: str) -> Option:
    return click.option("--effort", type=click.Choice(EFFORTS), default="medium", show_default=True, help=text)


def model() -> Option:
    return click.option(
        "--model",
        type=click.Choice(MODELS),
        default=MODELS[0],
        show_default=True,
        help="How the video is represented: by predicted blocks (hybrid), or by a network fitted to it (the others).",
    )


def epochs() -> Option:
    return click.option(
        "--epochs",
        type=click.IntRange(1, 100_000),
        metavar="N",
        help="How often a network sees every frame while it is fitted. Default: by the effort.",
    )


def gop(text: str) -> Option:
    return click.option("--gop", type=click.IntRange(1, 64), metavar="N", help=text)


def segment(text: str) -> Option:
    return click.option("--segment", type=click.IntRange(1, 1024), metavar="N", help=text)


def frames(text: str) -> Option:
    return click.option("--frames", type=FRAMES, metavar="A:B", help=text)


def audio(text: str) -> Option:
    return click.option("--no-audio", "audio", is_flag=True, flag_value=False, default=True, help=text)


def overwrite() -> Option:
    return click.option("-y", "--overwrite", is_flag=True, help="Replace the output if it exists.")
