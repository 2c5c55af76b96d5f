from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from transfer_platform.databases import ledger_url
from transfer_registry.ledger import EntryKind, Ledger, LedgerEntry


@pytest.fixture
def url(postgres: str, isolated: object, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of the ledger in the schema that the platform uses."""
    monkeypatch.setenv("PLATFORM_DATABASE_URL", postgres)
    return ledger_url()


def verdict(version: int, model: str = "ants-bees") -> LedgerEntry:
    return LedgerEntry(
        kind=EntryKind.VERDICT, model=model, version=version, passed=True, verdict="{}", reason="because"
    )


def test_the_schema_and_its_tables_are_made_and_nothing_elsewhere(url: str, postgres: str) -> None:
    Ledger.open(url).close()
    with psycopg.connect(postgres) as connection:
        tables = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
    assert sorted(tables) == [("ledger", "entries"), ("ledger", "ledger_version"), ("ledger", "registry")]


def test_entries_come_back_in_order_and_in_utc(url: str, postgres: str) -> None:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET timezone TO 'Asia/Tokyo'")
    with Ledger.open(url) as ledger:
        for version in (5, 1, 3):
            ledger.append(verdict(version))
        ledger.append(LedgerEntry(kind=EntryKind.PROMOTION, model="ants-bees", version=1, reason="passed"))
    with Ledger.open(url) as ledger:
        entries = ledger.entries("ants-bees")
        assert [entry.version for entry in entries] == [5, 1, 3, 1]
        assert entries[0].at.tzinfo is UTC
        assert datetime.now(UTC) - entries[0].at < timedelta(seconds=30)
        move = ledger.last_move("ants-bees")
        assert move is not None
        assert move.version == 1
        last = ledger.last_verdict("ants-bees", 3)
        assert last is not None
        assert last.id == 3


def test_many_may_create_it_at_once(url: str) -> None:
    start = threading.Barrier(6)

    def write(name: int) -> None:
        start.wait()
        with Ledger.open(url) as ledger:
            for version in range(10):
                ledger.append(verdict(version, model=str(name)))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    with Ledger.open(url) as ledger:
        assert len(ledger.entries()) == 60
        assert [entry.version for entry in ledger.entries("3")] == list(range(10))


def test_one_process_at_a_time_judges_a_model(url: str) -> None:
    order: list[str] = []
    held = threading.Event()

    def second() -> None:
        held.wait()
        with Ledger.open(url) as ledger, ledger.exclusive("ants-bees"):
            order.append("second")

    with ThreadPoolExecutor(1) as pool, Ledger.open(url) as ledger:
        with ledger.exclusive("ants-bees"):
            waiting = pool.submit(second)
            held.set()
            with ledger.exclusive("digits"):  # another model is not locked
                assert ledger.entries() == ()
            order.append("first")
        waiting.result(timeout=60)
    assert order == ["first", "second"]


def test_an_unreachable_server_is_named_without_its_password() -> None:
    from transfer_registry.errors import StorageError

    with pytest.raises(StorageError, match="cannot be opened") as caught:
        Ledger.open("postgresql+psycopg://ada:secret@/x?host=/nowhere")
    assert "secret" not in str(caught.value)
