"""Two processes cannot drive the same study."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from transfer_registry.errors import LockHeldError
from transfer_registry.locks import study_lock

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
