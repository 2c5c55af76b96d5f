"""Resumable Optuna study: proposes values, runs trials and ranks them.

Only this package imports Optuna. An objective receives a `Trial`: its number, its values, and whether it is
pruned.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.storages import RDBStorage
from optuna.study import Study as OptunaStudy
from optuna.trial import FrozenTrial, TrialState

from transfer_platform.errors import StudyError, TrainingError
from transfer_platform.recipe.search_space import Choice, Range, Space
from transfer_platform.search.samplers import ReproducibleSampler

optuna.logging.set_verbosity(optuna.logging.WARNING)


FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class Pruned(Exception):  # noqa: N818 - a decision, not an error
    """The pruner stopped the trial early."""


@dataclass(frozen=True)
class FinishedTrial:
    """A trial that has ended.

    Attributes:
        number: Number of the trial, from 0.
        state: `COMPLETE`, `PRUNED` or `FAIL`.
        value: Ranked metric at the best epoch; None unless the trial was completed.
        params: Values by dotted recipe field.
        failure: Error message of a failed trial, otherwise empty.
    """

    number: int
    state: str
    value: float | None
    params: dict[str, Any]
    failure: str = ""

    def __str__(self) -> str:
        result = self.failure or ("" if self.value is None else f"{self.value:.4f}")
        return f"trial {self.number}: {self.state.lower()} {result}".rstrip()


class Trial:
    """A running trial, as an engine sees it.

    Attributes:
        number: Number of the trial, from 0.
        values: Proposed values by dotted recipe field.
        resumed: True if an earlier process started the trial.
    """

    def __init__(self, trial: optuna.Trial, values: dict[str, Any], *, resumed: bool, pruning: bool) -> None:
        self._trial, self._pruning = trial, pruning
        self._reported: set[int] = set()
        if pruning:
            stored = trial.study.get_trials(deepcopy=False)[trial.number]
            self._reported |= set(stored.intermediate_values)
        self.number = trial.number
        self.values = values
        self.resumed = resumed

    def report(self, epoch: int, value: float) -> None:
        """Reports the ranked metric of an epoch to the pruner; does nothing in a study without pruning.

        Raises:
            Pruned: The trial should stop.
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
        name: Unique name in the database; an existing study of this name is opened.
        url: Database URL.
        space: Search space; empty for a single trial.
        minimizes: True if lower values are better.
        seed: Seed of the proposals.
        pruning: True to stop trials early that are worse than the median.

    Attributes:
        optuna_study: The underlying Optuna study.
    """

    def __init__(self, name: str, url: str, space: Space, *, minimizes: bool, seed: int, pruning: bool) -> None:
        pruner: BasePruner = MedianPruner(n_startup_trials=5, n_warmup_steps=2) if pruning else NopPruner()
        self._storage = RDBStorage(url)
        self.optuna_study: OptunaStudy = optuna.create_study(
            storage=self._storage,
            study_name=name,
            sampler=ReproducibleSampler(seed),
            pruner=pruner,
            direction="minimize" if minimizes else "maximize",
            load_if_exists=True,
        )
        self.name, self.space, self.pruning = name, space, pruning

    @property
    def user_attrs(self) -> dict[str, Any]:
        """User attributes of the study."""
        return self.optuna_study.user_attrs

    def set_user_attr(self, key: str, value: object) -> None:
        """Stores a JSON value with the study."""
        self.optuna_study.set_user_attr(key, value)

    def close(self) -> None:
        """Closes the database connections; using the study again opens new ones."""
        self._storage.engine.dispose()

    @property
    def finished_count(self) -> int:
        """Number of trials that have ended, in any state."""
        return len(self.optuna_study.get_trials(deepcopy=False, states=FINISHED))

    @property
    def trials(self) -> list[FinishedTrial]:
        """Trials that have ended, by number."""
        trials = self.optuna_study.get_trials(deepcopy=False, states=FINISHED)
        return [_finished_trial(trial) for trial in trials]

    @property
    def best(self) -> FinishedTrial:
        """Completed trial with the best value; the first of several with equal values.

        Raises:
            StudyError: No trial was completed.
        """
        trials = self.trials
        if any(trial.state == TrialState.COMPLETE.name for trial in trials):
            return _finished_trial(self.optuna_study.best_trial)
        raise StudyError(
            "no trial of the study was completed:\n"
            + "\n".join(f"  {trial}" for trial in trials)
            + "\nchange the recipe as the messages suggest, or start a new study with --fresh"
        )

    def table(self) -> dict[str, list[object]]:
        """Returns the columns `trial`, `state`, `value` and one per searched field."""
        trials = self.trials
        return {
            "trial": [trial.number for trial in trials],
            "state": [trial.state for trial in trials],
            "value": [trial.value for trial in trials],
            **{field: [trial.params.get(field) for trial in trials] for field in self.space},
        }

    def run(
        self, trials: int, objective: Callable[[Trial], float], on_trial_end: Callable[[FinishedTrial], None]
    ) -> None:
        """Runs trials until the study has the requested number; interrupted trials run first.

        Args:
            trials: Total number of trials, earlier ones included.
            objective: Runs one trial and returns its value. `Pruned`, `TrainingError` and running out of
                memory end the trial; other exceptions end the study.
            on_trial_end: Called with every trial that has ended.
        """
        running = self.optuna_study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for interrupted in running:
            trial = optuna.Trial(self.optuna_study, interrupted._trial_id)
            on_trial_end(self._run_trial(trial, objective, resumed=True))
        while self.finished_count < trials:
            on_trial_end(self._run_trial(self.optuna_study.ask(), objective, resumed=False))

    def _run_trial(self, trial: optuna.Trial, objective: Callable[[Trial], float], *, resumed: bool) -> FinishedTrial:
        # Not `ask(fixed_distributions=...)`: a trial that was killed while values were proposed lacks some.
        values = {field: _suggest(trial, field, span) for field, span in self.space.items()}
        try:
            value = objective(Trial(trial, values, resumed=resumed, pruning=self.pruning))
        except Pruned:
            self.optuna_study.tell(trial, state=TrialState.PRUNED)
        except (TrainingError, MemoryError, RuntimeError) as error:
            if not (isinstance(error, TrainingError) or is_out_of_memory(error)):
                raise
            trial.set_user_attr("failure", (str(error).splitlines() or [type(error).__name__])[0])
            self.optuna_study.tell(trial, state=TrialState.FAIL)
        else:
            self.optuna_study.tell(trial, value)
        return _finished_trial(self.optuna_study.get_trials(deepcopy=False)[trial.number])


def is_out_of_memory(error: BaseException) -> bool:
    """Returns True if a device or the machine ran out of memory; on CPU, torch raises a RuntimeError."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
        or "out of memory" in str(error)
    )


def create_tables(url: str) -> None:
    """Creates Optuna's tables in an empty database."""
    RDBStorage(url).engine.dispose()


def count_studies(name: str, url: str) -> int:
    """Returns the number of studies that were started under a name, see `numbered_name`."""
    storage = RDBStorage(url)
    names = set(optuna.get_all_study_names(storage))
    storage.engine.dispose()
    return next(count for count in itertools.count() if numbered_name(name, count + 1) not in names)


def numbered_name(name: str, number: int) -> str:
    """Returns the name of the first, second, ... study that is started under a name."""
    return name if number == 1 else f"{name}-{number}"


def _suggest(trial: optuna.Trial, field: str, span: Range[Any] | Choice[Any]) -> Any:  # noqa: ANN401
    if isinstance(span, Choice):
        return trial.suggest_categorical(field, span.choices)
    if isinstance(span.low, int) and isinstance(span.high, int) and isinstance(span.step, int | None):
        return trial.suggest_int(field, span.low, span.high, log=span.log, step=span.step or 1)
    return trial.suggest_float(field, span.low, span.high, log=span.log, step=span.step)


def _finished_trial(trial: FrozenTrial) -> FinishedTrial:
    value = trial.value if trial.state is TrialState.COMPLETE else None
    failure = trial.user_attrs.get("failure", "")
    return FinishedTrial(trial.number, trial.state.name, value, trial.params, failure)
