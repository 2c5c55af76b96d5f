"""Catalog of the labeled images in class folders or in a manifest."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from transfer_platform.data.image_stats import ImageStats
from transfer_platform.data.message_lists import join_lines
from transfer_platform.data.scan import scan_files
from transfer_platform.data.table_files import METADATA_FILES
from transfer_platform.errors import DataError, SplitError
from transfer_platform.file_problems import FileProblem, display_name, printable
from transfer_platform.plurals import counted
from transfer_platform.progress import Progress, silent
from transfer_platform.sources.walk import walk
from transfer_platform.suggest import did_you_mean

ARCHIVE_REMEDY = "is an archive, and archives inside a folder are not read; unpack it"
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".rar", ".7z")


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One labeled image file.

    Attributes:
        file: Absolute path; stored as a string, because a million `Path` objects would take far more memory.
        label: Class, in Unicode normal form NFC.
        sha256: SHA-256 digest of the file, as 64 hexadecimal digits.
        group: Group of the image; all images of a group are in the same split and fold. Empty if there are no groups.
        weight: Weight of the image in the training loss.
    """

    file: str
    label: str
    sha256: str
    group: str = ""
    weight: float = 1.0

    @property
    def path(self) -> Path:
        """`file` as a `Path`."""
        return Path(self.file)


@dataclass(frozen=True)
class Catalog:
    """The images of one folder, or of one manifest split.

    Attributes:
        folder: Path of the folder or manifest file, with symlinks resolved.
        root: Source folder that contains `folder`, with symlinks resolved.
        images: Images sorted by label, then by digest, so that the order does not depend on file names.
        classes: Sorted names of the class folders or, for a manifest, sorted labels.
        excluded: Files matched by `dataset.exclude`.
        ignored: Hidden files and folders, and system files such as `Thumbs.db`.
        problems: Problems with files that are unreadable or not in a class folder, keyed by path.
        names: URLs of downloaded files, keyed by path, for use in messages.
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
        """Raises a `DataError` if any file has a problem; the message lists the first 20 files."""
        problems = sorted(self.problems.items())
        lines = [f"  {display_name(path, self.root, self.names)}: {problem.message}" for path, problem in problems]
        if lines:
            raise DataError(
                f"{counted(len(lines), 'file')} in {self.folder} cannot be used:\n{join_lines(lines)}\n"
                "repair these files, or move them out of the folder"
            )

    def require_classes(self, at_least: int = 2) -> None:
        """Raises a `DataError` if there are fewer than `at_least` classes or if a class has no images."""
        if errors := self.class_errors(at_least):
            raise DataError("\n".join(errors))

    def class_errors(self, at_least: int = 2) -> list[str]:
        """Returns one message per problem with the classes. `at_least` (one or two) is the minimum number."""
        if len(self.classes) < at_least:
            return [self._too_few_classes(at_least)]
        errors = []
        if unprintable := ", ".join(printable(label) for label in self.classes if printable(label) != label):
            names = "labels" if self.from_manifest else "class folder names"
            errors.append(f"{self.folder} has {names} with unprintable characters: {unprintable}; rename them")
        labels = {image.label for image in self.images}
        if empty := ", ".join(repr(label) for label in self.classes if label not in labels):
            noun = "classes without readable" if self.from_manifest else "class folders without"
            remedy = "correct their rows" if self.from_manifest else "add images or remove the folders"
            errors.append(
                f"{self.folder} has {noun} images: {empty}; "
                f"{remedy}, and check that dataset.exclude does not exclude all of their images"
            )
        return errors

    def _too_few_classes(self, at_least: int) -> str:
        found = f"only one: {printable(self.classes[0])!r}" if self.classes else "none"
        if self.from_manifest:
            return f"{self.folder} must list at least two classes, but lists {found}; check its 'label' column"
        needed = "two class folders" if at_least == 2 else "one class folder"
        return (
            f"{self.folder} must contain at least {needed}, but has {found}; "
            "specify the folder that contains the class folders"
        )


def scan_folder(
    folder: Path,
    excluded: Collection[Path] = frozenset(),
    root: Path | None = None,
    stats: ImageStats | None = None,
    progress: Progress = silent,
) -> Catalog:
    """Scans the images of a folder that has one subfolder per class. Class folders may themselves have subfolders.

    Files that are unreadable or not in a class folder are reported in `Catalog.problems`.

    Args:
        folder: Folder that contains the class folders.
        excluded: Files and folders to leave out.
        root: Source that contains `folder`; defaults to `folder`. Symlinks must not point outside `root`, and messages
            show file paths relative to `root`.
        stats: Image statistics, updated in place.
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
    problems = {path: problem for path, problem in contents.problems.items() if path not in excluded}
    problems |= {Path(file.path): _outside(file.name) for file in files if "/" not in file.name} | scanned.problems
    return Catalog(
        folder=folder,
        root=root,
        images=sort_by_content(
            ImageRecord(file.path, normalize_label(file.name.partition("/")[0]), scanned.digests[file.path])
            for file in in_classes
            if file.path in scanned.digests
        ),
        classes=tuple(sorted({normalize_label(path.name) for path in contents.folders if path not in excluded})),
        excluded=tuple(sorted(Path(file.path) for file in contents.files if file.path in excluded_files)),
        ignored=tuple(sorted(contents.ignored)),
        problems=problems,
    )


def _outside(name: str) -> FileProblem:
    message = "is next to the class folders, not inside one of them"
    if is_archive(name):
        message = f"{ARCHIVE_REMEDY}, then remove it from the folder"
    if name in METADATA_FILES:
        form = " (in UTF-8, separated by commas)" if name.endswith(".csv") else ""
        message = f"is not used, because it does not have the columns 'file_name' and 'label'{form}"
    return FileProblem("outside the class folders", message)


def is_archive(name: str) -> bool:
    """Returns whether a file name has the extension of an archive."""
    return name.casefold().endswith(_ARCHIVES)


def normalize_label(text: str) -> str:
    """Returns a label or group name in Unicode normal form NFC, so that equivalent names compare equal."""
    return unicodedata.normalize("NFC", text)


def sort_by_content(images: Iterable[ImageRecord]) -> tuple[ImageRecord, ...]:
    """Sorts images by label, then by digest; the path only breaks ties between duplicates."""
    return tuple(sorted(images, key=lambda image: (image.label, image.sha256, image.file)))


def class_names(images_by_split: Mapping[str, Sequence[ImageRecord]]) -> tuple[str, ...]:
    """Returns the sorted classes of `train`; the position of a class is its index in the network output.

    Raises:
        SplitError: Another split has different classes.
    """
    if lines := class_differences(images_by_split):
        raise SplitError(
            "the splits do not have the same classes:\n  " + "\n  ".join(lines) + "\n"
            "every split needs images of every class, and the class names must match"
        )
    return tuple(sorted({image.label for image in images_by_split["train"]}))


def class_differences(images_by_split: Mapping[str, Sequence[ImageRecord]]) -> list[str]:
    """Returns a message for each class that is in `train` but missing from another split, or vice versa."""
    expected = {image.label for image in images_by_split["train"]}
    lines = []
    for split, images in images_by_split.items():
        actual = {image.label for image in images}
        lines += [f"{split} is missing the class {label!r}" for label in sorted(expected - actual)]
        lines += [
            f"{split} has the class {label!r}, which is not in train{did_you_mean(label, expected)}"
            for label in sorted(actual - expected)
        ]
    return lines


def in_several_splits(
    images_by_split: Mapping[str, Sequence[ImageRecord]], field_name: str, allowed: Collection[Path] = frozenset()
) -> dict[str, dict[str, tuple[ImageRecord, ...]]]:
    """Returns images that share a field value with images in other splits, keyed by value, then by split.

    Files in `allowed` and images with an empty value are ignored.
    """
    value_of = attrgetter(field_name)
    counts = Counter(value for images in images_by_split.values() for value in set(map(value_of, images)))
    found: dict[str, dict[str, list[ImageRecord]]] = defaultdict(lambda: defaultdict(list))
    for split, images in images_by_split.items():
        for image in images:
            if (value := value_of(image)) and counts[value] > 1 and image.path not in allowed:
                found[value][split].append(image)
    return {
        value: {split: tuple(images) for split, images in by_split.items()}
        for value, by_split in found.items()
        if len(by_split) > 1
    }


def _suggest_sibling(folder: Path) -> str:
    siblings = folder.parent.iterdir() if folder.parent.is_dir() else ()
    return did_you_mean(folder.name, (sibling.name for sibling in siblings if sibling.is_dir()))
