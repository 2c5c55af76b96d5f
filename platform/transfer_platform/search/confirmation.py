"""Choice of a study's best trial by its mean over several seeds."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

from optuna.study import StudyDirection

from transfer_model.errors import cause
from transfer_platform.errors import StudyError, TrainingError
from transfer_platform.search.study import WINNER, FinishedTrial, Study


@dataclass(frozen=True)
class Confirmation:
    """The best trials of a study, each of which is trained with several seeds.

    The result of every training is stored in the study, so that no process repeats it.

    Attributes:
        study: Study whose search has finished.
        top: Number of completed trials to confirm.
        seeds_of: Returns the seeds of a trial, starting with the seed of the search.
    """

    study: Study
    top: int
    seeds_of: Callable[[FinishedTrial], Sequence[int]]

    @property
    def candidates(self) -> list[FinishedTrial]:
        """Completed trials with the best values, best first, with the results of all trainings so far.

        `seed_values` contains the values of the finished trainings. `failure` describes the first training that failed.

        Raises:
            StudyError: No trial has completed.
        """
        results = self.study.user_attrs
        return [self._with_results(trial, results) for trial in self._ranked(self.study.completed)[: self.top]]

    @property
    def missing(self) -> list[tuple[FinishedTrial, int]]:
        """Trials and seeds of the trainings that have not finished, without those of trials that have failed."""
        found = [
            (index, trial, seed)
            for trial in self.candidates
            if not trial.failure
            for index, seed in enumerate(self.seeds_of(trial))
            if seed not in trial.seed_values
        ]
        # One seed after the other, because trials with the same seed can share a network.
        return [(trial, seed) for _, trial, seed in sorted(found, key=itemgetter(0))]

    def run(
        self, train: Callable[[FinishedTrial, int], float], on_end: Callable[[FinishedTrial, int, str], None]
    ) -> None:
        """Runs all missing trainings; `on_end` is called after each one with its trial, its seed and its result.

        After a `TrainingError`, the trial is not trained with its other seeds. Any other exception is propagated, and
        the next call starts with the training that was interrupted.
        """
        while missing := self.missing:
            trial, seed = missing[0]
            result = _result(train, trial, seed)
            self.study.set_user_attr(_key(trial, seed), result)
            on_end(trial, seed, f"{result['value']:.4f}" if "value" in result else f"failed: {result['failure']}")

    def choose(self) -> FinishedTrial:
        """Makes the trial with the best mean the best trial of the study; in case of a tie, the earliest one.

        Raises:
            StudyError: Each of the trials has failed with one of the seeds.
        """
        candidates = self.candidates
        confirmed = self._ranked(trial for trial in candidates if not trial.failure)
        if not confirmed:
            failures = "\n  ".join(f"trial {trial.number}: {trial.failure}" for trial in candidates)
            fix = "increase search.confirm.top to confirm further trials, or remove search.confirm"
            raise StudyError(f"none of the best trials could be trained with all seeds:\n  {failures}\n{fix}")
        best = confirmed[0]
        self.study.set_user_attr(WINNER, {"trial": best.number, "seed_values": [*best.seed_values.items()]})
        return best

    def _ranked(self, trials: Iterable[FinishedTrial]) -> list[FinishedTrial]:
        """Sorts completed trials by their mean, or by their only value, and then by their number."""
        sign = 1 if self.study.optuna_study.direction == StudyDirection.MINIMIZE else -1
        return sorted(trials, key=lambda trial: (sign * trial.mean, trial.number))

    def _with_results(self, trial: FinishedTrial, results: Mapping[str, Any]) -> FinishedTrial:
        first, *further = self.seeds_of(trial)
        found = {seed: results[key] for seed in further if (key := _key(trial, seed)) in results}
        values = {seed: result["value"] for seed, result in found.items() if "value" in result}
        failures = [f"seed {seed}: {result['failure']}" for seed, result in found.items() if "failure" in result]
        return replace(trial, seed_values={first: trial.mean, **values}, failure="".join(failures[:1]))


def choose_best_value(study: Study) -> None:
    """Makes the completed trial with the best value the best trial of the study again."""
    if study.user_attrs.get(WINNER):
        study.set_user_attr(WINNER, None)


def _result(train: Callable[[FinishedTrial, int], float], trial: FinishedTrial, seed: int) -> dict[str, Any]:
    try:
        value = train(trial, seed)
    except TrainingError as error:
        return {"failure": cause(error)}
    return {"value": value} if math.isfinite(value) else {"failure": f"the value is {value}"}


def _key(trial: FinishedTrial, seed: int) -> str:
    """Returns the name of the study attribute with the result of a training."""
    return f"trial {trial.number}, seed {seed}"
