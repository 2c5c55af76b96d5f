"""Checks that the MLflow server or database is available before any work starts."""

import atexit
import logging
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from transfer_registry.errors import DatabaseInUseError, RegistryError, StorageError
from transfer_registry.files import atomic_database, sqlite_file, sqlite_url

SERVER_SECONDS = 10
"""Timeout of the server check, in seconds."""

_VARIABLE = "MLFLOW_TRACKING_URI"
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _SelectedDatabase:
    """A database that this module passed to MLflow.

    Attributes:
        uri: URI that MLflow uses.
        configured: URI set by the user; None if the user has set none.
        original: Absolute path of the database; `uri` refers to a temporary copy of it if `problem` is set.
        problem: Reason that the original cannot be used; empty if it can be used.
    """

    uri: str
    configured: str | None
    original: Path
    problem: str = ""


_selection: _SelectedDatabase | None = None
"""The last selection; not in use if MLflow's tracking URI has been changed since."""


def tracking_uri() -> str:
    """Returns the MLflow tracking URI: `MLFLOW_TRACKING_URI` if set, otherwise MLflow's default.

    MLflow's default is `mlflow.db` in the current folder. The URI of this file is built by `sqlite_url`, because
    MLflow's own URI would create an unwanted folder if the path contains a space or an accent.

    Raises:
        StorageError: The path of the current folder contains a sequence that MLflow would decode, such as `%20`, or
            `MLFLOW_REGISTRY_URI` points to another server or database.
    """
    import mlflow

    selected, variable = _selected(), os.environ.get(_VARIABLE)
    if selected and (variable != selected.uri or _database_of(selected.configured) != selected.original):
        # the current folder or the variable has changed
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # resets the URI, and removes the variable
        if variable := selected.configured if variable == selected.uri else variable:
            os.environ[_VARIABLE] = variable
    configured = mlflow.is_tracking_uri_set()  # type: ignore[no-untyped-call]
    if not configured and mlflow.get_tracking_uri().startswith("sqlite:"):
        _require_folder_name(Path.cwd())
        local = _database_of(None)
        _select(_SelectedDatabase(sqlite_url(local), None, local))
    _require_same_registry(mlflow.get_tracking_uri())
    return mlflow.get_tracking_uri()


def _selected() -> _SelectedDatabase | None:
    """Returns the selection that MLflow uses; None if MLflow uses a URI set by the user."""
    import mlflow

    return _selection if _selection and _selection.uri == mlflow.get_tracking_uri() else None


def _select(selection: _SelectedDatabase) -> None:
    import mlflow

    global _selection
    _selection = selection
    mlflow.set_tracking_uri(selection.uri)


def _database_of(configured: str | None) -> Path:
    """Returns the absolute path of a configured SQLite database, or of the default database."""
    return Path.cwd() / (sqlite_file(configured or "") or "mlflow.db")


def _require_same_registry(uri: str) -> None:
    """Raises a `StorageError` if MLflow would store registered models and their runs in different places."""
    registry = os.environ.get("MLFLOW_REGISTRY_URI", "").rstrip("/")
    if registry in ("", uri.rstrip("/")):
        return
    file, own, selected = sqlite_file(registry), sqlite_file(uri), _selected()
    if file and file.absolute() in (own and own.absolute(), selected and selected.original):
        return
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
    file, selected = sqlite_file(tracking_uri()), _selected()
    return selected.original if selected else file


def registry_id() -> str | None:
    """Returns the ID of the model registry, which stays the same even if the registry's folder or address changes.

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
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED"):
            raise
        return None
    return f"created {created}" if created else None


def require_database() -> None:
    """Checks the local database, and upgrades and relocates it if necessary (see `prepare_database`).

    If the database is read-only or in use, required changes are made in a temporary copy, which is used until this
    process ends or a later call can change the database. Commands that write also call `require_original`.

    Raises:
        StorageError: The file is not an MLflow database, or was written by a newer version of MLflow.
    """
    from transfer_registry.mlflow_database import find_changes, prepare_database
    from transfer_registry.sqlite_files import is_writable

    file, selected = database_file(), _selected()
    changes = find_changes(file, file) if file else None
    problem = ""
    if file and changes and is_writable(file):
        try:
            prepare_database(file)
        except DatabaseInUseError as error:
            problem = str(error) if changes.required else ""
    elif file and changes and changes.required:
        problem = _read_only(file)
    if file and problem and not (selected and selected.problem):
        _use_copy(file, problem)
    elif selected and selected.problem and not problem:
        _select(
            _SelectedDatabase(
                selected.configured or sqlite_url(selected.original), selected.configured, selected.original
            )
        )


def require_original() -> None:
    """Raises a `StorageError` if the local database cannot be changed.

    If `require_database` has selected a temporary copy, changes would be lost.
    """
    from transfer_registry.sqlite_files import is_writable

    if (selected := _selected()) and selected.problem:
        raise StorageError(selected.problem)
    if (file := database_file()) and file.exists() and not is_writable(file):
        raise StorageError(_read_only(file))


def _read_only(file: Path) -> str:
    return (
        f"{file} cannot be changed, because the file or its folder is read-only; "
        f"allow this user to write the file and the folder {file.parent}, or use a copy of the folder"
    )


def _use_copy(file: Path, problem: str) -> None:
    from transfer_registry.mlflow_database import prepare_database
    from transfer_registry.sqlite_files import back_up, connect

    selected = _selected()
    folder = Path(tempfile.mkdtemp(prefix="transfer-platform-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = folder / file.name
    with connect(file) as connection:
        back_up(connection, copy)
    prepare_database(copy, file)
    _logger.warning("%s. This process reads a temporary copy of the database.", problem)
    _select(
        _SelectedDatabase(
            sqlite_url(copy), selected.configured if selected else tracking_uri(), file.absolute(), problem
        )
    )


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
    file = database_file()
    if file and not file.exists():
        raise RegistryError(
            f"no registered models: {file} does not exist; register a model with "
            "`platform run`, or set MLFLOW_TRACKING_URI to a server that has registered models"
        )
    require_database()
