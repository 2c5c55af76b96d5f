"""Checksums are computed again only for files that have changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from transfer_platform.disk_cache import FILE_NAME, DiskCache
from transfer_platform.paths import cache_folder
from transfer_platform.sources import checksums
from transfer_platform.sources.checksums import Checksum, ChecksumCache, FileStamp, cached_sha256, cached_sha256s

STAMP = FileStamp(10, 1_700_000_000_123_456_789, 1_700_000_000_123_456_790)
DIGEST = "0123456789abcdef" * 4


def test_a_checksum_is_found_until_the_file_changes(isolated: Path) -> None:
    cache = ChecksumCache("photos")
    cache.put("ant/1.png", STAMP, DIGEST)
    assert cache.get("ant/1.png", STAMP) == DIGEST
    assert ChecksumCache("photos").get("ant/1.png", STAMP) is None, "it is not saved yet"
    cache.save()
    stored = ChecksumCache("photos")
    assert stored.get("ant/1.png", STAMP) == DIGEST
    assert stored.get("ant/2.png", STAMP) is None
    assert ChecksumCache("other photos").get("ant/1.png", STAMP) is None
    for changed in (STAMP._replace(size=11), STAMP._replace(modified=1), STAMP._replace(changed=1)):
        assert stored.get("ant/1.png", changed) is None


def test_saving_keeps_other_entries_and_replaces_outdated_ones(isolated: Path) -> None:
    first, second = ChecksumCache("photos"), ChecksumCache("photos")
    first.put("a", STAMP, DIGEST)
    first.save()
    second.put("b", STAMP, DIGEST)
    second.put("a", STAMP._replace(size=11), DIGEST[::-1])
    second.save()
    stored = ChecksumCache("photos")
    assert stored.get("b", STAMP) == DIGEST
    assert stored.get("a", STAMP._replace(size=11)) == DIGEST[::-1]


def test_names_need_not_be_utf8(isolated: Path) -> None:
    names = [os.fsdecode(b"caf\xe9.png"), r"caf\xe9.png", "café.png"]
    cache = ChecksumCache(os.fsdecode(b"/photos\xe9"))
    for number, name in enumerate(names):
        cache.put(name, STAMP._replace(size=number), DIGEST)
    cache.save()
    stored = ChecksumCache(os.fsdecode(b"/photos\xe9"))
    assert all(stored.get(name, STAMP._replace(size=number)) for number, name in enumerate(names))


@pytest.mark.parametrize("value", [b"", b"x", bytes(55), bytes(57)])
def test_damaged_entries_are_ignored(value: bytes, isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = isolated / "a.png"
    file.write_bytes(b"a")
    expected = cached_sha256(file)
    monkeypatch.setattr(DiskCache, "get_all", lambda _: {str(file): value})
    assert cached_sha256(file) == expected


def test_unchanged_files_are_not_read_again(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [isolated / name for name in ("a", "b")]
    for file in files:
        file.write_text(file.name)
    read: list[str] = []
    file_digest = checksums.file_digest
    monkeypatch.setattr(checksums, "file_digest", lambda path: read.append(path.name) or file_digest(path))
    digests = cached_sha256s(files, "scope")
    assert digests == [file_digest(file) for file in files]
    files[1].write_text("changed")
    assert cached_sha256s(files, "scope") == [digests[0], file_digest(files[1])]
    assert read == ["a", "b", "b"]


def test_what_was_read_before_an_interruption_is_saved(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [isolated / name for name in ("a", "b")]
    files[0].write_text("a")
    with pytest.raises(FileNotFoundError):
        cached_sha256s(files, "scope")
    monkeypatch.setattr(checksums, "file_digest", lambda _: pytest.fail("read again"))
    assert len(cached_sha256s(files[:1], "scope")[0]) == 64


def test_a_lost_cache_costs_time_only(isolated: Path) -> None:
    file = isolated / "a.zip"
    file.write_bytes(b"a")
    digest = cached_sha256(file)
    (cache_folder() / FILE_NAME).write_bytes(b"no database")
    assert cached_sha256(file) == digest
    assert Checksum(digest[:8]).mismatch(file) == ""
    assert Checksum("0").mismatch(file) == f"its sha256 is {digest}, expected 0"
