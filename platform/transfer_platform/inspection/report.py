"""An inspection for people: a page that needs no network, markdown, and tables."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transfer_platform.inspection.findings import FINDING_KINDS, Finding, Severity
from transfer_platform.inspection.thumbnails import thumbnail

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transfer_platform.data.splits import Splits
    from transfer_platform.inspection.survey import Inspection

MANIFEST = "data/manifest.csv"
"""Where a study's run holds the `manifest` of its images."""
SHOWN = 24
"""Findings of one kind that have thumbnails; the others are listed."""
SHOWN_FILES = 6
"""Thumbnails of one finding."""
MAX_LISTED = 2000
"""Findings of one kind that the page lists; the table has all of them."""
NO_THUMBNAIL = ("link leading out", "link in circles")
"""What is not followed is not shown either: the page may go where its target must not."""
_SUMMED_UP = 20
_TEMPLATE = Path(__file__).with_name("report.html.jinja")


def summary(inspection: Inspection) -> str:
    """A line: what was read, and how many findings there are."""
    images = sum(count for held in inspection.counts.values() for count in held.values())
    counts = ", ".join(_plural(inspection.count(severity), severity) for severity in Severity)
    return f"{images} images of {len(inspection.classes)} classes; {counts}"


def text_report(inspection: Inspection) -> str:
    """Everything that was found, up to 20 lines of a kind, for a terminal."""
    lines = [summary(inspection)]
    for severity in Severity:
        for kind, found in _kinds(inspection, severity):
            lines += ["", f"{severity}: {kind} ({len(found)}): {FINDING_KINDS[kind].meaning}"]
            lines += [f"    {inspection.line(finding)}" for finding in found[:_SUMMED_UP]]
            lines += [f"    ... and {len(found) - _SUMMED_UP} more"] if len(found) > _SUMMED_UP else []
            remedy = inspection.remedy(kind, severity)
            lines += [f"  -> {remedy}"] if remedy else []
    lines += ["", *inspection.skipped_checks] if inspection.skipped_checks else []
    return "\n".join(lines)


def markdown_report(inspection: Inspection) -> str:
    """The report without images."""
    lines = ["# The data set", "", summary(inspection), "", *_table(class_table(inspection)), ""]
    for severity in Severity:
        for kind, found in _kinds(inspection, severity):
            lines += [
                f"## {severity}: {kind} ({len(found)})",
                "",
                _sentence(kind, inspection.remedy(kind, severity)),
                "",
            ]
            lines += [f"- {_escaped(inspection.line(finding))}" for finding in found[:MAX_LISTED]]
            lines += [f"- ... and {len(found) - MAX_LISTED} more"] if len(found) > MAX_LISTED else []
            lines += [""]
    lines += ["## Statistics", "", *_table(inspection.statistics), "", *_table(inspection.formats), ""]
    lines += [f"{line}\n" for line in inspection.skipped_checks]
    return "\n".join(lines)


def html_page(inspection: Inspection, title: str) -> str:
    """The report as one HTML file, thumbnails included; it loads nothing from anywhere.

    Args:
        inspection: What was found.
        title: Of the page.
    """
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    sections = [
        _section(inspection, severity, kind, found)
        for severity in Severity
        for kind, found in _kinds(inspection, severity)
    ]
    return template.render(
        title=title,
        summary=summary(inspection),
        sections=sections,
        tables=[
            ("Classes", _rows(class_table(inspection))),
            ("Sizes, shapes, brightness", _rows(inspection.statistics)),
            ("Formats", _rows(inspection.formats)),
        ],
        unasked=inspection.skipped_checks,
    )


def findings_table(inspection: Inspection) -> dict[str, list[object]]:
    """Columns `severity`, `kind`, `files`, `detail`; one row per finding."""
    return {
        "severity": [str(inspection.severity(each)) for each in inspection.findings],
        "kind": [each.kind for each in inspection.findings],
        "files": [", ".join(map(inspection.name, each.files)) for each in inspection.findings],
        "detail": [each.detail for each in inspection.findings],
    }


def class_table(inspection: Inspection) -> dict[str, list[object]]:
    """Columns `class` and one per split; one row per class, and one for all of them."""
    labels = list(inspection.classes)
    return {
        "class": [*labels, "all"],
        **{
            split: [*(count.get(label, 0) for label in labels), sum(count.values())]
            for split, count in inspection.counts.items()
        },
    }


def quarantine(inspection: Inspection) -> str:
    """What was left out because it is no readable image, as CSV: `file`, `reason`."""
    return _csv(
        ("file", "reason"), ((inspection.name(path), why) for path, why in inspection.quarantine.items())
    )


def manifest(inspection: Inspection, splits: Splits) -> str:
    """Every image as CSV, in an order that names do not change.

    Columns are `split`, `label`, `sha256`, `weight` (in the training loss), `fuse_batch_norms` and `file`.
    """
    fold = dict(zip((image.path for image in splits.train), splits.folds, strict=False))
    rows = (
        (
            role,
            image.label,
            image.sha256,
            f"{image.weight:.15g}" if role == "train" else "",
            fold.get(image.path, ""),
            inspection.name(image.path),
        )
        for role, held in splits.by_name.items()
        for image in held
    )
    return _csv(("split", "label", "sha256", "weight", "fold", "file"), rows)


def _section(
    inspection: Inspection, severity: Severity, kind: str, found: Sequence[Finding]
) -> dict[str, Any]:
    shown = [
        {
            "images": [
                {"source": "" if kind in NO_THUMBNAIL else thumbnail(path), "name": inspection.name(path)}
                for path in finding.files[:SHOWN_FILES]
            ],
            "more": max(0, len(finding.files) - SHOWN_FILES),
            "detail": finding.detail,
        }
        for finding in found[:SHOWN]
    ]
    rest = [inspection.line(finding) for finding in found[SHOWN:MAX_LISTED]]
    return {
        "severity": str(severity),
        "kind": kind,
        "count": len(found),
        "meaning": FINDING_KINDS[kind].meaning,
        "remedy": inspection.remedy(kind, severity),
        "shown": shown,
        "rest": rest,
        "unlisted": max(0, len(found) - MAX_LISTED),
    }


def _kinds(inspection: Inspection, severity: Severity) -> Iterator[tuple[str, list[Finding]]]:
    for kind in Counter(finding.kind for finding in inspection.findings):
        found = [each for each in inspection.by_kind(kind) if inspection.severity(each) == severity]
        if found:
            yield kind, found


def _sentence(kind: str, remedy: str) -> str:
    meaning = FINDING_KINDS[kind].meaning
    return f"{meaning[0].upper()}{meaning[1:]}." + (f" Remedy: {remedy}." if remedy else "")


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _rows(columns: Mapping[str, Sequence[object]]) -> list[list[object]]:
    """A table with its head as the first row."""
    return [list(columns), *(list(row) for row in zip(*columns.values(), strict=True))]


def _table(columns: Mapping[str, Sequence[object]]) -> list[str]:
    head, *rows = _rows(columns)
    lines = ["| " + " | ".join(_escaped(str(cell)) for cell in row) + " |" for row in (head, *rows)]
    return [lines[0], "|" + "---|" * len(head), *lines[1:]]


def _escaped(text: str) -> str:
    """Text that markdown shows as it is: names come from strangers."""
    return "".join(f"\\{each}" if each in r"\`*_[]<>|#" else each for each in text)


def _csv(head: Sequence[str], rows: Iterator[Sequence[object]]) -> str:
    content = StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return content.getvalue()
