"""Rewrites locations in MLflow's database after its folder is moved or copied.

MLflow stores the absolute location of each experiment, run and model. When the folder is moved or copied, these
locations still point to the original folder, and a copy would write its models there. To detect this, the database
records its own path. If it is opened in another folder, all locations below the recorded folder are rewritten.
"""

from __future__ import annotations

import re
import sqlite3
import uuid
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mlflow.utils.file_utils import local_file_uri_to_path

from transfer_registry.sqlite_files import table_names

_TABLE = "platform_database"
"""Table with one row: the registry's UUID, the last path of the database and, for a copy, the UUID of the original.

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
"""Columns that contain artifact locations, by table."""

_SPECIAL = re.compile("[%?#]")
"""Characters that MLflow misreads in a plain path; a path that contains such a character is stored as a file URI."""


@dataclass(frozen=True)
class Identity:
    """Record that a database stores about itself.

    Attributes:
        registry: Hexadecimal UUID. A copied database gets a new UUID if the original still exists.
        file: Absolute path of the database.
        parent: UUID of the original if this database is a copy with a new UUID; otherwise empty.
        moved_from: Folder to which the stored locations still refer; None if they are up to date.
        is_copy: True if the original database still exists in `moved_from`.
    """

    registry: str
    file: Path
    parent: str = ""
    moved_from: Path | None = None
    is_copy: bool = False


def read_identity(connection: sqlite3.Connection) -> Identity | None:
    """Returns the record of a database, or None if the platform has not opened the database yet."""
    if _TABLE not in table_names(connection):
        return None
    row = connection.execute(f"SELECT registry, file, parent FROM {_TABLE}").fetchone()  # noqa: S608 - a constant
    return Identity(row[0], Path(row[1]), row[2]) if row else None


def new_identity(connection: sqlite3.Connection, file: Path) -> Identity | None:
    """Returns the record to write into the database at `file`, or None if the existing record is correct.

    The stored locations are still valid if `file` is in the recorded folder but has another path, for example
    because of a symlink or a bind mount.
    """
    file, recorded = file.resolve(), read_identity(connection)
    if recorded is None:
        former = _unrecorded_folder(connection, file.parent)
        return Identity(uuid.uuid4().hex, file, "", former, former is not None and exists(former / file.name))
    if not _is_same_folder(recorded.file.parent, file.parent):
        former = recorded.file.parent
        if _is_original(recorded):
            return Identity(uuid.uuid4().hex, file, recorded.registry, former, is_copy=True)
        return Identity(recorded.registry, file, recorded.parent, former)
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
    """Replaces the folder `old` with `new` in a path or file URI; returns locations outside `old` unchanged."""
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
    """Returns the folder from which a database without a record was moved, or None if it was not moved.

    A new MLflow database contains experiment 0, which is stored in `mlruns/0`. The database was moved with its
    artifacts if no experiment's location is in its current folder, this folder contains `mlruns`, and either
    `mlruns` contains files of an experiment, or the former folder does not contain `mlruns`.
    """
    rows = connection.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall()
    paths = {str(number): path for number, location in rows if (path := _local_path(location))}
    first = paths.get("0")
    if first is None or first.parts[-2:] != ("mlruns", "0") or not (folder / "mlruns").is_dir():
        return None
    if any(path.is_relative_to(folder) for path in paths.values()):
        return None
    former = first.parent.parent
    places = [folder / path.relative_to(former) for path in paths.values() if path.is_relative_to(former)]
    has_moved = any(map(exists, places)) or not exists(former / "mlruns")
    return former if has_moved and not _is_same_folder(former, folder) else None


def _is_original(recorded: Identity) -> bool:
    """Returns False if the database at the recorded path is missing or no longer belongs to the recorded registry."""
    if not exists(recorded.file):
        return False
    try:
        with closing(sqlite3.connect(f"{recorded.file.as_uri()}?mode=ro", uri=True)) as connection:
            found = read_identity(connection)
    except sqlite3.OperationalError:  # locked, or not readable for this user
        return True
    except sqlite3.DatabaseError:  # a file of another program
        return False
    return found is not None and found.registry == recorded.registry


def exists(file: Path) -> bool:
    """Returns True if a file or folder exists and this user can enter its parent folder."""
    try:
        return file.exists()
    except OSError:
        return False


def _is_same_folder(one: Path, other: Path) -> bool:
    try:
        return one == other or one.samefile(other)
    except OSError:  # missing, or in a folder that this user cannot enter
        return False
