"""Asks a data set everything that can be asked without a network, and holds what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from transfer_platform.errors import DataError
from transfer_platform.file_problems import display_name
from transfer_platform.inspection.class_checks import class_gaps, class_sizes, similar_classes, split_groups
from transfer_platform.inspection.duplicates import MIN_CONTRAST, exact_duplicates, near_duplicates
from transfer_platform.inspection.findings import FINDING_KINDS, Finding, Severity
from transfer_platform.inspection.image_checks import BLANK, bad_files, unusual_images
from transfer_platform.inspection.perceptual_hash import PerceptualHashes, compute_hashes
from transfer_platform.inspection.summary import format_table, image_statistics

if TYPE_CHECKING:
    from transfer_platform.data.catalog import Catalog, ImageRecord
    from transfer_platform.data.image_stats import ImageStats

MAX_LISTED = 20
"""Findings of one kind that an error names."""


@dataclass(frozen=True)
class Inspection:
    """What a data set is made of, and what was found in it.

    Attributes:
        root: The source's folder, which names are relative to.
        classes: Of all splits, sorted.
        counts: By split, how many images each class has.
        findings: All of them, the gravest kinds first.
        statistics: A table, see `statistics.statistics`.
        formats: A table, see `statistics.formats`.
        quarantine: Files that are left out because they are no readable images, and why.
        unasked: What was not looked for, and why, a sentence each.
        names: What files are called that were fetched: their URLs.
    """

    root: Path
    classes: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]]
    findings: tuple[Finding, ...]
    statistics: Mapping[str, list[object]]
    formats: Mapping[str, list[object]]
    quarantine: Mapping[Path, str]
    skipped_checks: tuple[str, ...] = ()
    names: Mapping[Path, str] = field(default_factory=dict)

    def severity(self, finding: Finding) -> Severity:
        """How much a finding matters: what is left out is in nobody's way."""
        left_out = finding.files and finding.files[0] in self.quarantine
        return Severity.NOTE if left_out else FINDING_KINDS[finding.kind].severity

    def remedy(self, kind: str, severity: Severity) -> str:
        """What to do about findings of a kind that matter so much; nothing about what is left out."""
        return FINDING_KINDS[kind].remedy if severity == FINDING_KINDS[kind].severity else ""

    def by_kind(self, kind: str) -> tuple[Finding, ...]:
        """The findings of one kind."""
        return tuple(finding for finding in self.findings if finding.kind == kind)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings with which nothing can be trained."""
        return tuple(each for each in self.findings if self.severity(each) == Severity.ERROR)

    def count(self, severity: Severity) -> int:
        """How many findings matter so much."""
        return sum(self.severity(finding) == severity for finding in self.findings)

    def name(self, path: Path) -> str:
        """A file's name for people: relative to the source, or its URL."""
        return display_name(path, self.root, self.names)

    def line(self, finding: Finding) -> str:
        """A finding in one line."""
        names = ", ".join(map(self.name, finding.files[:4]))
        more = f" and {len(finding.files) - 4} more" if len(finding.files) > 4 else ""
        return f"{names}{more}: {finding.detail}" if names else finding.detail

    def with_findings(self, findings: Iterable[Finding], unasked: Iterable[str] = ()) -> Inspection:
        """This and what was found later."""
        return replace(
            self,
            findings=_sorted([*self.findings, *findings]),
            skipped_checks=(*self.skipped_checks, *unasked),
        )

    def with_split_notes(self, lines: Iterable[str]) -> Inspection:
        """This and what `data.omitted.with_splits` said of splits that the recipe leaves out."""
        return self.with_findings(Finding("splits", (), line) for line in lines)

    def raise_errors(self, say_more: str, outcome: str = "nothing was trained") -> None:
        """Raises a `DataError` that names all errors, up to 20 of a kind, where there are any.

        Args:
            say_more: Where the rest of them can be read.
            outcome: What comes of them.
        """
        errors = self.errors
        if not errors:
            return
        lines = []
        for kind, count in Counter(error.kind for error in errors).items():
            found = [error for error in errors if error.kind == kind]
            lines.append(f"{kind} ({count}): {FINDING_KINDS[kind].meaning}")
            lines += [f"    {self.line(finding)}" for finding in found[:MAX_LISTED]]
            lines += [f"    ... and {count - MAX_LISTED} more"] if count > MAX_LISTED else []
            lines += [f"  -> {FINDING_KINDS[kind].remedy}"] if FINDING_KINDS[kind].remedy else []
        raise DataError(
            f"{len(errors)} thing{'s' * (len(errors) > 1)} in {self.root} "
            f"{'are' if len(errors) > 1 else 'is'} in the way; {outcome}\n"
            + "\n".join(f"  {line}" for line in lines)
            + f"\n{say_more}"
        )


def inspect(
    root: Path,
    catalogs: Mapping[str, Catalog],
    looks: ImageStats,
    roles: Mapping[str, tuple[ImageRecord, ...]],
    *,
    skip: bool = False,
    few: int = 10,
    allowed: Collection[Path] = frozenset(),
    unsplit: str = "",
    notes: Iterable[str] = (),
) -> Inspection:
    """Asks everything that what was read of the files can answer.

    Args:
        root: The source's folder.
        catalogs: What was read, by split that has a folder.
        looks: What was seen of all images.
        roles: The images of each split; those of the catalogs where they cannot be divided.
        skip: Leave files out that are no readable images; they are told all the same.
        few: Training images of a class below which it is small.
        allowed: Files that may lie in two splits.
        unsplit: Why the images cannot be divided, empty where they can.
        notes: What was made of a manifest's columns.
    """
    everyone = [image for held in roles.values() for image in held]
    rows = looks.rows(image.sha256 for image in everyone)
    facts, sketches = looks.headers(rows), compute_hashes(looks, rows)
    ends = np.cumsum([len(held) for held in roles.values()])
    parts = {role: slice(end - len(held), end) for (role, held), end in zip(roles.items(), ends, strict=True)}
    problems = {path: problem for catalog in catalogs.values() for path, problem in catalog.problems.items()}
    hindrances = [*class_gaps(catalogs), *exact_duplicates(roles, allowed), *split_groups(roles)]
    if unsplit and not any(FINDING_KINDS[each.kind].severity == Severity.ERROR for each in hindrances):
        hindrances.append(Finding("cannot be split", (), unsplit))
    findings = [
        *bad_files(catalogs),
        *hindrances,
        *near_duplicates(roles, facts, sketches),
        *unusual_images(everyone, facts, sketches),
        *similar_classes({image.label for image in everyone}),
        *class_sizes(roles["train"], few),
        *(Finding("manifest", (), note) for note in notes),
    ]
    labels = {role: Counter(image.label for image in held) for role, held in roles.items()}
    return Inspection(
        root=root,
        classes=tuple(sorted({label for count in labels.values() for label in count})),
        counts=labels,
        findings=_sorted(findings),
        statistics=image_statistics(
            facts, sketches.brightness, {role: part for role, part in parts.items() if roles[role]}
        ),
        formats=format_table({role: facts[part] for role, part in parts.items()}),
        skipped_checks=_not_compared(sketches),
        quarantine={
            path: problem.message
            for path, problem in sorted(problems.items())
            if FINDING_KINDS[problem.kind].skippable
        }
        if skip
        else {},
        names={path: name for catalog in catalogs.values() for path, name in catalog.names.items()},
    )


def _not_compared(sketches: PerceptualHashes) -> tuple[str, ...]:
    count = int(np.count_nonzero((sketches.deviation < MIN_CONTRAST) & (sketches.contrast >= BLANK)))
    if not count:
        return ()
    verb = "image has" if count == 1 else "images have"
    return (f"{count} {verb} hardly any coarse contrast, and no near copies were looked for among such.",)


def _sorted(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    order = {name: place for place, name in enumerate(FINDING_KINDS)}
    return tuple(sorted(findings, key=lambda finding: order[finding.kind]))
