"""The locations in MLflow's database follow its folder."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from transfer_registry import sqlite_files
from transfer_registry.mlflow_database import prepare_database, registry_identity
from transfer_registry.relocation import relocated

Write = Callable[..., Path]
PARTS = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
FOLDERS = st.lists(PARTS.filter(lambda part: part not in {".", ".."}), min_size=1, max_size=3)
ARTIFACTS = Path("mlruns", "1", "run", "artifacts")


def locations(database: Path) -> set[str]:
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT artifact_location FROM experiments UNION SELECT artifact_uri FROM runs")
        return {location for (location,) in rows}


@pytest.fixture
def project(tmp_path: Path, mlflow_file: Write) -> Path:
    """A folder whose database the platform has opened."""
    prepare_database(mlflow_file(tmp_path / "project", "a", "b"))
    return tmp_path / "project"


@given(FOLDERS, FOLDERS)
def test_locations_survive_any_folder_name_there_and_back(one: list[str], other: list[str]) -> None:
    old, new = Path("/", *one), Path("/", *other)
    moved = relocated((old / ARTIFACTS).as_uri(), old, new)
    assert moved == (new / ARTIFACTS).as_uri()
    assert relocated(moved, new, old) == (old / ARTIFACTS).as_uri()


@given(FOLDERS, FOLDERS)
def test_a_path_stays_a_path_unless_mlflow_would_misread_it(one: list[str], other: list[str]) -> None:
    old, new = Path("/", *one), Path("/", *other)
    readable = not {"%", "?", "#"} & set(str(new))
    assert relocated(str(old / ARTIFACTS), old, new) == (str if readable else Path.as_uri)(new / ARTIFACTS)


@given(FOLDERS)
def test_locations_elsewhere_are_left_alone(one: list[str]) -> None:
    old = Path("/", *one)
    assume(not Path("/data/mlruns/1").is_relative_to(old))
    for location in (None, "", "s3://bucket/1", "mlflow-artifacts:/1", "models:/m-1", "/data/mlruns/1", f"{old}x/1"):
        assert relocated(location, old, Path("/new")) == location


@pytest.mark.parametrize("action", [shutil.copytree, shutil.move])
def test_a_copied_or_moved_folder_points_to_itself_and_says_so_once(
    project: Path, action: Callable[[Path, Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    target = project.with_name("other")
    action(project, target)
    for _ in range(2):
        prepare_database(target / "mlflow.db")
    assert {Path(location).parents[-4] for location in locations(target / "mlflow.db")} == {target.parents[-4]}
    assert all(Path(location).is_relative_to(target) for location in locations(target / "mlflow.db"))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"copied or moved from {project}: 3 locations" in record.getMessage()
    assert all(Path(location).is_relative_to(project) for location in locations(target / "mlflow.db.before-move"))


def test_a_copy_leaves_the_original_untouched(project: Path) -> None:
    before = (project / "mlflow.db").read_bytes()
    shutil.copytree(project, project.with_name("other"))
    prepare_database(project.with_name("other") / "mlflow.db")
    assert (project / "mlflow.db").read_bytes() == before


def test_a_folder_that_was_moved_before_the_platform_opened_it_points_to_itself(
    tmp_path: Path, mlflow_file: Write
) -> None:
    mlflow_file(tmp_path / "old", "a")
    shutil.move(tmp_path / "old", tmp_path / "new")
    prepare_database(tmp_path / "new" / "mlflow.db")
    assert all(Path(location).is_relative_to(tmp_path / "new") for location in locations(tmp_path / "new/mlflow.db"))


@pytest.mark.parametrize("has_empty_folder", [False, True])
def test_artifacts_that_never_were_beside_the_database_are_left_alone(
    tmp_path: Path, mlflow_file: Write, *, has_empty_folder: bool
) -> None:
    mlflow_file(tmp_path / "elsewhere", "a")
    (tmp_path / "elsewhere" / "mlruns").mkdir(exist_ok=True)
    database = tmp_path / "mlflow.db"
    if has_empty_folder:
        (tmp_path / "mlruns").mkdir()
    shutil.move(tmp_path / "elsewhere" / "mlflow.db", database)
    before = locations(database)
    for _ in range(2):
        prepare_database(database)
    assert locations(database) == before


def test_a_folder_moved_out_of_a_folder_that_cannot_be_entered_points_to_itself(project: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(project / "mlflow.db")) as connection, connection:
        # a name that is too long raises an OSError even for root, like another user's home for others
        connection.execute("UPDATE platform_database SET file = ?", [str(tmp_path / ("x" * 300) / "mlflow.db")])
    prepare_database(project / "mlflow.db")
    assert registry_identity(project / "mlflow.db").file == project / "mlflow.db"


def test_a_symlink_to_the_folder_is_no_move(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    link = project.with_name("link")
    link.symlink_to(project)
    prepare_database(link / "mlflow.db")
    assert all(Path(location).is_relative_to(project) for location in locations(project / "mlflow.db"))
    assert caplog.records == []


def test_a_symlink_to_the_database_is_no_move(project: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "runs.db").symlink_to(project / "mlflow.db")
    prepare_database(tmp_path / "links" / "runs.db")
    assert all(Path(location).is_relative_to(project) for location in locations(project / "mlflow.db"))


def test_a_database_copied_without_its_artifacts_says_what_is_missing(
    project: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "alone").mkdir()
    shutil.copy(project / "mlflow.db", tmp_path / "alone")
    prepare_database(tmp_path / "alone" / "mlflow.db")
    (record,) = caplog.records
    assert f"copy {project}/mlruns there" in record.getMessage()


def test_a_database_moved_from_artifacts_that_no_longer_exist_does_not_refer_to_them(
    project: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "alone").mkdir()
    shutil.move(project / "mlflow.db", tmp_path / "alone")
    shutil.rmtree(project)
    prepare_database(tmp_path / "alone" / "mlflow.db")
    (record,) = caplog.records
    assert record.getMessage().endswith(
        "alone/mlruns does not exist: restore it from a backup so that models can be loaded"
    )


def test_a_copied_folder_and_a_copied_file_get_another_identity(project: Path) -> None:
    database, copied = project / "mlflow.db", project.with_name("other")
    identity = registry_identity(database)
    shutil.copytree(project, copied)
    shutil.copy(database, project / "second.db")
    for file in (copied / "mlflow.db", project / "second.db"):
        prepare_database(file)
        assert registry_identity(file).registry != identity.registry
        assert registry_identity(file).parent == identity.registry
    assert registry_identity(database) == identity


def test_a_moved_folder_keeps_its_identity_also_if_another_registry_replaced_it(
    project: Path, mlflow_file: Write
) -> None:
    identity = registry_identity(project / "mlflow.db")
    moved = project.rename(project.with_name("other"))
    prepare_database(mlflow_file(project, "c"))
    prepare_database(moved / "mlflow.db")
    assert registry_identity(moved / "mlflow.db").registry == identity.registry


def test_a_moved_folder_keeps_its_identity_if_a_file_of_another_program_replaced_it(project: Path) -> None:
    identity = registry_identity(project / "mlflow.db")
    moved = project.rename(project.with_name("other"))
    project.mkdir()
    (project / "mlflow.db").write_text("no database\n" * 100)
    prepare_database(moved / "mlflow.db")
    assert registry_identity(moved / "mlflow.db").registry == identity.registry


def test_a_copy_of_a_locked_database_gets_another_identity(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_files, "BUSY_SECONDS", 0.05)
    copied = shutil.copytree(project, project.with_name("other"))
    with closing(sqlite3.connect(project / "mlflow.db")) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        prepare_database(copied / "mlflow.db")
    assert registry_identity(copied / "mlflow.db").parent == registry_identity(project / "mlflow.db").registry


def test_a_renamed_database_keeps_its_identity(project: Path) -> None:
    identity = registry_identity(project / "mlflow.db")
    shutil.move(project / "mlflow.db", project / "renamed.db")
    prepare_database(project / "renamed.db")
    assert registry_identity(project / "renamed.db").registry == identity.registry
