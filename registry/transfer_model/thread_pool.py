"""Threads that classify images side by side.

Threads that share one image meet after every operation, which costs many times more than it brings beside
a busy process. Images side by side never meet.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_Task = TypeVar("_Task")
_Done = TypeVar("_Done")


def _begin(threads: int) -> None:
    torch.get_num_threads()  # or torch would take the default over once more, at the thread's first operation
    torch.set_num_threads(threads)


class FairThreadPool:
    """A pool that is kept; several callers take turns, so that none waits for all of another's tasks.

    Args:
        count: How many tasks are worked on at once.
        threads: Of torch's, in each of them.
    """

    def __init__(self, count: int, threads: int) -> None:
        self._count = count
        self._pool = ThreadPoolExecutor(count, initializer=_begin, initargs=(threads,))
        begun = Barrier(count + 1)
        for _ in range(count):
            self._pool.submit(begun.wait)
        begun.wait()
        # What a thread sets is the default of threads that begin later: put back, now that all have begun.
        torch.set_num_threads(torch.get_num_threads())

    def map(self, work: Callable[[_Task], _Done], tasks: Sequence[_Task]) -> Iterator[_Done]:
        """The results in the order of the tasks; the first error is raised, and what is left is not begun."""
        pending: deque[Future[_Done]] = deque()
        try:
            for task in tasks:
                pending.append(self._pool.submit(work, task))
                if len(pending) > self._count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
