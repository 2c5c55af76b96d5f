"""Digests of files, and a memory of those that were read before.

A file counts as unchanged while its size and its times of modification and of change are what they were. The
memory only saves time: it stands in the cache, and one that is lost, damaged or outdated is computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from transfer_platform.paths import cache_folder
from transfer_registry.files import atomic_write

if TYPE_CHECKING:
    from pathlib import Path


_DIGITS = 64


class FileStamp(NamedTuple):
    """What a file that did not change still has.

    Attributes:
        size: Bytes.
        modified: When its content was, in nanoseconds since 1970.
        changed: When its content, name or permissions were, likewise.
    """

    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileStamp:
        """That of a file that the file system was asked about."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits; reads it in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def md5_of(path: Path) -> str:
    """MD5 of a file's bytes, 32 hexadecimal digits; reads it in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def cached_sha256(path: Path) -> str:
    """SHA-256 of one large file, such as an archive, read only where it changed since the last time."""
    path = path.resolve()
    stamp = FileStamp.of(path.stat())
    memory = ChecksumCache(str(path))
    digest = memory.get(path.name, stamp)
    if digest is None:
        digest = sha256_of(path)
        memory.put(path.name, stamp, digest)
        memory.save()
    return digest


@dataclass(frozen=True, slots=True)
class Checksum:
    """What the digest of a file must be.

    Attributes:
        digits: The digest or its beginning, lower-case hexadecimal; empty: any file will do.
        algorithm: `sha256`, or `md5`, which older data sets were published with.
    """

    digits: str
    algorithm: Literal["sha256", "md5"] = "sha256"

    def mismatch(self, path: Path, *, settled: bool = True) -> str:
        """What is wrong with a file's digest, or nothing; one that still grows is not `settled`."""
        if not self.digits:
            return ""
        sha256 = cached_sha256 if settled else sha256_of
        actual = sha256(path) if self.algorithm == "sha256" else md5_of(path)
        if actual.startswith(self.digits):
            return ""
        return f"its {self.algorithm} is {actual}, but {self.digits} was expected"


class ChecksumCache:
    """Digests of the files of one folder, by name.

    Args:
        scope: What the memory is about, usually the folder's path. Anything else that the remembered fact
            depends on, such as the version of a library, belongs into it too.
    """

    def __init__(self, scope: str) -> None:
        self._file = cache_folder() / "digests" / f"{hashlib.sha256(os.fsencode(scope)).hexdigest()}.json"
        self._known = _read(self._file)
        self._learned: dict[str, str] = {}

    def get(self, name: str, stamp: FileStamp) -> str | None:
        """The digest of a file that has not changed, or `None`; what is recalled stays in the memory."""
        entry = self._known.get(name)
        if not isinstance(entry, str) or len(entry) < _DIGITS or entry[_DIGITS:] != _text(stamp):
            return None
        self._learned[name] = entry
        return entry[:_DIGITS]

    def put(self, name: str, stamp: FileStamp, digest: str) -> None:
        """Keeps a digest; `stamp` must have been read before the file's bytes were."""
        self._learned[name] = digest + _text(stamp)

    def save(self) -> None:
        """Writes what was learned and recalled, and forgets the rest; does nothing where nothing is new.

        A full disk or a cache that cannot be written to costs time, the next time, and nothing else.
        """
        if self._learned == self._known:
            return
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._file) as unfinished:
                unfinished.write_text(json.dumps(self._learned), encoding="ascii")


def _text(stamp: FileStamp) -> str:
    return " {} {} {}".format(*stamp)


def _read(file: Path) -> dict[str, object]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
