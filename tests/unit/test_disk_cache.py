"""Values survive processes; a damaged or read-only file costs time and nothing else."""

from __future__ import annotations

import os

import pytest

from transfer_platform.disk_cache import FILE_NAME, DiskCache
from transfer_platform.paths import cache_folder


def test_values_are_found_by_key_within_their_namespace(isolated) -> None:
    one, other = DiskCache("one"), DiskCache("other")
    assert one.is_empty()
    one.put({f"{number}": bytes([number % 256]) for number in range(1200)})
    one.put({"7": b"new"})
    assert not one.is_empty()
    assert other.is_empty()
    found = DiskCache("one").get([*map(str, range(1200)), "missing"])
    assert len(found) == 1200
    assert (found["6"], found["7"]) == (b"\x06", b"new")
    assert other.get(["7"]) == {}
    assert one.get_all() == {**{str(n): bytes([n % 256]) for n in range(1200)}, "7": b"new"}
    assert other.get_all() == {}


def test_keys_may_be_file_names_that_are_not_utf8(isolated) -> None:
    values = {os.fsdecode(b"caf\xe9"): b"1", "caf\xe9": b"2", r"caf\xe9": b"3"}
    cache = DiskCache("names")
    cache.put(values)
    assert cache.get_all() == cache.get([*values]) == values


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_file_is_replaced(isolated, content: bytes) -> None:
    file = cache_folder() / FILE_NAME
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    cache = DiskCache("one")
    assert cache.get(["a"]) == {}
    cache.put({"a": b"1"})
    assert cache.get(["a"]) == {"a": b"1"}


def test_a_folder_in_its_place_is_no_error(isolated) -> None:
    (cache_folder() / FILE_NAME).mkdir(parents=True)
    cache = DiskCache("one")
    cache.put({"a": b"1"})
    assert cache.get(["a"]) == {}
