"""Determines the range of gray values for images with more than 8 bits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from transfer_model.intensity import Intensity
from transfer_platform.data.image_stats import deep_images
from transfer_platform.recipe.schema import IntensityRange

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from transfer_platform.recipe.schema import IntensitySetting

TOLERANCE = 0.03
"""Values may exceed a range by this fraction of its size, because resampling can overshoot."""

_EIGHT_BITS = IntensityRange(low=0, high=255)
_RARE = 0.05
_FAR = 8
"""Values found in only a few images are ignored if they would enlarge the range by more than this factor."""


def resolve(setting: IntensitySetting, headers: NDArray[np.void]) -> IntensitySetting:
    """Resolves a setting to a range or to `full`.

    `auto` resolves to the smallest range (0 to 1, or 0 to 2^n - 1 with n >= 8) that covers the values of the training
    images (see `TOLERANCE`). If there are negative values, the lower end is a negative power of two instead of 0.
    Outliers in at most 5% of the images are ignored if they would make the range more than eight times as large. If no
    training image has more than 8 bits, `auto` resolves to `full`.

    Args:
        setting: Value of `dataset.intensity`.
        headers: `HEADER_DTYPE` records (N,) of the training images.
    """
    if setting == "8bit":
        return _EIGHT_BITS
    deep = headers[deep_images(headers)]
    if setting != "auto":
        return setting
    if not len(deep):
        return "full"
    return _robust_range(deep["lowest"], deep["highest"])


def as_intensity(setting: IntensitySetting) -> Intensity | None:
    """Converts a setting to `Preprocessing.intensity`; `full` and an unresolved `auto` become None."""
    if setting == "8bit":
        setting = _EIGHT_BITS
    return Intensity(setting.low, setting.high) if isinstance(setting, IntensityRange) else None


def covering_range(lowest: float, highest: float) -> IntensityRange:
    """Returns the range that `auto` resolves to if the values of the training images range from `lowest` to `highest`.

    >>> covering_range(12, 4095), covering_range(-1000, 3071), covering_range(-0.003, 1.004)
    (IntensityRange(low=0.0, high=4095.0), IntensityRange(low=-1024.0, high=4095.0), IntensityRange(low=0.0, high=1.0))
    """
    high = _white(highest)
    return IntensityRange(low=_black(lowest, high), high=high)


def far_images(headers: NDArray[np.void], common: IntensityRange, factor: float) -> NDArray[np.bool_]:
    """Returns a mask (N,) of the images that would expand the range `common` by more than a factor of `factor`."""
    return _is_far_below(headers["lowest"], common, factor) | _is_far_above(headers["highest"], common, factor)


def _robust_range(lowest: NDArray[np.float64], highest: NDArray[np.float64]) -> IntensityRange:
    """Returns the range that covers the values of all images, except outliers in at most 5% of them.

    If there are fewer than 21 images, the quantile methods ensure that no values are ignored.
    """
    common = covering_range(
        float(np.quantile(lowest, _RARE, method="lower")), float(np.quantile(highest, 1 - _RARE, method="higher"))
    )
    is_below, is_above = _is_far_below(lowest, common, _FAR), _is_far_above(highest, common, _FAR)
    return covering_range(float(lowest[~is_below].min()), float(highest[~is_above].max()))


def _is_far_below(lowest: NDArray[np.float64], common: IntensityRange, factor: float) -> NDArray[np.bool_]:
    limit = factor * (1 + TOLERANCE) * (common.high - common.low)
    return np.array([common.high - _black(value, common.high) > limit for value in lowest.tolist()], np.bool_)


def _is_far_above(highest: NDArray[np.float64], common: IntensityRange, factor: float) -> NDArray[np.bool_]:
    limit = factor * (1 + TOLERANCE) * (common.high - common.low)
    return np.array([_white(value) - common.low > limit for value in highest.tolist()], np.bool_)


def _white(highest: float) -> float:
    highest /= 1 + TOLERANCE
    return 1.0 if highest <= 1 else float(2 ** max(8, math.ceil(highest).bit_length()) - 1)


def _black(lowest: float, white: float) -> float:
    return 0.0 if lowest >= -TOLERANCE * white else -float(2 ** (math.ceil(-lowest) - 1).bit_length())
