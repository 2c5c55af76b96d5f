"""The ledger file of a registry that is stored in a local SQLite database."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from transfer_registry.errors import StorageError
from transfer_registry.files import atomic_write
from transfer_registry.locks import file_lock
from transfer_registry.mlflow_database import registry_identity
from transfer_registry.relocation import Identity
from transfer_registry.sqlite_files import back_up, connect, table_names


def ledger_file(database: Path) -> Path:
    """Returns a database's ledger: `ledger.db`, or `ledger-<identity>.db` if `ledger.db` belongs to another registry.

    If the database is a copy, or is in a copied folder, this function first copies the ledger of the original. The
    copy needs its own ledger because the original database may be in the same folder.

    Raises:
        StorageError: One of the files is not a SQLite database, or the folder is not writable.
    """
    first = database.with_name("ledger.db")
    identity = registry_identity(database)
    if identity is None:
        return first
    own = _numbered(database, identity.registry)
    if own.exists():
        return own
    if first.exists() and _owner(first) == identity.registry:
        return first
    source = _find_source(first, database, identity)
    if source is None:
        return own if first.exists() else first
    if not identity.parent:
        return source
    _copy(source, own, identity.registry)
    return own


def _find_source(first: Path, database: Path, identity: Identity) -> Path | None:
    """Returns the ledger to continue or, if the database is a copy, the original's ledger; None if neither exists."""
    if identity.parent and (parent := _numbered(database, identity.parent)).exists():
        return parent
    if not first.exists():
        return None
    owner = _owner(first)
    continues = _has_entries_of(first, database) if owner is None else owner == identity.parent
    return first if continues else None


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
    """Returns True if a ledger without an owner is empty or has entries for runs in the MLflow database."""
    with connect(ledger) as connection:
        if "entries" not in table_names(connection):
            return True
        runs = {run for (run,) in connection.execute("SELECT run_id FROM entries WHERE run_id IS NOT NULL")}
    with connect(database) as connection:
        return not runs or any(run in runs for (run,) in connection.execute("SELECT run_uuid FROM runs"))


def _copy(source: Path, target: Path, registry: str) -> None:
    if not os.access(target.parent, os.W_OK):
        raise StorageError(
            f"the ledger {source} must be copied to {target}, because this project folder is a copy; give this user "
            "write permission for this folder, then run the command again"
        )
    with file_lock(target.with_name(f"{target.name}.lock")):
        if target.exists():  # another process has copied it, and may have added entries
            return
        with atomic_write(target) as temporary:
            with connect(source) as original:
                back_up(original, temporary)
            with closing(sqlite3.connect(temporary)) as connection, connection:
                if "registry" in table_names(connection):  # otherwise, an older version wrote the ledger
                    connection.execute("UPDATE registry SET identity = ?", [registry])
