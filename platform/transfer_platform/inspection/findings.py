"""Kinds of findings: severity, meaning and fix."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Severity(StrEnum):
    """Severity of a finding, in descending order."""

    ERROR = "error"
    """Training is impossible, or its results would be meaningless."""
    WARNING = "warning"
    """Training is possible, but the finding should be checked."""
    NOTE = "note"
    """Handled automatically."""


@dataclass(frozen=True, slots=True)
class FindingKind:
    """A kind of finding.

    Attributes:
        meaning: Description and consequence.
        fix: Instructions; empty if nothing needs to be done.
        skippable: `dataset.on_bad_image: skip` may leave out such files. False if their content is unknown.
    """

    name: str
    severity: Severity
    meaning: str
    fix: str = ""
    skippable: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """A single finding.

    Attributes:
        kind: A key of `FINDING_KINDS`.
        files: The files concerned, the most relevant one first; empty for a finding about the whole dataset.
    """

    kind: str
    files: tuple[Path, ...]
    detail: str


_FIX_FILE = "repair or remove it, add it to dataset.exclude, or set dataset.on_bad_image: skip"
_FIX_LINK = "replace it with a copy of its target, or add it to dataset.exclude"
_FIX_ROW = "correct the row, add the file to dataset.exclude, or set dataset.on_bad_image: skip"
_CHECK = "check it; add it to dataset.exclude if it does not belong to the dataset"

_ERRORS = {
    "unreadable": ("the file cannot be opened", "change its permissions"),
    "unreadable folder": (
        "its contents are unknown, so it is not skipped",
        "change its permissions, or add it to dataset.exclude",
    ),
    "not read": (
        "a disk or network error; the image may be valid, so it is not skipped",
        "run the command again, or add it to dataset.exclude",
    ),
    "missing": ("the manifest lists a file that does not exist", _FIX_ROW),
    "empty": ("a file of 0 bytes", _FIX_FILE),
    "unsupported format": ("not an image, or an image in an unsupported format", _FIX_FILE),
    "damaged": ("a truncated or damaged image", _FIX_FILE),
    "too many pixels": ("decoding would need too much memory (decompression bomb)", _FIX_FILE),
    "too many bytes": ("larger than any valid image", _FIX_FILE),
    "colour space": ("its color space has no defined conversion to RGB", "convert it to RGB"),
    "link leading out": ("a link to a target outside the dataset", _FIX_LINK),
    "link in circles": ("a link that leads back to itself or to its own folder", _FIX_LINK),
    "link to nothing": ("a link whose target does not exist", _FIX_LINK),
    "special file": ("a pipe, a socket or a device", "remove it"),
    "outside the class folders": ("its class is unknown", "move it into a class folder, or add it to dataset.exclude"),
    "invalid classes": (
        "fewer than two classes, an empty class, or a class name that is not valid text",
        "correct the folders, or the labels in the manifest",
    ),
    "classes differ": (
        "the splits do not have the same classes",
        "give every split images of every class, under the same class names",
    ),
    "cannot be split": ("the splits of the recipe cannot be made from these images", ""),
    "duplicate across splits": (
        "identical files in different splits; test scores would be too high",
        "remove one of them, add it to dataset.exclude, or allow it with dataset.allow_duplicates",
    ),
    "group across splits": (
        "images of one group in different splits; test scores would be too high",
        "correct the split column of the manifest, or remove the column and use fractions",
    ),
}
_WARNINGS = {
    "duplicate with another label": (
        "identical files with different labels; at least one label is wrong",
        "remove the file with the wrong label",
    ),
    "exact duplicate": ("identical files in one class; the image counts more than once", "keep one of them"),
    "near duplicate across splits": (
        "almost identical images in different splits; test scores may be too high",
        "check them; keep one of them",
    ),
    "near duplicate with another label": (
        "almost identical images with different labels; one label may be wrong",
        "check their labels",
    ),
    "near duplicate": ("almost identical images of one class", "check them"),
    "label error": (
        "the label is probably wrong: the out-of-fold prediction is confident of another class",
        "check it; move it to its class, or add it to dataset.exclude",
    ),
    "outlier": ("far from all other images in feature space", _CHECK),
    "wrong extension": ("the file name extension does not match the format", "rename it; it is read in any case"),
    "animated": ("several frames in one file, of which only the first is used", _CHECK),
    "unusual format": ("hardly any other image has this format", _CHECK),
    "blank": ("an image of a single color", _CHECK),
    "very dark or bright": ("almost nothing is visible", _CHECK),
    "tiny": ("much smaller than the other images", _CHECK),
    "extreme aspect ratio": ("the network sees only a small part of such a long image", "crop it"),
    "similar class names": (
        "names that differ only in case, spaces or punctuation; perhaps they are the same class",
        "use the same name, or names that differ clearly",
    ),
    "few images": ("fewer training images than dataset.few_images", "add images"),
    "class imbalance": (
        "one class has many times as many images as another",
        "add images, or set training.class_weights: auto and search.metric: validation/macro_f1",
    ),
}
_NOTES = {
    "predicted as another class": (
        "the out-of-fold prediction is another class; a difficult image or a wrong label",
        "check the first ones",
    ),
    "EXIF rotation": ("stored rotated; it is turned upright", ""),
    "transparency": ("transparent areas become white", ""),
    "CMYK": ("colors for print; converted to RGB", ""),
    "more than 8 bits": ("gray values are scaled to 8 bits", ""),
    "name not UTF-8": ("shown with escape sequences; it is read in any case", ""),
    "detected splits": ("splits that dataset.splits does not set are detected from folder names", ""),
    "manifest": ("interpretation of the manifest's columns", ""),
    "excluded": ("left out because of dataset.exclude", ""),
    "hidden": ("hidden files and files created by file managers are ignored", ""),
}

FINDING_KINDS = {
    name: FindingKind(name, severity, meaning, fix, skippable=name not in ("unreadable folder", "not read"))
    for severity, kinds in zip(Severity, (_ERRORS, _WARNINGS, _NOTES), strict=True)
    for name, (meaning, fix) in kinds.items()
}
"""All kinds by name, in the order of reports: errors, warnings, notes."""
