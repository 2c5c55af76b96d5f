"""What is to be said of single files: those that are no pictures, and pictures out of the ordinary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from transfer_platform.data.problem import shown
from transfer_platform.inspection.finding import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from transfer_platform.data.catalog import Catalog, Picture

EXTENSIONS: Mapping[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "MPO": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
"""What files of each format are called, in lower case."""

ODD_SHARE, ODD_AMONG = 0.01, 50
"""A format is odd that less than this share of the pictures has, of at least so many."""
BLANK = 2.0
"""Levels (of 255) between which all of a sketch lies, in each colour."""
DARK, BRIGHT = 10.0, 245.0
"""Mean levels (of 255) below and above which hardly anything can be seen."""
TINY = 0.25
"""Share of the median shorter side."""
LONG = 4.0
"""Longer side by shorter side."""


def bad_files(catalogs: Mapping[str, Catalog]) -> Iterator[Finding]:
    """Files that are no readable pictures in a class folder, and those left out for other reasons."""
    for catalog in catalogs.values():
        for path, problem in sorted(catalog.problems.items()):
            yield Finding(problem.kind, (path,), problem.message)
        for path in catalog.excluded:
            yield Finding("excluded", (path,), "named in dataset.exclude")
        for path in catalog.ignored:
            yield Finding("hidden", (path,), "hidden, or left behind by a file manager")


def unusual_pictures(pictures: Sequence[Picture], looks: NDArray[np.void]) -> Iterator[Finding]:
    """Pictures that can be learned from, and are not like the others.

    Args:
        pictures: N of them.
        looks: Their `data.looks.LOOK`s (N,).
    """
    if not len(looks):
        return
    counts = Counter(looks["format"].tolist())
    sides = np.minimum(looks["width"], looks["height"])
    usual = float(np.median(sides))
    levels = brightness(looks)
    spread = np.ptp(looks["sketch"].astype(np.int16), axis=(1, 2)).max(axis=1)
    for index, picture in enumerate(pictures):
        row = looks[index]
        size = f"{row['width']} x {row['height']} pixels"
        shape = max(row["width"], row["height"]) / sides[index]
        said = [
            *_format(picture.path, row, counts, len(looks)),
            *_mode(row),
            ("blank", "one colour") if spread[index] < BLANK else None,
            ("very dark or bright", f"its mean brightness is {levels[index]:.0f} of 255")
            if not DARK <= levels[index] <= BRIGHT and spread[index] >= BLANK
            else None,
            ("tiny", f"{size}; the median shorter side is {usual:.0f}")
            if sides[index] < TINY * usual
            else None,
            ("extreme shape", f"{size}, {shape:.1f} times as long as wide") if shape > LONG else None,
            ("name that is no UTF-8", shown(picture.path.name)) if not _is_text(picture.path) else None,
        ]
        yield from (Finding(each[0], (picture.path,), each[1]) for each in said if each)


def brightness(looks: NDArray[np.void]) -> NDArray[np.float64]:
    """Mean luma (ITU-R BT.601) of each picture (N,), 0 to 255."""
    mean: NDArray[np.float64] = looks["sketch"].mean(axis=(1, 2)) @ np.array([0.299, 0.587, 0.114])
    return mean


_Said = tuple[str, str]


def _format(path: Path, row: np.void, counts: Counter[bytes], total: int) -> Iterator[_Said]:
    name = row["format"].decode()
    if path.suffix.lower() not in EXTENSIONS[name]:
        yield "wrong extension", f"the name ends in {shown(path.suffix) or 'nothing'}, the bytes are {name}"
    if row["frames"] > 1:
        yield "animated", f"{row['frames']} pictures in one {name}"
    if total >= ODD_AMONG and counts[row["format"]] < ODD_SHARE * total:
        yield "odd format", f"{counts[row['format']]} of {total} pictures are {name}"


def _mode(row: np.void) -> Iterator[_Said]:
    mode = row["mode"].decode()
    if row["orientation"] != 1:
        yield "turned by EXIF", f"orientation {row['orientation']}"
    if row["transparent"]:
        yield "transparency", f"a {row['format'].decode()} in mode {mode}"
    if mode == "CMYK":
        yield "CMYK", "converted to RGB"
    if mode in ("I", "F") or mode.startswith("I;16"):
        yield "more than 8 bits", f"mode {mode}"


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
