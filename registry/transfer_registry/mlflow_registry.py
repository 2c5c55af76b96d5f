"""Queries against the MLflow model registry: models, versions and champion alias."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow.tracking import MlflowClient

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from mlflow.exceptions import MlflowException

ALIAS = "champion"
"""Alias of the version that is served."""
RUN_TAG = "platform.run"
"""Version tag that contains the ID of the run that created the version."""
STUDY_TAG = "platform.study"
"""Run tag that contains the name of the run's study."""
TRIAL_TAG = "platform.trial"
"""Tag that contains the number of the trial that trained a model; set on versions and logged models."""
ARTIFACT_TAG = "platform.served_form"
"""Tag that contains the SHA-256 from `packaging.artifact_digest`; set on versions and logged models."""


def is_missing(error: MlflowException) -> bool:
    """Returns True if an error means that an object does not exist; False if, for example, a server is unreachable."""
    return bool(error.error_code == "RESOURCE_DOES_NOT_EXIST")


def registered_models(client: MlflowClient) -> list[RegisteredModel]:
    """Returns all registered models."""
    page = client.search_registered_models()
    models = list(page)
    while page.token:
        page = client.search_registered_models(page_token=page.token)
        models += page
    return models


def model_versions(client: MlflowClient, model: str) -> list[ModelVersion]:
    """Returns all versions of a registered model, oldest first."""
    quote = '"' if "'" in model else "'"
    versions = client.search_model_versions(f"name = {quote}{model}{quote}")
    return sorted(versions, key=lambda version: int(version.version))


def is_registered(model: str, number: int, run_id: str) -> bool:
    """Returns True if the version exists and the given run created it; a recreated model reuses version numbers."""
    return any(
        int(version.version) == number and version.tags.get(RUN_TAG) == run_id
        for version in model_versions(MlflowClient(), model)
    )


def champion_version(model: str) -> int | None:
    """Returns the number of the champion version; None if the model or its champion alias does not exist."""
    aliases = {registered.name: registered.aliases for registered in registered_models(MlflowClient())}
    version = aliases.get(model, {}).get(ALIAS)
    return None if version is None else int(version)
