"""Videos that lie in numbered pictures: ``shot_%04d.png``, or a pattern of names as a shell has it, ``shot_*.png``."""

from __future__ import annotations

import os
import re
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path

from nvcodec.core.errors import InputError

__all__ = ["check_complete", "first_number", "is_glob", "is_numbered", "is_picture_of"]

_NUMBER = re.compile(r"%(0?)(\d*)d")


def is_numbered(source: str | Path) -> bool:
    """Whether a name stands for numbered pictures: it holds one ``%d`` or ``%04d``, and no file has this very name."""
    path = Path(source)
    return len(_NUMBER.findall(path.name.replace("%%", ""))) == 1 and not os.path.lexists(path)


def is_glob(source: str | Path) -> bool:
    """Whether a name holds ``*``, ``?`` or ``[``, and no file has this very name."""
    path = Path(source)
    return any(c in path.name for c in "*?[") and not os.path.lexists(path) and not is_numbered(source)


def is_picture_of(source: str | Path, path: str | Path) -> bool:
    """Whether ``path`` would be one of the pictures that ``source`` stands for."""
    pattern, name = Path(source), Path(path)
    if os.path.abspath(pattern.parent) != os.path.abspath(name.parent):
        return False
    if is_numbered(source):
        return _expression(pattern.name).fullmatch(name.name) is not None
    return is_glob(source) and fnmatchcase(name.name, pattern.name)


def first_number(source: str | Path) -> int:
    """The lowest number of the pictures of a numbered name. Raises InputError where there are none."""
    return min(_numbers(source))


def check_complete(source: str | Path) -> None:
    """Raises InputError where a number between the lowest and the highest one is missing."""
    name, numbers = Path(source).name, sorted(_numbers(source))
    for before, after in pairwise(numbers):
        if after != before + 1:
            more = f", {after - before - 1} in all there," if after > before + 2 else ""
            raise InputError(
                f"{source}: {_with_number(name, before + 1)} is missing{more} but {_with_number(name, after)} is there"
            )


def _numbers(source: str | Path) -> set[int]:
    path = Path(source)
    expression = _expression(path.name)
    try:
        found = [expression.fullmatch(entry.name) for entry in os.scandir(path.parent)]
    except OSError as error:
        raise InputError(f"{source}: no such file ({path.parent}: {error.strerror})") from error
    numbers = {int(match[1]) for match in found if match and _with_number(path.name, int(match[1])) == match[0]}
    if not numbers:
        raise InputError(f"{source}: no such file")
    return numbers


def _with_number(name: str, number: int) -> str:
    """The picture of that number; ``%%`` stands for a sign of its own."""
    match = _NUMBER.search(name)
    assert match is not None
    digits = str(number).rjust(int(match[2] or 0), "0" if match[1] else " ")
    return (name[: match.start()] + digits + name[match.end() :]).replace("%%", "%")


def _expression(name: str) -> re.Pattern[str]:
    """What matches the names of pictures; its group is the number."""
    match = _NUMBER.search(name)
    assert match is not None
    before, after = (part.replace("%%", "%") for part in (name[: match.start()], name[match.end() :]))
    return re.compile(re.escape(before) + r" *(\d+)" + re.escape(after))
