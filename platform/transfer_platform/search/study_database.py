"""Opens the study database and converts database errors to `StudyError`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alembic.util import CommandError
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import create_engine, inspect
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from transfer_model.errors import cause
from transfer_platform.errors import StudyError

SQLITE_TIMEOUT = 30.0
"""Seconds to wait for another process that is writing to the same SQLite file."""


def create_tables(url: str) -> None:
    """Creates Optuna's tables in the study database unless they already exist.

    Raises:
        StudyError: As for `open_storage`.
    """
    open_storage(url).engine.dispose()


def open_storage(url: str) -> RDBStorage:
    """Opens the study database as an Optuna storage.

    Raises:
        StudyError: The database is incompatible with this version of Optuna, or cannot be reached, read or written.
    """
    is_sqlite = make_url(url).get_backend_name() == "sqlite"
    options: dict[str, Any] = {"connect_args": {"timeout": SQLITE_TIMEOUT}} if is_sqlite else {}
    try:
        _require_studies(url, options)
        return RDBStorage(url, engine_kwargs=options)
    except (SQLAlchemyError, RuntimeError, CommandError) as error:  # RuntimeError: another version of Optuna
        remedy = "move it elsewhere so that the next run creates one, or install the Optuna version that created it"
        raise _unusable(url, error, remedy) from error


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Converts Optuna's errors about failed database transactions to `StudyError`s that state the cause."""
    try:
        yield
    except StorageInternalError as error:
        raise _unusable(url, error.__cause__ or error, "run the same command again to resume") from error


def _unusable(url: str, error: BaseException, remedy: str) -> StudyError:
    """Returns an error that ends with `remedy`, or with a hint to close another program that is using the database."""
    reason = getattr(error, "orig", None) or error
    if str(getattr(reason, "sqlite_errorname", "")).startswith("SQLITE_BUSY"):
        remedy = "another program is using it; close that program, then run the same command again"
    shown = make_url(url).render_as_string()
    return StudyError(f"the study database {shown} cannot be used: {cause(reason)}; {remedy}")


def _require_studies(url: str, options: dict[str, Any]) -> None:
    """Raises a `StudyError` if the database belongs to another program, to prevent Optuna from adding tables to it."""
    engine = create_engine(url, poolclass=NullPool, **options)
    tables = inspect(engine).get_table_names()
    if tables and not {"studies", "trials"} <= set(tables):
        raise StudyError(
            f"{make_url(url).render_as_string()} is not a study database: it contains the tables "
            f"{', '.join(sorted(tables)[:5])}; move it elsewhere so that the next run creates a new one"
        )
