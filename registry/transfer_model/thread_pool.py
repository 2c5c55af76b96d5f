"""Thread pool that classifies images in parallel, one image per thread.

Threads working on the same image would have to synchronize after every operation, which is slow on a busy CPU.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import torch

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


def _initialize_thread(threads: int) -> None:
    torch.get_num_threads()  # otherwise, torch resets the number to the default on the first operation
    torch.set_num_threads(threads)


class FairThreadPool:
    """Persistent thread pool that shares its threads fairly between concurrent callers.

    Args:
        count: Number of tasks that run in parallel.
        threads: Number of torch threads per task.
    """

    def __init__(self, count: int, threads: int) -> None:
        self._count = count
        self._pool = ThreadPoolExecutor(count, initializer=_initialize_thread, initargs=(threads,))
        all_started = Barrier(count + 1)
        for _ in range(count):
            self._pool.submit(all_started.wait)
        all_started.wait()
        # Calling `set_num_threads` in a thread also changes the default for threads started later: restore it.
        torch.set_num_threads(torch.get_num_threads())

    def map(self, function: Callable[[_Task], _Result], tasks: Sequence[_Task]) -> Iterator[_Result]:
        """Runs the tasks and yields their results in order. If a task fails, raises its error and cancels the rest."""
        pending: deque[Future[_Result]] = deque()
        try:
            for task in tasks:
                pending.append(self._pool.submit(function, task))
                if len(pending) > self._count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
