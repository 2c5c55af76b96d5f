"""The limit holds: the least recently used files are evicted, never files in use."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from transfer_model.errors import TransferError
from transfer_platform.tensor_store.errors import StoreFullError
from transfer_platform.tensor_store.eviction import clear, list_files, total_bytes
from transfer_platform.tensor_store.segment import RowSpec
from transfer_platform.tensor_store.store import Store

SPEC = RowSpec((1000,), "uint8")
KEYS = list("abcdefghij")
TEN_ROWS = 12_000
"""Approximate bytes of ten rows with their keys and checksums."""


def fill(store: Store, address: str, keys: list[str] = KEYS) -> int:
    """Requests rows; returns how many were computed."""
    computed = []

    def compute(missing):
        computed.extend(missing)
        yield torch.full((len(missing), 1000), len(address), dtype=torch.uint8)

    rows = store.get_or_compute(address, SPEC, keys, compute)
    assert torch.equal(rows.take(range(len(keys))), torch.full((len(keys), 1000), len(address)).byte())
    return len(computed)


def age(folder: Path, address: str, seconds: int) -> None:
    for path in (folder / address).iterdir():
        os.utime(path, (seconds, seconds))


def addresses(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("*/*.rows")}


class TestEviction:
    def test_the_least_recently_used_file_is_evicted(self, folder: Path) -> None:
        store = Store(folder, limit=3 * TEN_ROWS)
        for seconds, address in enumerate(["aa", "bb", "cc"]):
            fill(store, address)
            age(folder, address, seconds)
        assert fill(store, "aa") == 0  # used now
        fill(store, "dd")
        assert addresses(folder) == {"aa", "cc", "dd"}
        assert total_bytes(folder) <= 3 * TEN_ROWS
        assert not (folder / "bb").exists()

    def test_an_evicted_address_is_computed_again(self, folder: Path) -> None:
        store = Store(folder, limit=TEN_ROWS)
        assert [fill(store, address) for address in ("aa", "bb", "aa", "aa")] == [10, 10, 10, 0]

    def test_rows_that_are_being_computed_stay(self, folder: Path) -> None:
        store = Store(folder, limit=2 * TEN_ROWS)
        fill(store, "aa")
        age(folder, "aa", 1)
        fill(store, "bb")
        with FileLock(folder / ".locks" / "aa.lock"):
            fill(store, "cc")
        assert addresses(folder) == {"aa", "cc"}

    def test_the_requested_rows_stay(self, folder: Path) -> None:
        store = Store(folder, limit=TEN_ROWS)
        fill(store, "aa", KEYS[:8])
        age(folder, "aa", 1)
        with pytest.raises(StoreFullError, match=r"PLATFORM_CACHE_LIMIT"):
            fill(store, "aa", [*KEYS, "more", "rows"])
        assert fill(store, "aa", KEYS[:8]) == 0

    def test_rows_that_are_not_requested_are_evicted(self, folder: Path) -> None:
        store = Store(folder, limit=TEN_ROWS)
        fill(store, "aa", list("0123456789"))
        assert fill(store, "aa", KEYS) == 10
        assert fill(store, "aa", KEYS) == 0
        assert total_bytes(folder) <= TEN_ROWS

    def test_evicted_rows_remain_readable(self, folder: Path) -> None:
        store = Store(folder, limit=TEN_ROWS, in_memory_bytes=0)
        rows = store.get_or_compute("aa", SPEC, KEYS, lambda _: iter([torch.full((10, 1000), 7).byte()]))
        fill(store, "bb")
        assert addresses(folder) == {"bb"}
        assert torch.equal(rows.take([3]), torch.full((1, 1000), 7).byte())


class TestTooMuch:
    def test_nothing_is_computed_or_evicted_for_rows_that_never_fit(self, folder: Path) -> None:
        store = Store(folder, limit=TEN_ROWS)
        fill(store, "aa")
        with pytest.raises(StoreFullError, match=r"no room for another 0\.0 MB"):
            store.get_or_compute("bb", SPEC, [f"{n}" for n in range(11)], lambda _: pytest.fail("computed"))
        assert fill(store, "aa") == 0

    def test_fits_predicts_it(self, folder: Path) -> None:
        store = Store(folder, limit=TEN_ROWS)
        assert store.fits(SPEC, 10)
        assert not store.fits(SPEC, 11)
        store = Store(folder, limit=TEN_ROWS, free_bytes=lambda _: TEN_ROWS // 2)
        assert store.fits(SPEC, 5)
        assert not store.fits(SPEC, 10)
        fill(store, "aa", KEYS[:5])
        assert store.fits(SPEC, 9), "stored rows may be evicted"

    def test_the_disk_keeps_a_reserve(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        disk = shutil._ntuple_diskusage(total=100 << 30, used=0, free=(1 << 30) + 5000)
        monkeypatch.setattr("shutil.disk_usage", lambda _: disk)
        store = Store(folder, limit=1 << 30)
        assert fill(store, "aa", KEYS[:4]) == 4
        with pytest.raises(TransferError, match=r"0\.0 MB of disk space is available"):
            fill(store, "bb")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB: a tmpfs, or a file size limit if mounting is not permitted."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode == 0:
        yield tmp_path
        subprocess.run(["umount", "-l", tmp_path], check=True)
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    yield tmp_path
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestFullDisk:
    def test_writing_stops_and_leaves_no_unfinished_file(self, small_disk: Path) -> None:
        folder = small_disk / "features"
        # Otherwise the store would refuse before it writes.
        store = Store(folder, 1 << 30, free_bytes=lambda _: 1 << 40)
        keys = [f"{number}" for number in range(3000)]
        with pytest.raises(StoreFullError, match=r"is full.*`platform cache clear`"):
            fill(store, "aa", keys)
        assert not list(folder.glob("[!.]*/*"))
        assert fill(store, "aa", keys[:100]) == 100
        assert fill(store, "aa", keys[:100]) == 0

    def test_a_small_disk_is_detected_before_computing(self, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        disk = shutil._ntuple_diskusage(total=1 << 20, used=0, free=1 << 20)
        monkeypatch.setattr("shutil.disk_usage", lambda _: disk)
        store = Store(small_disk, 1 << 30)
        assert not store.fits(SPEC, 1000)
        with pytest.raises(StoreFullError):
            fill(store, "aa", [f"{number}" for number in range(1000)])

    def test_finished_segments_remain(self, small_disk: Path) -> None:
        def free_bytes(_: Path) -> int:
            return 0 if len(list(small_disk.rglob("*.rows"))) == 2 else 1 << 40

        store = Store(small_disk / "features", 1 << 30, segment_bytes=1000 * 300, free_bytes=free_bytes)
        keys = [f"{number}" for number in range(3000)]
        with pytest.raises(StoreFullError):
            fill(store, "aa", keys)
        assert fill(store, "aa", keys[:600]) == 0


class TestCacheCommands:
    def test_an_empty_store(self, folder: Path) -> None:
        assert list_files(folder) == list_files(folder.parent / "other") == []
        assert total_bytes(folder) == 0
        assert clear(folder).files == 0

    def test_stored_files_least_recently_used_first(self, store: Store, folder: Path) -> None:
        fill(store, "aa")
        fill(store, "bb", KEYS[:2])
        fill(store, "bb")
        age(folder, "aa", 7)
        age(folder, "bb", 9)
        files = list_files(folder)
        assert [(file.path.parent.name, file.last_use) for file in files] == [("aa", 7), ("bb", 9), ("bb", 9)]
        assert total_bytes(folder) == sum(path.stat().st_size for path in folder.glob("*/*.rows"))

    def test_clear_skips_rows_that_are_being_computed(self, store: Store, folder: Path) -> None:
        fill(store, "aa")
        fill(store, "bb")
        before = total_bytes(folder)
        with FileLock(folder / ".locks" / "bb.lock"):
            cleared = clear(folder)
        assert (cleared.files, cleared.skipped) == (1, ("bb",))
        assert cleared.bytes + total_bytes(folder) == before
        assert (fill(store, "aa"), fill(store, "bb")) == (10, 0)

    def test_clear_removes_unfinished_files(self, store: Store, folder: Path) -> None:
        fill(store, "aa")
        (folder / "aa" / "000002.rows.part").write_bytes(b"half")
        assert clear(folder).files == 2
        assert not list_files(folder)
