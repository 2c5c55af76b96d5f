"""Threads that classify pictures side by side, each with as many threads of torch's as one picture is worth.

Threads that share one picture meet after every operation. On most networks that costs more than it brings,
and many times more beside a busy process; pictures side by side never meet.
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_WORTHWHILE = 0.7
"""Share of each further thread's work that must be gained for threads to share one picture."""

_Task = TypeVar("_Task")
_Done = TypeVar("_Done")


class Workers:
    """A pool that is kept; several callers take turns, so that none waits for all of another's tasks.

    Args:
        count: How many tasks are worked on at once.
        threads: Of torch's, in each of them.
    """

    def __init__(self, count: int, threads: int) -> None:
        self._count = count
        self._pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(threads,))
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


def worthwhile_threads(work: Callable[[], object]) -> int:
    """How many threads one picture is worth here: all that torch uses, or one.

    Args:
        work: What is done with a picture.
    """
    available = torch.get_num_threads()
    shared = _seconds(work)
    torch.set_num_threads(1)
    try:
        alone = _seconds(work)
    finally:
        torch.set_num_threads(available)
    return available if alone > _WORTHWHILE * available * shared else 1


def _seconds(work: Callable[[], object]) -> float:
    """The shorter of two, after one that warms up."""
    work()
    best = float("inf")
    for _ in range(2):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best
