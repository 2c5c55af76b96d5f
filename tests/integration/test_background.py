"""Tests that are started in the background of a shell, where Ctrl-C is ignored."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
HANDLER = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"


def test_a_process_that_a_test_starts_ends_on_ctrl_c() -> None:
    done = subprocess.run([sys.executable, "-c", HANDLER], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_the_test_runner_itself_ignores_ctrl_c_in_the_background() -> None:
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_the_tests_of_ctrl_c_do_not_depend_on_how_they_are_started(workers: str) -> None:
    tests = ["process_that_a_test_starts", "test_runner_itself"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", workers, "-k", " or ".join(tests)]
    shell = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *command, __file__]
    done = subprocess.run(shell, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
