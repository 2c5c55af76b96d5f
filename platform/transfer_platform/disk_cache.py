"""Key-value cache on disk, stored in an SQLite database."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress

from transfer_platform.paths import cache_folder

FILE_NAME = "metadata/cache.db"
"""Path of the database, relative to the cache folder."""

_BATCH = 500
"""Maximum number of keys per SQL statement; every SQLite build supports this many parameters."""


class DiskCache:
    """Persistent mapping from keys to byte strings, shared by all processes of this user.

    If the file is missing, corrupt or locked, the cache appears empty. If it cannot be written, `put` does nothing.
    Keys may be file names that are not valid UTF-8.

    Args:
        namespace: Kind of value, plus anything besides the key that the value depends on, such as a library version.
    """

    def __init__(self, namespace: str) -> None:
        self._namespace = _encode(namespace)
        self._file = cache_folder() / FILE_NAME

    def is_empty(self) -> bool:
        """Returns whether the namespace has no entries."""
        return next(self._rows("SELECT key, value FROM entries WHERE namespace = ? LIMIT 1"), None) is None

    def get(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Returns a dictionary of cached values; keys that are not in the cache are left out."""
        found: dict[str, bytes] = {}
        for start in range(0, len(keys), _BATCH):
            batch = [_encode(key) for key in keys[start : start + _BATCH]]
            marks = ",".join("?" * len(batch))
            query = f"SELECT key, value FROM entries WHERE namespace = ? AND key IN ({marks})"  # noqa: S608 - inserts "?" only
            found.update(self._rows(query, batch))
        return found

    def get_all(self) -> dict[str, bytes]:
        """Returns all entries in the namespace."""
        return dict(self._rows("SELECT key, value FROM entries WHERE namespace = ?"))

    def put(self, values: Mapping[str, bytes]) -> None:
        """Adds values, overwriting existing values with the same keys."""
        if not values:
            return
        with suppress(sqlite3.Error, OSError):  # the file is locked or read-only, or the disk is full
            try:
                self._write(values)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:  # the file is corrupt: start over
                self._file.unlink()
                self._write(values)

    def _write(self, values: Mapping[str, bytes]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        rows = sorted((self._namespace, _encode(key), value) for key, value in values.items())
        with closing(sqlite3.connect(self._file)) as database, database:
            database.execute("PRAGMA synchronous = OFF")  # values lost in a power failure are recomputed
            database.execute(
                "CREATE TABLE IF NOT EXISTS entries "
                "(namespace BLOB, key BLOB, value BLOB, PRIMARY KEY (namespace, key)) WITHOUT ROWID"
            )
            database.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", rows)

    def _rows(self, query: str, parameters: Sequence[bytes] = ()) -> Iterator[tuple[str, bytes]]:
        if not self._file.is_file():
            return
        with suppress(sqlite3.Error, OSError), closing(sqlite3.connect(self._file)) as database:
            for key, value in database.execute(query, (self._namespace, *parameters)):
                yield key.decode("utf-8", "surrogatepass"), value


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
