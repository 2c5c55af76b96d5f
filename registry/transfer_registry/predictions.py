"""A version's probabilities on a test set, kept in its MLflow run so that later candidates can be compared.

They are `registry/<model>/v<version>/test-<fingerprint>.npz` among the run's artifacts: plain arrays, no
pickle. Images are known by the SHA-256 of their content, so neither order nor file names matter.
"""

from __future__ import annotations

import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from mlflow.artifacts import download_artifacts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Predictions:
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


def keep(client: MlflowClient, version: ModelVersion, fingerprint: str, predictions: Predictions) -> None:
    """Stores predictions with a version, in place of what was kept for the same test set.

    Does nothing for a version without a run: there is nowhere to keep them.
    """
    if not version.run_id:
        return
    folder, name = _place(version, fingerprint)
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / name
        np.savez_compressed(
            file,
            classes=np.asarray(predictions.classes),
            sha256=np.asarray(predictions.sha256),
            probabilities=predictions.probabilities.astype(np.float32),
        )
        client.log_artifact(version.run_id, str(file), folder)


def recall(client: MlflowClient, version: ModelVersion, fingerprint: str) -> Predictions | None:
    """The predictions that were kept for a version on one test set.

    Returns:
        None where there are none, or where the process that stored them was killed while it wrote.
    """
    if not version.run_id:
        return None
    folder, name = _place(version, fingerprint)
    path = f"{folder}/{name}"
    if path not in {artifact.path for artifact in client.list_artifacts(version.run_id, folder)}:
        return None
    with tempfile.TemporaryDirectory() as temporary:
        uri = f"runs:/{version.run_id}/{path}"
        return _read(Path(download_artifacts(artifact_uri=uri, dst_path=temporary)))


def _read(file: Path) -> Predictions | None:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return Predictions(
                classes=tuple(arrays["classes"].tolist()),
                sha256=tuple(arrays["sha256"].tolist()),
                probabilities=arrays["probabilities"],
            )
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _place(version: ModelVersion, fingerprint: str) -> tuple[str, str]:
    return f"registry/{version.name}/v{version.version}", f"test-{fingerprint[:16]}.npz"
