"""Checks that the MLflow server or database is available before any work starts."""

from pathlib import Path

from sqlalchemy.engine import make_url

from transfer_registry.errors import RegistryError, StorageError
from transfer_registry.files import atomic_database

SERVER_SECONDS = 10
"""Timeout of the server check, in seconds."""


def tracking_uri() -> str:
    """Returns the MLflow tracking URI: `MLFLOW_TRACKING_URI` if set, otherwise MLflow's default."""
    import mlflow

    return mlflow.get_tracking_uri()


def require_server() -> None:
    """Checks that the tracking server responds; without this check, MLflow would silently retry for minutes.

    Raises:
        StorageError: The tracking URI points to a server that does not respond.
    """
    import requests

    uri = tracking_uri()
    if not uri.startswith(("http://", "https://")):
        return
    try:
        requests.get(f"{uri.rstrip('/')}/health", timeout=SERVER_SECONDS)
    except requests.exceptions.SSLError:
        return  # the server responds; MLflow's own settings determine whether its certificate is accepted
    except requests.RequestException as error:
        raise StorageError(
            f"the MLflow server {uri} cannot be reached ({type(error).__name__}); "
            "check MLFLOW_TRACKING_URI, or start the server"
        ) from error


def create_database() -> None:
    """Creates MLflow's local database atomically if it does not exist yet."""
    from mlflow.tracking import MlflowClient

    with atomic_database(tracking_uri()) as uri:
        MlflowClient(uri).search_experiments(max_results=1)


def require_registry() -> None:
    """Checks that the server responds or the local database exists, since MLflow would create a missing database.

    Raises:
        StorageError: The tracking URI points to a server that does not respond.
        RegistryError: The local database does not exist.
    """
    require_server()
    uri = tracking_uri()
    if uri.startswith("sqlite:///") and not Path(make_url(uri).database or "").exists():
        raise RegistryError(
            f"no registered models: {make_url(uri).database} does not exist; register a model with "
            "`platform run`, or set MLFLOW_TRACKING_URI to a server that has registered models"
        )
