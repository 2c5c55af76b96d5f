"""Conversion of grayscale images with more than 8 bits to 8 bits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

FULL_SCALE = 65535.0
"""Gray value that becomes white in integer images if no `Intensity` is set."""

_FLOAT_SCALES = (1.0, 255.0, FULL_SCALE)
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Intensity:
    """Range of gray values in images with more than 8 bits; it is mapped to the range from 0 to 255.

    Attributes:
        low: Largest value that becomes black (0).
        high: Smallest value that becomes white (255).

    Raises:
        ModelError: `low` is not below `high`, or one of them is not finite.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise ModelError(f"intensity.low must be below intensity.high, but they are {self.low} and {self.high}")


def describe(intensity: Intensity | None) -> str:
    """Returns a sentence about the conversion of images with more than 8 bits, for model cards and exports."""
    if intensity:
        return (
            f"In grayscale images with more than 8 bits, the values from {intensity.low:.10g} (black) to "
            f"{intensity.high:.10g} (white) are scaled to 0-255; values outside this range are clipped."
        )
    return (
        "In grayscale images with more than 8 bits, the values from 0 (black) to 65535 (white) are scaled to 0-255; in "
        "floating-point images, white is the smallest of 1, 255 and 65535 that no pixel exceeds."
    )


def is_deep(mode: str) -> bool:
    """Returns whether a Pillow mode is for grayscale images with more than 8 bits."""
    return mode in ("I", "F") or mode.startswith("I;16")


def value_range(image: Image.Image) -> tuple[float, float]:
    """Returns the smallest and the largest finite value of a loaded grayscale image, or zeros if no value is finite."""
    values = np.asarray(image).reshape(-1)
    finite = [chunk[np.isfinite(chunk)] for chunk in (values[part] for part in _chunks(values))]
    finite = [chunk for chunk in finite if len(chunk)]
    if not finite:
        return 0.0, 0.0
    return float(min(chunk.min() for chunk in finite)), float(max(chunk.max() for chunk in finite))


def scale_to_8_bits(image: Image.Image, intensity: Intensity | None = None) -> Image.Image:
    """Scales a loaded image with more than 8 bits to mode `L`; transparent pixels become white, NaN becomes black.

    Without `intensity`, 0 is black. White is 65,535 in integer images. In floating-point images, white is the smallest
    of 1, 255 and 65,535 that no pixel exceeds. If an image's brightest value exceeds 65,535, that value is white.
    """
    values = np.asarray(image).reshape(-1)
    low, high = (intensity.low, intensity.high) if intensity else (0.0, full_scale(image.mode, value_range(image)[1]))
    gray = np.empty(len(values), np.uint8)
    for part in _chunks(values):
        gray[part] = np.rint(np.clip((_finite(values[part], low) - low) / (high - low), 0, 1) * 255)
    if "transparency" in image.info:
        gray[values == image.info["transparency"]] = 255
    return Image.fromarray(gray.reshape(image.height, image.width))


def full_scale(mode: str, brightest: float) -> float:
    """Returns the gray value that becomes white by default; `brightest` is the largest finite value in the image."""
    scales = _FLOAT_SCALES if mode == "F" else (FULL_SCALE,)
    return next((scale for scale in scales if brightest <= scale), brightest)


def _chunks(values: NDArray[np.number]) -> list[slice]:
    """Returns slices for processing an image in chunks, because a float64 copy of the whole image would be large."""
    return [slice(start, start + _CHUNK) for start in range(0, len(values), _CHUNK)]


def _finite(values: NDArray[np.number], low: float) -> NDArray[np.float64]:
    return np.nan_to_num(values.astype(np.float64), nan=low, posinf=low, neginf=low)
