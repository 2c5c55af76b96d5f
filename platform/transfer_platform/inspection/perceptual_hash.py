"""What sketches of images tell: how bright and how varied each is, and its coarse form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from transfer_platform.data.image_stats import LUMA, THUMBNAIL_SIDE

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from transfer_platform.data.image_stats import ImageStats

_FREQUENCIES = 8
_ROWS = 1024


@dataclass(frozen=True)
class PerceptualHashes:
    """Of N images.

    Attributes:
        light: Mean brightness (N,), 0 to 255.
        colour: Mean red, green and blue (N, 3), 0 to 255.
        spread: Largest distance of two pixels in one colour (N,), 0 to 255.
        forms: The lowest frequencies but the mean of a cosine transform, as unit vectors (N, 63).
        deviation: Standard deviation of the brightness in those frequencies (N,), 0 to 255.
        pixels: Gives the sketches of some of them, by their places (P,), as RGB (P, 16, 16, 3).
    """

    brightness: NDArray[np.float32]
    mean_color: NDArray[np.float32]
    contrast: NDArray[np.uint8]
    hashes: NDArray[np.float32]
    deviation: NDArray[np.float32]
    thumbnails: Callable[[NDArray[np.int64]], NDArray[np.uint8]]


def compute_hashes(looks: ImageStats, rows: NDArray[np.int64]) -> PerceptualHashes:
    """Studies the sketches of some rows (N,) of looks, a block at a time."""
    basis, count = _basis(), len(rows)
    light, deviation = np.empty(count, np.float32), np.empty(count, np.float32)
    colour, forms = (np.empty((count, width), np.float32) for width in (3, _FREQUENCIES**2 - 1))
    spread = np.empty(count, np.uint8)
    for start in range(0, count, _ROWS):
        block = slice(start, start + _ROWS)
        waves, colour[block], spread[block] = _block(looks.thumbnails(rows[block]), basis)
        length = np.maximum(np.linalg.norm(waves[:, 1:], axis=1), np.float32(1e-6))
        light[block] = waves[:, 0] / np.float32(THUMBNAIL_SIDE)
        forms[block] = waves[:, 1:] / length[:, None]
        deviation[block] = length / np.float32(THUMBNAIL_SIDE)
    return PerceptualHashes(
        light, colour, spread, forms, deviation, lambda places: looks.thumbnails(rows[places])
    )


def _block(
    sketches: NDArray[np.uint8], basis: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]:
    """Frequencies (B, 64), mean colours (B, 3) and spread (B,) of sketches (B, 16, 16, 3)."""
    colours = np.ascontiguousarray(sketches.reshape(len(sketches), -1, 3).transpose(0, 2, 1))
    spread = (colours.max(axis=2) - colours.min(axis=2)).max(axis=1)
    values = colours.astype(np.float32)
    return values.reshape(len(values), -1) @ basis, values.mean(axis=2), spread


def _basis() -> NDArray[np.float32]:
    """Colours of a sketch -> luma -> its 8 x 8 lowest frequencies, orthonormal: (768, 64)."""
    waves = np.cos(
        np.pi * np.outer(2 * np.arange(THUMBNAIL_SIDE) + 1, np.arange(_FREQUENCIES)) / (2 * THUMBNAIL_SIDE)
    )
    waves *= np.sqrt(np.where(np.arange(_FREQUENCIES) == 0, 1, 2) / THUMBNAIL_SIDE)
    both = np.einsum("yu,xv,c->cyxuv", waves, waves, np.array(LUMA))
    basis: NDArray[np.float32] = both.reshape(3 * THUMBNAIL_SIDE**2, _FREQUENCIES**2).astype(np.float32)
    return basis
