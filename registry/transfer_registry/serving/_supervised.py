"""Runs a command until the parent process ends or stops it.

    python -I _supervised.py COMMAND [ARGUMENT ...]      (standard input must be a pipe)

When the parent process writes to the pipe, ends or is killed (`kill -9`), this script kills the command and its child
processes. This module is run as a script, never imported.
"""

import os
import signal
import subprocess
import sys
import threading


def _main(command: list[str]) -> int:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_kill_when_stopped, args=(process,), daemon=True).start()
    return process.wait()


def _kill_when_stopped(process: "subprocess.Popen[bytes]") -> None:
    os.read(sys.stdin.fileno(), 1)
    os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
