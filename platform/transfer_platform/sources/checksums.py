"""Computes file checksums and caches each one until its file changes.

A file is considered unchanged if its size, modification time (mtime) and change time (ctime) are the same.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from transfer_platform.disk_cache import DiskCache

_DIGEST_BYTES = 32
_STAMP = struct.Struct("<3q")
_ENTRY_BYTES = _DIGEST_BYTES + _STAMP.size


class FileStamp(NamedTuple):
    """A file's size in bytes and timestamps in nanoseconds since 1970, used to detect changes to the file.

    `modified` is the time of the last content change; `changed` also reflects later changes to the name or permissions.
    """

    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileStamp:
        """Creates a stamp from a `stat` result."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def file_digest(path: Path, algorithm: Literal["sha256", "md5"] = "sha256") -> str:
    """Returns the hexadecimal checksum of a file, reading the file in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def cached_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file; reads the file only if it has changed since the last call."""
    path = path.resolve()
    return cached_sha256s([path], str(path))[0]


def cached_sha256s(paths: Sequence[Path], scope: str) -> list[str]:
    """Returns the SHA-256 of each file; reads only new and changed files. See `ChecksumCache` for `scope`."""
    cache = ChecksumCache(scope)
    digests = []
    try:
        for path in paths:
            stamp = FileStamp.of(path.stat())
            digest = cache.get(str(path), stamp)
            if digest is None:
                digest = file_digest(path)
                cache.put(str(path), stamp, digest)
            digests.append(digest)
    finally:
        cache.save()
    return digests


@dataclass(frozen=True, slots=True)
class Checksum:
    """Expected checksum in lowercase hexadecimal; a prefix is enough, and an empty string matches any file."""

    digits: str
    algorithm: Literal["sha256", "md5"] = "sha256"

    def mismatch(self, path: Path, *, cached: bool = True) -> str:
        """Returns a description of the mismatch, or an empty string if the file has the expected checksum.

        Pass `cached=False` for files that are still being written.
        """
        if not self.digits:
            return ""
        use_cache = cached and self.algorithm == "sha256"
        actual = cached_sha256(path) if use_cache else file_digest(path, self.algorithm)
        return "" if actual.startswith(self.digits) else f"its {self.algorithm} is {actual}, expected {self.digits}"


class ChecksumCache:
    """Persistent cache of SHA-256 checksums for a group of files, keyed by file name.

    Args:
        scope: Text that identifies the group, usually the path of its folder.
    """

    def __init__(self, scope: str) -> None:
        self._cache = DiskCache(f"checksums/{hashlib.sha256(os.fsencode(scope)).hexdigest()[:32]}")
        self._entries = self._cache.get_all()
        self._new: dict[str, bytes] = {}

    def get(self, name: str, stamp: FileStamp) -> str | None:
        """Returns the cached checksum of a file, or `None` if no checksum is cached or the file has changed."""
        entry = self._entries.get(name)
        if entry is None or len(entry) != _ENTRY_BYTES or entry[_DIGEST_BYTES:] != _STAMP.pack(*stamp):
            return None
        return entry[:_DIGEST_BYTES].hex()

    def put(self, name: str, stamp: FileStamp, digest: str) -> None:
        """Adds a checksum; `stamp` must have been taken before the file was read."""
        self._entries[name] = self._new[name] = bytes.fromhex(digest) + _STAMP.pack(*stamp)

    def save(self) -> None:
        """Writes all checksums added since the previous call to disk."""
        self._cache.put(self._new)
        self._new = {}
