"""Matplotlib figures for a study."""

import warnings
from collections.abc import Callable
from typing import Any

from optuna.exceptions import ExperimentalWarning
from optuna.study import Study as OptunaStudy
from optuna.trial import TrialState
from optuna.visualization import matplotlib as plots

from transfer_platform.search.study import Study


def study_figures(study: Study) -> dict[str, Any]:
    """Returns the figures `history`, `pruning` and `importance`, keyed by name.

    Includes `pruning` only if trials reported values to the pruner, and `importance` only if at least two trials of a
    search completed.
    """
    optuna_study = study.optuna_study
    functions: dict[str, Callable[[OptunaStudy], Any]] = {"history": plots.plot_optimization_history}
    if any(trial.intermediate_values for trial in optuna_study.get_trials(deepcopy=False)):
        functions["pruning"] = plots.plot_intermediate_values
    completed = optuna_study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if study.space and len(completed) > 1:
        functions["importance"] = plots.plot_param_importances
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        # Optuna warns if all completed trials have the same values, which happens if the other values fail.
        warnings.simplefilter("ignore", UserWarning)
        return {name: plot(optuna_study).figure for name, plot in functions.items()}
