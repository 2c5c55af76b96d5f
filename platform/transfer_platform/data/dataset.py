"""Opens the dataset of a recipe: resolves its splits and scans its images."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transfer_platform.data.image_folder import read_image_folder, unlisted_note
from transfer_platform.data.image_stats import ImageStats
from transfer_platform.data.manifest import Manifest, is_manifest, read_manifest
from transfer_platform.data.manifest_images import locate_images
from transfer_platform.data.patterns import match_files, match_patterns, match_rows
from transfer_platform.data.split_layout import (
    ResolvedSplits,
    SplitSpec,
    resolve_folder_splits,
    resolve_manifest_splits,
)
from transfer_platform.data.splits import Splits, build_splits, scan_splits
from transfer_platform.errors import DataError, SplitError
from transfer_platform.progress import Progress, Say, silent
from transfer_platform.recipe.schema import DatasetConfig, FoldsConfig
from transfer_platform.sources.open import open_manifest, open_source

if TYPE_CHECKING:
    from transfer_platform.data.catalog import Catalog


@dataclass(frozen=True)
class ScannedDataset:
    """A dataset after all of its image files have been scanned.

    Attributes:
        root: Source folder; for a manifest, the folder that contains the manifest.
        catalogs: Scanned images of each split that has its own folder or manifest rows, keyed by split.
        allowed: Files allowed to appear in more than one split.
        notes: Messages about the columns of the manifest; empty for a folder.
        metadata_files: Metadata files that list the images, relative to `dataset.source`; usually empty.
    """

    config: DatasetConfig
    resolved_splits: ResolvedSplits
    root: Path
    catalogs: Mapping[str, Catalog]
    stats: ImageStats
    allowed: frozenset[Path]
    notes: tuple[str, ...] = ()
    metadata_files: tuple[str, ...] = ()

    @property
    def resolved_config(self) -> DatasetConfig:
        """The `dataset` section with every split set explicitly; `config` itself if all splits are already set."""
        splits = self.resolved_splits.to_config()
        return self.config if splits == self.config.splits else self.config.model_copy(update={"splits": splits})

    @property
    def split_messages(self) -> tuple[str, ...]:
        """Messages explaining how any splits not set in the recipe were resolved."""
        return self.resolved_splits.messages

    def with_splits(
        self, *, validation: float | FoldsConfig | None = None, test: float | None = None
    ) -> ScannedDataset:
        """Returns a copy with different split fractions or folds, without rereading any files."""
        specs: dict[str, Any] = {"validation": validation, "test": test}
        changed = {split: spec for split, spec in specs.items() if spec is not None}
        return replace(self, resolved_splits=replace(self.resolved_splits, **changed))

    def split(self, similar: Collection[Collection[str]] = ()) -> Splits:
        """Splits the images with `build_splits`, as configured in the recipe.

        Args:
            similar: Digests of each set of near duplicates. A set stays together when images are assigned to splits
                by fraction, or to folds. Ignored if `dataset.group_near_duplicates` is false.
        """
        specs = self.resolved_splits.split_specs
        validation = specs["validation"]
        return build_splits(
            self.catalogs,
            {split: spec for split, spec in specs.items() if isinstance(spec, float)},
            folds=validation.folds if isinstance(validation, FoldsConfig) else 0,
            split_seed=self.config.split_seed,
            allowed=self.allowed,
            similar=similar if self.config.group_near_duplicates else (),
        )


def open_dataset(config: DatasetConfig, folder: Path, progress: Progress = silent, say: Say = silent) -> ScannedDataset:
    """Downloads a dataset if necessary, resolves its splits and reads every image once.

    Problems with individual files do not raise an error, but are added to the catalogs. Relative paths in `config` are
    relative to `folder`, the folder that contains the recipe file. `say` is called with messages about detected
    splits before the images are read.

    Raises:
        DataError: The source is not available, a pattern matches no file, or the manifest has errors.
        SplitError: The folder of a split does not exist, or the splits are ambiguous or contradict the manifest.
    """
    if is_manifest(config.source) and not (folder / config.source).is_dir():
        return _open_manifest(config, folder, progress, say)
    return _open_folder(config, folder, progress, say)


def _open_folder(config: DatasetConfig, folder: Path, progress: Progress, say: Say) -> ScannedDataset:
    root = open_source(config.source, folder, config.sha256, progress).resolve()
    if manifest := read_image_folder(root, config.group_by, config.exclude):
        return _open_rows(manifest, config, progress, say)
    if config.group_by:
        raise DataError(
            f"dataset.group_by requires a manifest with a {config.group_by!r} column, but the source {config.source} "
            f"is not a manifest; list the images in a CSV file with the columns path, label and "
            f"{config.group_by}, and set dataset.source to that file"
        )
    splits, stats = resolve_folder_splits(root, config.splits), ImageStats()
    for message in splits.messages:
        say(message)
    excluded, allowed = match_patterns(config, partial(match_files, root))
    folders = {split: spec for split, spec in splits.split_specs.items() if isinstance(spec, str)}
    catalogs = scan_splits(root, folders, stats, excluded, progress)
    return ScannedDataset(config, splits, root, catalogs, stats, allowed)


def _open_manifest(config: DatasetConfig, folder: Path, progress: Progress, say: Say) -> ScannedDataset:
    file = open_manifest(config.source, folder, config.sha256, progress)
    url = config.source if "://" in config.source else ""
    return _open_rows(read_manifest(file, config.group_by), config, progress, say, url)


def _open_rows(
    manifest: Manifest, config: DatasetConfig, progress: Progress, say: Say, url: str = ""
) -> ScannedDataset:
    splits = resolve_manifest_splits(manifest.splits, config.splits)
    for message in splits.messages:
        say(message)
    images = locate_images(manifest, url)
    _require_consistent_splits(manifest, splits.split_specs)
    excluded, allowed = match_patterns(config, partial(match_rows, images.names, manifest.file))
    stats = ImageStats()
    catalogs, fetched = images.scan(excluded, stats, progress)
    allowed = frozenset(fetched.get(path, path) for path in allowed)
    notes = manifest.notes
    if not manifest.is_listed_by_user:
        notes += tuple(unlisted_note(manifest, images.names.values()))
    return ScannedDataset(
        config, splits, images.root, catalogs, stats, allowed, notes, metadata_files=manifest.metadata_files
    )


def _require_consistent_splits(manifest: Manifest, specs: Mapping[str, SplitSpec]) -> None:
    """Raises a `SplitError` if `dataset.splits` contradicts the `split` column of a manifest."""
    listed, errors = manifest.splits or ("train",), []
    for split, spec in specs.items():
        field = f"dataset.splits.{split}"
        fraction = "" if split == "train" else f", or set {field} to a fraction such as 0.2"
        if isinstance(spec, str) and spec != split:
            errors.append(
                f"{field} is set to the folder {spec!r}, but a manifest has no folders; remove {field} and put "
                f"{split} in the 'split' column{fraction}"
            )
        elif isinstance(spec, str) and split not in listed:
            errors.append(f"no row is assigned to {split}; add rows for this split{fraction}")
        elif not isinstance(spec, str) and split in listed:
            value = f"{{folds: {spec.folds}}}" if isinstance(spec, FoldsConfig) else f"{spec:g}"
            errors.append(f"{field} is {value}, but the manifest has {split} rows; remove either the field or the rows")
    if errors:
        raise SplitError(
            f"dataset.splits contradicts the manifest {manifest.file}:\n" + "\n".join(f"  {error}" for error in errors)
        )
