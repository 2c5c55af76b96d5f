"""Ports of server processes."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """Returns a port of 127.0.0.1 that was free at the time of the call."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for_port(server: subprocess.Popen[bytes], host: str, port: int, seconds: float) -> bool:
    """Waits until a server process accepts connections.

    Returns:
        False if the process ends first or the time is over.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(OSError), socket.create_connection((host, port), timeout=1):
            return True
        time.sleep(0.1)
    return False
