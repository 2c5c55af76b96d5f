"""Recursive folder listing that follows only safe symbolic links."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from transfer_model.errors import cause
from transfer_platform.file_problems import FileProblem, printable, unreadable
from transfer_platform.sources.checksums import FileStamp

IGNORED_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
"""Lowercase names of files and folders created by file managers; these are ignored, as are hidden files."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that has been listed but not read.

    Attributes:
        path: Path of the file, with symlinks unresolved. It is a string because a `Path` would take more memory.
        name: Path relative to the listed folder, with `/` as the separator.
    """

    path: str
    name: str
    stamp: FileStamp


@dataclass
class FolderContents:
    """Contents of a folder and all of its subfolders, in no particular order.

    Attributes:
        files: Regular files, including links that may be followed.
        folders: Direct subfolders, including links to folders.
        ignored: Hidden files and folders, and those created by file managers. Ignored folders are not searched.
        problems: Descriptions of unreadable folders and files, rejected links and special files, keyed by path.
    """

    files: list[FoundFile] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    ignored: list[Path] = field(default_factory=list)
    problems: dict[Path, FileProblem] = field(default_factory=dict)


def is_ignored(name: str) -> bool:
    """Returns True if a name belongs to a hidden file or folder, or is listed in `IGNORED_NAMES`."""
    return name.startswith(".") or name.lower() in IGNORED_NAMES


def walk(folder: Path, root: Path) -> FolderContents:
    """Lists everything below `folder`. Rejects links that point outside `root`. Both paths must already be resolved."""
    contents = FolderContents()
    pending = [(folder, "", frozenset({folder, *folder.parents}))]
    while pending:
        current, prefix, ancestors = pending.pop()
        try:
            entries = list(os.scandir(current))
        except OSError as error:
            message = f"the folder cannot be read: {cause(error)}"
            contents.problems[current] = FileProblem("unreadable folder", message)
            continue
        for entry in entries:
            if is_ignored(entry.name):
                contents.ignored.append(Path(entry.path))
            elif problem := _problem(entry, root, ancestors):
                contents.problems[Path(entry.path)] = problem
            elif entry.is_dir():
                path = Path(entry.path)
                if current == folder:
                    contents.folders.append(path)
                pending.append((path, f"{prefix}{entry.name}/", ancestors | {path.resolve()}))
            elif isinstance(file := _found_file(entry, prefix), FoundFile):
                contents.files.append(file)
            else:
                contents.problems[Path(entry.path)] = file
    return contents


def _found_file(entry: os.DirEntry[str], prefix: str) -> FoundFile | FileProblem:
    try:
        return FoundFile(entry.path, prefix + entry.name, FileStamp.of(entry.stat()))
    except OSError as error:  # the folder can be listed but not entered, or the file was just deleted
        return unreadable(error)


def _problem(entry: os.DirEntry[str], root: Path, ancestors: frozenset[Path]) -> FileProblem | None:
    if entry.is_symlink() and (problem := _link_problem(Path(entry.path), root, ancestors)):
        return problem
    if entry.is_file() or entry.is_dir():
        return None
    return FileProblem("special file", "is neither a file nor a folder")


def _link_problem(link: Path, root: Path, ancestors: frozenset[Path]) -> FileProblem | None:
    circle = FileProblem("link in circles", "is part of a symbolic link loop")
    try:
        target = link.resolve(strict=True)
    except FileNotFoundError:
        return FileProblem("link to nothing", "is a symbolic link whose target does not exist")
    except PermissionError as error:
        return FileProblem("unreadable", f"is a symbolic link that cannot be followed: {cause(error)}")
    except (OSError, RuntimeError):
        return circle
    if not target.is_relative_to(root):
        return FileProblem("link leading out", f"is a symbolic link to {printable(target)}, outside the dataset")
    return circle if target in ancestors else None
