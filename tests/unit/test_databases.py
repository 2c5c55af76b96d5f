"""Databases that would collide, or that other users cannot read, are refused before writing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import mlflow
import pytest

from transfer_platform import databases
from transfer_registry.errors import StorageError


@pytest.fixture(autouse=True)
def _reset_tracking_uri(isolated: Path):
    yield
    mlflow.set_tracking_uri(None)


def test_databases_are_in_the_current_folder_by_default(isolated: Path) -> None:
    assert databases.studies_url() == f"sqlite+pysqlite:///{isolated}/studies/studies.db"
    assert databases.ledger_url() == f"sqlite+pysqlite:///{isolated}/ledger.db"


def test_a_postgresql_database_holds_studies_and_ledger_in_schemas_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PLATFORM_DATABASE_URL", "postgresql://me:secret@db/platform")
    assert databases.studies_url() == ("postgresql+psycopg://me:secret@db/platform?options=-csearch_path%3Dstudies")
    assert databases.ledger_url().endswith("search_path%3Dledger")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "is not a database URL"),
        ("mysql://db/platform", "is a mysql URL"),
        ("sqlite:///mlflow.db", "is a sqlite URL"),
    ],
)
def test_other_databases_are_refused(monkeypatch: pytest.MonkeyPatch, url: str, message: str) -> None:
    monkeypatch.setenv("PLATFORM_DATABASE_URL", url)
    with pytest.raises(StorageError, match=message):
        databases.studies_url()


def test_a_schema_that_is_mlflows_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATFORM_DATABASE_URL", "postgresql://me@db/platform")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me@db:5432/platform?options=-csearch_path=ledger")
    with pytest.raises(StorageError, match="both point to schema 'ledger'"):
        databases.ledger_url()
    assert databases.studies_url()


@pytest.mark.parametrize(
    "server", ["https://mlflow.example", "postgresql://me:secret@db/mlflow", "mysql://me@db/mlflow"]
)
def test_a_remote_registry_with_a_local_ledger_is_refused(monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    with pytest.raises(StorageError, match="set PLATFORM_DATABASE_URL") as refusal:
        databases.ledger_url()
    assert "secret" not in str(refusal.value)


def of_another_program(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE books (title)")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda file: file.write_text("no database\n" * 100), "file is not a database"),
        (of_another_program, "is not a ledger: it contains the tables books"),
        (Path.mkdir, "unable to open database file"),
    ],
)
def test_a_local_ledger_that_cannot_be_used_is_refused_before_the_search(
    isolated: Path, write: Callable[[Path], object], message: str
) -> None:
    write(isolated / "ledger.db")
    with pytest.raises(StorageError, match=message):
        databases.require_ledger()


@pytest.mark.parametrize("exists", [False, True])
def test_a_local_ledger_that_cannot_be_written_is_refused_before_the_search(
    isolated: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    if exists:
        databases.open_ledger().close()
    monkeypatch.setattr(os, "access", lambda path, mode: not (mode & os.W_OK))  # the tests may run as root
    with pytest.raises(StorageError, match=r"ledger\.db.* cannot be written"):
        databases.require_ledger()


def test_the_check_creates_no_ledger(isolated: Path) -> None:
    databases.require_ledger()
    assert not (isolated / "ledger.db").exists()
