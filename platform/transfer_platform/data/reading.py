"""From a recipe's `dataset:` section to its pictures, divided."""

from __future__ import annotations

from pathlib import Path

from transfer_platform.data.sources import open_source
from transfer_platform.data.splits import Splits, make_splits
from transfer_platform.progress import Progress, silent
from transfer_platform.recipe.schema import Dataset, Folds


def read_splits(dataset: Dataset, folder: Path, progress: Progress = silent) -> Splits:
    """Brings the data set here, reads every picture once, and divides them.

    Args:
        dataset: The section of a recipe.
        folder: What relative paths in it are relative to: the recipe file's own folder.
        progress: Told how far fetching, unpacking and reading have come.

    Raises:
        DataError: The data set cannot be had, read or divided; the message names what is in the way.
    """
    root = open_source(dataset.source, folder, dataset.sha256, progress)
    splits = dataset.splits
    folds = splits.validation.folds if isinstance(splits.validation, Folds) else 0
    return make_splits(
        root,
        splits.train,
        None if isinstance(splits.validation, Folds) else splits.validation,
        splits.test,
        folds=folds,
        exclude=dataset.exclude,
        split_seed=dataset.split_seed,
        progress=progress,
    )
