"""Reads image files once: decodes each to its last pixel and hashes its bytes, side by side."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

from transfer_platform.data.chunk import Reading, read_chunk
from transfer_platform.data.digests import DigestMemory
from transfer_platform.data.look_memory import LookMemory, look_memory
from transfer_platform.data.problem import Problem, shown
from transfer_platform.errors import DataError
from transfer_platform.progress import Progress, Step

if TYPE_CHECKING:
    from transfer_platform.data.looks import Looks
    from transfer_platform.data.walking import File

FEW = 512
"""Files for which it does not pay to start processes."""

_CHUNK, _CHUNK_BYTES = 64, 64 << 20
"""Files, and bytes, that are handed to a reader at once."""
_IDLE = 10
"""Seconds after which a reader ends that nobody asks any more."""
_SAVED = 8192
"""Looks that are kept at once; a power cut costs no more."""


@dataclass
class Readings:
    """What was read of some files.

    Attributes:
        digests: SHA-256 of every file that is a picture, by its path.
        problems: What is wrong with each of the other files.
    """

    digests: dict[str, str] = field(default_factory=dict)
    problems: dict[Path, Problem] = field(default_factory=dict)


def read_all(folder: Path, files: Sequence[File], looks: Looks, progress: Progress) -> Readings:
    """Hashes files and makes sure that they are pictures.

    What an earlier call with the same Pillow decoded is not decoded again: a file that did not change is not
    even read, and one whose content is known under another name is only hashed.

    Args:
        folder: What the files' names are relative to.
        files: What to read.
        looks: Is given what is seen of the pictures.
        progress: Is told how many files were read.
    """
    digests, memory = DigestMemory(str(folder)), look_memory()
    known = {
        file.path: digest for file in files if (digest := digests.recall(file.name, file.stamp)) is not None
    }
    for digest, look in memory.recall([digest for digest in known.values() if digest not in looks]):
        looks.add(digest, look)
    readings = Readings({path: digest for path, digest in known.items() if digest in looks})
    unread = [file for file in files if file.path not in readings.digests]
    fresh: dict[str, bytes] = {}
    begun = len(files) - len(unread) + 1
    try:
        with closing(_read(unread, memory)) as read:
            for done, (file, (digest, look, problem)) in enumerate(read, begun):
                if problem:
                    readings.problems[Path(file.path)] = problem
                else:
                    readings.digests[file.path] = digest
                    digests.learn(file.name, file.stamp, digest)
                    looks.add(digest, look)
                    fresh[digest] = look
                if len(fresh) >= _SAVED:
                    memory.learn(fresh)
                    fresh = {}
                progress(Step(f"reading {folder.name}", done, len(files), "images"))
    finally:  # interrupted, too: what was read before is not read again
        memory.learn(fresh)
        digests.save()
    return readings


def _read(files: Sequence[File], memory: LookMemory) -> Generator[tuple[File, Reading]]:
    """Each file with what it is; a chunk at a time, so that memory stays flat."""
    if not files:
        return
    chunks = list(_chunks(files))
    paths = [[file.path for file in chunk] for chunk in chunks]
    with _readers(len(files)) as pool:
        answers = pool.map(read_chunk, paths, repeat(None if memory.is_empty else memory))
        for chunk in chunks:
            try:
                readings = next(answers)
            except (BrokenExecutor, MemoryError) as error:
                raise DataError(
                    f"the process that read {shown(chunk[0].path)} and {len(chunk) - 1} files after it died: "
                    "it was killed, perhaps for want of memory, or one of them crashes Pillow"
                ) from error
            yield from zip(chunk, readings, strict=True)


@contextmanager
def _readers(files: int) -> Iterator[Executor]:
    """Threads, or processes for many files: small pictures are more work for Python than for Pillow."""
    if files <= FEW:
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            yield threads
        return
    # Unlike multiprocessing's own, its processes never run the caller's script; the next split finds them.
    # It counts the processors that this process may use, also where a container has less than the machine.
    from joblib.externals.loky import cpu_count, get_reusable_executor

    count = cpu_count()
    processes = get_reusable_executor(count, timeout=_IDLE)
    try:
        yield processes
    except BaseException:
        processes.shutdown(wait=False, kill_workers=True)
        raise


def _chunks(files: Sequence[File]) -> Iterator[list[File]]:
    chunk: list[File] = []
    room = _CHUNK_BYTES
    for file in files:
        if chunk and (len(chunk) == _CHUNK or file.stamp.size > room):
            yield chunk
            chunk, room = [], _CHUNK_BYTES
        chunk.append(file)
        room -= file.stamp.size
    if chunk:
        yield chunk
