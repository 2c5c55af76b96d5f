"""One line of the ledger: what it records, how it is stored, and the hash that ties it to the line before."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import socket
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect


class EntryKind(StrEnum):
    """What an entry records."""

    VERDICT = "verdict"
    PROMOTION = "promotion"
    ROLLBACK = "rollback"


MOVES = (EntryKind.PROMOTION, EntryKind.ROLLBACK)
"""What makes a version champion."""
_KIND = sa.Enum(
    EntryKind, native_enum=False, length=32, values_callable=lambda kinds: [kind.value for kind in kinds]
)


_SAID = (
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
"""What a hash covers. A later column must not change the hashes of before: it needs a form of its own."""


class _UTC(sa.types.TypeDecorator[datetime]):
    """A moment in UTC; SQLite forgets the zone and PostgreSQL answers in the session's."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002, the base's signature
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002, the base's signature
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _actor() -> str:
    """Who is running this, as user@host; the user's number where a container gives it no name."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


class _Base(MappedAsDataclass, DeclarativeBase):
    """The tables of the ledger."""


class LedgerEntry(_Base, kw_only=True):
    """One line of the ledger; changing one in memory changes nothing in the ledger.

    Attributes:
        id: Given when it is appended: 1, 2, 3, ...
        at: When, in UTC.
        actor: Who, as user@host.
        kind: A verdict on a version, or a move of the champion (promotion, rollback).
        model: The registered model.
        version: The version that was judged, or is champion from here on.
        previous_version: The champion before; None where there was none.
        run_id: The MLflow run that made the version.
        recipe_fingerprint: Of the resolved recipe.
        train_fingerprint: Of the training images.
        test_fingerprint: Of the test images that the verdict was given on.
        passed: Of a verdict: whether the gate let it through.
        verdict: Of a verdict: `Verdict.to_json()`.
        reason: Why, for a person.
        hash: Given when it is appended: see `digest`. None in entries of before there were any.
    """

    __tablename__ = "entries"
    __table_args__ = (
        sa.CheckConstraint("kind IN ('verdict', 'promotion', 'rollback')", name="entries_kind"),
        sa.Index("entries_model_version", "model", "version"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    at: Mapped[datetime] = mapped_column(_UTC, default_factory=lambda: datetime.now(UTC))
    actor: Mapped[str] = mapped_column(default_factory=_actor)
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
    hash: Mapped[str | None] = mapped_column(sa.String(64), init=False, default=None)

    def digest(self, before: str | None) -> str:
        """SHA-256 of what the entry says and of the hash of the entry before it, hexadecimal."""
        said = {field: getattr(self, field) for field in _SAID}
        said["at"] = self.at.astimezone(UTC).isoformat()
        text = json.dumps([before, said], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
