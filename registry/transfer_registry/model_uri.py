"""Converts model references entered by users to MLflow URIs.

ants-bees                    models:/ants-bees@champion
ants-bees/3                  models:/ants-bees/3
ants-bees@previous           models:/ants-bees@previous
models:/... runs:/... s3://  unchanged
path/to/a/model              its absolute path, if the folder contains an MLmodel file
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from transfer_registry import mlflow_server
from transfer_registry.errors import RegistryError
from transfer_registry.mlflow_registry import ALIAS, RUN_TAG, is_missing, model_versions, registered_models

if TYPE_CHECKING:
    from mlflow.entities.model_registry import RegisteredModel

_RUN_ID = re.compile(r"[0-9a-f]{32}")
_SCHEME = re.compile(r"[a-z][a-z0-9+-]*:/")
_REGISTERED = re.compile(r"(?:models:/)?(?P<name>[^/@:]+)(?:/(?P<version>\d+)|@(?P<alias>[^/@]+))?")


def model_uri(model: str) -> str:
    """Resolves a model reference.

    Returns:
        A URI or path for `mlflow.pyfunc.load_model`. Aliases are not resolved to version numbers.

    Raises:
        RegistryError: The folder, registered model, version or alias does not exist, or the folder's path contains
            a sequence that MLflow would decode, such as `%20`.
    """
    if Path(model, "MLmodel").is_file():
        return _local_model(Path(model).absolute())
    match = _match_registered(model)
    if match is None:
        if model.startswith(("runs:/", "models:/")):
            mlflow_server.require_registry()
        if _SCHEME.match(model):
            return model
        raise RegistryError(
            f"{model} is not a model: expected NAME, NAME/VERSION, NAME@ALIAS, an MLflow URI, "
            "or a folder with an MLmodel file"
        )
    return _resolve(match)[0]


def parse_version(model: str) -> tuple[str, int]:
    """Returns the registered model name and version number for NAME/VERSION, NAME@ALIAS or NAME.

    Raises:
        RegistryError: The model, version or alias does not exist, or `model` does not refer to a registered version.
    """
    match = _match_registered(model)
    if match is None:
        raise RegistryError(f"{model} is not a registered version: expected NAME/VERSION, NAME@ALIAS or NAME")
    return _resolve(match)[1:]


def run_id_of(reference: str) -> str:
    """Returns a run ID unchanged; for a registered version, returns the ID of the run that created it.

    Raises:
        RegistryError: The reference is invalid (see `parse_version`), or no run is recorded for the version.
    """
    if _RUN_ID.fullmatch(reference):
        return reference
    try:
        model, number = parse_version(reference)
    except RegistryError as error:
        raise RegistryError(f"{reference!r} is not a run ID (32 hexadecimal digits), and {error}") from error
    version = MlflowClient().get_model_version(model, str(number))
    run_id = version.tags.get(RUN_TAG) or version.run_id
    if not run_id:
        raise RegistryError(f"no run is recorded for {model}/{number}; use a run ID instead")
    return str(run_id)


def _local_model(folder: Path) -> str:
    if encoded := mlflow_server.encoded_character(folder):
        raise RegistryError(
            f"MLflow cannot load a model from {folder}, because it decodes {encoded} in the path; rename the folder"
        )
    return str(folder)


def _match_registered(model: str) -> re.Match[str] | None:
    """Parses a reference to a registered model; returns None for any other reference, such as `models:/m-...`."""
    return None if model.startswith("models:/m-") else _REGISTERED.fullmatch(model)


def _registered_model(name: str) -> RegisteredModel:
    mlflow_server.require_registry()
    client = MlflowClient()
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if not is_missing(error):
            raise RegistryError(f"cannot get the model {name!r} from the registry: {error}") from error
        names = ", ".join(sorted(model.name for model in registered_models(client))) or "none"
        raise RegistryError(f"no model {name!r} is registered; registered models: {names}") from error


def _resolve(match: re.Match[str]) -> tuple[str, str, int]:
    """Returns the URI, registered model name and version number for a parsed reference."""
    registered = _registered_model(match["name"])
    if version := match["version"]:
        numbers = [int(each.version) for each in model_versions(MlflowClient(), registered.name)]
        if int(version) not in numbers:
            available = ", ".join(map(str, numbers)) or "none"
            raise RegistryError(f"{registered.name} has no version {version}; available versions: {available}")
        return f"models:/{registered.name}/{version}", registered.name, int(version)
    alias = match["alias"] or ALIAS
    if alias not in registered.aliases:
        available = ", ".join(sorted(registered.aliases)) or "none"
        raise RegistryError(
            f"{registered.name} has no alias {alias!r}; available aliases: {available}. "
            f"To select a version by number, write {registered.name}/1"
        )
    return f"models:/{registered.name}@{alias}", registered.name, int(registered.aliases[alias])
