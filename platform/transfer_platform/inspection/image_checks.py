"""What is to be said of single files: those that are no images, and images out of the ordinary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from transfer_platform.file_problems import printable
from transfer_platform.inspection.findings import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from transfer_platform.data.catalog import Catalog, ImageRecord
    from transfer_platform.inspection.perceptual_hash import PerceptualHashes

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

RARE_SHARE, RARE_MINIMUM = 0.01, 50
"""A format is odd that less than this share of the images has, of at least so many."""
BLANK = 2
"""Levels (of 255) between which all of a sketch lies, in each colour."""
DARK, BRIGHT = 10.0, 245.0
"""Mean levels (of 255) below and above which hardly anything can be seen."""
TINY = 0.25
"""Share of the median shorter side."""
ELONGATED = 4.0
"""Longer side by shorter side."""


def bad_files(catalogs: Mapping[str, Catalog]) -> Iterator[Finding]:
    """Files that are no readable images in a class folder, and those left out for other reasons."""
    for catalog in catalogs.values():
        for path, problem in sorted(catalog.problems.items()):
            yield Finding(problem.kind, (path,), problem.message)
        for path in catalog.excluded:
            yield Finding("excluded", (path,), "named in dataset.exclude")
        for path in catalog.ignored:
            yield Finding("hidden", (path,), "hidden, or left behind by a file manager")


def unusual_images(
    images: Sequence[ImageRecord], facts: NDArray[np.void], sketches: PerceptualHashes
) -> Iterator[Finding]:
    """Images that can be learned from, and are not like the others.

    Args:
        images: N of them.
        facts: Their `data.looks.FACTS` (N,).
        sketches: What `sketches.study` says of them.
    """
    if not len(facts):
        return
    formats = facts["format"].astype(str)
    kinds, counts = np.unique(formats, return_counts=True)
    few = {kind: count for kind, count in zip(kinds, counts, strict=True) if count < RARE_SHARE * len(facts)}
    sides = np.minimum(facts["width"], facts["height"])
    usual, levels, blank = float(np.median(sides)), sketches.brightness, sketches.contrast < BLANK
    shapes = np.maximum(facts["width"], facts["height"]) / sides
    deep = np.char.startswith(facts["mode"], b"I") | (facts["mode"] == b"F")
    found: list[tuple[str, NDArray[np.bool_], Callable[[int], str]]] = [
        ("wrong extension", _misnamed(images, formats), lambda i: _extension(images[i].path, formats[i])),
        ("animated", facts["frames"] > 1, lambda i: f"{facts['frames'][i]} images in one {formats[i]}"),
        (
            "odd format",
            np.isin(formats, list(few)) & (len(facts) >= RARE_MINIMUM),
            lambda i: f"{few[formats[i]]} of {len(facts)} images are {formats[i]}",
        ),
        ("blank", blank, lambda _: "one colour"),
        (
            "very dark or bright",
            ((levels < DARK) | (levels > BRIGHT)) & ~blank,
            lambda i: f"its mean brightness is {levels[i]:.0f} of 255",
        ),
        (
            "tiny",
            sides < TINY * usual,
            lambda i: f"{_size(facts[i])}; the median shorter side is {usual:.0f}",
        ),
        (
            "extreme shape",
            shapes > ELONGATED,
            lambda i: f"{_size(facts[i])}, its sides are 1 to {shapes[i]:.1f}",
        ),
        ("turned by EXIF", facts["orientation"] != 1, lambda i: f"orientation {facts['orientation'][i]}"),
        ("transparency", facts["transparent"] > 0, lambda i: f"a {formats[i]} in mode {_mode(facts[i])}"),
        ("CMYK", facts["mode"] == b"CMYK", lambda _: "converted to RGB"),
        ("more than 8 bits", deep, lambda i: f"mode {_mode(facts[i])}"),
        (
            "name that is no UTF-8",
            np.array([not _is_text(image.file) for image in images]),
            lambda i: printable(images[i].path.name),
        ),
    ]
    for kind, which, detail in found:
        yield from (Finding(kind, (images[i].path,), detail(i)) for i in np.flatnonzero(which).tolist())


def _misnamed(images: Sequence[ImageRecord], formats: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Whose name says another format than the bytes (N,)."""
    pairs = zip(images, formats.tolist(), strict=True)
    return np.array([not image.file.lower().endswith(EXTENSIONS[kind]) for image, kind in pairs])


def _extension(path: Path, kind: str) -> str:
    return f"the name ends in {printable(path.suffix) or 'nothing'}, the bytes are {kind}"


def _size(facts: np.void) -> str:
    return f"{facts['width']} x {facts['height']} pixels"


def _mode(facts: np.void) -> str:
    return str(facts["mode"].decode())


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
