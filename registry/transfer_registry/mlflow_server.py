"""Checks that the MLflow server or database is available before any work starts."""

import re
from pathlib import Path

from transfer_registry.errors import RegistryError, StorageError
from transfer_registry.files import atomic_database, sqlite_file, sqlite_url

SERVER_SECONDS = 10
"""Timeout of the server check, in seconds."""

_selected: set[str] = set()
"""Tracking URIs that `tracking_uri` selected, as opposed to those that the user configured."""


def tracking_uri() -> str:
    """Returns the MLflow tracking URI: `MLFLOW_TRACKING_URI` if set, otherwise that of MLflow's default files.

    MLflow's default is `mlflow.db` in the current folder. If it applies, this function also passes it to MLflow in
    the form of `sqlite_url`, because MLflow's own form creates a folder if the path contains a space or an accent.

    Raises:
        StorageError: MLflow cannot store models below the current folder.
    """
    import mlflow

    local = sqlite_url(Path.cwd() / "mlflow.db")
    current = mlflow.get_tracking_uri()
    if current in _selected and current != local:  # the current folder has changed
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # resets the URI
    configured = mlflow.is_tracking_uri_set()  # type: ignore[no-untyped-call]
    if not configured and mlflow.get_tracking_uri().startswith("sqlite:"):
        _require_folder_name(Path.cwd())
        _selected.add(local)
        mlflow.set_tracking_uri(local)
    return mlflow.get_tracking_uri()


def _require_folder_name(folder: Path) -> None:
    """Raises a `StorageError` if MLflow would decode a part of the path, such as `%20`, and use another folder."""
    if encoded := encoded_character(folder):
        raise StorageError(
            f"MLflow cannot store models in {folder}, because it decodes {encoded} in the path and would use "
            "another folder; rename the folder, or set MLFLOW_TRACKING_URI to an MLflow server"
        )


def encoded_character(path: Path) -> str | None:
    """Returns the first part of a path, such as `%20`, that MLflow would decode; None if there is none."""
    encoded = re.search("%[0-9A-Fa-f]{2}", str(path))
    return encoded[0] if encoded else None


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
    file = sqlite_file(tracking_uri())
    if file and not file.exists():
        raise RegistryError(
            f"no registered models: {file} does not exist; register a model with "
            "`platform run`, or set MLFLOW_TRACKING_URI to a server that has registered models"
        )
