"""The program: ``cwrv``, or ``python -m nvcodec``. Not to be imported by others: it takes Ctrl-C over."""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # from the first moment on it ends without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import io
import os
import sys

from nvcodec.cli.commands import main

__all__ = ["run"]


class _Lenient(io.FileIO):
    """Forgets what it cannot write: a full disk behind standard error is no reason to fail."""

    def write(self, data: object) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError:
            return memoryview(data).nbytes  # type: ignore[arg-type]


def _hold_standard_files() -> None:
    """Where one is closed, the next file that is opened would take its number, and what libraries tell the user would
    be written into it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number < 2 else os.O_WRONLY)


def run() -> None:
    """The command."""
    _hold_standard_files()
    told = io.BufferedWriter(_Lenient(2, "wb", closefd=False))
    sys.stderr = io.TextIOWrapper(told, errors="backslashreplace", line_buffering=True)
    main(prog_name="cwrv")


if __name__ == "__main__":
    run()
