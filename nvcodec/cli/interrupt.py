"""Ctrl-C and SIGTERM: the command ends in order, and where that takes too long, at once.

Python handles a signal between two of its own steps; an operation on a large picture may take many seconds, and what is
raised in a function that compiled code has called goes no further. So a thread listens as well, and ends the process if
the main thread does not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from nvcodec.cli.progress import CLEAR_LINE
from nvcodec.media.output_file import remove_temporaries

__all__ = ["GRACE_SECONDS", "Terminated", "ends_promptly"]

GRACE_SECONDS = 1.0
"""For the main thread, to leave its ``with`` blocks."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(BaseException):
    """SIGTERM; as KeyboardInterrupt it passes through every ``finally``, so that no half file is left."""


@contextmanager
def ends_promptly(last_words: Callable[[int], str]) -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt and SIGTERM Terminated. If the body does not end of it in ``GRACE_SECONDS``,
    the temporary files are removed, ``last_words`` of the signal go to standard error, and the process ends with
    the status 128 + signal. Only in the main thread; elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(reader, done, last_words), daemon=True)
    handler = signal.signal(signal.SIGTERM, _terminate)
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    unraisable, sys.unraisablehook = sys.unraisablehook, _say_unless_interrupted
    watcher.start()
    try:
        yield
    finally:
        done.set()
        sys.unraisablehook = unraisable
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGTERM, handler)
        writer.close()
        watcher.join()
        reader.close()


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _say_unless_interrupted(unraisable: sys.UnraisableHookArgs) -> None:
    """What was raised where nothing can pass it on; an interruption that ends there is left to the watcher."""
    if not isinstance(unraisable.exc_value, (KeyboardInterrupt, Terminated)):
        sys.__unraisablehook__(unraisable)


def _watch(reader: socket.socket, done: threading.Event, last_words: Callable[[int], str]) -> None:
    """Waits for a signal, then for the end of the body; the connection ends with the body, too."""
    while received := reader.recv(1):
        number = received[0]
        if number in _SIGNALS and not done.wait(GRACE_SECONDS):
            remove_temporaries()
            with contextlib.suppress(OSError):
                os.write(2, f"{CLEAR_LINE if os.isatty(2) else ''}{last_words(number)}\n".encode())
            os._exit(128 + number)
