"""Kinds of findings, each with a severity, a meaning and a fix."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Severity(StrEnum):
    """Severity levels of findings, most severe first."""

    ERROR = "error"
    """Training is impossible, or its results would be meaningless."""
    WARNING = "warning"
    """Training is possible, but the finding should be checked."""
    NOTE = "note"
    """The finding is for information only, or is handled automatically."""


@dataclass(frozen=True, slots=True)
class FindingKind:
    """Definition of a kind of finding.

    Attributes:
        meaning: What was found, and its consequence.
        fix: How to fix the problem; empty if no action is required.
        skippable: True if `dataset.on_bad_image: skip` applies to the files; False if not, because they may be valid.
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
        files: Affected files, most relevant first; empty if the finding concerns the whole dataset.
    """

    kind: str
    files: tuple[Path, ...]
    detail: str


_FIX_FILE = "repair or remove it, add it to dataset.exclude, or set dataset.on_bad_image: skip"
_FIX_LINK = "replace it with a copy of its target, or add it to dataset.exclude"
_FIX_ROW = "correct the row, add the file to dataset.exclude, or set dataset.on_bad_image: skip"
_CHECK = "check the image, and add it to dataset.exclude if it does not belong in the dataset"

_ERRORS = {
    "unreadable": ("the file cannot be opened", "change its permissions"),
    "unreadable folder": (
        "the folder cannot be read; it is not skipped, because it may contain valid images",
        "change its permissions, or add it to dataset.exclude",
    ),
    "not read": (
        "reading failed because of a disk or network error; the image may be valid, so it is not skipped",
        "run the command again, or add the file to dataset.exclude",
    ),
    "missing": ("the manifest lists a file that does not exist", _FIX_ROW),
    "empty": ("the file has 0 bytes", _FIX_FILE),
    "unsupported format": ("not an image, or an image in an unsupported format", _FIX_FILE),
    "damaged": ("a truncated or corrupt image", _FIX_FILE),
    "too many pixels": ("decoding would require too much memory (possible decompression bomb)", _FIX_FILE),
    "too many bytes": ("the file exceeds the maximum image file size", _FIX_FILE),
    "color space": ("the color space of the image has no defined conversion to RGB", "convert it to RGB"),
    "link leading out": ("a symbolic link to a target outside the dataset", _FIX_LINK),
    "link in circles": ("part of a symbolic link loop: a link to itself or to a folder that contains it", _FIX_LINK),
    "link to nothing": ("a symbolic link whose target does not exist", _FIX_LINK),
    "special file": ("a pipe, socket or device", "remove it"),
    "outside the class folders": (
        "the class is unknown",
        "if it is an image, move it into a class folder; otherwise, add it to dataset.exclude",
    ),
    "invalid classes": ("fewer than two classes, an empty class, or a class name that is not valid text", ""),
    "classes differ": (
        "the splits do not have the same classes",
        "make sure that every split has images of every class, and that the class names match",
    ),
    "blank after scaling": (
        "dataset.intensity turns almost all images into a single shade of gray",
        "set low and high in dataset.intensity to the range of the values, or convert all images to a common range",
    ),
    "cannot be split": ("the images cannot be split as specified in the recipe", ""),
    "duplicate across splits": (
        "identical files in different splits; test scores would be too high",
        "remove the extra copies, add them to dataset.exclude, or allow them with dataset.allow_duplicates",
    ),
    "group across splits": (
        "images from the same group in different splits; test scores would be too high",
        "correct the split column of the manifest, or remove the column and set fractions in dataset.splits",
    ),
}
_WARNINGS = {
    "duplicate with another label": (
        "identical files with different labels; at least one label is wrong",
        "remove the file with the wrong label",
    ),
    "exact duplicate": ("identical files in one class; the image is used more than once", "keep only one of them"),
    "near duplicate across splits": (
        "almost identical images in different splits; test scores may be too high",
        "check the images; if they show the same scene, keep only one of them",
    ),
    "near duplicate with another label": (
        "almost identical images with different labels; one label may be wrong",
        "check their labels",
    ),
    "near duplicate": ("almost identical images in one class", "check the images"),
    "label error": (
        "the label is probably wrong: the out-of-fold prediction confidently favors another class",
        "check the label; if it is wrong, move the image to the correct class or add it to dataset.exclude",
    ),
    "outlier": ("far from all other images in feature space", _CHECK),
    "wrong extension": ("the file extension does not match the image format", "rename the file (it can still be read)"),
    "animated": ("the file contains several frames; only the first is used", _CHECK),
    "unusual format": ("very few images in the dataset have this format", _CHECK),
    "blank": ("an image of a single color", _CHECK),
    "very dark or bright": ("almost nothing is visible", _CHECK),
    "values out of range": (
        "gray values outside the range of dataset.intensity become black or white",
        "if too much detail is lost, set a wider range in dataset.intensity, or convert all images to a common range",
    ),
    "uneven intensity": (
        "a few images have gray values far outside the range of the other images; "
        "either these values become black or white, or the other images lose contrast",
        "remove these images, or set low and high in dataset.intensity to the range that you need",
    ),
    "tiny": ("much smaller than the other images", _CHECK),
    "elongated": (
        "the network sees only the center square, which is less than half of this image",
        "crop it to a square that shows the subject, or divide it into squares",
    ),
    "similar class names": (
        "names that differ only in case, spaces or punctuation; they may refer to the same class",
        "use one name per class, and clearly different names for different classes",
    ),
    "few images": ("fewer training images than dataset.few_images", "add images"),
    "not in validation": (
        "a class is too small to have a validation image, so trials are ranked without this class",
        "add images",
    ),
    "small test share": (
        "a class has far fewer test images than requested, because near duplicates or groups must stay in one split",
        "add images, or remove near duplicates",
    ),
    "class imbalance": (
        "one class has far more images than another",
        "add images, or set training.class_weights: auto and search.metric: validation/macro_f1",
    ),
}
_NOTES = {
    "predicted as another class": (
        "the prediction differs from the label; the image may be hard to classify, or the label may be wrong",
        "check the first images in the list",
    ),
    "EXIF rotation": ("the EXIF orientation is applied when the image is read", ""),
    "transparency": ("transparent areas are replaced with white", ""),
    "CMYK": ("the image is converted from CMYK to RGB", ""),
    "intensity": ("how gray values of images with more than 8 bits are scaled to 8 bits", ""),
    "more than 8 bits": ("gray values are scaled to 8 bits; for color images, only the upper 8 bits are used", ""),
    "name not UTF-8": ("the name is shown with escape sequences; the file can still be read", ""),
    "detected splits": ("splits not set in dataset.splits are detected from folder names", ""),
    "manifest": ("how the manifest columns were interpreted", ""),
    "excluded": ("excluded by dataset.exclude", ""),
    "hidden": ("hidden files and files created by file managers are ignored", ""),
}

FINDING_KINDS = {
    name: FindingKind(name, severity, meaning, fix, skippable=name not in ("unreadable folder", "not read"))
    for severity, kinds in zip(Severity, (_ERRORS, _WARNINGS, _NOTES), strict=True)
    for name, (meaning, fix) in kinds.items()
}
"""All kinds of findings, keyed by name, in the order used in reports: errors, warnings, notes."""
