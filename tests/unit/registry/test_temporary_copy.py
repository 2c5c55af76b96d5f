"""The temporary copy of a database in a read-only folder is used only for this database."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

from transfer_registry import mlflow_server
from transfer_registry.files import sqlite_file
from transfer_registry.mlflow_database import prepare_database

Write = Callable[..., Path]


@pytest.fixture
def project(isolated: Path, tmp_path: Path, mlflow_file: Write, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A moved project in a read-only folder."""
    mlflow.set_tracking_uri(None)
    prepare_database(mlflow_file(tmp_path / "former", "a"))
    folder = (tmp_path / "former").rename(tmp_path / "project")
    monkeypatch.setattr("transfer_registry.sqlite_files.is_writable", lambda file: file.absolute().parent != folder)
    monkeypatch.chdir(folder)
    yield folder
    mlflow.set_tracking_uri(None)


def used_file() -> Path | None:
    """The database that MLflow uses after this module has selected one."""
    mlflow_server.require_database()
    assert mlflow_server.tracking_uri() == mlflow.get_tracking_uri() == os.environ["MLFLOW_TRACKING_URI"]
    return sqlite_file(mlflow.get_tracking_uri())


def uses_copy_of(project: Path) -> bool:
    used = used_file()
    assert used
    return used.parent != project and mlflow_server.database_file() == project / "mlflow.db"


def test_the_copy_is_not_used_in_another_folder(
    project: Path, tmp_path: Path, mlflow_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert uses_copy_of(project)
    monkeypatch.chdir(mlflow_file(tmp_path / "other", "b").parent)
    assert used_file() == mlflow_server.database_file() == tmp_path / "other" / "mlflow.db"
    mlflow_server.require_original()
    monkeypatch.chdir(project)
    assert uses_copy_of(project)


def test_the_copy_of_a_configured_database_is_used_in_every_folder_until_another_is_configured(
    project: Path, tmp_path: Path, mlflow_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = mlflow_file(tmp_path / "other", "b")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlflow.db")
    assert uses_copy_of(project)
    monkeypatch.chdir(other.parent)
    assert uses_copy_of(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{other}")
    assert used_file() == other


def test_a_relative_uri_refers_to_the_database_in_the_current_folder(
    project: Path, tmp_path: Path, mlflow_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert uses_copy_of(project)
    monkeypatch.chdir(mlflow_file(tmp_path / "other", "b").parent)
    assert used_file() == Path("mlflow.db")


def test_the_copy_is_replaced_by_the_database_once_the_folder_can_be_written(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert uses_copy_of(project)
    monkeypatch.setattr("transfer_registry.sqlite_files.is_writable", lambda file: True)
    assert used_file() == project / "mlflow.db"


def test_another_uri_set_by_the_user_replaces_the_copy(project: Path, tmp_path: Path, mlflow_file: Write) -> None:
    assert uses_copy_of(project)
    other = mlflow_file(tmp_path / "other", "b")
    mlflow.set_tracking_uri(f"sqlite:///{other}")
    assert used_file() == mlflow_server.database_file() == other
