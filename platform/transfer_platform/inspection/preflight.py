"""The preflight of a run: a data set is read, inspected and divided, all of it before anything is raised."""

from __future__ import annotations

from pathlib import Path

from transfer_platform.data.dataset import scan_dataset, split_dataset
from transfer_platform.data.splits import Splits
from transfer_platform.errors import SplitError
from transfer_platform.inspection.survey import Inspection, inspect
from transfer_platform.progress import Progress, silent
from transfer_platform.recipe.schema import DatasetConfig


def preflight(
    dataset: DatasetConfig, folder: Path, progress: Progress = silent
) -> tuple[Inspection, Splits | None]:
    """Reads every image of a recipe once and looks for all that is wrong with them.

    Args:
        dataset: The section of a recipe.
        folder: What relative paths in it are relative to: the recipe file's own folder.
        progress: Told how far fetching, unpacking and reading have come.

    Returns:
        What was found, and the splits; None where they cannot be made, which is then among what was found.

    Raises:
        DataError: The data set cannot be had, a split's folder is not there, or a pattern matches nothing.
    """
    source = scan_dataset(dataset, folder, progress)
    splits, unsplit = None, ""
    if not any(catalog.class_errors() for catalog in source.catalogs.values()):
        try:
            splits = split_dataset(source, dataset)
        except SplitError as error:
            unsplit = str(error)
    given = {role: catalog.images for role, catalog in source.catalogs.items()}
    found = inspect(
        source.root,
        source.catalogs,
        source.stats,
        splits.by_name if splits else given,
        skip=dataset.on_bad_image == "skip",
        few=dataset.few_images,
        allowed=source.allowed,
        unsplit=unsplit,
        notes=source.notes,
    )
    return found, splits


def require_valid(
    dataset: DatasetConfig, folder: Path, progress: Progress = silent
) -> tuple[Inspection, Splits]:
    """The preflight of a data set that shall be trained on.

    Raises:
        DataError: As of `preflight`, or what was found is in the way of training; all of it is named.
    """
    found, splits = preflight(dataset, folder, progress)
    found.raise_errors("`platform data RECIPE` shows all of it, with images")
    assert splits is not None, "what cannot be divided is an error"
    return found, splits
