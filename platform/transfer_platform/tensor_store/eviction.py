"""Disk usage, locks and eviction for the tensor store.

<folder>/<address>/000001.rows     segments; `.rows.part` while being written
<folder>/.locks/<address>.lock     held by the process computing rows for the address

This module does not import PyTorch, so `platform cache` starts quickly.
"""

import shutil
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from transfer_platform.tensor_store.errors import StoreFullError, translate_write_errors

SUFFIX = ".rows"
PART = ".part"
"""File name suffix of a segment that is still being written."""
RESERVE_BYTES = 1 << 30
"""Disk space reserved for other programs, in bytes; capped at 5% of the disk."""


@dataclass(frozen=True)
class StoredFile:
    """A finished or unfinished segment; `last_use` is the Unix time of the last request for any of its rows."""

    path: Path
    size: int
    last_use: float


@dataclass(frozen=True)
class ClearResult:
    """Total size and number of the files that `clear` removed, and the addresses it skipped because of a lock."""

    bytes: int
    files: int
    skipped: tuple[str, ...]


def clear(folder: Path) -> ClearResult:
    """Removes all rows except those at addresses where a process is still computing rows.

    Processes that have already opened rows can still read them.

    Raises:
        StoreUnwritableError: The folder is not writable.
    """
    files, skipped, removed = list_files(folder), set[str](), list[StoredFile]()
    with _AddressLocks(folder) as locks, translate_write_errors(folder):
        for file in files:
            address = file.path.parent.name
            if locks.acquire(address):
                _remove(file.path)
                removed.append(file)
            else:
                skipped.add(address)
    return ClearResult(sum(file.size for file in removed), len(removed), tuple(sorted(skipped)))


def list_files(folder: Path) -> list[StoredFile]:
    """Returns all files in the store, least recently used first."""
    files = []
    for path in folder.glob("[!.]*/*"):
        if path.name.endswith((SUFFIX, SUFFIX + PART)):
            with suppress(OSError):  # another process has removed or renamed it
                stat = path.stat()
                files.append(StoredFile(path, stat.st_size, stat.st_mtime))
    return sorted(files, key=lambda file: (file.last_use, file.path))


def total_bytes(folder: Path) -> int:
    """Returns the total size of all files in the store, in bytes; `folder` need not exist."""
    return sum(file.size for file in list_files(folder))


def address_lock(folder: Path, address: str) -> FileLock:
    """Returns the lock for one address; the operating system releases it if the process holding it dies."""
    return FileLock(folder / ".locks" / f"{address}.lock")


def free_bytes(folder: Path) -> int:
    """Returns the number of bytes that may be written to the disk containing `folder`; `folder` need not exist."""
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    disk = shutil.disk_usage(existing)
    return disk.free - min(RESERVE_BYTES, disk.total // 20)


def evict(
    folder: Path,
    limit: int,
    size: int,
    *,
    address: str,
    keep: frozenset[Path],
    free_bytes: Callable[[Path], int] = free_bytes,
) -> None:
    """Removes the least recently used files until `size` more bytes fit within `limit` and on the disk.

    The caller must hold the lock for `address`. Files in `keep` are not removed.

    Raises:
        StoreFullError: Evicting files would not free enough space, so no files were removed.
        StoreUnwritableError: The folder is not writable.
    """
    files, free = list_files(folder), free_bytes(folder)
    surplus = max(sum(file.size for file in files) + size - limit, size - free)
    if surplus <= 0:
        return
    with _AddressLocks(folder, address) as locks, translate_write_errors(folder):
        evicted = []
        for file in files:
            if surplus > 0 and file.path not in keep and locks.acquire(file.path.parent.name):
                evicted.append(file.path)
                surplus -= file.size
        if surplus > 0:
            raise StoreFullError(
                f"the cache {folder} has no room for another {size / 1e6:,.1f} MB: its limit is "
                f"{limit / 1e6:,.1f} MB, and {max(0, free) / 1e6:,.1f} MB of disk space is available; raise "
                "PLATFORM_CACHE_LIMIT, free some space, or set PLATFORM_CACHE to a folder on a larger disk"
            )
        for path in evicted:
            _remove(path, address)


def remove_unfinished(folder: Path, address: str) -> None:
    """Removes unfinished segments left behind by terminated processes. The caller must hold the lock for `address`."""
    with _AddressLocks(folder, address) as locks, translate_write_errors(folder):
        for path in folder.glob(f"[!.]*/*{PART}"):
            if locks.acquire(path.parent.name):
                path.unlink(missing_ok=True)


def _remove(path: Path, locked_address: str = "") -> None:
    """Removes a file. Also removes the address folder if it is now empty and is not that of `locked_address`."""
    path.unlink(missing_ok=True)
    if path.parent.name != locked_address:
        with suppress(OSError):  # not empty
            path.parent.rmdir()


class _AddressLocks(ExitStack):
    """A set of address locks that are acquired without waiting and released on exit.

    The caller already holds the lock for `locked_address`.
    """

    def __init__(self, folder: Path, locked_address: str = "") -> None:
        super().__init__()
        self._folder, self._acquired = folder, {locked_address: True}

    def acquire(self, address: str) -> bool:
        """Tries once to acquire the lock for an address; returns whether the caller now holds it."""
        if address not in self._acquired:
            self._acquired[address] = self._try(address)
        return self._acquired[address]

    def _try(self, address: str) -> bool:
        (self._folder / ".locks").mkdir(parents=True, exist_ok=True)
        try:
            self.enter_context(address_lock(self._folder, address).acquire(timeout=0))
        except Timeout:
            return False
        return True
