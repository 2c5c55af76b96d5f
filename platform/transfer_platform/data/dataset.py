"""Opens the dataset of a recipe: resolves its splits and scans its images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transfer_platform.data.image_stats import ImageStats
from transfer_platform.data.manifest import Manifest, is_manifest, read_manifest
from transfer_platform.data.manifest_files import locate_images
from transfer_platform.data.patterns import match_files, match_patterns, match_rows
from transfer_platform.data.split_layout import (
    ResolvedSplits,
    SplitSpec,
    resolve_folder_splits,
    resolve_manifest_splits,
)
from transfer_platform.data.splits import Splits, build_splits, scan_splits
from transfer_platform.errors import DataError, SplitError
from transfer_platform.progress import Progress, silent
from transfer_platform.recipe.schema import DatasetConfig, FoldsConfig
from transfer_platform.sources.open import open_manifest, open_source

if TYPE_CHECKING:
    from transfer_platform.data.catalog import Catalog


@dataclass(frozen=True)
class ScannedDataset:
    """A dataset whose image files were all read.

    Attributes:
        root: Source folder; the folder of a manifest.
        catalogs: Scanned images of each split that has a folder or rows in the manifest.
        allowed: Files that may be in two splits.
        notes: Messages about the columns of a manifest.
    """

    config: DatasetConfig
    resolved_splits: ResolvedSplits
    root: Path
    catalogs: Mapping[str, Catalog]
    stats: ImageStats
    allowed: frozenset[Path]
    notes: tuple[str, ...] = ()

    @property
    def resolved_config(self) -> DatasetConfig:
        """Section `dataset` with every split spelled out; `config` itself if it leaves no split unset."""
        splits = self.resolved_splits.to_config()
        return self.config if splits == self.config.splits else self.config.model_copy(update={"splits": splits})

    @property
    def split_messages(self) -> tuple[str, ...]:
        """Messages about the splits that the recipe leaves unset."""
        return self.resolved_splits.messages

    def with_splits(
        self, *, validation: float | FoldsConfig | None = None, test: float | None = None
    ) -> ScannedDataset:
        """Returns the dataset with other fractions or folds; no file is read again."""
        specs: dict[str, Any] = {"validation": validation, "test": test}
        changed = {split: spec for split, spec in specs.items() if spec is not None}
        return replace(self, resolved_splits=replace(self.resolved_splits, **changed))

    def split(self) -> Splits:
        """Splits the images like `build_splits`, as configured in the recipe."""
        specs = self.resolved_splits.split_specs
        validation = specs["validation"]
        return build_splits(
            self.catalogs,
            {split: spec for split, spec in specs.items() if isinstance(spec, float)},
            folds=validation.folds if isinstance(validation, FoldsConfig) else 0,
            split_seed=self.config.split_seed,
            allowed=self.allowed,
        )


def open_dataset(config: DatasetConfig, folder: Path, progress: Progress = silent) -> ScannedDataset:
    """Fetches a dataset, resolves its splits and reads every image once.

    Problems of single files are collected in the catalogs, not raised. Relative paths in `config` start at `folder`,
    the folder of the recipe file.

    Raises:
        DataError: The source is not available, a pattern matches no file, or the manifest has errors.
        SplitError: The folder of a split does not exist, or the splits are ambiguous or contradict the manifest.
    """
    if is_manifest(config.source) and not (folder / config.source).is_dir():
        return _open_manifest(config, folder, progress)
    return _open_folder(config, folder, progress)


def _open_folder(config: DatasetConfig, folder: Path, progress: Progress) -> ScannedDataset:
    if config.group_by:
        raise DataError(
            f"dataset.group_by names the manifest column {config.group_by!r}, but the source {config.source} "
            f"is not a manifest; list the images in a CSV file with the columns path, label and "
            f"{config.group_by}, and set dataset.source to it"
        )
    root = open_source(config.source, folder, config.sha256, progress).resolve()
    splits, stats = resolve_folder_splits(root, config.splits), ImageStats()
    excluded, allowed = match_patterns(config, partial(match_files, root))
    folders = {split: spec for split, spec in splits.split_specs.items() if isinstance(spec, str)}
    catalogs = scan_splits(root, folders, stats, excluded, progress)
    return ScannedDataset(config, splits, root, catalogs, stats, allowed)


def _open_manifest(config: DatasetConfig, folder: Path, progress: Progress) -> ScannedDataset:
    file = open_manifest(config.source, folder, config.sha256, progress)
    manifest = read_manifest(file, config.group_by)
    splits = resolve_manifest_splits(manifest.splits, config.splits)
    images = locate_images(manifest, config.source if "://" in config.source else "")
    _require_consistent_splits(manifest, splits.split_specs)
    excluded, allowed = match_patterns(config, partial(match_rows, images.names, file))
    stats = ImageStats()
    catalogs, fetched = images.scan(excluded, stats, progress)
    allowed = frozenset(fetched.get(path, path) for path in allowed)
    return ScannedDataset(config, splits, images.root, catalogs, stats, allowed, manifest.notes)


def _require_consistent_splits(manifest: Manifest, specs: Mapping[str, SplitSpec]) -> None:
    """Raises a `SplitError` if `dataset.splits` contradicts the column `split` of a manifest."""
    listed, errors = manifest.splits or ("train",), []
    for split, spec in specs.items():
        field = f"dataset.splits.{split}"
        fraction = "" if split == "train" else f", or set {field} to a fraction such as 0.2"
        if isinstance(spec, str) and spec != split:
            errors.append(
                f"{field} is the folder {spec!r}, but a manifest has no folders; remove {field} and write "
                f"{split} into the column 'split'{fraction}"
            )
        elif isinstance(spec, str) and split not in listed:
            errors.append(f"no row has the split {split}; add such rows{fraction}")
        elif not isinstance(spec, str) and split in listed:
            value = f"{{folds: {spec.folds}}}" if isinstance(spec, FoldsConfig) else f"{spec:g}"
            errors.append(f"{field} is {value}, but the manifest has rows for {split}; remove one of them")
    if errors:
        raise SplitError(
            f"dataset.splits contradicts the manifest {manifest.file}:\n" + "\n".join(f"  {error}" for error in errors)
        )
