"""Checks, upgrades and relocates the local SQLite database of MLflow.

MLflow itself would create its tables in any SQLite file, and would upgrade some old databases without a backup.
"""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from alembic.util import CommandError
from mlflow.exceptions import MlflowException

from transfer_model.errors import cause
from transfer_registry.database_use import require_no_run, require_no_study
from transfer_registry.errors import StorageError
from transfer_registry.files import sqlite_url
from transfer_registry.locks import file_lock
from transfer_registry.relocation import Identity, exists, new_identity, read_identity, write_identity
from transfer_registry.sqlite_files import back_up, connect, connect_exclusively, table_names, unused_name

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

_COLUMNS = {
    "experiments": {"experiment_id", "artifact_location"},
    "runs": {"run_uuid", "artifact_uri", "status", "lifecycle_stage"},
}
"""Tables and columns that every version of MLflow creates."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Changes:
    """Changes that a database needs before it is opened.

    Attributes:
        revision: Current revision of the tables if they must be upgraded; an empty string if the database does not
            contain a revision, None if the tables are up to date.
        identity: Identity to write into the database; None if the correct identity is already stored.
    """

    revision: str | None
    identity: Identity | None

    @property
    def required(self) -> bool:
        """True if MLflow needs the changes to read the database or its artifacts."""
        return self.revision is not None or bool(self.identity and self.identity.moved_from)


def find_changes(database: Path, place: Path) -> Changes | None:
    """Returns the changes that a database at the path `place` needs; None if the file is missing, empty or up to date.

    Raises:
        StorageError: The file is not an MLflow database, or was written by a newer version of MLflow.
    """
    if not database.exists():
        return None
    with connect(database) as connection:
        tables = table_names(connection)
        if not tables:
            return None
        _require_mlflow(database, connection)
        query = "SELECT version_num FROM alembic_version"
        row = connection.execute(query).fetchone() if "alembic_version" in tables else None
        revision = str(row[0]) if row else ""
        identity = new_identity(connection, place)
    outdated = _is_outdated(database, revision)
    return Changes(revision if outdated else None, identity) if outdated or identity else None


def prepare_database(database: Path, place: Path | None = None) -> None:
    """Upgrades an older database and updates the paths in a moved one, after making a backup in the same folder.

    Logs a warning if it upgrades or relocates the database. `place` is the path of the original if `database` is a
    temporary copy of it, which needs neither backups nor warnings.

    Raises:
        StorageError: See `find_changes`; also raised if the upgrade fails, which leaves the database unchanged.
        DatabaseInUseError: Another process may be using the database, so it was not upgraded or relocated.
    """
    if find_changes(database, place or database) is None:
        return
    with file_lock(database.with_name(f"{database.name}.lock")):
        changes = find_changes(database, place or database)  # another process may have made them
        if changes is None:
            return
        if changes.required and not place:
            require_no_study(database)
        if changes.revision is not None:
            _upgrade(database, changes, is_temporary=place is not None)
        if changes.identity:
            _write_identity(database, changes.identity, is_temporary=place is not None)


def registry_identity(database: Path) -> Identity | None:
    """Returns the identity stored in a database; None if there is no database or the platform has never opened it."""
    if not database.exists():
        return None
    with connect(database) as connection:
        return read_identity(connection)


def _require_mlflow(database: Path, connection: sqlite3.Connection) -> None:
    tables = table_names(connection)
    if not tables >= _COLUMNS.keys():
        problem = f"it contains the tables {', '.join(sorted(tables)[:5])}"
    elif missing := [f"{table}.{column}" for table in _COLUMNS for column in _missing_columns(connection, table)]:
        problem = f"it does not contain the columns {', '.join(missing)}"
    else:
        return
    raise StorageError(
        f"{database} is not an MLflow database: {problem}; move it elsewhere, or set MLFLOW_TRACKING_URI to another "
        "file, such as sqlite:///runs.db"
    )


def _missing_columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return sorted(_COLUMNS[table] - {row[1] for row in connection.execute(f"PRAGMA table_info({table})")})


def _is_outdated(database: Path, revision: str) -> bool:
    scripts = _scripts()
    if revision == scripts.get_current_head():
        return False
    try:
        if revision:
            scripts.get_revision(revision)
    except CommandError as error:
        raise StorageError(
            f"{database} has tables of revision {revision}, which the installed MLflow does not recognize: a newer "
            "MLflow or another program wrote the file; run `pip install --upgrade mlflow`, or set MLFLOW_TRACKING_URI "
            "to another file, such as sqlite:///runs.db"
        ) from error
    return True


@cache
def _scripts() -> ScriptDirectory:
    """Returns the schema revisions of the installed MLflow."""
    import mlflow
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))


def _upgrade(database: Path, changes: Changes, *, is_temporary: bool) -> None:
    """Upgrades a copy and writes it back into the locked file, so that a failure changes nothing.

    Replacing the file instead would lose the changes of processes that already have it open.
    """
    upgraded = database.with_name(f"{database.name}.upgraded")
    backup = unused_name(database.with_name(f"{database.name}.before-upgrade"))
    with connect_exclusively(database) as connection:
        if not (is_temporary or (changes.identity and changes.identity.is_copy)):
            require_no_run(connection, database)
        try:
            back_up(connection, upgraded)
            _upgrade_tables(upgraded)
            if not is_temporary:
                back_up(connection, backup)
            with connect(upgraded) as source:
                source.backup(connection)
        except (sa.exc.SQLAlchemyError, CommandError, MlflowException, OSError) as error:
            raise StorageError(
                f"{database} was written by an older version of MLflow (revision {changes.revision or 'unknown'}) and "
                f"cannot be upgraded: {cause(error)}; move it elsewhere, or set MLFLOW_TRACKING_URI to another file, "
                "such as sqlite:///runs.db"
            ) from error
        finally:
            upgraded.unlink(missing_ok=True)
    if not is_temporary:
        _logger.warning("%s was upgraded from an older version of MLflow; the backup is %s", database, backup)


def _upgrade_tables(database: Path) -> None:
    from mlflow.store.db import utils  # `mlflow db upgrade` calls the same function

    engine = sa.create_engine(sqlite_url(database), poolclass=sa.NullPool)
    utils._upgrade_db(engine)  # type: ignore[no-untyped-call]


def _write_identity(database: Path, identity: Identity, *, is_temporary: bool) -> None:
    if is_temporary or not identity.moved_from:
        with connect(database) as connection:
            write_identity(connection, identity)
        return
    backup = unused_name(database.with_name(f"{database.name}.before-move"))
    with connect_exclusively(database) as connection:
        if not identity.is_copy:
            require_no_run(connection, database)
        back_up(connection, backup)
        count = write_identity(connection, identity)
    _logger.warning(
        "This project folder was copied or moved from %s: %d locations in %s now point to %s; the backup is %s%s",
        identity.moved_from, count, database.name, identity.file.parent, backup,
        _missing_artifacts(identity) if count else "",
    )  # fmt: skip


def _missing_artifacts(identity: Identity) -> str:
    artifacts = identity.file.with_name("mlruns")
    if artifacts.is_dir():
        return ""
    former = identity.moved_from / "mlruns" if identity.moved_from else None
    remedy = f"copy {former} there" if former and exists(former) else "restore it from a backup"
    return f". {artifacts} does not exist: {remedy} so that models can be loaded"
