"""A fresh MLflow database that is copied instead of made again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
import pytest
from mlflow.tracking import MlflowClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database; making one takes seconds, copying it none."""
    database = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{database}").search_experiments()
    return database


@pytest.fixture
def new_registry(mlflow_template: Path, isolated: Path, tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Points MLflow to an empty database in a new folder of the given name; may be called again."""

    def make(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(mlflow_template, folder / "mlflow.db")
        mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
        MlflowClient().create_experiment("tests", artifact_location=(folder / "artifacts").as_uri())
        mlflow.set_experiment("tests")
        return folder

    yield make
    mlflow.set_tracking_uri(None)  # not the one before: that default belongs to the folder it was asked in
