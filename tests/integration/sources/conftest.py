"""A web server on the loopback interface that can simulate faults, and a fresh process that opens a source."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass
class Site:
    """Files, faults and received requests of the server.

    Attributes:
        files: Content by path, `/a/b.zip`.
        cuts: Number of bytes after which each of the next connections is cut.
        etag: ETag of every file; empty to send none.
        ranges: Support Range requests.
        honest: Respect If-Range.
        lengths: Send Content-Length.
        headers: Sent with every file.
        failures: Status codes of the next responses.
        refusals: Status codes by path.
        heads: Support HEAD requests.
        requests: Path and Range header of every GET.
        heads_answered: Path of every answered HEAD.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    etag: str = '"1"'
    ranges: bool = True
    honest: bool = True
    lengths: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    failures: list[int] = field(default_factory=list)
    refusals: dict[str, int] = field(default_factory=dict)
    heads: bool = True
    requests: list[tuple[str, str]] = field(default_factory=list)
    heads_answered: list[str] = field(default_factory=list)


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - a class inside, not branches
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.requests.append((self.path, self.headers.get("Range", "")))
            content = site.files.get(self.path.partition("?")[0])
            status = site.failures.pop(0) if site.failures else site.refusals.get(self.path, 200)
            if status == 200 and content is not None:
                self._send(content, self._start())
            else:
                self.send_error(404 if content is None else status)

        def do_HEAD(self) -> None:
            content = site.files.get(self.path.partition("?")[0])
            status = site.refusals.get(self.path, 200 if content is not None else 404)
            if site.heads:
                site.heads_answered.append(self.path)
            if status != 200 or content is None or not site.heads:
                self.send_error(status if site.heads else 405)
                return
            self.send_response(200)
            if site.etag:
                self.send_header("ETag", site.etag)
            if site.lengths:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()

        def _start(self) -> int | None:
            span = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            same = not site.honest or self.headers.get("If-Range", site.etag) == site.etag
            return int(span[1]) if span and site.ranges and same else None

        def _send(self, content: bytes, start: int | None) -> None:
            if start is not None and start >= len(content):
                self.send_error(416)
                return
            body = content[start or 0 :]
            self.send_response(200 if start is None else 206)
            if start is not None:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if site.etag:
                self.send_header("ETag", site.etag)
            if site.lengths:
                self.send_header("Content-Length", str(len(body)))
            for name, value in site.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: site.cuts.pop(0)] if site.cuts else body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            pass

    return Handler


@pytest.fixture
def site() -> Iterator[Site]:
    """A running server."""
    site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(site))
    site.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield site
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def mirror(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty mirror folder, set in the environment."""
    folder = isolated / "mirror"
    folder.mkdir()
    monkeypatch.setenv("PLATFORM_MIRROR", str(folder))
    return folder


@pytest.fixture
def modules_to_open() -> Callable[[str], set[str]]:
    """Returns the modules that a fresh process has imported after opening a source."""

    def modules(source: str) -> set[str]:
        code = (
            "import sys; from pathlib import Path\n"
            "from transfer_platform.sources.open import open_source\n"
            f"open_source({source!r}, Path())\n"
            "print(*sys.modules)"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        return set(done.stdout.split())

    return modules
