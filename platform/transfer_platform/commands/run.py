"""`platform run`: search, evaluate, register and promote.

Every step is idempotent: to resume a run that was killed, repeat the same command.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from transfer_platform.commands._open import OpenedRecipe, open_recipe
from transfer_platform.plurals import counted

# isort: split
from transfer_model.architecture import Architecture
from transfer_model.classifier import FILES
from transfer_platform import databases, paths
from transfer_platform.commands._confirm import confirm_best
from transfer_platform.commands._ladder import Ladder, rung_table
from transfer_platform.commands._trainer import feature_store, fetch_all_weights, make_trainer, network_variants
from transfer_platform.commands.conclude import Conclusion, conclude, load_conclusion
from transfer_platform.commands.outcome import Outcome
from transfer_platform.commands.run_report import (
    log_data,
    log_first_batch,
    log_inputs,
    log_label_errors,
    log_machine,
    log_network,
    log_study,
    log_validation,
    validation_predictions,
)
from transfer_platform.data.splits import Splits
from transfer_platform.engines.local import LocalEngine
from transfer_platform.inspection.findings import Severity
from transfer_platform.inspection.inspection import Inspection
from transfer_platform.inspection.report import warning_counts
from transfer_platform.progress import Progress, Say, Step, silent
from transfer_platform.recipe.resolve import resolve, search_ranges, study_identity, trial_count
from transfer_platform.recipe.schema import Recipe
from transfer_platform.recipe.variants import require_no_variants
from transfer_platform.search.study import FinishedTrial, Study, count_studies, numbered_name
from transfer_platform.search.study_database import create_tables
from transfer_platform.sources.weights import PretrainedWeights
from transfer_platform.tracking import Run, Tracker
from transfer_platform.training.artifact import write_artifact
from transfer_platform.training.dry_run import dry_run_serving, dry_run_training
from transfer_platform.training.loop import FitResult, objective
from transfer_platform.training.trial_trainer import TrialTrainer
from transfer_registry import mlflow_server
from transfer_registry.files import atomic_database
from transfer_registry.locks import study_lock
from transfer_registry.mlflow_registry import champion_version
from transfer_registry.packaging import artifact_digest


def run(
    recipe: Recipe | Path | str,
    *,
    overrides: Sequence[str] = (),
    variant: str | None = None,
    fresh: bool = False,
    device: str = "auto",
    progress: Progress = silent,
    say: Say = silent,
) -> Outcome:
    """Runs the recipe's hyperparameter search, evaluates the best trial and submits it to the gate.

    An interrupted study is resumed. A finished study is neither repeated nor reevaluated.

    Args:
        recipe: Recipe file, name of a shipped recipe, or loaded recipe. Relative paths in a loaded recipe are
            resolved against the current folder.
        overrides: Overrides such as `training.epochs=3`; only supported for a file or a shipped recipe.
        variant: Name of one of the recipe's variants; required if it has any.
        fresh: Start a new study instead of resuming an existing one.
        device: `auto` or a torch device.
        progress: Called during long steps.
        say: Called with each message that should stay on the screen.

    Raises:
        TransferError: The recipe, its data, the databases or the registry cannot be used.
    """
    opened = open_recipe(recipe, overrides, progress, say, _require_runnable, variant)
    splits, store = opened.trainable_splits(), feature_store()
    say(_image_counts(opened.inspection, splits))
    weights = fetch_all_weights(opened.recipe, opened.folder, progress)
    name, database = _study_name(opened.recipe, splits, weights), databases.studies_url()
    home = paths.studies_folder() / name
    with study_lock(name, home, database), closing(_open_study(name, database, opened.recipe, fresh)) as study:
        trainer = make_trainer(opened.recipe, splits, weights, device, store, progress, say)
        tracker = Tracker(opened.experiment, say)
        with tracker.start_study_run(study.name, {"platform.dataset": splits.fingerprint}) as parent:
            session = _Session(opened, splits, study, trainer, tracker, parent, home, progress, say)
            session.log_start(weights)
            session.search()
            confirm_best(session.recipe, study, session.engine, parent, progress, say)
            session.climb_ladder()
            session.report()
            conclusion = session.conclude()
    promotion = conclusion.promotion
    champion = champion_version(promotion.model) if promotion else None
    return Outcome(
        study, objective(opened.recipe).metric, conclusion.metrics, promotion, parent.run_id, home / "model", champion
    )


@dataclass(frozen=True)
class _Session:
    """State of a study while its MLflow run is open."""

    opened: OpenedRecipe
    splits: Splits
    study: Study
    trainer: TrialTrainer
    tracker: Tracker
    parent: Run
    home: Path
    progress: Progress
    say: Say

    @property
    def recipe(self) -> Recipe:
        return self.opened.recipe

    @cached_property
    def engine(self) -> LocalEngine:
        return self.engine_for("")

    def engine_for(self, rung: str) -> LocalEngine:
        """Returns an engine that saves the best of its trials to a file of the search, or of a rung if it is not ""."""
        best = self.home / f"{self.study.name}{rung and f'-{rung}'}.safetensors"
        return LocalEngine(self.recipe, self.trainer, self.tracker, self.parent, best, self.progress)

    def log_start(self, weights: Mapping[Architecture, PretrainedWeights]) -> None:
        """Logs the inputs, the data report and machine details, without overwriting what an earlier process logged."""
        study, parent, trainer = self.study, self.parent, self.trainer
        if "precision" not in study.user_attrs:  # selected once, so that a resumed study computes the same
            self._dry_run()
        trainer.precision = str(study.user_attrs["precision"])
        trials = trial_count(self.recipe)
        self.say(f"study {study.name}: {counted(trials, 'trial')} on {trainer.device}, {trainer.precision}")
        log_inputs(parent, self.recipe, self.splits, weights)
        counts = {str(each): self.opened.inspection.count(each) for each in Severity}
        if study.user_attrs.get("data") != (logged := {"run": parent.run_id, **counts}):
            log_data(parent, self.opened.inspection, self.splits)
            study.set_user_attr("data", logged)
        log_machine(parent, trainer.device, trainer.precision)

    def _dry_run(self) -> None:
        """Selects the precision, after checking that the recipe's networks can be trained, saved and served."""
        trainer = self.trainer
        recipes = dry_run_training(trainer, network_variants(self.recipe), self.say)
        trainer.precision = trainer.select_precision(recipes[0])
        dry_run_serving(trainer, recipes, self.home)
        self.study.set_user_attr("precision", trainer.precision)

    def search(self) -> None:
        """Runs the remaining trials."""
        study, trials = self.study, trial_count(self.recipe)

        def report(trial: FinishedTrial) -> None:
            self.progress(Step("study", trial.number + 1, trials, "trials"))
            self.say(str(trial))

        if study.finished_count >= trials:
            self.say("all trials have finished")
        study.run(trials, self.engine.run_trial, report)

    def report(self) -> None:
        """Logs the trials and the best one, unless an earlier process has done so."""
        study, best = self.study, self.study.best
        logged: dict[str, object] = {"trials": len(study.trials), "run": self.parent.run_id}
        if best.seed_values or best.is_rung:  # absent in other studies, as in those of earlier versions
            logged |= {"best": best.number, "seeds": [*best.seed_values]}
        if study.user_attrs.get("reported") != logged:
            log_study(self.parent, study)
            study.set_user_attr("reported", logged)

    def climb_ladder(self) -> None:
        """Tries deeper unfreezing of the best network (see `_ladder`) if the recipe has a ladder."""
        if not (self.recipe.search and self.recipe.search.ladder):
            self.study.clear_ladder()
            return
        ladder = Ladder(self.recipe, self.splits, self.study, self.trainer, self.engine_for, self.say)
        if not ladder.has_ended:
            self.parent.log_table(rung_table(ladder.climb()), "study/ladder.json")

    def conclude(self) -> Conclusion:
        """Evaluates and registers the best trial, unless an earlier process has done so."""
        folder = self.home / "model"
        earlier = load_conclusion(self.study, self.recipe, self.parent, folder)
        if earlier is not None:
            return earlier
        number = self.study.best.number
        best = resolve(self.recipe, self.study.best.params)
        rung = best.backbone.freeze_through if self.study.best.is_rung else ""
        fit = self.engine_for(rung).restore(number, best)
        log_network(self.parent, self.trainer.example_network(best))
        log_first_batch(self.parent, *self.trainer.first_batch(best))
        predictions = validation_predictions(self.splits, fit.logits)
        log_validation(self.parent, predictions)
        log_label_errors(self.parent, self.opened.inspection, self.splits, predictions)
        self._write_model(number, best, fit, folder)
        best_run = self.tracker.find_trial_run(self.parent, number)
        return conclude(folder, self.recipe, self.splits, self.study, self.parent, best_run, fit.logits, self.say)

    def _write_model(self, number: int, best: Recipe, fit: FitResult, folder: Path) -> None:
        """Writes the best trial's model in the format used for serving, unless `folder` already contains it.

        If the recipe uses folds, the network is first retrained on all training images.
        """
        false_alarms = self.recipe.promotion.false_alarms if self.recipe.promotion else None
        written = {"trial": number, "false_alarms": false_alarms}
        complete = all((folder / name).exists() for name in FILES)
        if complete and self.study.user_attrs.get("model") == {**written, "digest": artifact_digest(folder)}:
            return
        write_artifact(self.trainer, best, fit, self.trainer.finalize(best, fit), folder, self.say)
        self.study.set_user_attr("model", {**written, "digest": artifact_digest(folder)})


def _require_runnable(recipe: Recipe) -> None:
    """Raises an error if a database cannot be used, so that the run fails before the search rather than after it."""
    require_no_variants(recipe)
    if recipe.promotion:
        databases.ledger_url()
    mlflow_server.require_server()
    mlflow_server.require_database()
    mlflow_server.require_original()
    if recipe.promotion:
        databases.require_ledger(", or remove `promotion:` from the recipe")


def _image_counts(inspection: Inspection, splits: Splits) -> str:
    counts = ", ".join(f"{len(images)} {split}" for split, images in splits.by_name.items())
    text = f"images: {counts}; classes: {len(splits.classes)}"
    if splits.ignored:
        text += f"; {len(splits.ignored)} hidden or system files ignored"
    if inspection.quarantine:
        text += f"; {len(inspection.quarantine)} unreadable files skipped"
    if warnings := warning_counts(inspection):
        text += f"; {warnings}: see `platform data RECIPE`"
    return text


def _study_name(recipe: Recipe, splits: Splits, weights: Mapping[Architecture, PretrainedWeights]) -> str:
    """Returns the recipe name followed by a digest of the study inputs: the recipe, images and pretrained weights."""
    parts = [study_identity(recipe), splits.fingerprint, *(str(found.sha256) for found in weights.values())]
    return f"{recipe.name}-{hashlib.sha256(':'.join(parts).encode()).hexdigest()[:10]}"


def _open_study(name: str, url: str, recipe: Recipe, fresh: bool) -> Study:
    databases.create_schema(url)
    with atomic_database(url) as unfinished:
        create_tables(unfinished)
    count = count_studies(name, url) + fresh
    return Study(
        numbered_name(name, max(1, count)),
        url,
        search_ranges(recipe),
        minimizes=objective(recipe).minimizes,
        seed=recipe.seed,
        pruning=recipe.search is not None and recipe.search.pruning,
    )
