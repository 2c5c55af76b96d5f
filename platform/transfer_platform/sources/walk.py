"""Finds the files below a folder; follows links only where they stay inside and do not go in circles."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from transfer_platform.file_problems import FileProblem, printable, unreadable
from transfer_platform.sources.checksums import FileStamp

IGNORED_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
"""What file managers leave behind, in lower case; like hidden files it is counted and left out."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file, not read yet.

    Attributes:
        path: Below the folder that was searched, links not resolved; text, as there may be a million of them.
        name: The same relative to that folder, with `/` between folders.
        stamp: Its size and times.
    """

    path: str
    name: str
    stamp: FileStamp


@dataclass
class FolderContents:
    """Everything below a folder, in no particular order.

    Attributes:
        files: What may be read.
        folders: The folders directly below, by their names; links to some among them.
        ignored: Hidden files and clutter; a hidden folder stands for what is in it.
        problems: Folders that cannot be read, links that must not be followed, and what is neither file nor
            folder.
    """

    files: list[FoundFile] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    ignored: list[Path] = field(default_factory=list)
    problems: dict[Path, FileProblem] = field(default_factory=dict)


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name is hidden or left behind by a file manager."""
    return name.startswith(".") or name.lower() in IGNORED_NAMES


def walk(folder: Path, root: Path) -> FolderContents:
    """Lists everything below a folder.

    Args:
        folder: Where to start, inside `root`; absolute and without links in it.
        root: No link may lead out of this folder; likewise resolved.
    """
    contents = FolderContents()
    pending = [(folder, "", frozenset({folder, *folder.parents}))]
    while pending:
        current, prefix, above = pending.pop()
        try:
            entries = list(os.scandir(current))
        except OSError as error:
            contents.problems[current] = FileProblem(
                "unreadable folder", f"is a folder that cannot be read: {error.strerror}"
            )
            continue
        for entry in entries:
            if is_ignored(entry.name):
                contents.ignored.append(Path(entry.path))
            elif problem := _problem(entry, root, above):
                contents.problems[Path(entry.path)] = problem
            elif entry.is_dir():
                path = Path(entry.path)
                if current == folder:
                    contents.folders.append(path)
                pending.append((path, f"{prefix}{entry.name}/", above | {path.resolve()}))
            elif isinstance(file := _file(entry, prefix), FoundFile):
                contents.files.append(file)
            else:
                contents.problems[Path(entry.path)] = file
    return contents


def _file(entry: os.DirEntry[str], prefix: str) -> FoundFile | FileProblem:
    try:
        return FoundFile(entry.path, prefix + entry.name, FileStamp.of(entry.stat()))
    except OSError as error:  # its folder may be listed but not entered, or it was removed just now
        return unreadable(error)


def _problem(entry: os.DirEntry[str], root: Path, above: frozenset[Path]) -> FileProblem | None:
    """Why an entry can be neither read nor entered, or nothing."""
    if entry.is_symlink() and (problem := _link_problem(Path(entry.path), root, above)):
        return problem
    if entry.is_file() or entry.is_dir():
        return None
    return FileProblem("special file", "is neither a file nor a folder")


def _link_problem(link: Path, root: Path, above: frozenset[Path]) -> FileProblem | None:
    try:
        target = link.resolve(strict=True)
    except FileNotFoundError:
        return FileProblem("link to nothing", "is a link to nothing")
    except PermissionError as error:
        return FileProblem("unreadable", f"is a link that cannot be followed: {error.strerror}")
    except (OSError, RuntimeError):
        return FileProblem("link in circles", "is a link that goes in circles")
    if not target.is_relative_to(root):
        return FileProblem("link leading out", f"is a link that leaves the data set, to {printable(target)}")
    return FileProblem("link in circles", "is a link that goes in circles") if target in above else None
