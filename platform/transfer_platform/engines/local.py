"""Trials in this process, one after the other: each logged as a child run, the best one's weights kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from transfer_model.network import Network
from transfer_platform.progress import Progress, Step
from transfer_platform.recipe.resolve import resolve
from transfer_platform.recipe.schema import Recipe
from transfer_platform.search.study import Pruned, Trial
from transfer_platform.tracking import Run, Tracker
from transfer_platform.training import checkpoint
from transfer_platform.training.loop import EpochResult, FitResult
from transfer_platform.training.trial_trainer import TrialTrainer, objective

LOGITS = "validation.logits"
"""What a checkpoint holds beside weights: the validation logits at the best epoch."""


@dataclass(frozen=True)
class RestoredTrial:
    """The best trial of a study.

    Attributes:
        network: At the weights to serve, in eval mode.
        fit: What it came to.
    """

    network: Network
    fit: FitResult


class LocalEngine:
    """Runs the trials of one study.

    Args:
        recipe: Of the study, ranges included.
        bench: Where networks are trained.
        tracker: Of the study's experiment.
        parent: The study's run.
        best: The file that keeps the weights of the best trial.
        progress: Told about every epoch.
    """

    def __init__(
        self,
        recipe: Recipe,
        bench: TrialTrainer,
        tracker: Tracker,
        parent: Run,
        best: Path,
        progress: Progress,
    ) -> None:
        self._recipe, self._bench, self._best = recipe, bench, best
        self._tracker, self._parent, self._progress = tracker, parent, progress
        self._goal = objective(recipe)

    def run_trial(self, trial: Trial) -> float:
        """Runs a trial to its value: the ranked metric at its best epoch.

        A trial that was interrupted starts over under its number and in its run; steps that the run has
        already are not logged twice.

        Raises:
            Pruned: The study gives the trial up.
            DivergedError: The loss is not a finite number any more.
        """
        run = self._tracker.start_trial_run(self._parent, trial.number, trial.values, resumed=trial.resumed)
        recipe = resolve(self._recipe, trial.values)
        logged = run.last_step(self._goal.metric) if trial.resumed else 0

        def after_epoch(epoch: EpochResult) -> None:
            if epoch.number > logged:
                run.log_metrics(epoch.metrics, epoch.number)
            self._tell(trial.number, recipe, epoch)
            trial.report(epoch.number, epoch.metrics[self._goal.metric])

        with _ended(run):
            fitted = self._bench.train(recipe, after_epoch)
            value = fitted.best.metrics[self._goal.metric]
            run.set_tags({"platform.best_epoch": fitted.best.number})
            self._keep_if_best(trial.number, value, fitted)
        return value

    def restore(self, number: int, recipe: Recipe) -> RestoredTrial:
        """The network of the study's best trial, and what it made of the validation images.

        Args:
            number: Of the trial.
            recipe: Resolved with the trial's values.

        Returns:
            From its checkpoint; where that is lost the trial is trained again, to the same weights.
        """
        fitted = self._kept(number)
        if fitted is None:
            fitted = self._bench.train(recipe, lambda epoch: self._tell(number, recipe, epoch))
            self._keep(number, fitted.best.metrics[self._goal.metric], fitted)
        return RestoredTrial(self._bench.finalize(recipe, fitted), fitted)

    def _keep_if_best(self, number: int, value: float, fitted: FitResult) -> None:
        kept = checkpoint.metadata(self._best).get("value")
        if kept is None or self._goal.is_better(value, float(kept)):
            self._keep(number, value, fitted)

    def _keep(self, number: int, value: float, fitted: FitResult) -> None:
        about = {"trial": str(number), "value": repr(value), "epoch": str(fitted.best.number)}
        checkpoint.save({**fitted.weights, LOGITS: fitted.logits}, self._best, about)

    def _kept(self, number: int) -> FitResult | None:
        """What a trial came to, as far as its checkpoint tells; None where it keeps another trial's."""
        about = checkpoint.metadata(self._best)
        if about.get("trial") != str(number):
            return None
        tensors = checkpoint.load(self._best)
        logits = tensors.pop(LOGITS)
        best = EpochResult(int(about["epoch"]), {self._goal.metric: float(about["value"])})
        return FitResult((best,), best, logits, tensors)

    def _tell(self, number: int, recipe: Recipe, epoch: EpochResult) -> None:
        figures = "  ".join(f"{name} {epoch.metrics[name]:.3f}" for name in ("train/loss", self._goal.metric))
        self._progress(Step("trial", epoch.number, recipe.training.epochs, "epochs", f"{number}: {figures}"))


@contextmanager
def _ended(run: Run) -> Iterator[None]:
    """Ends a trial's run as what it came to: finished, killed where it was pruned, failed where it failed."""
    try:
        yield
    except Pruned:
        run.set_tags({"platform.state": "PRUNED"})
        run.end("KILLED")
        raise
    except Exception as error:  # whatever it is, the run says so, and others decide what follows
        run.set_tags({"platform.state": "FAILED", "platform.failure": f"{type(error).__name__}: {error}"})
        run.end("FAILED")
        raise
    run.set_tags({"platform.state": "COMPLETE"})
    run.end()
