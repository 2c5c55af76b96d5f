"""What a user may call a model, and the URI that MLflow knows it by.

ants-bees                    models:/ants-bees@champion
ants-bees/3                  models:/ants-bees/3
ants-bees@previous           models:/ants-bees@previous
models:/... runs:/... s3://  as it is
path/to/a/model              as it is, a folder with an MLmodel file
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

from transfer_registry import mlflow_server
from transfer_registry.errors import RegistryError
from transfer_registry.mlflow_registry import ALIAS, RUN_TAG, model_versions, registered_models

if TYPE_CHECKING:
    from mlflow.entities.model_registry import RegisteredModel

_RUN = re.compile(r"[0-9a-f]{32}")
_SCHEME = re.compile(r"[a-z][a-z0-9+-]*:/")
_REGISTERED = re.compile(r"(?:models:/)?(?P<name>[^/@:]+)(?:/(?P<version>\d+)|@(?P<alias>[^/@]+))?")


def model_uri(model: str) -> str:
    """Finds the model that a user names.

    Returns:
        A URI or path for `mlflow.pyfunc.load_model`; an alias stays an alias.

    Raises:
        RegistryError: There is no such folder, registered model, version or alias; the message lists those
            that are there.
    """
    if Path(model, "MLmodel").is_file():
        return str(Path(model).absolute())
    named = _REGISTERED.fullmatch(model)
    if named is None or _is_logged_model(model):
        if model.startswith(("runs:/", "models:/")):
            mlflow_server.require_registry()
        if _SCHEME.match(model):
            return model
        raise RegistryError(
            f"{model} is no model: expected NAME, NAME/VERSION, NAME@ALIAS, an MLflow URI, "
            "or a folder that holds an MLmodel file"
        )
    name, version = named["name"], named["version"]
    registered = _registered_model(name)
    if version:
        return _version(registered, version)
    return _alias(registered, named["alias"] or ALIAS)


def parse_version(model: str) -> tuple[str, int]:
    """The registered model and the version that a user names: NAME/VERSION, NAME@ALIAS, or NAME.

    Raises:
        RegistryError: As `model_uri`, and for anything that is not registered under a name.
    """
    named = _REGISTERED.fullmatch(model)
    if named is None or _is_logged_model(model):
        raise RegistryError(f"{model} names no version: expected NAME/VERSION, NAME@ALIAS or NAME")
    registered, version = _registered_model(named["name"]), named["version"]
    if version:
        _version(registered, version)
        return registered.name, int(version)
    alias = named["alias"] or ALIAS
    _alias(registered, alias)
    return registered.name, int(registered.aliases[alias])


def run_id_of(name: str) -> str:
    """The id of the run that a user names: itself, or that of a registered version.

    Raises:
        RegistryError: As `parse_version`, or the version does not say which run it is from.
    """
    if _RUN.fullmatch(name):
        return name
    model, number = parse_version(name)
    version = MlflowClient().get_model_version(model, str(number))
    run_id = version.tags.get(RUN_TAG) or version.run_id
    if not run_id:
        raise RegistryError(f"{model}/{number} does not say which run it is from; name the run")
    return str(run_id)


def _is_logged_model(model: str) -> bool:
    return model.startswith("models:/m-")


def _registered_model(name: str) -> RegisteredModel:
    mlflow_server.require_registry()
    client = MlflowClient()
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise RegistryError(f"the registry cannot be asked for {name!r}: {error}") from error
        names = ", ".join(sorted(found.name for found in registered_models(client))) or "none"
        raise RegistryError(f"no model {name!r} is registered; registered here: {names}") from error


def _version(registered: RegisteredModel, version: str) -> str:
    numbers = [int(found.version) for found in model_versions(MlflowClient(), registered.name)]
    if int(version) not in numbers:
        there = ", ".join(map(str, numbers)) or "none"
        raise RegistryError(f"{registered.name} has no version {version}; its versions: {there}")
    return f"models:/{registered.name}/{version}"


def _alias(registered: RegisteredModel, alias: str) -> str:
    if alias not in registered.aliases:
        there = ", ".join(sorted(registered.aliases)) or "none"
        raise RegistryError(
            f"{registered.name} has no alias {alias!r}; its aliases: {there}. "
            f"A version is named as {registered.name}/1"
        )
    return f"models:/{registered.name}@{alias}"
