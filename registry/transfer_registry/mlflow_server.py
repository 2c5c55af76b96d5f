"""Checks for MLflow's server or database, made once before any work starts."""

from pathlib import Path

from sqlalchemy.engine import make_url

from transfer_registry.errors import RegistryError, StorageError
from transfer_registry.files import atomic_database

SERVER_SECONDS = 10
"""Timeout of the server check in seconds."""


def tracking_uri() -> str:
    """Returns MLflow's tracking URI: `MLFLOW_TRACKING_URI`, or MLflow's default."""
    import mlflow

    return mlflow.get_tracking_uri()


def require_server() -> None:
    """Checks that a tracking server responds; MLflow would retry for minutes without a message.

    Raises:
        StorageError: The tracking URI is a server that does not respond.
    """
    import requests

    uri = tracking_uri()
    if not uri.startswith(("http://", "https://")):
        return
    try:
        requests.get(f"{uri.rstrip('/')}/health", timeout=SERVER_SECONDS)
    except requests.exceptions.SSLError:
        return  # the server responds; MLflow's own settings decide about its certificate
    except requests.RequestException as error:
        raise StorageError(
            f"the MLflow server {uri} cannot be reached ({type(error).__name__}); "
            "check MLFLOW_TRACKING_URI, or start the server"
        ) from error


def create_database() -> None:
    """Makes MLflow create its local database atomically, if the database does not exist yet."""
    from mlflow.tracking import MlflowClient

    with atomic_database(tracking_uri()) as uri:
        MlflowClient(uri).search_experiments(max_results=1)


def require_registry() -> None:
    """Checks that the server responds or the local database exists; MLflow would create an empty one.

    Raises:
        StorageError: The tracking URI is a server that does not respond.
        RegistryError: The local database does not exist.
    """
    require_server()
    uri = tracking_uri()
    if uri.startswith("sqlite:///") and not Path(make_url(uri).database or "").exists():
        raise RegistryError(
            f"no model is registered here: {make_url(uri).database} does not exist; register a model with "
            "`platform run`, or set MLFLOW_TRACKING_URI to a server that has models"
        )
