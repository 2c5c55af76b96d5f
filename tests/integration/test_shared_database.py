"""Studies in a real PostgreSQL, as a team has them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from transfer_platform import databases, paths
from transfer_platform.recipe.search_space import Range
from transfer_platform.search.study import Study
from transfer_registry import mlflow_server
from transfer_registry.errors import LockHeldError, StorageError
from transfer_registry.ledger import Ledger
from transfer_registry.locks import study_lock

HOLD = """
import sys, time
from pathlib import Path
from transfer_registry.locks import study_lock
with study_lock("digits-0a", Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def database(postgres: str, isolated: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PLATFORM_DATABASE_URL", postgres)
    return postgres


def test_studies_and_ledger_share_a_database_but_no_table(database: str) -> None:
    url = databases.studies_url()
    databases.create_schema(url)
    study = Study("shared", url, {"a": Range[float](low=0.0, high=1.0)}, minimizes=True, seed=0, pruning=True)
    study.run(3, lambda trial: float(trial.values["a"]), lambda _: None)
    assert study.finished_count == 3
    study.close()
    with Ledger.open(databases.ledger_url()) as ledger:
        assert ledger.entries() == ()
    engine = create_engine(database.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        tables = connection.execute(text("SELECT schemaname, tablename FROM pg_tables")).all()
    engine.dispose()
    assert {"trials", "alembic_version"} <= {table for schema, table in tables if schema == "studies"}
    assert {"entries", "ledger_version"} <= {table for schema, table in tables if schema == "ledger"}
    assert not [table for schema, table in tables if schema == "public"]


def test_a_shared_ledger_belongs_to_the_registry_that_used_it_first(
    database: str, isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "one", "other"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{isolated / name}.db")
        mlflow_server.create_database()
        if name == "one":
            databases.require_ledger()
    with pytest.raises(StorageError, match=r"another MLflow registry; set PLATFORM_DATABASE_URL to another database"):
        databases.require_ledger()


def test_a_process_on_another_machine_is_told_who_holds_the_study(database: str, tmp_path: Path) -> None:
    url = databases.studies_url()
    command = [sys.executable, "-c", HOLD, str(tmp_path / "there"), url]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(LockHeldError, match=f"process {other.pid} on "), study_lock("digits-0a", tmp_path, url):
            pass
        with study_lock("digits-0b", tmp_path, url):
            pass
    finally:
        other.kill()
        other.communicate()
    with study_lock("digits-0a", tmp_path, url):
        pass


def test_a_database_that_does_not_answer_is_reported(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATFORM_DATABASE_URL", "postgresql://me:secret@127.0.0.1:1/none")
    with pytest.raises(paths.StorageError, match="cannot be reached") as caught:
        databases.create_schema(databases.studies_url())
    assert "secret" not in str(caught.value)
