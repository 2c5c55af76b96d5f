"""What `platform data` does: a preflight, and what a pretrained network has to say of the labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transfer_platform.data.split_layout import resolve_recipe_splits
from transfer_platform.data.splits import Splits
from transfer_platform.errors import DataError
from transfer_platform.inspection.inspection import Inspection
from transfer_platform.inspection.label_errors import (
    find_label_errors,
    find_outliers,
    out_of_fold_probabilities,
)
from transfer_platform.inspection.manifest_diff import diff_manifests, read_manifest
from transfer_platform.inspection.preflight import preflight
from transfer_platform.inspection.report import MANIFEST, html_page, markdown_report, text_report
from transfer_platform.progress import Progress, Say, silent, tee
from transfer_platform.recipe.load import load_recipe
from transfer_platform.recipe.schema import Recipe
from transfer_platform.recipe.shipped import recipe_path
from transfer_registry.errors import StorageError
from transfer_registry.files import atomic_write, require_writable

_ENDINGS = (".html", ".htm", ".md")


@dataclass(frozen=True)
class DataReport:
    """An inspection, ready to be told.

    Attributes:
        inspection: Everything that was found.
    """

    inspection: Inspection

    @property
    def text(self) -> str:
        """For a terminal."""
        return text_report(self.inspection)

    @property
    def json(self) -> str:
        """For programs: counts by split and class, and every finding."""
        found = self.inspection
        rows = [
            {
                "severity": found.severity(each),
                "kind": each.kind,
                "files": [found.name(path) for path in each.files],
                "detail": each.detail,
            }
            for each in found.findings
        ]
        return json.dumps({"counts": found.counts, "findings": rows, "notes": found.skipped_checks}, indent=2)


def inspect_dataset(
    recipe: Path,
    overrides: Sequence[str] = (),
    *,
    out: Path | None = None,
    features: bool = True,
    device: str = "auto",
    progress: Progress = silent,
    say: Say = silent,
) -> DataReport:
    """Reads, inspects and reports the data set of a recipe; trains nothing and logs nothing.

    Args:
        recipe: A file, or the name of a shipped recipe.
        overrides: `dataset.split_seed=1`.
        out: Where a page with thumbnails goes; a name that ends in `.md` gets markdown without them.
        features: Also ask the recipe's first backbone, all of it frozen, about labels and outliers.
        device: Where it computes.
        progress: Told how far long steps have come.
        say: Given the lines that are worth keeping.

    Raises:
        TransferError: The recipe or the data set cannot be had, or `out` cannot be written.
    """
    if out:
        _refuse_ending(out)
        require_writable(out)
    path = recipe_path(recipe)
    recognised: list[str] = []
    declared = resolve_recipe_splits(
        load_recipe(path, overrides), path.parent, progress, tee(say, recognised.append)
    )
    found, splits = preflight(declared.dataset, path.parent, progress)
    found = found.with_split_notes(recognised)
    if splits is None:
        found = found.with_findings(
            (), ["Labels and outliers were not looked at: the images cannot be divided."]
        )
    elif not features:
        found = found.with_findings((), ["Labels and outliers were not looked at: --no-features."])
    else:
        found = _asked(found, splits, declared, path.parent, device, progress, say)
    if out:
        told = (
            markdown_report(found)
            if out.suffix.lower() == ".md"
            else html_page(found, f"Data set of {declared.name}")
        )
        with atomic_write(out) as unfinished:
            unfinished.write_text(told, encoding="utf-8")
    return DataReport(found)


def compare_runs(run_a: str, run_b: str, *, as_json: bool = False) -> str:
    """What changed between the data of two runs.

    Args:
        run_a: An MLflow run's id, or a registered version: `ants-bees/3`, `ants-bees@champion`.
        run_b: Likewise.
        as_json: For programs.

    Raises:
        RegistryError: There is no such run or version.
        DataError: A run has no manifest of its data.
    """
    one, two = (read_manifest(_manifest(run), run) for run in (run_a, run_b))
    found = diff_manifests(one, two)
    return json.dumps(found.as_json(), indent=2) if as_json else str(found)


def _refuse_ending(out: Path) -> None:
    """A report never takes the place of a recipe or a table."""
    if out.suffix.lower() not in _ENDINGS and (out.suffix or out.exists()) and not out.is_char_device():
        raise StorageError(
            f"{out} would be a report, so its name must end in {', '.join(_ENDINGS[:-1])} or {_ENDINGS[-1]}"
        )


def _manifest(run: str) -> str:
    from transfer_platform.tracking import read_text
    from transfer_registry.model_uri import run_id_of

    text = read_text(run_id_of(run), MANIFEST)
    if text is None:
        raise DataError(f"{run} has no {MANIFEST}: a study's run has one, its trials' have not")
    return text


def _asked(
    found: Inspection,
    splits: Splits,
    recipe: Recipe,
    folder: Path,
    device: str,
    progress: Progress,
    say: Say,
) -> Inspection:
    """What the features of the frozen backbone add; they are kept, for the runs that need the same."""
    from transfer_platform.commands.run import feature_store, fetch_all_weights, first_values
    from transfer_platform.training.device import choose_device
    from transfer_platform.training.trial_trainer import TrialTrainer

    whole = first_values(recipe)
    frozen = whole.model_copy(
        update={
            "dataset": whole.dataset.model_copy(update={"augmentation": "none"}),
            "backbone": whole.backbone.model_copy(update={"freeze_through": "all"}),
        }
    )
    weights = fetch_all_weights(frozen, folder, progress)
    bench = TrialTrainer(
        splits,
        {key: each.path for key, each in weights.items()},
        choose_device(device),
        trials=recipe.search.trials if recipe.search else 1,
        epochs=whole.training.epochs,
        store=feature_store(),
        progress=progress,
        say=say,
    )
    bench.precision = bench.select_precision(frozen)
    features = bench.pretrained_features(frozen).float().cpu().numpy()
    images = splits.development
    labels = np.array([splits.classes.index(image.label) for image in images])
    further = [*find_outliers(images, features)]
    if np.bincount(labels).min() < 2:
        return found.with_findings(
            further, ["Labels were not looked at: a class has only one image to learn from."]
        )
    probabilities = out_of_fold_probabilities(features, labels)
    said = (
        f"Labels and outliers were judged by {frozen.backbone.name} on the {len(images)} images of train "
        "and validation; test images are left to the gate."
    )
    return found.with_findings([*find_label_errors(images, splits.classes, probabilities), *further], [said])
