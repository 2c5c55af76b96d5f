"""Reads image files once: decodes each to its last pixel and hashes its bytes, side by side."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from transfer_platform.data.chunk import ScannedFile, exit_with_parent, scan_chunk
from transfer_platform.data.look_memory import ImageStatsCache, image_stats_cache
from transfer_platform.errors import DataError
from transfer_platform.file_problems import FileProblem, printable
from transfer_platform.progress import Progress, Step
from transfer_platform.sources.checksums import ChecksumCache

if TYPE_CHECKING:
    from transfer_platform.data.image_stats import ImageStats
    from transfer_platform.sources.walk import FoundFile

MAX_THREADED_FILES = 512
"""Files for which it does not pay to start processes."""

_SMALL, _LARGE, _CHUNKS = 32, 256, 64
"""Files that are handed to a reader at once, at least and at most; between, so many chunks are made."""
_CHUNK_BYTES = 64 << 20
"""Bytes that are handed to a reader at once."""
_IDLE = 10
"""Seconds after which a reader ends that nobody asks any more."""
_SAVED, _SAVED_AFTER = 8192, 10.0
"""Looks that are kept at once, or seconds after which they are; a power cut costs no more."""


@dataclass
class ScanResult:
    """What was read of some files.

    Attributes:
        digests: SHA-256 of every file that is an image, by its path.
        problems: What is wrong with each of the other files.
    """

    digests: dict[str, str] = field(default_factory=dict)
    problems: dict[Path, FileProblem] = field(default_factory=dict)


def scan_files(folder: Path, files: Sequence[FoundFile], looks: ImageStats, progress: Progress) -> ScanResult:
    """Hashes files and makes sure that they are images.

    What an earlier call with the same Pillow decoded is not decoded again: a file that did not change is not
    even read, and one whose content is known under another name is only hashed.

    Args:
        folder: What the files' names are relative to.
        files: What to read.
        looks: Is given what is seen of the images.
        progress: Is told how many files were read.
    """
    digests, memory = ChecksumCache(str(folder)), image_stats_cache()
    known = {
        file.path: digest for file in files if (digest := digests.get(file.name, file.stamp)) is not None
    }
    for digest, look in memory.get([digest for digest in known.values() if digest not in looks]):
        looks.add(digest, look)
    readings = ScanResult({path: digest for path, digest in known.items() if digest in looks})
    unread = [file for file in files if file.path not in readings.digests]
    fresh: dict[str, bytes] = {}
    saved = time.monotonic()
    begun = len(files) - len(unread) + 1
    try:
        with closing(_read(unread, memory)) as read:
            for done, (file, (digest, look, problem)) in enumerate(read, begun):
                if problem:
                    readings.problems[Path(file.path)] = problem
                else:
                    readings.digests[file.path] = digest
                    digests.put(file.name, file.stamp, digest)
                    looks.add(digest, look)
                    fresh[digest] = look
                if len(fresh) >= _SAVED or time.monotonic() > saved + _SAVED_AFTER:
                    memory.put(fresh)
                    fresh, saved = {}, time.monotonic()
                progress(Step(f"reading {folder.name}", done, len(files), "images"))
    finally:  # interrupted, too: what was read before is not read again
        memory.put(fresh)
        digests.save()
    return readings


def _read(files: Sequence[FoundFile], memory: ImageStatsCache) -> Generator[tuple[FoundFile, ScannedFile]]:
    """Each file with what it is; a chunk at a time, so that memory stays flat."""
    if not files:
        return
    known = None if memory.is_empty else memory
    waiting = _chunks(files)
    with _readers(len(files)) as (pool, ahead):

        def begun(
            chunks: Iterable[Sequence[FoundFile]],
        ) -> Iterator[tuple[Sequence[FoundFile], Future[list[ScannedFile]]]]:
            for chunk in chunks:
                yield chunk, pool.submit(scan_chunk, [file.path for file in chunk], known)

        pending = deque(begun(islice(waiting, ahead)))
        while pending:
            chunk, future = pending.popleft()
            try:
                readings = future.result()
            except (BrokenExecutor, MemoryError) as error:
                raise DataError(
                    f"a process died that read images, {printable(chunk[0].path)} or files after it: "
                    "it was killed, perhaps for want of memory, or one of them crashes Pillow"
                ) from error
            pending.extend(begun(islice(waiting, 1)))
            yield from zip(chunk, readings, strict=True)


@contextmanager
def _readers(files: int) -> Iterator[tuple[Executor, int]]:
    """Threads, or processes for many files: small images are more work for Python than for Pillow.

    Also how many chunks they should be given ahead. That is no more than loky's queue and its processes hold:
    what it has not handed on when it is told to kill them ends in a traceback of its own.
    """
    if files <= MAX_THREADED_FILES:
        count = os.cpu_count() or 1
        with ThreadPoolExecutor(count) as threads:
            yield threads, 2 * count
        return
    # Unlike multiprocessing's own, its processes never run the caller's script; the next split finds them.
    # It counts the processors that this process may use, also where a container has less than the machine.
    from joblib.externals.loky import cpu_count, get_reusable_executor

    count = cpu_count()
    processes = get_reusable_executor(
        count, timeout=_IDLE, initializer=exit_with_parent, initargs=(os.getpid(),)
    )
    try:
        yield processes, 2 * count
    except BaseException:
        processes.shutdown(wait=True, kill_workers=True)
        raise


def _chunks(files: Sequence[FoundFile]) -> Iterator[list[FoundFile]]:
    most = min(max(len(files) // _CHUNKS, _SMALL), _LARGE)
    chunk: list[FoundFile] = []
    room = _CHUNK_BYTES
    for file in files:
        if chunk and (len(chunk) == most or file.stamp.size > room):
            yield chunk
            chunk, room = [], _CHUNK_BYTES
        chunk.append(file)
        room -= file.stamp.size
    if chunk:
        yield chunk
