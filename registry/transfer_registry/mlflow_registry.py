"""What MLflow's registry holds: models, their versions, and where the alias points. Knows no ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow.tracking import MlflowClient

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

ALIAS = "champion"
"""The registry alias of the version that is served."""
RUN_TAG = "platform.run"
"""Tag of a version: the run that made it."""
TRIAL_TAG = "platform.trial"
"""Tag of a version and of a logged model: the number of the trial that it comes from."""
ARTIFACT_TAG = "platform.served_form"
"""Tag of both: SHA-256 of what is served, see `packaging.form_digest`."""


def registered_models(client: MlflowClient) -> list[RegisteredModel]:
    """Every registered model; MLflow's own search stops after a page."""
    found: list[RegisteredModel] = []
    token = None
    while True:
        page = client.search_registered_models(page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def model_versions(client: MlflowClient, model: str) -> list[ModelVersion]:
    """Every version of a registered model, the oldest first."""
    quote = '"' if "'" in model else "'"
    found = client.search_model_versions(f"name = {quote}{model}{quote}")
    return sorted(found, key=lambda version: int(version.version))


def is_registered(model: str, version: int, run_id: str) -> bool:
    """Whether a version is still the one that a run made; models may be deleted, and numbers given again."""
    found = model_versions(MlflowClient(), model)
    return any(int(each.version) == version and each.tags.get(RUN_TAG) == run_id for each in found)


def champion_version(model: str) -> int | None:
    """The version that the alias points at just now; None without an alias or a model."""
    found = [each for each in registered_models(MlflowClient()) if each.name == model]
    version = found[0].aliases.get(ALIAS) if found else None
    return None if version is None else int(version)
