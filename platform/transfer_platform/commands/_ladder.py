"""Climbs the ladder of a study, which unfreezes more and more stages.

Each rung starts from the network of the search's best trial. A rung is accepted if the mean improvement over the best
trial so far exceeds its standard error, both paired by image. The first rung that is not accepted ends the ladder.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from transfer_platform.data.splits import Splits
from transfer_platform.engines.local import LocalEngine
from transfer_platform.errors import TrainingError
from transfer_platform.evaluation.calibration import calibrated_losses
from transfer_platform.progress import Say
from transfer_platform.recipe.ladder import rung_stages, rung_values
from transfer_platform.recipe.resolve import resolve
from transfer_platform.recipe.schema import Recipe
from transfer_platform.recipe.search_schema import LadderConfig
from transfer_platform.search.study import FinishedTrial, Study
from transfer_platform.training.dry_run import dry_run_training
from transfer_platform.training.trial_trainer import TrialTrainer

Losses = NDArray[np.float64]
"""Cross-entropy (N,) of each held-out image after temperature scaling, in nats."""


@dataclass(frozen=True)
class Rung:
    """Result of a rung.

    Attributes:
        freeze_through: Last frozen stage, or `none`.
        trial: Number of the rung's best trial; None, like all further attributes, if all its trials failed.
        loss: Mean loss of the held-out images.
        improvement: Mean difference to the loss of the best trial before this rung.
        error: Standard error of the improvement; None if there is only one held-out image.
    """

    freeze_through: str
    trial: int | None = None
    loss: float | None = None
    improvement: float | None = None
    error: float | None = None

    @property
    def is_accepted(self) -> bool:
        """True if the improvement exceeds its standard error."""
        return self.improvement is not None and self.error is not None and self.improvement > self.error

    def __str__(self) -> str:
        if self.loss is None or self.improvement is None:
            return f"frozen through {self.freeze_through}: all trials failed; the ladder ends"
        result = "accepted" if self.is_accepted else "not accepted; the ladder ends"
        error = "unknown" if self.error is None else f"{self.error:.4f}"
        change = f"improvement {self.improvement:+.4f} (standard error {error})"
        return f"frozen through {self.freeze_through}: loss of held-out images {self.loss:.4f}, {change}: {result}"


@dataclass(frozen=True)
class Ladder:
    """The ladder of one study.

    Attributes:
        engine: Returns the engine for the trials of a rung, given its last frozen stage; "" for those of the search.
    """

    recipe: Recipe
    splits: Splits
    study: Study
    trainer: TrialTrainer
    engine: Callable[[str], LocalEngine]
    say: Say

    def climb(self) -> list[Rung]:
        """Tries rungs in order until one is not accepted, and makes the last accepted one the study's best trial.

        Rungs that an earlier process has finished are not run again.
        """
        start = self.study.best_of_search
        stages = self._stages(start)
        if not stages or not self._can_be_trained(start):
            self.study.set_ladder_result(start, start, self.settings)
            return []
        self.say("Fine-tuning further stages (to leave this out, add -o search.ladder=null to the command)")
        best, winner, rungs = self._losses(start, self.engine("")), start, list[Rung]()
        for stage in stages:
            trial = self._run(stage, start)
            losses = None if trial is None else self._losses(trial, self.engine(stage), best)
            rungs.append(_rung(stage, trial, best, losses))
            self.say(str(rungs[-1]))
            if trial is None or losses is None or not rungs[-1].is_accepted:
                break
            best, winner = losses, trial
        self.study.set_ladder_result(start, winner, self.settings)
        return rungs

    @property
    def has_ended(self) -> bool:
        """True if an earlier process has climbed this ladder from the same trial."""
        return self.study.has_ladder_result(self.settings)

    @property
    def settings(self) -> dict[str, object]:
        """The settings of the ladder as JSON values."""
        return self._config.model_dump(mode="json")

    def _can_be_trained(self, start: FinishedTrial) -> bool:
        """Checks the networks of all rungs before the first one is trained."""
        values = [values for stage in self._stages(start) for values in rung_values(self._config, stage)]
        try:
            for rung in values:
                dry_run_training(self.trainer, [resolve(self.recipe, {**start.params, **rung})], self.say)
        except TrainingError as error:
            self.say(f"the ladder is left out: {error}")
            return False
        return True

    def _stages(self, start: FinishedTrial) -> list[str]:
        backbone = resolve(self.recipe, start.params).backbone
        return rung_stages(self._config, backbone.architecture, backbone.freeze_through)

    @property
    def _config(self) -> LadderConfig:
        ladder = self.recipe.search and self.recipe.search.ladder
        assert ladder, "the recipe has no ladder"
        return ladder

    def _run(self, stage: str, start: FinishedTrial) -> FinishedTrial | None:
        """Runs the trials of a rung and returns the best of them; None if all of them failed."""
        run = self.engine(stage).run_trial
        trials = [self.study.run_rung(start, values, run) for values in rung_values(self._config, stage)]
        completed = [trial for trial in trials if trial.value is not None]
        return min(completed, key=lambda trial: trial.value or 0.0, default=None)

    def _losses(self, trial: FinishedTrial, engine: LocalEngine, start: Losses | None = None) -> Losses:
        """Returns the losses of a trial; `start` if no epoch of its final phase was better than the start."""
        recipe = resolve(self.recipe, trial.params)
        result = engine.restore(trial.number, recipe)
        if start is not None and len(result.phases) <= len(recipe.training.initial_phases):
            return start
        return calibrated_losses(result.logits.numpy(), np.array(self.splits.labels(self.splits.selection)))


def rung_table(rungs: Sequence[Rung]) -> dict[str, list[object]]:
    """Returns a table of rungs with one column per attribute."""
    rows = [{**asdict(rung), "accepted": rung.is_accepted} for rung in rungs]
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def _rung(stage: str, trial: FinishedTrial | None, before: Losses, losses: Losses | None) -> Rung:
    if trial is None or losses is None:
        return Rung(stage)
    improvements = before - losses
    count = len(improvements)
    error = float(improvements.std(ddof=1)) / math.sqrt(count) if count > 1 else None
    return Rung(stage, trial.number, float(losses.mean()), float(improvements.mean()), error)
