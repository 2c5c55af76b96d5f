"""A SQLite file with the tables of MLflow that the platform reads; creating a real one takes seconds."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from alembic.script import ScriptDirectory

REVISION = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations")).get_current_head()


@pytest.fixture
def mlflow_file() -> Callable[..., Path]:
    """Writes `mlflow.db` with experiment 0 and runs, whose artifacts are in `mlruns` beside it."""

    def write(folder: Path, *runs: str, name: str = "mlflow.db", revision: str | None = REVISION) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(folder / name)) as connection, connection:
            connection.execute("CREATE TABLE experiments (experiment_id, artifact_location)")
            connection.execute("CREATE TABLE runs (run_uuid, artifact_uri, status, lifecycle_stage)")
            connection.execute("CREATE TABLE tags (key, value, run_uuid)")
            connection.execute("CREATE TABLE alembic_version (version_num)")
            connection.execute("INSERT INTO experiments VALUES (0, ?)", [f"{folder}/mlruns/0"])
            for run in runs:
                (folder / "mlruns" / "0" / run / "artifacts").mkdir(parents=True)
                connection.execute(
                    "INSERT INTO runs VALUES (?, ?, 'FINISHED', 'active')", [run, f"{folder}/mlruns/0/{run}/artifacts"]
                )
            if revision:
                connection.execute("INSERT INTO alembic_version VALUES (?)", [revision])
        return folder / name

    return write
