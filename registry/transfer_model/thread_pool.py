"""Thread pool that classifies images in parallel, one image per thread.

Threads working on the same image would have to synchronize after every operation, which is slow on a busy CPU.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError
from typing import TypeVar

import torch

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


def _initialize_thread(threads: int, all_started: Barrier) -> None:
    try:
        torch.get_num_threads()  # otherwise, torch resets the number to the default on the first operation
        torch.set_num_threads(threads)
    except BaseException:
        all_started.abort()
        raise
    all_started.wait()  # so that every thread gets one of these tasks


class FairThreadPool:
    """Persistent thread pool that shares its threads fairly between concurrent callers.

    Args:
        count: Number of tasks that run in parallel.
        threads: Number of torch threads per task.
    """

    def __init__(self, count: int, threads: int) -> None:
        self._count = count
        self._pool = ThreadPoolExecutor(count)
        all_started = Barrier(count)
        try:
            initialized = [self._pool.submit(_initialize_thread, threads, all_started) for _ in range(count)]
        except BaseException:  # a thread cannot be started
            all_started.abort()
            raise
        _raise_first_error(initialized)
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


def _raise_first_error(futures: Sequence[Future[None]]) -> None:
    errors = [error for future in futures if (error := future.exception())]
    for error in sorted(errors, key=lambda error: isinstance(error, BrokenBarrierError)):
        raise error
