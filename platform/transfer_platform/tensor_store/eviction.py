"""Room for rows.

<folder>/<address>/000001.rows     segments
<folder>/.locks/<address>.lock     held by whoever computes rows of that address

What is stored, what may go, and who is using it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from transfer_platform.tensor_store.errors import StoreFullError, write_errors
from transfer_platform.tensor_store.segment import PART, SUFFIX

RESERVE_BYTES = 1 << 30
"""Of the disk is left free for others; on small disks a twentieth of it."""


@dataclass(frozen=True)
class StoredFile:
    """One file of the store.

    Attributes:
        path: Segment, or an unfinished one.
        size: In bytes.
        used: When its rows were last obtained, in seconds since 1970.
    """

    path: Path
    size: int
    used: float


@dataclass(frozen=True)
class Usage:
    """What a store takes.

    Attributes:
        bytes: On the disk.
        files: How many.
        addresses: How many different ones.
        last_use: When rows were last obtained; `None` where none are stored.
    """

    bytes: int
    files: int
    addresses: int
    last_use: datetime | None


@dataclass(frozen=True)
class ClearResult:
    """What `clear` has done.

    Attributes:
        bytes: That were removed.
        files: That were removed.
        kept: Addresses that another process is just computing; they were left alone.
    """

    bytes: int
    files: int
    skipped: tuple[str, ...]


def usage(folder: Path) -> Usage:
    """What the store in a folder takes; the folder need not exist."""
    files = stored_files(folder)
    last = max((file.used for file in files), default=None)
    return Usage(
        bytes=sum(file.size for file in files),
        files=len(files),
        addresses=len({file.path.parent for file in files}),
        last_use=None if last is None else datetime.fromtimestamp(last, UTC),
    )


def clear(folder: Path) -> ClearResult:
    """Removes all rows but those of addresses that are just being computed.

    Processes that have rows in their hands keep them.

    Raises:
        StoreUnwritableError: The folder cannot be written to.
    """
    files, kept, removed = stored_files(folder), set[str](), list[StoredFile]()
    with _unlocked(folder) as is_free, write_errors(folder):
        for file in files:
            if not is_free(file.path.parent.name):
                kept.add(file.path.parent.name)
                continue
            _remove(file.path)
            removed.append(file)
    return ClearResult(sum(file.size for file in removed), len(removed), tuple(sorted(kept)))


def stored_files(folder: Path) -> list[StoredFile]:
    """Every file of the store, the one that was unused the longest first."""
    files = []
    for path in folder.glob("[!.]*/*"):
        if path.name.endswith((SUFFIX, SUFFIX + PART)):
            with suppress(OSError):  # another process has removed or renamed it
                stat = path.stat()
                files.append(StoredFile(path, stat.st_size, stat.st_mtime))
    return sorted(files, key=lambda file: (file.used, file.path))


def lock(folder: Path, address: str) -> FileLock:
    """The lock of one address; it is free again as soon as its process dies."""
    return FileLock(folder / ".locks" / f"{address}.lock")


def free_bytes(folder: Path) -> int:
    """What may still be written to the disk of a folder, which need not exist."""
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    disk = shutil.disk_usage(existing)
    return disk.free - min(RESERVE_BYTES, disk.total // 20)


def make_room(folder: Path, limit: int, size: int, own: str, keep: frozenset[Path]) -> None:
    """Removes the files that were unused the longest, until so many bytes fit.

    Args:
        folder: Of the store.
        limit: Of all files together, in bytes.
        size: Of what will be written, in bytes.
        own: The address whose lock the caller holds.
        keep: Files that the caller needs.

    Raises:
        StoreFullError: Even then they would not fit; nothing was removed.
        StoreUnwritableError: The folder cannot be written to.
    """
    files = stored_files(folder)
    surplus = max(sum(file.size for file in files) + size - limit, size - free_bytes(folder))
    if surplus <= 0:
        return
    with _unlocked(folder, own) as is_free, write_errors(folder):
        leaving = []
        for file in files:
            if surplus > 0 and file.path not in keep and is_free(file.path.parent.name):
                leaving.append(file.path)
                surplus -= file.size
        if surplus > 0:
            raise StoreFullError(_too_much(folder, limit, size))
        for path in leaving:
            _remove(path, own)


def remove_unfinished(folder: Path, own: str) -> None:
    """Removes what dead writers of any address left; the caller holds `own`."""
    with _unlocked(folder, own) as is_free, write_errors(folder):
        for path in folder.glob(f"[!.]*/*{PART}"):
            if is_free(path.parent.name):
                path.unlink(missing_ok=True)


def _remove(path: Path, own: str = "") -> None:
    """Removes a file, and the folder of its address with the last one; the caller has the address."""
    path.unlink(missing_ok=True)
    if path.parent.name != own:
        with suppress(OSError):  # not empty
            path.parent.rmdir()


@contextmanager
def _unlocked(folder: Path, own: str | None = None) -> Iterator[_Free]:
    with ExitStack() as held:
        yield _Free(folder, own, held)


class _Free:
    """Says whether an address is in nobody's hands, and takes it until the `with` block ends where it is."""

    def __init__(self, folder: Path, own: str | None, held: ExitStack) -> None:
        self._folder, self._held = folder, held
        self._known = {} if own is None else {own: True}

    def __call__(self, address: str) -> bool:
        if address not in self._known:
            self._known[address] = self._take(address)
        return self._known[address]

    def _take(self, address: str) -> bool:
        (self._folder / ".locks").mkdir(parents=True, exist_ok=True)
        try:
            self._held.enter_context(lock(self._folder, address).acquire(timeout=0))
        except Timeout:
            return False
        return True


def _too_much(folder: Path, limit: int, size: int) -> str:
    return (
        f"the cache {folder} has no room for {size / 1e6:,.1f} MB more: its limit is {limit / 1e6:,.1f} MB, "
        f"and the disk has {max(0, free_bytes(folder)) / 1e6:,.1f} MB to spare; raise PLATFORM_CACHE_LIMIT, "
        "free some space, or set PLATFORM_CACHE to a folder on a larger disk"
    )
