"""From a recipe's `dataset:` section to its pictures: read, and then divided."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from transfer_platform.data.exclusion import files_named
from transfer_platform.data.sources import open_source
from transfer_platform.data.splits import Splits, assemble, read_catalogs
from transfer_platform.progress import Progress, silent
from transfer_platform.recipe.schema import Dataset, Folds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transfer_platform.data.catalog import Catalog


@dataclass(frozen=True)
class Source:
    """A data set as it was read.

    Attributes:
        root: Its folder.
        catalogs: What each split's folder holds.
        allowed: Files that may lie in two splits.
    """

    root: Path
    catalogs: Mapping[str, Catalog]
    allowed: frozenset[Path]


def read_source(dataset: Dataset, folder: Path, progress: Progress = silent) -> Source:
    """Brings a data set here and reads every picture once; what is wrong with a file is told, not raised.

    Args:
        dataset: The section of a recipe.
        folder: What relative paths in it are relative to: the recipe file's own folder.
        progress: Told how far fetching, unpacking and reading have come.

    Raises:
        DataError: The data set cannot be had, a split's folder is not there, or a pattern matches nothing.
    """
    root = open_source(dataset.source, folder, dataset.sha256, progress).resolve()
    allowed = files_named(root, dataset.allow_duplicates, "allow_duplicates")
    folders = {role: name for role, name in _sides(dataset).items() if isinstance(name, str)}
    return Source(root, read_catalogs(root, folders, dataset.exclude, progress=progress), allowed)


def divided(source: Source, dataset: Dataset) -> Splits:
    """The splits of a data set that was read; files with problems are left out.

    Raises:
        SplitError: The images cannot be divided as the recipe says.
    """
    validation = dataset.splits.validation
    return assemble(
        source.catalogs,
        {role: share for role, share in _sides(dataset).items() if isinstance(share, float)},
        folds=validation.folds if isinstance(validation, Folds) else 0,
        split_seed=dataset.split_seed,
        allowed=source.allowed,
    )


def _sides(dataset: Dataset) -> dict[str, str | float | Folds]:
    splits = dataset.splits
    return {"train": splits.train, "validation": splits.validation, "test": splits.test}
