"""The ledger: what was decided about every registered model, by whom, from what, and why.

Append-only: there is no way here to change or delete an entry, and each entry's hash covers its content and
the hash of the one before it, so that a change by other means shows (`audit`). It lives in a SQLite file or
in a schema of a team's PostgreSQL, and brings its own tables up to date when it is opened.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

import sqlalchemy as sa
from filelock import FileLock
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.orm import Session

from transfer_registry.entry import MOVES, EntryKind, LedgerEntry
from transfer_registry.errors import ChampionMovedError, StorageError
from transfer_registry.migrations import bring_up_to_date

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

ADVISORY_CLASS = 0x7467
"""First key of the ledger's advisory locks in PostgreSQL; the second is a hash of the model's name."""
_PATIENCE = 30  # seconds to wait for another process that is writing to the same SQLite file


class Ledger:
    """An open ledger; `with Ledger.open(url) as ledger:` closes its connections at the end."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, url: str) -> Self:
        """Opens the ledger, creating or migrating its tables where they are not those of this version.

        Several processes may do so at once: one migrates, in one transaction, and the others wait for it.

        Args:
            url: SQLAlchemy's, to a SQLite file or PostgreSQL (psycopg 3). A PostgreSQL schema named in
                `options=-csearch_path=NAME` is created first.

        Raises:
            StorageError: The URL is none of these, the database cannot be reached, or a newer version of the
                platform has migrated it.
        """
        engine = _engine(url)
        try:
            bring_up_to_date(engine)
        except OperationalError as error:
            engine.dispose()
            raise StorageError(f"the ledger {engine.url} cannot be opened: {error.orig}") from error
        except BaseException:
            engine.dispose()
            raise
        return cls(engine)

    def close(self) -> None:
        """Closes its connections; a closed ledger opens new ones if it is used again."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def exclusive(self, model: str) -> Iterator[None]:
        """Lets nobody else judge candidates for a registered model meanwhile; waits for whoever does.

        The lock is the database's, or a file beside it; it is free again as soon as its process dies.
        """
        key = hashlib.sha256(model.encode()).digest()[:4]
        if self._engine.dialect.name == "sqlite":
            file = Path(str(self._engine.url.database))
            with FileLock(file.with_name(f"{file.name}.{key.hex()}.lock")):
                yield
            return
        lock = sa.select(sa.func.pg_advisory_lock(ADVISORY_CLASS, int.from_bytes(key) >> 1))
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(lock)
            try:
                yield
            finally:
                connection.invalidate()  # a pooled connection would keep the lock

    def append(self, entry: LedgerEntry) -> LedgerEntry:
        """Writes a new entry at the end, and returns it with the id and the hash it was given.

        Raises:
            ValueError: The entry has come out of a ledger; writing it again would change it.
        """
        with self._session() as session, session.begin():
            _append(session, entry)
        return entry

    def append_move(self, entry: LedgerEntry, *, seen: LedgerEntry | None) -> LedgerEntry:
        """Writes a promotion or rollback, if nobody else has moved the champion meanwhile.

        Args:
            entry: The move.
            seen: The model's last move when this one was decided; None where there was none.

        Raises:
            ChampionMovedError: There is a later one; nothing was written.
            ValueError: As `append`.
        """
        with self._session() as session, session.begin():
            _serialize(session)
            last = session.scalar(_moves(entry.model))
            if (last and last.id) != (seen and seen.id):
                assert last is not None, "entries do not go away"
                raise ChampionMovedError(
                    f"{last.actor} made {last.model} version {last.version} champion at "
                    f"{last.at:%Y-%m-%d %H:%M:%S} UTC, while this was being decided; nothing was changed: "
                    "look at the new champion, and decide again"
                )
            _append(session, entry)
        return entry

    def entries(self, model: str | None = None) -> tuple[LedgerEntry, ...]:
        """The entries on one registered model, or on all, oldest first."""
        return self._read(sa.select(LedgerEntry).where(_of(model)).order_by(LedgerEntry.id))

    def current_champion(self, model: str) -> int | None:
        """The version that the last promotion or rollback made champion; None where there was none."""
        move = self.last_move(model)
        return move.version if move else None

    def last_move(self, model: str) -> LedgerEntry | None:
        """The last promotion or rollback of a registered model."""
        return next(iter(self._read(_moves(model))), None)

    def count_verdicts(self, test_fingerprint: str) -> int:
        """How many verdicts were given on a test set: each one is a look at it."""
        looks = sa.select(sa.func.count()).select_from(LedgerEntry)
        chosen = LedgerEntry.kind == EntryKind.VERDICT, LedgerEntry.test_fingerprint == test_fingerprint
        with self._session() as session:
            return int(session.scalar(looks.where(*chosen)) or 0)

    def last_verdict(self, model: str, version: int, run_id: str | None = None) -> LedgerEntry | None:
        """The last verdict on one version; None where it was never judged.

        Args:
            model: The registered model.
            version: Its number, which a registry gives again after the model was deleted.
            run_id: Of the run that made the version, so that a verdict on another one is not taken for its.
        """
        verdicts = sa.select(LedgerEntry).where(
            _of(model), LedgerEntry.version == version, LedgerEntry.kind == EntryKind.VERDICT
        )
        if run_id is not None:
            verdicts = verdicts.where(LedgerEntry.run_id == run_id)
        return next(iter(self._read(verdicts.order_by(LedgerEntry.id.desc()).limit(1))), None)

    def _read(self, statement: sa.Executable) -> tuple[LedgerEntry, ...]:
        with self._session() as session:
            return tuple(session.scalars(statement))

    def _session(self) -> Session:
        return Session(self._engine, expire_on_commit=False)


def _serialize(session: Session) -> None:
    """Lets one process write at a time; in SQLite `BEGIN IMMEDIATE` does."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(sa.text("LOCK TABLE entries IN EXCLUSIVE MODE"))


def _append(session: Session, entry: LedgerEntry) -> None:
    if not sa.inspect(entry).transient:
        raise ValueError(f"entry {entry.id} is in the ledger already, and the ledger is append-only")
    _serialize(session)
    before = session.scalar(sa.select(LedgerEntry).order_by(LedgerEntry.id.desc()).limit(1))
    # Not the database's: its sequence has gaps where somebody was killed, and a gap looks like a deletion.
    entry.id = before.id + 1 if before else 1
    entry.hash = entry.digest(before.hash if before else None)
    session.add(entry)


def _moves(model: str) -> sa.Select[LedgerEntry]:
    """The last move of a model."""
    moves = sa.select(LedgerEntry).where(_of(model), LedgerEntry.kind.in_(MOVES))
    return moves.order_by(LedgerEntry.id.desc()).limit(1)


def _of(model: str | None) -> sa.ColumnElement[bool]:
    return sa.true() if model is None else LedgerEntry.model == model


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StorageError(
            "the ledger's address is not a database URL; sqlite:///ledger.db is one"
        ) from error
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return sa.create_engine(parsed)
    if backend != "sqlite":
        raise StorageError(f"a ledger lives in SQLite or PostgreSQL, not in {backend}")
    engine = sa.create_engine(parsed, connect_args={"timeout": _PATIENCE})
    sa.event.listen(engine, "connect", _leave_transactions_to_us)
    sa.event.listen(engine, "begin", _begin_immediately)
    return engine


def _leave_transactions_to_us(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    """Keeps Python's sqlite3 from committing before a CREATE TABLE: a migration is one transaction."""
    connection.isolation_level = None


def _begin_immediately(connection: Connection) -> None:
    """Takes the write lock at the start: what is read in a transaction still holds when it writes."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")
