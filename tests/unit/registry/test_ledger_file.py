"""A ledger belongs to one registry."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from transfer_registry.errors import StorageError
from transfer_registry.ledger import EntryKind, Ledger, LedgerEntry
from transfer_registry.ledger_file import ledger_file
from transfer_registry.migrations import VERSION_TABLE
from transfer_registry.mlflow_database import prepare_database, registry_identity

Write = Callable[..., Path]


def open_ledger(database: Path, registry: str | None = "own") -> Ledger:
    prepare_database(database)
    identity = registry_identity(database).registry if registry == "own" else registry
    return Ledger.open(f"sqlite:///{ledger_file(database)}", identity)


def entry(run: str | None) -> LedgerEntry:
    return LedgerEntry(kind=EntryKind.VERDICT, model="m", version=1, run_id=run, passed=True, verdict="{}", reason="")


def test_two_registries_in_one_folder_have_two_ledgers(tmp_path: Path, mlflow_file: Write) -> None:
    one, other = mlflow_file(tmp_path, "a"), mlflow_file(tmp_path, "b", name="other.db")
    for database, run in ((one, "a"), (other, "b")):
        with open_ledger(database) as ledger:
            ledger.append(entry(run))
    assert ledger_file(one) == tmp_path / "ledger.db"
    for database, run in ((one, "a"), (other, "b")):
        with open_ledger(database) as ledger:
            assert [each.run_id for each in ledger.entries()] == [run]


def test_a_ledger_is_beside_its_database_from_whatever_folder_it_is_opened(
    tmp_path: Path, isolated: Path, mlflow_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transfer_platform import databases

    database = mlflow_file(tmp_path / "project", "a")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    assert databases.ledger_url().endswith("/project/ledger.db")


def test_a_database_that_replaced_another_gets_another_ledger(tmp_path: Path, mlflow_file: Write) -> None:
    with open_ledger(mlflow_file(tmp_path, "a")) as ledger:
        ledger.append(entry("a"))
    (tmp_path / "mlflow.db").unlink()
    with open_ledger(mlflow_file(tmp_path, "b")) as ledger:
        assert ledger.entries() == ()
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        assert len(ledger.entries()) == 1


def copied_file(database: Path) -> Path:
    return shutil.copy(database, database.with_name(f"{database.stem}2.db"))


def copied_folder(database: Path) -> Path:
    return shutil.copytree(database.parent, database.parent.with_name(f"{database.parent.name}2")) / database.name


@pytest.mark.parametrize("copy", [copied_file, copied_folder])
@pytest.mark.parametrize("ledger_of", ["the registry", "no registry", "an older platform"])
def test_a_copied_database_continues_with_a_copy_of_the_ledger(
    tmp_path: Path, mlflow_file: Write, copy: Callable[[Path], Path], ledger_of: str
) -> None:
    original = mlflow_file(tmp_path / "project", "a")
    with open_ledger(original, "own" if ledger_of == "the registry" else None) as ledger:
        ledger.append(entry("a"))
    if ledger_of == "an older platform":
        with closing(sqlite3.connect(tmp_path / "project" / "ledger.db")) as connection, connection:
            connection.execute("DROP TABLE registry")
            connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '0001'")
    database = original
    for count in (2, 3):
        database = copy(database)
        with open_ledger(database) as ledger:
            ledger.append(entry("a"))
            assert [each.id for each in ledger.entries()] == [*range(1, count + 1)]
    with open_ledger(original) as ledger:
        assert [each.id for each in ledger.entries()] == [1]


def test_a_copied_database_does_not_continue_the_ledger_of_another_registry(tmp_path: Path, mlflow_file: Write) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        ledger.append(entry("elsewhere"))
    prepare_database(mlflow_file(tmp_path, "a"))
    with open_ledger(copied_file(tmp_path / "mlflow.db")) as ledger:
        assert ledger.entries() == ()


def test_a_copied_folder_cannot_open_the_shared_ledger_of_the_original(tmp_path: Path, mlflow_file: Write) -> None:
    original, shared = mlflow_file(tmp_path / "project", "a"), f"sqlite:///{tmp_path / 'shared.db'}"
    prepare_database(original)
    Ledger.open(shared, registry_identity(original).registry).close()
    prepare_database(copy := copied_folder(original))
    with pytest.raises(StorageError, match="records the decisions of another MLflow registry"):
        Ledger.open(shared, registry_identity(copy).registry)


def test_a_copied_folder_that_became_read_only_before_its_ledger_was_copied_names_the_remedy(
    tmp_path: Path, mlflow_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_ledger(mlflow_file(tmp_path / "project", "a")).close()
    prepare_database(copy := copied_folder(tmp_path / "project" / "mlflow.db"))
    with monkeypatch.context() as patch:
        patch.setattr("os.access", lambda path, mode: False)  # the tests may run as root
        with pytest.raises(StorageError, match=r"ledger-\w+\.db.*give this user write permission"):
            ledger_file(copy)
    assert ledger_file(copy).exists()


@pytest.mark.parametrize(("run", "own"), [("a", True), ("elsewhere", False), (None, True)])
def test_a_ledger_without_an_owner_belongs_to_the_registry_of_its_runs(
    tmp_path: Path, mlflow_file: Write, run: str | None, own: bool
) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        ledger.append(entry(run))
    with open_ledger(mlflow_file(tmp_path, "a")) as ledger:
        assert len(ledger.entries()) == own


def test_the_ledger_of_another_registry_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    Ledger.open(url, "one").close()
    Ledger.open(url, "one").close()
    with pytest.raises(StorageError, match="records the decisions of another MLflow registry"):
        Ledger.open(url, "other")


def test_a_file_that_is_not_a_ledger_is_refused_and_not_changed(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE studies (id)")
    before = file.read_bytes()
    with pytest.raises(StorageError, match="is not a ledger: it contains the tables studies"):
        Ledger.open(f"sqlite:///{file}")
    assert file.read_bytes() == before
    file.write_text("no database\n" * 100)
    with pytest.raises(StorageError, match="cannot be opened: file is not a database"):
        Ledger.open(f"sqlite:///{file}")
