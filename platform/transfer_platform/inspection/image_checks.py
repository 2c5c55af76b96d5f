"""Per-file checks for invalid files and unusual images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from transfer_model.formats import FORMATS
from transfer_platform.file_problems import printable
from transfer_platform.inspection.center_crop import share_left_out
from transfer_platform.inspection.findings import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from transfer_platform.data.catalog import Catalog, ImageRecord
    from transfer_platform.inspection.perceptual_hash import PerceptualHashes

RARE_FORMAT_FRACTION, RARE_FORMAT_MIN_IMAGES = 0.01, 50
"""Share of images below which a format is considered rare, and the minimum number of images for this check."""
BLANK_CONTRAST = 2
"""Thumbnail contrast (0 to 255) below which an image is considered blank."""
DARK, BRIGHT = 10.0, 245.0
"""Minimum and maximum mean brightness (0 to 255); outside this range, almost nothing is visible."""
TINY_FRACTION = 0.25
"""An image is considered tiny if its shorter side is below this fraction of the median shorter side."""
MAX_ASPECT_RATIO = 2.0
"""Ratio of longer to shorter side above which the center square is less than half of the image."""


def check_files(catalogs: Mapping[str, Catalog]) -> Iterator[Finding]:
    """Yields findings for invalid, excluded and ignored files."""
    for catalog in catalogs.values():
        for path, problem in sorted(catalog.problems.items()):
            yield Finding(problem.kind, (path,), problem.message)
        for path in catalog.excluded:
            yield Finding("excluded", (path,), "matches dataset.exclude")
        for path in catalog.ignored:
            yield Finding("hidden", (path,), "hidden, or created by a file manager")


def check_images(
    images: Sequence[ImageRecord], headers: NDArray[np.void], hashes: PerceptualHashes, crop: float
) -> Iterator[Finding]:
    """Yields findings for readable but unusual images.

    Args:
        images: Images to check.
        headers: `HEADER_DTYPE` records (N,) of the images.
        hashes: Perceptual hashes of the images.
        crop: Side of the center crop as a fraction of the shorter side of an image.
    """
    if not len(headers):
        return
    formats, modes = headers["format"].astype(str), headers["mode"].astype(str)
    names, counts = np.unique(formats, return_counts=True)
    rare = {name: n for name, n in zip(names, counts, strict=True) if n < RARE_FORMAT_FRACTION * len(headers)}
    is_rare = np.isin(formats, list(rare)) & (len(headers) >= RARE_FORMAT_MIN_IMAGES)
    shorter = np.minimum(headers["width"], headers["height"])
    median_side = float(np.median(shorter))
    is_tiny = shorter < TINY_FRACTION * median_side
    ratios = np.maximum(headers["width"], headers["height"]) / shorter
    left_out = share_left_out(headers, crop)
    brightness, is_blank = hashes.brightness, hashes.contrast < BLANK_CONTRAST
    is_extreme = ((brightness < DARK) | (brightness > BRIGHT)) & ~is_blank
    is_escaped = np.array([image.file != image.file.encode(errors="ignore").decode() for image in images])
    checks: list[tuple[str, NDArray[np.bool_], Callable[[int], str]]] = [
        ("wrong extension", _misnamed(images, formats), lambda i: _extension(images[i], formats[i])),
        ("animated", headers["frames"] > 1, lambda i: f"{headers['frames'][i]} frames in a {formats[i]} file"),
        ("unusual format", is_rare, lambda i: f"{rare[formats[i]]} of {len(headers)} images are {formats[i]}"),
        ("blank", is_blank, lambda _: "a single color"),
        ("very dark or bright", is_extreme, lambda i: f"mean brightness {brightness[i]:.0f} of 255"),
        ("tiny", is_tiny, lambda i: f"{_size(headers[i])}; the median shorter side is {median_side:.0f}"),
        (
            "elongated",
            ratios > MAX_ASPECT_RATIO,
            lambda i: f"{_size(headers[i])}; the center crop leaves out {left_out[i]:.0%} of the pixels",
        ),
        ("EXIF rotation", headers["orientation"] != 1, lambda i: f"orientation {headers['orientation'][i]}"),
        ("transparency", headers["transparent"] > 0, lambda i: f"{formats[i]} in mode {modes[i]}"),
        ("CMYK", modes == "CMYK", lambda _: "converted to RGB"),
        ("name not UTF-8", is_escaped, lambda i: printable(images[i].path.name)),
    ]
    for kind, mask, describe in checks:
        yield from (Finding(kind, (images[i].path,), describe(i)) for i in np.flatnonzero(mask).tolist())


def _misnamed(images: Sequence[ImageRecord], formats: NDArray[np.str_]) -> NDArray[np.bool_]:
    pairs = zip(images, formats.tolist(), strict=True)
    return np.array([not image.file.lower().endswith(FORMATS[format_].extensions) for image, format_ in pairs])


def _extension(image: ImageRecord, format_: str) -> str:
    suffix = printable(image.path.suffix)
    return f"{f'the extension is {suffix}' if suffix else 'there is no extension'}; the format is {format_}"


def _size(header: np.void) -> str:
    return f"{header['width']} x {header['height']} pixels"
