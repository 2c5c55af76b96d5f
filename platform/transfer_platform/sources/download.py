"""Resumable downloads with checksums and mirrors.

`PLATFORM_MIRROR` lists folders and URLs to try first: for `https://host/path/file.zip`, each mirror is
searched for `host/path/file.zip`, then for `file.zip`. Files in a mirror folder are used in place. An interrupted
download is resumed only if the file on the server has not changed (RFC 9110, sections 13.1.5 and 14).
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from filelock import FileLock

from transfer_model.errors import cause
from transfer_platform.errors import SourceError
from transfer_platform.paths import MIRROR_VARIABLE, cache_folder, mirrors
from transfer_platform.progress import Progress, Step, silent
from transfer_platform.sources.checksums import Checksum

if TYPE_CHECKING:
    from requests import Response

CONNECT_SECONDS, READ_SECONDS = 10, 60
FAILURES_IN_A_ROW = 3
_CHUNK_BYTES = 1 << 18


class DownloadError(Exception):
    """The download from one location failed; another location may still provide the file."""


class _InterruptedDownloadError(Exception):
    """The download failed with a transient error and can be retried."""


def fetch(
    url: str,
    sha256: str | None = None,
    *,
    hash_prefix: str | None = None,
    md5: str | None = None,
    mirror_path: str = "",
    progress: Progress = silent,
    endpoint: str | None = None,
    offline: str = "",
) -> Path:
    """Downloads a file to the cache unless it is already there; concurrent processes share a single download.

    Args:
        url: An HTTP or HTTPS URL.
        sha256: Expected SHA-256 checksum, 64 hexadecimal digits.
        hash_prefix: First digits of the SHA-256 checksum, as in `resnet18-f37072fd.pth`; ignored if `sha256` is set.
        md5: Expected MD5 checksum, 32 hexadecimal digits; if set, it is verified instead of the SHA-256 checksum.
        mirror_path: Additional relative path to try in each mirror, after `host/path/file.zip` and before `file.zip`.
        progress: Receives the number of bytes downloaded so far.
        endpoint: URL to download from instead of `url`, which still identifies the file in the cache and in mirrors.
        offline: Reason that only the cache and mirrors may be used; empty if downloading the file is allowed.

    Returns:
        Path of the file in the cache or a mirror folder. The file must be treated as read-only.

    Raises:
        SourceError: The URL is invalid, or no location has a file with the expected checksum.
    """
    expected = Checksum(md5, "md5") if md5 else Checksum((sha256 or hash_prefix or "").lower())
    target = _target(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if target.exists() and not expected.mismatch(target):
            return target
        failures = []
        origin = () if offline else (endpoint or url,)
        for location in (*_mirror_locations(url, mirror_path), *origin):
            try:
                return _fetch_from(location, target, expected, progress)
            except DownloadError as error:
                failures.append(f"  {redact_url(location)}: {error}")
    failures += [f"  {redact_url(endpoint or url)}: not tried because {offline}"] if offline else []
    raise SourceError(
        f"{redact_url(url)} could not be downloaded:\n" + "\n".join(failures) + "\n"
        f"check the URL and the network connection, or set {MIRROR_VARIABLE} to a folder that contains the file"
    )


def download(url: str, target: Path, expected: Checksum, progress: Progress) -> Path:
    """Downloads a file to `target`, whose folder must exist. The caller must hold the lock for `target`.

    Raises:
        DownloadError: The server is unreachable, rejects requests, disconnects too often, or serves a different file.
        SourceError: The file cannot be written.
    """
    part = _PartialFile.beside(target, url)
    try:
        resumed = part.size > 0
        mismatch = _download_all(url, part, expected, progress)
        if resumed and mismatch:
            part.discard()
            mismatch = _download_all(url, part, expected, progress)
        if mismatch:
            part.discard()
            raise DownloadError(mismatch)
        part.file.replace(target)
        part.discard()
    except OSError as error:
        raise SourceError(f"{target} could not be written: {cause(error)}; the disk may be full") from error
    return target


def redact_url(url: str) -> str:
    """Removes the parts of a URL that may be secret: user name, password and query string. Returns paths unchanged."""
    parts = urlsplit(url)
    if not parts.netloc:
        return url
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def find_download(url: str, hash_prefix: str | None = None) -> Path | None:
    """Returns the file that `fetch` downloaded from a URL, or None if it is missing or has a different checksum."""
    target = _target(url)
    return target if target.is_file() and not Checksum(hash_prefix or "").mismatch(target) else None


def _target(url: str) -> Path:
    folder = hashlib.sha256(url.encode()).hexdigest()[:16]
    return cache_folder() / "downloads" / folder / _path_on_host(url).name


def _mirror_locations(url: str, mirror_path: str) -> Iterator[str]:
    host, path = urlsplit(url).hostname or "", _path_on_host(url)
    for mirror in mirrors():
        if _is_web(mirror):
            quoted = PurePosixPath(host, urlsplit(url).path.lstrip("/"))
            names = (str(quoted), quote(mirror_path), quoted.name)
            yield from (f"{mirror.rstrip('/')}/{name}" for name in names if name)
        else:
            names = (str(PurePosixPath(host, path)), mirror_path, path.name)
            yield from (str(Path(mirror).expanduser() / name) for name in names if name)


def _fetch_from(location: str, target: Path, expected: Checksum, progress: Progress) -> Path:
    if _is_web(location):
        return download(location, target, expected, progress)
    file = Path(location)
    if not file.is_file():
        raise DownloadError("no such file")
    if mismatch := expected.mismatch(file):
        raise DownloadError(mismatch)
    return file.resolve()


def _path_on_host(url: str) -> PurePosixPath:
    """Returns the percent-decoded path of a URL; rejects paths that could lead outside a mirror folder."""
    parts = urlsplit(url)
    if not _is_web(url) or not parts.hostname:
        raise SourceError(f"{redact_url(url)!r} is not a valid URL; it must start with http:// or https://")
    path = PurePosixPath(unquote(parts.path).lstrip("/"))
    if not path.name or ".." in path.parts or re.search(r"[\x00-\x1f\\]", str(path)):
        raise SourceError(f"{redact_url(url)!r} does not end in a file name")
    return path


def _is_web(location: str) -> bool:
    return location.lower().startswith(("http://", "https://"))


@dataclass
class _PartialFile:
    """A partially downloaded file. `metadata` is a JSON file with the version and size reported by the server."""

    file: Path
    metadata: Path

    @classmethod
    def beside(cls, target: Path, url: str) -> _PartialFile:
        stem = f"{target.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}"
        return cls(target.with_name(f"{stem}.partial"), target.with_name(f"{stem}.json"))

    @property
    def size(self) -> int:
        return self.file.stat().st_size if self.file.exists() else 0

    def version_and_total(self) -> tuple[str, int | None]:
        """Returns the version (strong ETag or date; empty if unknown) and the total size (`None` if unknown)."""
        try:
            metadata = json.loads(self.metadata.read_bytes())
            return str(metadata["version"]), metadata["total"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return "", None

    def start(self, version: str, total: int | None) -> None:
        self.file.write_bytes(b"")
        self.metadata.write_text(json.dumps({"version": version, "total": total}), encoding="utf-8")

    def discard(self) -> None:
        self.file.unlink(missing_ok=True)
        self.metadata.unlink(missing_ok=True)


def _download_all(url: str, part: _PartialFile, expected: Checksum, progress: Progress) -> str:
    """Downloads the remaining bytes, retrying after interruptions. Returns a message if the checksum is wrong."""
    failures, largest = 0, part.size
    while True:
        try:
            _request_rest(url, part, bool(expected.digits), progress)
            return expected.mismatch(part.file, cached=False)
        except _InterruptedDownloadError as error:
            failures = 0 if part.size > largest else failures + 1
            largest = max(largest, part.size)
            if failures >= FAILURES_IN_A_ROW:
                raise DownloadError(str(error)) from error
            time.sleep(0.5 * 2**failures)


def _request_rest(url: str, part: _PartialFile, has_checksum: bool, progress: Progress) -> None:
    """Requests the remaining bytes, or the whole file if changes to it on the server would go undetected."""
    import requests
    import urllib3

    version, total = part.version_and_total()
    if total is not None and part.size == total:
        return
    headers = {"Accept-Encoding": "identity"}
    if part.size and (version or (has_checksum and total is not None)):
        headers |= {"Range": f"bytes={part.size}-"} | ({"If-Range": version} if version else {})
    timeout = (CONNECT_SECONDS, READ_SECONDS)
    try:
        with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
            _resume_or_start(response, part)
            _append(response, part, f"downloading {Path(urlsplit(url).path).name}", progress)
    except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _translated(error, part) from error


def _translated(error: Exception, part: _PartialFile) -> DownloadError | _InterruptedDownloadError:
    """Converts an HTTP library error to a download error. The URL is left out because it may contain secrets."""
    from requests import exceptions

    if isinstance(error, ValueError):
        return DownloadError("the URL is invalid or redirects to an invalid URL")
    if isinstance(error, exceptions.SSLError):
        return DownloadError("the server's certificate is not trusted")
    if isinstance(error, exceptions.Timeout):
        return _InterruptedDownloadError(f"no connection within {CONNECT_SECONDS} s or no data for {READ_SECONDS} s")
    if isinstance(error, exceptions.ConnectionError):
        return _InterruptedDownloadError("the server cannot be reached")
    total = part.version_and_total()[1]
    return _InterruptedDownloadError(f"connection lost after {part.size:,} of {total or '?'} bytes")


def _resume_or_start(response: Response, part: _PartialFile) -> None:
    status = response.status_code
    if status == 206 and _resumes(response, part):
        return
    if status == 200:
        length = response.headers.get("Content-Length", "")
        part.start(_version(response), int(length) if length.isdigit() else None)
        return
    if status in (206, 416):
        part.discard()
        raise _InterruptedDownloadError("the file changed during the download")
    if status == 429 or status >= 500:
        raise _InterruptedDownloadError(f"HTTP status {status} {response.reason}")
    raise DownloadError(f"HTTP status {status} {response.reason}")


def _resumes(response: Response, part: _PartialFile) -> bool:
    version, total = part.version_and_total()
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    same_version = _version(response) in ("", version)
    return span is not None and same_version and (int(span[1]), int(span[2])) == (part.size, total)


def _version(response: Response) -> str:
    """Returns the strong ETag or last-modified date; ignores weak ETags, which do not imply identical bytes."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _append(response: Response, part: _PartialFile, task: str, progress: Progress) -> None:
    done, total = part.size, part.version_and_total()[1]
    with part.file.open("ab") as file:
        # Not decoded: some servers declare a `.tar.gz` file as gzip-encoded although they send the file itself.
        for chunk in response.raw.stream(_CHUNK_BYTES, decode_content=False):
            file.write(chunk)
            done += len(chunk)
            progress(Step(task, done, total, "bytes"))
    if total is not None and done > total:
        part.discard()
    if total is not None and done != total:
        raise _InterruptedDownloadError(f"received {done:,} bytes instead of {total:,}")
