"""What sketches of pictures tell: how bright and how varied each is, and its coarse form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from transfer_platform.data.looks import LUMA, SKETCH

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FREQUENCIES = 8
_ROWS = 4096


@dataclass(frozen=True)
class Sketches:
    """Of N pictures.

    Attributes:
        light: Mean brightness (N,), 0 to 255.
        spread: Largest distance of two pixels in one colour (N,), 0 to 255.
        forms: The lowest frequencies but the mean of a cosine transform, as unit vectors (N, 63).
        deviation: Standard deviation of the brightness in those frequencies (N,), 0 to 255.
    """

    light: NDArray[np.floating]
    spread: NDArray[np.uint8]
    forms: NDArray[np.float32]
    deviation: NDArray[np.float32]


def study(looks: NDArray[np.void]) -> Sketches:
    """Studies the sketches of `data.looks.LOOK`s (N,)."""
    basis = _basis()
    parts = [_block(looks["sketch"][start : start + _ROWS], basis) for start in range(0, len(looks), _ROWS)]
    waves = np.concatenate([np.empty((0, _FREQUENCIES**2), np.float32), *(part[0] for part in parts)])
    spread = np.concatenate([np.empty(0, np.uint8), *(part[1] for part in parts)])
    length = np.maximum(np.linalg.norm(waves[:, 1:], axis=1), np.float32(1e-6))
    return Sketches(
        light=waves[:, 0] / np.float32(SKETCH),
        spread=spread,
        forms=waves[:, 1:] / length[:, None],
        deviation=length / np.float32(SKETCH),
    )


def _block(
    sketches: NDArray[np.uint8], basis: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Frequencies (B, 64) and spread (B,) of sketches (B, 16, 16, 3)."""
    colours = np.ascontiguousarray(sketches.reshape(len(sketches), -1, 3).transpose(0, 2, 1))
    spread = (colours.max(axis=2) - colours.min(axis=2)).max(axis=1)
    return colours.reshape(len(colours), -1).astype(np.float32) @ basis, spread


def _basis() -> NDArray[np.float32]:
    """Colours of a sketch -> luma -> its 8 x 8 lowest frequencies, orthonormal: (768, 64)."""
    waves = np.cos(np.pi * np.outer(2 * np.arange(SKETCH) + 1, np.arange(_FREQUENCIES)) / (2 * SKETCH))
    waves *= np.sqrt(np.where(np.arange(_FREQUENCIES) == 0, 1, 2) / SKETCH)
    both = np.einsum("yu,xv,c->cyxuv", waves, waves, np.array(LUMA))
    basis: NDArray[np.float32] = both.reshape(3 * SKETCH**2, _FREQUENCIES**2).astype(np.float32)
    return basis
