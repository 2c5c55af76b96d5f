"""Opens and backs up SQLite files, which may come from other programs."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from transfer_registry.errors import StorageError
from transfer_registry.files import atomic_write


@contextmanager
def connect(file: Path) -> Iterator[sqlite3.Connection]:
    """Opens an existing SQLite file; changes are committed when the `with` block ends, unless it raises an exception.

    Raises:
        StorageError: The file does not exist, cannot be opened or written, or is not a SQLite database.
    """
    try:
        # a URI, because a plain path would create a missing file
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True)) as connection, connection:
            yield connection
    except sqlite3.DatabaseError as error:
        raise StorageError(
            f"{file} cannot be used as a database: {error}; restore the file from a backup, or move it away to "
            "start with an empty database"
        ) from error


def table_names(connection: sqlite3.Connection) -> set[str]:
    """Returns the names of all tables."""
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def back_up(file: Path, target: Path) -> None:
    """Copies a SQLite file, including changes that are still in its journal; replaces `target` if it exists."""
    with connect(file) as source, atomic_write(target) as temporary, closing(sqlite3.connect(temporary)) as copy:
        source.backup(copy)


def is_writable(file: Path) -> bool:
    """Returns True if a file and its folder are writable; SQLite creates its journal in the folder."""
    return os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)
