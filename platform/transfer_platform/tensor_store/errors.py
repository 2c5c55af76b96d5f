"""Tensor store exceptions.

TransferError
└── StoreError               the store cannot be used
    ├── StoreFullError       the rows exceed the cache limit or the free disk space
    └── StoreUnwritableError the cache folder is not writable

The caller can catch these errors and continue without a store.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transfer_model.errors import TransferError, cause

DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class StoreError(TransferError):
    """The store cannot be used; rows that are already stored are not affected."""


class StoreFullError(StoreError):
    """The rows exceed the cache limit or the free disk space."""


class StoreUnwritableError(StoreError):
    """The cache folder is not writable."""


class CorruptFileError(Exception):
    """A segment is truncated or corrupt, or its rows have an unexpected shape or dtype. Internal to this package."""


@contextmanager
def translate_write_errors(folder: Path) -> Iterator[None]:
    """Converts an `OSError` into a `StoreError` whose message names the cache folder and suggests fixes.

    Raises:
        StoreFullError: The disk is full, or a quota or the file size limit is exceeded.
        StoreUnwritableError: The `OSError` has another cause.
    """
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise StoreFullError(
                f"the disk that contains the cache {folder} is full ({cause(error)}): free some space, run "
                "`platform cache clear`, or set PLATFORM_CACHE to a folder on another disk"
            ) from error
        raise StoreUnwritableError(
            f"cannot write to the cache {folder} ({cause(error)}): "
            "make it writable, or set PLATFORM_CACHE to a writable folder"
        ) from error
