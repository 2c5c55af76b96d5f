"""A server that fails to answer is not mistaken for one on which something does not exist."""

from __future__ import annotations

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED, RESOURCE_DOES_NOT_EXIST, TEMPORARILY_UNAVAILABLE

from transfer_registry import mlflow_server
from transfer_registry.errors import RegistryError
from transfer_registry.manual import _get_version


def failing(monkeypatch: pytest.MonkeyPatch, method: str, code: int) -> None:
    def fail(*_: object) -> None:
        raise MlflowException("the request failed", code)

    monkeypatch.setattr(MlflowClient, method, fail)


def test_a_version_is_missing_only_if_the_server_says_so(isolated: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transfer_registry.manual.model_versions", lambda client, model: [])
    failing(monkeypatch, "get_model_version", TEMPORARILY_UNAVAILABLE)
    with pytest.raises(MlflowException, match="the request failed"):
        _get_version(MlflowClient(), "ants-bees", 1)
    failing(monkeypatch, "get_model_version", RESOURCE_DOES_NOT_EXIST)
    with pytest.raises(RegistryError, match="ants-bees has no version 1"):
        _get_version(MlflowClient(), "ants-bees", 1)


def test_the_identity_of_a_registry_is_unknown_only_if_it_cannot_be_read(
    isolated: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow.set_tracking_uri(None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for code in (RESOURCE_DOES_NOT_EXIST, PERMISSION_DENIED):
        failing(monkeypatch, "get_experiment", code)
        assert mlflow_server.registry_id() is None
    failing(monkeypatch, "get_experiment", TEMPORARILY_UNAVAILABLE)
    with pytest.raises(MlflowException, match="the request failed"):
        mlflow_server.registry_id()
