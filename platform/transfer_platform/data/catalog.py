"""Catalog of the labelled images in a folder of class folders.

A file that is not a readable image is reported with its reason unless the recipe excludes it.
"""

import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transfer_platform.data.image_stats import ImageStats
from transfer_platform.data.scan import scan_files
from transfer_platform.errors import DataError, SplitError
from transfer_platform.file_problems import FileProblem, display_name, printable
from transfer_platform.progress import Progress, silent
from transfer_platform.sources.walk import walk
from transfer_platform.suggest import did_you_mean

MAX_LISTED = 20
"""Files that an error message names."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One labelled image file.

    Attributes:
        file: Absolute path; text, because a million `Path` objects need far more memory.
        label: Class, in Unicode normal form NFC.
        sha256: SHA-256 of the file, 64 hexadecimal digits.
        group: Images of one group stay in one split and one fold; empty without groups.
        weight: Weight of the image in the training loss.
    """

    file: str
    label: str
    sha256: str
    group: str = ""
    weight: float = 1.0

    @property
    def path(self) -> Path:
        """Absolute path of the file."""
        return Path(self.file)


@dataclass(frozen=True)
class Catalog:
    """The images of one folder, or of one split of a manifest.

    Attributes:
        folder: Folder with links resolved; for a manifest, its file.
        root: Source folder that contains it, with links resolved.
        images: Sorted by label, then by digest, so that file names do not matter.
        classes: Sorted names of the class folders, or labels of the manifest.
        excluded: Files that the recipe excludes.
        ignored: Hidden files and folders, and system files such as `Thumbs.db`.
        problems: Files that are not readable images in a class folder, with the reason.
        names: Names for messages of files that were fetched: their URLs.
        from_manifest: Whether the images are listed in a manifest.
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
        """Raises a `DataError` that names the first 20 files with problems, if there are any."""
        if not self.problems:
            return
        lines = [
            f"  {display_name(path, self.root, self.names)}: {self.problems[path].message}"
            for path in sorted(self.problems)
        ]
        more = [f"  ... and {len(lines) - MAX_LISTED} more"] if len(lines) > MAX_LISTED else []
        raise DataError(
            f"{len(lines)} file{'s' * (len(lines) > 1)} in {self.folder} cannot be used:\n"
            + "\n".join(lines[:MAX_LISTED] + more)
            + "\nfix or remove them, or list them under dataset.exclude"
        )

    def require_classes(self) -> None:
        """Raises a `DataError` if there are fewer than two classes, or a class has no image."""
        if errors := self.class_errors():
            raise DataError("\n".join(errors))

    def class_errors(self) -> list[str]:
        """Returns a message for each error in the classes."""
        if len(self.classes) < 2:
            return [self._too_few_classes()]
        errors = []
        if unprintable := ", ".join(printable(label) for label in self.classes if printable(label) != label):
            names = "labels" if self.from_manifest else "names of class folders"
            errors.append(f"{self.folder} has {names} that are not printable text: {unprintable}; rename them")
        labels = {image.label for image in self.images}
        if empty := ", ".join(repr(label) for label in self.classes if label not in labels):
            noun = "classes without a readable" if self.from_manifest else "class folders without an"
            remedy = "correct their rows" if self.from_manifest else "add images or remove the folders"
            errors.append(
                f"{self.folder} has {noun} image: {empty}; "
                f"{remedy}, and check that dataset.exclude does not exclude all of them"
            )
        return errors

    def _too_few_classes(self) -> str:
        found = f"only one, {printable(self.classes[0])!r}" if self.classes else "none"
        if self.from_manifest:
            return f"{self.folder} must list at least two classes, but has {found}; check its column 'label'"
        return (
            f"{self.folder} must have a folder for each of at least two classes, but has {found}; "
            "specify the folder that contains the class folders"
        )


def scan_folder(
    folder: Path,
    excluded: Collection[Path] = frozenset(),
    root: Path | None = None,
    stats: ImageStats | None = None,
    progress: Progress = silent,
) -> Catalog:
    """Scans the images of a folder that has one folder per class, with or without subfolders.

    Args:
        folder: Folder that contains the class folders.
        excluded: Files and folders to leave out.
        root: Source that contains `folder`; links must not leave it, and messages name files relative to
            it. By default `folder`.
        stats: The statistics of the images are added to it.
        progress: Called after each file.

    Raises:
        DataError: The folder does not exist.
    """
    if not folder.is_dir():
        raise DataError(f"the folder {folder} does not exist{_suggest_sibling(folder)}")
    root, folder = (root or folder).resolve(), folder.resolve()
    contents = walk(folder, root)
    excluded_files = {str(path) for path in excluded}
    files = [file for file in contents.files if file.path not in excluded_files]
    in_classes = [file for file in files if "/" in file.name]
    scanned = scan_files(folder, in_classes, ImageStats() if stats is None else stats, progress)
    outside = FileProblem("outside the class folders", "is beside the class folders, not in one of them")
    problems = {path: problem for path, problem in contents.problems.items() if path not in excluded}
    problems |= {Path(file.path): outside for file in files if "/" not in file.name} | scanned.problems
    digests = scanned.digests
    return Catalog(
        folder=folder,
        root=root,
        images=sort_by_content(
            ImageRecord(file.path, normalize_label(file.name.partition("/")[0]), digests[file.path])
            for file in in_classes
            if file.path in digests
        ),
        classes=tuple(sorted({normalize_label(path.name) for path in contents.folders if path not in excluded})),
        excluded=tuple(sorted(Path(file.path) for file in contents.files if file.path in excluded_files)),
        ignored=tuple(sorted(contents.ignored)),
        problems=problems,
    )


def normalize_label(text: str) -> str:
    """Returns a label or group in Unicode normal form NFC, so that equal names compare equal."""
    return unicodedata.normalize("NFC", text)


def sort_by_content(images: Iterable[ImageRecord]) -> tuple[ImageRecord, ...]:
    """Sorts images by label, then by digest; the path decides only between copies of one image."""
    return tuple(sorted(images, key=lambda image: (image.label, image.sha256, image.file)))


def class_names(images_by_split: Mapping[str, Sequence[ImageRecord]]) -> tuple[str, ...]:
    """Returns the sorted classes of `train`; the position of a class is its index in the network.

    Args:
        images_by_split: The images of each split, `train` among them.

    Raises:
        SplitError: Another split does not have the same classes.
    """
    if lines := class_differences(images_by_split):
        raise SplitError(
            "the splits do not have the same classes:\n  " + "\n  ".join(lines) + "\n"
            "every split needs images of every class, under the same name"
        )
    return tuple(sorted({image.label for image in images_by_split["train"]}))


def class_differences(images_by_split: Mapping[str, Sequence[ImageRecord]]) -> list[str]:
    """Returns a message for each class that another split lacks or has in addition to those of `train`."""
    expected = {image.label for image in images_by_split["train"]}
    lines = []
    for split, images in images_by_split.items():
        actual = {image.label for image in images}
        lines += [f"{split} lacks the class {label!r}" for label in sorted(expected - actual)]
        lines += [
            f"{split} has the class {label!r}, which train lacks{did_you_mean(label, expected)}"
            for label in sorted(actual - expected)
        ]
    return lines


def _suggest_sibling(folder: Path) -> str:
    siblings = folder.parent.iterdir() if folder.parent.is_dir() else ()
    return did_you_mean(folder.name, (sibling.name for sibling in siblings if sibling.is_dir()))
