"""Append-only ledger of the verdicts, promotions and rollbacks of all models.

Each entry's hash covers its content and the previous entry's hash, so `audit` detects later modifications. The ledger
is stored in a SQLite file or a PostgreSQL schema; its tables are created when it is first opened.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import socket
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Self

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, Session, mapped_column

from transfer_registry.errors import ChampionMovedError, StorageError
from transfer_registry.locks import LockKind, database_lock
from transfer_registry.migrations import is_read_only, upgrade_tables
from transfer_registry.verdict import Verdict

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Dialect, Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

_SQLITE_TIMEOUT = 30  # seconds to wait for another process that is writing to the same file


class EntryKind(StrEnum):
    """Kind of ledger entry."""

    VERDICT = "verdict"
    PROMOTION = "promotion"
    ROLLBACK = "rollback"


MOVES = (EntryKind.PROMOTION, EntryKind.ROLLBACK)
"""Kinds of entries that make a version the champion."""

_KIND = sa.Enum(EntryKind, native_enum=False, length=32, values_callable=lambda kinds: [kind.value for kind in kinds])

_HASHED_FIELDS = (
    "id",
    "at",
    "actor",
    "kind",
    "model",
    "version",
    "previous_version",
    "run_id",
    "recipe_fingerprint",
    "train_fingerprint",
    "test_fingerprint",
    "passed",
    "verdict",
    "reason",
)
"""Fields covered by an entry's hash; do not add new columns, because the hashes of existing entries would change."""


class _UTCDateTime(sa.types.TypeDecorator[datetime]):
    """Column type that returns datetimes in UTC, although SQLite drops time zones and PostgreSQL converts them."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002, base class signature
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002, base class signature
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _current_user() -> str:
    """Returns `user@host`, with the numeric user ID if the account has no name (as is the case in some containers)."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


class _Base(MappedAsDataclass, DeclarativeBase):
    """Base class of the ledger tables."""


class LedgerEntry(_Base, kw_only=True):
    """Ledger entry; changes to the object are not saved.

    Attributes:
        id: Sequence number, starting at 1; set by the ledger.
        at: Creation time in UTC.
        actor: User who created the entry, as `user@host`.
        version: Version that was judged or became the champion.
        previous_version: Previous champion; None if there was none.
        run_id: MLflow run that created the version.
        test_fingerprint: Fingerprint of the test images used for the verdict.
        passed: True if the version passed the gate; None for promotions and rollbacks.
        verdict: `Verdict.to_json()`; None for promotions and rollbacks.
        hash: Hash chain value (see `digest`); set by the ledger.
    """

    __tablename__ = "entries"
    __table_args__ = (
        sa.CheckConstraint("kind IN ('verdict', 'promotion', 'rollback')", name="entries_kind"),
        sa.Index("entries_model_version", "model", "version"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    at: Mapped[datetime] = mapped_column(_UTCDateTime, default_factory=lambda: datetime.now(UTC))
    actor: Mapped[str] = mapped_column(default_factory=_current_user)
    kind: Mapped[EntryKind] = mapped_column(_KIND)
    model: Mapped[str]
    version: Mapped[int]
    previous_version: Mapped[int | None] = mapped_column(default=None)
    run_id: Mapped[str | None] = mapped_column(default=None)
    recipe_fingerprint: Mapped[str | None] = mapped_column(default=None)
    train_fingerprint: Mapped[str | None] = mapped_column(default=None)
    test_fingerprint: Mapped[str | None] = mapped_column(default=None)
    passed: Mapped[bool | None] = mapped_column(default=None)
    verdict: Mapped[str | None] = mapped_column(sa.Text, default=None)
    reason: Mapped[str] = mapped_column(sa.Text)
    hash: Mapped[str] = mapped_column(sa.String(64), init=False)

    def digest(self, previous_hash: str | None) -> str:
        """Returns the hexadecimal SHA-256 of the entry's content and the previous entry's hash."""
        content = {field: getattr(self, field) for field in _HASHED_FIELDS}
        content["at"] = self.at.astimezone(UTC).isoformat()
        text = json.dumps([previous_hash, content], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def parse_verdict(self) -> Verdict:
        """Returns the recorded verdict; raises ValueError for promotions and rollbacks."""
        return Verdict.from_json(self.verdict or "")


class _Registry(_Base):
    """The MLflow registry that the ledger belongs to; the table has at most one row, with id 1."""

    __tablename__ = "registry"
    __table_args__ = (sa.CheckConstraint("id = 1", name="registry_one_row"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    identity: Mapped[str] = mapped_column(sa.String(64))


class Ledger:
    """An open ledger; `with Ledger.open(url) as ledger:` closes its connections on exit."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, url: str, registry: str | None = None) -> Self:
        """Opens a ledger and creates its tables if they do not exist.

        If several processes open a new ledger at once, the first creates the tables in one transaction; the rest wait.

        Args:
            url: SQLAlchemy URL of a SQLite file or a PostgreSQL database (psycopg 3). `options=-csearch_path=NAME`
                selects a PostgreSQL schema, which is created if it does not exist.
            registry: Identity of the MLflow registry; a ledger belongs to the first registry that it is opened for.
                None if the identity is not known.

        Raises:
            StorageError: The URL is not supported, the database cannot be reached, its tables were created by
                another program or a newer version of the platform, or the ledger belongs to another registry.
        """
        engine = _create_engine(url)
        try:
            upgrade_tables(engine)
            if registry is not None:
                _require_registry(engine, registry)
        except BaseException as error:
            engine.dispose()
            if isinstance(error, DBAPIError):
                raise StorageError(f"the ledger {engine.url} cannot be opened: {error.orig}") from error
            raise
        return cls(engine)

    def close(self) -> None:
        """Closes all connections; using the ledger again opens new ones."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def exclusive(self, model: str) -> AbstractContextManager[None]:
        """Returns a lock on a registered model; only the lock's holder can judge candidates or change the champion."""
        return database_lock(self._engine, LockKind.MODEL, model)

    def append(self, entry: LedgerEntry) -> LedgerEntry:
        """Appends an entry; returns it with its id and hash. Raises ValueError if the entry is already in a ledger."""
        with self._session() as session, session.begin():
            _append(session, entry)
        return entry

    def append_move(self, entry: LedgerEntry, *, expected_last: LedgerEntry | None) -> LedgerEntry:
        """Appends a promotion or rollback unless another process has changed the champion.

        `expected_last` is the model's last move as read by the caller, or None if the caller found no move.

        Raises:
            ChampionMovedError: Another move was recorded in the meantime; nothing was written.
            ValueError: The entry is already in a ledger.
        """
        with self._session() as session, session.begin():
            _lock_table(session)
            last = session.scalar(_select_last_move(entry.model))
            if (last and last.id) != (expected_last and expected_last.id):
                assert last is not None, "entries are never deleted"
                raise ChampionMovedError(
                    f"{last.actor} made {last.model} version {last.version} champion at "
                    f"{last.at:%Y-%m-%d %H:%M:%S} UTC while this {entry.kind} was being prepared, so "
                    "nothing was changed; check the new champion and run the command again"
                )
            _append(session, entry)
        return entry

    def entries(self, model: str | None = None) -> tuple[LedgerEntry, ...]:
        """Returns the entries of one registered model, or of all models if `model` is None, oldest first."""
        return self._read(sa.select(LedgerEntry).where(_is_model(model)).order_by(LedgerEntry.id))

    def last_move(self, model: str) -> LedgerEntry | None:
        """Returns the last promotion or rollback of a registered model."""
        return next(iter(self._read(_select_last_move(model))), None)

    def count_verdicts(self, test_fingerprint: str) -> int:
        """Returns the number of verdicts on a test set."""
        count = sa.select(sa.func.count()).select_from(LedgerEntry)
        count = count.where(LedgerEntry.kind == EntryKind.VERDICT, LedgerEntry.test_fingerprint == test_fingerprint)
        with self._session() as session:
            return int(session.scalar(count) or 0)

    def last_verdict(self, model: str, version: int, run_id: str | None = None) -> LedgerEntry | None:
        """Returns the last verdict on a version; None if it was never judged.

        After a model is deleted, MLflow reuses its version numbers. Therefore, verdicts on versions
        created by runs other than `run_id` are ignored, unless `run_id` is None.
        """
        verdicts = sa.select(LedgerEntry).where(
            _is_model(model), LedgerEntry.version == version, LedgerEntry.kind == EntryKind.VERDICT
        )
        if run_id is not None:
            verdicts = verdicts.where(LedgerEntry.run_id == run_id)
        return next(iter(self._read(verdicts.order_by(LedgerEntry.id.desc()).limit(1))), None)

    def _read(self, statement: sa.Executable) -> tuple[LedgerEntry, ...]:
        with self._session() as session:
            return tuple(session.scalars(statement))

    def _session(self) -> Session:
        return Session(self._engine, expire_on_commit=False)


def _require_registry(engine: Engine, identity: str) -> None:
    """Records the registry of a new ledger; raises StorageError if the ledger belongs to another registry."""
    with Session(engine) as session, session.begin():
        owner = session.scalar(sa.select(_Registry.identity))
        if owner is None and not is_read_only(engine):
            # in PostgreSQL, another process may record its registry at the same time; the statement waits for it
            insert = sa.text("INSERT INTO registry (id, identity) VALUES (1, :identity) ON CONFLICT DO NOTHING")
            session.execute(insert, {"identity": identity})
            owner = session.scalar(sa.select(_Registry.identity))
        if owner not in (None, identity):
            raise StorageError(
                f"the ledger {engine.url} records the decisions of another MLflow registry; set PLATFORM_DATABASE_URL "
                "to another database, or set MLFLOW_TRACKING_URI to the server or database that the ledger belongs to"
            )


def _lock_table(session: Session) -> None:
    """Blocks other writers until the transaction ends; in SQLite, `BEGIN IMMEDIATE` already does this."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(sa.text("LOCK TABLE entries IN EXCLUSIVE MODE"))


def _append(session: Session, entry: LedgerEntry) -> None:
    if not sa.inspect(entry).transient:
        raise ValueError(f"entry {entry.id} is already in the ledger, which is append-only")
    _lock_table(session)
    last = session.scalar(sa.select(LedgerEntry).order_by(LedgerEntry.id.desc()).limit(1))
    # A database sequence would have gaps after interrupted writes, which would look like deleted entries.
    entry.id = last.id + 1 if last else 1
    entry.hash = entry.digest(last.hash if last else None)
    session.add(entry)


def _select_last_move(model: str) -> sa.Select[LedgerEntry]:
    moves = sa.select(LedgerEntry).where(_is_model(model), LedgerEntry.kind.in_(MOVES))
    return moves.order_by(LedgerEntry.id.desc()).limit(1)


def _is_model(model: str | None) -> sa.ColumnElement[bool]:
    return sa.true() if model is None else LedgerEntry.model == model


def _create_engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StorageError("the ledger location must be a database URL such as sqlite:///ledger.db") from error
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return sa.create_engine(parsed)
    if backend != "sqlite":
        raise StorageError(f"the ledger must be a SQLite or PostgreSQL database, not {backend}")
    engine = sa.create_engine(parsed, connect_args={"timeout": _SQLITE_TIMEOUT})
    sa.event.listen(engine, "connect", _disable_implicit_transactions)
    sa.event.listen(engine, "begin", _begin_immediate)
    return engine


def _disable_implicit_transactions(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    """Stops Python's sqlite3 from committing before CREATE TABLE, so that a migration runs in a single transaction."""
    connection.isolation_level = None


def _begin_immediate(connection: Connection) -> None:
    """Acquires the write lock before the first read, so that no value can change between reading and writing."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")
