"""Servers end when they are stopped, although a client never finishes its request, and leave no process behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from transfer_registry.serving.ports import free_port
from transfer_registry.serving.supervision import supervised

PATIENCE = 30
"""Seconds after which a test gives up."""

REQUEST = b"POST /ajax-api/2.0/mlflow/runs/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n{"
APP = """
import transfer_registry.serving.server as server

async def app(scope, receive, send):
    while scope["type"] == "http" and (await receive())["type"] == "http.request":
        pass

server.model_uri, server.create_app, server._GRACE_SECONDS = str, lambda uri: app, 1
server.serve("model", port=%d)
"""


def processes(words: str) -> list[bytes]:
    """The command lines of the running processes that contain some words."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
            except OSError:
                continue
            found += [line] if words.encode() in line else []
    return found


def until_none(words: str) -> None:
    for _ in range(10 * PATIENCE):
        if not processes(words):
            return
        time.sleep(0.1)
    pytest.fail(f"after {PATIENCE} s, these processes are left: {processes(words)}")


@contextmanager
def serving(program: str, folder: Path, ready: str) -> Iterator[subprocess.Popen[str]]:
    """Runs a program that prints a word when its server is ready."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PLATFORM_"))}
    environment = {**clean, "PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-P", "-c", program]
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            while ready not in (line := process.stdout.readline()):
                assert line, "the server ended"
            yield process
        finally:
            process.kill()


@contextmanager
def stalled_request(port: int) -> Iterator[None]:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(REQUEST)
        time.sleep(0.5)
        yield


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_pages_leave_no_process_behind(tmp_path: Path, number: int) -> None:
    port = free_port()
    program = f"from transfer_registry.serving.server import ui; ui(port={port})"
    with serving(program, tmp_path, "Ctrl-C") as process, stalled_request(port):
        process.send_signal(number)
        process.wait(PATIENCE)
        until_none(f"--port {port}")


def test_a_model_server_ends_although_a_request_does_not(tmp_path: Path) -> None:
    port = free_port()
    with serving(APP % port, tmp_path, "curl") as process, stalled_request(port):
        process.terminate()
        process.wait(PATIENCE)


def test_a_supervised_command_ends_although_another_process_holds_the_pipe() -> None:
    with supervised([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        assert process.stdin
        held = os.dup(process.stdin.fileno())  # what a process inherits that another thread forks
    os.close(held)
    assert process.returncode is not None
