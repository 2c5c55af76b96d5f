"""Resuming, pruning, failures and proposals of a study."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from transfer_platform.errors import DivergedError, StudyError
from transfer_platform.recipe.search_space import Choice, Range
from transfer_platform.search.figures import study_figures
from transfer_platform.search.study import WINNER, Study, Trial, count_studies, numbered_name

SPACE = {
    "training.learning_rate": Range[float](low=1e-4, high=1e-2, log=True),
    "training.batch_size": Choice[int](choices=(16, 32)),
    "head.dropout": Range[float](low=0.0, high=0.5, step=0.1),
    "training.epochs": Range[int](low=3, high=9),
}


class Killed(BaseException):
    """Simulates `kill -9`: the study catches nothing and cleans nothing up."""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'studies.db'}"


def open_study(url: str, name: str = "study", *, seed: int = 0, pruning: bool = True, space=SPACE) -> Study:
    return Study(name, url, space, minimizes=True, seed=seed, pruning=pruning)


def loss(trial: Trial) -> float:
    value = abs(trial.values["training.learning_rate"] - 3e-3) * 100 + trial.values["head.dropout"]
    for epoch in range(1, 6):
        trial.report(epoch, value + 1 / epoch)
    return value


def ignore(_: object) -> None:
    pass


def test_an_interrupted_study_ends_with_the_trials_of_an_uninterrupted_one(url: str) -> None:
    whole = open_study(url, "whole")
    whole.run(12, loss, ignore)
    kills = iter((3, 7, 11))
    next_kill = next(kills)
    calls = 0

    def interrupted(trial: Trial) -> float:
        nonlocal calls, next_kill
        calls += 1
        if calls == next_kill + 1:
            next_kill = next(kills, -2)
            trial.report(1, 5.0)
            raise Killed
        return loss(trial)

    for _ in range(3):
        with pytest.raises(Killed):
            open_study(url).run(12, interrupted, ignore)
    open_study(url).run(12, interrupted, ignore)

    resumed = open_study(url).trials
    assert [trial.number for trial in resumed] == list(range(12))
    assert [trial.params for trial in resumed] == [trial.params for trial in whole.trials]
    assert [trial.state for trial in resumed] == [trial.state for trial in whole.trials]


def test_a_trial_that_was_killed_while_values_were_proposed_is_completed(url: str) -> None:
    uninterrupted = open_study(url, "uninterrupted")
    uninterrupted.run(1, loss, ignore)
    study = open_study(url)
    study.optuna_study.ask().suggest_float("training.learning_rate", 1e-4, 1e-2, log=True)

    open_study(url).run(1, loss, ignore)

    assert [trial.params for trial in study.trials] == [trial.params for trial in uninterrupted.trials]


def test_bad_trials_are_pruned_with_their_intermediate_values(url: str) -> None:
    study = open_study(url, space={})

    def increasing_loss(trial: Trial) -> float:
        for epoch in range(1, 6):
            trial.report(epoch, float(trial.number))
        return float(trial.number)

    study.run(8, increasing_loss, ignore)

    states = [trial.state for trial in study.trials]
    assert states[:5] == ["COMPLETE"] * 5
    assert states[5:] == ["PRUNED"] * 3
    assert study.optuna_study.trials[6].intermediate_values == {1: 6.0, 2: 6.0}


def test_without_pruning_every_trial_runs_to_its_end(url: str) -> None:
    study = open_study(url, pruning=False)
    study.run(8, loss, ignore)
    assert {trial.state for trial in study.trials} == {"COMPLETE"}
    assert set(study_figures(study)) == {"history", "importance"}


def test_a_failed_trial_does_not_end_the_study(url: str) -> None:
    study = open_study(url)

    def second_fails(trial: Trial) -> float:
        if trial.number == 1:
            raise DivergedError(7, float("nan"))
        return loss(trial)

    study.run(3, second_fails, ignore)

    assert [trial.state for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert study.trials[1].failure.startswith("the training loss became nan at step 7")


def test_a_bug_ends_the_study(url: str) -> None:
    def buggy(_: Trial) -> float:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        open_study(url).run(1, buggy, ignore)


def test_the_error_of_a_study_without_completed_trials_lists_the_failures(url: str) -> None:
    study = open_study(url)

    def diverges(_: Trial) -> float:
        raise DivergedError(3, float("inf"))

    study.run(2, diverges, ignore)

    with pytest.raises(StudyError, match=r"trial 1: fail the training loss became inf at step 3"):
        _ = study.best


def test_more_trials_extend_a_study_and_no_trial_runs_twice(url: str) -> None:
    numbers = []

    def record(trial: Trial) -> float:
        numbers.append(trial.number)
        return loss(trial)

    for trials in (3, 3, 5):
        open_study(url).run(trials, record, ignore)

    assert numbers == [0, 1, 2, 3, 4]


def test_seeds_propose_different_values(url: str) -> None:
    for seed in (0, 1):
        open_study(url, f"study-{seed}", seed=seed).run(2, loss, ignore)
    first, second = (open_study(url, f"study-{seed}", seed=seed).trials for seed in (0, 1))
    assert [trial.params for trial in first] != [trial.params for trial in second]


def test_studies_are_counted_by_name(url: str) -> None:
    assert count_studies("digits-0a", url) == 0
    open_study(url, numbered_name("digits-0a", 1))
    open_study(url, numbered_name("digits-0a", 2))
    open_study(url, "digits-0ab")
    assert count_studies("digits-0a", url) == 2


def test_figures_of_a_study_with_pruning(url: str) -> None:
    study = open_study(url)
    study.run(4, loss, ignore)
    assert set(study_figures(study)) == {"history", "importance", "pruning"}


GRID = {
    "head.dropout": Range[float](low=0.0, high=0.5, step=0.25),
    "training.batch_size": Choice[int](choices=(16, 32)),
    "training.epochs": Range[int](low=3, high=4),
}


def test_a_small_finite_search_space_is_tried_completely_and_in_an_order_of_its_own(url: str) -> None:
    orders = []
    for seed in (0, 1):
        study = open_study(url, f"seed {seed}", seed=seed, space=GRID)
        study.run(12, lambda trial: float(trial.number), ignore)
        orders.append([tuple(trial.params[field] for field in GRID) for trial in study.trials])
    assert set(orders[0]) == set(orders[1]) == set(product((0.0, 0.25, 0.5), (16, 32), (3, 4)))
    assert orders[0] != orders[1]


def test_an_interrupted_search_of_a_finite_space_proposes_what_an_uninterrupted_one_does(url: str) -> None:
    whole = open_study(url, "whole", space=GRID)
    whole.run(12, lambda trial: 0.0, ignore)
    kills = {2, 5, 9}
    partial = open_study(url, space=GRID).optuna_study.ask()  # a process that was killed while it proposed values
    partial.suggest_float("head.dropout", 0.0, 0.5, step=0.25)

    def interrupted(trial: Trial) -> float:
        if trial.number in kills:
            kills.remove(trial.number)
            raise Killed
        return 0.0

    for _ in kills.copy():
        with pytest.raises(Killed):
            open_study(url, space=GRID).run(12, interrupted, ignore)
    resumed = open_study(url, space=GRID)
    resumed.run(12, lambda trial: 0.0, ignore)
    assert [trial.params for trial in resumed.trials] == [trial.params for trial in whole.trials]


RUNG = {"search.ladder.freeze_through": "none"}


def finished_study(url: str) -> Study:
    study = open_study(url)
    study.run(4, loss, ignore)
    return study


def test_a_rung_shares_the_values_of_the_trial_that_it_starts_from_and_is_run_once(url: str) -> None:
    study = finished_study(url)
    start = study.best
    seen: list[Trial] = []

    def objective(trial: Trial) -> float:
        seen.append(trial)
        return 0.001

    rung = study.run_rung(start, RUNG, objective)
    assert seen[0].values == rung.params == {**start.params, **RUNG}
    assert (rung.is_rung, rung.number, seen[0].resumed) == (True, 4, False)
    assert open_study(url).run_rung(start, RUNG, lambda _: pytest.fail("it is finished")) == rung
    assert study.finished_count == 4, "a rung is not a trial of the search"
    assert study.best == start, "a rung wins only if the ladder says so"
    study.set_ladder_result(start, rung, {"epochs_per_rung": 5})
    assert study.has_ladder_result({"epochs_per_rung": 5})
    assert not study.has_ladder_result({"epochs_per_rung": 6})
    assert (study.best, study.best_of_search) == (rung, start)
    study.clear_ladder()
    assert study.best == start


def test_a_killed_rung_is_resumed_by_the_ladder_and_not_by_the_search(url: str) -> None:
    study = finished_study(url)
    start = study.best

    def killed(_: Trial) -> float:
        raise Killed

    with pytest.raises(Killed):
        study.run_rung(start, RUNG, killed)
    again = open_study(url)
    again.run(4, lambda _: pytest.fail("the search has finished"), ignore)
    other = again.run_rung(start, {"search.ladder.freeze_through": "blocks.3"}, loss)
    assert other.params["search.ladder.freeze_through"] == "blocks.3"
    resumed: list[bool] = []

    def objective(trial: Trial) -> float:
        resumed.append(trial.resumed)
        return 1.0

    assert again.run_rung(start, RUNG, objective).number == 4
    assert resumed == [True]


def test_a_search_can_be_extended_after_a_ladder(url: str) -> None:
    space = {"training.batch_size": Choice[int](choices=(8, 16, 32)), "training.epochs": Range[int](low=1, high=2)}
    study = open_study(url, space=space)
    study.run(3, lambda trial: float(trial.number), ignore)
    study.set_ladder_result(study.best, study.run_rung(study.best, RUNG, lambda _: -1.0), {})
    study.run(6, lambda trial: float(trial.number) - 10, ignore)
    values = [tuple(trial.params.values()) for trial in study.trials if not trial.is_rung]
    assert sorted(values) == sorted(product((8, 16, 32), (1, 2))), "each combination once"
    assert not study.best.is_rung, "the ladder started from another trial"


def test_a_ladder_that_ends_where_it_started_keeps_the_values_of_all_seeds(url: str) -> None:
    study = finished_study(url)
    start = study.best
    study.set_user_attr(WINNER, {"trial": start.number, "seed_values": [(0, start.value), (1, 2.0)]})
    confirmed = study.best
    assert len(confirmed.seed_values) == 2
    study.set_ladder_result(confirmed, confirmed, {})
    assert study.best == confirmed
