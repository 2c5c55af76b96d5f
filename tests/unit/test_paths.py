"""Databases that would collide, or that nobody else would see, are refused before anything is written."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest

from transfer_platform import paths
from transfer_registry.errors import StorageError


@pytest.fixture(autouse=True)
def forgets_tracking_uri(isolated: Path):
    yield
    mlflow.set_tracking_uri(None)


def test_with_nothing_set_everything_stands_in_this_folder(isolated: Path) -> None:
    assert paths.studies_url() == f"sqlite:///{isolated}/studies/studies.db"
    assert paths.ledger_url() == f"sqlite:///{isolated}/ledger.db"


def test_a_postgresql_database_holds_studies_and_ledger_in_schemas_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PLATFORM_DATABASE_URL", "postgresql://me:secret@db/platform")
    assert paths.studies_url() == (
        "postgresql+psycopg://me:secret@db/platform?options=-csearch_path%3Dstudies"
    )
    assert paths.ledger_url().endswith("search_path%3Dledger")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "is not a database URL"),
        ("mysql://db/platform", "is a mysql URL"),
        ("sqlite:///mlflow.db", "is a sqlite URL"),
    ],
)
def test_other_databases_are_refused(monkeypatch: pytest.MonkeyPatch, url: str, message: str) -> None:
    monkeypatch.setenv("PLATFORM_DATABASE_URL", url)
    with pytest.raises(StorageError, match=message):
        paths.studies_url()


def test_a_schema_that_is_mlflows_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATFORM_DATABASE_URL", "postgresql://me@db/platform")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me@db:5432/platform?options=-csearch_path=ledger")
    with pytest.raises(StorageError, match="the same schema 'ledger'"):
        paths.ledger_url()
    assert paths.studies_url()


def test_a_remote_server_with_a_local_ledger_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    with pytest.raises(StorageError, match="set PLATFORM_DATABASE_URL"):
        paths.ledger_url()


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
def test_a_limit_that_is_no_amount_is_an_error(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("PLATFORM_CACHE_LIMIT", text)
    with pytest.raises(StorageError, match="must be an amount such as 50GB, 512MiB or 0"):
        paths.cache_limit()
