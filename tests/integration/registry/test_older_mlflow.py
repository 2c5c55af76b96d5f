"""The database of an older MLflow is upgraded after a backup."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base
from mlflow.tracking import MlflowClient

from transfer_registry import mlflow_server

REVISIONS = (None, "acf3f17fdcc7", "0584bdc529eb")
"""Revisions of the tables; None is the state before the first one."""


def write_database(file: Path, revision: str | None) -> None:
    """Creates a database as an older MLflow did, with one experiment."""
    engine = sa.create_engine(f"sqlite:///{file}")
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        config = _get_alembic_config(str(engine.url))
        config.attributes["connection"] = connection
        if revision:
            command.upgrade(config, revision)
        connection.execute(
            sa.text("INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (7, 'old', 'active')")
        )
    engine.dispose()


@pytest.mark.parametrize("revision", REVISIONS)
def test_an_older_database_is_upgraded_and_its_backup_is_unchanged(
    isolated: Path, revision: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    file = isolated / "mlflow.db"
    write_database(file, revision)
    shutil.copy(file, isolated / "before.db")
    mlflow_server.require_registry()
    (record,) = [each for each in caplog.records if each.name == "transfer_registry.mlflow_database"]
    assert (
        f"{file} was upgraded from an older version of MLflow; the backup is {file}.before-upgrade"
        in record.getMessage()
    )
    assert _dump(isolated / "mlflow.db.before-upgrade") == _dump(isolated / "before.db")
    assert MlflowClient().get_experiment_by_name("old").experiment_id == "7"
    caplog.clear()
    mlflow_server.require_registry()
    assert caplog.records == []


def _dump(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as connection:
        return list(connection.iterdump())
