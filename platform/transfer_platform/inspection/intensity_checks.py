"""Checks of the gray values in images with more than 8 bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from transfer_platform.data.image_stats import deep_images
from transfer_platform.data.intensity import TOLERANCE, as_intensity, covering_range, far_images
from transfer_platform.inspection.findings import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from transfer_model.intensity import Intensity
    from transfer_platform.data.catalog import ImageRecord
    from transfer_platform.recipe.schema import IntensitySetting

COMMON_FRACTION = 0.95
"""This fraction of training images has no gray value below the common range, and the same fraction none above it."""
MUCH_LARGER = 4
"""A range counts as much larger than another if it is at least this many times as large."""
ALMOST_ALL = 0.9
"""Minimum fraction of blank training images for the error `blank after scaling`."""
BLANK_LEVELS = 2
"""An image is blank after scaling if its highest and lowest gray values (0 to 255) differ by less than this."""


def check_intensity(
    images: Sequence[ImageRecord],
    headers: NDArray[np.void],
    train: slice,
    setting: IntensitySetting,
    resolved: IntensitySetting,
) -> Iterator[Finding]:
    """Yields findings for grayscale images with more than 8 bits.

    Args:
        images: All images (N).
        headers: `HEADER_DTYPE` records of the images (N,).
        train: Slice of `images` that contains the training images.
        setting: `dataset.intensity` as written in the recipe.
        resolved: Return value of `data.intensity.resolve` for this setting: `full` or a range.
    """
    is_deep, modes = deep_images(headers), headers["mode"]
    for index in np.flatnonzero(is_deep).tolist():
        yield Finding("more than 8 bits", (images[index].path,), _values(headers[index]))
    for index in np.flatnonzero(np.char.endswith(modes, b";16") & ~is_deep).tolist():
        detail = f"mode {modes[index].decode()}: only the upper 8 of 16 bits per channel are used, without scaling"
        yield Finding("more than 8 bits", (images[index].path,), detail)
    if not is_deep.any():
        return
    is_training = np.zeros(len(headers), np.bool_)
    is_training[train] = True
    yield from _summary(headers[is_deep & is_training], setting, resolved)
    if intensity := as_intensity(resolved):
        yield from _out_of_range(images, headers, is_deep, intensity, TOLERANCE if setting == "auto" else 0)
        yield from _blank(headers[is_deep & is_training], intensity)
    if setting == "auto":
        yield from _uneven(images, headers, np.flatnonzero(is_deep & is_training))


def _summary(deep: NDArray[np.void], setting: IntensitySetting, resolved: IntensitySetting) -> Iterator[Finding]:
    if len(deep):
        values = f"values from {deep['lowest'].min():,.6g} to {deep['highest'].max():,.6g}"
        found = f"{len(deep)} training image{'s have' if len(deep) > 1 else ' has'} more than 8 bits, with {values}"
    else:
        found = "no training image has more than 8 bits"
    name = setting if isinstance(setting, str) else "set in the recipe"
    intensity = as_intensity(resolved)
    scale = f"{intensity.low:,.6g} is black and {intensity.high:,.6g} is white" if intensity else "65,535 is white"
    yield Finding("intensity", (), f"dataset.intensity is {name}: {found}; {scale}")


def _out_of_range(
    images: Sequence[ImageRecord],
    headers: NDArray[np.void],
    is_deep: NDArray[np.bool_],
    intensity: Intensity,
    tolerance: float,
) -> Iterator[Finding]:
    margin = tolerance * (intensity.high - intensity.low)
    is_outside = (headers["lowest"] < intensity.low - margin) | (headers["highest"] > intensity.high + margin)
    for index in np.flatnonzero(is_deep & is_outside).tolist():
        detail = f"{_values(headers[index])}; the range is {intensity.low:,.6g} to {intensity.high:,.6g}"
        yield Finding("values out of range", (images[index].path,), detail)


def _blank(deep: NDArray[np.void], intensity: Intensity) -> Iterator[Finding]:
    """Yields an error if scaling makes almost all training images blank; images of a single gray value are ignored."""
    varied = deep[deep["lowest"] < deep["highest"]]
    low, high = (np.clip(varied[name], intensity.low, intensity.high) for name in ("lowest", "highest"))
    count = np.count_nonzero((high - low) / (intensity.high - intensity.low) * 255 < BLANK_LEVELS)
    if len(varied) and count >= ALMOST_ALL * len(varied):
        values = f"their values range from {varied['lowest'].min():,.6g} to {varied['highest'].max():,.6g}"
        scale = f"the range is {intensity.low:,.6g} to {intensity.high:,.6g}"
        yield Finding("blank after scaling", (), f"{count} of {len(varied)} training images: {values}; {scale}")


def _uneven(images: Sequence[ImageRecord], headers: NDArray[np.void], training: NDArray[np.int64]) -> Iterator[Finding]:
    """Yields findings for training images with values far outside the range of almost all training images."""
    if not len(training):
        return
    deep = headers[training]
    common = covering_range(
        float(np.quantile(deep["lowest"], 1 - COMMON_FRACTION, method="higher")),
        float(np.quantile(deep["highest"], COMMON_FRACTION, method="lower")),
    )
    for index in training[far_images(deep, common, MUCH_LARGER)].tolist():
        detail = f"{_values(headers[index])}; values of almost all others: {common.low:,.6g} to {common.high:,.6g}"
        yield Finding("uneven intensity", (images[index].path,), detail)


def _values(header: np.void) -> str:
    return f"mode {header['mode'].decode()}, values from {header['lowest']:,.6g} to {header['highest']:,.6g}"
