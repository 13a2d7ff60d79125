"""Threads: independent pieces of compiled work side by side, and how many of them there are.

PyTorch has threads of its own inside each operation. On two cores and small pictures an encode took less time with one
of them than with two (docs/experiments/hybrid.md, eighth round), so it gets half of all.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import torch

__all__ = ["in_turn", "run_ahead", "run_all", "thread_count", "thread_limit"]

_Result = TypeVar("_Result")

_limit: int | None = None
_here = threading.local()
"""Of a thread of ours, ``purpose``: that of its pool."""


def thread_count() -> int:
    """How many pieces run side by side: those of ``thread_limit``, or as many as PyTorch has threads."""
    return _limit or torch.get_num_threads()


@contextmanager
def thread_limit(threads: int | None) -> Iterator[None]:
    """Use ``threads`` threads for a while; with None as many as before, at first what PyTorch chooses."""
    global _limit
    before, inside = _limit, torch.get_num_threads()
    _limit = threads or thread_count()
    torch.set_num_threads(max(1, _limit // 2))
    try:
        yield
    finally:
        torch.set_num_threads(inside)
        _limit = before


def run_all(tasks: Sequence[Callable[[], None]]) -> None:
    """Run tasks that do not depend on each other on ``thread_count()`` threads; the longest ones come first.

    Only what releases the interpreter's lock gains by it. Each task finds autograd as the caller has it.
    """
    threads = min(thread_count(), len(tasks))
    if threads <= 1:
        for task in tasks:
            task()
        return
    pool = _pool(f"piece of {getattr(_here, 'purpose', 'all')}", threads)  # pieces of others may take long
    for done in [pool.submit(_as_here(task)) for task in tasks]:
        done.result()


@contextmanager
def in_turn() -> Iterator[Callable[[Callable[[], Any]], Future[Any]]]:
    """What takes tasks to run one after the other beside the body of the ``with`` statement; all are over behind it.

    With one thread alone each runs when it is given. Tasks find autograd as the caller has it; what they raise comes
    with their results.
    """
    latest: list[Future[Any]] = []

    def submit(task: Callable[[], Any]) -> Future[Any]:
        if thread_count() > 1:
            latest[:] = [_pool("beside", 1).submit(_as_here(task))]
            return latest[0]
        return _done(task)

    try:
        yield submit
    finally:
        wait(latest)


def run_ahead(
    numbers: Sequence[int],
    needs: Callable[[int], int],
    begin: Callable[[int], Callable[[], _Result]],
    finish: Callable[[int, _Result], None],
) -> None:
    """Work on numbered pieces in rising order, on some of them while those before are not finished yet.

    ``begin(n)`` gives the task of piece n once all pieces up to ``needs(n)`` are finished; ``finish(n, result)`` takes
    what the task returned, piece by piece in order. Both run in the caller's thread, the tasks beside it, as many as
    there are threads. Pieces below the first number count as finished. How many pieces beyond ``needs(n)`` are finished
    when n begins depends on the number of threads: ``begin`` must not look at them.
    """
    threads = thread_count()
    running: deque[tuple[int, Future[_Result]]] = deque()
    last = min(numbers, default=0) - 1

    def finish_first() -> int:
        number, task = running[0]
        result = task.result()
        running.popleft()
        finish(number, result)
        return number

    try:
        for number in numbers:
            while running and (needs(number) > last or len(running) >= threads):
                last = finish_first()
            task = begin(number)
            submitted = _pool("ahead", threads).submit(_as_here(task)) if threads > 1 else _done(task)
            running.append((number, submitted))
        while running:
            finish_first()
    finally:
        wait([task for _, task in running])


def _done(task: Callable[[], _Result]) -> Future[_Result]:
    """What became of a task that is run at once."""
    done: Future[_Result] = Future()
    try:
        done.set_result(task())
    except Exception as error:
        done.set_exception(error)
    return done


def _as_here(task: Callable[[], _Result]) -> Callable[[], _Result]:
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    stream = torch.cuda.current_stream() if torch.cuda.is_initialized() else None  # what runs on one keeps its order

    def run() -> _Result:
        with torch.inference_mode(inference), torch.set_grad_enabled(grad), torch.cuda.stream(stream):
            return task()

    return run


@cache
def _pool(purpose: str, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, f"nvcodec-{purpose}", _prepare_thread, (purpose,))


def _prepare_thread(purpose: str) -> None:
    """In a thread of our own: without a word PyTorch's convolutions would use as many more as there are cores in each.

    PyTorch gives a thread the process's number when it is first asked; only what is set behind that stays.
    """
    _here.purpose = purpose
    torch.get_num_threads()
    torch.set_num_threads(1)
