"""Folders of the cache that come into being whole or not at all, once, however many processes want them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from sqlalchemy.engine import make_url

from transfer_registry.errors import StorageError


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
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


def require_writable(file: Path) -> None:
    """Refuses a file that cannot be written by `atomic_write`, before the work that it is for.

    Raises:
        StorageError: It is a folder, lies in none, or the folder takes no files.
    """
    if file.is_dir():
        raise StorageError(f"{file} cannot be written: it is a folder; name a file in it")
    if _is_special(file):
        return
    try:
        with tempfile.TemporaryFile(dir=file.resolve().parent):
            pass
    except OSError as error:
        raise StorageError(f"{file} cannot be written: {file.parent}: {error.strerror}") from error


@contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """Lets a file be replaced once its new content is whole; where writing fails, the earlier one stays.

    Args:
        file: What a user asked for.

    Yields:
        What to write to: a hidden file beside it, or a device or pipe itself, such as /dev/stdout.
    """
    if _is_special(file):
        yield file
        return
    target = file.resolve()
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield unfinished
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Lets a folder come into being with all of its files, or not at all.

    Args:
        folder: What a user asked for: not there yet, or empty.

    Yields:
        What to write to: a hidden folder beside it.

    Raises:
        StorageError: There is something at this place already.
    """
    target = folder.resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        what = "holds files already" if target.is_dir() else "is a file"
        raise StorageError(
            f"{folder} {what}: name a folder that is new or empty, so that nothing is mixed up"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
    unfinished.mkdir()
    try:
        yield unfinished
        if target.exists():
            target.rmdir()  # it is empty; Windows renames onto no folder at all
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _is_special(file: Path) -> bool:
    return file.exists() and not file.is_file()


@contextmanager
def atomic_database(url: str) -> Iterator[str]:
    """Lets a SQLite database come into being whole or not at all, once, however many processes want it.

    Whoever is killed while MLflow or Optuna creates its tables leaves a database that neither opens again.

    Args:
        url: Of any database; what is no SQLite file, or exists, is left alone.

    Yields:
        The URL to create tables in: that of a temporary file, which takes the database's place afterwards.
    """
    file = Path(make_url(url).database or "") if url.startswith("sqlite:///") else None
    if file is None or file.exists():
        yield url
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(f"{file.name}.lock")):
        if file.exists():
            yield url
            return
        unfinished = file.with_name(f"{file.name}.part")
        for leftover in file.parent.glob(f"{unfinished.name}*"):
            leftover.unlink()
        yield f"sqlite:///{unfinished}"
        unfinished.replace(file)
