"""What is in a folder of class folders: every image with its label and its content's digest.

A file that is no image is told with its reason, unless the recipe excludes it: none is skipped silently.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from transfer_platform.data.image_stats import ImageStats
from transfer_platform.data.scan import scan_files
from transfer_platform.errors import DataError, SplitError
from transfer_platform.file_problems import FileProblem, display_name, printable
from transfer_platform.progress import Progress, silent
from transfer_platform.sources.walk import FoundFile, walk
from transfer_platform.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

MAX_LISTED = 20


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image file.

    Attributes:
        file: Its path, absolute; text, as a million `Path`s would take far more memory.
        label: Its class: the name of the class folder, in Unicode's composed form (NFC).
        sha256: Of the file's bytes, 64 hexadecimal digits.
        group: Images of one group stay on one side; empty where nothing is grouped.
        weight: How much it counts in the loss when it teaches.
    """

    file: str
    label: str
    sha256: str
    group: str = ""
    weight: float = 1.0

    @property
    def path(self) -> Path:
        """Where it is."""
        return Path(self.file)


@dataclass(frozen=True)
class Catalog:
    """What one folder holds, or what a manifest lists for one split.

    Attributes:
        folder: Which, links resolved; of a manifest the file.
        root: The source that it lies in, likewise.
        images: Sorted by label, then by digest, so that file names do not matter.
        classes: The names of the class folders, or the labels of a manifest; sorted.
        excluded: Files that the recipe leaves out.
        ignored: Hidden files and folders and clutter such as `Thumbs.db`.
        problems: Files that are no readable images in a class folder, and why.
        names: What files are called that were fetched: their URLs.
        listed: Whether a manifest lists the images.
    """

    folder: Path
    root: Path
    images: tuple[ImageRecord, ...]
    classes: tuple[str, ...]
    excluded: tuple[Path, ...]
    ignored: tuple[Path, ...]
    problems: dict[Path, FileProblem]
    names: Mapping[Path, str] = field(default_factory=dict)
    from_manifest: bool = False

    def require_readable(self) -> None:
        """Raises a `DataError` that names the first 20 files that are no images, where there are any."""
        if not self.problems:
            return
        lines = [
            f"  {display_name(path, self.root, self.names)}: {self.problems[path].message}"
            for path in sorted(self.problems)
        ]
        more = [f"  ... and {len(lines) - MAX_LISTED} more"] if len(lines) > MAX_LISTED else []
        raise DataError(
            f"{len(lines)} files in {self.folder} are no readable images"
            + ("" if self.from_manifest else " in a class folder")
            + ":\n"
            + "\n".join(lines[:MAX_LISTED] + more)
            + "\nmend or remove them, or list them under dataset.exclude"
        )

    def require_classes(self) -> None:
        """Raises a `DataError` where there are fewer than two classes, or one without an image."""
        if gaps := self.class_errors():
            raise DataError("\n".join(gaps))

    def class_errors(self) -> list[str]:
        """What is wrong with the classes, a sentence each."""
        if len(self.classes) < 2:
            return [self._too_few_classes()]
        gaps = []
        if unwritable := ", ".join(printable(label) for label in self.classes if printable(label) != label):
            which = "labels that are" if self.from_manifest else "class folders whose names are"
            gaps.append(f"{self.folder} has {which} no printable text: {unwritable}; rename them")
        if empty := self._empty_classes():
            which = "classes without a readable" if self.from_manifest else "class folders without an"
            mend = "correct their rows" if self.from_manifest else "fill or remove them"
            gaps.append(
                f"{self.folder} has {which} image: {empty}; "
                f"{mend}, and see that dataset.exclude leaves something of them"
            )
        return gaps

    def _too_few_classes(self) -> str:
        there = f"only one, {printable(self.classes[0])!r}" if self.classes else "none"
        if self.from_manifest:
            return f"{self.folder} must list at least two classes, but has {there}; see its column 'label'"
        return (
            f"{self.folder} must have a folder for each of at least two classes, but has {there}; "
            "name the folder that holds the class folders"
        )

    def _empty_classes(self) -> str:
        held = {image.label for image in self.images}
        return ", ".join(repr(label) for label in self.classes if label not in held)


def scan_folder(
    folder: Path,
    excluded: Collection[Path] = frozenset(),
    root: Path | None = None,
    looks: ImageStats | None = None,
    progress: Progress = silent,
) -> Catalog:
    """Lists the images of a folder that has one folder per class; deeper folders belong to the class too.

    Args:
        folder: The folder of class folders.
        excluded: Files and folders below the root that are left out.
        root: The source that `folder` lies in; links may not leave it, and messages name files relative
            to it. By default `folder`.
        looks: Is given what is seen of the images, where it is wanted.
        progress: Is told how many files were read.

    Raises:
        DataError: There is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"the folder {folder} does not exist{_nearest_folder(folder)}")
    root, folder = (root or folder).resolve(), folder.resolve()
    contents = walk(folder, root)
    left_out = {str(path) for path in excluded}
    files = [file for file in contents.files if file.path not in left_out]
    inside = [file for file in files if "/" in file.name]
    readings = scan_files(folder, inside, ImageStats() if looks is None else looks, progress)
    beside = FileProblem("outside the class folders", "lies beside the class folders, not in one")
    problems = {path: why for path, why in contents.problems.items() if path not in excluded}
    problems |= {Path(file.path): beside for file in files if "/" not in file.name} | readings.problems
    digests = readings.digests
    return Catalog(
        folder=folder,
        root=root,
        images=sort_by_content(
            ImageRecord(file.path, _label(file), digests[file.path])
            for file in inside
            if file.path in digests
        ),
        classes=tuple(sorted({_composed(path.name) for path in contents.folders if path not in excluded})),
        excluded=tuple(sorted(Path(file.path) for file in contents.files if file.path in left_out)),
        ignored=tuple(sorted(contents.ignored)),
        problems=problems,
    )


def sort_by_content(images: Iterable[ImageRecord]) -> tuple[ImageRecord, ...]:
    """Images by label, then by digest; only what is the same in both is told apart by its path."""
    return tuple(sorted(images, key=lambda image: (image.label, image.sha256, image.file)))


def class_names(catalogs: Mapping[str, Sequence[ImageRecord]]) -> tuple[str, ...]:
    """The one list of classes that all splits share; a class's place in it is its index in the network.

    Args:
        catalogs: The images of each split, `train` among them.

    Returns:
        The classes of `train`, sorted by name.

    Raises:
        SplitError: Another split lacks one of them, or has one more.
    """
    if lines := class_differences(catalogs):
        raise SplitError(
            "the splits do not have the same classes:\n  " + "\n  ".join(lines) + "\n"
            "every split needs images of every class, of the same name"
        )
    return tuple(sorted({image.label for image in catalogs["train"]}))


def class_differences(catalogs: Mapping[str, Sequence[ImageRecord]]) -> list[str]:
    """Which splits lack a class of `train`, or have one more; a sentence each."""
    expected = {image.label for image in catalogs["train"]}
    lines = []
    for split, images in catalogs.items():
        actual = {image.label for image in images}
        lines += [f"{split} lacks the class {label!r}" for label in sorted(expected - actual)]
        lines += [
            f"{split} has the class {label!r}, which train lacks{did_you_mean(label, expected)}"
            for label in sorted(actual - expected)
        ]
    return lines


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _label(file: FoundFile) -> str:
    return _composed(file.name.partition("/")[0])


def _nearest_folder(folder: Path) -> str:
    siblings = folder.parent.iterdir() if folder.parent.is_dir() else ()
    return did_you_mean(folder.name, (sibling.name for sibling in siblings if sibling.is_dir()))
