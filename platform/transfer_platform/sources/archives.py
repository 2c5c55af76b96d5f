"""Unpacks archives that strangers made: every entry is judged before the first byte is written.

An unpacked archive stands in the cache under its own SHA-256, so that it is unpacked once and two archives
never mix. What is refused, and why: CVE-2007-4559 (tar), https://www.bamsoftware.com/hacks/zipbomb/ and
https://security.snyk.io/research/zip-slip-vulnerability.
"""

from __future__ import annotations

import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Literal

from transfer_platform.errors import SourceError
from transfer_platform.paths import cache_folder
from transfer_platform.progress import Progress, Step, silent
from transfer_platform.sources.checksums import cached_sha256
from transfer_registry.files import build_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MAX_ENTRIES = 5_000_000
MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 1024
MAX_RATIO = 200
HARMLESS_BYTES = 1 << 30
"""Below this size no ratio is absurd: a folder of flat PNM images may well shrink a thousandfold."""

_DISK_BLOCK = 4096
_PIECE = 1 << 20
_MAX_PADDING = 64 * _PIECE
_READABLE_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}


@dataclass(frozen=True, slots=True)
class ArchiveEntry:
    """One entry of an archive, before anything of it was believed.

    Attributes:
        name: As it stands in the archive.
        size: Unpacked bytes it claims to have.
        is_folder: Whether it is a folder.
        refused: The rule that its kind breaks, empty for files and folders.
        open: Opens its content.
    """

    name: str
    size: int
    is_folder: bool
    refused: str
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, sha256: str | None = None, progress: Progress = silent) -> Path:
    """Unpacks an archive into the cache, once.

    Args:
        archive: A zip or tar file, the latter plain or compressed with gzip, bzip2 or xz; recognised by its
            content, not by its name.
        sha256: Checksum that it must have, 64 hexadecimal digits.
        progress: Is told how many bytes are unpacked.

    Returns:
        The folder with its content, whole; nobody may write to it.

    Raises:
        SourceError: The checksum differs, the archive is damaged or of no known kind, or one of its entries
            breaks a rule. Nothing of it is on disk then.
    """
    digest = cached_sha256(archive)
    if sha256 is not None and digest != sha256:
        raise SourceError(f"{archive} has the sha256 {digest}, but {sha256} was expected; get it anew")

    def build(folder: Path) -> None:
        _unpack(archive, folder, progress, mode="xb")

    return build_once(cache_folder() / "archives" / digest, build)


def unpack_into(archive: Path, folder: Path, progress: Progress = silent) -> None:
    """Unpacks an archive into a folder that may hold something already, and that the caller looks after.

    Args:
        archive: As for `unpack`.
        folder: Exists; files in it that are called like an entry are replaced.
        progress: Is told how many bytes are unpacked.

    Raises:
        SourceError: As for `unpack`; where the archive is damaged, some of it may be in the folder.
    """
    _unpack(archive, folder, progress, mode="wb")


def _unpack(archive: Path, folder: Path, progress: Progress, mode: Literal["xb", "wb"]) -> None:
    with _damage_named(archive), _opened(archive) as entries:
        accepted = _judged(archive, entries, shutil.disk_usage(folder).free)
        _write(accepted, folder, archive, progress, mode)


@contextmanager
def _opened(archive: Path) -> Iterator[Iterator[ArchiveEntry]]:
    with archive.open("rb") as file:
        signature = file.read(4)
    if signature in (b"PK\x03\x04", b"PK\x05\x06"):
        with zipfile.ZipFile(archive) as zipped:
            yield (_zip_entry(zipped, info) for info in zipped.infolist())
        return
    try:
        tarred = tarfile.open(archive)  # noqa: SIM115 - closed below; only opening it tells the kind
    except (tarfile.TarError, EOFError) as error:
        raise SourceError(
            f"{archive} is neither a zip nor a tar archive, or its beginning is damaged"
        ) from error
    with tarred:
        yield _tar_entries(tarred)


def _zip_entry(zipped: zipfile.ZipFile, info: zipfile.ZipInfo) -> ArchiveEntry:
    kind = stat.S_IFMT(info.external_attr >> 16)
    refused = ""
    if kind == stat.S_IFLNK:
        refused = "links may not stand in a data set"
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        refused = "it is neither a file nor a folder"
    elif info.flag_bits & 0x1:
        refused = "it is encrypted"
    elif info.compress_type not in _READABLE_METHODS:
        refused = f"its compression method {info.compress_type} cannot be read"
    # `filename` is what zipfile made of the name (cut at a NUL); rules are for what really stands there.
    return ArchiveEntry(info.orig_filename, info.file_size, info.is_dir(), refused, lambda: zipped.open(info))


def _tar_entries(tarred: tarfile.TarFile) -> Iterator[ArchiveEntry]:
    for member in tarred:
        yield _tar_entry(tarred, member)
    # gzip's checksum stands behind the end of the tar, where tarfile does not read: only there flipped bits
    # show.
    rest = tarred.fileobj
    for _ in range(_MAX_PADDING // _PIECE):
        if rest is None or not rest.read(_PIECE):
            return
    raise tarfile.ReadError("too much follows its end")


def _tar_entry(tarred: tarfile.TarFile, member: tarfile.TarInfo) -> ArchiveEntry:
    refused = ""
    if member.issym() or member.islnk():
        refused = "links may not stand in a data set"
    elif not (member.isreg() or member.isdir()):
        refused = "it is neither a file nor a folder"

    def content() -> IO[bytes]:
        file = tarred.extractfile(member)
        if file is None:
            raise tarfile.ReadError(f"{member.name!r} has no content")
        return file

    return ArchiveEntry(member.name, member.size, member.isdir(), refused, content)


def _judged(archive: Path, entries: Iterable[ArchiveEntry], free: int) -> dict[PurePosixPath, ArchiveEntry]:
    """All entries by the path they will have, or an error about the first that breaks a rule."""
    accepted: dict[PurePosixPath, ArchiveEntry] = {}
    total = 0
    for entry in entries:
        total += entry.size + _DISK_BLOCK
        path = PurePosixPath(entry.name)
        rule = entry.refused or _name_rule(entry.name) or _clash(path, entry, accepted)
        if rule:
            raise SourceError(f"{archive}: the entry {entry.name!r} is refused: {rule}; nothing was unpacked")
        _refuse_too_much(archive, len(accepted), total, free)
        accepted[path] = entry
    for path, entry in accepted.items():
        for parent in path.parents:
            if parent in accepted and not accepted[parent].is_folder:
                raise SourceError(
                    f"{archive}: the entry {entry.name!r} is refused: {str(parent)!r} is a file and a folder "
                    "at once; nothing was unpacked"
                )
    return accepted


def _name_rule(name: str) -> str:
    """The rule that an entry's name breaks, or nothing."""
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    parts = name.split("/")
    rules = {
        "its path is absolute": name.startswith("/"),
        "its path starts with a drive letter": bool(re.match(r"[A-Za-z]:", name)),
        "its path leaves the archive (..)": ".." in parts,
        "its name contains a backslash": "\\" in name,
        "its name contains control characters": bool(re.search(r"[\x00-\x1f\x7f]", name)),
        "its name is empty": not name,
        f"its name is longer than {MAX_NAME_BYTES} bytes": max(
            len(part.encode()) for part in parts
        ) > MAX_NAME_BYTES,
        f"its path is longer than {MAX_PATH_BYTES} bytes": len(encoded) > MAX_PATH_BYTES,
    }  # fmt: skip
    return next((rule for rule, broken in rules.items() if broken), "")


def _clash(path: PurePosixPath, entry: ArchiveEntry, accepted: dict[PurePosixPath, ArchiveEntry]) -> str:
    """Folders may be listed twice, as tar does when files are appended; files may not."""
    if path in accepted and not (entry.is_folder and accepted[path].is_folder):
        return "another entry has the same name"
    return ""


def _refuse_too_much(archive: Path, entries: int, total: int, free: int) -> None:
    if entries >= MAX_ENTRIES:
        raise SourceError(f"{archive} has more than {MAX_ENTRIES:,} entries, which is refused")
    if total > HARMLESS_BYTES and total > MAX_RATIO * archive.stat().st_size:
        raise SourceError(
            f"{archive} would grow to more than {MAX_RATIO} times its size, like a decompression bomb; "
            "if you trust it, unpack it yourself and name the folder as the source"
        )
    if total > free:
        raise SourceError(
            f"{archive} needs at least {total / 1e9:.2f} GB, but only {free / 1e9:.2f} GB are free in "
            f"{cache_folder()}; free some, or set PLATFORM_CACHE to a folder on a larger disk"
        )


def _write(
    entries: dict[PurePosixPath, ArchiveEntry],
    folder: Path,
    archive: Path,
    progress: Progress,
    mode: Literal["xb", "wb"],
) -> None:
    task, total, done = f"unpacking {archive.name}", sum(entry.size for entry in entries.values()), 0
    for path, entry in entries.items():
        target = folder / path
        if entry.is_folder:
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with entry.open() as content, target.open(mode) as file:
            shutil.copyfileobj(content, file, _PIECE)
        done += entry.size
        progress(Step(task, done, total, "bytes"))


@contextmanager
def _damage_named(archive: Path) -> Iterator[None]:
    damaged = (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        NotImplementedError,
    )
    try:
        yield
    except damaged as error:
        raise SourceError(
            f"{archive} is damaged or was cut off ({error}); delete it and get it anew"
        ) from error
    except OSError as error:
        # bz2 and gzip report damage as OSError, and so does a disk that is full.
        raise SourceError(f"{archive} could not be unpacked into {cache_folder()}: {error}") from error
