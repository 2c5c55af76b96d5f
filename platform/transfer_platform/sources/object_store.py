"""Single images from web servers and object stores, fetched once into the cache.

An image is known by its URL and by what the store says of its version: where that changed, it is fetched
anew. Each comes whole or not at all, so that an interrupted call goes on with those that are missing.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from threading import get_ident
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from transfer_platform.errors import SourceError
from transfer_platform.file_problems import MAX_BYTES, FileProblem
from transfer_platform.paths import cache_folder
from transfer_platform.progress import Progress, Step
from transfer_platform.sources.download import redact_url

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fsspec import AbstractFileSystem

STORES = {
    "https": "aiohttp",
    "http": "aiohttp",
    "s3": "'transfer-platform[s3]'",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "memory": "fsspec",
}
"""What is fetched from, and what `pip install` brings for it; none of these reads files of this machine."""

AT_ONCE = 16
"""Images that are asked for at the same time."""
TRIES = 3
"""How often a store that does not answer is asked."""

_VERSION = (
    *("ETag", "etag", "Content-MD5", "Last-Modified", "LastModified", "last_modified", "updated", "mtime"),
    *("generation", "VersionId", "size", "created"),
)
"""What stores say of a file that changes with its content, by the names that they give it."""


class _TooLargeError(Exception):
    """More bytes than any image has."""


def scheme(path: str) -> str:
    """The scheme of a URL, in lower case; empty for a path.

    >>> scheme("S3://bucket/a.jpg"), scheme("c:/a.jpg"), scheme("a/b.jpg")
    ('s3', '', '')
    """
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", path)
    return match[1].lower() if match else ""


def cache_folder_for(url: str) -> Path:
    """The folder of the cache that every version of an image is kept in."""
    digest = hashlib.sha256(url.encode()).hexdigest()
    return cache_folder() / "images" / digest[:2] / digest


def fetch_images(urls: Sequence[str], task: str, progress: Progress) -> dict[str, Path | FileProblem]:
    """Brings images onto this machine, those that are not here yet.

    Args:
        urls: Each with a scheme of `STORES`.
        task: What the progress is called.
        progress: Is told how many are here.

    Returns:
        For each URL the file in the cache, which nobody may write to, or why there is none.

    Raises:
        SourceError: A store cannot be reached or asked, or the cache cannot be written to; what has come
            stays.
    """
    systems = {each: _system(each) for each in {scheme(url) for url in urls}}
    found: dict[str, Path | FileProblem] = {}
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fetching")
    try:
        answers = pool.map(lambda url: _obtain(systems[scheme(url)], url), urls)
        for done, (url, answer) in enumerate(zip(urls, answers, strict=True), 1):
            found[url] = answer
            progress(Step(task, done, len(urls), "images"))
    finally:
        pool.shutdown(cancel_futures=True)
    return found


def _system(store: str) -> AbstractFileSystem:
    import fsspec

    # As requests does: a site's proxies count here too.
    options = {"client_kwargs": {"trust_env": True}} if store in ("http", "https") else {}
    try:
        return fsspec.filesystem(store, **options)
    except ImportError as error:
        raise SourceError(
            f"{store}:// images need a package that is not installed; pip install {STORES[store]}"
        ) from error


def _obtain(system: AbstractFileSystem, url: str) -> Path | FileProblem:
    """One image; a store that does not answer is asked again, one that says no is not."""
    for attempt in range(1, TRIES + 1):
        try:
            return _fetched(system, url)
        except _TooLargeError:
            return FileProblem("too many bytes", f"it has more than {MAX_BYTES:,} bytes, more than any image")
        except Exception as error:  # every store has exceptions of its own
            if refusal := _refusal(error):
                return refusal
            if attempt == TRIES:
                raise SourceError(
                    f"{redact_url(url)} could not be fetched: {_in_words(error, url)}; what has come so far is "
                    "kept: run the command again"
                ) from error
        time.sleep(0.5 * 2**attempt)
    raise AssertionError("the last try returns or raises")


def _fetched(system: AbstractFileSystem, url: str) -> Path:
    facts = system.info(url)
    size = facts.get("size")
    if isinstance(size, int) and size > MAX_BYTES:
        raise _TooLargeError
    version = "\0".join(f"{name}={facts[name]}" for name in _VERSION if facts.get(name) is not None)
    folder = cache_folder_for(url) / hashlib.sha256(version.encode()).hexdigest()[:16]
    target = folder / _file_name(url)
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{os.getpid()}.{get_ident()}.part"
    try:
        system.get_file(url, str(unfinished), callback=_bounded())
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target


def _bounded() -> Any:  # noqa: ANN401 - fsspec is imported where something is fetched
    """Ends a transfer that grows beyond what an image can have, whatever the store said of its size."""
    from fsspec.callbacks import Callback

    class Bounded(Callback):  # type: ignore[misc]
        def call(self, *_: object, **__: object) -> None:
            if self.value > MAX_BYTES:
                raise _TooLargeError

    return Bounded()


def _refusal(error: BaseException) -> FileProblem | None:
    """What is wrong with this one file; None where the store has not answered."""
    causes = list(_causes(error))
    statuses = [getattr(each, "status", None) for each in causes]
    if answered := [status for status in statuses if isinstance(status, int)]:
        return _refused(answered[0])
    if isinstance(error, PermissionError):
        return _refused(403)
    # fsspec's http says that a file is not found where the server is not.
    silent = any(isinstance(each, ConnectionError | TimeoutError) or _is_connection(each) for each in causes)
    return _refused(404) if isinstance(error, FileNotFoundError) and not silent else None


def _refused(status: int) -> FileProblem | None:
    words = {
        401: "asks for a password",
        403: "does not permit it",
        404: "has no such file",
        410: "has it no more",
    }
    if status == 429 or status >= 500:
        return None
    return FileProblem(
        "unreadable", f"it cannot be fetched: the store {words.get(status, f'answered {status}')}"
    )


def _is_connection(error: BaseException) -> bool:
    """The errors that aiohttp has of connections, without importing it where another store is asked."""
    return any(each.__name__ == "ClientConnectionError" for each in type(error).__mro__)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__


def _in_words(error: BaseException, url: str) -> str:
    """The innermost cause, without what may be a secret."""
    innermost = list(_causes(error))[-1]
    status = getattr(innermost, "status", None)
    said = f"answered {status}" if isinstance(status, int) else f"{type(innermost).__name__}: {innermost}"
    return said.replace(url, redact_url(url))


def _file_name(url: str) -> str:
    """The last part of a URL's path, fit for any file system."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix
    plain = re.sub(r"[\x00-\x1f\x7f/\\:]", "_", stem).encode()[:100].decode("utf-8", "ignore").lstrip(".")
    return f"{plain or 'image'}{suffix if re.fullmatch(r'[.][A-Za-z0-9]{1,8}', suffix) else ''}"
