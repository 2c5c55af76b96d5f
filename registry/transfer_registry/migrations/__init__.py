"""Tables of the ledger, defined by the Alembic revisions in `versions/`.

To add a revision, set its `down_revision` to the previous revision and update `HEAD` below.
"""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.schema import CreateSchema

from transfer_registry.errors import StorageError
from transfer_registry.locks import LockKind, advisory_lock
from transfer_registry.sqlite_files import is_writable

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Connection, Engine

HEAD = "0002"
"""Latest revision; Alembic is imported only if the ledger is at a different revision."""

VERSION_TABLE = "ledger_version"
"""Alembic's version table, renamed because both MLflow and Optuna use the default name."""


def upgrade_tables(engine: Engine) -> None:
    """Creates the ledger's tables or upgrades them to `HEAD`, in one transaction.

    An advisory lock (PostgreSQL) or `BEGIN IMMEDIATE` (SQLite) blocks other processes.

    Raises:
        StorageError: The tables were created by a newer version of the platform, or by another program.
    """
    with engine.begin() as connection:
        revision = _revision(connection)
    # revisions only add tables, so an older ledger in a read-only folder can be read
    if revision == HEAD or (revision is not None and revision < HEAD and is_read_only(engine)):
        return
    shared = engine.dialect.name == "postgresql"
    lock = advisory_lock(engine, LockKind.MIGRATION, "ledger") if shared else nullcontext()
    with lock, engine.begin() as connection:
        if shared and (schema := _schema_name(engine.url)):
            connection.execute(CreateSchema(schema, if_not_exists=True))
        _upgrade(connection)


def is_read_only(engine: Engine) -> bool:
    """Returns True if the database is a read-only SQLite file."""
    return engine.dialect.name == "sqlite" and not is_writable(Path(str(engine.url.database)))


def _revision(connection: Connection) -> str | None:
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.scalar(sa.select(sa.column("version_num")).select_from(sa.table(VERSION_TABLE)))


def _schema_name(url: URL) -> str | None:
    """Returns the schema for new tables: the first one in the URL's `search_path`; None if the URL sets none."""
    options = " ".join(str(value) for value in url.normalized_query.get("options", ()))
    path = re.search(r"search_path=\s*([^\s,]+)", options)
    return path.group(1).strip('"') if path else None


def _upgrade(connection: Connection) -> None:
    from alembic import command  # imported lazily because it takes 0.25 s
    from alembic.config import Config
    from alembic.util import CommandError

    _require_ledger(connection)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StorageError(
            f"the ledger's tables are at revision {_revision(connection)}, but this version of the platform "
            f"supports revisions up to {HEAD}; install the platform version that created the tables"
        ) from error


def _require_ledger(connection: Connection) -> None:
    """Raises a `StorageError` if the database belongs to another program, such as MLflow or Optuna."""
    tables = sa.inspect(connection).get_table_names()
    if tables and VERSION_TABLE not in tables:
        raise StorageError(
            f"{connection.engine.url} is not a ledger: it contains the tables {', '.join(sorted(tables)[:5])}; "
            "move it elsewhere so that the next command creates a new ledger"
        )
