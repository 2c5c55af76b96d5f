"""Problems with individual files, and printable file names."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from transfer_model.errors import cause

MAX_BYTES = 1 << 30
"""Maximum size of an image file in bytes; larger files are not read."""


@dataclass(frozen=True, slots=True)
class FileProblem:
    """Describes why a file cannot be used.

    `kind` is a short category, such as `damaged`; `message` is shown after the file name and a colon.
    """

    kind: str
    message: str


def unreadable(error: OSError) -> FileProblem:
    """Returns the `FileProblem` for a file that the operating system could not read."""
    if isinstance(error, PermissionError):
        return FileProblem("unreadable", f"it cannot be read: {cause(error)}")
    return FileProblem("not read", f"it could not be read: {cause(error)}")


def printable(path: Path | str) -> str:
    """Escapes control characters and invalid UTF-8 bytes in a file name."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def display_name(path: Path, root: Path, names: Mapping[Path, str]) -> str:
    """Returns a file's name for messages: its entry in `names` if it has one, otherwise its path relative to `root`."""
    if path in names:
        return printable(names[path])
    return printable(path.relative_to(root).as_posix() if path.is_relative_to(root) else path)
