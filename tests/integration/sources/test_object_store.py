"""Manifests of images on servers: fetched once, identified by version, reported like other files."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import pytest

from transfer_platform.data.dataset import open_dataset
from transfer_platform.data.splits import Splits, fingerprint
from transfer_platform.errors import DataError, SourceError
from transfer_platform.inspection.inspection import Inspection
from transfer_platform.inspection.preflight import preflight, require_valid
from transfer_platform.inspection.report import manifest
from transfer_platform.paths import cache_folder
from transfer_platform.progress import Step
from transfer_platform.recipe.schema import DatasetConfig
from transfer_platform.recipe.schema import SplitsConfig as Declared
from transfer_platform.sources import object_store
from transfer_platform.sources.png import encode_png

if TYPE_CHECKING:
    from .conftest import Site

NAMES = [f"{label}/{number}.png" for label in ("ant", "bee") for number in range(8)]


@pytest.fixture(autouse=True)
def _no_pauses(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def png(text: str) -> bytes:
    return encode_png(hashlib.sha512(text.encode()).digest(), 8)


@pytest.fixture
def photos(site: Site) -> Site:
    """A server with images, and in the current folder a manifest that names them."""
    site.files |= {f"/set/{name}": png(name) for name in NAMES}
    listed([f"{site.url}/set/{name}" for name in NAMES])
    return site


def listed(paths: list[str], labels: list[str] | None = None) -> str:
    labels = labels or [name.partition("/")[0] for name in NAMES]
    lines = [f"{path},{label}\n" for path, label in zip(paths, labels, strict=True)]
    Path("photos.csv").write_text("".join(["path,label\n", *lines]))
    return "photos.csv"


def declared(source: str = "photos.csv", **options: Any) -> DatasetConfig:
    return DatasetConfig(source=source, splits=Declared(test=0.4), **options)


def read(source: str = "photos.csv", **options: Any) -> Splits:
    return require_valid(*preflight(open_dataset(declared(source, **options), Path())))


def inspected(**options: Any) -> Inspection:
    return preflight(open_dataset(declared(**options), Path()))[0]


def test_images_are_fetched_once_and_are_the_same_data_as_in_folders(photos: Site, splits_of) -> None:
    for name in NAMES:
        (Path("set") / name).parent.mkdir(exist_ok=True, parents=True)
        (Path("set") / name).write_bytes(png(name))
    steps: list[Step] = []
    source = open_dataset(declared(), Path(), steps.append)
    assert steps[len(NAMES) - 1] == Step("downloading images in photos.csv", 16, 16, "images")
    assert len(photos.requests) == len(photos.heads_answered) == 16
    splits = read()
    assert splits.fingerprint == splits_of(Path("set"), ".", 0.2, 0.4).fingerprint
    assert len(photos.requests) == 16, "they were fetched again"
    assert all(each.path.is_relative_to(cache_folder() / "images") for each in splits.train)
    assert {each.path.name for each in source.catalogs["train"].images} == {f"{n}.png" for n in range(8)}
    assert not [*cache_folder().rglob("*.part")]


def test_reports_name_urls(photos: Site) -> None:
    photos.files["/set/ant/0.png"] = b"no image"
    found, splits = preflight(open_dataset(declared(on_bad_image="skip"), Path()))
    assert splits is not None
    [bad] = found.by_kind("unsupported format")
    assert found.line(bad).startswith(f"{photos.url}/set/ant/0.png: it is not an image")
    assert "(photos.csv, line 2)" in found.line(bad)
    assert f",{photos.url}/set/bee/7.png\n" in manifest(found, splits)


def test_a_changed_image_is_fetched_again(photos: Site) -> None:
    before = read()
    photos.etag = '"2"'
    photos.files["/set/ant/0.png"] = png("another")
    after = read()
    assert {png_sha("another")} == digests(after) - digests(before)
    assert len(photos.requests) == 32


def png_sha(text: str) -> str:
    return hashlib.sha256(png(text)).hexdigest()


def digests(splits: Splits) -> set[str]:
    return {each.sha256 for images in splits.by_name.values() for each in images}


@pytest.mark.parametrize(("heads", "lengths"), [(False, True), (True, False), (False, False)])
def test_servers_without_metadata(heads: bool, lengths: bool, photos: Site) -> None:
    photos.heads, photos.lengths, photos.etag = heads, lengths, ""
    assert digests(read()) == {png_sha(name) for name in NAMES}


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (404, "the store has no such file"), (403, "denies access"), (401, "requires authentication"),
        (410, "no longer has it"), (418, "returned 418"),
    ],
)  # fmt: skip
def test_what_a_server_refuses_is_a_problem_of_that_file(status: int, words: str, photos: Site) -> None:
    photos.refusals = {"/set/ant/3.png": status}
    found = inspected()
    [error] = found.errors
    assert error.kind == "unreadable"
    assert found.line(error).startswith(f"{photos.url}/set/ant/3.png: it cannot be downloaded: ")
    assert error.detail.endswith(f"{words} (photos.csv, line 5)")
    assert len(digests(read(on_bad_image="skip"))) == 15
    photos.heads_answered.clear()
    assert len(digests(read(exclude=(f"{photos.url}/set/ant/3.png",)))) == 15
    assert "/set/ant/3.png" not in photos.heads_answered


def test_a_server_that_fails_temporarily_is_tried_again(photos: Site) -> None:
    photos.failures = [500, 503, 429]
    assert len(digests(read())) == 16


def test_a_server_that_is_unreachable_is_an_error_even_where_bad_images_are_skipped(photos: Site) -> None:
    """Otherwise the training set would depend on the network."""
    photos.refusals = {"/set/bee/7.png": 500}
    with pytest.raises(SourceError, match=r"/set/bee/7.png could not be downloaded: HTTP status 500; .* again"):
        read(on_bad_image="skip")
    photos.refusals.clear()
    before = len(photos.requests)
    assert len(digests(read())) == 16
    assert len(photos.requests) - before == 1, "images in the cache were fetched again"
    listed(["http://127.0.0.1:9/a.png", *(f"{photos.url}/set/{name}" for name in NAMES[1:])])
    with pytest.raises(SourceError, match=r"127.0.0.1:9/a.png could not be downloaded: ConnectionRefused"):
        read(on_bad_image="skip")


def test_a_transfer_that_is_interrupted_leaves_nothing_and_is_tried_again(photos: Site) -> None:
    photos.cuts = [20, 10, 30]
    assert digests(read()) == {png_sha(name) for name in NAMES}


@pytest.mark.parametrize("lengths", [True, False])
def test_too_large_a_file_is_not_fetched(lengths: bool, photos: Site, monkeypatch) -> None:
    monkeypatch.setattr(object_store, "MAX_BYTES", 1000)
    photos.lengths = lengths
    photos.files["/set/ant/1.png"] = bytes(1001)
    [error] = inspected().errors
    assert error.kind == "too many bytes"
    assert not [*cache_folder().rglob("*.part")]


def test_secrets_in_queries_are_not_shown_and_files_are_distinguished(photos: Site) -> None:
    photos.files["/image"] = b"no image"
    paths = [f"{photos.url}/set/{name}" for name in NAMES]
    listed([f"{photos.url}/image?key=s3cret1", f"{photos.url}/image?key=s3cret2", *paths[2:]])
    found = inspected()
    names = sorted(found.name(each.files[0]) for each in found.errors)
    assert names == [f"{photos.url}/image (line 2)", f"{photos.url}/image (line 3)"]
    photos.refusals = {"/image?key=s3cret1": 500}
    with pytest.raises(SourceError) as raised:
        read()
    assert "s3cret" not in str(raised.value)


class TestFetchedManifest:
    """A downloaded manifest may list files beside itself, but no local files."""

    def test_paths_are_relative_to_its_address(self, photos: Site) -> None:
        photos.files["/set/ant/sp ace#1%.png"] = png("odd")
        names = ["ant/sp ace#1%.png", "./ant//1.png", *NAMES[2:]]
        listed(names)
        photos.files["/set/photos.csv"] = Path("photos.csv").read_bytes()
        for name in [*photos.files]:
            photos.files[name.replace(" ", "%20").replace("#", "%23").replace("%.", "%25.")] = photos.files[name]
        Path("photos.csv").unlink()
        found, splits = preflight(open_dataset(declared(f"{photos.url}/set/photos.csv"), Path()))
        assert digests(splits) == {png_sha("odd"), *(png_sha(name) for name in NAMES[1:])}
        assert found.name(splits.train[0].path).startswith(f"{photos.url}/set/")

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            ("/etc/passwd", "is absolute, which is not allowed in a downloaded manifest"),
            ("//host/a.png", "is absolute"),
            ("../secret.png", r"points outside the manifest's folder \(..\)"),
            ("ant/../../secret.png", r"points outside the manifest's folder \(..\)"),
            ("file:///etc/passwd", "cannot be .*supported schemes: https://"),
            ("local:///etc/passwd", "cannot be "),
            ("reference://x", "cannot be "),
        ],
    )
    def test_refused_paths(self, path: str, message: str, photos: Site) -> None:
        listed([path, *NAMES[1:]])
        photos.files["/set/photos.csv"] = Path("photos.csv").read_bytes()
        with pytest.raises(DataError, match=f"photos.csv, line 2: {path} {message}"):
            read(f"{photos.url}/set/photos.csv")

    @pytest.mark.parametrize("path", ["file:/etc/hostname", "simplecache::file:///etc/hostname"])
    def test_other_schemes_are_file_names_on_the_server(self, path: str, photos: Site) -> None:
        listed([path, *NAMES[1:]])
        photos.files["/set/photos.csv"] = Path("photos.csv").read_bytes()
        found, _ = preflight(open_dataset(declared(f"{photos.url}/set/photos.csv"), Path()))
        [error] = found.errors
        assert error.kind == "unreadable"
        assert "has no such file" in error.detail


class TestOtherStores:
    """Stores other than http."""

    @pytest.fixture
    def memory(self) -> Iterator[Any]:
        system = fsspec.filesystem("memory")
        for name in NAMES:
            system.pipe(f"/set/{name}", png(name))
        yield system
        system.store.clear()

    def test_an_object_store(self, memory: Any) -> None:
        listed([f"memory://set/{name}" for name in NAMES])
        before = read()
        memory.rm("/set/ant/0.png")
        [error] = inspected().errors
        assert error.detail == "it cannot be downloaded: the store has no such file (photos.csv, line 2)"
        memory.pipe("/set/ant/0.png", png("another"))
        assert digests(read()) - digests(before) == {png_sha("another")}
        local = Path("bee0.png")
        local.write_bytes(png("ant/0.png"))
        listed(["bee0.png", *(f"memory://set/{name}" for name in NAMES[1:])])
        assert fingerprint(read().test) == fingerprint(before.test), "some here, some there"

    def test_a_package_that_is_missing_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "gcsfs", None)
        listed([f"gs://bucket/{name}" for name in NAMES])
        with pytest.raises(SourceError, match=r"gs:// images require a package .*; run `pip install gcsfs`"):
            read()


def test_a_recipe_with_urls_on_the_command_line(photos: Site, isolated: Path) -> None:
    photos.refusals = {"/set/ant/0.png": 404}
    (isolated / "recipe.yaml").write_text(
        "name: far\ndataset:\n  source: photos.csv\n  splits: {test: 0.4}\nbackbone: {name: efficientnet_lite0}\n"
    )
    command = [str(Path(sys.executable).with_name("platform")), "data", "recipe.yaml", "--no-features", "--json"]
    ended = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    kinds = {each["kind"]: each["files"] for each in json.loads(ended.stdout)["findings"]}
    assert kinds["unreadable"] == [f"{photos.url}/set/ant/0.png"]
