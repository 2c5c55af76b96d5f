"""Reads image files once: decodes each to its last pixel and hashes its bytes, in threads."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import islice
from typing import TYPE_CHECKING

from transfer_platform.data.digests import DigestMemory, sha256_of
from transfer_platform.progress import Progress, Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from transfer_platform.data.walking import File

_BATCH = 512
_MAX_BYTES = 1 << 30
_THREADS = min(8, os.cpu_count() or 1)


def read_digests(
    folder: Path, files: Sequence[File], verify: bool, progress: Progress
) -> tuple[dict[Path, str], dict[Path, str]]:
    """Hashes files and, where asked, makes sure that they are pictures.

    Files that an earlier call with the same Pillow decoded, and that did not change, are not read again.

    Args:
        folder: What the files' names are relative to.
        files: What to read.
        verify: Decode them too.
        progress: Is told how many files were read.

    Returns:
        The SHA-256 of every file that could be read, and what is wrong with each of the others.
    """
    memory = DigestMemory(f"{folder}|decoded by pillow {version('pillow')}")
    digests = {file.path: known for file in files if (known := memory.recall(file.name, file.status))}
    unknown = [file for file in files if file.path not in digests]
    problems: dict[Path, str] = {}
    done = len(digests)
    for file, digest, problem in _read_all(unknown, verify):
        if problem:
            problems[file.path] = problem
        else:
            digests[file.path] = digest
            memory.learn(file.name, file.status, digest)
        done += 1
        progress(Step(f"reading {folder.name}", done, len(files), "images"))
    if verify:
        memory.save()
    return digests, problems


def _read_all(files: Sequence[File], verify: bool) -> Iterator[tuple[File, str, str]]:
    """Each file with its digest or its problem; a batch at a time, so that memory stays flat."""
    if not files:
        return
    read, waiting = (_decode_and_hash if verify else _hash), iter(files)
    with ThreadPoolExecutor(_THREADS) as pool:
        while batch := list(islice(waiting, _BATCH)):
            for file, (digest, problem) in zip(batch, pool.map(read, batch), strict=True):
                yield file, digest, problem


def _decode_and_hash(file: File) -> tuple[str, str]:
    from transfer_model.errors import UnreadableImageError
    from transfer_model.preprocessing import decode

    if file.status.st_size > _MAX_BYTES:
        return "", f"it has {file.status.st_size:,} bytes, more than any picture"
    try:
        content = file.path.read_bytes()
        decode(content, name="it")
    except UnreadableImageError as error:
        return "", str(error)
    except OSError as error:
        return "", f"cannot be read: {error.strerror or error}"
    return hashlib.sha256(content).hexdigest(), ""


def _hash(file: File) -> tuple[str, str]:
    try:
        return sha256_of(file.path), ""
    except OSError as error:
        return "", f"cannot be read: {error.strerror or error}"
