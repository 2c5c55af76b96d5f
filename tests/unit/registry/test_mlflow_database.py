"""A file that MLflow cannot use ends in one sentence, and stays as it is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from click.testing import CliRunner

from transfer_platform.cli import main
from transfer_registry.errors import StorageError
from transfer_registry.mlflow_database import prepare_database

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


def folder(file: Path) -> None:
    file.mkdir()


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (text, "cannot be used as a database: file is not a database"),
        (truncated, "cannot be used as a database: database disk image is malformed"),
        (of_optuna, "is not an MLflow database: it contains the tables alembic_version, studies"),
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


def test_an_empty_file_is_left_to_mlflow(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    prepare_database(tmp_path / "mlflow.db")
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
