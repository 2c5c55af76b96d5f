"""Downloads from servers that interrupt, change files, refuse and send wrong data."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from transfer_platform.errors import SourceError
from transfer_platform.paths import cache_folder
from transfer_platform.progress import Step
from transfer_platform.sources.download import FAILURES_IN_A_ROW, fetch

if TYPE_CHECKING:
    from .conftest import Site

CONTENT = hashlib.shake_256(b"old").digest(1_000_000)
CHANGED = hashlib.shake_256(b"new").digest(1_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "/data/photos.zip"


@pytest.fixture(autouse=True)
def _no_pauses(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)


def ranges(site: Site) -> list[str]:
    return [header for _, header in site.requests]


def interrupt(site: Site, after: int = 400_000) -> None:
    """Leaves a part of the file in the cache, as a lost connection does."""
    site.files[NAME], site.cuts = CONTENT, [after]
    site.failures = [200, 503, 503, 503]
    with pytest.raises(SourceError, match="HTTP status 503"):
        fetch(site.url + NAME)
    site.requests.clear()


def test_a_file_is_fetched_once(site: Site) -> None:
    site.files[NAME] = CONTENT
    steps: list[Step] = []
    path = fetch(site.url + NAME, SHA256, progress=steps.append)
    assert path.read_bytes() == CONTENT
    assert path.name == "photos.zip"
    assert path.is_relative_to(cache_folder() / "downloads")
    assert steps[-1] == Step("downloading photos.zip", 1_000_000, 1_000_000, "bytes")
    assert fetch(site.url + NAME) == fetch(site.url + NAME, SHA256) == path
    assert len(site.requests) == 1
    assert {each.suffix for each in path.parent.iterdir()} == {".zip", ".lock"}


def test_a_cut_connection_is_resumed(site: Site) -> None:
    site.files[NAME], site.cuts = CONTENT, [300_000, 200_000]
    assert fetch(site.url + NAME).read_bytes() == CONTENT
    assert ranges(site) == ["", "bytes=300000-", "bytes=500000-"]


def test_a_later_call_resumes_an_earlier_one(site: Site) -> None:
    interrupt(site)
    assert fetch(site.url + NAME).read_bytes() == CONTENT
    assert ranges(site) == ["bytes=400000-"]


@pytest.mark.parametrize("honest", [True, False], ids=["If-Range respected", "If-Range ignored"])
def test_a_changed_file_is_not_combined_with_the_old_one(site: Site, honest: bool) -> None:
    interrupt(site)
    site.files[NAME], site.etag, site.honest = CHANGED, '"2"', honest
    assert fetch(site.url + NAME).read_bytes() == CHANGED


def test_a_file_of_another_length_is_not_combined_with_the_old_one(site: Site) -> None:
    interrupt(site)
    site.files[NAME] = CHANGED + b"more"
    assert fetch(site.url + NAME).read_bytes() == CHANGED + b"more"


def test_without_a_version_nothing_is_resumed(site: Site) -> None:
    site.etag = ""
    interrupt(site)
    site.files[NAME] = CHANGED
    assert fetch(site.url + NAME).read_bytes() == CHANGED
    assert ranges(site) == [""]


def test_weak_etags_are_not_a_version(site: Site) -> None:
    site.etag = 'W/"1"'
    interrupt(site)
    assert fetch(site.url + NAME).read_bytes() == CONTENT
    assert ranges(site) == [""]


def test_without_a_version_a_checksum_allows_resuming(site: Site) -> None:
    site.etag = ""
    interrupt(site)
    assert fetch(site.url + NAME, SHA256).read_bytes() == CONTENT
    assert ranges(site) == ["bytes=400000-"]


def test_a_checksum_detects_mixed_versions_and_restarts(site: Site) -> None:
    site.etag = ""
    interrupt(site)
    site.files[NAME] = CHANGED
    assert fetch(site.url + NAME, hashlib.sha256(CHANGED).hexdigest()).read_bytes() == CHANGED
    assert ranges(site) == ["bytes=400000-", ""]


def test_a_server_without_ranges_restarts(site: Site) -> None:
    site.ranges = False
    interrupt(site)
    assert fetch(site.url + NAME).read_bytes() == CONTENT


def test_a_server_that_always_cuts_is_abandoned(site: Site) -> None:
    site.files[NAME], site.ranges, site.cuts = CONTENT, False, [100_000] * 50
    with pytest.raises(SourceError, match="connection lost after 100,000 of 1000000 bytes"):
        fetch(site.url + NAME)
    assert len(site.requests) == 1 + FAILURES_IN_A_ROW


def test_a_server_that_cuts_but_makes_progress_is_not_abandoned(site: Site) -> None:
    site.files[NAME], site.cuts = CONTENT, [60_000] * 16
    assert fetch(site.url + NAME).read_bytes() == CONTENT


def test_without_a_length_the_end_is_the_end(site: Site) -> None:
    site.files[NAME], site.lengths = CONTENT, False
    assert fetch(site.url + NAME, SHA256).read_bytes() == CONTENT


def test_bytes_are_stored_as_they_came(site: Site) -> None:
    site.files["/a.tar.gz"], site.headers = b"\x1f\x8b not to be unpacked", {"Content-Encoding": "gzip"}
    assert fetch(site.url + "/a.tar.gz").read_bytes() == b"\x1f\x8b not to be unpacked"


def test_a_whole_part_is_not_fetched_again(site: Site) -> None:
    interrupt(site)
    (part,) = cache_folder().rglob("*.partial")
    part.write_bytes(CONTENT)
    assert fetch(site.url + NAME).read_bytes() == CONTENT
    assert site.requests == []


def test_a_part_that_is_too_long_restarts(site: Site) -> None:
    interrupt(site)
    (part,) = cache_folder().rglob("*.partial")
    part.write_bytes(CONTENT + b"more")
    assert fetch(site.url + NAME).read_bytes() == CONTENT


@pytest.mark.parametrize("metadata", [b"", b"[]", b"{}", b"\xff"])
def test_a_part_without_its_metadata_restarts(site: Site, metadata: bytes) -> None:
    interrupt(site)
    next(cache_folder().rglob("*.json")).write_bytes(metadata)
    assert fetch(site.url + NAME).read_bytes() == CONTENT
    assert ranges(site) == [""]


def test_another_checksum_is_refused_and_nothing_stored(site: Site) -> None:
    site.files[NAME] = CHANGED
    with pytest.raises(SourceError, match=f"expected {SHA256}"):
        fetch(site.url + NAME, SHA256)
    assert not [path for path in cache_folder().rglob("*") if path.suffix in (".zip", ".partial")]


def test_a_file_that_was_fetched_without_a_checksum_is_checked_and_fetched_again(site: Site) -> None:
    site.files[NAME] = CHANGED
    fetch(site.url + NAME)
    site.files[NAME] = CONTENT
    assert fetch(site.url + NAME, SHA256).read_bytes() == CONTENT


def test_weights_carry_the_beginning_of_their_checksum(site: Site) -> None:
    name = f"/resnet18-{SHA256[:8]}.pth"
    site.files[name] = CONTENT
    assert fetch(site.url + name, hash_prefix=SHA256[:8]).read_bytes() == CONTENT
    with pytest.raises(SourceError, match="expected 00000000"):
        fetch(site.url + name, hash_prefix="00000000")


def test_old_datasets_have_an_md5(site: Site) -> None:
    site.etag = ""
    interrupt(site)
    assert fetch(site.url + NAME, md5=hashlib.md5(CONTENT).hexdigest()).read_bytes() == CONTENT
    site.files[NAME] = CHANGED
    with pytest.raises(SourceError, match=rf"its md5 is {hashlib.md5(CHANGED).hexdigest()}, expected {'0' * 32}"):
        fetch(site.url + NAME, md5="0" * 32)


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (403, 1), (500, 3), (429, 3)])
def test_refusals_are_reported_and_temporary_ones_retried(site: Site, status: int, tries: int) -> None:
    site.files[NAME], site.failures = CONTENT, [status] * tries
    with pytest.raises(SourceError, match=rf"HTTP status {status} .*\n.*PLATFORM_MIRROR"):
        fetch(site.url + NAME)
    assert len(site.requests) == tries
    site.failures = [503]
    assert fetch(site.url + NAME).read_bytes() == CONTENT


def test_an_unreachable_server(isolated: Path) -> None:
    with pytest.raises(SourceError, match=r"http://127\.0\.0\.1:9/a\.zip: the server cannot be reached"):
        fetch("http://127.0.0.1:9/a.zip")


def test_secrets_stay_out_of_messages(isolated: Path) -> None:
    with pytest.raises(SourceError) as raised:
        fetch("http://user:geheim@127.0.0.1:9/a.zip?token=geheim")
    assert "geheim" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://host/a.zip", "/etc/passwd", "http:///a.zip", "https://host", "https://host/",
     "https://host/a/%2e%2e/b.zip", "https://host/..%2f..%2fetc%2fpasswd", "https://host/a%5cb", "https://host/a%00"],
)  # fmt: skip
def test_invalid_urls(url: str, isolated: Path) -> None:
    with pytest.raises(SourceError, match=r"is not a valid URL|does not end in a file name"):
        fetch(url)


class TestMirrors:
    """Folders and servers that are tried before the internet."""

    def test_a_folder_by_host_and_path(self, mirror: Path, site: Site) -> None:
        file = mirror / "127.0.0.1" / "data" / "my photos.zip"
        file.parent.mkdir(parents=True)
        file.write_bytes(CONTENT)
        (mirror / "my photos.zip").write_bytes(CHANGED)
        assert fetch(f"{site.url}/data/my%20photos.zip") == file
        assert site.requests == []

    def test_a_folder_by_name(self, mirror: Path, site: Site) -> None:
        (mirror / "photos.zip").write_bytes(CONTENT)
        assert fetch(site.url + NAME, SHA256) == mirror / "photos.zip"
        assert (mirror / "photos.zip").read_bytes() == CONTENT
        assert [path.name for path in mirror.iterdir()] == ["photos.zip"]
        assert site.requests == []

    def test_a_folder_by_an_alternative_path(self, mirror: Path, site: Site) -> None:
        (mirror / "MNIST" / "raw").mkdir(parents=True)
        (mirror / "MNIST" / "raw" / "photos.zip").write_bytes(CONTENT)
        (mirror / "photos.zip").write_bytes(CHANGED)
        found = fetch(site.url + NAME, mirror_path="MNIST/raw/photos.zip")
        assert found == mirror / "MNIST" / "raw" / "photos.zip"

    def test_a_wrong_file_in_a_mirror_is_skipped(self, mirror: Path, site: Site) -> None:
        (mirror / "photos.zip").write_bytes(CHANGED)
        site.files[NAME] = CONTENT
        assert fetch(site.url + NAME, SHA256).read_bytes() == CONTENT

    def test_a_server_by_host_and_path_then_by_name(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PLATFORM_MIRROR", f"/nowhere , {site.url}/mirror/")
        site.files["/mirror/photos.zip"] = CONTENT
        assert fetch("https://host.invalid/data/photos.zip").read_bytes() == CONTENT
        assert [path for path, _ in site.requests] == ["/mirror/host.invalid/data/photos.zip", "/mirror/photos.zip"]

    def test_parts_of_two_servers_are_not_combined(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        interrupt(site)
        monkeypatch.setenv("PLATFORM_MIRROR", f"{site.url}/mirror")
        site.files["/mirror/photos.zip"] = CHANGED
        assert fetch(site.url + NAME).read_bytes() == CHANGED

    def test_every_place_is_named(self, mirror: Path, site: Site) -> None:
        with pytest.raises(SourceError) as raised:
            fetch(site.url + NAME)
        assert str(raised.value).splitlines() == [
            f"{site.url}{NAME} could not be downloaded:",
            f"  {mirror}/127.0.0.1/data/photos.zip: no such file",
            f"  {mirror}/photos.zip: no such file",
            f"  {site.url}{NAME}: HTTP status 404 Not Found",
            "check the URL and the network connection, or set PLATFORM_MIRROR to a folder that contains the file",
        ]


FETCH = """
import sys
from transfer_platform.sources.download import fetch
print(fetch(sys.argv[1]))
"""


def start(url: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, "-c", FETCH, url], stdout=subprocess.PIPE, text=True, env=environment)


def test_two_processes_fetch_it_once(site: Site) -> None:
    site.files[NAME] = CONTENT
    both = [start(site.url + NAME) for _ in range(2)]
    paths = {process.communicate()[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert Path(paths.pop()).read_bytes() == CONTENT
    assert not paths
    assert len(site.requests) == 1
