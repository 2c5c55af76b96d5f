"""Pattern matching for `dataset.exclude` and `dataset.allow_duplicates`."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from transfer_platform.errors import DataError
from transfer_platform.suggest import did_you_mean

if TYPE_CHECKING:
    from transfer_platform.recipe.schema import DatasetConfig

_MAX_COMPARED_NAMES = 5000


def match_patterns(
    config: DatasetConfig, match: Callable[[Sequence[str], str], frozenset[Path]]
) -> list[frozenset[Path]]:
    """Returns the files matched by `exclude`, followed by the files matched by `allow_duplicates`.

    Args:
        config: The `dataset` section of a recipe.
        match: Function that takes patterns and the name of their field, and returns the matching files.

    Raises:
        DataError: Some patterns match nothing; the message lists the unmatched patterns of both fields.
    """
    matches, errors = list[frozenset[Path]](), []
    for field in ("exclude", "allow_duplicates"):
        try:
            matches.append(match(getattr(config, field), field))
        except DataError as error:
            errors.append(str(error))
    if errors:
        raise DataError("\n".join(errors))
    return matches


def match_files(root: Path, patterns: Sequence[str], field: str) -> frozenset[Path]:
    """Returns the files in a source that match at least one pattern.

    Args:
        root: Source folder.
        patterns: Files, folders (matched recursively) or globs such as `**/*.gif`, relative to `root`, with `/` as the
            separator.
        field: Name of the `dataset` field that contains the patterns.

    Returns:
        Absolute paths of the matches, below the resolved `root`; folders and symlinks are included.

    Raises:
        DataError: Some patterns match nothing or point outside the source; the message lists all of them.
    """
    root = root.resolve()
    for pattern in patterns:
        if any("**" in part and part != "**" for part in pattern.split("/")):
            raise DataError(
                f"dataset.{field}: in {pattern!r}, ** must be a complete path component; for files in all folders, "
                f"write {re.sub(r'[*][*]+', '**/*', pattern, count=1)!r}"
            )
    matches = {pattern: frozenset(_glob(root, pattern)) for pattern in patterns}
    unmatched = [pattern for pattern, files in matches.items() if not files]
    lines = [f"{pattern!r} matches no file{_suggest_file(root, pattern)}" for pattern in unmatched]
    _raise_unmatched(lines, field, f"files below {root}")
    return frozenset().union(*matches.values())


def match_rows(names: Mapping[str, Path], manifest: Path, patterns: Sequence[str], field: str) -> frozenset[Path]:
    """Returns the paths of manifest images whose name or URL matches at least one pattern (see `match_files`).

    Raises:
        DataError: Some patterns match no row; the message lists all of them.
    """
    if not patterns:
        return frozenset()
    below: dict[str, set[Path]] = defaultdict(set)
    for name, path in names.items():
        for slash in re.finditer("/", name):
            below[name[: slash.start()]].add(path)
        below[name].add(path)
    matches, unmatched = set[Path](), []
    for pattern in patterns:
        plain = pattern.rstrip("/")
        parts = plain.split("/")
        matching = [plain] if plain in below else [name for name in below if _is_match(name.split("/"), parts)]
        matches |= {path for name in matching for path in below[name]}
        if not matching:
            hint = did_you_mean(pattern, islice(names, _MAX_COMPARED_NAMES))
            unmatched.append(f"{pattern!r} matches no row{hint}")
    _raise_unmatched(unmatched, field, f"rows of {manifest}")
    return frozenset(matches)


def matches(name: str, pattern: str) -> bool:
    """Returns True if a pattern matches a file or one of its folders, as in `match_files`.

    >>> matches("val/metadata.csv", "val"), matches("val/metadata.csv", "*.csv"), matches("a.csv", "./*.csv")
    (True, False, True)
    """
    parts, wanted = PurePosixPath(name).parts, PurePosixPath(pattern).parts
    return name == pattern or any(_is_match(parts[:length], wanted) for length in range(1, len(parts) + 1))


def _is_match(name: Sequence[str], pattern: Sequence[str]) -> bool:
    """Returns True if the parts of a name match the parts of a glob, where `**` matches zero or more parts."""
    lengths = {0}  # numbers of leading parts of the name that the pattern matches so far
    for part in pattern:
        if part == "**":
            lengths = set(range(min(lengths, default=len(name) + 1), len(name) + 1))
        else:
            lengths = {length + 1 for length in lengths if length < len(name) and fnmatchcase(name[length], part)}
    return len(name) in lengths


def _raise_unmatched(lines: Sequence[str], field: str, expected: str) -> None:
    if lines:
        raise DataError(
            f"every pattern in dataset.{field} must match {expected}, but\n"
            + "\n".join(f"  {line}" for line in lines)
            + "\ncorrect or remove these patterns"
        )


def _glob(root: Path, pattern: str) -> Iterator[Path]:
    relative = PurePosixPath(pattern)
    if relative.is_absolute() or ".." in relative.parts or not relative.parts:
        return
    # A file name may contain brackets (for example, `photo[1].jpg`), so an existing name takes precedence over a glob.
    literal = root / relative
    # each further `**` in a row makes pathlib search all folders again for every folder
    distinct = re.sub(r"[*]{2}(/+[*]{2})+", "**", pattern)
    for match in [literal] if os.path.lexists(literal) else root.glob(distinct):
        yield match
        if match.is_dir():
            yield from match.rglob("*")


def _suggest_file(root: Path, pattern: str) -> str:
    """Suggests a similar name from the pattern's folder or, failing that, from the entire source."""
    parent = (root / PurePosixPath(pattern)).parent
    siblings = parent.iterdir() if parent.is_dir() and parent.is_relative_to(root) else iter(())
    for paths in (siblings, root.rglob("*")):
        names = (path.relative_to(root).as_posix() for path in islice(paths, _MAX_COMPARED_NAMES))
        if suggestion := did_you_mean(pattern, names):
            return suggestion
    return ""
