"""A file that MLflow cannot use ends in one sentence, and stays as it is."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory
from click.testing import CliRunner
from mlflow.exceptions import MlflowException
from mlflow.store.db import utils

from transfer_platform.cli import main
from transfer_registry import sqlite_files
from transfer_registry.errors import DatabaseInUseError, StorageError
from transfer_registry.locks import study_lock
from transfer_registry.mlflow_database import prepare_database

REVISION = ScriptDirectory(str(Path(utils.__file__).parents[1] / "db_migrations")).get_current_head()
COMMANDS = [["predict", ".", "--model", "x"], ["ui"], ["run", "digits"], ["serve", "x"]]


def text(file: Path) -> None:
    file.write_text("runs\n" * 500)


def truncated(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE experiments (name)")
        connection.executemany("INSERT INTO experiments VALUES (?)", [("x" * 1000,)] * 50)
    file.write_bytes(file.read_bytes()[:5000])


def of_optuna(file: Path) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
    storage.engine.dispose()


def of_another_tracker(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE experiments (experiment_id, name)")
        connection.execute("CREATE TABLE runs (id, status)")
        connection.execute("CREATE TABLE alembic_version (version_num)")


def folder(file: Path) -> None:
    file.mkdir()


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (text, "cannot be used as a database: file is not a database"),
        (truncated, "cannot be used as a database: database disk image is malformed"),
        (of_optuna, "is not an MLflow database: it contains the tables alembic_version, studies"),
        (
            of_another_tracker,
            "is not an MLflow database: it does not contain the columns experiments.artifact_location, "
            "runs.artifact_uri, runs.lifecycle_stage, runs.run_uuid; move it elsewhere",
        ),
        (folder, "cannot be used as a database: unable to open database file"),
    ],
)
def test_a_file_that_is_not_mlflows_is_named_and_not_changed(
    isolated: Path, write: Callable[[Path], None], message: str
) -> None:
    file = isolated / "mlflow.db"
    write(file)
    before = file.read_bytes() if file.is_file() else None
    assert f"{file} {message}" in output_of(["models", "list"])
    assert (file.read_bytes() if file.is_file() else None) == before


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_every_command_names_the_file(isolated: Path, command: list[str]) -> None:
    text(isolated / "mlflow.db")
    (isolated / "image.png").touch()
    assert f"{isolated / 'mlflow.db'} cannot be used as a database" in output_of(command)


def output_of(command: list[str]) -> str:
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1
    assert not done.exception or isinstance(done.exception, SystemExit)
    return done.output


def test_a_database_of_a_newer_mlflow_is_refused_with_the_remedy(
    tmp_path: Path, mlflow_file: Callable[..., Path]
) -> None:
    database = mlflow_file(tmp_path, revision="ffffffffffff")
    with pytest.raises(StorageError, match=r"revision ffffffffffff.*does not recognize.*pip install --upgrade mlflow"):
        prepare_database(database)


def test_an_upgrade_that_fails_changes_nothing(tmp_path: Path, mlflow_file: Callable[..., Path]) -> None:
    database = mlflow_file(tmp_path, revision=None)  # the first revision alters tables that do not exist here
    before = database.read_bytes()
    with pytest.raises(StorageError, match=r"older version of MLflow.*cannot be upgraded"):
        prepare_database(database)
    assert database.read_bytes() == before
    assert not list(tmp_path.glob("*.upgraded"))

    assert not list(tmp_path.glob("*.before-upgrade*"))


@pytest.mark.parametrize("error", [MlflowException("failed"), OSError("failed"), KeyboardInterrupt()], ids=repr)
def test_an_upgrade_that_is_interrupted_leaves_no_file(
    outdated: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(engine: object) -> None:
        raise error

    monkeypatch.setattr(utils, "_upgrade_db", fail)
    with pytest.raises(StorageError if isinstance(error, Exception) else KeyboardInterrupt):
        prepare_database(outdated)
    assert {path.name for path in outdated.parent.iterdir()} <= {"mlflow.db", "mlflow.db.lock"}


@pytest.fixture
def outdated(tmp_path: Path, mlflow_file: Callable[..., Path]) -> Path:
    """A database of an older MLflow, whose tables are already those of the installed one."""
    return mlflow_file(tmp_path / "old", revision="acf3f17fdcc7")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    def upgrade(engine: sa.Engine) -> None:
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE alembic_version SET version_num = :head"), {"head": REVISION})

    monkeypatch.setattr(utils, "_upgrade_db", upgrade)
    monkeypatch.setattr(sqlite_files, "BUSY_SECONDS", 0.05)


@pytest.mark.usefixtures("quick")
def test_a_process_that_opened_the_database_before_an_upgrade_can_still_write(outdated: Path) -> None:
    with closing(sqlite3.connect(outdated)) as connection, connection:
        connection.execute("SELECT * FROM runs").fetchall()
        prepare_database(outdated)
        connection.execute("INSERT INTO experiments VALUES (7, 'elsewhere')")
    with closing(sqlite3.connect(outdated)) as connection:
        assert (7,) in connection.execute("SELECT experiment_id FROM experiments").fetchall()
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(REVISION,)]


@pytest.mark.usefixtures("quick")
def test_a_database_that_another_process_writes_is_not_upgraded(outdated: Path) -> None:
    with closing(sqlite3.connect(outdated)) as connection, connection:
        connection.execute("INSERT INTO experiments VALUES (7, 'elsewhere')")
        with pytest.raises(DatabaseInUseError, match="is locked by another process; wait for the process to finish"):
            prepare_database(outdated)
    assert not list(outdated.parent.glob("*.upgraded"))
    prepare_database(outdated)
    with closing(sqlite3.connect(outdated)) as connection:
        assert (7,) in connection.execute("SELECT experiment_id FROM experiments").fetchall()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_an_upgrade_keeps_journal_mode_permissions_links_and_earlier_backups(outdated: Path, journal: str) -> None:
    with closing(sqlite3.connect(outdated)) as connection:
        connection.execute(f"PRAGMA journal_mode = {journal}")
    outdated.chmod(0o660)
    outdated.with_name("mlflow.db.before-upgrade").write_text("earlier")
    (link := outdated.with_name("link.db")).symlink_to(outdated)
    prepare_database(link)
    assert link.is_symlink()
    assert outdated.stat().st_mode & 0o777 == 0o660
    prepare_database(outdated)
    with closing(sqlite3.connect(outdated)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchall() == [(journal,)]
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(REVISION,)]
    assert outdated.with_name("mlflow.db.before-upgrade").read_text() == "earlier"


@pytest.mark.usefixtures("quick")
def test_a_database_is_not_upgraded_while_a_study_runs(outdated: Path) -> None:
    with (
        study_lock("digits-0a", outdated.parent / "studies" / "digits-0a", "sqlite:///studies.db"),
        pytest.raises(DatabaseInUseError, match="study digits-0a is running"),
    ):
        prepare_database(outdated)


def test_an_empty_file_is_left_to_mlflow(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    prepare_database(tmp_path / "mlflow.db")
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


@pytest.fixture
def running(tmp_path: Path, mlflow_file: Callable[..., Path]) -> Path:
    """A database of an older MLflow with the run `a`, which has the status RUNNING."""
    database = mlflow_file(tmp_path / "user's folder", "a", revision="acf3f17fdcc7")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE runs SET status = 'RUNNING'")
    return database


@pytest.mark.usefixtures("quick")
def test_a_database_with_a_running_run_is_upgraded_after_the_advice_was_followed(running: Path) -> None:
    before = running.read_bytes()
    with pytest.raises(DatabaseInUseError, match=r"mlflow\.db contains runs with the status RUNNING \(a\)") as caught:
        prepare_database(running)
    assert running.read_bytes() == before
    assert not list(running.parent.glob("*.before-upgrade"))
    advice = str(caught.value).split("`")[1]
    subprocess.run(advice.replace("python", sys.executable, 1), shell=True, check=True)
    prepare_database(running)
    with closing(sqlite3.connect(running)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(REVISION,)]
        assert connection.execute("SELECT status FROM runs").fetchall() == [("KILLED",)]


@pytest.mark.usefixtures("quick")
def test_a_copy_of_an_older_database_is_upgraded_while_a_run_uses_the_original(running: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(running.parent, tmp_path / "copy") / "mlflow.db"
    prepare_database(copy)
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(REVISION,)]
