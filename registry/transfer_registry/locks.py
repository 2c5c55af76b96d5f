"""One driver per study: whoever runs it holds a lock, and whoever comes second is told who that is."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa
from filelock import FileLock, Timeout
from sqlalchemy.pool import NullPool

from transfer_registry.errors import LockHeldError, StorageError

ADVISORY_CLASS = 0x7466  # "tf"
"""First key of the platform's advisory locks in PostgreSQL; the second is a hash of the study's name."""

HOLDER = sa.text(
    "SELECT application_name FROM pg_stat_activity JOIN pg_locks USING (pid) "
    "WHERE locktype = 'advisory' AND granted AND classid = :kind AND objid = :study"
)


@contextmanager
def study_lock(study: str, folder: Path, url: str) -> Iterator[None]:
    """Holds a study for the duration of a `with` block; it is free again as soon as the process dies.

    Args:
        study: Name of the study.
        folder: Of the study's files on this machine; made where it does not exist.
        url: Of the study database; where that is PostgreSQL, other machines are kept out too.

    Raises:
        LockHeldError: Another process holds it; the message names it.
        StorageError: The database does not answer.
    """
    with _hold_here(study, folder):
        if url.startswith("postgresql"):
            with _hold_everywhere(study, url):
                yield
        else:
            yield


@contextmanager
def _hold_here(study: str, folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    holder, lock = folder / "holder", FileLock(folder / "held.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise _held(study, holder.read_text() if holder.exists() else None) from error
    try:
        holder.write_text(_me())
        yield
    finally:
        lock.release()


@contextmanager
def _hold_everywhere(study: str, url: str) -> Iterator[None]:
    keys = {"kind": ADVISORY_CLASS, "study": _key(study)}
    engine = sa.create_engine(url, poolclass=NullPool, connect_args={"application_name": _me()[:63]})
    try:
        connected = engine.connect()
    except sa.exc.OperationalError as error:
        raise StorageError(f"the study database cannot be reached: {error.orig}") from error
    with connected.execution_options(isolation_level="AUTOCOMMIT") as connection:
        lock = sa.select(sa.func.pg_try_advisory_lock(keys["kind"], keys["study"]))
        if not connection.scalar(lock):
            raise _held(study, connection.scalar(HOLDER, keys))
        yield


def _key(study: str) -> int:
    """31 bits of the name, since PostgreSQL's second key is a signed 32-bit integer."""
    return int.from_bytes(hashlib.sha256(study.encode()).digest()[:4]) >> 1


def _me() -> str:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()}, since {now}"


def _held(study: str, holder: str | None) -> LockHeldError:
    return LockHeldError(
        f"study {study} is already running: {holder or 'another process'} has it; wait for it or stop it"
    )
