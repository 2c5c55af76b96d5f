"""A recipe from its first line to a champion: the whole story, in the order in which it happens.

Every step can be repeated. Whoever is killed anywhere runs the same command again, and it goes on from there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from transfer_model.network import Network
from transfer_platform import storage
from transfer_platform.conclusion import conclude, recall
from transfer_platform.data.reading import read_splits
from transfer_platform.data.splits import Splits
from transfer_platform.engines.in_process import InProcess
from transfer_platform.locking import hold
from transfer_platform.network.pretrained import Pretrained, pretrained_weights
from transfer_platform.progress import Progress, Say, Step, silent
from transfer_platform.recipe.file import load
from transfer_platform.recipe.ranges import Choice
from transfer_platform.recipe.schema import Recipe
from transfer_platform.recipe.shipped import recipe_path
from transfer_platform.recipe.space import identity, ranges, resolve
from transfer_platform.reporting import report_inputs, report_machine, report_network, report_study
from transfer_platform.search import FinishedTrial, Study, generation, generation_name
from transfer_platform.tracking import Tracker
from transfer_platform.training.bench import Bench, ranking
from transfer_platform.training.device import choose_device
from transfer_registry.promotion import Promotion
from transfer_registry.verdict import Verdict


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        study: Every trial, its values and what became of it.
        network: At the weights of the best trial's best epoch, in eval mode.
        metrics: Of its served form on the test images, `test/accuracy` and the rest.
        promotion: How the gate answered; None where the recipe has no `promotion:`.
        run_id: The study's MLflow run.
    """

    study: Study
    network: Network
    metrics: dict[str, float]
    promotion: Promotion | None
    run_id: str

    def __str__(self) -> str:
        best = self.study.best
        values = [
            f"  {field} = {value:.4g}" if isinstance(value, float) else f"  {field} = {value}"
            for field, value in best.params.items()
        ]
        test = ", ".join(f"{name} {value:.4f}" for name, value in self.metrics.items())
        return "\n".join([f"best: {best}", *values, test, *self._promotion_lines()])

    def _promotion_lines(self) -> list[str]:
        if self.promotion is None:
            return ["not registered: the recipe has no promotion block"]
        name, version = self.promotion.model, self.promotion.version
        answer = "is champion" if self.promotion.promoted else "is registered, but did not become champion"
        follows = f"  platform serve {name}   platform ui" if self.promotion.promoted else "  platform ui"
        return [str(self.promotion.verdict), f"{name} version {version} {answer}", follows]

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
        PlatformError: Something that the user can mend.
    """
    folder = Path()
    if not isinstance(recipe, Recipe):
        path = recipe_path(Path(recipe))
        folder, recipe = path.parent, load(path, overrides)
    splits = read_splits(recipe.dataset, folder, progress)
    say(_counts(splits))
    name = _study_name(recipe, splits)
    home = storage.studies_folder() / name
    database = storage.studies_url()
    with hold(name, home, database):
        study = _open_study(name, database, recipe, fresh)
        tracker = Tracker(recipe.name)
        parent = tracker.study(study.name, {"platform.dataset": splits.fingerprint})
        weights = _weights(recipe, folder, progress)
        bench = Bench(
            splits, {key: found.path for key, found in weights.items()}, choose_device(device), progress
        )
        bench.precision = _precision(study, bench, recipe)
        say(f"study {study.name}: {_trials(recipe)} trials on {bench.device}, {bench.precision}")
        report_inputs(parent, recipe, splits, weights)
        report_machine(parent, str(bench.device), bench.precision)
        engine = InProcess(recipe, bench, tracker, parent, home / f"{study.name}.safetensors", progress)
        _search(study, engine, recipe, progress, say)
        report_study(parent, study)
        best = resolve(recipe, study.best.params)
        network = engine.restore(study.best.number, best)
        conclusion = recall(study, recipe)
        if conclusion is None:
            model = bench.serve(best, network, home / "model")
            report_network(parent, network)
            best_run = tracker.trial(parent, study.best.number, study.best.params)
            conclusion = conclude(model, str(bench.device), recipe, splits, study, parent, best_run, say)
        parent.finish()
        study.close()
    return Outcome(study, network, conclusion.metrics, conclusion.promotion, parent.run_id)


def _search(study: Study, engine: InProcess, recipe: Recipe, progress: Progress, say: Say) -> None:
    trials = _trials(recipe)

    def ended(trial: FinishedTrial) -> None:
        progress(Step("study", trial.number + 1, trials, "trials"))
        say(str(trial))

    if study.finished >= trials:
        say("all trials are done already")
    study.run(trials, engine.run, ended)


def _counts(splits: Splits) -> str:
    counts = ", ".join(f"{len(pictures)} {role}" for role, pictures in splits.roles.items())
    left_out = f"; {len(splits.ignored)} hidden or system files left out" if splits.ignored else ""
    return f"images: {counts}; classes: {len(splits.classes)}{left_out}"


def _trials(recipe: Recipe) -> int:
    return recipe.search.trials if recipe.search else 1


def _study_name(recipe: Recipe, splits: Splits) -> str:
    """The recipe's name, and a digest of what the study depends on: recipe and images."""
    digest = hashlib.sha256(f"{identity(recipe)}:{splits.fingerprint}".encode()).hexdigest()
    return f"{recipe.name}-{digest[:10]}"


def _open_study(name: str, url: str, recipe: Recipe, fresh: bool) -> Study:
    _, minimizes = ranking(recipe)
    # Several processes that create Optuna's tables at once break them.
    with FileLock(storage.studies_folder() / "studies.lock"):
        storage.create_schema(url)
        count = generation(name, url) + fresh
        return Study(
            generation_name(name, max(1, count)),
            url,
            ranges(recipe),
            minimizes=minimizes,
            seed=recipe.seed,
            pruning=recipe.search is not None and recipe.search.pruning,
        )


def _weights(recipe: Recipe, folder: Path, progress: Progress) -> dict[str, Pretrained]:
    chosen = recipe.backbone
    names = chosen.name.choices if isinstance(chosen.name, Choice) else (chosen.name,)
    return {name: pretrained_weights(name, chosen.weights, folder, progress) for name in names}


def _precision(study: Study, bench: Bench, recipe: Recipe) -> str:
    """Settled once for a study, so that going on with it elsewhere computes the same."""
    if "precision" not in study.notes:
        first = {
            field: span.choices[0] if isinstance(span, Choice) else span.low
            for field, span in ranges(recipe).items()
        }
        study.note("precision", bench.fastest_precision(resolve(recipe, first)))
    return str(study.notes["precision"])
