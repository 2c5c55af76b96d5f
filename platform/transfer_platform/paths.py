"""Where things are stored: databases, caches and mirrors, as the environment of this machine says.

With nothing set, everything stands in the current folder beside MLflow's own `mlflow.db`. The `PLATFORM_*`
variables are named here; anybody may import this module.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import platformdirs
from sqlalchemy import create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateSchema

from transfer_registry.errors import StorageError
from transfer_registry.mlflow_server import tracking_uri

DATABASE_VARIABLE = "PLATFORM_DATABASE_URL"
MIRROR_VARIABLE = "PLATFORM_MIRROR"
CACHE_VARIABLE = "PLATFORM_CACHE"
LIMIT_VARIABLE = "PLATFORM_CACHE_LIMIT"
DEVICE_VARIABLE = "PLATFORM_DEVICE"

DEFAULT_LIMIT = 20 * 10**9
_UNITS = {
    "": 1,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "KI": 2**10,
    "MI": 2**20,
    "GI": 2**30,
    "TI": 2**40,
}


def studies_folder() -> Path:
    """The folder that holds the study database, the locks and the checkpoints of studies."""
    return Path.cwd() / "studies"


def cache_folder() -> Path:
    """What can be fetched or computed again: `PLATFORM_CACHE`, or the user's cache folder."""
    if configured := os.environ.get(CACHE_VARIABLE):
        return Path(configured).expanduser()
    return platformdirs.user_cache_path("transfer-platform")


def features_folder() -> Path:
    """Where features and decoded images are kept, in the cache."""
    return cache_folder() / "features"


def cache_limit() -> int:
    """Bytes of features and decoded images that are kept: `PLATFORM_CACHE_LIMIT`, or 20 GB; 0 keeps none.

    Raises:
        StorageError: It is no amount, such as `50GB`.
    """
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    if not text:
        return DEFAULT_LIMIT
    amount = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]I?)?B?", text.upper())
    if amount is None:
        raise StorageError(f"{LIMIT_VARIABLE} is {text!r}, but must be an amount such as 50GB, 512MiB or 0")
    return round(float(amount[1]) * _UNITS[amount[2] or ""])


def mirrors() -> tuple[str, ...]:
    """Folders and URLs that are asked before the internet; `PLATFORM_MIRROR` separates them by commas."""
    entries = re.split(r"\s*,\s*", os.environ.get(MIRROR_VARIABLE, "").strip())
    return tuple(entry for entry in entries if entry)


def studies_url() -> str:
    """Database URL of the Optuna studies.

    Raises:
        StorageError: The URL is not one, or is MLflow's own database.
    """
    return _database_url("studies", studies_folder() / "studies.db")


def ledger_url() -> str:
    """Database URL of the ledger.

    Raises:
        StorageError: The URL is not one or is MLflow's own database, or the ledger would be a local file
            while the models are on a server that others write to.
    """
    tracking = tracking_uri()
    if not os.environ.get(DATABASE_VARIABLE) and tracking.startswith(("http://", "https://")):
        raise StorageError(
            f"models are registered at {tracking}, but the ledger of promotions would be a file on this "
            f"machine that nobody else sees: set {DATABASE_VARIABLE} to the team's PostgreSQL, "
            "for example postgresql://user:password@host/platform"
        )
    return _database_url("ledger", Path.cwd() / "ledger.db")


def create_schema(url: str) -> None:
    """Makes the PostgreSQL schema that one of these URLs names, where it does not exist; files need none."""
    if not url.startswith("postgresql"):
        return
    schema = str(make_url(url).query["options"]).rpartition("=")[2]
    engine = create_engine(url, poolclass=NullPool)
    try:
        with engine.begin() as connection:
            connection.execute(CreateSchema(schema, if_not_exists=True))
    except OperationalError as error:
        raise StorageError(f"the database of {DATABASE_VARIABLE} cannot be reached: {error.orig}") from error


def _database_url(schema: str, local_file: Path) -> str:
    configured = os.environ.get(DATABASE_VARIABLE)
    if not configured:
        local_file.parent.mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{local_file}"
    try:
        url = make_url(configured)
    except (ArgumentError, ValueError) as error:
        raise StorageError(
            f"{DATABASE_VARIABLE} is not a database URL; expected postgresql://user:password@host/name"
        ) from error
    if url.get_backend_name() != "postgresql":
        raise StorageError(
            f"{DATABASE_VARIABLE} is a {url.get_backend_name()} URL, but several machines can only share a "
            "PostgreSQL database; unset it to keep studies and ledger in files of this folder"
        )
    _refuse_shared_schema(url, schema)
    return _with_schema(url, schema).render_as_string(hide_password=False)


def _with_schema(url: URL, schema: str) -> URL:
    return url.set(drivername="postgresql+psycopg").update_query_dict({"options": f"-csearch_path={schema}"})


def _refuse_shared_schema(url: URL, schema: str) -> None:
    """MLflow and Optuna both own a table `alembic_version`: in one schema the second refuses to start."""
    tracking = tracking_uri()
    if not tracking.startswith("postgresql"):
        return
    mlflow_url = make_url(tracking)
    same_database = (mlflow_url.host, mlflow_url.port or 5432, mlflow_url.database) == (
        url.host,
        url.port or 5432,
        url.database,
    )
    if same_database and f"search_path={schema}" in str(mlflow_url.query.get("options", "")):
        raise StorageError(
            f"MLFLOW_TRACKING_URI and {DATABASE_VARIABLE} name the same schema {schema!r} of the same "
            "database, where MLflow's and the platform's tables would collide: give MLflow another one"
        )
