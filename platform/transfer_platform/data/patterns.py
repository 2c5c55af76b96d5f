"""Which files a recipe names by patterns, to leave them out or to let them be."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from transfer_platform.errors import DataError
from transfer_platform.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from transfer_platform.recipe.schema import DatasetConfig

_COMPARED_NAMES = 5000


class PatternMatches(NamedTuple):
    """Files that a recipe names.

    Attributes:
        excluded: Those that it leaves out.
        allowed: Those that may lie in two splits.
    """

    excluded: frozenset[Path]
    allowed: frozenset[Path]


def match_patterns(
    dataset: DatasetConfig, find: Callable[[Sequence[str], str], frozenset[Path]]
) -> PatternMatches:
    """What the fields `exclude` and `allow_duplicates` of a recipe name.

    Args:
        dataset: The section of a recipe.
        find: Finds what patterns name, given the field that they stand in: `match_files` or `match_rows`.

    Raises:
        DataError: Some patterns are useless; all of both fields are named.
    """
    found, faults = [], []
    for field in ("exclude", "allow_duplicates"):
        try:
            found.append(find(getattr(dataset, field), field))
        except DataError as error:
            faults.append(str(error))
    if faults:
        raise DataError("\n".join(faults))
    return PatternMatches(*found)


def match_files(root: Path, patterns: Sequence[str], field: str) -> frozenset[Path]:
    """The files that patterns name.

    Args:
        root: The source's folder.
        patterns: Each a file, a folder (all that is in it) or a glob such as `**/*.gif`, relative to `root`,
            with `/` between folders.
        field: Of `dataset:` that they stand in.

    Returns:
        Absolute paths below the resolved `root`, folders and links among them.

    Raises:
        DataError: Some patterns match nothing or lead out of the source; the message names all of them.
    """
    root = root.resolve()
    matches = {pattern: frozenset(_matches(root, pattern)) for pattern in patterns}
    useless = [
        f"{pattern!r} matches no file{_nearest(root, pattern)}"
        for pattern, files in matches.items()
        if not files
    ]
    _refuse_useless(useless, field, f"files below {root}")
    return frozenset().union(*matches.values())


def match_rows(
    names: Mapping[str, Path], manifest: Path, patterns: Sequence[str], field: str
) -> frozenset[Path]:
    """The images of a manifest that patterns name.

    Args:
        names: Of all of its images, as they are written there.
        manifest: For errors.
        patterns: As of `match_files`, but of names in the manifest, URLs too.
        field: Of `dataset:` that they stand in.

    Raises:
        DataError: Some patterns match no row; the message names all of them.
    """
    if not patterns:
        return frozenset()
    below: dict[str, set[Path]] = defaultdict(set)
    for name, path in names.items():
        for slash in re.finditer("/", name):
            below[name[: slash.start()]].add(path)
        below[name].add(path)
    found, useless = set[Path](), []
    for pattern in patterns:
        plain = pattern.rstrip("/")
        parts = plain.split("/")
        matches = [plain] if plain in below else [name for name in below if _fits(name.split("/"), parts)]
        found |= {path for name in matches for path in below[name]}
        if not matches:
            useless.append(
                f"{pattern!r} matches no row{did_you_mean(pattern, islice(names, _COMPARED_NAMES))}"
            )
    _refuse_useless(useless, field, f"rows of {manifest}")
    return frozenset(found)


def _fits(name: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a glob names it as `Path.glob` would, part by part; `**` stands for any number of parts."""
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any(_fits(name[skipped:], pattern[1:]) for skipped in range(len(name) + 1))
    return bool(name) and fnmatchcase(name[0], pattern[0]) and _fits(name[1:], pattern[1:])


def _refuse_useless(lines: Sequence[str], field: str, of: str) -> None:
    if lines:
        raise DataError(
            f"dataset.{field} must name {of}, but\n"
            + "\n".join(f"  {line}" for line in lines)
            + "\ncorrect or remove them"
        )


def _matches(root: Path, pattern: str) -> Iterator[Path]:
    relative = PurePosixPath(pattern)
    if relative.is_absolute() or ".." in relative.parts or not relative.parts:
        return
    # A name may hold brackets, as in `photo[1].jpg`: what is there by that very name goes before the glob.
    literal = root / relative
    for match in [literal] if os.path.lexists(literal) else root.glob(pattern):
        yield from _files_in(match)


def _files_in(match: Path) -> Iterable[Path]:
    return [match, *match.rglob("*")] if match.is_dir() else [match]


def _nearest(root: Path, pattern: str) -> str:
    """Looks in the folder that the pattern names first, then everywhere."""
    parent = (root / PurePosixPath(pattern)).parent
    siblings = parent.iterdir() if parent.is_dir() and parent.is_relative_to(root) else iter(())
    for paths in (siblings, root.rglob("*")):
        names = (path.relative_to(root).as_posix() for path in islice(paths, _COMPARED_NAMES))
        if suggestion := did_you_mean(pattern, names):
            return suggestion
    return ""
