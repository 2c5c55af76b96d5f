"""Atomic creation of files, folders and databases."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy.engine import URL, make_url

from transfer_model.errors import cause
from transfer_registry.errors import StorageError
from transfer_registry.locks import file_lock


@contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """Replaces a file atomically; if writing fails, the old file remains.

    Yields:
        Path to write to: a hidden file in the same folder, or `file` itself if it is a device or pipe (/dev/stdout).
    """
    if _is_special(file):
        yield file
        return
    target = file.resolve()
    temporary = _temporary_path(target)
    try:
        yield temporary
        temporary.replace(target)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary)):  # as for a full disk
            error.filename = str(file)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def require_writable(file: Path) -> None:
    """Checks that `atomic_write` can write a file, so that errors are found before expensive work starts.

    Raises:
        StorageError: The file is a folder, or its parent folder does not exist or is not writable.
    """
    if file.is_dir():
        raise StorageError(f"cannot write {file}: it is a folder; specify a file path")
    if _is_special(file):
        return
    try:
        with tempfile.TemporaryFile(dir=file.resolve().parent):
            pass
    except OSError as error:
        raise StorageError(f"cannot write {file}: {file.parent}: {cause(error)}") from error


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Creates a folder and its files atomically. Yields a hidden temporary folder to write the files to.

    Raises:
        StorageError: `folder` is a file or is not empty.
    """
    target = folder.resolve()
    if target.exists() and not target.is_dir():
        raise StorageError(f"{folder} is a file; specify a new or empty folder")
    if target.exists() and any(target.iterdir()):
        raise StorageError(f"{folder} already contains files; specify a new or empty folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_path(target)
    temporary.mkdir()
    try:
        yield temporary
        if target.exists():
            target.rmdir()  # Windows cannot rename onto an existing folder
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Returns a cache folder, building it first if it is incomplete; other processes wait during the build.

    The file count is stored beside the folder, so the folder is rebuilt if files were deleted, for example by a
    cleanup tool. `build` fills an empty temporary folder, which is removed if `build` raises an exception.
    """
    if _is_complete(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(folder.with_name(f"{folder.name}.lock")):
        if not _is_complete(folder):
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
    _count_path(folder).write_text(str(_count_files(partial)), encoding="ascii")
    partial.rename(folder)


def _is_complete(folder: Path) -> bool:
    with suppress(FileNotFoundError):
        return folder.is_dir() and _count_path(folder).read_text(encoding="ascii") == str(_count_files(folder))
    return False


def _count_path(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.count")


def _count_files(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


@contextmanager
def atomic_database(url: str) -> Iterator[str]:
    """Creates a SQLite database atomically; other processes wait until the database is complete.

    Neither MLflow nor Optuna can open a database whose creation was interrupted.

    Yields:
        URL of the database to create the tables in: `url` itself if the database exists or is not a SQLite file;
        otherwise, the URL of a temporary file, which is moved into place once it is complete.
    """
    file = sqlite_file(url)
    if file is None or file.exists():
        yield url
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(file.with_name(f"{file.name}.lock")):
        if file.exists():
            yield url
            return
        temporary = file.with_name(f"{file.name}.part")
        for leftover in file.parent.glob(f"{temporary.name}*"):
            leftover.unlink()
        yield sqlite_url(temporary)
        temporary.replace(file)


def sqlite_url(file: Path) -> str:
    """Returns the URL of a SQLite database; the path may contain any character.

    The URL contains the driver name because for a plain `sqlite:///` URL, MLflow would create a second folder with
    a URL-encoded name (for example, `My%20Disk` beside `My Disk`).
    """
    return URL.create("sqlite+pysqlite", database=str(file)).render_as_string(hide_password=False)


def sqlite_file(url: str) -> Path | None:
    """Returns the file of a SQLite URL; None if the database is in memory or `url` is not a SQLite URL."""
    if not url.startswith(("sqlite:", "sqlite+")):
        return None
    database = make_url(url).database
    return Path(database) if database and database != ":memory:" else None


def _temporary_path(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}.part")


def _is_special(file: Path) -> bool:
    return file.exists() and not file.is_file()
