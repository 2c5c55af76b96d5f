"""A version's probabilities on a test set, kept with it so that later candidates can be compared.

`test-<fingerprint>.npz` has plain arrays, no pickle. Images are known by the SHA-256 of their content, so
neither order nor file names matter.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from transfer_registry import version_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient
    from numpy.typing import NDArray


@dataclass(frozen=True)
class StoredPredictions:
    """What one model answers on a set of images.

    Attributes:
        classes: The names of the columns (C).
        sha256: The content hash of each image (N).
        probabilities: (N, C), float32.
    """

    classes: tuple[str, ...]
    sha256: tuple[str, ...]
    probabilities: NDArray[np.float32]

    def labels(self, sha256: Sequence[str]) -> tuple[str, ...] | None:
        """The most probable class of each of these images, by name; None where one of them is not here."""
        row = {content: index for index, content in enumerate(self.sha256)}
        if not set(sha256) <= row.keys():
            return None
        best = self.probabilities.argmax(axis=1)
        return tuple(self.classes[best[row[content]]] for content in sha256)


def save_predictions(
    client: MlflowClient, version: ModelVersion, fingerprint: str, predictions: StoredPredictions
) -> None:
    """Stores predictions with a version, in place of what was kept for the same test set."""
    with version_files.write_file(client, version, _name(fingerprint)) as file:
        np.savez_compressed(
            file,
            classes=np.asarray(predictions.classes),
            sha256=np.asarray(predictions.sha256),
            probabilities=predictions.probabilities.astype(np.float32),
        )


def load_predictions(
    client: MlflowClient, version: ModelVersion, fingerprint: str
) -> StoredPredictions | None:
    """The predictions that were kept for a version on one test set.

    Returns:
        None where there are none, or where the process that stored them was killed while it wrote.
    """
    with version_files.read_file(client, version, _name(fingerprint)) as file:
        return _read(file) if file else None


def _read(file: Path) -> StoredPredictions | None:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return StoredPredictions(
                classes=tuple(arrays["classes"].tolist()),
                sha256=tuple(arrays["sha256"].tolist()),
                probabilities=arrays["probabilities"],
            )
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _name(fingerprint: str) -> str:
    return f"test-{fingerprint[:16]}.npz"
