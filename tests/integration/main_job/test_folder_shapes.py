"""Folders of many shapes, from `platform init` through `platform check` to the end of `platform run`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from folder_shapes import RUNS
from mlflow import MlflowClient

from transfer_platform.cli import main

QUICK = (
    "search.trials=1",
    "training.epochs=1",
    "training.precision=float32",
    "dataset.image_size=32",
    "promotion=null",
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all tests run; creating MLflow's database takes seconds."""
    return tmp_path_factory.mktemp("project")


@pytest.fixture
def platform(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a command in this process, in the project folder, and returns what it printed."""
    for variable in [name for name in os.environ if name.startswith(("PLATFORM_", "MLFLOW_"))]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PLATFORM_CACHE", str(project / "cache"))
    monkeypatch.chdir(project)
    shutil.rmtree("photos", ignore_errors=True)

    def command(*words: str) -> str:
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, f"{words}\n{result.output}\n{result.exception!r}"
        return result.output

    return command


@pytest.mark.parametrize("shape", RUNS, ids=lambda shape: shape.__name__)
def test_the_first_recipe_of_a_folder_is_checked_and_run(shape, platform, write_image) -> None:
    source = shape(lambda name: write_image(Path("photos", name), name)) or "photos"
    recipe = f"{shape.__name__}.yaml"
    assert f"wrote {recipe}" in platform("init", source, "--out", recipe)
    assert "registered as" in platform("check", recipe)
    printed = platform("run", recipe, *(word for change in QUICK for word in ("-o", change)))
    assert "test/accuracy" in printed
    client = MlflowClient(tracking_uri="sqlite:///mlflow.db")
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert {run.info.status for run in runs} == {"FINISHED"}
