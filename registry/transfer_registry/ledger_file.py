"""The ledger file of a registry that is stored in a local SQLite database."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from transfer_registry.files import atomic_write
from transfer_registry.mlflow_database import registry_identity
from transfer_registry.sqlite_files import back_up, connect, table_names


def ledger_file(database: Path) -> Path:
    """Returns a database's ledger: `ledger.db`, or `ledger-<identity>.db` if `ledger.db` belongs to another registry.

    If the database is a copy made in the same folder, this function first copies the ledger of the original.

    Raises:
        StorageError: One of the files is not a SQLite database.
    """
    first = database.with_name("ledger.db")
    identity = registry_identity(database)
    if identity is None:
        return first
    own = _numbered(database, identity.registry)
    if own.exists():
        return own
    if not first.exists() or _owner(first) == identity.registry:
        return first
    if not identity.parent:
        return first if _owner(first) is None and _has_entries_of(first, database) else own
    source = first if _owner(first) == identity.parent else _numbered(database, identity.parent)
    if source.exists():
        _copy(source, own, identity.registry)
    return own


def _numbered(database: Path, registry: str) -> Path:
    return database.with_name(f"ledger-{registry[:8]}.db")


def _owner(ledger: Path) -> str | None:
    """Returns the registry to which a ledger belongs; None if none is recorded."""
    with connect(ledger) as connection:
        if "registry" not in table_names(connection):
            return None
        row = connection.execute("SELECT identity FROM registry").fetchone()
    return str(row[0]) if row else None


def _has_entries_of(ledger: Path, database: Path) -> bool:
    """Returns whether a ledger without an owner is empty or has entries for runs in the MLflow database."""
    with connect(ledger) as connection:
        if "entries" not in table_names(connection):
            return True
        runs = {run for (run,) in connection.execute("SELECT run_id FROM entries WHERE run_id IS NOT NULL")}
    with connect(database) as connection:
        return not runs or any(run in runs for (run,) in connection.execute("SELECT run_uuid FROM runs"))


def _copy(source: Path, target: Path, registry: str) -> None:
    with atomic_write(target) as temporary:
        back_up(source, temporary)
        with closing(sqlite3.connect(temporary)) as connection, connection:
            connection.execute("UPDATE registry SET identity = ?", [registry])
