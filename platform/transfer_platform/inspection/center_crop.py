"""Computes the share of image pixels outside the center crop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def share_left_out(headers: NDArray[np.void], crop: float) -> NDArray[np.float64]:
    """Returns shares (N,) from 0 to 1: for each image, the share of its pixels that lie outside its center crop.

    Args:
        headers: `HEADER_DTYPE` records (N,).
        crop: Side of the center crop as a fraction of the shorter side of the image, as in `Preprocessing.crop`.
    """
    shorter, longer = np.minimum(headers["width"], headers["height"]), np.maximum(headers["width"], headers["height"])
    return np.asarray(1 - crop**2 * (shorter / longer))


def total_left_out(headers: NDArray[np.void], crop: float) -> float:
    """Returns the share of the pixels of all images that is outside the center crops, or 0 if there are no images."""
    pixels = headers["width"].astype(np.float64) * headers["height"]
    return float((share_left_out(headers, crop) * pixels).sum() / max(pixels.sum(), 1))
