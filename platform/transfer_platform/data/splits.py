"""Training, validation and test images of a study, and their fingerprints.

The split of an image depends on its bytes and the split seed, never on file names or order; with `dataset.group_by`,
whole groups are assigned to splits, and near duplicates are assigned together. If these rules change, new results are
no longer comparable with earlier ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from transfer_platform.data.catalog import Catalog, ImageRecord, class_names, in_several_splits, scan_folder
from transfer_platform.data.group_split import assign_group_folds, groups_in_several_splits, split_by_group
from transfer_platform.data.hash_split import assign_folds, split_by_hash
from transfer_platform.data.message_lists import join_lines
from transfer_platform.errors import SplitError
from transfer_platform.file_problems import printable
from transfer_platform.progress import Progress, silent
from transfer_platform.suggest import did_you_mean

if TYPE_CHECKING:
    from transfer_platform.data.image_stats import ImageStats


@dataclass(frozen=True)
class Splits:
    """The images of a study.

    Attributes:
        classes: Sorted class names; the position of a class is its index in the network output.
        train: Training images; as in the other splits, they are sorted by label, then by digest.
        validation: Images used to rank the trials; empty if cross-validation is used.
        test: Images used for the promotion checks.
        ignored: Hidden and system files that were ignored.
        folds: Cross-validation fold of each training image, 0 to K - 1; empty without cross-validation.
        near_duplicates: True if the folds depend on near duplicates among the training images.
    """

    classes: tuple[str, ...]
    train: tuple[ImageRecord, ...]
    validation: tuple[ImageRecord, ...]
    test: tuple[ImageRecord, ...]
    ignored: tuple[Path, ...] = ()
    folds: tuple[int, ...] = ()
    near_duplicates: bool = False

    @property
    def by_name(self) -> dict[str, tuple[ImageRecord, ...]]:
        """The images of each non-empty split, keyed by split name."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {split: images for split, images in splits.items() if images}

    @property
    def development(self) -> tuple[ImageRecord, ...]:
        """Images available to the hyperparameter search: training images, followed by validation images."""
        return self.train + self.validation

    @property
    def selection(self) -> tuple[ImageRecord, ...]:
        """Images used to rank the trials: validation images or, for cross-validation, all training images."""
        return self.validation or self.train

    def labels(self, images: Sequence[ImageRecord]) -> list[int]:
        """Returns the class index of each image."""
        return [self.classes.index(image.label) for image in images]

    @property
    def fold_count(self) -> int:
        """Number of folds; 0 if cross-validation is not used."""
        return max(self.folds, default=-1) + 1

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of each split's labels, image bytes and (in train) weights, independent of the order of images."""
        return {split: fingerprint(images, weighted=split == "train") for split, images in self.by_name.items()}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the fingerprints of all splits, and of the folds if there are groups or near duplicates."""
        grouped = self.near_duplicates or any(image.group for image in self.train)
        folds = {
            f"fold {fold}": fingerprint(image for image, own in zip(self.train, self.folds, strict=True) if own == fold)
            for fold in range(self.fold_count if grouped else 0)
        }
        return _sha256("".join(f"{name}\0{digest}\n" for name, digest in (self.fingerprints | folds).items()))


def scan_splits(
    root: Path,
    folders: Mapping[str, str],
    stats: ImageStats,
    excluded: Collection[Path] = frozenset(),
    progress: Progress = silent,
) -> dict[str, Catalog]:
    """Scans the folder of each split below `root`, except for `excluded` paths; adds the image statistics to `stats`.

    Raises:
        SplitError: A folder does not exist or is inside the folder of another split.
    """
    paths = {split: _split_folder(root, split, name) for split, name in folders.items()}
    _require_disjoint_folders(paths)
    return {split: scan_folder(folder, excluded, root, stats, progress) for split, folder in paths.items()}


def build_splits(
    catalogs: Mapping[str, Catalog],
    fractions: Mapping[str, float],
    *,
    folds: int = 0,
    split_seed: int = 0,
    allowed: Collection[Path] = frozenset(),
    similar: Collection[Collection[str]] = (),
) -> Splits:
    """Builds the splits from the scanned images; files with problems are left out.

    Args:
        catalogs: Scanned images of each split that has a folder or manifest rows; must include `train`.
        fractions: Fractions of train to hold out, keyed by `test` and `validation`; both are optional.
        folds: Number of cross-validation folds; 0 disables cross-validation.
        split_seed: Seed of the splits and folds.
        allowed: Files allowed to appear in more than one split.
        similar: Digests of each set of near duplicates; each set stays in the same split and fold if possible.

    Raises:
        SplitError: The classes differ, a class has too few images, or two splits share an image or a group.
    """
    listed = {split: catalog.images for split, catalog in catalogs.items()}
    classes = class_names(listed)
    ignored = tuple(path for catalog in catalogs.values() for path in catalog.ignored)
    _require_disjoint_images(listed, allowed)
    _require_disjoint_groups(listed)
    grouped = any(image.group for image in listed["train"])
    divide = split_by_group if grouped else split_by_hash
    held_out = divide(listed["train"], fractions, split_seed, similar, folds=folds)
    images = {"validation": (), **listed, **held_out}
    assign = assign_group_folds if grouped else assign_folds
    assigned = assign(images["train"], folds, split_seed, similar) if folds else ()
    trained = {image.sha256 for image in images["train"]}
    joined = any(len(trained.intersection(digests)) > 1 for digests in similar)
    return Splits(classes, **images, ignored=ignored, folds=assigned, near_duplicates=joined)


def images_in_several_splits(
    images_by_split: Mapping[str, Sequence[ImageRecord]], allowed: Collection[Path] = frozenset()
) -> list[dict[str, tuple[ImageRecord, ...]]]:
    """Returns the files of each image that is in several splits, keyed by split; ignores `allowed` files."""
    return list(in_several_splits(images_by_split, "sha256", allowed).values())


def fingerprint(images: Iterable[ImageRecord], *, weighted: bool = False) -> str:
    """Returns the SHA-256 of the sorted lines `label NUL sha256`, one per image.

    If `weighted` is true, `NUL weight` is appended to the lines of images whose weight is not 1.
    """
    lines = (
        f"{image.label}\0{image.sha256}" + (f"\0{image.weight!r}" if weighted and image.weight != 1 else "") + "\n"
        for image in images
    )
    return _sha256("".join(sorted(lines)))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _split_folder(root: Path, split: str, name: str) -> Path:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise SplitError(f"dataset.splits.{split} is {name!r}, but must be a folder inside the source {root}")
    folder = root / relative
    if not folder.is_dir():
        deep = (path for depth in ("*", "*/*", "*/*/*") for path in root.glob(f"{depth}/"))
        names = [path.relative_to(root).as_posix() for path in deep if path.is_dir()]
        raise SplitError(
            f"dataset.splits.{split} is {name!r}, but {root} has no such folder{did_you_mean(name, names)}"
        )
    return folder


def _require_disjoint_images(images_by_split: Mapping[str, Sequence[ImageRecord]], allowed: Collection[Path]) -> None:
    if shared := images_in_several_splits(images_by_split, allowed):
        lines = [
            "  " + ", ".join(f"{split}: {printable(images[0].path)}" for split, images in by_split.items())
            for by_split in shared
        ]
        raise SplitError(
            f"{len(shared)} image{'s are' if len(shared) > 1 else ' is'} in more than one split:\n"
            + join_lines(lines)
            + "\nremove the extra files, or list them in dataset.exclude; to keep files in more than one split, list "
            "them in dataset.allow_duplicates"
        )


def _require_disjoint_groups(images_by_split: Mapping[str, Sequence[ImageRecord]]) -> None:
    if groups := groups_in_several_splits(images_by_split):
        lines = [f"  {name!r}: {' and '.join(by_split)}" for name, by_split in groups.items()]
        raise SplitError(
            f"{len(lines)} group{'s are' if len(lines) > 1 else ' is'} in more than one split (dataset.group_by):\n"
            + join_lines(lines)
            + "\ncorrect the 'split' column of the manifest, or remove the column and set fractions in dataset.splits"
        )


def _require_disjoint_folders(folders: Mapping[str, Path]) -> None:
    """Rejects nested split folders, because the inner one would be read twice and its name mistaken for a class."""
    resolved = {split: folder.resolve() for split, folder in folders.items()}
    for split, folder in resolved.items():
        for other, parent in resolved.items():
            if split != other and folder.is_relative_to(parent):
                raise SplitError(
                    f"dataset.splits.{split} ({folder}) is inside dataset.splits.{other} ({parent}); "
                    "each split needs its own folder or a fraction of train"
                )
