"""Checks that the MLflow server or database is available before any work starts."""

import atexit
import shutil
import tempfile
from pathlib import Path

from transfer_registry.errors import RegistryError, StorageError
from transfer_registry.files import atomic_database, sqlite_file, sqlite_url

SERVER_SECONDS = 10
"""Timeout of the server check, in seconds."""

_originals: dict[Path, Path] = {}
"""Databases of read-only folders, by the temporary copy that is used in their place."""


def tracking_uri() -> str:
    """Returns the MLflow tracking URI: `MLFLOW_TRACKING_URI` if set, otherwise MLflow's default."""
    import mlflow

    return mlflow.get_tracking_uri()


def database_file() -> Path | None:
    """Returns the local SQLite database of MLflow, which need not exist, or None if the runs are on a server."""
    file = sqlite_file(tracking_uri())
    return _originals.get(file, file) if file else None


def registry_id() -> str | None:
    """Returns the identity of the model registry, which stays the same if its folder or address changes.

    For a server, this is the creation time of MLflow's default experiment. Returns None if it is not known.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    from transfer_registry.mlflow_database import registry_identity

    if file := database_file():
        identity = registry_identity(file)
        return identity.registry if identity else None
    try:
        created = MlflowClient().get_experiment("0").creation_time
    except MlflowException:  # deleted, or this user may not read it
        return None
    return f"created {created}" if created else None


def require_database() -> None:
    """Checks the local database, upgrades and relocates it if necessary (see `prepare_database`).

    In a read-only folder, the changes are made in a temporary copy, which MLflow uses until this process ends.

    Raises:
        StorageError: The file is not a database of MLflow, or a newer version of MLflow wrote it.
    """
    from transfer_registry import mlflow_database
    from transfer_registry.sqlite_files import is_writable

    file = sqlite_file(tracking_uri())
    if file is None or file in _originals:
        return
    changes = mlflow_database.find_changes(file, file)
    if changes and is_writable(file):
        mlflow_database.prepare_database(file)
    elif changes and changes.required:
        _use_copy(file)


def _use_copy(file: Path) -> None:
    import mlflow

    from transfer_registry.mlflow_database import prepare_database
    from transfer_registry.sqlite_files import back_up

    folder = Path(tempfile.mkdtemp(prefix="transfer-platform-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = folder / file.name
    back_up(file, copy)
    prepare_database(copy, file)
    _originals[copy] = file
    mlflow.set_tracking_uri(sqlite_url(copy))


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
    """Creates MLflow's local database atomically if it does not exist yet, otherwise calls `require_database`."""
    from mlflow.tracking import MlflowClient

    require_database()
    with atomic_database(tracking_uri()) as uri:
        MlflowClient(uri).search_experiments(max_results=1)
    require_database()  # records the place of a new database


def require_registry() -> None:
    """Checks that the server responds or the local database exists, since MLflow would create a missing database.

    Raises:
        StorageError: The tracking URI points to a server that does not respond, or the local database cannot be used
            (see `require_database`).
        RegistryError: The local database does not exist.
    """
    require_server()
    file = sqlite_file(tracking_uri())
    if file and not file.exists():
        raise RegistryError(
            f"no registered models: {file} does not exist; register a model with "
            "`platform run`, or set MLFLOW_TRACKING_URI to a server that has registered models"
        )
    require_database()
