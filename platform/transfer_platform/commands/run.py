"""A recipe from its first line to a champion: the whole story, in the order in which it happens.

Every step can be repeated. Whoever is killed anywhere runs the same command again, and it goes on from there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

# First: among the modules of torch and MLflow, pydantic takes seconds to find the docstrings of the fields.
import transfer_platform.recipe.schema  # noqa: F401

# isort: split
from transfer_model.network import Network
from transfer_platform import paths
from transfer_platform.commands.conclude import conclude, load_conclusion
from transfer_platform.commands.run_report import (
    log_data,
    log_inputs,
    log_label_errors,
    log_machine,
    log_network,
    log_study,
    log_validation,
    validation_predictions,
)
from transfer_platform.data.split_layout import resolve_recipe_splits
from transfer_platform.data.splits import Splits
from transfer_platform.engines.local import LocalEngine
from transfer_platform.errors import RecipeError, RecipeProblem
from transfer_platform.inspection.findings import Severity
from transfer_platform.inspection.inspection import Inspection
from transfer_platform.inspection.preflight import require_valid
from transfer_platform.progress import Progress, Say, Step, silent, tee
from transfer_platform.recipe.load import load_recipe
from transfer_platform.recipe.resolve import resolve, search_ranges, study_identity
from transfer_platform.recipe.schema import Recipe
from transfer_platform.recipe.search_space import Choice, largest
from transfer_platform.recipe.shipped import recipe_path
from transfer_platform.search.study import FinishedTrial, Study, create_tables, restart_count, restarted_name
from transfer_platform.sources.weights import PretrainedWeights, fetch_weights
from transfer_platform.tensor_store import Store
from transfer_platform.tracking import Tracker
from transfer_platform.training.artifact import write_artifact
from transfer_platform.training.device import choose_device
from transfer_platform.training.trial_trainer import TrialTrainer, objective
from transfer_registry import mlflow_server
from transfer_registry.files import atomic_database
from transfer_registry.locks import study_lock
from transfer_registry.mlflow_registry import champion_version
from transfer_registry.promote import PromotionResult
from transfer_registry.verdict import Verdict


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        study: Every trial, its values and what became of it.
        network: At the weights of the best trial's best epoch, in eval mode.
        metrics: Of its served form: `test/accuracy` and the rest, `served/latency_ms`, `served/size_mb`.
        promotion: How the gate answered; None where the recipe has no `promotion:`.
        run_id: The study's MLflow run.
        champion: The version that is champion now, which may be another by now; None where there is none.
    """

    study: Study
    network: Network
    metrics: dict[str, float]
    promotion: PromotionResult | None
    run_id: str
    champion: int | None = None

    def __str__(self) -> str:
        best = self.study.best
        values = [
            f"  {field} = {value:.4g}" if isinstance(value, float) else f"  {field} = {value}"
            for field, value in best.params.items()
        ]
        figures = {name: value for name, value in self.metrics.items() if name.startswith("test/")}
        test = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        return "\n".join([f"best: {best}", *values, test, *self._promotion_lines()])

    def _promotion_lines(self) -> list[str]:
        if self.promotion is None:
            return ["not registered: the recipe has no promotion block"]
        name, version = self.promotion.model, self.promotion.version
        follows = f"  platform serve {name}   platform ui" if self.champion else "  platform ui"
        return [str(self.promotion.verdict), f"{name} version {version} {self._standing()}", follows]

    def _standing(self) -> str:
        """What the version is today; somebody may have moved the alias since it was judged."""
        assert self.promotion is not None
        if self.champion == self.promotion.version:
            return "is champion"
        now = f"version {self.champion} is" if self.champion else "there is none"
        if self.promotion.promoted:
            return f"was made champion; today {now}"
        return "is registered, but did not become champion"

    @property
    def verdict(self) -> Verdict | None:
        """The gate's answer, rule by rule."""
        return self.promotion.verdict if self.promotion else None


def run(
    recipe: Recipe | Path | str,
    *,
    overrides: Sequence[str] = (),
    fresh: bool = False,
    device: str = "auto",
    progress: Progress = silent,
    say: Say = silent,
) -> Outcome:
    """Fine-tunes what a recipe declares, evaluates the best checkpoint, and offers it to the gate.

    The study goes on where it was left; a finished one is not run again.

    Args:
        recipe: A file, the name of a shipped recipe, or a recipe that was loaded before; its relative paths
            are then relative to the current folder.
        overrides: `training.epochs=3`, for a recipe that is a file.
        fresh: Start the study over.
        device: `auto`, or a device that torch knows.
        progress: Told how far long steps have come.
        say: Given the lines that are worth keeping on the screen.

    Raises:
        TransferError: Something that the user can mend.
    """
    folder = Path()
    if isinstance(recipe, Recipe):
        _refuse_overrides(overrides)
    else:
        path = recipe_path(Path(recipe))
        folder, recipe = path.parent, load_recipe(path, overrides)
    if recipe.promotion:
        paths.ledger_url()  # refused now, not after the search
    mlflow_server.require_server()
    store = feature_store()
    recognised: list[str] = []
    recipe = resolve_recipe_splits(recipe, folder, progress, tee(say, recognised.append))
    inspection, splits = require_valid(recipe.dataset, folder, progress)
    inspection = inspection.with_split_notes(recognised)
    say(_counts(inspection, splits))
    weights = fetch_all_weights(recipe, folder, progress)
    name, database = _study_name(recipe, splits, weights), paths.studies_url()
    home = paths.studies_folder() / name
    with study_lock(name, home, database), closing(_open_study(name, database, recipe, fresh)) as study:
        tracker = Tracker(recipe.name)
        bench = TrialTrainer(
            splits,
            {key: found.path for key, found in weights.items()},
            choose_device(device),
            trials=_trials(recipe),
            epochs=largest(recipe.training.epochs),
            store=store,
            progress=progress,
            say=say,
        )
        with tracker.start_study_run(study.name, {"platform.dataset": splits.fingerprint}) as parent:
            bench.precision = _precision(study, bench, recipe)
            trials = _trials(recipe)
            several = "s" * (trials > 1)
            say(f"study {study.name}: {trials} trial{several} on {bench.device}, {bench.precision}")
            log_inputs(parent, recipe, splits, weights)
            seen = {"run": parent.run_id, **{str(each): inspection.count(each) for each in Severity}}
            if study.attrs.get("data") != seen:
                log_data(parent, inspection, splits)
                study.set_attr("data", seen)
            log_machine(parent, str(bench.device), bench.precision)
            engine = LocalEngine(recipe, bench, tracker, parent, home / f"{study.name}.safetensors", progress)
            _search(study, engine, recipe, progress, say)
            told = {"trials": study.finished, "run": parent.run_id}
            if study.attrs.get("reported") != told:
                log_study(parent, study)
                study.set_attr("reported", told)
            best = resolve(recipe, study.best.params)
            restored = engine.restore(study.best.number, best)
            conclusion = load_conclusion(study, recipe, parent)
            if conclusion is None:
                log_network(parent, restored.network)
                ranked = validation_predictions(splits, restored.fit.logits)
                log_validation(parent, ranked)
                log_label_errors(parent, inspection, splits, ranked)
                model = write_artifact(bench, best, restored.fit, restored.network, home / "model", say)
                best_run = tracker.find_trial_run(parent, study.best.number)
                conclusion = conclude(
                    model, recipe, splits, study, parent, best_run, restored.fit.logits, say
                )
    champion = champion_version(conclusion.promotion.model) if conclusion.promotion else None
    return Outcome(study, restored.network, conclusion.metrics, conclusion.promotion, parent.run_id, champion)


def _refuse_overrides(overrides: Sequence[str]) -> None:
    if overrides:
        message = "a recipe that was loaded before takes no overrides; give its file instead"
        raise RecipeError([RecipeProblem("recipe", "", message)])


def _search(study: Study, engine: LocalEngine, recipe: Recipe, progress: Progress, say: Say) -> None:
    """Runs the trials that the study still lacks."""
    trials = _trials(recipe)

    def ended(trial: FinishedTrial) -> None:
        progress(Step("study", trial.number + 1, trials, "trials"))
        say(str(trial))

    if study.finished >= trials:
        say("all trials are done already")
    study.run(trials, engine.run_trial, ended)


def _counts(inspection: Inspection, splits: Splits) -> str:
    counts = ", ".join(f"{len(images)} {role}" for role, images in splits.by_name.items())
    left_out = f"; {len(splits.ignored)} hidden or system files left out" if splits.ignored else ""
    bad = len(inspection.quarantine)
    left_out += f"; {bad} files left out that are no readable images" if bad else ""
    warnings = inspection.count(Severity.WARNING)
    look = f"; {warnings} warning{'s' * (warnings != 1)}: platform data shows what" if warnings else ""
    return f"images: {counts}; classes: {len(splits.classes)}{left_out}{look}"


def _trials(recipe: Recipe) -> int:
    return recipe.search.trials if recipe.search else 1


def _study_name(recipe: Recipe, splits: Splits, weights: Mapping[str, PretrainedWeights]) -> str:
    """The recipe's name, and a digest of what the study depends on: recipe, images, pretrained weights."""
    depends = [study_identity(recipe), splits.fingerprint, *(str(found.sha256) for found in weights.values())]
    return f"{recipe.name}-{hashlib.sha256(':'.join(depends).encode()).hexdigest()[:10]}"


def _open_study(name: str, url: str, recipe: Recipe, fresh: bool) -> Study:
    paths.create_schema(url)
    with atomic_database(url) as whole:
        create_tables(whole)
    count = restart_count(name, url) + fresh
    return Study(
        restarted_name(name, max(1, count)),
        url,
        search_ranges(recipe),
        minimizes=objective(recipe).minimizes,
        seed=recipe.seed,
        pruning=recipe.search is not None and recipe.search.pruning,
    )


def fetch_all_weights(recipe: Recipe, folder: Path, progress: Progress) -> dict[str, PretrainedWeights]:
    """The pretrained weights of every backbone that a recipe may take, by its name."""
    chosen = recipe.backbone
    names = chosen.name.choices if isinstance(chosen.name, Choice) else (chosen.name,)
    return {name: fetch_weights(name, chosen.weights, folder, progress) for name in names}


def feature_store() -> Store | None:
    """Where features are kept; None where the environment says that none are."""
    limit = paths.cache_limit()
    return Store(paths.features_folder(), limit) if limit else None


def _precision(study: Study, bench: TrialTrainer, recipe: Recipe) -> str:
    """Settled once for a study, so that going on with it elsewhere computes the same."""
    if "precision" not in study.attrs:
        study.set_attr("precision", bench.select_precision(first_values(recipe)))
    return str(study.attrs["precision"])


def first_values(recipe: Recipe) -> Recipe:
    """A recipe without ranges: the first of every choice, the low end of every range."""
    first = {
        field: span.choices[0] if isinstance(span, Choice) else span.low
        for field, span in search_ranges(recipe).items()
    }
    return resolve(recipe, first)
