"""Differences between the datasets of two runs, compared by content."""

import csv
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from io import StringIO
from typing import NamedTuple

from transfer_platform.errors import DataError

_MAX_LISTED = 20


class ManifestLine(NamedTuple):
    """A row of a run's manifest, see `report.manifest`."""

    split: str
    label: str
    sha256: str
    file: str
    weight: str
    fold: str


Pair = tuple[ManifestLine, ManifestLine]
"""An image in the first and in the second run."""


@dataclass(frozen=True)
class ManifestDiff:
    """Differences between the images of two runs.

    Attributes:
        same: Number of images without any difference; file names do not count.
        added: Images that are only in the second run.
        removed: Images that are only in the first run.
        changed: Files with the same name and different content.
        relabelled: Images with different labels.
        moved: Images in different splits.
        reweighted: Training images with different weights in the loss.
        refolded: Training images held out in different folds.
    """

    same: int
    added: tuple[ManifestLine, ...]
    removed: tuple[ManifestLine, ...]
    changed: tuple[Pair, ...]
    relabelled: tuple[Pair, ...]
    moved: tuple[Pair, ...]
    reweighted: tuple[Pair, ...]
    refolded: tuple[Pair, ...]

    @property
    def is_empty(self) -> bool:
        """True if both runs were trained and tested on the same data."""
        pairs = (self.changed, self.relabelled, self.moved, self.reweighted, self.refolded)
        return not any((self.added, self.removed, *pairs))

    def __str__(self) -> str:
        if self.is_empty:
            return f"the same {self.same} images, labels and splits"
        parts = {
            "added": [f"{row.split}/{row.label}: {row.file}" for row in self.added],
            "removed": [f"{row.split}/{row.label}: {row.file}" for row in self.removed],
            "changed": [f"{_location(a, b)}: {b.file}" for a, b in self.changed],
            "relabelled": [f"{b.file}: {a.label} -> {b.label}" for a, b in self.relabelled],
            "moved to another split": [f"{b.file}: {a.split} -> {b.split}" for a, b in self.moved],
            "reweighted": [f"{b.file}: {a.weight} -> {b.weight}" for a, b in self.reweighted],
            "moved to another fold": [f"{b.file}: {a.fold or 'none'} -> {b.fold or 'none'}" for a, b in self.refolded],
        }
        lines = [f"{self.same} images are the same"]
        for name, entries in parts.items():
            if entries:
                lines += [f"{name} ({len(entries)}):", *(f"    {entry}" for entry in entries[:_MAX_LISTED])]
                more = len(entries) - _MAX_LISTED
                lines += [f"    ... and {more} more"] if more > 0 else []
        return "\n".join(lines)

    def as_json(self) -> dict[str, object]:
        """Returns the differences with rows as dicts and pairs as lists of two."""
        return {
            "same": self.same,
            **{name: [row._asdict() for row in getattr(self, name)] for name in ("added", "removed")},
            **{
                name: [[a._asdict(), b._asdict()] for a, b in getattr(self, name)]
                for name in ("changed", "relabelled", "moved", "reweighted", "refolded")
            },
        }


def read_manifest(text: str, name: str) -> list[ManifestLine]:
    """Parses a manifest.

    Args:
        text: CSV as written by `report.manifest`.
        name: Name of the run for errors.

    Raises:
        DataError: A column is missing.
    """
    reader = csv.DictReader(StringIO(text))
    if missing := [field for field in ManifestLine._fields if field not in (reader.fieldnames or ())]:
        raise DataError(
            f"the manifest of {name} has no column {', '.join(missing)}; it was not written by this platform"
        )
    return [ManifestLine(**{field: row[field] for field in ManifestLine._fields}) for row in reader]


def diff_manifests(before: Iterable[ManifestLine], after: Iterable[ManifestLine]) -> ManifestDiff:
    """Compares two manifests; duplicates count separately, folds only if both manifests have them."""
    left, right = list(before), list(after)
    if not (any(row.fold for row in left) and any(row.fold for row in right)):
        left, right = ([row._replace(fold="") for row in rows] for rows in (left, right))
    pairs = []
    for fields in (
        ("sha256", "split", "label", "weight", "fold"),
        ("sha256", "split", "label", "weight"),
        ("sha256", "split", "label"),
        ("sha256", "label"),
        ("sha256",),
        ("file",),
    ):
        matches, left, right = _match(left, right, fields)
        pairs.append(tuple(sorted(matches)))
    same, refolded, reweighted, moved, relabelled, changed = pairs
    return ManifestDiff(
        same=len(same),
        added=tuple(sorted(right)),
        removed=tuple(sorted(left)),
        changed=changed,
        relabelled=relabelled,
        moved=moved,
        reweighted=reweighted,
        refolded=refolded,
    )


def _location(a: ManifestLine, b: ManifestLine) -> str:
    """Returns the split and label of a changed file, which may differ as well."""
    before, after = f"{a.split}/{a.label}", f"{b.split}/{b.label}"
    return before if before == after else f"{before} -> {after}"


def _match(
    left: Iterable[ManifestLine], right: Iterable[ManifestLine], fields: tuple[str, ...]
) -> tuple[list[Pair], list[ManifestLine], list[ManifestLine]]:
    """Returns pairs of rows with equal fields, and the unmatched rows of both sides."""
    candidates: dict[tuple[str, ...], list[ManifestLine]] = defaultdict(list)
    for row in sorted(right, reverse=True):
        candidates[tuple(getattr(row, field) for field in fields)].append(row)
    pairs, unmatched = [], []
    for row in sorted(left):
        matches = candidates[tuple(getattr(row, field) for field in fields)]
        if matches:
            pairs.append((row, matches.pop()))
        else:
            unmatched.append(row)
    return pairs, unmatched, [row for rows in candidates.values() for row in rows]
