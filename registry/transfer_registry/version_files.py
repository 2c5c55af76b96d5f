"""Files of a model version: test set predictions and training image hashes.

The files are artifacts of the version's run, under `registry/<model>/v<version>/`. Nothing is stored for versions
that have no run, such as versions registered by other tools.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from mlflow.artifacts import download_artifacts

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient
    from numpy.typing import NDArray

_TRAINING_HASHES = "training_sha256.txt"


@dataclass(frozen=True)
class StoredPredictions:
    """One model's predictions for N images and C classes; images are identified by content hash.

    Attributes:
        classes: Class names (C), in column order.
        sha256: Content hashes of the images (N).
        probabilities: Class probabilities (N, C), float32.
    """

    classes: tuple[str, ...]
    sha256: tuple[str, ...]
    probabilities: NDArray[np.float32]

    def labels(self, sha256: Sequence[str]) -> tuple[str, ...] | None:
        """Returns the most probable class for each image hash, or None if any of the images has no prediction."""
        rows = {digest: row for row, digest in enumerate(self.sha256)}
        if not set(sha256) <= rows.keys():
            return None
        best = self.probabilities.argmax(axis=1)
        return tuple(self.classes[best[rows[digest]]] for digest in sha256)


def save_predictions(
    client: MlflowClient, version: ModelVersion, fingerprint: str, predictions: StoredPredictions
) -> None:
    """Stores a version's predictions on one test set in `test-<fingerprint>.npz`, replacing earlier predictions."""
    with _write_file(client, version, _predictions_name(fingerprint)) as file:
        np.savez_compressed(
            file,
            classes=np.asarray(predictions.classes),
            sha256=np.asarray(predictions.sha256),
            probabilities=predictions.probabilities.astype(np.float32),
        )


def load_predictions(client: MlflowClient, version: ModelVersion, fingerprint: str) -> StoredPredictions | None:
    """Loads a version's predictions on one test set; returns None if the file is missing or corrupt."""
    with _read_file(client, version, _predictions_name(fingerprint)) as file:
        return _read_predictions(file) if file else None


def save_training_hashes(client: MlflowClient, version: ModelVersion, sha256: Sequence[str]) -> None:
    """Stores the content hashes of a version's training and validation images, one per line."""
    with _write_file(client, version, _TRAINING_HASHES) as file:
        file.write_text("\n".join(sorted(set(sha256))), "ascii")


def load_training_hashes(client: MlflowClient, version: ModelVersion) -> frozenset[str] | None:
    """Loads the content hashes of a version's training and validation images; returns None if none are stored."""
    with _read_file(client, version, _TRAINING_HASHES) as file:
        return frozenset(file.read_text("ascii").split()) if file else None


@contextmanager
def _write_file(client: MlflowClient, version: ModelVersion, name: str) -> Iterator[Path]:
    """Yields a temporary path to write to; stores the written file with the version when the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        yield file
        if version.run_id:
            client.log_artifact(version.run_id, str(file), _artifact_folder(version))


@contextmanager
def _read_file(client: MlflowClient, version: ModelVersion, name: str) -> Iterator[Path | None]:
    """Yields a copy of a stored file, or None if the file does not exist; deletes the copy when the block ends."""
    path = f"{_artifact_folder(version)}/{name}"
    stored = client.list_artifacts(version.run_id, _artifact_folder(version)) if version.run_id else []
    if path not in {artifact.path for artifact in stored}:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(download_artifacts(artifact_uri=f"runs:/{version.run_id}/{path}", dst_path=folder))


def _read_predictions(file: Path) -> StoredPredictions | None:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return StoredPredictions(
                classes=tuple(arrays["classes"].tolist()),
                sha256=tuple(arrays["sha256"].tolist()),
                probabilities=arrays["probabilities"],
            )
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _predictions_name(fingerprint: str) -> str:
    return f"test-{fingerprint[:16]}.npz"


def _artifact_folder(version: ModelVersion) -> str:
    return f"registry/{version.name}/v{version.version}"
