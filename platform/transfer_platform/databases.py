"""Database URLs for the studies and the ledger."""

import os
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateSchema

from transfer_platform.paths import DATABASE_VARIABLE, studies_folder
from transfer_registry.errors import StorageError
from transfer_registry.files import sqlite_file, sqlite_url
from transfer_registry.ledger import Ledger
from transfer_registry.ledger_file import ledger_file
from transfer_registry.mlflow_server import database_file, registry_id, tracking_uri
from transfer_registry.sqlite_files import is_writable


def studies_url() -> str:
    """Returns the database URL of the Optuna studies.

    Raises:
        StorageError: The configured URL is invalid, or points to the schema used by MLflow.
    """
    return _database_url("studies", studies_folder() / "studies.db")


def ledger_url() -> str:
    """Returns the database URL of the ledger, which by default is a file next to MLflow's database.

    Raises:
        StorageError: The configured URL is invalid or points to the schema used by MLflow, or the ledger would be a
            local file even though the models are registered on a shared server.
    """
    tracking, file = tracking_uri(), database_file()
    if not os.environ.get(DATABASE_VARIABLE) and file is None and "://" in tracking.removeprefix("file://"):
        raise StorageError(
            f"models are registered at {_without_password(tracking)}, but the promotion ledger would be a local file "
            f"that other users cannot read; set {DATABASE_VARIABLE} to a shared PostgreSQL database, for example "
            "postgresql://user:password@host/platform"
        )
    return _database_url("ledger", ledger_file(file) if file else Path.cwd() / "ledger.db")


def open_ledger() -> Ledger:
    """Opens the ledger of the current registry.

    Raises:
        StorageError: See `ledger_url` and `Ledger.open`.
    """
    return Ledger.open(ledger_url(), registry_id())


def require_ledger(alternative: str = "") -> None:
    """Checks, without creating a local file, that the current registry's ledger can be opened and written to.

    Args:
        alternative: Appended to the remedy in the message about a ledger that cannot be written.

    Raises:
        StorageError: See `open_ledger`; also raised if a local ledger cannot be written.
    """
    file = sqlite_file(ledger_url())
    if file and not (is_writable(file) if file.exists() else os.access(file.parent, os.W_OK)):
        raise StorageError(
            f"the ledger {file} cannot be written, so the champion cannot be changed; allow this user to write the "
            f"file and the folder {file.parent}{alternative}"
        )
    if file is None or file.exists():
        open_ledger().close()


def create_schema(url: str) -> None:
    """Creates the PostgreSQL schema specified in a database URL if it does not exist; does nothing for SQLite."""
    if not url.startswith("postgresql"):
        return
    schema = str(make_url(url).query["options"]).rpartition("=")[2]
    engine = create_engine(url, poolclass=NullPool)
    try:
        with engine.begin() as connection:
            connection.execute(CreateSchema(schema, if_not_exists=True))
    except OperationalError as error:
        raise StorageError(f"the database set in {DATABASE_VARIABLE} cannot be reached: {error.orig}") from error


def _database_url(schema: str, local_file: Path) -> str:
    configured = os.environ.get(DATABASE_VARIABLE)
    if not configured:
        local_file.parent.mkdir(parents=True, exist_ok=True)
        return sqlite_url(local_file)
    try:
        url = make_url(configured)
    except (ArgumentError, ValueError) as error:
        raise StorageError(
            f"{DATABASE_VARIABLE} is not a database URL; expected postgresql://user:password@host/name"
        ) from error
    if url.get_backend_name() != "postgresql":
        raise StorageError(
            f"{DATABASE_VARIABLE} is a {url.get_backend_name()} URL, but must be a PostgreSQL URL; "
            "to store the studies and the ledger in files in the current folder, unset the variable"
        )
    _refuse_shared_schema(url, schema)
    with_schema = url.set(drivername="postgresql+psycopg").update_query_dict({"options": f"-csearch_path={schema}"})
    return with_schema.render_as_string(hide_password=False)


def _without_password(uri: str) -> str:
    return make_url(uri).render_as_string() if "@" in uri else uri


def _refuse_shared_schema(url: URL, schema: str) -> None:
    """Raises a `StorageError` if MLflow uses this schema: both MLflow and Optuna create an `alembic_version` table."""
    tracking = tracking_uri()
    if not tracking.startswith("postgresql"):
        return
    mlflow_url = make_url(tracking)
    databases = {(each.host, each.port or 5432, each.database) for each in (mlflow_url, url)}
    if len(databases) == 1 and f"search_path={schema}" in str(mlflow_url.query.get("options", "")):
        raise StorageError(
            f"MLFLOW_TRACKING_URI and {DATABASE_VARIABLE} both point to schema {schema!r} of the same database, "
            "where MLflow's tables would collide with the platform's; point MLFLOW_TRACKING_URI to another schema"
        )
