"""Per-split tables of image sizes, aspect ratios, brightness and formats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GRAYSCALE_MODES = ("1", "L", "I", "F")
"""Pillow's grayscale modes, without suffixes such as `A` (alpha) and `;16` (bits)."""

_QUANTILES = {"smallest": 0, "lower quartile": 0.25, "median": 0.5, "upper quartile": 0.75, "largest": 1}


def image_statistics(
    headers: NDArray[np.void], brightness: NDArray[np.floating], splits: Mapping[str, slice]
) -> dict[str, list[object]]:
    """Returns a table of quartiles with one row per split and quantity (such as width). Splits must not be empty.

    `headers` are `HEADER_DTYPE` records (N,); `brightness` (N,) ranges from 0 to 255.
    """
    columns: dict[str, list[object]] = {name: [] for name in ("split", "quantity", *_QUANTILES)}
    for split, rows in splits.items():
        for quantity, values in _quantities(headers[rows], brightness[rows]).items():
            quantiles = np.quantile(values, list(_QUANTILES.values()))
            row = [split, quantity, *(round(float(value), 2) for value in quantiles)]
            for column, cell in zip(columns.values(), row, strict=True):
                column.append(cell)
    return columns


def format_table(headers: Mapping[str, NDArray[np.void]]) -> dict[str, list[object]]:
    """Returns a table of image counts, with a row for each format and mode and a column for each split."""
    counts = {
        split: Counter(zip(rows["format"].tolist(), rows["mode"].tolist(), strict=True))
        for split, rows in headers.items()
    }
    pairs = sorted({pair for count in counts.values() for pair in count})
    return {
        "format": [name.decode() for name, _ in pairs],
        "mode": [mode.decode() for _, mode in pairs],
        **{split: [count[pair] for pair in pairs] for split, count in counts.items()},
    }


def grayscale_count(formats: Mapping[str, list[object]]) -> int:
    """Returns the number of grayscale images in a table created by `format_table`."""
    rows = zip(*formats.values(), strict=True)
    return sum(sum(counts) for _, mode, *counts in rows if _is_grayscale(str(mode)))


def _is_grayscale(mode: str) -> bool:
    return mode.partition(";")[0].rstrip("Aa") in _GRAYSCALE_MODES


def _quantities(headers: NDArray[np.void], brightness: NDArray[np.floating]) -> dict[str, NDArray[np.floating]]:
    return {
        "width, pixels": headers["width"].astype(np.float64),
        "height, pixels": headers["height"].astype(np.float64),
        "width / height": headers["width"] / headers["height"],
        "mean brightness, 0 to 255": brightness,
    }
