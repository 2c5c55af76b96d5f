"""Downloads individual images from web servers and object stores to the cache.

An image is downloaded only if its current version is not in the cache, so interrupted calls can simply be repeated.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from transfer_platform.errors import SourceError
from transfer_platform.file_problems import MAX_BYTES, FileProblem
from transfer_platform.paths import cache_folder
from transfer_platform.progress import Progress, Step
from transfer_platform.sources.download import redact_url
from transfer_registry.files import atomic_write

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

STORES = {
    **dict.fromkeys(("https", "http"), "aiohttp"),
    "s3": "'transfer-platform[s3]'",
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss"), "adlfs"),
    "memory": "fsspec",
}
"""Supported URL schemes, each with the package that it requires. None of them gives access to local files."""

CONCURRENT_REQUESTS = 16
MAX_ATTEMPTS = 3

_VERSION_FIELDS = (
    *("ETag", "etag", "Content-MD5", "Last-Modified", "LastModified", "last_modified", "updated", "mtime"),
    *("generation", "VersionId", "size", "created"),
)
"""Metadata fields that together identify the version of a file. Their names differ between stores."""


class _TooLargeError(Exception):
    """The file is larger than `MAX_BYTES`."""


def scheme(path: str) -> str:
    """Returns the scheme of a URL in lowercase, or an empty string for a path.

    >>> scheme("S3://bucket/a.jpg"), scheme("c:/a.jpg"), scheme("a/b.jpg")
    ('s3', '', '')
    """
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", path)
    return match[1].lower() if match else ""


def cache_folder_for(url: str) -> Path:
    """Returns the cache folder that holds all versions of an image."""
    digest = hashlib.sha256(url.encode()).hexdigest()
    return cache_folder() / "images" / digest[:2] / digest


def fetch_images(urls: Sequence[str], task: str, progress: Progress) -> dict[str, Path | FileProblem]:
    """Downloads the images that are not in the cache.

    Args:
        urls: Distinct URLs, each with a scheme listed in `STORES`.
        task: Name of the operation, passed to `progress`.
        progress: Receives the number of images processed so far.

    Returns:
        The cached file for each URL, or the problem if downloading failed. Treat cached files as read-only.

    Raises:
        SourceError: A store is unreachable, or the cache is not writable. Images downloaded so far stay in the cache.
    """
    systems = {name: _file_system(name) for name in {scheme(url) for url in urls}}
    results: dict[str, Path | FileProblem] = {}
    pool = ThreadPoolExecutor(CONCURRENT_REQUESTS, thread_name_prefix="fetching")
    try:
        answers = pool.map(lambda url: _fetch_with_retries(systems[scheme(url)], url), urls)
        for done, (url, answer) in enumerate(zip(urls, answers, strict=True), 1):
            results[url] = answer
            progress(Step(task, done, len(urls), "images"))
    finally:
        pool.shutdown(cancel_futures=True)
    return results


def _file_system(store: str) -> AbstractFileSystem:
    import fsspec

    # Unlike requests, aiohttp ignores proxy environment variables by default.
    options = {"client_kwargs": {"trust_env": True}} if store in ("http", "https") else {}
    try:
        return fsspec.filesystem(store, **options)
    except ImportError as error:
        raise SourceError(
            f"{store}:// images require a package that is not installed; run `pip install {STORES[store]}`"
        ) from error


def _fetch_with_retries(system: AbstractFileSystem, url: str) -> Path | FileProblem:
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            return _fetch_image(system, url)
        except _TooLargeError:
            return FileProblem("too many bytes", f"it is larger than {MAX_BYTES:,} bytes, the limit for an image file")
        except Exception as error:  # each store raises its own exception types
            if refusal := _refusal(error):
                return refusal
            if attempt == MAX_ATTEMPTS:
                raise SourceError(
                    f"{redact_url(url)} could not be downloaded: {_describe(error, url)}; images downloaded so far "
                    "stay in the cache; run the command again to resume"
                ) from error
        time.sleep(0.5 * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


def _fetch_image(system: AbstractFileSystem, url: str) -> Path:
    info = system.info(url)
    size = info.get("size")
    if isinstance(size, int) and size > MAX_BYTES:
        raise _TooLargeError
    version = "\0".join(f"{name}={info[name]}" for name in _VERSION_FIELDS if info.get(name) is not None)
    target = cache_folder_for(url) / hashlib.sha256(version.encode()).hexdigest()[:16] / _file_name(url)
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as unfinished:
            system.get_file(url, str(unfinished), callback=_size_limit())
    return target


def _size_limit() -> Any:  # noqa: ANN401 - fsspec is imported on first use
    """Returns a callback that aborts a download of more than `MAX_BYTES`, even if the store reports a smaller size."""
    from fsspec.callbacks import Callback

    class SizeLimit(Callback):  # type: ignore[misc] # fsspec has no types
        def call(self, *_: object, **__: object) -> None:
            if self.value > MAX_BYTES:
                raise _TooLargeError

    return SizeLimit()


def _refusal(error: BaseException) -> FileProblem | None:
    """Returns a problem if the store permanently rejects the request or has no such file; otherwise `None`."""
    causes = list(_causes(error))
    statuses = [getattr(cause, "status", None) for cause in causes]
    if codes := [status for status in statuses if isinstance(status, int)]:
        return _status_problem(codes[0])
    if isinstance(error, PermissionError):
        return _status_problem(403)
    # fsspec also raises FileNotFoundError if an HTTP server cannot be reached.
    unreachable = any(
        # Compared by name, because aiohttp may not be installed.
        isinstance(cause, ConnectionError | TimeoutError)
        or any(each.__name__ == "ClientConnectionError" for each in type(cause).__mro__)
        for cause in causes
    )
    return _status_problem(404) if isinstance(error, FileNotFoundError) and not unreachable else None


def _status_problem(status: int) -> FileProblem | None:
    if status == 429 or status >= 500:
        return None
    reasons = {401: "requires authentication", 403: "denies access", 404: "has no such file", 410: "no longer has it"}
    return FileProblem("unreadable", f"it cannot be downloaded: the store {reasons.get(status, f'returned {status}')}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__


def _describe(error: BaseException, url: str) -> str:
    """Describes the root cause of an error. The query string of `url` is removed because it may contain secrets."""
    cause = list(_causes(error))[-1]
    status = getattr(cause, "status", None)
    description = f"HTTP status {status}" if isinstance(status, int) else f"{type(cause).__name__}: {cause}"
    return description.replace(url, redact_url(url))


def _file_name(url: str) -> str:
    """Returns the last component of the URL path as a portable file name."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix
    plain = re.sub(r"[\x00-\x1f\x7f/\\:]", "_", stem).encode()[:100].decode("utf-8", "ignore").lstrip(".")
    return f"{plain or 'image'}{suffix if re.fullmatch(r'[.][A-Za-z0-9]{1,8}', suffix) else ''}"
