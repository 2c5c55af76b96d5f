"""Whether MLflow's database or server is there: asked once, before anybody works for it or waits for it."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import make_url

from transfer_platform import paths
from transfer_platform.errors import RegistryError, StorageError

SERVER_SECONDS = 10
"""How long a server may take to say that it is there."""


def refuse_unreachable() -> None:
    """Asks MLflow's server once whether it is there; MLflow itself would ask for minutes, without a word.

    Raises:
        StorageError: The tracking URI is a server's, and nothing answers there.
    """
    import requests

    uri = paths.tracking_uri()
    if not uri.startswith(("http://", "https://")):
        return
    try:
        requests.get(f"{uri.rstrip('/')}/health", timeout=SERVER_SECONDS)
    except requests.exceptions.SSLError:
        return  # it is there; whether its certificate is trusted is for MLflow's own settings to say
    except requests.RequestException as error:
        raise StorageError(
            f"MLflow's server {uri} cannot be reached ({type(error).__name__}); "
            "MLFLOW_TRACKING_URI says where it is looked for"
        ) from error


def create_database() -> None:
    """Lets MLflow create its database, whole or not at all, where it is a local one that is not there yet."""
    from mlflow.tracking import MlflowClient

    with paths.created_whole(paths.tracking_uri()) as uri:
        MlflowClient(uri).search_experiments(max_results=1)


def refuse_missing_registry() -> None:
    """Refuses to look for models in a local database that is not there; MLflow would create an empty one.

    Raises:
        RegistryError: There is none.
    """
    refuse_unreachable()
    uri = paths.tracking_uri()
    if uri.startswith("sqlite:///") and not Path(make_url(uri).database or "").exists():
        raise RegistryError(
            f"no model is registered here: there is no {make_url(uri).database}; `platform run` registers "
            "one, and MLFLOW_TRACKING_URI names a server that has some"
        )
