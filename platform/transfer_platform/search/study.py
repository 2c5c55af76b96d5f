"""The study: which values the next trial tries, what became of the trials, and which was best.

With `sampling`, which it imports, the only module of this package that knows Optuna. Whoever runs trials sees
a `Trial`: its number, its values, and whether to go on.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
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
    """The trial is not worth going on with."""


@dataclass(frozen=True)
class FinishedTrial:
    """A trial that has ended.

    Attributes:
        number: Counted from 0.
        state: `COMPLETE`, `PRUNED` or `FAIL`.
        value: The ranked metric at its best epoch; None unless it was completed.
        params: Dotted field of the recipe -> the value that was tried.
        failure: Why it failed; empty otherwise.
    """

    number: int
    state: str
    value: float | None
    params: dict[str, Any]
    failure: str = ""

    def __str__(self) -> str:
        shown = self.failure or ("" if self.value is None else f"{self.value:.4f}")
        return f"trial {self.number}: {self.state.lower()} {shown}".rstrip()


class Trial:
    """One trial of a study, as the engine that runs it sees it.

    Attributes:
        number: Counted from 0, in the order of the study.
        values: Dotted field of the recipe -> the value to try.
        resumed: Whether an earlier process has begun it.
    """

    def __init__(self, trial: optuna.Trial, values: dict[str, Any], *, resumed: bool, pruning: bool) -> None:
        self._trial, self._pruning = trial, pruning
        known = trial.study.get_trials(deepcopy=False)[trial.number] if pruning else None
        self._reported = set(known.intermediate_values) if known else set()
        self.number = trial.number
        self.values = values
        self.resumed = resumed

    @property
    def attrs(self) -> dict[str, Any]:
        """What was noted about this trial, also before an interruption."""
        return self._trial.user_attrs

    def set_attr(self, key: str, value: object) -> None:
        """Keeps a JSON value with the trial."""
        self._trial.set_user_attr(key, value)

    def report(self, epoch: int, value: float) -> None:
        """Shows the pruner the ranked metric of an epoch; without one nobody waits for the database.

        Raises:
            Pruned: The study's pruner gives the trial up.
        """
        if not self._pruning:
            return
        if epoch not in self._reported:
            self._trial.report(value, epoch)
        if self._trial.should_prune():
            raise Pruned


class Study:
    """A resumable Optuna study whose proposals do not depend on when it was interrupted.

    Args:
        name: Unique in the database; the same name opens the same study.
        url: Database URL.
        space: What to vary; empty for a single trial.
        minimizes: Whether a smaller value is better.
        seed: Of the proposals.
        pruning: Whether to end trials early that are worse than the median.
    """

    def __init__(
        self, name: str, url: str, space: Space, *, minimizes: bool, seed: int, pruning: bool
    ) -> None:
        self._space = {field: _distribution(span) for field, span in space.items()}
        pruner: BasePruner = MedianPruner(n_startup_trials=5, n_warmup_steps=2) if pruning else NopPruner()
        self._storage = RDBStorage(url)
        self._study: OptunaStudy = optuna.create_study(
            storage=self._storage,
            study_name=name,
            sampler=ReproducibleSampler(seed),
            pruner=pruner,
            direction="minimize" if minimizes else "maximize",
            load_if_exists=True,
        )
        self.name = name
        self._pruning = pruning

    @property
    def attrs(self) -> dict[str, Any]:
        """What was noted about the study as a whole."""
        return self._study.user_attrs

    def set_attr(self, key: str, value: object) -> None:
        """Keeps a JSON value with the study."""
        self._study.set_user_attr(key, value)

    def close(self) -> None:
        """Closes the connections to the database; a closed study opens new ones if it is used again."""
        self._storage.engine.dispose()

    @property
    def finished(self) -> int:
        """How many trials have ended, whichever way."""
        return len(self._study.get_trials(deepcopy=False, states=FINISHED))

    @property
    def trials(self) -> list[FinishedTrial]:
        """The trials that have ended, in order."""
        return [_ended(trial) for trial in self._study.get_trials(deepcopy=False, states=FINISHED)]

    @property
    def best(self) -> FinishedTrial:
        """The completed trial with the best value; of equal ones the first.

        Raises:
            StudyError: No trial was completed; the message says why each failed.
        """
        trials = self.trials
        if any(trial.state == TrialState.COMPLETE.name for trial in trials):
            return _ended(self._study.best_trial)
        raise StudyError(
            "no trial of the study was completed:\n"
            + "\n".join(f"  {trial}" for trial in trials)
            + "\nchange what the messages name in the recipe, or start over with --fresh"
        )

    def table(self) -> dict[str, list[object]]:
        """Columns `trial`, `state`, `value`, and one for every field that the study varies."""
        trials = self.trials
        return {
            "trial": [trial.number for trial in trials],
            "state": [trial.state for trial in trials],
            "value": [trial.value for trial in trials],
            **{field: [trial.params.get(field) for trial in trials] for field in self._space},
        }

    def run(
        self, trials: int, objective: Callable[[Trial], float], ended: Callable[[FinishedTrial], None]
    ) -> None:
        """Runs trials until the study has as many as asked for, interrupted ones first.

        Args:
            trials: In all, earlier ones included.
            objective: Runs one trial to its value; may raise `Pruned`, `TrainingError`, or run out of memory,
                which ends that trial only.
            ended: Called with every trial that has ended.
        """
        for interrupted in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._settle(optuna.Trial(self._study, interrupted._trial_id), objective, ended, resumed=True)
        while self.finished < trials:
            self._settle(self._study.ask(), objective, ended, resumed=False)

    def _settle(
        self,
        trial: optuna.Trial,
        objective: Callable[[Trial], float],
        ended: Callable[[FinishedTrial], None],
        *,
        resumed: bool,
    ) -> None:
        values = {field: trial._suggest(field, span) for field, span in self._space.items()}
        self._tell(trial, Trial(trial, values, resumed=resumed, pruning=self._pruning), objective)
        ended(_ended(self._study.get_trials(deepcopy=False)[trial.number]))

    def _tell(self, trial: optuna.Trial, seen: Trial, objective: Callable[[Trial], float]) -> None:
        try:
            value = objective(seen)
        except Pruned:
            self._study.tell(trial, state=TrialState.PRUNED)
        except (TrainingError, MemoryError, RuntimeError) as error:
            if not (isinstance(error, TrainingError) or is_out_of_memory(error)):
                raise
            trial.set_user_attr("failure", (str(error).splitlines() or [type(error).__name__])[0])
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, value)


def _ended(trial: FrozenTrial) -> FinishedTrial:
    value = trial.value if trial.state is TrialState.COMPLETE else None
    return FinishedTrial(
        trial.number, trial.state.name, value, trial.params, trial.user_attrs.get("failure", "")
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine ran out of memory; on the CPU torch says so in words only."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
        or "out of memory" in str(error)
    )


def _distribution(span: Range[Any] | Choice[Any]) -> BaseDistribution:
    if isinstance(span, Choice):
        return CategoricalDistribution(span.choices)
    if isinstance(span.low, int) and isinstance(span.high, int) and isinstance(span.step, int | None):
        return IntDistribution(span.low, span.high, log=span.log, step=span.step or 1)
    return FloatDistribution(span.low, span.high, log=span.log, step=span.step)


def create_tables(url: str) -> None:
    """Creates Optuna's tables in an empty database."""
    RDBStorage(url).engine.dispose()


def restart_count(name: str, url: str) -> int:
    """How many studies of a name there are, each started over from the one before; see `restarted_name`."""
    storage = RDBStorage(url)
    names = set(optuna.get_all_study_names(storage))
    storage.engine.dispose()
    return next(count for count in itertools.count() if restarted_name(name, count + 1) not in names)


def restarted_name(name: str, count: int) -> str:
    """The name of a study that was started over `count - 1` times."""
    return name if count == 1 else f"{name}-{count}"


def study_figures(study: Study) -> dict[str, Any]:
    """Matplotlib figures: `history`, `importance` where it can be told, `pruning` where there is any."""
    from optuna.visualization import matplotlib as plots

    optuna_study = study._study
    drawings: dict[str, Callable[[OptunaStudy], Any]] = {"history": plots.plot_optimization_history}
    if study._pruning:
        drawings["pruning"] = plots.plot_intermediate_values
    if len(optuna_study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) > 1 and study._space:
        drawings["importance"] = plots.plot_param_importances
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return {name: draw(optuna_study).figure for name, draw in drawings.items()}
