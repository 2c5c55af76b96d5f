"""Result of inspecting a dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from transfer_platform.errors import DataError
from transfer_platform.file_problems import display_name
from transfer_platform.inspection.findings import FINDING_KINDS, Finding, Severity
from transfer_platform.plurals import counted
from transfer_platform.recipe.schema import IntensitySetting

MAX_LISTED = 20
"""Maximum number of findings per kind in an error message."""


@dataclass(frozen=True)
class Inspection:
    """Contents and findings of a dataset.

    Attributes:
        root: Dataset folder; displayed file names are relative to it.
        classes: Class names of all splits, sorted.
        counts: Number of images per class, keyed by split.
        findings: All findings, in the order of `FINDING_KINDS`.
        statistics: Table created by `summary.image_statistics`.
        formats: Table created by `summary.format_table`.
        intensity: `full` or a range of gray values, determined from `dataset.intensity` and the training images.
        quarantine: Invalid files left out of the dataset, with the reason for each.
        skipped_checks: Sentences that explain which checks were skipped and why.
        names: Display names (URLs) of downloaded files.
        left_out: Share (0 to 1) of all image pixels that lie outside the network's center crop.
    """

    root: Path
    classes: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]]
    findings: tuple[Finding, ...]
    statistics: Mapping[str, list[object]]
    formats: Mapping[str, list[object]]
    quarantine: Mapping[Path, str]
    intensity: IntensitySetting = "full"
    skipped_checks: tuple[str, ...] = ()
    names: Mapping[Path, str] = field(default_factory=dict)
    left_out: float = 0.0

    def severity(self, finding: Finding) -> Severity:
        """Returns the severity of a finding, which is always `NOTE` if the file is quarantined."""
        is_quarantined = finding.files and finding.files[0] in self.quarantine
        return Severity.NOTE if is_quarantined else FINDING_KINDS[finding.kind].severity

    def by_kind(self, kind: str) -> tuple[Finding, ...]:
        """Returns the findings of one kind."""
        return tuple(finding for finding in self.findings if finding.kind == kind)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that make training impossible."""
        return tuple(finding for finding in self.findings if self.severity(finding) == Severity.ERROR)

    def count(self, severity: Severity) -> int:
        """Counts the findings with the given severity."""
        return sum(self.severity(finding) == severity for finding in self.findings)

    def name(self, path: Path) -> str:
        """Returns the display name of a file: its URL if it was downloaded, otherwise its path relative to the root."""
        return display_name(path, self.root, self.names)

    def line(self, finding: Finding) -> str:
        """Formats a finding as one line."""
        names = ", ".join(map(self.name, finding.files[:4]))
        more = f" and {len(finding.files) - 4} more" if len(finding.files) > 4 else ""
        return f"{names}{more}: {finding.detail}" if names else finding.detail

    def with_findings(self, findings: Iterable[Finding], skipped_checks: Iterable[str] = ()) -> Inspection:
        """Returns a copy with the given findings and skipped checks added."""
        return replace(
            self,
            findings=sorted_findings([*self.findings, *findings]),
            skipped_checks=(*self.skipped_checks, *skipped_checks),
        )

    def with_split_notes(self, lines: Iterable[str]) -> Inspection:
        """Returns a copy with the given notes about detected splits added."""
        return self.with_findings(Finding("detected splits", (), line) for line in lines)

    def raise_errors(self, hint: str) -> None:
        """Raises a `DataError` if there are errors; the message lists up to 20 errors per kind and ends with `hint`."""
        if not (errors := self.errors):
            return
        lines = [f"{counted(len(errors), 'error')} in {self.root}; nothing was trained"]
        for kind, count in Counter(error.kind for error in errors).items():
            findings = [error for error in errors if error.kind == kind][:MAX_LISTED]
            lines.append(f"  {kind} ({count}): {FINDING_KINDS[kind].meaning}")
            lines += [f"      {self.line(finding)}" for finding in findings]
            lines += [f"      ... and {count - MAX_LISTED} more"] if count > MAX_LISTED else []
            lines += [f"    -> {FINDING_KINDS[kind].fix}"] if FINDING_KINDS[kind].fix else []
        raise DataError("\n".join([*lines, hint]))


def sorted_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sorts findings by kind, in the order of `FINDING_KINDS`."""
    order = {kind: position for position, kind in enumerate(FINDING_KINDS)}
    return tuple(sorted(findings, key=lambda finding: order[finding.kind]))
