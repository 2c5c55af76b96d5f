"""Train, validation and test, chosen by what the images are and by nothing else.

An image's side depends on the images' bytes and the split seed, never on file names or order. So identical
files always land on the same side, and an image that was once test stays test when the folder grows. Where
images are grouped, groups take the place of images (`grouping`).
These rules cannot change without making every earlier result incomparable.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from transfer_platform.data.catalog import Catalog, ImageRecord, class_names, scan_folder
from transfer_platform.data.group_split import assign_group_folds, groups_in_several_splits, split_by_group
from transfer_platform.data.hash_split import assign_folds, split_by_hash
from transfer_platform.errors import SplitError
from transfer_platform.file_problems import printable
from transfer_platform.progress import Progress, silent
from transfer_platform.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from transfer_platform.data.image_stats import ImageStats

MAX_LISTED = 10
"""Lines of a list in an error."""


@dataclass(frozen=True)
class Splits:
    """The images that teach, that choose, and that judge.

    Attributes:
        classes: Sorted by name; a class's place is its index in the network.
        train: What a trial learns from, sorted by label and digest.
        validation: What ranks trials; likewise. Empty where `folds` do it.
        test: What the gate reads; likewise.
        ignored: Hidden files and clutter that were left out unasked, to be reported.
        folds: For each training image the fold, 0 to K - 1, in which it is held out; empty without
            cross-validation.
    """

    classes: tuple[str, ...]
    train: tuple[ImageRecord, ...]
    validation: tuple[ImageRecord, ...]
    test: tuple[ImageRecord, ...]
    ignored: tuple[Path, ...] = ()
    folds: tuple[int, ...] = ()

    @property
    def by_name(self) -> dict[str, tuple[ImageRecord, ...]]:
        """The three by name; without `validation` where folds of the training images rank the trials."""
        roles = {"train": self.train, "validation": self.validation, "test": self.test}
        return {role: images for role, images in roles.items() if images}

    @property
    def development(self) -> tuple[ImageRecord, ...]:
        """All that a study sees while it searches: training images, then those for validation."""
        return self.train + self.validation

    @property
    def selection(self) -> tuple[ImageRecord, ...]:
        """The images that rank trials: for validation, or with folds all training images."""
        return self.validation or self.train

    @property
    def fold_count(self) -> int:
        """K, 0 without cross-validation."""
        return max(self.folds, default=-1) + 1

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of each split's content: labels and bytes, not names, folders, archives or order.

        Where images of train have weights, these count too; elsewhere they are not used.
        """
        return {role: fingerprint(held, weighted=role == "train") for role, held in self.by_name.items()}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the whole: which content plays which role.

        What is in which fold follows from that and from the recipe, unless a manifest's groups decide it;
        then the folds count too.
        """
        grouped = any(image.group for image in self.train)
        folds = {
            f"fold {fold}": fingerprint(
                image for image, held in zip(self.train, self.folds, strict=True) if held == fold
            )
            for fold in range(self.fold_count if grouped else 0)
        }
        digests = self.fingerprints | folds
        return _hash("".join(f"{role}\0{digest}\n" for role, digest in digests.items()))


def scan_splits(
    root: Path,
    folders: Mapping[str, str],
    looks: ImageStats,
    excluded: Collection[Path] = frozenset(),
    progress: Progress = silent,
) -> dict[str, Catalog]:
    """Reads the folder of every split that has one.

    Args:
        root: The source's folder.
        folders: By split, `train` among them, a folder relative to `root`; `.` is the root.
        looks: Is given what is seen of the images.
        excluded: Files that are left out.
        progress: Is told how many images were read.

    Raises:
        SplitError: A folder is missing or lies in another split's.
    """
    found = {role: _folder(root, role, name) for role, name in folders.items()}
    _refuse_overlap(found)
    return {role: scan_folder(folder, excluded, root, looks, progress) for role, folder in found.items()}


def build_splits(
    catalogs: Mapping[str, Catalog],
    fractions: Mapping[str, float],
    *,
    folds: int = 0,
    split_seed: int = 0,
    allowed: Collection[Path] = frozenset(),
) -> Splits:
    """Divides the images that were read.

    Args:
        catalogs: By split, `train` among them; their problems are left out.
        fractions: Of train, for `test` and `validation`, either, both or none of them.
        folds: K, 0 for none.
        split_seed: Chooses another division.
        allowed: Files that may lie in two splits, byte for byte.

    Raises:
        SplitError: Classes differ, a class has too few images, or two splits share an image or a group.
    """
    given = {role: catalog.images for role, catalog in catalogs.items()}
    classes = class_names(given)
    ignored = tuple(path for catalog in catalogs.values() for path in catalog.ignored)
    _refuse_shared(given, allowed)
    _refuse_torn(given)
    grouped = any(image.group for image in given["train"])
    divided = (split_by_group if grouped else split_by_hash)(given["train"], fractions, split_seed)
    sides = {"validation": (), **given, **divided}
    deal = assign_group_folds if grouped else assign_folds
    dealt = deal(sides["train"], folds, split_seed) if folds else ()
    return Splits(classes, **sides, ignored=ignored, folds=dealt)


def images_in_several_splits(
    given: Mapping[str, Sequence[ImageRecord]], allowed: Collection[Path] = frozenset()
) -> list[dict[str, tuple[ImageRecord, ...]]]:
    """Images that lie in more than one split, byte for byte, but for files that are allowed to.

    Returns:
        For each image its files by split.
    """
    times = Counter(digest for images in given.values() for digest in {each.sha256 for each in images})
    files: dict[str, dict[str, list[ImageRecord]]] = defaultdict(lambda: defaultdict(list))
    for role, images in given.items():
        for image in images:
            if times[image.sha256] > 1 and image.path not in allowed:
                files[image.sha256][role].append(image)
    return [
        {role: tuple(images) for role, images in roles.items()} for roles in files.values() if len(roles) > 1
    ]


def fingerprint(images: Iterable[ImageRecord], *, weighted: bool = False) -> str:
    """SHA-256 over the sorted lines `label NUL sha256`: the content of a set of labelled images.

    Args:
        images: In any order.
        weighted: Add `NUL weight` to the lines of those whose weight is not 1.
    """
    lines = (
        f"{image.label}\0{image.sha256}"
        + (f"\0{image.weight!r}" if weighted and image.weight != 1 else "")
        + "\n"
        for image in images
    )
    return _hash("".join(sorted(lines)))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _folder(root: Path, role: str, name: str) -> Path:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise SplitError(f"dataset.splits.{role} is {name!r}, but must be a folder inside the source {root}")
    folder = root / relative
    if not folder.is_dir():
        deep = (path for depth in ("*", "*/*", "*/*/*") for path in root.glob(f"{depth}/"))
        near = [path.relative_to(root).as_posix() for path in deep if path.is_dir()]
        raise SplitError(
            f"dataset.splits.{role} is {name!r}, which is no folder in {root}{did_you_mean(name, near)}"
        )
    return folder


def _refuse_shared(given: Mapping[str, Sequence[ImageRecord]], allowed: Collection[Path]) -> None:
    """The same bytes in two splits would be tested after they were learned by heart."""
    shared = images_in_several_splits(given, allowed)
    if not shared:
        return
    lines = [
        "  " + ", ".join(f"{role}: {printable(images[0].path)}" for role, images in roles.items())
        for roles in shared
    ]
    more = [f"  and {len(lines) - MAX_LISTED} more"] if len(lines) > MAX_LISTED else []
    raise SplitError(
        f"{len(shared)} images lie in more than one split, byte for byte:\n"
        + "\n".join([*lines[:MAX_LISTED], *more])
        + "\nremove one of each, list it in dataset.exclude, or name the file that may be in both in "
        "dataset.allow_duplicates"
    )


def _refuse_torn(given: Mapping[str, Sequence[ImageRecord]]) -> None:
    """A group in two splits would be tested on what was learned of it."""
    if torn := groups_in_several_splits(given):
        lines = [f"  {name!r}: {' and '.join(held)}" for name, held in torn.items()]
        more = [f"  and {len(lines) - MAX_LISTED} more"] if len(lines) > MAX_LISTED else []
        raise SplitError(
            f"{len(lines)} groups (dataset.group_by) lie in more than one split:\n"
            + "\n".join([*lines[:MAX_LISTED], *more])
            + "\ncorrect the manifest's column split, or leave it out and divide by fractions"
        )


def _refuse_overlap(folders: Mapping[str, Path]) -> None:
    """The same images twice; and a folder in another would pass for one of its classes."""
    resolved = {role: folder.resolve() for role, folder in folders.items()}
    for role, folder in resolved.items():
        for other, above in resolved.items():
            if role != other and folder.is_relative_to(above):
                raise SplitError(
                    f"dataset.splits.{role} ({folder}) lies in dataset.splits.{other} ({above}); "
                    "each split needs a folder of its own, or a fraction of train"
                )
