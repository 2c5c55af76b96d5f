"""Choosing the best trial by its mean over seeds: candidates, order of trainings, ties, failures and resumption."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from transfer_platform.errors import DivergedError, StudyError
from transfer_platform.recipe.search_space import Choice
from transfer_platform.search.confirmation import Confirmation, choose_best_value
from transfer_platform.search.study import FinishedTrial, Study, Trial

SEEDS = (5, 6, 7)
VALUES = (0.50, 0.10, 0.20, 0.30, 0.40)
"""Values of the trials in the search; trial 1 has the smallest."""

Values = dict[tuple[int, int], float]


class Killed(BaseException):
    """Simulates `kill -9`: nothing is caught and nothing is cleaned up."""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'studies.db'}"


def searched(url: str, values: Sequence[float] = VALUES, *, minimizes: bool = True) -> Study:
    """A study whose trials have these values in the search; NaN stands for a trial that failed."""
    space = {"training.batch_size": Choice[int](choices=tuple(range(1, 1 + len(values))))}
    study = Study("study", url, space, minimizes=minimizes, seed=0, pruning=False)

    def value(trial: Trial) -> float:
        if values[trial.number] != values[trial.number]:
            raise DivergedError(1, float("nan"))
        return values[trial.number]

    study.run(len(values), value, lambda _: None)
    return study


def confirmation(study: Study, top: int = 3, seeds: Sequence[int] = SEEDS) -> Confirmation:
    return Confirmation(study, top, lambda _: seeds)


def trained(values: Values, calls: list[tuple[int, int]]) -> Callable[[FinishedTrial, int], float]:
    def train(trial: FinishedTrial, seed: int) -> float:
        calls.append((trial.number, seed))
        if isinstance(value := values[trial.number, seed], BaseException):
            raise value
        return value

    return train


def ignore(*_: object) -> None:
    pass


LUCKY: Values = {(1, 6): 0.60, (1, 7): 0.50, (2, 6): 0.25, (2, 7): 0.24, (3, 6): 0.30, (3, 7): 0.33}
"""Values of further trainings: trial 1 was best by luck, and trial 2 has the best mean."""


def test_the_best_mean_wins_over_the_best_value(url: str) -> None:
    study, calls = searched(url), []
    assert study.best.number == 1
    confirmation(study).run(trained(LUCKY, calls), ignore)
    assert calls == [(1, 6), (2, 6), (3, 6), (1, 7), (2, 7), (3, 7)]
    best = confirmation(study).choose()
    assert (best.number, best.value, best.seed_values) == (2, 0.20, {5: 0.20, 6: 0.25, 7: 0.24})
    assert best.score == "0.2300 ± 0.0265 (3 seeds; 0.2000 in the search)"
    assert study.best == best
    assert searched(url).best == best  # opened again


def test_a_metric_that_is_maximized(url: str) -> None:
    study = searched(url, minimizes=False)
    assert [trial.number for trial in confirmation(study).candidates] == [0, 4, 3]
    values = {(0, 6): 0.1, (0, 7): 0.1, (4, 6): 0.5, (4, 7): 0.4, (3, 6): 0.2, (3, 7): 0.2}
    confirmation(study).run(trained(values, []), ignore)
    assert confirmation(study).choose().number == 4


def test_the_earliest_of_equal_means_wins(url: str) -> None:
    study = searched(url, (0.2, 0.1, 0.1))
    values = {(1, 6): 0.75, (2, 6): 0.25, (0, 6): 0.15}
    assert [trial.number for trial in confirmation(study, seeds=(5, 6)).candidates] == [1, 2, 0]
    confirmation(study, seeds=(5, 6)).run(trained(values, []), ignore)
    assert [trial.mean for trial in confirmation(study, seeds=(5, 6)).candidates] == [0.425, 0.175, 0.175]
    assert confirmation(study, seeds=(5, 6)).choose().number == 0


def test_a_trial_that_fails_with_one_seed_cannot_win_and_is_not_trained_again(url: str) -> None:
    study, calls, said = searched(url), [], []
    values = LUCKY | {(2, 6): DivergedError(7, float("nan")), (3, 7): float("inf")}
    confirmation(study).run(
        trained(values, calls), lambda trial, seed, result: said.append((trial.number, seed, result))
    )
    assert (2, 7) not in calls
    assert said[1][:2] == (2, 6)
    assert said[1][2].startswith("failed: the training loss became nan at step 7")
    assert [trial.failure[:10] for trial in confirmation(study).candidates] == ["", "seed 6: th", "seed 7: th"]
    assert confirmation(study).choose().number == 1
    assert confirmation(study).missing == []


def test_if_each_trial_fails_the_error_lists_the_failures(url: str) -> None:
    study = searched(url)
    values = dict.fromkeys(LUCKY, DivergedError(7, float("nan")))
    confirmation(study).run(trained(values, []), ignore)
    with pytest.raises(StudyError, match=r"(?s)trial 1: seed 6: the training loss.*remove search.confirm"):
        confirmation(study).choose()


def test_trials_that_did_not_complete_are_no_candidates(url: str) -> None:
    study = searched(url, (0.5, float("nan"), 0.2))
    assert [trial.number for trial in confirmation(study).candidates] == [2, 0]


def test_a_study_without_completed_trials_has_no_candidates(url: str) -> None:
    with pytest.raises(StudyError, match="no trial in the study completed"):
        _ = confirmation(searched(url, (float("nan"),))).candidates


def test_a_trial_without_random_numbers_is_not_trained_again(url: str) -> None:
    study, calls = searched(url), []
    mixed = Confirmation(study, 3, lambda trial: SEEDS[:1] if trial.number == 2 else SEEDS)
    mixed.run(trained(LUCKY, calls), ignore)
    assert {number for number, _ in calls} == {1, 3}
    best = mixed.choose()
    assert (best.number, best.mean, best.noise) == (2, 0.20, 0.0)
    assert best.score == "0.2000 ± 0.0000 (does not depend on the seed)"


def test_an_interrupted_confirmation_continues_with_the_training_that_was_interrupted(url: str) -> None:
    calls: list[tuple[int, int]] = []
    for number in range(6):
        values = dict(LUCKY)
        interrupted = [(1, 6), (2, 6), (3, 6), (1, 7), (2, 7), (3, 7)][number]
        with pytest.raises(Killed):
            confirmation(searched(url)).run(trained(values | {interrupted: Killed()}, calls), ignore)
    confirmation(searched(url)).run(trained(LUCKY, calls), ignore)
    assert [call for index, call in enumerate(calls) if call not in calls[:index]] == calls[::2]
    assert len(calls) == 12
    assert confirmation(searched(url)).choose().seed_values == {5: 0.20, 6: 0.25, 7: 0.24}


def test_more_seeds_and_more_trials_reuse_the_finished_trainings(url: str) -> None:
    study, calls = searched(url), []
    confirmation(study, 2, SEEDS[:2]).run(trained(LUCKY, calls), ignore)
    assert calls == [(1, 6), (2, 6)]
    assert confirmation(study, 2, SEEDS[:2]).choose().number == 2
    calls.clear()
    confirmation(study, 3, SEEDS).run(trained(LUCKY | {(2, 7): 0.9}, calls), ignore)
    assert calls == [(3, 6), (1, 7), (2, 7), (3, 7)]
    assert confirmation(study, 3, SEEDS).choose().number == 3
    assert confirmation(study, 2, SEEDS[:2]).choose().number == 2


def test_without_confirmation_the_best_value_wins_again(url: str) -> None:
    study = searched(url)
    confirmation(study).run(trained(LUCKY, []), ignore)
    confirmation(study).choose()
    choose_best_value(study)
    assert (study.best.number, study.best.seed_values, study.best.score) == (1, {}, "0.1000")
