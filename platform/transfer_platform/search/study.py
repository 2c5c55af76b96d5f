"""Resumable Optuna study: proposes hyperparameters, runs trials and ranks them.

Optuna is imported only in `transfer_platform.search`.
"""

import itertools
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import optuna
from optuna.pruners import MedianPruner, NopPruner
from optuna.study import Study as OptunaStudy
from optuna.trial import FrozenTrial, TrialState

from transfer_model.errors import cause
from transfer_platform.errors import StudyError, TrainingError
from transfer_platform.recipe.search_space import Choice, Range, Space, combination_count
from transfer_platform.search.samplers import ReproducibleSampler
from transfer_platform.search.study_database import open_storage, storage_errors

optuna.logging.set_verbosity(optuna.logging.WARNING)

MAX_GRID = 100
"""If there are at most this many combinations, each is proposed once, in random order."""
WINNER = "winner"
"""Study attribute with the number of the trial that was chosen by its mean over seeds, and its values."""
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
_RUNG = "rung"
"""User attribute that holds the additional values of a trial that is a rung."""
_LADDER = "ladder"
"""User attribute of a study that holds the trials that the ladder started from and ended with."""


class Pruned(Exception):  # noqa: N818 - a decision, not an error
    """Raised when the pruner stops a trial early."""


@dataclass(frozen=True)
class FinishedTrial:
    """A finished trial.

    Attributes:
        number: Trial number, starting at 0.
        state: `COMPLETE`, `PRUNED` or `FAIL`.
        value: Ranking metric at the best epoch; None unless the trial completed.
        params: Hyperparameter values, keyed by dotted recipe field.
        failure: Error message if the trial failed; otherwise empty.
        is_rung: Whether the trial was added to the search by `Study.run_rung`.
        seed_values: Ranking metric, keyed by seed, if the trial was confirmed (see `search.confirmation`).
    """

    number: int
    state: str
    value: float | None
    params: dict[str, Any]
    failure: str = ""
    is_rung: bool = False
    seed_values: Mapping[int, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Mean of the ranking metric over all seeds of a completed trial; without further seeds, its value."""
        assert self.value is not None, "only a completed trial has a value"
        return statistics.fmean(self.seed_values.values()) if self.seed_values else self.value

    @property
    def noise(self) -> float:
        """Standard deviation of the ranking metric between seeds (n - 1 in the denominator)."""
        return statistics.stdev(self.seed_values.values()) if len(self.seed_values) > 1 else 0.0

    @property
    def score(self) -> str:
        """The value of a completed trial as text, with mean and noise if the trial was confirmed."""
        if not self.seed_values:
            return f"{self.mean:.4f}"
        count = len(self.seed_values)
        note = f"{count} seeds; {self.value:.4f} in the search" if count > 1 else "does not depend on the seed"
        return f"{self.mean:.4f} ± {self.noise:.4f} ({note})"

    def __str__(self) -> str:
        result = self.failure or ("" if self.value is None else f"{self.value:.4f}")
        return f"trial {self.number}: {self.state.lower()} {result}".rstrip()


class Trial:
    """A running trial with proposed `values`, keyed by dotted recipe field.

    `number` counts from 0; `resumed` is True if an earlier process started the trial.
    """

    def __init__(self, trial: optuna.Trial, values: dict[str, Any], *, resumed: bool, pruning: bool) -> None:
        self._trial, self._pruning = trial, pruning
        self.number, self.values, self.resumed = trial.number, values, resumed
        stored = trial.study.get_trials(deepcopy=False)[trial.number] if pruning else None
        self._reported = set(stored.intermediate_values) if stored else set()

    def report(self, epoch: int, value: float) -> None:
        """Reports the ranking metric for an epoch to the pruner; does nothing if the study does not prune trials.

        Raises:
            Pruned: The trial should be stopped.
        """
        if not self._pruning:
            return
        if epoch not in self._reported:
            self._trial.report(value, epoch)
        if self._trial.should_prune():
            raise Pruned


class Study:
    """A study that proposes the same values whether or not it is interrupted.

    Args:
        name: Unique name in the database; an existing study with this name is opened.
        url: Database URL.
        space: Search space; empty for a single trial.
        minimizes: True if lower values are better.
        seed: Random seed for proposing values.
        pruning: Whether to stop trials whose metric is worse than the median of earlier trials.

    Raises:
        StudyError: The database cannot be used. Any method may raise this error.
    """

    def __init__(self, name: str, url: str, space: Space, *, minimizes: bool, seed: int, pruning: bool) -> None:
        self._storage, self._url = open_storage(url), url
        with storage_errors(url):
            self.optuna_study: OptunaStudy = optuna.create_study(
                storage=self._storage,
                study_name=name,
                sampler=ReproducibleSampler(seed, exhaustive=combination_count(space) <= MAX_GRID),
                pruner=MedianPruner(n_startup_trials=5, n_warmup_steps=2) if pruning else NopPruner(),
                direction="minimize" if minimizes else "maximize",
                load_if_exists=True,
            )
        self.name, self.space, self.pruning, self._minimizes = name, space, pruning, minimizes

    @property
    def user_attrs(self) -> dict[str, Any]:
        """User attributes of the study."""
        return self.optuna_study.user_attrs

    def set_user_attr(self, key: str, value: object) -> None:
        """Stores a JSON-serializable value as a user attribute of the study."""
        with storage_errors(self._url):
            self.optuna_study.set_user_attr(key, value)

    def close(self) -> None:
        """Closes the database connections; they are reopened if the study is used again."""
        self._storage.engine.dispose()

    @property
    def finished_count(self) -> int:
        """Number of trials of the search that have completed, been pruned or failed; rungs are not counted."""
        return sum(not trial.is_rung for trial in self.trials)

    @property
    def trials(self) -> list[FinishedTrial]:
        """Finished trials, sorted by number."""
        with storage_errors(self._url):
            return [_finished_trial(trial) for trial in self.optuna_study.get_trials(deepcopy=False, states=FINISHED)]

    @property
    def best(self) -> FinishedTrial:
        """The trial that the ladder ended with, or else the best trial of the search.

        Raises:
            StudyError: No trial has completed.
        """
        best, ladder = self.best_of_search, self.user_attrs.get(_LADDER)
        if ladder is None or ladder["start"] != best.number or ladder["end"] == best.number:
            return best
        return next(trial for trial in self.trials if trial.number == ladder["end"])

    @property
    def best_of_search(self) -> FinishedTrial:
        """Completed trial with the best value that is not a rung; in case of a tie, the earliest one.

        After a confirmation, the trial with the best mean over seeds (see `search.confirmation`).

        Raises:
            StudyError: No trial has completed.
        """
        completed = self.completed
        if winner := self.user_attrs.get(WINNER):
            (trial,) = (trial for trial in completed if trial.number == winner["trial"])
            return replace(trial, seed_values=dict(winner["seed_values"]))
        sign = 1 if self._minimizes else -1
        return min(completed, key=lambda trial: sign * (trial.value or 0.0))

    @property
    def completed(self) -> list[FinishedTrial]:
        """Completed trials of the search, sorted by number; rungs are not included.

        Raises:
            StudyError: No trial has completed.
        """
        trials = self.trials
        if completed := [trial for trial in trials if trial.state == TrialState.COMPLETE.name and not trial.is_rung]:
            return completed
        raise StudyError(
            "\n  ".join(["no trial in the study completed:", *map(str, trials)])
            + "\nchange the recipe as the messages above suggest, or start a new study with --fresh"
        )

    def table(self) -> dict[str, list[object]]:
        """Returns a table of finished trials with columns `trial`, `state` and `value`, plus one per tuned field."""
        trials = self.trials
        fields = dict.fromkeys([*self.space, *(field for trial in trials for field in trial.params)])
        return {
            "trial": [trial.number for trial in trials],
            "state": [trial.state for trial in trials],
            "value": [trial.value for trial in trials],
            **{field: [trial.params.get(field) for trial in trials] for field in fields},
        }

    def run(
        self, trials: int, objective: Callable[[Trial], float], on_trial_end: Callable[[FinishedTrial], None]
    ) -> None:
        """Resumes interrupted trials, then runs new trials until the study contains `trials` finished trials.

        If the objective raises `Pruned` or `TrainingError`, only the current trial ends. Any other exception is
        propagated, and the next call resumes the trial.
        """
        with storage_errors(self._url):
            for interrupted in self.optuna_study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if _RUNG in interrupted.user_attrs:
                    continue  # resumed by `run_rung`
                trial = optuna.Trial(self.optuna_study, interrupted._trial_id)
                on_trial_end(self._run_trial(trial, objective, resumed=True))
            while self.finished_count < trials:
                on_trial_end(self._run_trial(self.optuna_study.ask(), objective, resumed=False))

    def run_rung(
        self, start: FinishedTrial, rung: Mapping[str, object], objective: Callable[[Trial], float]
    ) -> FinishedTrial:
        """Runs or resumes a trial beyond the search, unless an earlier process has finished it.

        Args:
            start: The trial whose values the rung shares.
            rung: Further values of the rung, keyed by dotted recipe field.
            objective: As for `run`.
        """
        values = {**start.params, **rung}
        with storage_errors(self._url):
            for trial in self.optuna_study.get_trials(deepcopy=False):
                if _RUNG not in trial.user_attrs or _finished_trial(trial).params != values:
                    continue
                if trial.state in FINISHED:
                    return _finished_trial(trial)
                return self._run_trial(optuna.Trial(self.optuna_study, trial._trial_id), objective, resumed=True)
            return self._run_trial(self._add_rung(start, rung), objective, resumed=False)

    def _add_rung(self, start: FinishedTrial, rung: Mapping[str, object]) -> optuna.Trial:
        """Creates a running trial with the values of another one; it is not proposed by the sampler."""
        parent = self.optuna_study.get_trials(deepcopy=False)[start.number]
        template = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=parent.params,
            distributions=parent.distributions,
            user_attrs={_RUNG: dict(rung)},
        )
        return optuna.Trial(self.optuna_study, self._storage.create_new_trial(self.optuna_study._study_id, template))

    def set_ladder_result(self, start: FinishedTrial, end: FinishedTrial, settings: Mapping[str, object]) -> None:
        """Makes `end` the best trial for as long as `start` is the best trial of the search."""
        self.set_user_attr(_LADDER, {"start": start.number, "end": end.number, "settings": dict(settings)})

    def has_ladder_result(self, settings: Mapping[str, object]) -> bool:
        """Returns True if a ladder with these settings has ended that started from the best trial of the search."""
        ladder = self.user_attrs.get(_LADDER)
        if ladder is None:
            return False
        return (ladder["start"], ladder["settings"]) == (self.best_of_search.number, dict(settings))

    def clear_ladder(self) -> None:
        """Restores the best trial of the search as the best trial of the study."""
        if self.user_attrs.get(_LADDER):
            self.set_user_attr(_LADDER, None)

    def _run_trial(self, trial: optuna.Trial, objective: Callable[[Trial], float], *, resumed: bool) -> FinishedTrial:
        # not `ask(fixed_distributions=...)`: a trial killed while proposing values has only some of them
        values = {field: _suggest(trial, field, span) for field, span in self.space.items()}
        rung = trial.user_attrs.get(_RUNG, {})
        pruning = self.pruning and not rung
        try:
            value = objective(Trial(trial, {**values, **rung}, resumed=resumed, pruning=pruning))
        except Pruned:
            self.optuna_study.tell(trial, state=TrialState.PRUNED)
        except TrainingError as error:
            trial.set_user_attr("failure", cause(error))
            self.optuna_study.tell(trial, state=TrialState.FAIL)
        else:
            self.optuna_study.tell(trial, value)
        return _finished_trial(self.optuna_study.get_trials(deepcopy=False)[trial.number])


def count_studies(name: str, url: str) -> int:
    """Returns the number of studies that share a base name (see `numbered_name`)."""
    storage = open_storage(url)
    names = set(optuna.get_all_study_names(storage))
    storage.engine.dispose()
    return next(count for count in itertools.count() if numbered_name(name, count + 1) not in names)


def numbered_name(name: str, number: int) -> str:
    """Returns the name of a study: `name` for the first study with this base name, then `name-2`, `name-3`, etc."""
    return name if number == 1 else f"{name}-{number}"


def _suggest(trial: optuna.Trial, field: str, span: Range[Any] | Choice[Any]) -> Any:  # noqa: ANN401 - any field type
    if isinstance(span, Choice):
        return trial.suggest_categorical(field, span.choices)
    if isinstance(span.low, int) and isinstance(span.high, int) and isinstance(span.step, int | None):
        return trial.suggest_int(field, span.low, span.high, log=span.log, step=span.step or 1)
    return trial.suggest_float(field, span.low, span.high, log=span.log, step=span.step)


def _finished_trial(trial: FrozenTrial) -> FinishedTrial:
    value = trial.value if trial.state is TrialState.COMPLETE else None
    rung, failure = trial.user_attrs.get(_RUNG, {}), trial.user_attrs.get("failure", "")
    return FinishedTrial(trial.number, trial.state.name, value, {**trial.params, **rung}, failure, bool(rung))
