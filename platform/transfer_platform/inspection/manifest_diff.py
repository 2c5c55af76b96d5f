"""What changed between two runs' data, by content: file names, folders and order do not matter."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import StringIO
from typing import NamedTuple

from transfer_platform.errors import DataError

_LISTED = 20


class ManifestLine(NamedTuple):
    """An image in a manifest, see `report.manifest`."""

    split: str
    label: str
    sha256: str
    file: str
    weight: str = ""
    fold: str = ""


@dataclass(frozen=True)
class ManifestDiff:
    """What became of one run's images in another's.

    Attributes:
        same: Images that are in both, with the same label, in the same split.
        added: Only in the other one.
        removed: Only in this one.
        changed: Files of one name whose bytes changed: before and after.
        relabelled: The same bytes with another label: before and after.
        moved: The same bytes and label in another split: before and after.
        reweighted: The same image of train with another weight in the loss: before and after.
        refolded: The same image of train, held out in another fold: before and after.
    """

    same: int
    added: tuple[ManifestLine, ...]
    removed: tuple[ManifestLine, ...]
    changed: tuple[tuple[ManifestLine, ManifestLine], ...]
    relabelled: tuple[tuple[ManifestLine, ManifestLine], ...]
    moved: tuple[tuple[ManifestLine, ManifestLine], ...]
    reweighted: tuple[tuple[ManifestLine, ManifestLine], ...] = ()
    refolded: tuple[tuple[ManifestLine, ManifestLine], ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether both learned from and were tested on the same."""
        rows = (self.added, self.removed)
        pairs = (self.changed, self.relabelled, self.moved, self.reweighted, self.refolded)
        return not any((*rows, *pairs))

    def __str__(self) -> str:
        if self.is_empty:
            return f"the same {self.same} images, labels and splits"
        parts = {
            "added": [f"{row.split}/{row.label}: {row.file}" for row in self.added],
            "removed": [f"{row.split}/{row.label}: {row.file}" for row in self.removed],
            "changed": [f"{_place(one, two)}: {two.file}" for one, two in self.changed],
            "relabelled": [f"{two.file}: {one.label} -> {two.label}" for one, two in self.relabelled],
            "in another split": [f"{two.file}: {one.split} -> {two.split}" for one, two in self.moved],
            "another weight": [f"{two.file}: {one.weight} -> {two.weight}" for one, two in self.reweighted],
            "in another fold": [
                f"{two.file}: {one.fold or 'none'} -> {two.fold or 'none'}" for one, two in self.refolded
            ],
        }
        lines = [f"{self.same} images are the same"]
        for what, names in parts.items():
            if names:
                lines += [f"{what} ({len(names)}):", *(f"    {name}" for name in names[:_LISTED])]
                lines += [f"    ... and {len(names) - _LISTED} more"] if len(names) > _LISTED else []
        return "\n".join(lines)

    def as_json(self) -> dict[str, object]:
        """For programs: rows as objects, pairs as lists of two."""
        return {
            "same": self.same,
            **{name: [row._asdict() for row in getattr(self, name)] for name in ("added", "removed")},
            **{
                name: [[one._asdict(), two._asdict()] for one, two in getattr(self, name)]
                for name in ("changed", "relabelled", "moved", "reweighted", "refolded")
            },
        }


def read_manifest(text: str, name: str) -> list[ManifestLine]:
    """The rows of a manifest.

    Args:
        text: CSV as `report.manifest` writes it.
        name: Of the run, for errors.

    Raises:
        DataError: It lacks one of the columns.
    """
    reader = csv.DictReader(StringIO(text))
    needed = [field for field in ManifestLine._fields if field not in ManifestLine._field_defaults]
    if missing := [field for field in needed if field not in (reader.fieldnames or ())]:
        raise DataError(
            f"the manifest of {name} has no column {', '.join(missing)}; it is not of this platform"
        )
    return [
        ManifestLine(**{field: row[field] for field in needed}, weight=_weight(row), fold=row.get("fold", ""))
        for row in reader
    ]


def _place(one: ManifestLine, two: ManifestLine) -> str:
    """Where a file is; a file whose bytes changed may have another label or split as well."""
    before, after = f"{one.split}/{one.label}", f"{two.split}/{two.label}"
    return before if before == after else f"{before} -> {after}"


def _weight(row: Mapping[str, str]) -> str:
    """That of an image of train; before there were weights, each was 1."""
    return row.get("weight", "1") if row["split"] == "train" else ""


def diff_manifests(before: Iterable[ManifestLine], after: Iterable[ManifestLine]) -> ManifestDiff:
    """Compares two manifests; copies of an image are counted one by one, and folds where both have them."""
    left, right = list(before), list(after)
    if not (any(row.fold for row in left) and any(row.fold for row in right)):
        left, right = ([row._replace(fold="") for row in side] for side in (left, right))
    pairs = []
    for fields in (
        ("sha256", "split", "label", "weight", "fold"),
        ("sha256", "split", "label", "weight"),
        ("sha256", "split", "label"),
        ("sha256", "label"),
        ("sha256",),
        ("file",),
    ):
        matched, left, right = _matched(left, right, fields)
        pairs.append(matched)
    same, refolded, reweighted, moved, relabelled, changed = pairs
    return ManifestDiff(
        same=len(same),
        added=tuple(sorted(right)),
        removed=tuple(sorted(left)),
        changed=tuple(sorted(changed)),
        relabelled=tuple(sorted(relabelled)),
        moved=tuple(sorted(moved)),
        reweighted=tuple(sorted(reweighted)),
        refolded=tuple(sorted(refolded)),
    )


def _matched(
    left: Iterable[ManifestLine], right: Iterable[ManifestLine], fields: tuple[str, ...]
) -> tuple[list[tuple[ManifestLine, ManifestLine]], list[ManifestLine], list[ManifestLine]]:
    """Pairs of rows that agree in some fields, and what is left of both sides."""
    waiting: dict[tuple[str, ...], list[ManifestLine]] = defaultdict(list)
    for row in sorted(right, reverse=True):
        waiting[tuple(getattr(row, field) for field in fields)].append(row)
    pairs, alone = [], []
    for row in sorted(left):
        others = waiting[tuple(getattr(row, field) for field in fields)]
        if others:
            pairs.append((row, others.pop()))
        else:
            alone.append(row)
    return pairs, alone, [row for others in waiting.values() for row in others]
