"""Why a file cannot be learned from, and how its name is shown to people."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MAX_BYTES = 1 << 30
"""Largest size of a file that is read as an image."""


@dataclass(frozen=True, slots=True)
class FileProblem:
    """What is wrong with one file.

    Attributes:
        kind: In a few words, the same for all files of which it is true: `damaged`, `leads out`, ...
        message: The rest of a sentence that begins with the file's name.
    """

    kind: str
    message: str


def unreadable(error: OSError) -> FileProblem:
    """What is wrong with a file that the system does not give, or only today."""
    if isinstance(error, PermissionError):
        return FileProblem("unreadable", f"it cannot be read: {error.strerror}")
    return FileProblem("not read", f"it could not be read: {error.strerror}")


def printable(path: Path | str) -> str:
    """A file name that can stand in any text: what is no UTF-8, and control characters, are escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def display_name(path: Path, root: Path, names: Mapping[Path, str]) -> str:
    """What a file of a data set is called in front of people.

    Args:
        path: Of the file.
        root: The source's folder; what lies below it is named relative to it.
        names: Of files that have another name than their place: fetched images have their URL.
    """
    if path in names:
        return printable(names[path])
    return printable(path.relative_to(root).as_posix() if path.is_relative_to(root) else path)
