from __future__ import annotations

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from transfer_model.thread_pool import FairThreadPool


@pytest.fixture
def pool() -> FairThreadPool:
    return FairThreadPool(2, threads=1)


def test_an_error_while_threads_start_does_not_make_the_caller_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="positive"):
        FairThreadPool(2, threads=0)
    start, started = threading.Thread.start, list[threading.Thread]()

    def start_one(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_one)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        FairThreadPool(2, threads=1)
    gc.collect()  # an idle thread ends with its pool
    started[0].join(60)
    assert not started[0].is_alive(), "it waits for the thread that could not be started"


def test_results_are_in_the_order_of_the_tasks(pool: FairThreadPool) -> None:
    def work(number: int) -> int:
        time.sleep(0.01 * (number % 3))
        return number

    assert list(pool.map(work, range(20))) == list(range(20))
    assert list(pool.map(work, [])) == []


def test_tasks_run_in_parallel_with_the_number_of_torch_threads(pool: FairThreadPool) -> None:
    both = threading.Barrier(2, timeout=10)

    def work(_: int) -> int:
        both.wait()
        return torch.get_num_threads()

    assert list(pool.map(work, range(4))) == [1, 1, 1, 1]


def test_an_error_cancels_the_remaining_tasks(pool: FairThreadPool) -> None:
    started: list[int] = []

    def work(number: int) -> None:
        started.append(number)
        if number == 3:
            raise ValueError(number)

    with pytest.raises(ValueError, match="3"):
        list(pool.map(work, range(100)))
    assert max(started) < 10
    assert list(pool.map(abs, [-1])) == [1]


def test_one_task_does_not_wait_for_all_tasks_of_another_caller(pool: FairThreadPool) -> None:
    done: list[int] = []

    def slow(number: int) -> None:
        time.sleep(0.02)
        done.append(number)

    with ThreadPoolExecutor(1) as other:
        many = other.submit(lambda: list(pool.map(slow, range(100))))
        while not done:
            time.sleep(0.001)
        list(pool.map(abs, [1]))
        assert len(done) < 50
        many.result()
