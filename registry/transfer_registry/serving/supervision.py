"""Starts commands that end with this process."""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_SCRIPT = Path(__file__).with_name("_supervised.py")


@contextmanager
def supervised(
    command: Sequence[str], env: Mapping[str, str] | None = None, output: IO[str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command for the duration of a `with` block; then kills it and its child processes.

    If this process is killed, the command is killed as well.

    Args:
        command: Command and arguments.
        env: Environment variables; None stands for those of this process.
        output: File for standard output and standard error; None stands for those of this process.
    """
    process = subprocess.Popen(
        [sys.executable, "-I", str(_SCRIPT), *command],
        env=env,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        start_new_session=True,  # a signal to our process group must not kill the supervisor before the command
    )
    try:
        yield process
    finally:
        # closing the pipe is not enough if a process that another thread has forked holds it as well
        process.communicate(b"\n")
