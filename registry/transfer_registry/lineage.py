"""Which images a version was taught with, kept in its MLflow run: a later test set may not hold any of them.

They are `registry/<model>/v<version>/taught.txt` among the run's artifacts, one SHA-256 of content a line.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.artifacts import download_artifacts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

_FILE = "taught.txt"


def keep(client: MlflowClient, version: ModelVersion, sha256: Sequence[str]) -> None:
    """Stores the content hashes of all images that a version has learnt or chosen from.

    Does nothing for a version without a run: there is nowhere to keep them.
    """
    if version.run_id:
        client.log_text(version.run_id, "\n".join(sorted(set(sha256))), f"{_folder(version)}/{_FILE}")


def recall(client: MlflowClient, version: ModelVersion) -> frozenset[str] | None:
    """The hashes that were kept for a version; None where there are none."""
    folder = _folder(version)
    path = f"{folder}/{_FILE}"
    if not version.run_id or path not in {
        each.path for each in client.list_artifacts(version.run_id, folder)
    }:
        return None
    with tempfile.TemporaryDirectory() as temporary:
        uri = f"runs:/{version.run_id}/{path}"
        file = Path(download_artifacts(artifact_uri=uri, dst_path=temporary))
        return frozenset(file.read_text("utf-8").split())


def _folder(version: ModelVersion) -> str:
    return f"registry/{version.name}/v{version.version}"
