"""Locations in MLflow's local database that follow the folder of the database.

MLflow stores the absolute location of each experiment, run and model. After the folder was copied or moved, they would
still point into the original folder, and a copy would write its models there. Therefore, the database records its own
file; if it is opened in another folder, all locations below the recorded folder are rewritten.
"""

from __future__ import annotations

import re
import sqlite3
import uuid
from dataclasses import dataclass
from pathlib import Path

from mlflow.utils.file_utils import local_file_uri_to_path

from transfer_registry.sqlite_files import table_names

_TABLE = "platform_database"
"""Table with one row: the identity of the registry, the file when it was last opened, the identity it was copied from.

MLflow ignores additional tables.
"""

_LOCATIONS = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
    "trace_tags": ("value",),
    "workspaces": ("default_artifact_root", "trace_archival_location"),
}
"""Columns with locations of artifacts, by table."""

_SPECIAL = re.compile("[%?#]")
"""Characters that MLflow misreads in a plain path; a location with one of them must be a file URI."""


@dataclass(frozen=True)
class Identity:
    """The record of a database.

    Attributes:
        registry: Hexadecimal UUID; a copy in the same folder gets a new one, a copied folder does not.
        file: Absolute path of the database.
        parent: `registry` of the database from which this one was copied; empty if there is none.
        moved_from: Folder below which the stored locations are; None if they are already below the present folder.
    """

    registry: str
    file: Path
    parent: str = ""
    moved_from: Path | None = None


def read_identity(connection: sqlite3.Connection) -> Identity | None:
    """Returns the record of a database, or None if the platform has not opened the database yet."""
    if _TABLE not in table_names(connection):
        return None
    row = connection.execute(f"SELECT registry, file, parent FROM {_TABLE}").fetchone()  # noqa: S608 - a constant
    return Identity(row[0], Path(row[1]), row[2]) if row else None


def new_identity(connection: sqlite3.Connection, file: Path) -> Identity | None:
    """Returns the record that a database should have at `file`, or None if its record is correct.

    Another path to the recorded folder, such as a symlink or a bind mount, needs no new record, because the stored
    locations are valid.
    """
    file, recorded = file.resolve(), read_identity(connection)
    if recorded is None:
        return Identity(uuid.uuid4().hex, file, moved_from=_unrecorded_folder(connection, file.parent))
    if not _is_same_folder(recorded.file.parent, file.parent):
        return Identity(recorded.registry, file, recorded.parent, recorded.file.parent)
    if recorded.file.name == file.name:
        return None
    if file.with_name(recorded.file.name).exists():
        return Identity(uuid.uuid4().hex, file, parent=recorded.registry)
    return Identity(recorded.registry, file, recorded.parent)


def write_identity(connection: sqlite3.Connection, identity: Identity) -> int:
    """Writes the record and rewrites the locations below `moved_from`; returns the number of rewritten locations."""
    count = _rewrite(connection, identity.moved_from, identity.file.parent) if identity.moved_from else 0
    connection.execute(f"CREATE TABLE IF NOT EXISTS {_TABLE} (registry TEXT, file TEXT, parent TEXT)")
    connection.execute(f"DELETE FROM {_TABLE}")  # noqa: S608 - a constant
    values = (identity.registry, str(identity.file), identity.parent)
    connection.execute(f"INSERT INTO {_TABLE} VALUES (?, ?, ?)", values)  # noqa: S608 - a constant
    return count


def _rewrite(connection: sqlite3.Connection, old: Path, new: Path) -> int:
    connection.create_function("relocated", 1, lambda location: relocated(location, old, new), deterministic=True)
    count = 0
    for table in sorted(_LOCATIONS.keys() & table_names(connection)):
        columns = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        for column in columns.intersection(_LOCATIONS[table]):
            update = f"UPDATE {table} SET {column} = relocated({column}) WHERE {column} <> relocated({column})"  # noqa: S608 - constants
            count += connection.execute(update).rowcount
    return count


def relocated(location: str | None, old: Path, new: Path) -> str | None:
    """Returns a path or file URI below `old` as the same below `new`; returns any other location unchanged."""
    path = _local_path(location)
    if path is None or not path.is_relative_to(old):
        return location
    target = new / path.relative_to(old)
    is_uri = str(location).startswith("file:") or _SPECIAL.search(str(target))
    return target.as_uri() if is_uri else str(target)


def _local_path(location: str | None) -> Path | None:
    if location and location.startswith("file:"):
        return Path(local_file_uri_to_path(location))  # type: ignore[no-untyped-call]
    return Path(location) if location and location.startswith("/") else None


def _unrecorded_folder(connection: sqlite3.Connection, folder: Path) -> Path | None:
    """Returns the folder that a database without a record was moved from, or None if it was not moved.

    MLflow creates experiment 0 with the database, at `mlruns/0`. The database was moved together with its artifacts
    if the present folder has a folder `mlruns`, although no experiment is stored there.
    """
    rows = connection.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall()
    paths = {str(number): path for number, location in rows if (path := _local_path(location))}
    first = paths.get("0")
    if first is None or first.parts[-2:] != ("mlruns", "0") or not (folder / "mlruns").is_dir():
        return None
    if any(path.is_relative_to(folder) for path in paths.values()):
        return None
    former = first.parent.parent
    return None if _is_same_folder(former, folder) else former


def _is_same_folder(one: Path, other: Path) -> bool:
    try:
        return one == other or one.samefile(other)
    except OSError:  # missing, or in a folder that this user may not enter
        return False
