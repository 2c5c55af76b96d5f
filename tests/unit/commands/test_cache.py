"""`platform cache clear --all` deletes cached data and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from transfer_platform import paths
from transfer_platform.commands.cache import DESCRIPTIONS, clear_cache
from transfer_registry.errors import StorageError


def fill(name: str) -> Path:
    file = paths.cache_folder() / name / "file"
    file.parent.mkdir(parents=True)
    file.write_bytes(bytes(1000))
    return file


@pytest.mark.usefixtures("isolated")
def test_all_kinds_of_cached_data_are_deleted() -> None:
    files = [fill(name) for name in DESCRIPTIONS if name != "features"]
    assert clear_cache(everything=True) == f"{len(files)}.0 kB freed"
    assert not any(file.exists() for file in files)


@pytest.mark.usefixtures("isolated")
def test_nothing_is_deleted_from_a_folder_that_is_not_only_the_cache() -> None:
    files = [fill("images"), fill("Photos")]
    with pytest.raises(StorageError, match="that are not part of the cache: Photos; set PLATFORM_CACHE to a"):
        clear_cache(everything=True)
    assert all(file.exists() for file in files)
    clear_cache()
    assert all(file.exists() for file in files)
