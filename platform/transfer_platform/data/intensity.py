"""Settles the range of gray values in images with more than 8 bits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from transfer_model.intensity import Intensity
from transfer_platform.data.image_stats import deep_images
from transfer_platform.recipe.schema import IntensityRange

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from transfer_platform.recipe.schema import IntensitySetting

_EIGHT_BITS = IntensityRange(low=0, high=255)


def settle(setting: IntensitySetting, headers: NDArray[np.void]) -> IntensitySetting:
    """Returns `full` or the range that a setting stands for.

    `auto` becomes the smallest range that contains all values of the training images and is 0 to 1, or 0 to 2^n - 1
    with at least 8 bits; its lower end is a negative power of two if there are negative values. If no training image
    has more than 8 bits, `auto` becomes `full`.

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
    return covering_range(float(deep["lowest"].min()), float(deep["highest"].max()))


def as_intensity(setting: IntensitySetting) -> Intensity | None:
    """Returns a setting as `Preprocessing.intensity`; `full`, and `auto` if it is not settled, become None."""
    if setting == "8bit":
        setting = _EIGHT_BITS
    return Intensity(setting.low, setting.high) if isinstance(setting, IntensityRange) else None


def covering_range(lowest: float, highest: float) -> IntensityRange:
    """Returns the range that `auto` stands for if the values of the training images are from `lowest` to `highest`.

    >>> covering_range(12, 4095), covering_range(-1000, 3071), covering_range(0, 0.5)
    (IntensityRange(low=0.0, high=4095.0), IntensityRange(low=-1024.0, high=4095.0), IntensityRange(low=0.0, high=1.0))
    """
    high = 1 if highest <= 1 else 2 ** max(8, math.ceil(highest).bit_length()) - 1
    low = 0 if lowest >= 0 else -(2 ** (math.ceil(-lowest) - 1).bit_length())
    return IntensityRange(low=float(low), high=float(high))
