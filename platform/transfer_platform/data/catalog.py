"""What is in a folder of class folders: every picture with its label and its content's digest.

A file that is no picture is an error that names it, unless the recipe excludes it: none is skipped silently.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transfer_platform.data.suggestion import did_you_mean
from transfer_platform.data.verification import read_digests
from transfer_platform.data.walking import is_clutter, walk
from transfer_platform.errors import DataError, SplitError
from transfer_platform.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

NAMED_OFFENDERS = 20


@dataclass(frozen=True, slots=True)
class Picture:
    """One image file.

    Attributes:
        path: Absolute.
        label: Its class: the name of the class folder, in Unicode's composed form (NFC).
        sha256: Of the file's bytes, 64 hexadecimal digits.
    """

    path: Path
    label: str
    sha256: str


@dataclass(frozen=True)
class Catalog:
    """What one folder holds.

    Attributes:
        pictures: Sorted by label, then by digest, so that file names do not matter.
        classes: The labels, sorted.
        excluded: Files that the recipe leaves out.
        ignored: Hidden files and folders and clutter such as `Thumbs.db`.
    """

    pictures: tuple[Picture, ...]
    classes: tuple[str, ...]
    excluded: tuple[Path, ...]
    ignored: tuple[Path, ...]


def scan(
    folder: Path,
    excluded: Collection[Path] = frozenset(),
    root: Path | None = None,
    verify: bool = True,
    progress: Progress = silent,
) -> Catalog:
    """Lists the pictures of a folder that has one folder per class; deeper folders belong to the class too.

    Args:
        folder: The folder of class folders.
        excluded: What `exclusion.excluded_files` found for the same root.
        root: The source that `folder` lies in; links may not leave it, and messages name files relative
            to it. By default `folder`.
        verify: Decode every file that was not decoded before and has not changed since.
        progress: Is told how many files were read.

    Raises:
        DataError: There are fewer than two class folders, one of them is empty, or some files are no
            readable pictures in a class folder; the message names the first 20 of them.
    """
    if not folder.is_dir():
        raise DataError(f"the folder {folder} does not exist{_nearest_folder(folder)}")
    root, folder = (root or folder).resolve(), folder.resolve()
    classes = _class_folders(folder)
    contents = walk(folder, root)
    files = [file for file in contents.files if file.path not in excluded]
    digests, unreadable = read_digests(folder, [file for file in files if "/" in file.name], verify, progress)
    problems = {path: why for path, why in contents.problems.items() if path not in excluded}
    loose = {file.path: "lies beside the class folders, not in one" for file in files if "/" not in file.name}
    _refuse_offenders(folder, root, problems | loose | unreadable)
    pictures = [Picture(path, _label(folder, path), digest) for path, digest in digests.items()]
    _refuse_empty(folder, classes, {picture.label for picture in pictures})
    return Catalog(
        tuple(sorted(pictures, key=lambda picture: (picture.label, picture.sha256, picture.path))),
        tuple(classes),
        tuple(sorted(file.path for file in contents.files if file.path in excluded)),
        tuple(sorted(contents.ignored)),
    )


def class_map(catalogs: Mapping[str, Sequence[Picture]]) -> tuple[str, ...]:
    """The one list of classes that all splits share; a class's place in it is its index in the network.

    Args:
        catalogs: The pictures of each split, `train` among them.

    Returns:
        The classes of `train`, sorted by name.

    Raises:
        SplitError: Another split lacks one of them, or has one more.
    """
    expected = {picture.label for picture in catalogs["train"]}
    lines = []
    for split, pictures in catalogs.items():
        actual = {picture.label for picture in pictures}
        lines += [f"  {split} lacks the class {label!r}" for label in sorted(expected - actual)]
        lines += [
            f"  {split} has the class {label!r}, which train lacks{did_you_mean(label, expected)}"
            for label in sorted(actual - expected)
        ]
    if lines:
        raise SplitError(
            "the splits do not have the same classes:\n" + "\n".join(lines) + "\n"
            "every split needs one folder per class, of the same name"
        )
    return tuple(sorted(expected))


def _class_folders(folder: Path) -> list[str]:
    names = (path.name for path in folder.iterdir() if path.is_dir() and not is_clutter(path.name))
    classes = sorted({unicodedata.normalize("NFC", name) for name in names})
    if len(classes) < 2:
        there = f"only one, {classes[0]!r}" if classes else "none"
        raise DataError(
            f"{folder} must have a folder for each of at least two classes, but has {there}; "
            "name the folder that holds the class folders"
        )
    return classes


def _label(folder: Path, path: Path) -> str:
    return unicodedata.normalize("NFC", path.relative_to(folder).parts[0])


def _refuse_offenders(folder: Path, root: Path, problems: Mapping[Path, str]) -> None:
    if not problems:
        return
    lines = [f"  {path.relative_to(root).as_posix()}: {problems[path]}" for path in sorted(problems)]
    more = [f"  ... and {len(lines) - NAMED_OFFENDERS} more"] if len(lines) > NAMED_OFFENDERS else []
    raise DataError(
        f"{len(lines)} files in {folder} are no readable pictures in a class folder:\n"
        + "\n".join(lines[:NAMED_OFFENDERS] + more)
        + "\nmend or remove them, or list them under dataset.exclude"
    )


def _refuse_empty(folder: Path, classes: Sequence[str], labels: Collection[str]) -> None:
    empty = [label for label in classes if label not in labels]
    if empty:
        names = ", ".join(map(repr, empty))
        raise DataError(
            f"{folder} has class folders without a picture: {names}; "
            "fill or remove them, and see that dataset.exclude leaves something of them"
        )


def _nearest_folder(folder: Path) -> str:
    siblings = folder.parent.iterdir() if folder.parent.is_dir() else ()
    return did_you_mean(folder.name, (sibling.name for sibling in siblings if sibling.is_dir()))
