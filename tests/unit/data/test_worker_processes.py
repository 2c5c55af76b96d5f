"""Worker processes: every call ends, however its process ends, and none outlives a scan."""

from __future__ import annotations

import operator
import os
import signal
from concurrent.futures import BrokenExecutor
from pathlib import Path
from threading import Timer

import pytest
from PIL import Image

from transfer_platform.data import scan
from transfer_platform.data.catalog import scan_folder
from transfer_platform.data.worker_processes import WorkerProcesses
from transfer_platform.errors import DataError

PATIENCE = 60
"""Seconds after which a test gives up."""


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images that processes read one by one, although they are few."""
    monkeypatch.setenv("PLATFORM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(scan, "MAX_THREADED_FILES", 0)
    monkeypatch.setattr(scan, "_MIN_CHUNK_FILES", 1)
    for number in range(40):
        path = tmp_path / "images" / ("ant", "bee")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    return tmp_path / "images"


def children() -> set[int]:
    """The processes that this thread has started."""
    return set(map(int, Path("/proc/thread-self/children").read_text().split()))


def test_no_process_outlives_a_scan(images: Path) -> None:
    """A process that waits for the next scan might end, because it is idle, at the moment when that scan begins."""
    before = children()
    assert len(scan_folder(images).images) == 40
    assert children() == before


def test_a_scan_whose_processes_are_killed_names_a_file(images: Path) -> None:
    before = children()

    def kill(_: object) -> None:
        for process in children() - before:
            os.kill(process, signal.SIGKILL)

    with pytest.raises(DataError, match=r"a worker process died while reading .*\.png or a subsequent file"):
        scan_folder(images, progress=kill)
    assert children() == before


@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), 9)", "os.closerange(0, 3) or os._exit(0)"])
def test_a_call_ends_with_its_process(end: str) -> None:
    with WorkerProcesses(1) as processes:
        for _ in range(2):  # the process is not replaced
            with pytest.raises(BrokenExecutor, match="died"):
                processes.submit(exec, f"import os; {end}").result(PATIENCE)


def test_running_and_waiting_calls_end_when_the_executor_does() -> None:
    with WorkerProcesses(1) as processes:
        running, waiting = (processes.submit(exec, "import time; time.sleep(600)") for _ in range(2))
        Timer(0.1, processes.shutdown).start()
        with pytest.raises(BrokenExecutor, match="died"):
            running.result(PATIENCE)
    assert waiting.cancelled() or isinstance(waiting.exception(PATIENCE), BrokenExecutor)


def test_an_error_in_a_process_is_raised_with_its_traceback() -> None:
    with WorkerProcesses(1) as processes:
        with pytest.raises(ZeroDivisionError) as caught:
            processes.submit(operator.truediv, 1, 0).result(PATIENCE)
        assert "function(*args, **kwargs)" in caught.value.__notes__[0]
        assert processes.submit(print, "output").result(PATIENCE) is None
        assert processes.submit(operator.add, 1, 2).result(PATIENCE) == 3


def test_the_processes_ignore_interrupts() -> None:
    """Ctrl-C reaches all processes of a terminal; the parent process ends the others."""
    with WorkerProcesses(1) as processes:
        process = processes.submit(os.getpid).result(PATIENCE)
        os.kill(process, signal.SIGINT)
        assert processes.submit(os.getpid).result(PATIENCE) == process
