"""Which files a recipe names by patterns, to leave them out or to let them be."""

from __future__ import annotations

from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from transfer_platform.data.suggestion import did_you_mean
from transfer_platform.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_COMPARED_NAMES = 5000


def excluded_files(root: Path, patterns: Sequence[str]) -> frozenset[Path]:
    """The files that `dataset.exclude` names, see `files_named`."""
    return files_named(root, patterns, "exclude")


def files_named(root: Path, patterns: Sequence[str], field: str) -> frozenset[Path]:
    """The files that patterns name.

    Args:
        root: The source's folder.
        patterns: Each a file, a folder (all that is in it) or a glob such as `**/*.gif`, relative to `root`,
            with `/` between folders.
        field: Of `dataset:` that they stand in.

    Returns:
        Absolute paths below the resolved `root`.

    Raises:
        DataError: Some patterns match nothing or lead out of the source; the message names all of them.
    """
    root = root.resolve()
    matches = {pattern: frozenset(_matches(root, pattern)) for pattern in patterns}
    useless = [pattern for pattern, files in matches.items() if not files]
    if useless:
        lines = (f"  {pattern!r} matches no file{_nearest(root, pattern)}" for pattern in useless)
        raise DataError(
            f"dataset.{field} must name files below {root}, but\n"
            + "\n".join(lines)
            + "\ncorrect or remove them"
        )
    return frozenset().union(*matches.values())


def _matches(root: Path, pattern: str) -> Iterator[Path]:
    relative = PurePosixPath(pattern)
    if relative.is_absolute() or ".." in relative.parts or not relative.parts:
        return
    # A name may hold brackets, as in `photo[1].jpg`: what is there by that very name goes before the glob.
    literal = root / relative
    for match in [literal] if literal.exists() else root.glob(pattern):
        yield from _files_in(match)


def _files_in(match: Path) -> Iterable[Path]:
    return (path for path in match.rglob("*") if not path.is_dir()) if match.is_dir() else [match]


def _nearest(root: Path, pattern: str) -> str:
    """Looks in the folder that the pattern names first, then everywhere."""
    parent = (root / PurePosixPath(pattern)).parent
    siblings = parent.iterdir() if parent.is_dir() and parent.is_relative_to(root) else iter(())
    for paths in (siblings, root.rglob("*")):
        names = (path.relative_to(root).as_posix() for path in islice(paths, _COMPARED_NAMES))
        if suggestion := did_you_mean(pattern, names):
            return suggestion
    return ""
