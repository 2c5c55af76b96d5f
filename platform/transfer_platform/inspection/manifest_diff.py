"""Compares the datasets of two runs by content."""

import csv
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from io import StringIO
from operator import attrgetter
from typing import NamedTuple

from transfer_platform.errors import DataError
from transfer_platform.plurals import counted

_MAX_LISTED = 20
_PAIRS = ("changed", "relabeled", "moved", "reweighted", "refolded")


class ManifestLine(NamedTuple):
    """A row in the manifest of a run (see `report.manifest`)."""

    split: str
    label: str
    sha256: str
    file: str
    weight: str
    fold: str


Pair = tuple[ManifestLine, ManifestLine]
"""Matching rows from the first and second run."""


@dataclass(frozen=True)
class ManifestDiff:
    """Differences between the images of two runs.

    Attributes:
        same: Number of unchanged images, regardless of file name.
        added: Images that are only in the second run.
        removed: Images that are only in the first run.
        changed: Files with the same name but different content.
        relabeled: Images whose label differs between the runs.
        moved: Images whose split differs between the runs.
        reweighted: Training images whose loss weight differs between the runs.
        refolded: Training images whose held-out fold differs between the runs.
    """

    same: int
    added: tuple[ManifestLine, ...]
    removed: tuple[ManifestLine, ...]
    changed: tuple[Pair, ...]
    relabeled: tuple[Pair, ...]
    moved: tuple[Pair, ...]
    reweighted: tuple[Pair, ...]
    refolded: tuple[Pair, ...]

    @property
    def is_empty(self) -> bool:
        """True if both runs used the same data in every split."""
        return not any(getattr(self, name) for name in ("added", "removed", *_PAIRS))

    def __str__(self) -> str:
        if self.is_empty:
            return f"both runs have the same {self.same} images with the same labels and splits"
        parts = {
            "added": [f"{row.split}/{row.label}: {row.file}" for row in self.added],
            "removed": [f"{row.split}/{row.label}: {row.file}" for row in self.removed],
            "changed": [f"{_location(a, b)}: {b.file}" for a, b in self.changed],
            "relabeled": [f"{b.file}: {a.label} -> {b.label}" for a, b in self.relabeled],
            "moved to another split": [f"{b.file}: {a.split} -> {b.split}" for a, b in self.moved],
            "reweighted": [f"{b.file}: {a.weight} -> {b.weight}" for a, b in self.reweighted],
            "moved to another fold": [f"{b.file}: {a.fold or 'none'} -> {b.fold or 'none'}" for a, b in self.refolded],
        }
        lines = [f"{counted(self.same, 'image is', 'images are')} the same"]
        for name, entries in parts.items():
            if entries:
                lines += [f"{name} ({len(entries)}):", *(f"    {entry}" for entry in entries[:_MAX_LISTED])]
                more = len(entries) - _MAX_LISTED
                lines += [f"    ... and {more} more"] if more > 0 else []
        return "\n".join(lines)

    def as_json(self) -> dict[str, object]:
        """Returns a JSON-serializable dict, with each row as a dict and each pair as a list of two rows."""
        rows = {name: [row._asdict() for row in getattr(self, name)] for name in ("added", "removed")}
        pairs = {name: [[a._asdict(), b._asdict()] for a, b in getattr(self, name)] for name in _PAIRS}
        return {"same": self.same, **rows, **pairs}


def read_manifest(text: str, name: str) -> list[ManifestLine]:
    """Parses the CSV written by `report.manifest`; `name` is the run name used in error messages.

    Raises:
        DataError: A column is missing.
    """
    reader = csv.DictReader(StringIO(text))
    if missing := [field for field in ManifestLine._fields if field not in (reader.fieldnames or ())]:
        columns = ", ".join(missing)
        raise DataError(f"the manifest of {name} is missing columns ({columns}), so this platform did not write it")
    return [ManifestLine(**{field: row[field] for field in ManifestLine._fields}) for row in reader]


def diff_manifests(before: Iterable[ManifestLine], after: Iterable[ManifestLine]) -> ManifestDiff:
    """Compares two manifests. Copies of a file count separately; folds are compared only if both manifests have any."""
    left, right = list(before), list(after)
    if not (any(row.fold for row in left) and any(row.fold for row in right)):
        left, right = ([row._replace(fold="") for row in rows] for rows in (left, right))
    equal_fields = {
        "same": ("sha256", "split", "label", "weight", "fold"),
        "refolded": ("sha256", "split", "label", "weight"),
        "reweighted": ("sha256", "split", "label"),
        "moved": ("sha256", "label"),
        "relabeled": ("sha256",),
        "changed": ("file",),
    }
    pairs: dict[str, tuple[Pair, ...]] = {}
    for kind, fields in equal_fields.items():
        matches, left, right = _match(left, right, fields)
        pairs[kind] = tuple(sorted(matches))
    same = len(pairs.pop("same"))
    return ManifestDiff(same, tuple(sorted(right)), tuple(sorted(left)), **pairs)


def _location(a: ManifestLine, b: ManifestLine) -> str:
    """Returns the `split/label` of a changed file, written as `before -> after` if it differs between the runs."""
    before, after = f"{a.split}/{a.label}", f"{b.split}/{b.label}"
    return before if before == after else f"{before} -> {after}"


def _match(
    left: Iterable[ManifestLine], right: Iterable[ManifestLine], fields: tuple[str, ...]
) -> tuple[list[Pair], list[ManifestLine], list[ManifestLine]]:
    """Returns pairs of rows with equal values in `fields`, and the unmatched rows on each side."""
    key = attrgetter(*fields)
    candidates: dict[object, list[ManifestLine]] = defaultdict(list)
    for row in sorted(right, reverse=True):
        candidates[key(row)].append(row)
    pairs, unmatched = [], []
    for row in sorted(left):
        if matches := candidates[key(row)]:
            pairs.append((row, matches.pop()))
        else:
            unmatched.append(row)
    return pairs, unmatched, [row for rows in candidates.values() for row in rows]
