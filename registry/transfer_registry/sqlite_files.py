"""Opens and backs up SQLite files, which may come from other programs."""

import itertools
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from transfer_registry.errors import DatabaseInUseError, StorageError
from transfer_registry.files import atomic_write

BUSY_SECONDS = 5.0
"""Seconds to wait for a database that another process has locked."""


@contextmanager
def connect(file: Path) -> Iterator[sqlite3.Connection]:
    """Opens an existing SQLite file; changes are committed when the `with` block ends, unless it raises an exception.

    Raises:
        StorageError: The file does not exist, cannot be opened or written to, or is not a SQLite database.
        DatabaseInUseError: Another process has locked the file for longer than `BUSY_SECONDS`.
    """
    uri = f"{file.absolute().as_uri()}?mode=rw"  # a plain path would create a missing file
    try:
        with closing(sqlite3.connect(uri, BUSY_SECONDS, uri=True)) as connection, connection:
            yield connection
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
            raise DatabaseInUseError(
                f"{file} is locked by another process; wait for the process to finish, or stop it, "
                "then run the command again"
            ) from error
        remedy = "restore the file from a backup, or move it elsewhere to start with an empty database"
        if isinstance(error, sqlite3.OperationalError):  # for example a full disk; the file itself may be intact
            remedy = "check the free disk space, and the permissions of the file and its folder"
        raise StorageError(f"{file} cannot be used as a database: {error}; {remedy}") from error


@contextmanager
def connect_exclusively(file: Path) -> Iterator[sqlite3.Connection]:
    """Opens a SQLite file like `connect`; no other process can read or write the file until the `with` block ends."""
    with connect(file) as connection:
        # the lock outlasts transactions, so that `Connection.backup` can copy from and to this connection
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        connection.commit()
        yield connection


def table_names(connection: sqlite3.Connection) -> set[str]:
    """Returns the names of all tables."""
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def back_up(source: sqlite3.Connection, target: Path) -> None:
    """Copies a SQLite database, including changes that are still in its journal; replaces `target` if it exists."""
    with atomic_write(target) as temporary, closing(sqlite3.connect(temporary)) as copy:
        source.backup(copy)


def unused_name(file: Path) -> Path:
    """Returns `file` if it does not exist; otherwise, appends the lowest unused number (for example, `file-2`)."""
    names = (file if number == 1 else file.with_name(f"{file.name}-{number}") for number in itertools.count(1))
    return next(name for name in names if not name.exists())


def is_writable(file: Path) -> bool:
    """Returns True if a file and its folder, in which SQLite creates its journal, are writable."""
    return os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)
