"""Databases that cannot be used as study databases, or not at the moment."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event

from transfer_platform.errors import StudyError
from transfer_platform.search import study_database
from transfer_platform.search.study import Study, Trial, count_studies
from transfer_platform.search.study_database import create_tables, open_storage

IN_USE = r"studies\.db cannot be used: database is locked; another program is using it; close that program, then run"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(study_database, "SQLITE_TIMEOUT", 0.05)
    return tmp_path / "studies.db"


def open_study(file: Path) -> Study:
    return Study("study", f"sqlite:///{file}", {}, minimizes=True, seed=0, pruning=True)


@contextmanager
def locked(file: Path, kind: str) -> Iterator[None]:
    """Holds a lock, as a browser of databases does that has an open transaction."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"BEGIN {kind}")
        yield


def test_a_file_that_is_not_a_study_database_is_named_and_not_changed(tmp_path) -> None:
    file = tmp_path / "studies.db"
    file.write_text("no database\n" * 100)
    with pytest.raises(StudyError, match=rf"{file} cannot be used: file is not a database; move it elsewhere"):
        create_tables(f"sqlite:///{file}")
    file.unlink()
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE experiments (name)")
    before = file.read_bytes()
    with pytest.raises(StudyError, match=r"is not a study database: it contains the tables experiments"):
        create_tables(f"sqlite:///{file}")
    assert file.read_bytes() == before


def test_a_study_database_of_another_version_of_optuna_is_a_clear_error(tmp_path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    create_tables(url)
    with closing(sqlite3.connect(tmp_path / "studies.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v99.0.0'")
    with pytest.raises(StudyError, match=r"cannot be used: .*move it elsewhere"):
        count_studies("a", url)


def test_another_writer_is_waited_for(tmp_path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path / 'studies.db'}")
    with closing(storage.engine.connect()) as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000
    storage.engine.dispose()


def test_a_database_that_is_locked_at_the_start_is_not_to_be_moved_away(file) -> None:
    open_study(file).close()
    with locked(file, "EXCLUSIVE"), pytest.raises(StudyError, match=IN_USE) as raised:
        open_study(file)
    assert "move it elsewhere" not in str(raised.value)


def test_a_database_that_is_locked_during_a_trial_ends_the_study_with_a_reason_and_the_trial_is_resumed(file) -> None:
    study = open_study(file)

    def report_while_locked(trial: Trial) -> float:
        with locked(file, "IMMEDIATE"):
            trial.report(1, 1.0)
        return 1.0

    with pytest.raises(StudyError, match=IN_USE):
        study.run(1, report_while_locked, print)
    study.run(1, lambda trial: float(not trial.resumed), print)
    assert [(trial.number, trial.state, trial.value) for trial in study.trials] == [(0, "COMPLETE", 0.0)]


def test_a_database_that_is_locked_when_an_attribute_is_stored_is_a_clear_error(file) -> None:
    study = open_study(file)
    with locked(file, "IMMEDIATE"), pytest.raises(StudyError, match=IN_USE):
        study.set_user_attr("a", 1)


def test_a_full_database_states_its_cause(file) -> None:
    study = open_study(file)
    study.close()  # the next connection is a new one
    event.listen(study._storage.engine, "connect", lambda new, _: new.execute("PRAGMA max_page_count = 1"))
    with pytest.raises(StudyError, match=r"database or disk is full; run the same command again to resume"):
        study.set_user_attr("a", "x" * 1_000_000)
