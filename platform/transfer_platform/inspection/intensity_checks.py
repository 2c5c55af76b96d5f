"""Checks of the gray values in images with more than 8 bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from transfer_platform.data.image_stats import deep_images
from transfer_platform.data.intensity import as_intensity, covering_range
from transfer_platform.inspection.findings import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from transfer_model.intensity import Intensity
    from transfer_platform.data.catalog import ImageRecord
    from transfer_platform.recipe.schema import IntensitySetting

COMMON_FRACTION = 0.95
"""Fraction of the training images that must share a much smaller range for `uneven intensity`."""
MUCH_LARGER = 4
"""A range is much larger than another one if its upper end is at least this many times as large."""


def check_intensity(
    images: Sequence[ImageRecord],
    headers: NDArray[np.void],
    train: slice,
    setting: IntensitySetting,
    settled: IntensitySetting,
) -> Iterator[Finding]:
    """Yields findings for grayscale images with more than 8 bits.

    Args:
        images: All images (N).
        headers: Their `HEADER_DTYPE` records (N,).
        train: Position of the training images.
        setting: `dataset.intensity` as written in the recipe.
        settled: The same, after `data.intensity.settle`.
    """
    is_deep, modes = deep_images(headers), headers["mode"]
    for index in np.flatnonzero(is_deep).tolist():
        yield Finding("more than 8 bits", (images[index].path,), _values(headers[index]))
    for index in np.flatnonzero(np.char.endswith(modes, b";16") & ~is_deep).tolist():
        detail = f"mode {modes[index].decode()}: only the higher 8 of 16 bits per color are used; not scaled"
        yield Finding("more than 8 bits", (images[index].path,), detail)
    if not is_deep.any():
        return
    is_training = np.zeros(len(headers), np.bool_)
    is_training[train] = True
    yield from _summary(headers[is_deep & is_training], setting, settled)
    if intensity := as_intensity(settled):
        yield from _out_of_range(images, headers, is_deep, intensity)
    if setting == "auto":
        yield from _uneven(images, headers, np.flatnonzero(is_deep & is_training))


def _summary(deep: NDArray[np.void], setting: IntensitySetting, settled: IntensitySetting) -> Iterator[Finding]:
    if len(deep):
        values = f"values from {deep['lowest'].min():,.6g} to {deep['highest'].max():,.6g}"
        found = f"{len(deep)} training image{'s have' if len(deep) > 1 else ' has'} more than 8 bits, with {values}"
    else:
        found = "no training image has more than 8 bits"
    name = setting if isinstance(setting, str) else "set in the recipe"
    intensity = as_intensity(settled)
    scale = f"{intensity.low:,.6g} is black and {intensity.high:,.6g} is white" if intensity else "65,535 is white"
    yield Finding("intensity", (), f"dataset.intensity is {name}: {found}; {scale}")


def _out_of_range(
    images: Sequence[ImageRecord], headers: NDArray[np.void], is_deep: NDArray[np.bool_], intensity: Intensity
) -> Iterator[Finding]:
    is_outside = is_deep & ((headers["lowest"] < intensity.low) | (headers["highest"] > intensity.high))
    for index in np.flatnonzero(is_outside).tolist():
        detail = f"{_values(headers[index])}; the range is {intensity.low:,.6g} to {intensity.high:,.6g}"
        yield Finding("values out of range", (images[index].path,), detail)


def _uneven(images: Sequence[ImageRecord], headers: NDArray[np.void], training: NDArray[np.int64]) -> Iterator[Finding]:
    """Yields the training images that make the range of `auto` much larger than almost all images need it."""
    if not len(training):
        return
    highest = headers["highest"][training]
    common = covering_range(0, float(np.quantile(highest, COMMON_FRACTION, method="lower")))
    for index in training[highest > MUCH_LARGER * common.high].tolist():
        detail = f"{_values(headers[index])}; of almost all other images, they are at most {common.high:,.6g}"
        yield Finding("uneven intensity", (images[index].path,), detail)


def _values(header: np.void) -> str:
    return f"mode {header['mode'].decode()}, values from {header['lowest']:,.6g} to {header['highest']:,.6g}"
