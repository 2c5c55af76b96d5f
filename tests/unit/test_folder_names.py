"""Data, cache, working folder and TMPDIR may have any name, and nothing appears beside them."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
import torch

from transfer_platform import databases
from transfer_platform.data.catalog import scan_folder
from transfer_platform.disk_cache import DiskCache
from transfer_platform.paths import cache_folder, features_folder
from transfer_platform.search.study import Study
from transfer_platform.sources.archives import unpack
from transfer_platform.tensor_store.segment import RowSpec
from transfer_platform.tensor_store.store import Store
from transfer_registry import mlflow_server
from transfer_registry.errors import RegistryError, StorageError
from transfer_registry.files import atomic_database, sqlite_file, sqlite_url
from transfer_registry.ledger import Ledger
from transfer_registry.model_uri import model_uri

NAMES = [
    "My Disk",
    "José",
    "Jose\N{COMBINING ACUTE ACCENT}",
    "日本",
    "h#x",
    "q?x=1&y",
    "p%20x",
    "100%",
    "[a]*{b}",
    "a'b\"c",
    "$HOME;~",
    "back\\slash",
    "at@host:8",
    "My Disk é#?%2F",
]
NAMES_OF_IMAGES = ["ants/1.png", "bees/2 #.png", "bees/%20?.png"]


@pytest.fixture(params=NAMES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder of this name, alone in its parent folder; afterwards it is still alone."""
    folder = tmp_path / "parent" / request.param
    folder.mkdir(parents=True)
    yield folder
    assert [*folder.parent.iterdir()] == [folder]


def test_data(place: Path, isolated: Path, write_image: Callable[[Path, str], None]) -> None:
    for name in NAMES_OF_IMAGES:
        write_image(place / name, name)
    catalog = scan_folder(place)
    assert {str(image.path.relative_to(place)) for image in catalog.images} == set(NAMES_OF_IMAGES)


def test_the_cache(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATFORM_CACHE", str(place))
    DiskCache("lengths").put({"a": b"1"})
    assert DiskCache("lengths").get(["a"]) == {"a": b"1"}
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("a.txt", "text")
    assert (unpack(tmp_path / "images.zip") / "a.txt").read_text() == "text"
    rows = torch.arange(6.0).reshape(2, 3)
    store = Store(features_folder(), limit=1 << 20)
    for _ in range(2):
        stored = store.get_or_compute("0" * 64, RowSpec((3,), "float32"), ["a" * 64, "b" * 64], lambda _: iter([rows]))
        assert torch.equal(stored.take([0, 1]), rows)
    assert cache_folder() == place


def test_studies_and_ledger_of_the_working_folder(place: Path, isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_server, "_require_folder_name", lambda folder: None)
    monkeypatch.chdir(place)
    with atomic_database(databases.studies_url()) as url:
        Study("digits", url, {}, minimizes=True, seed=0, pruning=False).close()
    Study("digits", databases.studies_url(), {}, minimizes=True, seed=0, pruning=False).close()
    with Ledger.open(databases.ledger_url()) as ledger:
        assert not ledger.entries()
    assert {"studies", "ledger.db"} <= {file.name for file in place.iterdir()}
    assert (place / "studies" / "studies.db").stat().st_size > 0


def test_temporary_files(
    place: Path, isolated: Path, monkeypatch: pytest.MonkeyPatch, write_image: Callable[[Path, str], None]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    write_image(isolated / "data" / "ants" / "1.png", "1")
    assert len(scan_folder(isolated / "data").images) == 1


def test_the_url_of_a_database_names_its_file(place: Path) -> None:
    assert sqlite_file(sqlite_url(place / "mlflow.db")) == place / "mlflow.db"


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "postgresql://me@db/a", "http://a", "/a/mlruns"])
def test_other_urls_name_no_file(url: str) -> None:
    assert sqlite_file(url) is None


def test_the_default_tracking_uri_follows_the_current_folder(
    isolated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (tmp_path / "My Disk", tmp_path / "q?x"):
        folder.mkdir()
        monkeypatch.chdir(folder)
        assert sqlite_file(mlflow_server.tracking_uri()) == folder / "mlflow.db"
        assert mlflow.get_tracking_uri() == os.environ["MLFLOW_TRACKING_URI"] == mlflow_server.tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/other.db")
    assert mlflow_server.tracking_uri() == f"sqlite:///{tmp_path}/other.db"


def test_a_registry_in_another_place_than_the_runs_is_refused(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow.set_tracking_uri(None)
    for same in ("", "sqlite:///mlflow.db", sqlite_url(isolated / "mlflow.db")):
        monkeypatch.setenv("MLFLOW_REGISTRY_URI", same)
        assert sqlite_file(mlflow_server.tracking_uri()) == isolated / "mlflow.db"
    for other in ("sqlite:///registry.db", "http://registry:5000", str(isolated / "mlruns")):
        monkeypatch.setenv("MLFLOW_REGISTRY_URI", other)
        with pytest.raises(StorageError, match=r"point to different places.*unset MLFLOW_REGISTRY_URI"):
            mlflow_server.tracking_uri()


@pytest.mark.parametrize("name", ["p%20x", "p%2f"])
def test_a_working_folder_whose_name_mlflow_decodes_is_refused(
    name: str, isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (isolated / name).mkdir()
    monkeypatch.chdir(isolated / name)
    mlflow.set_tracking_uri(None)
    with pytest.raises(StorageError, match=f"MLflow cannot store models in .*{name}, because it decodes {name[1:4]}"):
        mlflow_server.tracking_uri()
    (isolated / name / "MLmodel").touch()
    with pytest.raises(RegistryError, match="MLflow cannot load a model from"):
        model_uri(str(isolated / name))
    assert [*isolated.iterdir()] == [isolated / name]
