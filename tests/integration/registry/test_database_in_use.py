"""A folder that is seen under two paths, as by a host and a container, while a run writes into it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from transfer_platform.cli import main
from transfer_registry import mlflow_server

RUN = """
import mlflow, time
from transfer_registry import mlflow_server
mlflow_server.create_database()
print(mlflow.start_run().info.run_id, flush=True)
time.sleep(600)
"""


@pytest.fixture
def host(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process in the folder `host` with an active MLflow run, and the ID of the run."""
    (isolated / "host folder").mkdir()
    mlflow.set_tracking_uri(None)
    monkeypatch.chdir(isolated / "host folder")
    process = subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()
        mlflow.set_tracking_uri(None)


def test_the_folder_is_relocated_after_the_advice_for_a_killed_run_was_followed(
    host: tuple[subprocess.Popen[str], str], isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, run = host
    place = (isolated / "host folder").rename(isolated / "container's folder")
    monkeypatch.chdir(place)
    before = (place / "mlflow.db").read_bytes()
    assert CliRunner().invoke(main, ["models", "list"]).exit_code == 0
    assert Path(MlflowClient().get_run(run).info.artifact_uri).is_relative_to(place)
    refusal = CliRunner().invoke(main, ["models", "rollback", "ants-bees"])
    assert refusal.exit_code == 1
    advice = re.search("`(python .*)`", " ".join(refusal.output.split()))
    assert advice, refusal.output
    assert (place / "mlflow.db").read_bytes() == before
    process.kill()
    process.wait()
    subprocess.run(advice[1].replace("python", sys.executable, 1), shell=True, check=True, cwd=isolated)
    mlflow_server.require_registry()
    mlflow_server.require_original()
    found = MlflowClient().get_run(run).info
    assert found.status == "KILLED"
    assert Path(found.artifact_uri).is_relative_to(place)
