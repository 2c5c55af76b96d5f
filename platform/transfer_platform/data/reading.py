"""From a recipe's `dataset:` section to its pictures: read, and then divided."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from transfer_platform.data.exclusion import files_named, rows_named
from transfer_platform.data.listing import located
from transfer_platform.data.manifest import Manifest, is_manifest, read_manifest
from transfer_platform.data.sources import open_manifest, open_source
from transfer_platform.data.splits import Splits, assemble, read_catalogs
from transfer_platform.errors import DataError, SplitError
from transfer_platform.progress import Progress, silent
from transfer_platform.recipe.schema import Dataset, Folds
from transfer_platform.recipe.schema import Splits as Declared

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transfer_platform.data.catalog import Catalog


@dataclass(frozen=True)
class Source:
    """A data set as it was read.

    Attributes:
        root: Its folder.
        catalogs: What each split's folder holds, or a manifest lists for it.
        allowed: Files that may lie in two splits.
        notes: What was made of a manifest's columns, a sentence each.
    """

    root: Path
    catalogs: Mapping[str, Catalog]
    allowed: frozenset[Path]
    notes: tuple[str, ...] = ()


def read_source(dataset: Dataset, folder: Path, progress: Progress = silent) -> Source:
    """Brings a data set here and reads every picture once; what is wrong with a file is told, not raised.

    Args:
        dataset: The section of a recipe.
        folder: What relative paths in it are relative to: the recipe file's own folder.
        progress: Told how far fetching, unpacking and reading have come.

    Raises:
        DataError: The data set cannot be had, a split's folder is not there, a pattern matches nothing, or a
            manifest is wrong.
    """
    if is_manifest(dataset.source) and not (folder / dataset.source).is_dir():
        return _read_manifest(dataset, folder, progress)
    if dataset.group_by:
        raise DataError(
            f"dataset.group_by names a column ({dataset.group_by}) of a manifest, but the source "
            f"{dataset.source} is none; list the pictures in a CSV file with the columns path, label and "
            f"{dataset.group_by}, and name it as the source"
        )
    root = open_source(dataset.source, folder, dataset.sha256, progress).resolve()
    allowed = files_named(root, dataset.allow_duplicates, "allow_duplicates")
    folders = {role: name for role, name in _sides(dataset).items() if isinstance(name, str)}
    return Source(root, read_catalogs(root, folders, dataset.exclude, progress=progress), allowed)


def divided(source: Source, dataset: Dataset) -> Splits:
    """The splits of a data set that was read; files with problems are left out.

    Raises:
        SplitError: The images cannot be divided as the recipe says.
    """
    sides = {role: side for role, side in _sides(dataset).items() if role not in source.catalogs}
    folds = sides.get("validation")
    return assemble(
        source.catalogs,
        {role: share for role, share in sides.items() if isinstance(share, float)},
        folds=folds.folds if isinstance(folds, Folds) else 0,
        split_seed=dataset.split_seed,
        allowed=source.allowed,
    )


def _read_manifest(dataset: Dataset, folder: Path, progress: Progress) -> Source:
    file = open_manifest(dataset.source, folder, dataset.sha256, progress)
    manifest = read_manifest(file, dataset.group_by)
    listing = located(manifest, dataset.source if "://" in dataset.source else "")
    notes = _agreed(manifest, dataset)
    excluded = rows_named(listing.names, dataset.exclude, "exclude", file)
    allowed = rows_named(listing.names, dataset.allow_duplicates, "allow_duplicates", file)
    catalogs, fetched = listing.catalogs(excluded, progress=progress)
    return Source(
        listing.root,
        catalogs,
        frozenset(fetched.get(path, path) for path in allowed),
        (*manifest.notes, *notes),
    )


def _agreed(manifest: Manifest, dataset: Dataset) -> list[str]:
    """What of `dataset.splits` gives way to the manifest's column `split`.

    Raises:
        SplitError: The two contradict each other, or neither says which pictures a split has; all of it at
            once.
    """
    given = manifest.roles or ("train",)
    faults, notes = [], []
    for role, side in _sides(dataset).items():
        field, default = f"dataset.splits.{role}", getattr(Declared(), role)
        if role in given:
            if isinstance(side, str) and side != role:
                faults.append(_no_folder(field, side, role))
            elif not isinstance(side, str) and side == default:
                notes.append(f"its rows for {role} take the place of {field}: {side}")
            elif not isinstance(side, str):
                faults.append(
                    f"{field} is {_spelled(side)}, but the manifest lists pictures for {role}; remove one"
                )
        elif isinstance(side, str):
            faults.append(_nothing_listed(field, role) if side == role else _no_folder(field, side, role))
    if faults:
        raise SplitError(
            f"dataset.splits and the manifest {manifest.file} do not fit together:\n"
            + "\n".join(f"  {fault}" for fault in faults)
        )
    return notes


def _nothing_listed(field: str, role: str) -> str:
    if role == "train":
        return "no row's split is train"
    return f"no row's split is {role}; say it in a column split, or set {field} to a fraction such as 0.2"


def _no_folder(field: str, side: str, role: str) -> str:
    return (
        f"{field} is {side!r}, a folder, which a manifest has none of; leave it out, and say {role} in a "
        "column split" + ("" if role == "train" else f", or set {field} to a fraction such as 0.2")
    )


def _spelled(side: float | Folds) -> str:
    return f"{{folds: {side.folds}}}" if isinstance(side, Folds) else f"{side:g}"


def _sides(dataset: Dataset) -> dict[str, str | float | Folds]:
    splits = dataset.splits
    return {"train": splits.train, "validation": splits.validation, "test": splits.test}
