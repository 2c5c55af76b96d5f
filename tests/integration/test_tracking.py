"""Runs of a study in a real MLflow database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from transfer_platform.tracking import Tracker


@pytest.fixture
def tracker(isolated: Path) -> Tracker:
    (isolated / "studies").mkdir()
    return Tracker("ants-bees")


def test_a_deleted_experiment_is_restored_with_a_message(tracker: Tracker) -> None:
    with tracker.start_study_run("earlier", {}) as earlier:
        pass
    MlflowClient().delete_experiment(tracker.experiment_id)
    said: list[str] = []
    again = Tracker("ants-bees", said.append)
    assert said == ["the MLflow experiment 'ants-bees' had been deleted; it was restored with its runs"]
    assert again.experiment_id == tracker.experiment_id
    assert MlflowClient().get_run(earlier.run_id).info.lifecycle_stage == "active"
    Tracker("ants-bees", said.append)
    assert len(said) == 1
    with again.start_study_run("study", {}) as run:
        run.log_metrics({"a": 1.0})


def test_a_trial_is_logged_in_one_call_and_resumed(tracker: Tracker, monkeypatch) -> None:
    calls: list[str] = []
    log_batch: Callable[..., None] = MlflowClient.log_batch
    monkeypatch.setattr(MlflowClient, "log_batch", lambda *args, **more: calls.append("") or log_batch(*args, **more))
    with tracker.start_study_run("study", {}) as parent:
        first = tracker.start_trial_run(parent, 0, {"lr": 0.1}, resumed=False)
        for epoch in range(1, 16):
            first.log_metrics({"validation/loss": 1 / epoch, "train/loss": 2.0}, epoch)
        first.set_tags({"platform.state": "COMPLETE"})
        first.end()
        assert len(calls) == 1, "a short trial is one batch"
        again = tracker.start_trial_run(parent, 0, {"lr": 0.1}, resumed=True)
        assert again.run_id == first.run_id
        assert again.last_step("validation/loss") == 15
    run = MlflowClient().get_run(first.run_id)
    assert run.data.params == {"lr": "0.1"}
    assert run.data.tags["platform.state"] == "COMPLETE"
    assert run.data.metrics["validation/loss"] == pytest.approx(1 / 15)


def test_a_run_with_a_further_seed_is_resumed_and_is_not_the_run_of_a_trial(tracker: Tracker) -> None:
    with tracker.start_study_run("study", {}) as parent:
        first = tracker.start_confirming_run(parent, 0, {"lr": 0.1}, 3)
        first.log_metrics({"validation/loss": 1.0}, 1)
        first.end("KILLED")
        again = tracker.start_confirming_run(parent, 0, {"lr": 0.1}, 3)
        assert (again.run_id, again.last_step("validation/loss")) == (first.run_id, 1)
        assert tracker.start_confirming_run(parent, 0, {"lr": 0.1}, 4).run_id != first.run_id
        assert tracker.find_trial_run(parent, 0) is None
    run = MlflowClient().get_run(first.run_id)
    assert (run.info.run_name, run.data.params) == ("trial 0, seed 3", {"lr": "0.1", "seed": "3"})


def test_the_latest_metric_replaces_that_of_a_later_step(tracker: Tracker) -> None:
    with tracker.start_study_run("study", {}) as run:
        run.log_latest({"test/loss": 1.0}, 7)
        run.log_latest({"test/loss": 2.0}, 3)
    assert MlflowClient().get_run(run.run_id).data.metrics == {"test/loss": 2.0}
