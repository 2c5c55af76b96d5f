"""The ledger's tables as they grew: one Alembic revision a change, in `versions/`.

A new one stands beside the others, names its predecessor in `down_revision`, and becomes `HEAD` here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.schema import CreateSchema

from transfer_registry.errors import StorageError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Connection, Engine

HEAD = "0002"
"""The newest revision, so that opening a ledger that is up to date need not load Alembic to know it."""

VERSION_TABLE = "ledger_version"
"""Not Alembic's default, which MLflow and Optuna both take."""

_ADVISORY_LOCK = int.from_bytes(b"ledger")


def bring_up_to_date(engine: Engine) -> None:
    """Creates or migrates the ledger's tables where they are not those of `HEAD`.

    All of it is one transaction: killed anywhere, it leaves the tables as they were. Other processes wait, on
    PostgreSQL for an advisory lock, on SQLite for the write lock that `BEGIN IMMEDIATE` takes.

    Raises:
        StorageError: A newer version of the platform has migrated the ledger.
    """
    with engine.begin() as connection:
        if _revision(connection) == HEAD:
            return
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
            _create_schema(connection)
        _upgrade(connection)


def _revision(connection: Connection) -> str | None:
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.scalar(sa.select(sa.column("version_num")).select_from(sa.table(VERSION_TABLE)))


def _create_schema(connection: Connection) -> None:
    if schema := _schema(connection.engine.url):
        connection.execute(CreateSchema(schema, if_not_exists=True))


def _schema(url: URL) -> str | None:
    """The first schema of the URL's search path, which is where new tables go."""
    options = " ".join(str(value) for value in url.normalized_query.get("options", ()))
    path = re.search(r"search_path=\s*([^\s,]+)", options)
    return path.group(1).strip('"') if path else None


def _upgrade(connection: Connection) -> None:
    from alembic import command  # only when there is something to migrate: it takes a quarter of a second
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StorageError(
            f"the ledger's tables are at revision {_revision(connection)}, but this version of the platform "
            f"knows them up to {HEAD}: a newer one has migrated them; install that one"
        ) from error
