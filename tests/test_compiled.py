"""Compiled code where its result cannot be kept, and work on several threads."""

from __future__ import annotations

import pytest
import torch
from numba.core import caching

from nvcodec.compiled import compiled
from nvcodec.parallel import run_all


def test_compiles_where_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])

    def twice(x: int) -> int:
        return 2 * x

    function = compiled(twice)
    assert function(21) == 42
    assert function.stats.cache_path is None


@pytest.mark.parametrize("threads", [1, 2])
def test_all_tasks_run_as_the_caller_has_autograd(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    seen: dict[int, tuple[bool, bool]] = {}

    def task(k: int) -> None:
        seen[k] = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    tasks = [lambda k=k: task(k) for k in range(5)]
    run_all(tasks)
    assert seen == dict.fromkeys(range(5), (True, False))
    with torch.no_grad():
        run_all(tasks)
    assert seen == dict.fromkeys(range(5), (False, False))
    with torch.inference_mode():
        run_all(tasks)
    assert seen == dict.fromkeys(range(5), (False, True))


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_reaches_the_caller(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run_all([lambda: None, fail])
