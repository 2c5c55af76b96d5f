"""Folders of the cache that come into being whole or not at all, once, however many processes want them."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from filelock import FileLock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def built_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Builds a folder, unless it is there already with all of its files.

    It is built beside its place and then renamed, under a lock that the system releases even after `kill -9`.
    What an interrupted build left behind is removed by the next one.

    Args:
        folder: Where it shall stand.
        build: Fills the empty folder it is given; whatever it raises is passed on, and nothing is left.

    Returns:
        `folder`.
    """
    if _is_whole(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not _is_whole(folder):
            _build(folder, build)
    return folder


def _build(folder: Path, build: Callable[[Path], None]) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    for leftover in (partial, folder):
        if leftover.exists():
            shutil.rmtree(leftover)
    partial.mkdir()
    try:
        build(partial)
    except BaseException:
        shutil.rmtree(partial)
        raise
    _count_file(folder).write_text(str(_count(partial)), encoding="ascii")
    partial.rename(folder)


def _is_whole(folder: Path) -> bool:
    """Caches are cleaned by age, file by file: a folder that lost some must not pass for a smaller set."""
    if not folder.is_dir():
        return False
    try:
        expected = _count_file(folder).read_text(encoding="ascii")
    except FileNotFoundError:
        return False
    return expected == str(_count(folder))


def _count_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.count")


def _count(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))
