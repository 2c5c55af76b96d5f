"""A memory of looks: what was decoded once, under whatever name, is not decoded again."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transfer_platform.data import image_stats

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_MANY = 500
"""Parameters that every SQLite takes in one statement."""


class ImageStatsCache:
    """Looks by the SHA-256 of what was looked at.

    It only saves time: one that is lost, damaged, or cannot be written to is done without. Any number of
    processes may use it at once.

    Args:
        file: A database; made where it does not exist.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known."""
        return next(self._rows("SELECT 1 FROM looks LIMIT 1"), None) is None

    def get(self, digests: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Those of these digests that are known, each with its look."""
        for start in range(0, len(digests), _MANY):
            some = digests[start : start + _MANY]
            places = ",".join("?" * len(some))
            found = self._rows(f"SELECT sha256, look FROM looks WHERE sha256 IN ({places})", some)  # noqa: S608
            yield from ((digest, look) for digest, look in found if len(look) == image_stats.STATS_BYTES)

    def put(self, found: Mapping[str, bytes]) -> None:
        """Keeps looks by digest."""
        if not found:
            return
        with suppress(sqlite3.Error, OSError):  # locked, full, or not to be written to
            try:
                self._write(found)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:  # damaged: begun anew
                self._file.unlink()
                self._write(found)

    def _write(self, found: Mapping[str, bytes]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._file)) as database, database:
            database.execute("PRAGMA synchronous = OFF")  # what a power cut spoils is looked at again
            database.execute("CREATE TABLE IF NOT EXISTS looks (sha256 TEXT PRIMARY KEY, look BLOB)")
            database.executemany("INSERT OR REPLACE INTO looks VALUES (?, ?)", sorted(found.items()))

    def _rows(self, statement: str, parameters: Sequence[str] = ()) -> Iterator[Any]:
        if not self._file.is_file():
            return
        with suppress(sqlite3.Error, OSError), closing(sqlite3.connect(self._file)) as database:
            yield from database.execute(statement, parameters)


def image_stats_cache() -> ImageStatsCache:
    """That of this code and this Pillow, in the cache."""
    import transfer_model.preprocessing
    from transfer_platform.paths import cache_folder

    digest = hashlib.sha256(version("pillow").encode())
    for module in (image_stats, transfer_model.preprocessing):
        digest.update(Path(str(module.__file__)).read_bytes())
    return ImageStatsCache(cache_folder() / "looks" / f"{digest.hexdigest()[:16]}.db")
