"""Compiled code where its result cannot be kept, and work on several threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numba
import pytest
import torch
from numba.core import caching

from nvcodec.core.compiled import compiled, telling_of_translation
from nvcodec.core.parallel import in_turn, run_ahead, run_all, thread_count, thread_limit


def test_compiles_where_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])

    def twice(x: int) -> int:
        return 2 * x

    function = compiled(twice)
    assert function(21) == 42
    assert function.stats.cache_path is None


def test_translation_is_told_of_once_and_not_where_nothing_is_translated() -> None:
    def plus(x: int) -> int:
        return x + 1

    def minus(x: int) -> int:
        return x - 1

    first, second = numba.njit(plus), numba.njit(minus)
    told: list[str] = []
    with telling_of_translation(lambda: told.append("now")):
        assert (first(1), second(1)) == (2, 0)
        assert told == ["now"]
    with telling_of_translation(lambda: told.append("again")):
        assert first(2) == 3
    numba.njit(plus)(1)
    assert told == ["now"]


@pytest.mark.parametrize("threads", [1, 2])
def test_all_tasks_run_as_the_caller_has_autograd(threads: int) -> None:
    seen: dict[int, tuple[bool, bool]] = {}

    def task(k: int) -> None:
        seen[k] = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    tasks = [lambda k=k: task(k) for k in range(5)]
    with thread_limit(threads):
        run_all(tasks)
        assert seen == dict.fromkeys(range(5), (True, False))
        with torch.no_grad():
            run_all(tasks)
        assert seen == dict.fromkeys(range(5), (False, False))
        with torch.inference_mode():
            run_all(tasks)
        assert seen == dict.fromkeys(range(5), (False, True))


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_reaches_the_caller(threads: int) -> None:
    def fail() -> None:
        raise ValueError("no")

    with thread_limit(threads), pytest.raises(ValueError, match="no"):
        run_all([lambda: None, fail])


def test_tasks_run_on_as_many_threads_as_there_may_be() -> None:
    for threads in (1, 3):
        names: set[str] = set()
        meeting = threading.Barrier(threads)

        def task(names: set[str] = names, meeting: threading.Barrier = meeting) -> None:
            names.add(threading.current_thread().name)
            meeting.wait(timeout=30)

        with thread_limit(threads):
            run_all([task] * threads)
        assert len(names) == threads


@contextmanager
def beside(task: Callable[[], Any]) -> Iterator[Future[Any]]:
    """One task in turn."""
    with in_turn() as submit:
        yield submit(task)


def test_a_task_runs_beside_the_body_of_the_statement() -> None:
    begun = threading.Event()

    def task() -> tuple[bool, bool]:
        begun.set()
        return torch.is_inference_mode_enabled(), threading.current_thread() is threading.main_thread()

    with torch.inference_mode():
        with thread_limit(2), beside(task) as done:
            assert begun.wait(timeout=30)
        assert done.result() == (True, False)
        with thread_limit(1), beside(task) as done:
            assert done.done()
        assert done.result() == (True, True)


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_beside_comes_with_the_result(threads: int) -> None:
    def fail() -> None:
        raise ValueError("no")

    with thread_limit(threads), beside(fail) as done:
        pass
    with pytest.raises(ValueError, match="no"):
        done.result()


def test_what_runs_beside_is_over_when_the_body_fails() -> None:
    ended = []

    def task() -> None:
        time.sleep(0.05)
        ended.append(True)

    with thread_limit(2), pytest.raises(KeyError), beside(task):
        raise KeyError("body")
    assert ended == [True]


@pytest.mark.parametrize("threads", [1, 2])
def test_tasks_in_turn_keep_their_order_and_are_over_behind_the_statement(threads: int) -> None:
    ended: list[tuple[int, bool]] = []

    def task(number: int) -> int:
        time.sleep(0.02 if number == 0 else 0)
        ended.append((number, threading.current_thread() is threading.main_thread()))
        if number == 1:
            raise ValueError("one")
        return number

    with thread_limit(threads), suppress(KeyError), in_turn() as submit:
        found = [submit(partial(task, number)) for number in range(3)]
        raise KeyError("body")
    assert ended == [(number, threads == 1) for number in range(3)]
    assert (found[0].result(), found[2].result()) == (0, 2)
    with pytest.raises(ValueError, match="one"):
        found[1].result()


def test_threads_of_our_own_keep_pytorch_to_one() -> None:
    with thread_limit(4), beside(lambda: torch.get_num_threads()) as done:
        pass
    assert done.result() == 1


def test_thread_limit_ends_where_it_began() -> None:
    before = thread_count(), torch.get_num_threads()
    with thread_limit(6):
        assert (thread_count(), torch.get_num_threads()) == (6, 3)
        with thread_limit(None):
            assert (thread_count(), torch.get_num_threads()) == (6, 3)
        with pytest.raises(ZeroDivisionError), thread_limit(1):
            _ = 1 / (thread_count() - torch.get_num_threads())
        assert (thread_count(), torch.get_num_threads()) == (6, 3)
    assert (thread_count(), torch.get_num_threads()) == before


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_pieces_run_ahead_and_are_finished_in_order(threads: int) -> None:
    """Each piece needs the one two before it: it begins when that one is finished, and not later than need be."""
    events: list[tuple[str, int]] = []
    both = threading.Barrier(2, timeout=20)

    def begin(number: int) -> Callable[[], int]:
        events.append(("begin", number))
        assert number < 5 or ("finish", number - 2) in events

        def task() -> int:
            if threads > 1:
                both.wait()  # pieces 3 and 4, 5 and 6 meet
            return 10 * number

        return task

    def finish(number: int, result: int) -> None:
        assert result == 10 * number
        events.append(("finish", number))

    with thread_limit(threads):
        run_ahead([3, 4, 5, 6], lambda n: n - 2, begin, finish)
    assert [n for what, n in events if what == "finish"] == [3, 4, 5, 6]
    assert [n for what, n in events if what == "begin"] == [3, 4, 5, 6]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("place", ["begin", "task", "finish"])
def test_an_error_ahead_waits_for_the_other_pieces(threads: int, place: str) -> None:
    """The second of four pieces fails somewhere: the error comes out, and nothing runs behind it."""
    running: set[int] = set()

    def fails(here: str, number: int) -> None:
        if (here, number) == (place, 1):
            raise ValueError("no")

    def begin(number: int) -> Callable[[], None]:
        fails("begin", number)

        def task() -> None:
            running.add(number)
            time.sleep(0.05)
            running.discard(number)
            fails("task", number)

        return task

    with thread_limit(threads), pytest.raises(ValueError, match="no"):
        run_ahead(range(4), lambda n: -1, begin, lambda n, _: fails("finish", n))
    assert not running
