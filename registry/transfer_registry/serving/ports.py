"""Finds free ports and waits for servers to accept connections."""

import socket
import subprocess
import time
from contextlib import suppress

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """Returns a port that is free on 127.0.0.1 at the time of the call."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for_port(server: subprocess.Popen[bytes], host: str, port: int, seconds: float) -> bool:
    """Waits until a server accepts connections; returns False if the process exits or `seconds` elapse first."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(OSError), socket.create_connection((host, port), timeout=1):
            return True
        time.sleep(0.1)
    return False
