"""Valid and malicious archives; a refused archive leaves nothing on disk."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import stat
import struct
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from transfer_platform.errors import SourceError
from transfer_platform.paths import cache_folder
from transfer_platform.progress import Step
from transfer_platform.sources.archives import ArchiveLimits, unpack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONTENT = {"set/train/ant/a.jpg": b"a" * 1000, "set/train/bee/b.jpg": b"b" * 10, "set/note.txt": b""}


def zipped(entries: dict[str, bytes], path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            info = zipfile.ZipInfo("x")
            info.filename, info.compress_type = name, zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return path


def tarred(entries: dict[str, bytes], path: Path) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def compressed(compress: Callable[[bytes], bytes]) -> Callable[[dict[str, bytes], Path], Path]:
    def make(entries: dict[str, bytes], path: Path) -> Path:
        path.write_bytes(compress(tarred(entries, path).read_bytes()))
        return path

    return make


KINDS = {
    "zip": zipped,
    "tar": tarred,
    "gz": compressed(gzip.compress),
    "bz2": compressed(bz2.compress),
    "xz": compressed(lzma.compress),
}
every_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_refused(archive: Path, message: str, **limits: int) -> None:
    with pytest.raises(SourceError, match=message):
        unpack(archive, limits=ArchiveLimits(**limits))
    left = {path.suffix for path in (cache_folder() / "archives").glob("*")}
    assert left <= {".lock"}


@every_kind
def test_formats_are_detected_by_content(make: Callable[[dict[str, bytes], Path], Path], isolated: Path) -> None:
    archive = make(CONTENT, isolated / "photos.download")
    assert files_of(unpack(archive)) == CONTENT


def test_folders_are_named_by_checksum(isolated: Path) -> None:
    archive = zipped(CONTENT, isolated / "a.zip")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    folder = unpack(archive, digest)
    assert folder == cache_folder() / "archives" / digest
    assert unpack(archive.rename(isolated / "b.zip")) == folder


def test_another_checksum_is_refused(isolated: Path) -> None:
    with pytest.raises(SourceError, match=f"expected {'0' * 64}"):
        unpack(zipped(CONTENT, isolated / "a.zip"), "0" * 64)


def test_progress_ends_at_the_total(isolated: Path) -> None:
    steps: list[Step] = []
    unpack(zipped(CONTENT, isolated / "a.zip"), progress=steps.append)
    assert steps[-1] == Step("unpacking a.zip", 1010, 1010, "bytes")


@every_kind
@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("../evil", "leads outside the archive"),
        ("set/../../evil", "leads outside the archive"),
        ("/etc/evil", "absolute"),
        ("C:/evil", "drive letter"),
        ("c:evil", "drive letter"),
        ("..\\evil", "backslash"),
        ("set\\evil", "backslash"),
        ("\\\\host\\evil", "backslash"),
        ("set/e\x1b[2Jvil", "control characters"),
        ("set/" + "x" * 256, "longer than 255"),
        ("ä" * 128, "longer than 255"),
        ("/".join(["x" * 200] * 6), "longer than 1024"),
        ("set/train/ant/a.jpg/evil", "both a file and a folder"),
        ("./set/note.txt", "another entry has the same name"),
    ],
)
def test_refused_names(make: Callable[..., Path], name: str, rule: str, isolated: Path) -> None:
    assert_refused(make(CONTENT | {name: b"evil"}, isolated / "a"), rule)
    assert not list(isolated.parent.rglob("*evil*"))


def test_the_message_names_archive_entry_and_rule(isolated: Path) -> None:
    archive = zipped(CONTENT | {"../evil": b""}, isolated / "a.zip")
    assert_refused(archive, r"a\.zip: entry '\.\./evil' was rejected: .* nothing was unpacked")


def test_the_message_about_a_backslash_names_a_remedy(isolated: Path) -> None:
    """Some Windows programs separate the folders in a zip archive by backslashes."""
    archive = zipped({"photos\\ant\\1.png": b""}, isolated / "a.zip")
    assert_refused(archive, "unpack the archive and use the folder as the source")


def test_a_name_cut_at_a_nul_is_refused(isolated: Path) -> None:
    archive = zipped({"set/a.jpgXevil": b"x"}, isolated / "a.zip")
    archive.write_bytes(archive.read_bytes().replace(b"jpgX", b"jpg\0"))
    assert_refused(archive, "control characters")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFBLK, stat.S_IFCHR, stat.S_IFSOCK])
def test_zip_links_and_devices_are_refused(kind: int, isolated: Path) -> None:
    with zipfile.ZipFile(isolated / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("set/link")
        info.external_attr = (kind | 0o644) << 16
        archive.writestr(info, "/etc/passwd")
    assert_refused(
        isolated / "a.zip", "links are not allowed" if kind == stat.S_IFLNK else "neither a file nor a folder"
    )


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.BLKTYPE, tarfile.CHRTYPE])
def test_tar_links_and_devices_are_refused(kind: bytes, isolated: Path) -> None:
    with tarfile.open(isolated / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("set/a"))
        info = tarfile.TarInfo("set/link")
        info.type, info.linkname = kind, "set/a"
        archive.addfile(info)
    links = (tarfile.SYMTYPE, tarfile.LNKTYPE)
    assert_refused(isolated / "a.tar", "links are not allowed" if kind in links else "neither a file nor a folder")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_files_are_refused(isolated: Path) -> None:
    with zipfile.ZipFile(isolated / "a.zip", "w") as archive:
        archive.writestr("set/a", "1")
        archive.writestr("set/a", "2")
    assert_refused(isolated / "a.zip", "another entry has the same name")
    with tarfile.open(isolated / "a.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("set/a"))
        tar.addfile(tarfile.TarInfo("set/a"))
    assert_refused(isolated / "a.tar", "another entry has the same name")


def test_duplicate_folders_are_what_tar_writes_when_it_appends(isolated: Path) -> None:
    folder = tarfile.TarInfo("set")
    folder.type = tarfile.DIRTYPE
    with tarfile.open(isolated / "a.tar", "w") as tar:
        tar.addfile(folder)
        tar.addfile(folder)
    assert (unpack(isolated / "a.tar") / "set").is_dir()


def test_encrypted_entries_are_refused(isolated: Path) -> None:
    archive = zipped({"set/a": b"x"}, isolated / "a.zip")
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    archive.write_bytes(content)
    assert_refused(archive, "encrypted")


def test_unreadable_compression_is_refused(isolated: Path) -> None:
    archive = zipped({"set/a": b"x" * 50}, isolated / "a.zip")
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        start = content.index(signature) + offset
        content[start : start + 2] = struct.pack("<H", 9)
    archive.write_bytes(content)
    assert_refused(archive, "compression method 9")


def test_a_claimed_size_is_checked_before_anything_is_written(isolated: Path) -> None:
    archive = zipped({"set/a": b"x" * 50}, isolated / "a.zip")
    content = bytearray(archive.read_bytes())
    start = content.index(b"PK\x01\x02") + 24
    content[start : start + 4] = struct.pack("<I", 0xFFFFFFF0)
    archive.write_bytes(content)
    assert_refused(archive, "decompression bomb")


@every_kind
def test_bombs_are_refused(make: Callable[..., Path], isolated: Path) -> None:
    bomb = make({"set/zeros": bytes(3_000_000)}, isolated / "a")
    if make is tarred:
        unpacked = unpack(bomb, limits=ArchiveLimits(unchecked_bytes=100_000))
        assert files_of(unpacked) == {"set/zeros": bytes(3_000_000)}
    else:
        assert_refused(bomb, "200 times its size", unchecked_bytes=100_000)


def test_a_bomb_behind_the_end_is_refused(isolated: Path) -> None:
    archive = tarred(CONTENT, isolated / "a")
    archive.write_bytes(gzip.compress(archive.read_bytes() + bytes(6 << 20)))
    assert_refused(archive, "too much trailing data", trailing_bytes=4 << 20)


def test_a_full_disk_is_detected_before_unpacking(isolated: Path) -> None:
    archive = zipped(CONTENT, isolated / "a.zip")
    message = "set PLATFORM_CACHE to a folder on a larger disk"
    assert_refused(archive, message, block_bytes=1 << 60, unchecked_bytes=1 << 62)


def test_too_many_entries_are_refused(isolated: Path) -> None:
    assert_refused(zipped(CONTENT, isolated / "a.zip"), "more than 2 entries", entries=2)


@every_kind
@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_a_cut_archive_is_an_error_and_leaves_nothing(make: Callable[..., Path], keep: float, isolated: Path) -> None:
    noise = hashlib.shake_256(b"").digest(200_000)
    archive = make({"set/a": noise[:100_000], "set/b": noise[100_000:]}, isolated / "a")
    archive.write_bytes(archive.read_bytes()[: int(keep * archive.stat().st_size)])
    assert_refused(archive, "a is corrupt|could not be unpacked|its header is corrupt")


@every_kind
def test_flipped_bytes_are_an_error_and_leave_nothing(make: Callable[..., Path], isolated: Path) -> None:
    if make is tarred:
        return  # a plain tar has no checksum over its content
    archive = make({"set/a": hashlib.shake_256(b"").digest(100_000)}, isolated / "a")
    content = bytearray(archive.read_bytes())
    content[50_000:50_010] = bytes(10)
    archive.write_bytes(content)
    assert_refused(archive, "a is corrupt|could not be unpacked|its header is corrupt")


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK", b"PK\x03\x04", b"\x1f\x8b\x08"])
def test_other_files_are_refused(content: bytes, isolated: Path) -> None:
    (isolated / "a.zip").write_bytes(content)
    assert_refused(isolated / "a.zip", "neither a zip nor a tar archive|is corrupt")


def test_a_folder_that_lost_files_is_unpacked_again(isolated: Path) -> None:
    archive = zipped(CONTENT, isolated / "a.zip")
    (unpack(archive) / "set/train/ant/a.jpg").unlink()
    assert files_of(unpack(archive)) == CONTENT


def test_what_a_killed_process_left_is_replaced(isolated: Path) -> None:
    archive = zipped(CONTENT, isolated / "a.zip")
    partial = cache_folder() / "archives" / f"{hashlib.sha256(archive.read_bytes()).hexdigest()}.partial"
    (partial / "set" / "train").mkdir(parents=True)
    (partial / "set" / "left-over").write_bytes(b"half")
    assert files_of(unpack(archive)) == CONTENT
