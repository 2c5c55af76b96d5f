"""Reads a few files: what each of the processes does that read a data set. Imports nothing heavy."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from io import FileIO
from typing import TYPE_CHECKING

from transfer_platform.data.image_stats import compute_stats
from transfer_platform.file_problems import MAX_BYTES, FileProblem, unreadable

if TYPE_CHECKING:
    from transfer_platform.data.look_memory import ImageStatsCache

_WATCHED = 1.0
"""Seconds between two looks whether the parent still lives."""

ScannedFile = tuple[str, bytes, FileProblem | None]
"""SHA-256, packed look, and what is wrong, of one file."""


def scan_chunk(paths: Sequence[str], memory: ImageStatsCache | None) -> list[ScannedFile]:
    """Hashes some files, and decodes those whose content is not known yet.

    Args:
        paths: Whose contents fit into memory together.
        memory: What is known; None: nothing is.
    """
    contents = [_content(path) for path in paths]
    hashed = [
        "" if isinstance(content, FileProblem) else hashlib.sha256(content).hexdigest()
        for content in contents
    ]
    known = dict(memory.get([digest for digest in hashed if digest])) if memory else {}
    return [
        ("", b"", content) if isinstance(content, FileProblem) else _decoded(content, digest, known)
        for content, digest in zip(contents, hashed, strict=True)
    ]


def exit_with_parent(parent: int) -> None:
    """Leaves it to the parent to be stopped with Ctrl-C, and ends soon after it in whatever way it ends.

    Args:
        parent: The process that asks for readings; its number.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCHED)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()


def _content(path: str) -> bytes | FileProblem:
    """A file's bytes, or why it has none that could be an image's."""
    try:
        with FileIO(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                return FileProblem("too many bytes", f"it has {size:,} bytes, more than any image")
            return file.readall()
    except OSError as error:
        return unreadable(error)


def _decoded(content: bytes, digest: str, known: Mapping[str, bytes]) -> ScannedFile:
    from transfer_model.errors import UnreadableImageError

    try:
        return digest, known.get(digest) or compute_stats(content, "it"), None
    except UnreadableImageError as error:
        return "", b"", FileProblem(error.kind, str(error))
