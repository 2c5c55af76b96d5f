"""One driver per study: whoever runs it holds a lock, and whoever comes second is told who that is."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from transfer_platform.errors import StudyHeldError


@contextmanager
def hold(study: str, folder: Path) -> Iterator[None]:
    """Holds a study for the duration of a `with` block; the system frees it when the process dies.

    Args:
        study: Name of the study.
        folder: Of the study's files; made where it does not exist.

    Raises:
        StudyHeldError: Another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    holder = folder / "holder.json"
    try:
        with FileLock(folder / "held.lock", timeout=0):
            holder.write_text(json.dumps(_me()))
            yield
    except Timeout as error:
        raise StudyHeldError(
            f"study {study} is already running: {_describe(holder)}; wait for it or stop it"
        ) from error


def _me() -> dict[str, object]:
    return {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _describe(holder: Path) -> str:
    try:
        who = json.loads(holder.read_text())
        return f"process {who['process']} on {who['host']} has it since {who['since']}"
    except (OSError, ValueError, KeyError):
        return "another process has it"
