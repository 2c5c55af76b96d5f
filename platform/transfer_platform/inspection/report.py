"""Inspection reports as text, Markdown, HTML and tables."""

from __future__ import annotations

import base64
import csv
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transfer_platform.data.intensity import as_intensity
from transfer_platform.inspection.findings import FINDING_KINDS, Finding, Severity
from transfer_platform.plurals import counted

if TYPE_CHECKING:
    from transfer_model.intensity import Intensity
    from transfer_platform.data.splits import Splits
    from transfer_platform.inspection.inspection import Inspection

MANIFEST = "data/manifest.csv"
"""Artifact path of the dataset manifest in a study's MLflow run."""
MAX_WITH_THUMBNAILS = 24
"""Maximum number of findings of each kind to show with thumbnails."""
MAX_THUMBNAILS = 6
"""Maximum number of thumbnails per finding."""
MAX_LISTED = 2000
"""Maximum number of findings per kind in a Markdown or HTML report; the findings table contains all findings."""
MAX_LISTED_IN_TEXT = 20
"""Maximum number of findings per kind in a text report."""
THUMBNAIL_SIDE = 112
"""Length of the longer side of a thumbnail, in pixels."""
MAX_THUMBNAIL_BYTES = 100_000_000
"""Maximum size in bytes of files for which thumbnails are created."""


def summary(inspection: Inspection) -> str:
    """Returns one line with the numbers of images, classes and findings, and the share of pixels outside the crop."""
    images = sum(count for counts in inspection.counts.values() for count in counts.values())
    counts = {severity: inspection.count(severity) for severity in Severity}
    findings = ", ".join(counted(count, severity) for severity, count in counts.items())
    crop = f"; the center crop leaves out {inspection.left_out:.0%} of all pixels" if images else ""
    classes = counted(len(inspection.classes), "class", "classes")
    return f"{counted(images, 'image')} of {classes}; {findings}{crop}"


def warning_counts(inspection: Inspection) -> str:
    """Returns the number of warnings, such as `3 warnings (2 tiny, 1 blank)`, or an empty string if there are none."""
    warnings = [finding for finding in inspection.findings if inspection.severity(finding) == Severity.WARNING]
    if not warnings:
        return ""
    counts = ", ".join(f"{count} {kind}" for kind, count in Counter(each.kind for each in warnings).items())
    return f"{counted(len(warnings), 'warning')} ({counts})"


def text_report(inspection: Inspection, severities: Collection[Severity] = tuple(Severity)) -> str:
    """Returns a plain-text report on findings with the given severities, with up to 20 findings per kind."""
    lines = [summary(inspection)]
    for severity, kind, findings in _sections(inspection):
        if severity not in severities:
            continue
        lines += ["", f"{severity}: {kind} ({len(findings)}): {FINDING_KINDS[kind].meaning}"]
        lines += [f"    {inspection.line(finding)}" for finding in findings[:MAX_LISTED_IN_TEXT]]
        more = len(findings) - MAX_LISTED_IN_TEXT
        lines += [f"    ... and {more} more"] if more > 0 else []
        fix = _fix(kind, severity)
        lines += [f"  -> {fix}"] if fix else []
    lines += ["", *inspection.skipped_checks] if inspection.skipped_checks else []
    return "\n".join(lines)


def markdown_report(inspection: Inspection) -> str:
    """Returns the report as Markdown, without images."""
    lines = ["# Dataset", "", summary(inspection), "", *_markdown_table(class_table(inspection)), ""]
    for severity, kind, findings in _sections(inspection):
        meaning, fix = FINDING_KINDS[kind].meaning, _fix(kind, severity)
        text = f"{meaning[0].upper()}{meaning[1:]}." + (f" Fix: {fix}." if fix else "")
        lines += [f"## {severity}: {kind} ({len(findings)})", "", text, ""]
        lines += [f"- {_escape(inspection.line(finding))}" for finding in findings[:MAX_LISTED]]
        lines += [f"- ... and {len(findings) - MAX_LISTED} more"] if len(findings) > MAX_LISTED else []
        lines += [""]
    tables = (*_markdown_table(inspection.statistics), "", *_markdown_table(inspection.formats))
    lines += ["## Statistics", "", *tables, ""]
    lines += [f"{line}\n" for line in inspection.skipped_checks]
    return "\n".join(lines)


def html_page(inspection: Inspection, title: str) -> str:
    """Returns the report as a self-contained HTML page with embedded thumbnails."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    template = Path(__file__).with_name("report.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        title=title,
        summary=summary(inspection),
        sections=[_html_section(inspection, *section) for section in _sections(inspection)],
        tables=[
            ("Classes", _rows(class_table(inspection))),
            ("Size, aspect ratio and brightness", _rows(inspection.statistics)),
            ("Formats", _rows(inspection.formats)),
        ],
        skipped_checks=inspection.skipped_checks,
    )


def findings_table(inspection: Inspection) -> dict[str, list[object]]:
    """Returns a table with `severity`, `kind`, `files` and `detail` columns and one row per finding."""
    return {
        "severity": [str(inspection.severity(finding)) for finding in inspection.findings],
        "kind": [finding.kind for finding in inspection.findings],
        "files": [", ".join(map(inspection.name, finding.files)) for finding in inspection.findings],
        "detail": [finding.detail for finding in inspection.findings],
    }


def class_table(inspection: Inspection) -> dict[str, list[object]]:
    """Returns a table with a `class` column, a column per split, a row per class and a final row of totals."""
    classes = list(inspection.classes)
    return {
        "class": [*classes, "all"],
        **{
            split: [*(counts.get(label, 0) for label in classes), sum(counts.values())]
            for split, counts in inspection.counts.items()
        },
    }


def quarantine(inspection: Inspection) -> str:
    """Returns a CSV of the invalid files left out of the dataset, with `file` and `reason` columns."""
    rows = ((inspection.name(path), reason) for path, reason in inspection.quarantine.items())
    return _csv(("file", "reason"), rows)


def manifest(inspection: Inspection, splits: Splits) -> str:
    """Returns a CSV of all images with their loss weights; the row order does not depend on file names."""
    folds = dict(zip((image.path for image in splits.train), splits.folds, strict=False))
    rows = (
        (
            split,
            image.label,
            image.sha256,
            f"{image.weight:.15g}" if split == "train" else "",
            folds.get(image.path, ""),
            inspection.name(image.path),
        )
        for split, images in splits.by_name.items()
        for image in images
    )
    return _csv(("split", "label", "sha256", "weight", "fold", "file"), rows)


def _sections(inspection: Inspection) -> Iterator[tuple[Severity, str, list[Finding]]]:
    for severity in Severity:
        for kind in Counter(finding.kind for finding in inspection.findings):
            findings = [each for each in inspection.by_kind(kind) if inspection.severity(each) == severity]
            if findings:
                yield severity, kind, findings


def _fix(kind: str, severity: Severity) -> str:
    """Returns the fix for a kind of finding, or an empty string if quarantining the file lowered `severity`."""
    return FINDING_KINDS[kind].fix if severity == FINDING_KINDS[kind].severity else ""


def _html_section(inspection: Inspection, severity: Severity, kind: str, findings: Sequence[Finding]) -> dict[str, Any]:
    return {
        "severity": str(severity),
        "kind": kind,
        "count": len(findings),
        "meaning": FINDING_KINDS[kind].meaning,
        "fix": _fix(kind, severity),
        "findings": [_html_finding(inspection, finding) for finding in findings[:MAX_WITH_THUMBNAILS]],
        "lines": [inspection.line(finding) for finding in findings[MAX_WITH_THUMBNAILS:MAX_LISTED]],
        "unlisted": max(0, len(findings) - MAX_LISTED),
    }


def _html_finding(inspection: Inspection, finding: Finding) -> dict[str, Any]:
    intensity = as_intensity(inspection.intensity)
    hidden = finding.kind in ("link leading out", "link in circles")  # their targets must not be disclosed
    return {
        "images": [
            {"source": "" if hidden else thumbnail_uri(path, intensity), "name": inspection.name(path)}
            for path in finding.files[:MAX_THUMBNAILS]
        ],
        "more": max(0, len(finding.files) - MAX_THUMBNAILS),
        "detail": finding.detail,
    }


def thumbnail_uri(path: Path, intensity: Intensity | None = None) -> str:
    """Returns a JPEG thumbnail as a `data:` URI, or an empty string if the file is not an image or is too large."""
    from transfer_model.decode import decode
    from transfer_model.errors import UnreadableImageError

    try:
        if not path.is_file() or path.stat().st_size > MAX_THUMBNAIL_BYTES:  # opening a pipe would block
            return ""
        image = decode(path, min_side=THUMBNAIL_SIDE, intensity=intensity)
    except (OSError, UnreadableImageError):
        return ""
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    content = BytesIO()
    image.save(content, "JPEG", quality=70)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()


def _rows(columns: Mapping[str, Sequence[object]]) -> list[list[object]]:
    """Returns the rows of a table, header first."""
    return [list(columns), *(list(row) for row in zip(*columns.values(), strict=True))]


def _markdown_table(columns: Mapping[str, Sequence[object]]) -> list[str]:
    header, *rows = ["| " + " | ".join(_escape(str(cell)) for cell in row) + " |" for row in _rows(columns)]
    return [header, "|" + "---|" * len(columns), *rows]


def _escape(text: str) -> str:
    """Escapes Markdown characters, because file names are untrusted input."""
    return "".join(f"\\{character}" if character in r"\`*_[]<>|#" else character for character in text)


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    content = StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return content.getvalue()
