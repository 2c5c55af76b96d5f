"""A model's predictions for labeled images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transfer_model.intensity import Intensity
from transfer_platform.evaluation.metrics import scores

MAX_PROBABILITY_COLUMNS = 100
"""Maximum number of classes for which a table has probability columns; with more, it would be too large to display."""


@dataclass(frozen=True)
class Predictions:
    """Probabilities (N, C) and labels (N,) of N images; columns and label indices follow the order of `classes`.

    `intensity` is the range of gray values that figures use to show images with more than 8 bits.
    """

    classes: tuple[str, ...]
    paths: Sequence[Path]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    intensity: Intensity | None = None

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Index of the most probable class for each image."""
        predicted: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return predicted

    def scores(self, prefix: str) -> dict[str, float]:
        """Returns all scalar metrics, named `PREFIX/NAME`."""
        return {f"{prefix}/{name}": value for name, value in scores(self.labels, self.probabilities).items()}

    def mistakes(self) -> list[int]:
        """Returns the indices of misclassified images, sorted by ascending probability of the true class."""
        wrong = self.predicted != self.labels
        return [int(index) for index in np.argsort(self._assigned(), kind="stable") if wrong[index]]

    def table(self) -> dict[str, list[object]]:
        """Returns the columns `file`, `label`, `predicted`, `probability` (of `predicted`) and `label probability`.

        If there are at most `MAX_PROBABILITY_COLUMNS` classes, there is also one probability column per class.
        """
        listed = self.classes if len(self.classes) <= MAX_PROBABILITY_COLUMNS else ()
        return {
            "file": [path.name for path in self.paths],
            "label": [self.classes[index] for index in self.labels],
            "predicted": [self.classes[index] for index in self.predicted],
            "probability": self.probabilities.max(axis=1).tolist(),
            "label probability": self._assigned().tolist(),
            **{f"probability of {name}": self.probabilities[:, index].tolist() for index, name in enumerate(listed)},
        }

    def _assigned(self) -> NDArray[np.float32]:
        """Returns the probability (N,) of each image's label."""
        return self.probabilities[np.arange(len(self.labels)), self.labels]
