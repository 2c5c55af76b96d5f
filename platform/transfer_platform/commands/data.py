"""`platform data`: inspects a dataset or compares the data of two runs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transfer_platform.commands._open import OpenedRecipe, open_recipe
from transfer_platform.data.splits import Splits
from transfer_platform.errors import DataError
from transfer_platform.inspection.inspection import Inspection
from transfer_platform.inspection.label_errors import find_label_errors, find_outliers, out_of_fold_probabilities
from transfer_platform.inspection.manifest_diff import diff_manifests, read_manifest
from transfer_platform.inspection.report import MANIFEST, html_page, markdown_report, text_report
from transfer_platform.progress import Progress, Say, silent
from transfer_platform.recipe.schema import Recipe
from transfer_registry.errors import StorageError
from transfer_registry.files import atomic_write, require_writable

SUFFIXES = (".html", ".htm", ".md")
"""Allowed report suffixes, restricted so that a report cannot overwrite a recipe or a table."""


@dataclass(frozen=True)
class DataReport:
    """Result of a dataset inspection, available as text and as JSON."""

    inspection: Inspection

    @property
    def text(self) -> str:
        """The report as text for a terminal."""
        return text_report(self.inspection)

    @property
    def json(self) -> str:
        """The report as JSON: counts by split and class, and all findings."""
        inspection = self.inspection
        findings = [
            {
                "severity": inspection.severity(finding),
                "kind": finding.kind,
                "files": [inspection.name(path) for path in finding.files],
                "detail": finding.detail,
            }
            for finding in inspection.findings
        ]
        content = {"counts": inspection.counts, "findings": findings, "notes": inspection.skipped_checks}
        return json.dumps(content, indent=2)


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
    """Inspects the dataset of a recipe without training or logging anything.

    Args:
        recipe: Recipe file, or name of a shipped recipe.
        overrides: Overrides such as `dataset.split_seed=1`.
        out: Report file, in Markdown without thumbnails if its name ends in `.md`, otherwise in HTML with thumbnails.
        features: Also search for label errors and outliers, using features from the recipe's first backbone.
        device: Device used to extract features.
        progress: Called during long steps.
        say: Called with each message that should stay on the screen.

    Raises:
        TransferError: The recipe or the dataset cannot be opened, or `out` cannot be written.
    """
    if out:
        _require_report_name(out)
        require_writable(out)
    opened = open_recipe(recipe, overrides, progress, say)
    inspection = _with_feature_checks(opened, features, device, progress, say)
    if out:
        markdown = out.suffix.lower() == ".md"
        title = f"Dataset of {opened.recipe.name}"
        text = markdown_report(inspection) if markdown else html_page(inspection, title)
        with atomic_write(out) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    return DataReport(inspection)


def compare_runs(run_a: str, run_b: str, *, as_json: bool = False) -> str:
    """Describes the differences between the data of two runs.

    Args:
        run_a: MLflow run ID, or a registered version such as `ants-bees/3` or `ants-bees@champion`.
        run_b: Run to compare with `run_a`; specified like `run_a`.
        as_json: Return JSON instead of text.

    Raises:
        RegistryError: The run or version does not exist.
        DataError: A run has no manifest.
    """
    before, after = (read_manifest(_manifest(run), run) for run in (run_a, run_b))
    difference = diff_manifests(before, after)
    return json.dumps(difference.as_json(), indent=2) if as_json else str(difference)


def _require_report_name(out: Path) -> None:
    if out.suffix.lower() not in SUFFIXES and (out.suffix or out.exists()) and not out.is_char_device():
        raise StorageError(
            f"{out} is not a valid report name: it must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        )


def _manifest(run: str) -> str:
    from transfer_platform.tracking import read_text
    from transfer_registry.model_uri import run_id_of

    text = read_text(run_id_of(run), MANIFEST)
    if text is None:
        raise DataError(f"run {run} has no {MANIFEST}; if it is a trial run, pass the study's run instead")
    return text


def _with_feature_checks(opened: OpenedRecipe, features: bool, device: str, progress: Progress, say: Say) -> Inspection:
    inspection, splits = opened.inspection, opened.splits
    if splits is None:
        return inspection.with_findings(
            (), ["Skipped the search for label errors and outliers, because the images cannot be split."]
        )
    if not features:
        return inspection.with_findings((), ["Skipped the search for label errors and outliers (--no-features)."])
    recipe = _frozen(opened.recipe)
    extracted = _extract(recipe, opened.folder, splits, device, progress, say)
    images = splits.development
    labels = np.array(splits.labels(images))
    outliers = [*find_outliers(images, extracted)]
    if np.bincount(labels).min() < 2:
        note = "Skipped the search for label errors, because a class has only one training image."
        return inspection.with_findings(outliers, [note])
    probabilities = out_of_fold_probabilities(extracted, labels)
    note = (
        f"Searched the {len(images)} training and validation images for label errors and outliers, "
        f"using features from {recipe.backbone.architecture}; test images were not used."
    )
    errors = find_label_errors(images, splits.classes, probabilities)
    return inspection.with_findings([*errors, *outliers], [note])


def _frozen(recipe: Recipe) -> Recipe:
    """Returns a copy of the recipe without search ranges or augmentation, and with a fully frozen backbone."""
    from transfer_platform.commands._trainer import first_values

    first = first_values(recipe)
    dataset = first.dataset.model_copy(update={"augmentation": "none"})
    backbone = first.backbone.model_copy(update={"freeze_through": "all"})
    return first.model_copy(update={"dataset": dataset, "backbone": backbone})


def _extract(recipe: Recipe, folder: Path, splits: Splits, device: str, progress: Progress, say: Say) -> np.ndarray:
    """Returns features (N, F) of the training and validation images, reading them from the store if available."""
    from transfer_platform.commands._trainer import feature_store, fetch_all_weights, make_trainer

    weights = fetch_all_weights(recipe, folder, progress)
    trainer = make_trainer(recipe, splits, weights, device, feature_store(), progress, say)
    # `auto` would depend on timings, which would make the findings depend on them as well.
    trainer.precision = "float32" if recipe.training.precision == "auto" else recipe.training.precision
    return trainer.pretrained_features(recipe).float().cpu().numpy()
