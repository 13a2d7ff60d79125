"""Jobs in this process, or in several beside it.

Processes are started afresh for each job (nothing of CUDA or of torch's threads survives a fork), tell how far
they are through a pipe, and are ended with the program: whatever stops it, no job goes on behind its back.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from nvcodec.core.errors import EncodeError

__all__ = ["Job", "Report", "run_jobs"]

Report = Callable[[float, str], None]
"""Takes the done part of a job, 0 .. 1, and what it is at."""

Job = Callable[[Report], Any]
"""Does its work, tells how far it is, returns the result. For several processes it must be picklable."""


def run_jobs(jobs: Sequence[Job], processes: int, report: Callable[[int, float, str], None]) -> list[Any]:
    """Results of ``jobs``, in their order. ``report``: number of a job, its done part (0 .. 1), what it is at.

    Raises:
        EncodeError: a process ended without a word, killed for want of memory for one.
        Exception: the first that a job raised; the others are stopped, and what they finished is in the store.
    """
    if processes == 1 or len(jobs) <= 1:
        return [job(lambda done, what, n=n: report(n, done, what)) for n, job in enumerate(jobs)]  # type: ignore[misc]
    return _Pool(jobs, processes, report).run()


class _Pool:
    def __init__(self, jobs: Sequence[Job], processes: int, report: Callable[[int, float, str], None]) -> None:
        self.jobs, self.processes, self.report = jobs, processes, report
        self.context = multiprocessing.get_context("spawn")
        self.running: dict[Connection, tuple[int, SpawnProcess]] = {}
        self.results: dict[int, Any] = {}

    def run(self) -> list[Any]:
        waiting = list(range(len(self.jobs)))
        try:
            while waiting or self.running:
                while waiting and len(self.running) < self.processes:
                    self._start(waiting.pop(0))
                for connection in wait(list(self.running)):
                    assert isinstance(connection, Connection)
                    self._receive(connection)
        finally:
            for _, process in self.running.values():
                process.terminate()
            for connection, (_, process) in self.running.items():
                process.join()
                connection.close()
        return [self.results[number] for number in range(len(self.jobs))]

    def _start(self, number: int) -> None:
        ours, theirs = self.context.Pipe(duplex=False)
        process = self.context.Process(target=_work, args=(self.jobs[number], theirs), daemon=True)
        process.start()
        theirs.close()  # so that the end of the process ends the pipe
        self.running[ours] = (number, process)

    def _receive(self, connection: Connection) -> None:
        number, process = self.running[connection]
        try:
            kind, *content = connection.recv()
        except EOFError:
            process.join()
            raise EncodeError(f"a process ended without a result (exit status {process.exitcode})") from None
        if kind == "progress":
            self.report(number, *content)
            return
        if kind == "error":
            raise content[0]
        self.results[number] = content[0]
        del self.running[connection]
        process.join()
        connection.close()


def _work(job: Job, connection: Connection) -> None:
    """What a process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent ends its children
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        result = job(lambda done, what: connection.send(("progress", done, what)))
        connection.send(("result", result))
    except BrokenPipeError:  # nobody is left who wants it
        pass
    except Exception as error:
        connection.send(("error", error))


def _end_with_parent() -> None:
    """Also where the parent was killed and could end nobody."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
