"""The program: ``cwrv``, or ``python -m nvcodec``."""

from __future__ import annotations

import contextlib
import os
import sys

from nvcodec.cli.commands import EXIT_INTERRUPTED, EXIT_TERMINATED, main

__all__ = ["run"]


def run() -> None:
    """The command. After a signal it ends at once: to clear up PyTorch would take the interpreter up to a second."""
    try:
        main(prog_name="cwrv")
    except SystemExit as end:
        if end.code not in (EXIT_INTERRUPTED, EXIT_TERMINATED):
            raise
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(end.code)


if __name__ == "__main__":
    run()
