"""What can go wrong while rows are stored.

TransferError
└── StoreError               rows cannot be stored
    ├── StoreFullError       neither the limit nor the disk has room for them
    └── StoreUnwritableError the cache folder takes no files

Whoever asked for the rows can go on without a store.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transfer_model.errors import TransferError

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class StoreError(TransferError):
    """Rows cannot be stored; nothing that is stored already is harmed."""


class StoreFullError(StoreError):
    """Neither the limit of the cache nor the disk has room for the rows."""


class StoreUnwritableError(StoreError):
    """The cache folder cannot be written to."""


class CorruptFileError(Exception):
    """A file of the store is not what was once written; it stays inside this package."""


@contextmanager
def write_errors(folder: Path) -> Iterator[None]:
    """Says what a failed write means to the user.

    Raises:
        StoreFullError: The disk, a quota or a limit on the size of files is full.
        StoreUnwritableError: Any other failure of the operating system.
    """
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise StoreFullError(
                f"the disk of the cache {folder} is full ({error.strerror}): free some space, empty the "
                "cache with `platform cache clear`, or set PLATFORM_CACHE to a folder on another disk"
            ) from error
        raise StoreUnwritableError(
            f"the cache {folder} cannot be written to ({error.strerror or error}): "
            "make it writable, or set PLATFORM_CACHE to a folder that is"
        ) from error
