"""From a recipe's `dataset:` section to its images: read, and then divided."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from transfer_platform.data.image_stats import ImageStats
from transfer_platform.data.manifest import Manifest, is_manifest, read_manifest
from transfer_platform.data.manifest_files import locate_images
from transfer_platform.data.patterns import match_files, match_patterns, match_rows
from transfer_platform.data.split_layout import resolve_splits
from transfer_platform.data.splits import Splits, build_splits, scan_splits
from transfer_platform.errors import DataError, SplitError
from transfer_platform.progress import Progress, silent
from transfer_platform.recipe.schema import DatasetConfig, FoldsConfig
from transfer_platform.sources.open import open_manifest, open_source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transfer_platform.data.catalog import Catalog


@dataclass(frozen=True)
class ScannedDataset:
    """A data set as it was read.

    Attributes:
        root: Its folder.
        sides: By split, the folder that the recipe names, a fraction, or folds; none is left out.
        catalogs: What each split's folder holds, or a manifest lists for it.
        looks: What was seen of all images.
        allowed: Files that may lie in two splits.
        notes: What was made of a manifest's columns, a sentence each.
    """

    root: Path
    split_specs: Mapping[str, str | float | FoldsConfig]
    catalogs: Mapping[str, Catalog]
    stats: ImageStats
    allowed: frozenset[Path]
    notes: tuple[str, ...] = ()


def scan_dataset(dataset: DatasetConfig, folder: Path, progress: Progress = silent) -> ScannedDataset:
    """Brings a data set here and reads every image once; what is wrong with a file is told, not raised.

    Args:
        dataset: The section of a recipe.
        folder: What relative paths in it are relative to: the recipe file's own folder.
        progress: Told how far fetching, unpacking and reading have come.

    Raises:
        DataError: The data set cannot be had, a split's folder is not there, a pattern matches nothing, or a
            manifest is wrong.
    """
    sides = resolve_splits(dataset, folder, progress).split_specs
    if is_manifest(dataset.source) and not (folder / dataset.source).is_dir():
        return _read_manifest(dataset, sides, folder, progress)
    if dataset.group_by:
        raise DataError(
            f"dataset.group_by names a column ({dataset.group_by}) of a manifest, but the source "
            f"{dataset.source} is none; list the images in a CSV file with the columns path, label and "
            f"{dataset.group_by}, and name it as the source"
        )
    root = open_source(dataset.source, folder, dataset.sha256, progress).resolve()
    excluded, allowed = match_patterns(dataset, partial(match_files, root))
    folders = {role: name for role, name in sides.items() if isinstance(name, str)}
    looks = ImageStats()
    catalogs = scan_splits(root, folders, looks, excluded, progress)
    return ScannedDataset(root, sides, catalogs, looks, allowed)


def split_dataset(source: ScannedDataset, dataset: DatasetConfig) -> Splits:
    """The splits of a data set that was read; files with problems are left out.

    Raises:
        SplitError: The images cannot be divided as the recipe says.
    """
    sides = {role: side for role, side in source.split_specs.items() if role not in source.catalogs}
    folds = sides.get("validation")
    return build_splits(
        source.catalogs,
        {role: share for role, share in sides.items() if isinstance(share, float)},
        folds=folds.folds if isinstance(folds, FoldsConfig) else 0,
        split_seed=dataset.split_seed,
        allowed=source.allowed,
    )


def _read_manifest(
    dataset: DatasetConfig, sides: Mapping[str, str | float | FoldsConfig], folder: Path, progress: Progress
) -> ScannedDataset:
    file = open_manifest(dataset.source, folder, dataset.sha256, progress)
    manifest = read_manifest(file, dataset.group_by)
    listing = locate_images(manifest, dataset.source if "://" in dataset.source else "")
    _refuse_contradictions(manifest, sides)
    excluded, allowed = match_patterns(dataset, partial(match_rows, listing.names, file))
    looks = ImageStats()
    catalogs, fetched = listing.catalogs(excluded, looks, progress)
    return ScannedDataset(
        listing.root,
        sides,
        catalogs,
        looks,
        frozenset(fetched.get(path, path) for path in allowed),
        manifest.notes,
    )


def _refuse_contradictions(manifest: Manifest, sides: Mapping[str, str | float | FoldsConfig]) -> None:
    """Raises a `SplitError` where `dataset.splits` and a manifest's column `split` contradict each other."""
    given, faults = manifest.roles or ("train",), []
    for role, side in sides.items():
        name = f"dataset.splits.{role}"
        if isinstance(side, str) and side != role:
            faults.append(_no_folder(name, side, role))
        elif isinstance(side, str) and role not in given:
            faults.append(_nothing_listed(name, role))
        elif not isinstance(side, str) and role in given:
            faults.append(f"{name} is {_spelled(side)}, but the manifest lists images for {role}; remove one")
    if faults:
        raise SplitError(
            f"dataset.splits and the manifest {manifest.file} do not fit together:\n"
            + "\n".join(f"  {fault}" for fault in faults)
        )


def _nothing_listed(field: str, role: str) -> str:
    if role == "train":
        return "no row's split is train"
    return f"no row's split is {role}; say it in a column split, or set {field} to a fraction such as 0.2"


def _no_folder(field: str, side: str, role: str) -> str:
    return (
        f"{field} is {side!r}, a folder, which a manifest has none of; leave it out, and say {role} in a "
        "column split" + ("" if role == "train" else f", or set {field} to a fraction such as 0.2")
    )


def _spelled(side: float | FoldsConfig) -> str:
    return f"{{folds: {side.folds}}}" if isinstance(side, FoldsConfig) else f"{side:g}"
