from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa

from transfer_registry.errors import StorageError
from transfer_registry.ledger import EntryKind, Ledger, LedgerEntry
from transfer_registry.migrations import HEAD


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


def verdict(version: int, model: str = "ants-bees", passed: bool = True) -> LedgerEntry:
    return LedgerEntry(
        kind=EntryKind.VERDICT, model=model, version=version, passed=passed, verdict="{}", reason="because"
    )


def promotion(version: int, previous: int | None = None, model: str = "ants-bees") -> LedgerEntry:
    return LedgerEntry(
        kind=EntryKind.PROMOTION, model=model, version=version, previous_version=previous, reason="passed"
    )


def champion(ledger: Ledger) -> int | None:
    move = ledger.last_move("ants-bees")
    return move.version if move else None


def test_entries_come_back_as_they_were_written_after_reopening(url: str) -> None:
    at = datetime(2026, 11, 22, 21, 0, tzinfo=timezone(timedelta(hours=2)))
    with Ledger.open(url) as ledger:
        written = ledger.append(
            LedgerEntry(
                kind=EntryKind.VERDICT,
                model="ants-bees",
                version=3,
                previous_version=2,
                run_id="r",
                recipe_fingerprint="a",
                train_fingerprint="b",
                test_fingerprint="c",
                passed=False,
                verdict='{"findings": []}',
                reason="größer | besser",
                at=at,
                actor="ada@host",
            )
        )
    with Ledger.open(url) as ledger:
        (read,) = ledger.entries("ants-bees")
    assert repr(read) == repr(written).replace(repr(at), repr(at.astimezone(UTC)))
    assert read.kind is EntryKind.VERDICT


def test_entries_have_a_time_and_an_actor(url: str) -> None:
    with Ledger.open(url) as ledger:
        entry = ledger.append(verdict(1))
    assert datetime.now(UTC) - entry.at < timedelta(seconds=10)
    assert "@" in entry.actor


def test_entries_are_in_order_of_writing(url: str) -> None:
    with Ledger.open(url) as ledger:
        for version in (5, 1, 3):
            ledger.append(verdict(version))
        ledger.append(verdict(9, model="other"))
        assert [entry.version for entry in ledger.entries("ants-bees")] == [5, 1, 3]
        assert [entry.id for entry in ledger.entries()] == [1, 2, 3, 4]


def test_the_last_move_determines_the_champion(url: str) -> None:
    with Ledger.open(url) as ledger:
        assert ledger.last_move("ants-bees") is None
        ledger.append(promotion(1))
        ledger.append(promotion(2, previous=1))
        ledger.append(verdict(3))
        ledger.append(promotion(7, model="other"))
        assert champion(ledger) == 2
        ledger.append(
            LedgerEntry(
                kind=EntryKind.ROLLBACK, model="ants-bees", version=1, previous_version=2, reason="worse at night"
            )
        )
        assert champion(ledger) == 1


def test_the_last_verdict_on_a_version_counts(url: str) -> None:
    with Ledger.open(url) as ledger:
        ledger.append(verdict(1, passed=False))
        ledger.append(verdict(1, passed=True))
        ledger.append(verdict(2, passed=False))
        last = ledger.last_verdict("ants-bees", 1)
        assert last is not None
        assert last.passed
        assert ledger.last_verdict("ants-bees", 3) is None


def test_nothing_written_can_be_changed(url: str) -> None:
    with Ledger.open(url) as ledger:
        entry = ledger.append(verdict(1))
        entry.reason = "another"
        with pytest.raises(ValueError, match="append-only"):
            ledger.append(entry)
        (read,) = ledger.entries()
        read.reason = "yet another"
        with pytest.raises(ValueError, match="append-only"):
            ledger.append(read)
        assert [entry.reason for entry in ledger.entries()] == ["because"]
    assert not [name for name in dir(Ledger) if name.startswith(("update", "delete", "remove"))]


def test_an_unknown_kind_is_refused_by_the_database_itself(url: str, tmp_path: Path) -> None:
    Ledger.open(url).close()
    connection = sqlite3.connect(tmp_path / "ledger.db")
    with pytest.raises(sqlite3.IntegrityError, match="entries_kind"):
        connection.execute(
            "INSERT INTO entries (at, actor, kind, model, version, reason, hash) VALUES ('', '', 'edit', '', 1, '', '')"
        )
    connection.close()


def test_opening_an_up_to_date_ledger_is_fast(url: str) -> None:
    Ledger.open(url).close()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        Ledger.open(url).close()
        times.append(time.perf_counter() - start)
    assert min(times) < 0.1


def test_migrations_make_the_tables_that_the_models_describe(url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    from transfer_registry import migrations

    Ledger.open(url).close()
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": migrations.VERSION_TABLE})
        assert compare_metadata(context, LedgerEntry.metadata) == []
        assert context.get_current_revision() == migrations.HEAD
    engine.dispose()
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_heads() == [migrations.HEAD]


def test_an_interrupted_migration_leaves_no_tables(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("alembic.op.create_index", interrupt)
        with pytest.raises(KeyboardInterrupt):
            Ledger.open(url)
    with Ledger.open(url) as ledger:
        assert ledger.append(verdict(1)).id == 1


def test_each_entry_is_chained_to_the_one_before(url: str) -> None:
    with Ledger.open(url) as ledger:
        first, second = ledger.append(verdict(1)), ledger.append(verdict(2, passed=False))
        read = ledger.entries()
    assert first.hash == first.digest(None)
    assert second.hash == second.digest(first.hash)
    assert [entry.digest(before) for entry, before in zip(read, (None, first.hash), strict=True)] == [
        first.hash,
        second.hash,
    ]


def test_a_hash_is_the_same_in_every_version_of_the_platform() -> None:
    at = datetime(2026, 11, 22, 19, 0, tzinfo=UTC)
    entry = LedgerEntry(
        kind=EntryKind.VERDICT,
        model="ants-bees",
        version=3,
        previous_version=2,
        run_id="r",
        recipe_fingerprint="a",
        train_fingerprint="b",
        test_fingerprint="c",
        passed=False,
        verdict='{"findings": []}',
        reason="größer",
        at=at,
        actor="ada@host",
    )
    entry.id = 7
    assert entry.digest("0" * 64) == "8d88d5fb264e6eab87e1ff4d95968a06570c820da773f74f556db61f80d7a0a6"


def test_verdicts_are_counted_by_test_set(url: str) -> None:
    with Ledger.open(url) as ledger:
        for fingerprint in ("a", "b", "a"):
            entry = verdict(1)
            entry.test_fingerprint = fingerprint
            ledger.append(entry)
        assert (ledger.count_verdicts("a"), ledger.count_verdicts("b"), ledger.count_verdicts("c")) == (2, 1, 0)


def test_a_ledger_of_a_newer_version_is_an_error(url: str, tmp_path: Path) -> None:
    Ledger.open(url).close()
    connection = sqlite3.connect(tmp_path / "ledger.db")
    connection.execute("UPDATE ledger_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(StorageError, match=rf"revision 9999.*up to {HEAD}; install the platform version"):
        Ledger.open(url)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("no url", "must be a database URL"),
        ("mysql://u:p@host/db", "not mysql"),
        ("sqlite:////nowhere/at/all/ledger.db", "cannot be opened"),
    ],
)
def test_unsupported_addresses_are_errors(address: str, message: str) -> None:
    with pytest.raises(StorageError, match=message):
        Ledger.open(address)


WRITER = """
import sys
from transfer_registry.ledger import EntryKind, LedgerEntry
from transfer_registry.ledger import Ledger
print("ready", flush=True)
sys.stdin.readline()
with Ledger.open(sys.argv[1]) as ledger:
    for version in range(20):
        ledger.append(LedgerEntry(kind=EntryKind.VERDICT, model=sys.argv[2], version=version, reason="r"))
"""


def test_two_processes_create_one_ledger_and_lose_no_entry(url: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, url, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for name in ("a", "b")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.communicate("go\n", timeout=60)[1] == ""
    with Ledger.open(url) as ledger:
        assert [entry.version for entry in ledger.entries("a")] == list(range(20))
        assert [entry.version for entry in ledger.entries("b")] == list(range(20))
        assert [entry.id for entry in ledger.entries()] == list(range(1, 41))
