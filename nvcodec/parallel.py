"""Independent pieces of compiled work, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

__all__ = ["run_all"]


def run_all(tasks: Sequence[Callable[[], None]]) -> None:
    """Run tasks that do not depend on each other on as many threads as PyTorch uses; the longest ones come first.

    Only what releases the interpreter's lock gains by it. Each task finds autograd as the caller has it.
    """
    threads = min(torch.get_num_threads(), len(tasks))
    if threads <= 1:
        for task in tasks:
            task()
        return
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def run(task: Callable[[], None]) -> None:
        with torch.inference_mode(inference), torch.set_grad_enabled(grad):
            task()

    for done in [_pool(threads).submit(run, task) for task in tasks]:
        done.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="nvcodec")
