"""Problems with single files, and printable file names."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MAX_BYTES = 1 << 30
"""Largest size of a file that is read as an image."""


@dataclass(frozen=True, slots=True)
class FileProblem:
    """The reason why a file cannot be used.

    `kind` is a short name, such as `damaged`; `message` follows the name of the file and a colon.
    """

    kind: str
    message: str


def unreadable(error: OSError) -> FileProblem:
    """Returns the problem of a file that the operating system failed to read."""
    if isinstance(error, PermissionError):
        return FileProblem("unreadable", f"it cannot be read: {error.strerror}")
    return FileProblem("not read", f"it could not be read: {error.strerror}")


def printable(path: Path | str) -> str:
    """Returns a file name with control characters and bytes that are not UTF-8 escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def display_name(path: Path, root: Path, names: Mapping[Path, str]) -> str:
    """Returns the name of a file in messages and reports: that in `names`, such as a URL, or the path below `root`."""
    if path in names:
        return printable(names[path])
    return printable(path.relative_to(root).as_posix() if path.is_relative_to(root) else path)
