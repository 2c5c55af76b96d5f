"""Inter-process locks: lock files and PostgreSQL advisory locks.

A lock is released as soon as the process that holds it ends, even if it is killed with `kill -9`.
"""

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path

import sqlalchemy as sa
from filelock import BaseFileLock, FileLock, Timeout
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from transfer_model.errors import cause
from transfer_registry.errors import LockHeldError, StorageError

_MOMENT = 0.5
"""Seconds after which a lock counts as held; `holder_of` may hold a free lock for a shorter time."""


class LockKind(IntEnum):
    """First key of a PostgreSQL advisory lock; the second key is a hash of the name being locked."""

    STUDY = 0x7466
    MODEL = 0x7467
    MIGRATION = 0x7468


_HOLDER = sa.text(
    "SELECT application_name FROM pg_stat_activity JOIN pg_locks USING (pid) "
    "WHERE locktype = 'advisory' AND granted AND classid = :kind AND objid = :key"
)


@contextmanager
def study_lock(study: str, folder: Path, url: str) -> Iterator[None]:
    """Locks a study against other processes on this machine and, with PostgreSQL, other clients of the database.

    `folder` holds the lock file and is created if it does not exist; `url` is the URL of the study database.

    Raises:
        LockHeldError: Another process, identified in the message, holds the lock.
        StorageError: The database cannot be reached.
    """
    busy = f"study {study} is already running"
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / "held.lock", busy):
        if url.startswith("postgresql"):
            with advisory_lock(sa.create_engine(url, poolclass=NullPool), LockKind.STUDY, study, busy):
                yield
        else:
            yield


def database_lock(engine: sa.Engine, kind: LockKind, name: str) -> AbstractContextManager[None]:
    """Returns a named lock that only one client can hold: an advisory lock (PostgreSQL) or a file lock (SQLite)."""
    if engine.dialect.name == "postgresql":
        return advisory_lock(engine, kind, name)
    database = Path(str(engine.url.database))
    return file_lock(database.with_name(f"{database.name}.{_digest(name).hex()}.lock"))


@contextmanager
def file_lock(file: Path, busy: str | None = None) -> Iterator[None]:
    """Holds a file lock; waits for the lock only if `busy` is None. The lock file is never deleted.

    If `busy` is set, the error message starts with it, and a `holder` file in the same folder records this process.

    Raises:
        LockHeldError: `busy` is set and another process holds the lock.
        StorageError: The lock file cannot be opened.
    """
    lock = _acquire(file, -1 if busy is None else _MOMENT)
    if lock is None:
        raise _held(busy, last_holder(file))
    try:
        if busy is not None:
            file.with_name("holder").write_text(_this_process())
        yield
    finally:
        lock.release()


def holder_of(lock: Path) -> str | None:
    """Returns the process that holds a file lock, or None; raises `StorageError` if the lock file cannot be opened."""
    if acquired := _acquire(lock, _MOMENT):
        acquired.release()
        return None
    return last_holder(lock) or "another process"


def _acquire(file: Path, timeout: float) -> BaseFileLock | None:
    """Acquires and returns a lock; returns None if another process still holds it after `timeout` seconds."""
    lock = FileLock(file)
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        return None
    except OSError as error:
        problem = f"the lock file {file} cannot be opened: {cause(error)}"
        raise StorageError(
            f"{problem}; check the free disk space and the permissions of the file and its folder"
        ) from error
    return lock


def last_holder(lock: Path) -> str:
    """Returns the last process that acquired a lock with `busy` set; empty if no process is recorded."""
    with suppress(OSError):
        return lock.with_name("holder").read_text(errors="replace")
    return ""


@contextmanager
def advisory_lock(engine: sa.Engine, kind: LockKind, name: str, busy: str | None = None) -> Iterator[None]:
    """Holds a PostgreSQL advisory lock on a separate connection; `busy` works as in `file_lock`.

    Locks of different kinds are independent of each other.

    Raises:
        LockHeldError: `busy` is set and another process holds the lock.
        StorageError: The database cannot be reached.
    """
    keys = {"kind": int(kind), "key": int.from_bytes(_digest(name)) >> 1}  # signed 32-bit integers
    try:
        connected = engine.connect()
    except OperationalError as error:
        raise StorageError(f"the database {engine.url} cannot be reached: {error.orig}") from error
    with connected.execution_options(isolation_level="AUTOCOMMIT") as connection:
        try:
            process = _this_process()[:63]  # length limit in PostgreSQL
            connection.execute(sa.select(sa.func.set_config("application_name", process, False)))
            if busy is None:
                connection.execute(sa.select(sa.func.pg_advisory_lock(*keys.values())))
            elif not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(*keys.values()))):
                raise _held(busy, connection.scalar(_HOLDER, keys))
            yield
        finally:
            connection.invalidate()  # if returned to the pool, the connection would still hold the lock


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()[:4]


def _this_process() -> str:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()}, since {now}"


def _held(busy: str | None, holder: str | None) -> LockHeldError:
    return LockHeldError(f"{busy}: {holder or 'another process'}; wait until it finishes, or stop it")
