"""Sizes, shapes and brightness of a data set's images, by split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def image_statistics(
    facts: NDArray[np.void], light: NDArray[np.floating], splits: Mapping[str, slice]
) -> dict[str, list[object]]:
    """A table with a row for each split and quantity: the smallest, the quartiles, the largest.

    Args:
        facts: The `data.looks.FACTS` of all images (N,).
        light: Their mean brightness (N,), 0 to 255.
        splits: Which of them each split has, at least one.
    """
    columns: dict[str, list[object]] = {
        name: []
        for name in ("split", "what", "smallest", "lower quartile", "median", "upper quartile", "largest")
    }
    for split, rows in splits.items():
        for what, values in _quantities(facts[rows], light[rows]).items():
            quartiles = np.quantile(values, (0, 0.25, 0.5, 0.75, 1))
            cells = [split, what, *(round(float(value), 2) for value in quartiles)]
            for name, cell in zip(columns, cells, strict=True):
                columns[name].append(cell)
    return columns


def format_table(facts: Mapping[str, NDArray[np.void]]) -> dict[str, list[object]]:
    """A table with a row for each format and mode: how many images of each split have it."""
    counts = {
        split: Counter(zip(rows["format"].tolist(), rows["mode"].tolist(), strict=True))
        for split, rows in facts.items()
    }
    kinds = sorted({kind for count in counts.values() for kind in count})
    return {
        "format": [kind[0].decode() for kind in kinds],
        "mode": [kind[1].decode() for kind in kinds],
        **{split: [count[kind] for kind in kinds] for split, count in counts.items()},
    }


def _quantities(rows: NDArray[np.void], light: NDArray[np.floating]) -> dict[str, NDArray[np.floating]]:
    return {
        "width, pixels": rows["width"].astype(np.float64),
        "height, pixels": rows["height"].astype(np.float64),
        "width by height": rows["width"] / rows["height"],
        "mean brightness, 0 to 255": light,
    }
