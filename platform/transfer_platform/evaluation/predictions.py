"""Predictions of a model for labelled images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transfer_platform.evaluation.metrics import scores


@dataclass(frozen=True)
class Predictions:
    """Class probabilities of N labelled images.

    Attributes:
        classes: Class names, in the order of the columns of `probabilities`.
        paths: Files of the images.
        labels: Class indices (N,).
        probabilities: (N, C), each row summing to 1.
    """

    classes: tuple[str, ...]
    paths: Sequence[Path]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Index of the most probable class of each image (N,)."""
        predicted: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return predicted

    def scores(self, prefix: str) -> dict[str, float]:
        """Returns all scalar metrics, named `PREFIX/NAME`."""
        return {f"{prefix}/{name}": value for name, value in scores(self.labels, self.probabilities).items()}

    def mistakes(self) -> list[int]:
        """Returns the indices of misclassified images, lowest probability of the true class first."""
        assigned = self.probabilities[np.arange(len(self.labels)), self.labels]
        order = np.argsort(assigned, kind="stable")
        return [int(index) for index in order if self.predicted[index] != self.labels[index]]

    def table(self) -> dict[str, list[object]]:
        """Returns columns `file`, `label`, `predicted`, `probability`, and one per class."""
        return {
            "file": [path.name for path in self.paths],
            "label": [self.classes[index] for index in self.labels],
            "predicted": [self.classes[index] for index in self.predicted],
            "probability": self.probabilities.max(axis=1).tolist(),
            **{
                f"probability of {name}": self.probabilities[:, index].tolist()
                for index, name in enumerate(self.classes)
            },
        }
