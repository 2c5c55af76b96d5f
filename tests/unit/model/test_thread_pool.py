from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from transfer_model.thread_pool import FairThreadPool


@pytest.fixture
def workers() -> FairThreadPool:
    return FairThreadPool(2, threads=1)


def test_results_come_in_the_order_of_the_tasks(workers: FairThreadPool) -> None:
    def work(number: int) -> int:
        time.sleep(0.01 * (number % 3))
        return number

    assert list(workers.map(work, range(20))) == list(range(20))
    assert list(workers.map(work, [])) == []


def test_so_many_at_once_each_with_so_many_threads(workers: FairThreadPool) -> None:
    both = threading.Barrier(2, timeout=10)

    def work(_: int) -> int:
        both.wait()
        return torch.get_num_threads()

    assert list(workers.map(work, range(4))) == [1, 1, 1, 1]


def test_after_an_error_nothing_more_is_begun(workers: FairThreadPool) -> None:
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        if number == 3:
            raise ValueError(number)

    with pytest.raises(ValueError, match="3"):
        list(workers.map(work, range(100)))
    assert max(begun) < 10
    assert list(workers.map(abs, [-1])) == [1]


def test_one_task_does_not_wait_for_all_of_anothers(workers: FairThreadPool) -> None:
    done: list[int] = []

    def slow(number: int) -> None:
        time.sleep(0.02)
        done.append(number)

    with ThreadPoolExecutor(1) as other:
        many = other.submit(lambda: list(workers.map(slow, range(100))))
        while not done:
            time.sleep(0.001)
        list(workers.map(abs, [1]))
        assert len(done) < 50
        many.result()
