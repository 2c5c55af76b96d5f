"""Two processes cannot drive the same study."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from transfer_registry.errors import LockHeldError, StorageError
from transfer_registry.locks import holder_of, last_holder, study_lock

HOLD = """
import sys, time
from pathlib import Path
from transfer_registry.locks import study_lock
with study_lock("digits-0a", Path(sys.argv[1]), "sqlite:///studies.db"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_process_gets_an_error_that_names_the_first(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(LockHeldError, match=rf"digits-0a is already running: process {other.pid} on "),
            study_lock("digits-0a", tmp_path, "sqlite:///studies.db"),
        ):
            pass
    finally:
        other.kill()
        other.communicate()


def test_a_killed_process_releases_the_lock(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    other.stdout.readline()
    other.kill()
    other.communicate()
    with study_lock("digits-0a", tmp_path, "sqlite:///studies.db"):
        assert str(os.getpid()) in (tmp_path / "holder").read_text()


@contextmanager
def held_briefly(lock: Path) -> Iterator[None]:
    """Holds a lock as another process does that tests whether the lock is free."""
    other = FileLock(lock, thread_local=False)
    other.acquire()
    timer = threading.Timer(0.1, other.release)
    timer.start()
    yield
    timer.join()


def test_a_study_starts_while_another_process_tests_its_lock(tmp_path: Path) -> None:
    with held_briefly(tmp_path / "held.lock"), study_lock("digits-0a", tmp_path, "sqlite:///studies.db"):
        pass


def test_a_lock_that_another_process_tests_has_no_holder(tmp_path: Path) -> None:
    (tmp_path / "holder").write_text("process 7 on this-host, since yesterday")
    with held_briefly(tmp_path / "held.lock"):
        assert holder_of(tmp_path / "held.lock") is None


def test_a_lock_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "held.lock").mkdir()
    message = rf"the lock file {tmp_path}/held\.lock cannot be opened: .*directory.*; check the free disk"
    with pytest.raises(StorageError, match=message), study_lock("digits-0a", tmp_path, "sqlite:///studies.db"):
        pass
    with pytest.raises(StorageError, match=message):
        holder_of(tmp_path / "held.lock")


def test_the_record_of_the_holder_may_be_damaged(tmp_path: Path) -> None:
    (tmp_path / "holder").write_bytes(b"\xff")
    assert last_holder(tmp_path / "held.lock")
