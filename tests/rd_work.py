"""A job for processes of their own, in a module that loads quickly."""

from __future__ import annotations

import os

from nvcodec.core.errors import EncodeError
from nvcodec.rd.workers import Report


def work(number: int, report: Report) -> int:
    """The square of ``number``; 13 fails, 99 ends its process."""
    report(0.5, f"job {number}")
    if number == 13:
        raise EncodeError("unlucky")
    if number == 99:
        os._exit(3)
    return number * number
