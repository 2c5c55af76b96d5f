"""Files that are kept with a version: `registry/<model>/v<version>/` among the artifacts of its run.

A version without a run, one from elsewhere, has no such place: nothing is kept, and nothing is found.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.artifacts import download_artifacts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient


@contextmanager
def write_file(client: MlflowClient, version: ModelVersion, name: str) -> Iterator[Path]:
    """A path to write to; at the end of the `with` block the file is kept, in place of one of that name."""
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / name
        yield file
        if version.run_id:
            client.log_artifact(version.run_id, str(file), _folder(version))


@contextmanager
def read_file(client: MlflowClient, version: ModelVersion, name: str) -> Iterator[Path | None]:
    """The file that was kept under a name, until the `with` block ends; None where there is none."""
    path = f"{_folder(version)}/{name}"
    if not version.run_id or path not in {
        artifact.path for artifact in client.list_artifacts(version.run_id, _folder(version))
    }:
        yield None
        return
    with tempfile.TemporaryDirectory() as temporary:
        uri = f"runs:/{version.run_id}/{path}"
        yield Path(download_artifacts(artifact_uri=uri, dst_path=temporary))


def _folder(version: ModelVersion) -> str:
    return f"registry/{version.name}/v{version.version}"
