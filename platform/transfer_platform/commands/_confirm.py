"""Further trainings of the best trials with other seeds, after the search."""

from collections.abc import Sequence

from transfer_platform.engines.base import Engine
from transfer_platform.plurals import counted
from transfer_platform.progress import Progress, Say, Step
from transfer_platform.recipe.resolve import resolve
from transfer_platform.recipe.schema import Recipe
from transfer_platform.recipe.seeds import confirming_seeds, depends_on_seed
from transfer_platform.search.confirmation import Confirmation, choose_best_value
from transfer_platform.search.study import FinishedTrial, Study
from transfer_platform.tracking import Run
from transfer_platform.training.loop import objective

TABLE_FILE = "study/seeds.json"


def confirm_best(recipe: Recipe, study: Study, engine: Engine, parent: Run, progress: Progress, say: Say) -> None:
    """Chooses the best trial of a finished search: by its mean over seeds, or by its value without `search.confirm`.

    Trainings that an earlier process has finished are not repeated. `parent` is the MLflow run of the study.

    Raises:
        StudyError: No trial has completed, or each of the best trials has failed with one of the seeds.
    """
    if recipe.search is None or recipe.search.confirm is None:
        choose_best_value(study)
        return
    confirmation = Confirmation(study, recipe.search.confirm.top, lambda trial: _seeds(recipe, trial))
    total = len(confirmation.missing)

    def report(trial: FinishedTrial, seed: int, result: str) -> None:
        done = total - len(confirmation.missing)
        progress(Step("confirmation", done, total, "trainings"))
        say(f"trial {trial.number} with seed {seed}: {result}")

    if total:
        say(f"Training the best trials with further seeds: {counted(total, 'training')}")
    confirmation.run(engine.train_again, report)
    candidates, metric = confirmation.candidates, objective(recipe).metric
    for trial in candidates:
        say(
            f"trial {trial.number}: {f'not confirmed: {trial.failure}' if trial.failure else f'{metric} {trial.score}'}"
        )
    parent.log_table(_table(candidates), TABLE_FILE)
    confirmation.choose()


def _seeds(recipe: Recipe, trial: FinishedTrial) -> Sequence[int]:
    seeds = confirming_seeds(recipe)
    return seeds if depends_on_seed(resolve(recipe, trial.params)) else seeds[:1]


def _table(candidates: Sequence[FinishedTrial]) -> dict[str, list[object]]:
    """Returns a table with a row for each trial and a column for each seed."""
    seeds = sorted({seed for trial in candidates for seed in trial.seed_values})
    return {
        "trial": [trial.number for trial in candidates],
        "mean": [None if trial.failure else trial.mean for trial in candidates],
        "standard_deviation": [None if trial.failure else trial.noise for trial in candidates],
        "failure": [trial.failure for trial in candidates],
        **{f"seed {seed}": [trial.seed_values.get(seed) for trial in candidates] for seed in seeds},
    }
