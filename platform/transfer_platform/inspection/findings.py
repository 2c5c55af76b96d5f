"""What the preflight can find: every kind of trouble with its weight, its meaning and its remedy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Severity(StrEnum):
    """How much a finding matters; in this order."""

    ERROR = "error"
    """Nothing can be trained, or what is measured would mean nothing."""
    WARNING = "warning"
    """Training works; somebody should look."""
    NOTE = "note"
    """Good to know; the platform deals with it."""


@dataclass(frozen=True, slots=True)
class FindingKind:
    """One kind of finding.

    Attributes:
        name: As it is counted.
        severity: How much it matters.
        meaning: What it is, and what comes of it.
        remedy: What to do; empty where nothing needs to be done.
        skippable: Whether a file may be left out for it; otherwise nobody knows what would be left out.
    """

    name: str
    severity: Severity
    meaning: str
    remedy: str = ""
    skippable: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes:
        kind: Its name, a key of `FINDING_KINDS`.
        files: Which it is about, none where it is about the data set; the first is the one to look at.
        detail: What exactly, a sentence or a part of one.
    """

    kind: str
    files: tuple[Path, ...]
    detail: str


_OUT = "mend or remove it, name it in dataset.exclude, or set dataset.on_bad_image: skip"
_LINK = "copy what it points to into the data set, or name it in dataset.exclude"
_ROW = "correct the row, name it in dataset.exclude, or set dataset.on_bad_image: skip"
_LOOK = "look at it; name it in dataset.exclude if it does not belong"

FINDING_KINDS = {
    kind.name: kind
    for kind in (
        FindingKind(
            "unreadable", Severity.ERROR, "the system does not let it be read", "change its permissions"
        ),
        FindingKind(
            "unreadable folder",
            Severity.ERROR,
            "nobody knows what is in it, so it is not skipped",
            "change its permissions, or name it in dataset.exclude",
            skippable=False,
        ),
        FindingKind(
            "not read",
            Severity.ERROR,
            "the disk or the network failed; the image may be good, so it is not skipped",
            "run the command again, or name it in dataset.exclude",
            skippable=False,
        ),
        FindingKind("missing", Severity.ERROR, "a manifest lists it, but it is not there", _ROW),
        FindingKind("empty", Severity.ERROR, "a file of 0 bytes", _OUT),
        FindingKind(
            "unsupported format", Severity.ERROR, "no image, or one in a format that is not read", _OUT
        ),
        FindingKind("damaged", Severity.ERROR, "an image that is cut off or damaged", _OUT),
        FindingKind(
            "too many pixels", Severity.ERROR, "it would fill the memory (a decompression bomb)", _OUT
        ),
        FindingKind("too many bytes", Severity.ERROR, "larger than any image", _OUT),
        FindingKind("colour space", Severity.ERROR, "its colours have no defined RGB", "convert it to RGB"),
        FindingKind("link leading out", Severity.ERROR, "a link to somewhere outside the data set", _LINK),
        FindingKind(
            "link in circles", Severity.ERROR, "a link that leads back to itself or to its own folder", _LINK
        ),
        FindingKind("link to nothing", Severity.ERROR, "a link whose target is gone", _LINK),
        FindingKind("special file", Severity.ERROR, "a pipe, a socket or a device", "remove it"),
        FindingKind(
            "outside the class folders",
            Severity.ERROR,
            "it lies where no class can be told",
            "move it into its class folder, or name it in dataset.exclude",
        ),
        FindingKind(
            "class folders",
            Severity.ERROR,
            "fewer than two classes, an empty one, or one whose name is no text",
            "correct the folders, or the labels of the manifest",
        ),
        FindingKind(
            "classes differ",
            Severity.ERROR,
            "the splits do not have the same classes",
            "every split needs images of every class, of the same name",
        ),
        FindingKind("cannot be split", Severity.ERROR, "the images cannot be divided as the recipe says"),
        FindingKind(
            "copy in another split",
            Severity.ERROR,
            "the same bytes in two splits: it is tested after it was learned by heart",
            "remove one of them, name one in dataset.exclude, or name the file that may be in both in "
            "dataset.allow_duplicates",
        ),
        FindingKind(
            "group in two splits",
            Severity.ERROR,
            "images of one group in two splits: it is tested on what it has seen",
            "correct the manifest's column split, or leave it out and divide by fractions",
        ),
        FindingKind(
            "copy with another label",
            Severity.WARNING,
            "the same bytes in two classes: one of the labels is wrong",
            "remove the wrong one",
        ),
        FindingKind(
            "copy",
            Severity.WARNING,
            "the same bytes twice in one class: it counts twice",
            "remove one of them",
        ),
        FindingKind(
            "near copy in another split",
            Severity.WARNING,
            "images in two splits that look the same: the test is easier than the world",
            "look at them; keep one of them",
        ),
        FindingKind(
            "near copy with another label",
            Severity.WARNING,
            "images in two classes that look the same: one of the labels may be wrong",
            "look at them",
        ),
        FindingKind("near copy", Severity.WARNING, "images of one class that look the same", "look at them"),
        FindingKind(
            "likely mislabelled",
            Severity.WARNING,
            "networks that had not seen it are sure of another class",
            "look at it; move it to its class, or name it in dataset.exclude",
        ),
        FindingKind(
            "taken for another class",
            Severity.NOTE,
            "networks that had not seen it take it for another class: a hard image, or a wrong label",
            "look at the first ones",
        ),
        FindingKind("far from the rest", Severity.WARNING, "unlike every other image of the data set", _LOOK),
        FindingKind(
            "wrong extension",
            Severity.WARNING,
            "the name says another format than the bytes",
            "rename it; it is read all the same",
        ),
        FindingKind(
            "animated", Severity.WARNING, "several images in one file, of which the first is used", _LOOK
        ),
        FindingKind("odd format", Severity.WARNING, "a format that hardly any other image here has", _LOOK),
        FindingKind("blank", Severity.WARNING, "one colour and nothing else", _LOOK),
        FindingKind("very dark or bright", Severity.WARNING, "hardly anything can be seen on it", _LOOK),
        FindingKind("tiny", Severity.WARNING, "far smaller than the other images", _LOOK),
        FindingKind(
            "extreme shape", Severity.WARNING, "of so long an image the network sees a small part", "crop it"
        ),
        FindingKind(
            "similar classes",
            Severity.WARNING,
            "classes whose names differ in case, spaces or signs alone: perhaps they are one",
            "give them one name, or names that tell them apart",
        ),
        FindingKind(
            "few images", Severity.WARNING, "fewer training images than dataset.few_images", "add images"
        ),
        FindingKind(
            "imbalance",
            Severity.WARNING,
            "a class has many times the images of another",
            "add images, or set training.class_weights: auto and search.metric: validation/macro_f1",
        ),
        FindingKind("turned by EXIF", Severity.NOTE, "stored on its side; it is turned upright"),
        FindingKind("transparency", Severity.NOTE, "it is laid on white"),
        FindingKind("CMYK", Severity.NOTE, "colours for print; they are converted to RGB"),
        FindingKind("more than 8 bits", Severity.NOTE, "its greys are scaled to 8 bits"),
        FindingKind("name that is no UTF-8", Severity.NOTE, "shown with escapes; it is read all the same"),
        FindingKind(
            "splits",
            Severity.NOTE,
            "what dataset.splits leaves out is recognised by the names of folders",
        ),
        FindingKind("manifest", Severity.NOTE, "what was made of the manifest's columns"),
        FindingKind("excluded", Severity.NOTE, "left out because dataset.exclude names it"),
        FindingKind(
            "hidden", Severity.NOTE, "hidden files, and what file managers leave behind, are left out"
        ),
    )
}
"""Every kind by name, the gravest first."""
