"""Mirrors and cache limits from the environment."""

from __future__ import annotations

import pytest

from transfer_platform import paths
from transfer_registry.errors import StorageError


def test_mirrors_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert paths.mirrors() == ()
    monkeypatch.setenv("PLATFORM_MIRROR", "/data/mirror, https://mirror.example/files ,")
    assert paths.mirrors() == ("/data/mirror", "https://mirror.example/files")


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("", paths.DEFAULT_LIMIT),
        ("0", 0),
        ("50GB", 50 * 10**9),
        ("1.5 gib", 3 * 2**29),
        ("512M", 512 * 10**6),
        ("1234", 1234),
    ],
)
def test_the_limit_of_the_cache_is_an_amount(monkeypatch: pytest.MonkeyPatch, text: str, limit: int) -> None:
    monkeypatch.setenv("PLATFORM_CACHE_LIMIT", text)
    assert paths.cache_limit() == limit


@pytest.mark.parametrize("text", ["much", "-1", "5 PB", "GB"])
def test_an_invalid_limit_is_an_error(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("PLATFORM_CACHE_LIMIT", text)
    with pytest.raises(StorageError, match="must be a size such as 50GB, 512MiB or 0"):
        paths.cache_limit()
