"""Locations of databases, caches and mirrors, set by environment variables.

By default, databases are stored in the current folder, beside MLflow's own `mlflow.db`.
"""

import os
import re
from pathlib import Path

import platformdirs

from transfer_registry.errors import StorageError

DATABASE_VARIABLE = "PLATFORM_DATABASE_URL"
MIRROR_VARIABLE = "PLATFORM_MIRROR"
CACHE_VARIABLE = "PLATFORM_CACHE"
LIMIT_VARIABLE = "PLATFORM_CACHE_LIMIT"
DEVICE_VARIABLE = "PLATFORM_DEVICE"

DEFAULT_LIMIT = 20 * 10**9
"""Maximum size of stored features and decoded images, in bytes."""

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def studies_folder() -> Path:
    """Returns the folder of the study database, the locks and the checkpoints of studies."""
    return Path.cwd() / "studies"


def cache_folder() -> Path:
    """Returns `PLATFORM_CACHE`, or the user's cache folder; its files can be fetched or computed again."""
    if configured := os.environ.get(CACHE_VARIABLE):
        return Path(configured).expanduser()
    return platformdirs.user_cache_path("transfer-platform")


def features_folder() -> Path:
    """Returns the cache folder of features and decoded images."""
    return cache_folder() / "features"


def cache_limit() -> int:
    """Returns the maximum size of stored features and decoded images in bytes; 0 disables storing.

    Raises:
        StorageError: `PLATFORM_CACHE_LIMIT` is not an amount such as `50GB`.
    """
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    if not text:
        return DEFAULT_LIMIT
    amount = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]I?)?B?", text.upper())
    if amount is None:
        raise StorageError(f"{LIMIT_VARIABLE} is {text!r}, but must be an amount such as 50GB, 512MiB or 0")
    return round(float(amount[1]) * _UNITS[amount[2] or ""])


def mirrors() -> tuple[str, ...]:
    """Returns the folders and URLs in `PLATFORM_MIRROR`, which are tried before the internet."""
    entries = re.split(r"\s*,\s*", os.environ.get(MIRROR_VARIABLE, "").strip())
    return tuple(entry for entry in entries if entry)
