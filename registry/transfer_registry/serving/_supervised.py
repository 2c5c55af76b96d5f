"""What `over_http` runs, by its path: a command that ends when whoever started this is gone; never imported.

    python -I attended.py COMMAND [ARGUMENT ...]      with a pipe as standard input

Nobody writes into the pipe. It is closed when its other end is, also by a `kill -9`, and then the command and
all that it started are killed: a server must not outlive a promotion.
"""

import os
import signal
import subprocess
import sys
import threading


def _main(command: list[str]) -> int:
    attended = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_end_with_input, args=(attended,), daemon=True).start()
    return attended.wait()


def _end_with_input(attended: "subprocess.Popen[bytes]") -> None:
    os.read(sys.stdin.fileno(), 1)
    os.killpg(attended.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
