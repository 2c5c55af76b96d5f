"""Engine that runs trials sequentially in the current process."""

import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from transfer_platform.engines.base import Engine
from transfer_platform.errors import TrainingError
from transfer_platform.progress import Progress, Step
from transfer_platform.recipe.resolve import resolve
from transfer_platform.recipe.schema import Recipe
from transfer_platform.search.study import FinishedTrial, Pruned, Trial
from transfer_platform.tracking import Run, Tracker
from transfer_platform.training import checkpoint
from transfer_platform.training.failures import trial_failures
from transfer_platform.training.loop import EpochResult, FitResult, objective
from transfer_platform.training.phases import phase_recipes, step_count
from transfer_platform.training.trial_trainer import TrialTrainer

LOGITS = "validation.logits"
"""Key of the validation logits, which a checkpoint stores alongside the weights."""


class LocalEngine(Engine):
    """Runs the trials of one study and saves the best trial to a checkpoint.

    Args:
        recipe: Recipe of the study, including search ranges.
        parent: MLflow run of the study; each trial is logged to a child run.
        checkpoint_path: File for the weights and validation logits of the best trial.
        progress: Called after every epoch.
    """

    def __init__(
        self,
        recipe: Recipe,
        trainer: TrialTrainer,
        tracker: Tracker,
        parent: Run,
        checkpoint_path: Path,
        progress: Progress,
    ) -> None:
        self._recipe, self._trainer, self._checkpoint_path = recipe, trainer, checkpoint_path
        self._tracker, self._parent, self._progress = tracker, parent, progress
        self._objective = objective(recipe)

    def run_trial(self, trial: Trial) -> float:
        """Runs a trial and returns its objective value at the best epoch.

        An interrupted trial restarts from scratch, with the same trial number and in the same MLflow run.

        Raises:
            Pruned: The study pruned the trial.
            TrainingError: The loss is not finite, memory ran out, or the trial's values cannot be used for training.
        """
        run = self._tracker.start_trial_run(self._parent, trial.number, trial.values, resumed=trial.resumed)
        recipe = resolve(self._recipe, trial.values)
        before = sum(map(step_count, phase_recipes(recipe)[:-1]))
        last_logged = run.last_step(self._objective.metric) if trial.resumed else -1

        def after_epoch(epoch: EpochResult) -> None:
            self._log(run, last_logged, trial.number, recipe, epoch)
            # a solved head is finished when its first result is reported, and earlier phases are not compared
            if recipe.head.kind == "linear" and epoch.number > before:
                trial.report(epoch.number - before, epoch.metrics[self._objective.metric])

        with _ending(run), trial_failures("training"):
            result = self._trainer.train(recipe, after_epoch)
            value = result.best.metrics[self._objective.metric]
            run.set_tags({"platform.best_epoch": result.best.number})
            chosen = {name: value for end in result.phases for name, value in _chosen(end).items()}
            run.log_params({f"chosen.{name}": f"{value:.6g}" for name, value in chosen.items()})
            saved_value = checkpoint.metadata(self._checkpoint_path).get("value")
            if saved_value is None or self._objective.is_better(value, float(saved_value)):
                self._save(trial.number, value, result)
        return value

    def train_again(self, trial: FinishedTrial, seed: int) -> float:
        """Trains a finished trial with another seed, without pruning, and returns its value at the best epoch.

        If training is interrupted, it restarts from scratch in the same MLflow run. No checkpoint is saved.

        Raises:
            TrainingError: The loss is not finite, or memory ran out.
        """
        run = self._tracker.start_confirming_run(self._parent, trial.number, trial.params, seed)
        recipe = resolve(self._recipe, trial.params).model_copy(update={"seed": seed})
        last_logged = run.last_step(self._objective.metric)

        with _ending(run), trial_failures("training"):
            result = self._trainer.train(recipe, partial(self._log, run, last_logged, trial.number, recipe))
            run.set_tags({"platform.best_epoch": result.best.number})
        return result.best.metrics[self._objective.metric]

    def restore(self, number: int, recipe: Recipe) -> FitResult:
        """Returns the training result of the best trial.

        Retrains the trial if there is no checkpoint for it. `recipe` must contain the values of this trial.
        """
        result = self._load(number)
        if result is None:
            result = self._trainer.train(recipe, lambda epoch: self._report_progress(number, recipe, epoch))
            self._save(number, result.best.metrics[self._objective.metric], result)
        return result

    def _log(self, run: Run, last_logged: int, number: int, recipe: Recipe, epoch: EpochResult) -> None:
        """Logs an epoch, unless an earlier process has done so, and reports the progress."""
        if epoch.number > last_logged:
            run.log_metrics(epoch.metrics, epoch.number)
        self._report_progress(number, recipe, epoch)

    def _save(self, number: int, value: float, result: FitResult) -> None:
        phases = [[end.number, _chosen(end)] for end in result.phases]
        metadata = {"trial": str(number), "value": repr(value), "phases": json.dumps(phases)}
        checkpoint.save({**result.weights, LOGITS: result.logits}, self._checkpoint_path, metadata)

    def _load(self, number: int) -> FitResult | None:
        """Loads a trial's result at the best epoch; returns None if there is no checkpoint for this trial."""
        metadata = checkpoint.metadata(self._checkpoint_path)
        if metadata.get("trial") != str(number) or "phases" not in metadata:
            return None
        tensors = checkpoint.load(self._checkpoint_path)
        logits = tensors.pop(LOGITS)
        phases = [EpochResult(end, chosen) for end, chosen in json.loads(metadata["phases"])]
        best = EpochResult(phases[-1].number, {**phases[-1].metrics, self._objective.metric: float(metadata["value"])})
        return FitResult((best,), best, logits, tensors, phases=(*phases[:-1], best))

    def _report_progress(self, number: int, recipe: Recipe, epoch: EpochResult) -> None:
        metrics = ("train/loss", self._objective.metric)
        text = "  ".join(f"{name} {epoch.metrics[name]:.3f}" for name in metrics if name in epoch.metrics)
        phases = phase_recipes(recipe)
        unit = "epochs" if "learning_rate" in epoch.metrics else "values"
        total = sum(map(step_count, phases))
        self._progress(Step("trial", epoch.number, total, unit, f"{number}: {text}"))


def _chosen(epoch: EpochResult) -> dict[str, float]:
    """Returns the hyperparameters that a solved head has chosen."""
    return {name: value for name, value in epoch.metrics.items() if name.startswith("head/")}


@contextmanager
def _ending(run: Run) -> Iterator[None]:
    """On exit, records whether the trial completed, failed or was pruned, and ends its MLflow run."""
    try:
        yield
    except Pruned:
        run.set_tags({"platform.state": "PRUNED"})
        run.end("KILLED")
        raise
    except Exception as error:  # recorded in the run; the study decides how to continue
        run.set_tags({"platform.state": "FAILED", "platform.failure": f"{type(error).__name__}: {error}"})
        # The message of a `TrainingError` contains only the first line of the original error.
        if error.__cause__ or not isinstance(error, TrainingError):
            run.log_text("".join(traceback.format_exception(error)), "failure.txt")
        run.end("FAILED")
        raise
    run.set_tags({"platform.state": "COMPLETE"})
    run.end()
