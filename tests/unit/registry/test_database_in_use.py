"""A database is not changed while another process uses it under another path."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import mlflow
import pytest

from transfer_registry import mlflow_server, sqlite_files
from transfer_registry.errors import StorageError
from transfer_registry.locks import study_lock
from transfer_registry.mlflow_database import prepare_database

Write = Callable[..., Path]

HOLD = """
import sys, time
from pathlib import Path
from transfer_registry.locks import study_lock
with study_lock("digits-0a", Path(sys.argv[1]), "sqlite:///studies.db"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def project(isolated: Path, tmp_path: Path, mlflow_file: Write) -> Iterator[Path]:
    """A folder with runs `a` and `b`, whose database the platform has opened."""
    mlflow.set_tracking_uri(None)
    prepare_database(mlflow_file(tmp_path / "project", "a", "b"))
    yield tmp_path / "project"
    mlflow.set_tracking_uri(None)


def execute(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def start_run(folder: Path, run: str = "a") -> None:
    execute(folder, f"UPDATE runs SET status = 'RUNNING' WHERE run_uuid = '{run}'")


def seen_elsewhere(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project under another path, as a container sees a folder of its host."""
    project.rename(project.with_name("mounted"))
    monkeypatch.chdir(project.with_name("mounted"))
    return project.with_name("mounted")


def locations(database: Path) -> set[str]:
    with closing(sqlite3.connect(database)) as connection:
        return {location for (location,) in connection.execute("SELECT artifact_uri FROM runs")}


def test_a_database_with_a_running_run_is_not_relocated(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start_run(project)
    place = seen_elsewhere(project, monkeypatch)
    before = (place / "mlflow.db").read_bytes()
    mlflow_server.require_registry()
    assert (place / "mlflow.db").read_bytes() == before


def test_a_deleted_run_does_not_prevent_a_relocation(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start_run(project)
    execute(project, "UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = 'a'")
    place = seen_elsewhere(project, monkeypatch)
    mlflow_server.require_registry()
    assert all(location.startswith(str(place)) for location in locations(place / "mlflow.db"))


def test_a_command_that_reads_uses_a_temporary_copy_until_the_run_has_ended(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_run(project)
    place = seen_elsewhere(project, monkeypatch)
    mlflow_server.require_registry()
    copy = sqlite_files_of_mlflow()
    assert copy.parent != place
    assert all(Path(location).is_relative_to(place) for location in locations(copy))
    with pytest.raises(StorageError, match=r"mounted/mlflow\.db contains runs with the status RUNNING \(a\)"):
        mlflow_server.require_original()
    execute(place, "UPDATE runs SET status = 'FINISHED'")
    mlflow_server.require_registry()
    mlflow_server.require_original()
    assert sqlite_files_of_mlflow() == place / "mlflow.db"
    assert all(Path(location).is_relative_to(place) for location in locations(place / "mlflow.db"))


def sqlite_files_of_mlflow() -> Path:
    from transfer_registry.files import sqlite_file

    file = sqlite_file(mlflow.get_tracking_uri())
    assert file
    return file


def test_a_folder_in_which_a_study_runs_is_not_relocated(project: Path) -> None:
    folder = project / "studies" / "digits-0a"
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        project.rename(project.with_name("mounted"))
        with pytest.raises(StorageError, match=rf"study digits-0a is running in .*mounted: process {other.pid} on "):
            prepare_database(project.with_name("mounted") / "mlflow.db")
        assert (project.with_name("mounted") / "studies" / "digits-0a" / "holder").read_text().split()[1] == str(
            other.pid
        )
    finally:
        other.kill()
        other.communicate()
    prepare_database(project.with_name("mounted") / "mlflow.db")


@pytest.mark.parametrize(("holder", "relocated"), [(None, True), ("process 7 on another-host, since today", False)])
def test_the_runs_of_a_study_that_was_killed_on_this_machine_do_not_prevent_a_relocation(
    project: Path, holder: str | None, relocated: bool
) -> None:
    with study_lock("digits-0a", project / "studies" / "digits-0a", "sqlite:///studies.db"):
        pass
    if holder:
        (project / "studies" / "digits-0a" / "holder").write_text(holder)
    start_run(project, "a")
    start_run(project, "b")
    execute(
        project,
        "INSERT INTO tags VALUES ('platform.study', 'digits-0a-2', 'a')",
        "INSERT INTO tags VALUES ('mlflow.parentRunId', 'a', 'b')",
    )
    target = project.rename(project.with_name("mounted"))
    if relocated:
        prepare_database(target / "mlflow.db")
    else:
        with pytest.raises(StorageError, match=r"status RUNNING \(a, b\)"):
            prepare_database(target / "mlflow.db")
    assert all(Path(location).is_relative_to(target) for location in locations(target / "mlflow.db")) == relocated


@pytest.mark.parametrize("study", ["digits-0a1", "digits-0a-b", "digits-0a-2-x"])
def test_the_run_of_a_study_with_a_longer_name_prevents_a_relocation(project: Path, study: str) -> None:
    with study_lock("digits-0a", project / "studies" / "digits-0a", "sqlite:///studies.db"):
        pass
    start_run(project, "a")
    execute(project, f"INSERT INTO tags VALUES ('platform.study', '{study}', 'a')")
    target = project.rename(project.with_name("mounted"))
    with pytest.raises(StorageError, match=r"status RUNNING \(a\)"):
        prepare_database(target / "mlflow.db")


def test_a_copy_of_a_folder_with_a_running_run_is_relocated(project: Path) -> None:
    start_run(project)
    copy = shutil.copytree(project, project.with_name("copy"))
    prepare_database(copy / "mlflow.db")
    assert all(Path(location).is_relative_to(copy) for location in locations(copy / "mlflow.db"))


def test_a_database_that_another_process_has_locked_is_not_relocated(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_files, "BUSY_SECONDS", 0.05)
    target = project.rename(project.with_name("mounted")) / "mlflow.db"
    with closing(sqlite3.connect(target)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match=r"mlflow\.db is locked by another process; wait for"):
            prepare_database(target)
    assert all(Path(location).is_relative_to(project) for location in locations(target))


def test_a_second_move_keeps_the_backup_of_the_first(project: Path) -> None:
    for name in ("second", "third", "project"):
        project = project.rename(project.with_name(name))
        prepare_database(project / "mlflow.db")
    backups = [project / f"mlflow.db.before-move{number}" for number in ("", "-2", "-3")]
    assert [{Path(location).parts[-5] for location in locations(each)} for each in backups] == [
        {"project"}, {"second"}, {"third"},
    ]  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be moved")
def test_alternating_folders_lose_no_location(project: Path) -> None:
    before = locations(project / "mlflow.db")
    for name in ("container", "project"):
        project = project.rename(project.with_name(name))
        prepare_database(project / "mlflow.db")
    assert locations(project / "mlflow.db") == before


def test_a_locked_database_whose_place_is_not_recorded_is_used_itself(
    isolated: Path, mlflow_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_files, "BUSY_SECONDS", 0.05)
    mlflow.set_tracking_uri(None)
    database = mlflow_file(isolated, "a")
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        mlflow_server.require_registry()
    mlflow_server.require_original()
    assert sqlite_files_of_mlflow() == database
    mlflow.set_tracking_uri(None)


def test_a_study_that_runs_in_the_working_folder_is_noticed_if_the_database_is_elsewhere(project: Path) -> None:
    target = project.rename(project.with_name("mounted"))
    start_run(target)
    execute(target, "INSERT INTO tags VALUES ('platform.study', 'digits-0a', 'a')")
    with study_lock("digits-0a", Path.cwd() / "studies" / "digits-0a", "sqlite:///studies.db"):
        with pytest.raises(StorageError, match=rf"study digits-0a is running in {Path.cwd()}: process {os.getpid()}"):
            prepare_database(target / "mlflow.db")
        assert all(Path(location).is_relative_to(project) for location in locations(target / "mlflow.db"))
    prepare_database(target / "mlflow.db")
    assert all(Path(location).is_relative_to(target) for location in locations(target / "mlflow.db"))


def test_a_study_beside_a_linked_database_is_noticed(project: Path) -> None:
    target = project.rename(project.with_name("mounted"))
    (link := project.with_name("link.db")).symlink_to(target / "mlflow.db")
    with (
        study_lock("digits-0a", target / "studies" / "digits-0a", "sqlite:///studies.db"),
        pytest.raises(StorageError, match="study digits-0a is running"),
    ):
        prepare_database(link)


def test_a_lock_that_cannot_be_opened_prevents_a_relocation_with_its_cause(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "studies" / "digits-0a" / "held.lock").mkdir(parents=True)
    place = seen_elsewhere(project, monkeypatch)
    mlflow_server.require_registry()
    with pytest.raises(
        StorageError, match=r"it is unknown whether study digits-0a is running in .*mounted: the lock file"
    ):
        mlflow_server.require_original()
    assert all(Path(location).is_relative_to(project) for location in locations(place / "mlflow.db"))
