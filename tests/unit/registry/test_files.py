"""Files, folders and databases that appear complete or not at all."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from transfer_registry import files
from transfer_registry.errors import StorageError


def test_a_file_is_replaced_when_its_content_is_complete(isolated: Path) -> None:
    out = isolated / "out.csv"
    out.write_text("earlier")

    def interrupted() -> None:
        with files.atomic_write(out) as temporary:
            temporary.write_text("ha")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert out.read_text() == "earlier"
    with files.atomic_write(out) as temporary:
        temporary.write_text("complete")
    assert out.read_text() == "complete"
    assert list(isolated.iterdir()) == [out]


def test_a_full_disk_is_reported_with_the_name_of_the_file(isolated: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, files.atomic_write(Path("out.csv")):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == "out.csv"
    assert not list(isolated.iterdir())


def test_a_pipe_is_written_to_and_not_replaced(isolated: Path) -> None:
    pipe = isolated / "pipe"
    os.mkfifo(pipe)
    files.require_writable(pipe)
    with files.atomic_write(pipe) as temporary:
        assert temporary == pipe
    assert pipe.is_fifo()


def test_a_folder_appears_with_all_of_its_files(isolated: Path) -> None:
    folder = isolated / "out"

    def interrupted() -> None:
        with files.atomic_folder(folder) as temporary:
            (temporary / "a").write_text("a")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(isolated.iterdir())
    with files.atomic_folder(folder) as temporary:
        (temporary / "a").write_text("a")
    assert [path.name for path in folder.iterdir()] == ["a"]
    with pytest.raises(StorageError, match="already contains files"), files.atomic_folder(folder):
        pass


def test_a_folder_is_built_once_and_again_when_it_lost_a_file(isolated: Path) -> None:
    calls = []

    def build(folder: Path) -> None:
        calls.append(folder)
        for name in "ab":
            (folder / name).write_text(name)

    for _ in range(2):
        assert files.build_once(isolated / "built", build) == isolated / "built"
    assert len(calls) == 1
    (isolated / "built" / "a").unlink()
    files.build_once(isolated / "built", build)
    assert len(calls) == 2
    assert sorted(path.name for path in (isolated / "built").iterdir()) == ["a", "b"]


def test_a_database_is_created_complete_or_not_at_all(isolated: Path) -> None:
    url = f"sqlite:///{isolated}/new.db"
    with pytest.raises(KeyboardInterrupt):
        _interrupted(url)
    assert not (isolated / "new.db").exists()
    with files.atomic_database(url) as temporary:
        assert not files.sqlite_file(temporary).exists(), "leftovers are removed"
        _create_table(temporary)
    with files.atomic_database(url) as existing:
        assert existing == url
    connection = sqlite3.connect(isolated / "new.db")
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("complete",)]
    connection.close()


def test_other_databases_are_left_alone(isolated: Path) -> None:
    with files.atomic_database("postgresql+psycopg://db/platform") as url:
        assert url == "postgresql+psycopg://db/platform"


def _interrupted(url: str) -> None:
    with files.atomic_database(url) as temporary:
        _create_table(temporary)
        raise KeyboardInterrupt


def _create_table(url: str) -> None:
    connection = sqlite3.connect(files.sqlite_file(url))
    connection.execute("CREATE TABLE complete (id)")
    connection.close()
