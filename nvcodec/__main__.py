"""The program: ``cwrv``, or ``python -m nvcodec``. Not to be imported by others: it takes Ctrl-C over."""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # from the first moment on, so that it ends without a traceback

from nvcodec.cli.commands import main  # noqa: E402

__all__ = ["run"]


def run() -> None:
    """The command."""
    main(prog_name="cwrv")


if __name__ == "__main__":
    run()
