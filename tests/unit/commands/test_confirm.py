"""Messages, MLflow table and order of the further trainings of a study's best trials."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from transfer_platform.commands._confirm import TABLE_FILE, confirm_best
from transfer_platform.errors import DivergedError
from transfer_platform.progress import silent
from transfer_platform.recipe.resolve import search_ranges
from transfer_platform.recipe.schema import Recipe
from transfer_platform.search.study import FinishedTrial, Study
from transfer_platform.tracking import Run, Tracker

VALUES = {"linear": 0.3, "logistic": 0.2, "lda": 0.1}


def recipe(**search: object) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "digits",
            "dataset": {"source": "embedded:digits"},
            "backbone": {"name": "efficientnet_lite0"},
            "head": {"kind": {"choices": list(VALUES)}},
            "search": {"trials": 3, "metric": "validation/accuracy", **search},
        }
    )


class Trainings:
    """An engine that returns given values."""

    def __init__(self, **values: object) -> None:
        self.values, self.calls = values, []

    def train_again(self, trial: FinishedTrial, seed: int) -> float:
        self.calls.append((trial.params["head.kind"], seed))
        value = self.values[f"seed{seed}"]
        if isinstance(value, BaseException):
            raise value
        return value


@pytest.fixture
def study(isolated: Path) -> Study:
    (isolated / "studies").mkdir()
    space = search_ranges(recipe())
    study = Study("study", f"sqlite:///{isolated}/studies.db", space, minimizes=False, seed=0, pruning=False)
    study.run(3, lambda trial: VALUES[trial.values["head.kind"]], silent)
    return study


@pytest.fixture
def parent(study: Study) -> Iterator[Run]:
    with Tracker("digits").start_study_run(study.name, {}) as run:
        yield run


def number(study: Study, kind: str) -> int:
    return next(trial.number for trial in study.trials if trial.params["head.kind"] == kind)


def test_trained_and_solved_heads_are_compared(study: Study, parent: Run) -> None:
    engine, said = Trainings(seed1=0.1, seed2=0.05), []
    confirm_best(recipe(confirm={"top": 2, "seeds": 3}), study, engine, parent, silent, said.append)
    assert engine.calls == [("linear", 1), ("linear", 2)]
    linear, logistic = number(study, "linear"), number(study, "logistic")
    assert said == [
        "Training the best trials with further seeds: 2 trainings",
        f"trial {linear} with seed 1: 0.1000",
        f"trial {linear} with seed 2: 0.0500",
        f"trial {linear}: validation/accuracy 0.1500 ± 0.1323 (3 seeds; 0.3000 in the search)",
        f"trial {logistic}: validation/accuracy 0.2000 ± 0.0000 (does not depend on the seed)",
    ]
    assert study.best.number == logistic
    table = json.loads(Path(MlflowClient().download_artifacts(parent.run_id, TABLE_FILE)).read_text())
    assert table["columns"] == ["trial", "mean", "standard_deviation", "failure", "seed 0", "seed 1", "seed 2"]
    assert table["data"] == [
        [linear, pytest.approx(0.15), pytest.approx(0.1323, abs=1e-4), "", 0.3, 0.1, 0.05],
        [logistic, 0.2, 0.0, "", 0.2, None, None],
    ]
    said.clear()
    confirm_best(recipe(confirm={"top": 2, "seeds": 3}), study, engine, parent, silent, said.append)
    assert len(engine.calls) == 2, "nothing is trained twice"
    assert len(said) == 2


def test_a_training_that_diverges_is_reported(study: Study, parent: Run) -> None:
    engine, said = Trainings(seed1=DivergedError(4, float("nan"))), []
    confirm_best(recipe(confirm={"top": 2, "seeds": 3}), study, engine, parent, silent, said.append)
    linear = number(study, "linear")
    assert said[1].startswith(f"trial {linear} with seed 1: failed: the training loss became nan at step 4")
    assert said[2].startswith(f"trial {linear}: not confirmed: seed 1: the training loss became nan at step 4")
    assert study.best.number == number(study, "logistic")


def test_a_recipe_without_confirmation_returns_to_the_best_value(study: Study, parent: Run) -> None:
    engine = Trainings(seed1=0.0)
    confirm_best(recipe(confirm={"top": 2, "seeds": 2}), study, engine, parent, silent, silent)
    assert study.best.number == number(study, "logistic")
    engine = Trainings(seed1=0.0)
    confirm_best(recipe(), study, engine, parent, silent, silent)
    assert (study.best.number, engine.calls) == (number(study, "linear"), [])
