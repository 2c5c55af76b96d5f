"""A trial that was best by luck loses to the one with the best mean over seeds, also if the run is killed."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from statistics import fmean, stdev

import pytest
from mlflow import MlflowClient
from safetensors.torch import load_file

RECIPE = """
name: lucky
seed: 1
dataset: {source: "embedded:digits", splits: {train: ., validation: 0.1, test: 0.1}, image_size: 32}
backbone: {name: efficientnet_lite0, freeze_through: all}
head: {dropout: 0.5}
training:
  epochs: 2
  learning_rate: 2e-2
  sampling: {choices: [shuffled, balanced]}
  precision: float32
search:
  trials: 2
promotion: {model: lucky}
"""
CONFIRM = ("-o", "search.confirm={seeds: 3}")
SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def runs(workplaces, tmp_path_factory: pytest.TempPathFactory):
    """A folder, and the outputs of a run, of that run with confirmation, killed and resumed, and of the first again."""
    recipe = tmp_path_factory.mktemp("recipe") / "lucky.yaml"
    recipe.write_text(RECIPE)
    place = workplaces("confirmation")
    searched = place.run("platform", "run", recipe)
    killed = place.start("platform", "run", recipe, *CONFIRM, start_new_session=True)
    for line in killed.stderr:
        if re.match(r"trial \d with seed 2:", line):
            os.killpg(killed.pid, signal.SIGKILL)
            break
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL, "it was to be killed, but ended by itself"
    confirmed = place.run("platform", "run", recipe, *CONFIRM)
    client, found = _mlflow(place)
    report = Path(
        client.download_artifacts(_parent(found).info.run_id, "evaluation/report.md", place.folder)
    ).read_text()
    weights = [load_file(path) for path in place.folder.glob("studies/*/model/weights.safetensors")]
    again = place.run("platform", "run", recipe)
    return place, recipe, searched, confirmed, again, (client, found, report), weights


def _mlflow(place):
    client = MlflowClient(tracking_uri=f"sqlite:///{place.folder}/mlflow.db")
    return client, client.search_runs([client.get_experiment_by_name("lucky").experiment_id])


def _parent(found):
    (parent,) = (run for run in found if "platform.study" in run.data.tags)
    return parent


@pytest.fixture(scope="module")
def direct(runs, tmp_path_factory: pytest.TempPathFactory):
    """Results and heads of trainings with a new trainer for each seed, keyed by sampling and seed."""
    from transfer_platform.commands._open import open_recipe
    from transfer_platform.commands._trainer import fetch_all_weights, make_trainer
    from transfer_platform.progress import silent
    from transfer_platform.recipe.resolve import resolve

    found = {}
    opened = open_recipe(runs[1], [], silent)
    weights = fetch_all_weights(opened.recipe, opened.folder, silent)
    for seed in SEEDS:
        seeded = opened.recipe.model_copy(update={"seed": seed})
        trainer = make_trainer(seeded, opened.trainable_splits(), weights, "cpu", None, silent, silent)
        for sampling in ("shuffled", "balanced"):
            trial = resolve(seeded, {"training.sampling": sampling})
            result = trainer.train(trial, lambda _: None)
            head = {name: tensor.clone() for name, tensor in trainer.finalize(trial, result).state_dict().items()}
            found[sampling, seed] = (result.best.metrics["validation/loss"], head)
    return found


def numbers(found) -> dict[str, int]:
    """Trial numbers, keyed by sampling."""
    return {
        run.data.params["training.sampling"]: int(run.data.tags["platform.trial"])
        for run in found
        if "platform.trial" in run.data.tags
    }


def test_the_best_mean_wins_and_each_value_is_that_of_a_direct_training(runs, direct) -> None:
    place, _, (searched, _), (confirmed, said), _, (client, found, _), _ = runs
    trials = numbers(found)
    values = {sampling: [direct[sampling, seed][0] for seed in SEEDS] for sampling in trials}
    assert values["shuffled"][0] < values["balanced"][0], "best in the search"
    assert fmean(values["balanced"]) < fmean(values["shuffled"]), "but only by luck"
    assert f"best: trial {trials['shuffled']}, validation/loss {values['shuffled'][0]:.4f}\n" in searched
    for sampling, number in trials.items():
        mean, noise, first = fmean(values[sampling]), stdev(values[sampling]), values[sampling][0]
        score = f"validation/loss {mean:.4f} ± {noise:.4f} (3 seeds; {first:.4f} in the search)"
        assert f"trial {number}: {score}" in said
        assert (f"best: trial {number}, {score}" in confirmed) == (sampling == "balanced")
    parent = _parent(found)
    table = json.loads(
        Path(client.download_artifacts(parent.info.run_id, "study/seeds.json", place.folder)).read_text()
    )
    logged = {row[0]: row[4:] for row in table["data"]}
    assert logged == {trials[sampling]: values[sampling] for sampling in trials}
    assert parent.data.tags["platform.best_trial"] == str(trials["balanced"])


def test_the_model_is_the_winners_own_training_with_the_seed_of_the_search(runs, direct) -> None:
    *_, (saved,) = runs
    head = direct["balanced", 1][1]
    assert saved.keys() == head.keys()
    assert all((saved[name] == head[name]).all() for name in saved)


def test_report_and_model_card_contain_mean_and_noise(runs) -> None:
    place, _, _, (confirmed, _), _, (_, _, report), _ = runs
    score = re.search(r"best: trial \d, validation/loss (.*)", confirmed)[1]
    assert "(3 seeds; " in score
    assert f"- validation/loss: {score}\n" in report
    cards = [path.read_text() for path in place.folder.glob("mlruns/**/README.md")]
    assert sum(f"- best trial: validation/loss {score}\n" in card for card in cards) == 1


def test_the_killed_run_repeats_no_finished_training_and_logs_no_step_twice(runs) -> None:
    _, _, _, (_, said), _, (client, found, _), _ = runs
    assert "all trials have finished" in said
    assert "Training the best trials with further seeds: 3 trainings" in said
    children = [run for run in found if "platform.confirmed_trial" in run.data.tags]
    assert sorted((run.data.tags["platform.confirmed_trial"], run.data.tags["platform.seed"]) for run in children) == [
        ("0", "2"), ("0", "3"), ("1", "2"), ("1", "3"),
    ]  # fmt: skip
    assert not any("platform.trial" in run.data.tags for run in children)
    for run in children:
        assert run.info.status == "FINISHED"
        steps = [entry.step for entry in client.get_metric_history(run.info.run_id, "validation/loss")]
        assert steps == [1, 2]
        number, seed = run.data.tags["platform.confirmed_trial"], run.data.tags["platform.seed"]
        assert (run.info.run_name, run.data.params["seed"]) == (f"trial {number}, seed {seed}", seed)


def test_mlflow_shows_the_metrics_of_the_winner_even_if_its_number_is_smaller(runs) -> None:
    _, _, (searched, _), (confirmed, _), _, (_, found, _), _ = runs
    parent = _parent(found)
    loss = float(re.search(r"test/loss ([\d.]+)", confirmed)[1])
    assert loss != float(re.search(r"test/loss ([\d.]+)", searched)[1])
    assert round(parent.data.metrics["test/loss"], 4) == loss


def test_without_confirmation_the_best_single_value_wins_again(runs) -> None:
    place, _, (searched, _), _, (again, said), *_ = runs
    assert "with seed" not in said
    assert re.findall(r"(?m)^(?:best|test).*", again) == re.findall(r"(?m)^(?:best|test).*", searched)
    client, found = _mlflow(place)
    assert len(client.search_model_versions("name = 'lucky'")) == 2
    assert round(_parent(found).data.metrics["test/loss"], 4) == float(re.search(r"test/loss ([\d.]+)", searched)[1])
