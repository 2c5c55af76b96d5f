"""Whether MLflow's database or server is there: asked once, before anybody works for it or waits for it."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import make_url

from transfer_registry.errors import RegistryError, StorageError
from transfer_registry.files import atomic_database

SERVER_SECONDS = 10
"""How long a server may take to say that it is there."""


def tracking_uri() -> str:
    """MLflow's tracking URI: `MLFLOW_TRACKING_URI`, or the default of MLflow itself."""
    import mlflow

    return mlflow.get_tracking_uri()


def require_server() -> None:
    """Asks MLflow's server once whether it is there; MLflow itself would ask for minutes, without a word.

    Raises:
        StorageError: The tracking URI is a server's, and nothing answers there.
    """
    import requests

    uri = tracking_uri()
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

    with atomic_database(tracking_uri()) as uri:
        MlflowClient(uri).search_experiments(max_results=1)


def require_registry() -> None:
    """Refuses to look for models in a local database that is not there; MLflow would create an empty one.

    Raises:
        RegistryError: There is none.
    """
    require_server()
    uri = tracking_uri()
    if uri.startswith("sqlite:///") and not Path(make_url(uri).database or "").exists():
        raise RegistryError(
            f"no model is registered here: there is no {make_url(uri).database}; `platform run` registers "
            "one, and MLFLOW_TRACKING_URI names a server that has some"
        )
