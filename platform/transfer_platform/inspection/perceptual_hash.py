"""Perceptual hashes, brightness and contrast of thumbnails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from transfer_platform.data.image_stats import LUMA, THUMBNAIL_SIDE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from transfer_model.intensity import Intensity
    from transfer_platform.data.image_stats import ImageStats

_FREQUENCIES = 8
_BLOCK = 1024


@dataclass(frozen=True)
class PerceptualHashes:
    """Perceptual hashes of N images.

    Attributes:
        brightness: Mean brightness (N,), 0 to 255.
        mean_color: Mean red, green and blue (N, 3), 0 to 255.
        contrast: Largest difference between two pixel values in the same channel (N,), 0 to 255.
        hashes: Unit vectors (N, 63) of the lowest-frequency coefficients of a cosine transform, without the mean.
        deviation: Standard deviation of brightness (N,), 0 to 255, computed from the hash frequencies only.
        thumbnails: Function that maps image indices (P,) to RGB thumbnails (P, 16, 16, 3).
    """

    brightness: NDArray[np.float32]
    mean_color: NDArray[np.float32]
    contrast: NDArray[np.uint8]
    hashes: NDArray[np.float32]
    deviation: NDArray[np.float32]
    thumbnails: Callable[[NDArray[np.int64]], NDArray[np.uint8]]


def compute_hashes(stats: ImageStats, rows: NDArray[np.int64], intensity: Intensity | None = None) -> PerceptualHashes:
    """Computes the hashes of N images from the thumbnails in the rows `rows` (N,) of `stats`.

    In images with more than 8 bits, the range of gray values `intensity` is scaled to 8 bits.
    """
    basis, count = _cosine_basis(), len(rows)
    brightness, deviation = np.empty(count, np.float32), np.empty(count, np.float32)
    mean_color, hashes = (np.empty((count, width), np.float32) for width in (3, _FREQUENCIES**2 - 1))
    contrast = np.empty(count, np.uint8)
    for start in range(0, count, _BLOCK):
        block = slice(start, start + _BLOCK)
        frequencies, mean_color[block], contrast[block] = _transform(stats.thumbnails(rows[block], intensity), basis)
        norm = np.maximum(np.linalg.norm(frequencies[:, 1:], axis=1), np.float32(1e-6))
        brightness[block] = frequencies[:, 0] / np.float32(THUMBNAIL_SIDE)
        hashes[block] = frequencies[:, 1:] / norm[:, None]
        deviation[block] = norm / np.float32(THUMBNAIL_SIDE)
    return PerceptualHashes(
        brightness, mean_color, contrast, hashes, deviation, lambda indices: stats.thumbnails(rows[indices], intensity)
    )


def _transform(
    thumbnails: NDArray[np.uint8], basis: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]:
    """Returns frequencies (B, 64), mean colors (B, 3) and contrast (B,) of thumbnails (B, 16, 16, 3)."""
    channels = np.ascontiguousarray(thumbnails.reshape(len(thumbnails), -1, 3).transpose(0, 2, 1))
    contrast = (channels.max(axis=2) - channels.min(axis=2)).max(axis=1)
    values = channels.astype(np.float32)
    return values.reshape(len(values), -1) @ basis, values.mean(axis=2), contrast


def _cosine_basis() -> NDArray[np.float32]:
    """Returns a matrix (768, 64) that maps RGB thumbnails to the lowest 8 x 8 luma frequencies."""
    waves = np.cos(np.pi * np.outer(2 * np.arange(THUMBNAIL_SIDE) + 1, np.arange(_FREQUENCIES)) / (2 * THUMBNAIL_SIDE))
    waves *= np.sqrt(np.where(np.arange(_FREQUENCIES) == 0, 1, 2) / THUMBNAIL_SIDE)
    products = np.einsum("yu,xv,c->cyxuv", waves, waves, np.array(LUMA))
    return np.asarray(products.reshape(3 * THUMBNAIL_SIDE**2, _FREQUENCIES**2), np.float32)
