"""Locations of databases, caches and mirrors, configured by environment variables.

By default, databases are stored in the current folder, next to MLflow's own `mlflow.db`.
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
"""Default maximum total size of stored features and decoded images, in bytes."""

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def studies_folder() -> Path:
    """Returns the folder for the study database, study locks and checkpoints."""
    return Path.cwd() / "studies"


def cache_folder() -> Path:
    """Returns the folder set in `PLATFORM_CACHE` or else the user's cache folder; its contents can be recreated."""
    if configured := os.environ.get(CACHE_VARIABLE):
        return Path(configured).expanduser()
    return platformdirs.user_cache_path("transfer-platform")


def features_folder() -> Path:
    """Returns the cache folder for features and decoded images."""
    return cache_folder() / "features"


def cache_limit() -> int:
    """Returns the maximum total size of stored features and decoded images, in bytes; 0 disables storage.

    Raises:
        StorageError: `PLATFORM_CACHE_LIMIT` is not a size such as `50GB`.
    """
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    if not text:
        return DEFAULT_LIMIT
    amount = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]I?)?B?", text.upper())
    if amount is None:
        raise StorageError(f"{LIMIT_VARIABLE} is {text!r}, but must be a size such as 50GB, 512MiB or 0")
    return round(float(amount[1]) * _UNITS[amount[2] or ""])


def mirrors() -> tuple[str, ...]:
    """Returns the folders and URLs listed in `PLATFORM_MIRROR`, which are tried before the original URL."""
    entries = re.split(r"\s*,\s*", os.environ.get(MIRROR_VARIABLE, "").strip())
    return tuple(entry for entry in entries if entry)
