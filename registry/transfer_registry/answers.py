"""What a model answers about some images, whoever asked it and how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ServedOutput:
    """Of N images.

    Attributes:
        probabilities: (N, C), float32.
        novelty: How unlike the training images each is (N,), 0 to 2; NaN from a model that cannot tell.
        unknown: Whether that is above the threshold (N); None from such a model.
    """

    probabilities: NDArray[np.float32]
    ood_scores: NDArray[np.float32]
    unknown: tuple[bool | None, ...]


def parse_predictions(predictions: Iterable[Mapping[str, Any]], classes: Sequence[str]) -> ServedOutput:
    """Reads what the pyfunc returns, asked for all classes.

    Args:
        predictions: One per image, with `top`, and `novelty` and `unknown` where the model tells them.
        classes: The order of the columns (C).
    """
    rows = list(predictions)
    tops = ({guess["label"]: guess["probability"] for guess in row["top"]} for row in rows)
    probabilities = np.array([[top[name] for name in classes] for top in tops], dtype=np.float32)
    return ServedOutput(
        probabilities.reshape(len(rows), len(classes)),
        np.array([row.get("ood_score", np.nan) for row in rows], dtype=np.float32),
        tuple(row.get("unknown") for row in rows),
    )
