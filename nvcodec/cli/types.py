"""How the command line writes sizes, bit rates, lists of targets and ranges of frames."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

import click

from nvcodec.core.errors import InputError

__all__ = [
    "BITRATE",
    "BPP_LIST",
    "COUNT",
    "EFFORTS",
    "FRAMERATE",
    "FRAMES",
    "MODELS",
    "SIZE",
    "FiniteRange",
    "parse_bitrate",
    "parse_bpps",
    "parse_count",
    "parse_framerate",
    "parse_size",
]

EFFORTS = ("fast", "medium", "slow")
MODELS = ("hybrid", "hnerv", "nerv", "siren", "hinerv", "cwrnn")

_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+) ?([A-Za-z]*)", flags=re.ASCII)
_RATE_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_SIZE_UNITS = {
    "": 1,
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}


def _parse(text: str, units: dict[str, int], what: str) -> Fraction:
    found = _NUMBER.fullmatch(text.strip())
    if found is None or found[2] not in units:
        raise InputError(f"{text!r} is not {what}")
    value = Fraction(found[1].rstrip(".")) * units[found[2]]
    if value < 1:
        raise InputError(f"{text!r} is less than 1")
    return value


def parse_bitrate(text: str) -> float:
    """Bits per second.

    >>> parse_bitrate("400k"), parse_bitrate("1.5M"), parse_bitrate("64000")
    (400000.0, 1500000.0, 64000.0)

    Raises:
        InputError: not a number with k, M, G or nothing behind it, or less than 1.
    """
    return float(_parse(text, _RATE_UNITS, "a bit rate such as 400k or 1.5M (bits per second)"))


def parse_size(text: str) -> int:
    """Whole bytes, rounded down.

    >>> parse_size("60kB"), parse_size("1.5MiB"), parse_size("70000")
    (60000, 1572864, 70000)

    Raises:
        InputError: not a number with a unit of bytes or nothing behind it, or less than 1.
    """
    return int(_parse(text, _SIZE_UNITS, "a size such as 60kB, 2MB or 1MiB"))


def parse_count(text: str) -> float:
    """A number of things.

    >>> parse_count("100k"), parse_count("1.5M"), parse_count("3000")
    (100000.0, 1500000.0, 3000.0)

    Raises:
        InputError: not a number with k, M, G or nothing behind it, or less than 1.
    """
    return float(_parse(text, _RATE_UNITS, "a number such as 100k or 1.5M"))


_NTSC = {
    Fraction(rate, 1000): Fraction(nominal * 1000, 1001) for rate, nominal in ((23976, 24), (29970, 30), (59940, 60))
}
"""What people write 23.976, 29.97 and 59.94."""


def parse_framerate(text: str) -> Fraction:
    """Frames per second.

    >>> parse_framerate("24"), parse_framerate("30000/1001"), parse_framerate("23.976")
    (Fraction(24, 1), Fraction(30000, 1001), Fraction(24000, 1001))

    Raises:
        InputError: not a positive number, or one beyond a million.
    """
    try:
        found = Fraction(text.strip())
    except (ValueError, ZeroDivisionError):
        raise InputError(f"{text!r} is not a frame rate such as 24, 23.976 or 30000/1001") from None
    found = _NTSC.get(found, found)
    if not 0 < found <= 10**6 or max(found.numerator, found.denominator) >= 2**31:
        raise InputError(f"{text!r} is no frame rate that a video can have")
    return found


def parse_bpps(text: str) -> tuple[float, ...]:
    """Bits per pixel, separated by commas.

    >>> parse_bpps("0.05, 0.1,.2")
    (0.05, 0.1, 0.2)

    Raises:
        InputError: a part is not a positive number.
    """
    values = []
    for part in text.split(","):
        found = _NUMBER.fullmatch(part.strip())
        if found is None or found[2] or not Fraction(found[1].rstrip(".")):
            raise InputError(f"{part.strip()!r} is not a target in bits per pixel such as 0.1")
        values.append(float(Fraction(found[1].rstrip("."))))
    return tuple(values)


class FiniteRange(click.FloatRange):
    """A range of real numbers, to which neither nan nor infinity belongs."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = float(super().convert(value, param, ctx))
        if not math.isfinite(found):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return found


class _Bitrate(click.ParamType):
    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return parse_bitrate(str(value))
        except InputError as error:
            self.fail(str(error), param, ctx)


class _Count(click.ParamType):
    name = "count"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return parse_count(str(value))
        except InputError as error:
            self.fail(str(error), param, ctx)


class _Framerate(click.ParamType):
    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        try:
            return parse_framerate(str(value))
        except InputError as error:
            self.fail(str(error), param, ctx)


class _Size(click.ParamType):
    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return parse_size(str(value))
        except InputError as error:
            self.fail(str(error), param, ctx)


class _Frames(click.ParamType):
    name = "A:B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int | None]:
        from nvcodec.media.video_io import parse_frame_range

        try:
            return parse_frame_range(str(value))
        except InputError as error:
            self.fail(str(error), param, ctx)


class _Bpps(click.ParamType):
    name = "list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        try:
            return parse_bpps(str(value))
        except InputError as error:
            self.fail(str(error), param, ctx)


BITRATE = _Bitrate()
BPP_LIST = _Bpps()
COUNT = _Count()
FRAMERATE = _Framerate()
SIZE = _Size()
FRAMES = _Frames()
