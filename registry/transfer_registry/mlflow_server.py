"""Checks that the MLflow server or database is available before any work starts."""

import atexit
import os
import re
import shutil
import tempfile
from pathlib import Path

from transfer_registry.errors import RegistryError, StorageError
from transfer_registry.files import atomic_database, sqlite_file, sqlite_url

SERVER_SECONDS = 10
"""Timeout of the server check, in seconds."""

_originals: dict[Path, Path] = {}
"""Maps the temporary copy of each database in a read-only folder to the original file."""
_selected: set[str] = set()
"""Tracking URIs set by the function `tracking_uri`, not by the user."""


def tracking_uri() -> str:
    """Returns the MLflow tracking URI: `MLFLOW_TRACKING_URI` if set, otherwise MLflow's default.

    MLflow's default is `mlflow.db` in the current folder. Its URI is built by `sqlite_url`, because MLflow's own URI
    creates an unwanted folder if the path contains a space or an accent.

    Raises:
        StorageError: The path of the current folder contains a sequence that MLflow would decode, such as `%20`, or
            `MLFLOW_REGISTRY_URI` points to another server or database.
    """
    import mlflow

    local = sqlite_url(Path.cwd() / "mlflow.db")
    current, variable = mlflow.get_tracking_uri(), os.environ.get("MLFLOW_TRACKING_URI")
    if current in _selected and not current == local == variable:  # the current folder or the variable has changed
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # resets the URI, and removes the variable
        if variable and variable not in _selected:
            os.environ["MLFLOW_TRACKING_URI"] = variable
    configured = mlflow.is_tracking_uri_set()  # type: ignore[no-untyped-call]
    if not configured and mlflow.get_tracking_uri().startswith("sqlite:"):
        _require_folder_name(Path.cwd())
        _selected.add(local)
        mlflow.set_tracking_uri(local)
    _require_same_registry(mlflow.get_tracking_uri())
    return mlflow.get_tracking_uri()


def _require_same_registry(uri: str) -> None:
    """Raises a `StorageError` if MLflow would register models in another place than the runs and the ledger expect."""
    registry = os.environ.get("MLFLOW_REGISTRY_URI", "").rstrip("/")
    if registry in ("", uri.rstrip("/")):
        return
    file = sqlite_file(registry)
    if file is None or file.absolute() not in (own := sqlite_file(uri), _originals.get(own) if own else None):
        raise StorageError(
            "MLFLOW_REGISTRY_URI and MLFLOW_TRACKING_URI point to different places, but models and their runs must be "
            "stored together; unset MLFLOW_REGISTRY_URI, or set MLFLOW_TRACKING_URI to the same value"
        )


def _require_folder_name(folder: Path) -> None:
    """Raises a `StorageError` if the path contains a sequence that MLflow would decode, such as `%20`."""
    if encoded := encoded_character(folder):
        raise StorageError(
            f"MLflow cannot store models in {folder}, because it decodes {encoded} in the path and would use "
            "another folder; rename the folder, or set MLFLOW_TRACKING_URI to an MLflow server"
        )


def encoded_character(path: Path) -> str | None:
    """Returns the first sequence in a path that MLflow would decode, such as `%20`; None if there is none."""
    encoded = re.search("%[0-9A-Fa-f]{2}", str(path))
    return encoded[0] if encoded else None


def database_file() -> Path | None:
    """Returns the path of MLflow's local SQLite database, which may not exist yet; None if MLflow does not use one."""
    file = sqlite_file(tracking_uri())
    return _originals.get(file, file) if file else None


def registry_id() -> str | None:
    """Returns the ID of the model registry, which stays the same if the registry's folder or address changes.

    For a server, the ID contains the creation time of MLflow's default experiment. Returns None if no ID is known.
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
    """Checks the local database, and upgrades and relocates it if necessary (see `prepare_database`).

    If the database is read-only, required changes are made in a temporary copy, used until this process ends.

    Raises:
        StorageError: The file is not an MLflow database, or was written by a newer version of MLflow.
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
    """Checks that the tracking server responds, because MLflow itself would silently retry for minutes.

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
    """Creates MLflow's local database if it does not exist; otherwise checks it (see `require_database`)."""
    from mlflow.tracking import MlflowClient

    require_database()
    with atomic_database(tracking_uri()) as uri:
        MlflowClient(uri).search_experiments(max_results=1)
    require_database()  # records the place of a new database


def require_registry() -> None:
    """Checks that the model registry is available: its server must respond, or its local database must exist.

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
