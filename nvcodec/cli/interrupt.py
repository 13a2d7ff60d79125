"""Ctrl-C and SIGTERM end the command at once, whatever it is doing.

Python handles a signal between two of its own steps: an operation on a large picture may take many seconds, and what a
handler raises in the middle of a library's clearing up can leave that library in pieces. So no handler raises anything.
A thread listens; at a signal it removes the temporary files, says a word and ends the process. Finished files and
checkpoints take their names in one step, so that there is nothing else to be put in order.

While libraries are loaded no thread of Python may get its turn: there a signal ends the process by itself.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nvcodec.cli.progress import CLEAR_LINE
from nvcodec.core.memory import check_address_space
from nvcodec.media.output_file import remove_temporaries

__all__ = ["ends_at_once", "ends_promptly", "loading_libraries"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def ends_promptly(last_words: Callable[[int], str]) -> Iterator[None]:
    """At SIGINT and SIGTERM the temporary files are removed, ``last_words`` of the signal go to standard error, and the
    process ends with the status 128 + signal. Only in the main thread; elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    watcher = threading.Thread(target=_watch, args=(reader, last_words), daemon=True)
    heard = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    handlers = [signal.signal(number, lambda *_: None) for number in heard]
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in zip(heard, handlers, strict=True):
            signal.signal(number, handler)
        writer.close()
        watcher.join()
        reader.close()


@contextmanager
def ends_at_once() -> Iterator[None]:
    """Inside, the system itself ends the process at SIGINT and SIGTERM: for where nothing is written, and Python may
    not get a turn. Only in the main thread; elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    handlers = [signal.signal(number, signal.SIG_DFL) for number in heard]
    try:
        yield
    finally:
        for number, handler in zip(heard, handlers, strict=True):
            signal.signal(number, handler)


def _watch(reader: socket.socket, last_words: Callable[[int], str]) -> None:
    """Waits for a signal, or for the end of the body, which closes the connection."""
    while received := reader.recv(1):
        number = received[0]
        if number in _SIGNALS:
            remove_temporaries()
            with contextlib.suppress(OSError, ValueError):
                if select.select([], [2], [], 0)[1]:  # a pipe that nobody empties takes no word
                    os.write(2, f"{CLEAR_LINE if os.isatty(2) else ''}{last_words(number)}\n".encode())
            os._exit(128 + number)


@contextmanager
def loading_libraries() -> Iterator[None]:
    """Around their import. Raises NvcodecError where there is too little memory for them."""
    check_address_space()
    with ends_at_once():
        yield
