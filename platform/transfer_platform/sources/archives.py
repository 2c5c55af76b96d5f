"""Safely unpacks zip and tar archives.

Before the first byte is written, all entries are checked for path traversal (CVE-2007-4559,
https://security.snyk.io/research/zip-slip-vulnerability) and decompression bombs
(https://www.bamsoftware.com/hacks/zipbomb/). The tarfile option `filter="data"` is not enough: it extracts links and
duplicate names, and strips the leading slash from absolute paths instead of rejecting them.
"""

import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from transfer_model.errors import cause
from transfer_platform.errors import SourceError
from transfer_platform.paths import cache_folder
from transfer_platform.progress import Progress, Step, silent
from transfer_platform.sources.checksums import cached_sha256
from transfer_registry.files import build_once

MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 1024

_COPY_BYTES = 1 << 20
_BACKSLASH_REMEDY = (
    "some Windows programs write it between folders; unpack the archive and use the folder as the source"
)
_READABLE_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Limits beyond which an archive is rejected.

    Attributes:
        entries: Maximum number of files and folders.
        ratio: Maximum ratio of unpacked size to archive size.
        unchecked_bytes: Unpacked size up to which `ratio` is not checked, because PNM images can compress 1000-fold.
        trailing_bytes: Maximum number of bytes after the end of a tar archive.
        block_bytes: Disk space counted for each entry in addition to the size of its content.
    """

    entries: int = 5_000_000
    ratio: int = 200
    unchecked_bytes: int = 1 << 30
    trailing_bytes: int = 64 << 20
    block_bytes: int = 4096


_DEFAULT_LIMITS = ArchiveLimits()


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """An unchecked archive entry, with the name and the unpacked size in bytes that the archive declares.

    `violation` explains why the entry's type, encryption or compression is not allowed; it is empty if all are allowed.
    """

    name: str
    size: int
    is_folder: bool
    violation: str
    open: Callable[[], IO[bytes]]


def unpack(
    archive: Path, sha256: str | None = None, progress: Progress = silent, limits: ArchiveLimits = _DEFAULT_LIMITS
) -> Path:
    """Unpacks an archive into the cache unless it has already been unpacked there.

    Args:
        archive: A zip or tar file (uncompressed, gzip, bzip2 or xz); the format is detected from the content.
        sha256: Expected checksum (64 hexadecimal digits).
        progress: Receives the number of bytes unpacked so far.
        limits: Limits beyond which the archive is rejected.

    Returns:
        The folder with the unpacked files, which must be treated as read-only.

    Raises:
        SourceError: The checksum is wrong, the archive is corrupt or has an unknown format, or an entry is not allowed.
            In each case, nothing is left on disk.
    """
    digest = cached_sha256(archive)
    if sha256 is not None and digest != sha256:
        raise SourceError(f"the SHA-256 of {archive} is {digest}, expected {sha256}; download it again")

    def build(folder: Path) -> None:
        _unpack(archive, folder, progress, limits, mode="xb")

    return build_once(cache_folder() / "archives" / digest, build)


def unpack_into(archive: Path, folder: Path, progress: Progress = silent) -> None:
    """Unpacks an archive into an existing folder, overwriting existing files.

    Raises:
        SourceError: As for `unpack`, except that a corrupt archive may leave some of its files in the folder.
    """
    _unpack(archive, folder, progress, _DEFAULT_LIMITS, mode="wb")


def _unpack(archive: Path, folder: Path, progress: Progress, limits: ArchiveLimits, mode: str) -> None:
    with _translate_errors(archive), _open_archive(archive, limits) as entries:
        checked = _check_entries(archive, entries, shutil.disk_usage(folder).free, limits)
        _write_entries(checked, folder, archive, progress, mode)


@contextmanager
def _open_archive(archive: Path, limits: ArchiveLimits) -> Iterator[Iterator[ArchiveEntry]]:
    with archive.open("rb") as file:
        signature = file.read(4)
    if signature in (b"PK\x03\x04", b"PK\x05\x06"):
        with zipfile.ZipFile(archive) as zipped:
            yield (_zip_entry(zipped, info) for info in zipped.infolist())
        return
    try:
        tarred = tarfile.open(archive)  # noqa: SIM115 - closed below; opening it detects the format
    except (tarfile.TarError, EOFError) as error:
        raise SourceError(f"{archive} is neither a zip nor a tar archive, or its header is corrupt") from error
    with tarred:
        yield _tar_entries(tarred, limits.trailing_bytes)


def _zip_entry(zipped: zipfile.ZipFile, info: zipfile.ZipInfo) -> ArchiveEntry:
    kind = stat.S_IFMT(info.external_attr >> 16)
    violation = ""
    if kind == stat.S_IFLNK:
        violation = "links are not allowed"
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        violation = "it is neither a file nor a folder"
    elif info.flag_bits & 0x1:
        violation = "it is encrypted"
    elif info.compress_type not in _READABLE_METHODS:
        violation = f"its compression method {info.compress_type} is not supported"
    # zipfile truncates `filename` at a NUL byte; the rules apply to the name as stored.
    return ArchiveEntry(info.orig_filename, info.file_size, info.is_dir(), violation, lambda: zipped.open(info))


def _tar_entries(tarred: tarfile.TarFile, trailing_bytes: int) -> Iterator[ArchiveEntry]:
    for member in tarred:
        yield _tar_entry(tarred, member)
    # tarfile stops at the end of the tar data; only reading on to the gzip checksum behind it detects corruption.
    file = tarred.fileobj
    for _ in range(trailing_bytes // _COPY_BYTES):
        if file is None or not file.read(_COPY_BYTES):
            return
    raise tarfile.ReadError("too much trailing data")


def _tar_entry(tarred: tarfile.TarFile, member: tarfile.TarInfo) -> ArchiveEntry:
    violation = ""
    if member.issym() or member.islnk():
        violation = "links are not allowed"
    elif not (member.isreg() or member.isdir()):
        violation = "it is neither a file nor a folder"

    def open_content() -> IO[bytes]:
        content = tarred.extractfile(member)
        if content is None:
            raise tarfile.ReadError(f"{member.name!r} has no content")
        return content

    return ArchiveEntry(member.name, member.size, member.isdir(), violation, open_content)


def _check_entries(
    archive: Path, entries: Iterable[ArchiveEntry], free_bytes: int, limits: ArchiveLimits
) -> dict[PurePosixPath, ArchiveEntry]:
    checked: dict[PurePosixPath, ArchiveEntry] = {}
    total_bytes = 0
    for entry in entries:
        total_bytes += entry.size + limits.block_bytes
        path = PurePosixPath(entry.name)
        if rule := entry.violation or _name_violation(entry.name):
            raise _refusal(archive, entry, rule)
        # Appending files to a tar archive repeats its folder entries.
        if path in checked and not (entry.is_folder and checked[path].is_folder):
            raise _refusal(archive, entry, "another entry has the same name")
        _check_size(archive, len(checked), total_bytes, free_bytes, limits)
        checked[path] = entry
    for path, entry in checked.items():
        for parent in path.parents:
            if parent in checked and not checked[parent].is_folder:
                raise _refusal(archive, entry, f"{str(parent)!r} is both a file and a folder")
    return checked


def _refusal(archive: Path, entry: ArchiveEntry, rule: str) -> SourceError:
    return SourceError(f"{archive}: entry {entry.name!r} was rejected: {rule}; nothing was unpacked")


def _name_violation(name: str) -> str:
    """Explains why an entry name is not allowed; returns an empty string if it is allowed."""
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    parts = name.split("/")
    rules = {
        "its path is absolute": name.startswith("/"),
        "its path starts with a drive letter": bool(re.match(r"[A-Za-z]:", name)),
        "its path leads outside the archive (..)": ".." in parts,
        f"its name contains a backslash ({_BACKSLASH_REMEDY})": "\\" in name,
        "its name contains control characters": bool(re.search(r"[\x00-\x1f\x7f]", name)),
        "its name is empty": not name,
        f"its name is longer than {MAX_NAME_BYTES} bytes": max(
            len(part.encode()) for part in parts
        ) > MAX_NAME_BYTES,
        f"its path is longer than {MAX_PATH_BYTES} bytes": len(encoded) > MAX_PATH_BYTES,
    }  # fmt: skip
    return next((rule for rule, broken in rules.items() if broken), "")


def _check_size(archive: Path, entries: int, total_bytes: int, free_bytes: int, limits: ArchiveLimits) -> None:
    if entries >= limits.entries:
        raise SourceError(f"{archive} was rejected: it has more than {limits.entries:,} entries")
    if total_bytes > limits.unchecked_bytes and total_bytes > limits.ratio * archive.stat().st_size:
        raise SourceError(
            f"{archive} was rejected as a possible decompression bomb: it unpacks to more than {limits.ratio} "
            "times its size; if you trust it, unpack it yourself and use the folder as the source"
        )
    if total_bytes > free_bytes:
        raise SourceError(
            f"unpacking {archive} needs at least {total_bytes / 1e9:.2f} GB, but only {free_bytes / 1e9:.2f} GB is "
            f"free in {cache_folder()}; free up some space, or set PLATFORM_CACHE to a folder on a larger disk"
        )


def _write_entries(
    entries: dict[PurePosixPath, ArchiveEntry], folder: Path, archive: Path, progress: Progress, mode: str
) -> None:
    task, total, done = f"unpacking {archive.name}", sum(entry.size for entry in entries.values()), 0
    for path, entry in entries.items():
        target = folder / path
        if entry.is_folder:
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with entry.open() as content, target.open(mode) as file:
            shutil.copyfileobj(content, file, _COPY_BYTES)
        done += entry.size
        progress(Step(task, done, total, "bytes"))


@contextmanager
def _translate_errors(archive: Path) -> Iterator[None]:
    damage = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)
    try:
        yield
    except damage as error:
        raise SourceError(
            f"{archive} is corrupt or incomplete ({cause(error)}); delete it and download it again"
        ) from error
    except OSError as error:  # corruption detected by bz2 or gzip, or a full disk
        raise SourceError(f"{archive} could not be unpacked into {cache_folder()}: {cause(error)}") from error
