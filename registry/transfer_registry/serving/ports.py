"""Ports of server processes."""

import socket
import subprocess
import time
from contextlib import suppress

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """Returns a port of 127.0.0.1 that was free at the time of the call."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for_port(server: subprocess.Popen[bytes], host: str, port: int, seconds: float) -> bool:
    """Waits until a server process accepts connections; returns False if it ends first or time runs out."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(OSError), socket.create_connection((host, port), timeout=1):
            return True
        time.sleep(0.1)
    return False
