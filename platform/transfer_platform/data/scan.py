"""Parallel scan of image files; imports few modules so that workers start fast."""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from io import FileIO
from itertools import islice
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from transfer_platform.data.image_stats import STATS_BYTES, ImageStats, compute_stats, image_stats_cache
from transfer_platform.data.worker_processes import WorkerProcesses
from transfer_platform.errors import DataError
from transfer_platform.file_problems import MAX_BYTES, FileProblem, printable, unreadable
from transfer_platform.progress import Progress, Step
from transfer_platform.sources.checksums import ChecksumCache

if TYPE_CHECKING:
    from transfer_platform.disk_cache import DiskCache
    from transfer_platform.sources.walk import FoundFile

MAX_THREADED_FILES = 512
"""Maximum number of files for which threads are faster than processes."""

_MIN_CHUNK_FILES, _MAX_CHUNK_FILES, _CHUNKS = 32, 256, 64
"""Minimum and maximum number of files per chunk, and the number of chunks to aim for within these limits."""
_MAX_CHUNK_BYTES = 64 << 20
_SAVE_FILES, _SAVE_SECONDS = 8192, 10.0
"""New statistics are written to the cache after this many images or seconds, so that a crash loses little work."""

ScannedFile = tuple[str, bytes, FileProblem | None]
"""SHA-256 and packed statistics of one file, and the problem with it, if any."""


@dataclass
class ScanResult:
    """Digests of the readable images and problems with the remaining files, both keyed by path."""

    digests: dict[str, str] = field(default_factory=dict)
    problems: dict[Path, FileProblem] = field(default_factory=dict)


def scan_files(folder: Path, files: Sequence[FoundFile], stats: ImageStats, progress: Progress) -> ScanResult:
    """Hashes and fully decodes the files in `folder`; adds their statistics to `stats`.

    A file that has not changed since an earlier scan with the same Pillow version is not read again. A file whose
    content was already scanned under another name is hashed but not decoded.
    """
    checksums, cache = ChecksumCache(str(folder)), image_stats_cache()
    result = ScanResult(_unchanged_files(files, checksums, cache, stats))
    pending = [file for file in files if file.path not in result.digests]
    unsaved: dict[str, bytes] = {}
    saved_at = time.monotonic()
    try:
        with closing(_read_files(pending, cache)) as scanned:
            for done, (file, (digest, packed, problem)) in enumerate(scanned, len(files) - len(pending) + 1):
                if problem:
                    result.problems[Path(file.path)] = problem
                else:
                    result.digests[file.path] = digest
                    checksums.put(file.name, file.stamp, digest)
                    stats.add(digest, packed)
                    unsaved[digest] = packed
                if len(unsaved) >= _SAVE_FILES or time.monotonic() > saved_at + _SAVE_SECONDS:
                    cache.put(unsaved)
                    unsaved, saved_at = {}, time.monotonic()
                progress(Step(f"reading {folder.name}", done, len(files), "images"))
    finally:  # also when interrupted: the next scan resumes here
        cache.put(unsaved)
        checksums.save()
    return result


def _unchanged_files(
    files: Sequence[FoundFile], checksums: ChecksumCache, cache: DiskCache, stats: ImageStats
) -> dict[str, str]:
    """Returns the digests of unchanged files with cached statistics, keyed by path; adds the statistics to `stats`."""
    digests = {file.path: digest for file in files if (digest := checksums.get(file.name, file.stamp)) is not None}
    missing = iter([digest for digest in digests.values() if digest not in stats])
    while batch := list(islice(missing, _SAVE_FILES)):  # limits memory
        for digest, packed in _cached_stats(cache, batch).items():
            stats.add(digest, packed)
    return {path: digest for path, digest in digests.items() if digest in stats}


def _cached_stats(cache: DiskCache, digests: Sequence[str]) -> dict[str, bytes]:
    return {digest: packed for digest, packed in cache.get(digests).items() if len(packed) == STATS_BYTES}


def _read_files(files: Sequence[FoundFile], cache: DiskCache) -> Generator[tuple[FoundFile, ScannedFile], None, None]:
    """Yields each file with its result; limits memory use by processing only a few chunks at a time."""
    if not files:
        return
    known = None if cache.is_empty() else cache
    chunks = _chunks(files)
    with _workers(len(files)) as (pool, in_flight):

        def submit(count: int) -> Iterator[tuple[Sequence[FoundFile], Future[list[ScannedFile]]]]:
            for chunk in islice(chunks, count):
                yield chunk, pool.submit(scan_chunk, [file.path for file in chunk], known)

        pending = deque(submit(in_flight))
        while pending:
            chunk, future = pending.popleft()
            try:
                scanned = future.result()
            except (BrokenExecutor, MemoryError) as error:
                raise DataError(
                    f"a worker process died while reading {printable(chunk[0].path)} or a subsequent file; "
                    "either the machine ran out of memory, or one of these files crashes Pillow; free up memory, "
                    "or list the offending file in dataset.exclude"
                ) from error
            pending.extend(submit(1))
            yield from zip(chunk, scanned, strict=True)


@contextmanager
def _workers(files: int) -> Iterator[tuple[Executor, int]]:
    """Yields an executor and the number of chunks that may be pending at a time.

    Processes read many files faster than threads do, because for small images, Python code that holds the GIL takes
    longer than Pillow.
    """
    if files <= MAX_THREADED_FILES:
        count = os.cpu_count() or 1
        with ThreadPoolExecutor(count) as threads:
            yield threads, 2 * count
        return
    from joblib import cpu_count  # unlike that of `os`, it respects the CPU limit of a container

    count = min(cpu_count(), ceil(files / _MIN_CHUNK_FILES))
    with WorkerProcesses(count) as processes:
        yield processes, 2 * count


def _chunks(files: Sequence[FoundFile]) -> Iterator[list[FoundFile]]:
    max_files = min(max(len(files) // _CHUNKS, _MIN_CHUNK_FILES), _MAX_CHUNK_FILES)
    chunk: list[FoundFile] = []
    bytes_left = _MAX_CHUNK_BYTES
    for file in files:
        if chunk and (len(chunk) == max_files or file.stamp.size > bytes_left):
            yield chunk
            chunk, bytes_left = [], _MAX_CHUNK_BYTES
        chunk.append(file)
        bytes_left -= file.stamp.size
    if chunk:
        yield chunk


def scan_chunk(paths: Sequence[str], cache: DiskCache | None) -> list[ScannedFile]:
    """Hashes files, and decodes those that are not in the cache; all files are in memory at the same time."""
    contents = [_read_content(path) for path in paths]
    digests = ["" if isinstance(content, FileProblem) else hashlib.sha256(content).hexdigest() for content in contents]
    cached = _cached_stats(cache, [digest for digest in digests if digest]) if cache else {}
    return [
        ("", b"", content) if isinstance(content, FileProblem) else _scan(content, digest, cached.get(digest))
        for content, digest in zip(contents, digests, strict=True)
    ]


def _read_content(path: str) -> bytes | FileProblem:
    try:
        with FileIO(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                return FileProblem("too many bytes", f"its size of {size:,} bytes exceeds the limit of {MAX_BYTES:,}")
            return file.readall()
    except OSError as error:
        return unreadable(error)


def _scan(content: bytes, digest: str, cached: bytes | None) -> ScannedFile:
    from transfer_model.errors import UnreadableImageError

    try:
        return digest, cached or compute_stats(content, "it"), None
    except UnreadableImageError as error:
        hint = _first_line(content) if error.kind == "unsupported format" else ""
        return "", b"", FileProblem(error.kind, f"{error}{hint and f'; it is text that begins with {hint!r}'}")


def _first_line(content: bytes) -> str:
    """Returns the first line of a text file, such as a web page, a Git LFS pointer or an error message from a server.

    Only its first 60 characters are used. Returns an empty string if any of these characters is not printable ASCII.
    """
    line = next(iter(content[:60].splitlines()), b"").decode("ascii", "replace").strip()
    return line if line.isascii() and line.isprintable() else ""
