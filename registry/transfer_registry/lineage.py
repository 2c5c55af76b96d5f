"""Which images a version was taught with, kept with it: a later test set may not hold any of them.

`taught.txt` has one SHA-256 of content a line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from transfer_registry import version_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

_FILE = "taught.txt"


def save_training_hashes(client: MlflowClient, version: ModelVersion, sha256: Sequence[str]) -> None:
    """Stores the content hashes of all images that a version has learnt or chosen from."""
    with version_files.write_file(client, version, _FILE) as file:
        file.write_text("\n".join(sorted(set(sha256))), "ascii")


def load_training_hashes(client: MlflowClient, version: ModelVersion) -> frozenset[str] | None:
    """The hashes that were kept for a version; None where there are none."""
    with version_files.read_file(client, version, _FILE) as file:
        return frozenset(file.read_text("ascii").split()) if file else None
