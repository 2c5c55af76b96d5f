"""Runs a command and kills it when the parent process ends.

    python -I _supervised.py COMMAND [ARGUMENT ...]      (standard input must be a pipe)

The parent process writes nothing to the pipe. When it ends or is killed (`kill -9`), the pipe closes, and this script
kills the command and its child processes. This module is run as a script, never imported.
"""

import os
import signal
import subprocess
import sys
import threading


def _main(command: list[str]) -> int:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_kill_at_end_of_input, args=(process,), daemon=True).start()
    return process.wait()


def _kill_at_end_of_input(process: "subprocess.Popen[bytes]") -> None:
    os.read(sys.stdin.fileno(), 1)
    os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
