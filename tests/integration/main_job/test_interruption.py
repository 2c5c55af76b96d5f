"""Killed three times, the same command ends with what an uninterrupted one ends with."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient

RECIPE = """
name: interrupted
dataset:
  source: {photographs}
  splits: {{train: train, validation: 0.2, test: val}}
  exclude: [train/ants/imageNotFound.gif]
  image_size: 64
backbone: {{name: efficientnet_lite0, freeze_through: all}}
head:
  dropout: {{low: 0.0, high: 0.5, step: 0.1}}
training:
  epochs: 12
  batch_size: {{choices: [8, 16]}}
  learning_rate: {{low: 1e-4, high: 1e-2, log: true}}
  precision: float32
search: {{trials: 12}}
promotion:
  model: interrupted
  gate:
    test/accuracy: {{at_least: 0.5}}
"""


def kill_when_done(place, recipe: Path, trial: int) -> None:
    """Kills a run as soon as a trial has ended: the next one is under way then."""
    process = place.start("platform", "run", recipe, start_new_session=True)
    for line in process.stderr:
        if line.startswith(f"trial {trial}:"):
            os.killpg(process.pid, signal.SIGKILL)
            break
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was to be killed, but ended by itself"


def trials(place) -> list[optuna.trial.FrozenTrial]:
    url = f"sqlite:///{place.folder}/studies/studies.db"
    (name,) = optuna.get_all_study_names(url)
    return optuna.load_study(study_name=name, storage=url).trials


@pytest.fixture(scope="module")
def places(photographs: Path, workplaces, tmp_path_factory: pytest.TempPathFactory):
    """A folder whose run was killed during trials 3, 7 and 11, and one whose run was left alone."""
    recipe = tmp_path_factory.mktemp("recipe") / "interrupted.yaml"
    recipe.write_text(RECIPE.format(photographs=photographs))
    killed, whole = workplaces("killed"), workplaces("whole")
    for trial in (2, 6, 10):
        kill_when_done(killed, recipe, trial)
    killed_out, _ = killed.run("platform", "run", recipe)
    whole_out, _ = whole.run("platform", "run", recipe)
    return recipe, killed, killed_out, whole, whole_out


def test_the_trials_are_those_of_an_uninterrupted_run(places) -> None:
    _, killed, killed_out, whole, whole_out = places
    assert [trial.number for trial in trials(killed)] == list(range(12))
    assert [trial.params for trial in trials(killed)] == [trial.params for trial in trials(whole)]
    assert [trial.value for trial in trials(killed)] == [trial.value for trial in trials(whole)]
    assert killed_out == whole_out


def test_there_is_one_parent_run_and_no_step_twice(places) -> None:
    _, killed, *_ = places
    client = MlflowClient(tracking_uri=f"sqlite:///{killed.folder}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("interrupted").experiment_id])
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(runs) - len(children) == 1
    assert sorted(int(run.data.tags["platform.trial"]) for run in children) == list(range(12))
    for run in children:
        steps = [entry.step for entry in client.get_metric_history(run.info.run_id, "validation/loss")]
        assert steps == list(range(1, len(steps) + 1))


def test_a_further_run_adds_nothing(places) -> None:
    recipe, killed, killed_out, *_ = places
    again, _ = killed.run("platform", "run", recipe)
    assert again == killed_out
    assert len(trials(killed)) == 12
    client = MlflowClient(tracking_uri=f"sqlite:///{killed.folder}/mlflow.db")
    assert len(client.search_model_versions("name = 'interrupted'")) == 1


def test_a_second_process_is_told_who_holds_the_study(places) -> None:
    recipe, _, _, whole, _ = places
    first = whole.start("platform", "run", recipe, "--fresh")
    for line in first.stderr:
        if line.startswith("trial 0:"):
            break
    _, err = whole.run("platform", "run", recipe, code=1)
    assert f"is already running: process {first.pid} on " in err
    first.kill()
    first.communicate()
