"""Catalogs of class folders, and every error that they can have."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer_platform.data.catalog import Catalog, ImageRecord, class_names, scan_folder
from transfer_platform.data.patterns import match_files, matches
from transfer_platform.disk_cache import FILE_NAME
from transfer_platform.errors import DataError, SplitError
from transfer_platform.paths import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from transfer_platform.progress import Step


def scan_valid(folder: Path, *arguments: Any, **options: Any) -> Catalog:
    """Scans a folder and rejects it like a split of a recipe."""
    catalog = scan_folder(folder, *arguments, **options)
    catalog.require_readable()
    catalog.require_classes()
    return catalog


@pytest.fixture
def folder(isolated: Path, write_image: Callable[[Path, str], None]) -> Path:
    for label in ("ant", "bee"):
        for name in ("1.png", "2.png", "deep/er/3.png"):
            write_image(isolated / "set" / label / name, label + name)
    return isolated / "set"


def test_images_have_label_and_digest_and_deeper_folders_count(folder: Path) -> None:
    catalog = scan_valid(folder)
    assert catalog.classes == ("ant", "bee")
    assert len(catalog.images) == 6
    assert [each.label for each in catalog.images] == ["ant"] * 3 + ["bee"] * 3
    assert folder / "bee" / "deep" / "er" / "3.png" in {each.path for each in catalog.images}


def test_system_files_are_ignored_and_reported(folder: Path) -> None:
    for name in (".DS_Store", "ant/Thumbs.db", "bee/desktop.ini", "ant/._1.png"):
        (folder / name).write_bytes(b"junk")
    (folder / ".git").mkdir()
    (folder / "__MACOSX").mkdir()
    catalog = scan_valid(folder)
    assert len(catalog.images) == 6
    assert {path.name for path in catalog.ignored} == {
        ".DS_Store", "Thumbs.db", "desktop.ini", "._1.png", ".git", "__MACOSX"
    }  # fmt: skip


def test_all_problems_are_named_at_once(folder: Path) -> None:
    (folder / "ant" / "notes.txt").write_text("no image")
    (folder / "bee" / "empty.jpg").write_bytes(b"")
    (folder / "loose.png").write_bytes((folder / "ant" / "1.png").read_bytes())
    (folder / "bee" / "cut.png").write_bytes((folder / "bee" / "1.png").read_bytes()[:60])
    with pytest.raises(DataError) as raised:
        scan_valid(folder)
    message = str(raised.value)
    assert message.startswith(f"4 files in {folder} cannot be used:")
    for name in ("ant/notes.txt: it is not an image", "bee/empty.jpg: it is empty", "bee/cut.png: it is a truncated"):
        assert f"\n  {name}" in message
    assert "\n  loose.png: is next to the class folders" in message
    assert message.endswith("repair these files, or move them out of the folder")


def test_archives_beside_the_class_folders_are_to_be_unpacked(folder: Path) -> None:
    for name in ("cat.zip", "dog.TAR.GZ"):
        (folder / name).write_bytes(b"junk")
    problems = scan_folder(folder).problems
    assert {path.name for path in problems} == {"cat.zip", "dog.TAR.GZ"}
    assert all("is an archive" in problem.message and "unpack it" in problem.message for problem in problems.values())


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (LFS, "; it is text that begins with 'version https://git-lfs.github.com/spec/v1'"),
        (b"<!DOCTYPE html>\r\n<title>404", "; it is text that begins with '<!DOCTYPE html>'"),
        (b'{"error": "' + b"x" * 100, '; it is text that begins with \'{"error": "' + "x" * 49 + "'"),
        (b"\x00\x00\x00\x18ftypmp42", ""),
        (b"\x1b[2J\n", ""),
        (b"\n\n", ""),
    ],
)
def test_text_instead_of_an_image_is_quoted(content: bytes, said: str, folder: Path) -> None:
    (folder / "ant" / "9.jpg").write_bytes(content)
    (problem,) = scan_folder(folder).problems.values()
    assert problem.kind == "unsupported format"
    assert problem.message.partition(")")[2] == said


def test_twenty_problems_are_named_and_the_rest_counted(folder: Path) -> None:
    for number in range(23):
        (folder / "ant" / f"{number:02d}.txt").touch()
    with pytest.raises(DataError, match=r"^23 files") as raised:
        scan_valid(folder)
    assert "ant/19.txt" in str(raised.value)
    assert "ant/20.txt" not in str(raised.value)
    assert "... and 3 more" in str(raised.value)


@pytest.mark.parametrize(
    ("remove", "message"),
    [(["bee"], "only one: 'ant'"), (["ant", "bee"], "has none"), (["bee/1.png", "bee/2.png", "bee/deep"], "'bee'")],
)
def test_too_few_classes_and_empty_ones(remove: list[str], message: str, folder: Path) -> None:
    for name in remove:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DataError, match=message):
        scan_valid(folder)


def test_a_missing_folder_is_suggested(folder: Path) -> None:
    with pytest.raises(DataError, match="did you mean 'set'"):
        scan_valid(folder.with_name("sett"))


class TestExclusion:
    """Patterns, relative to the source."""

    @pytest.mark.parametrize(
        ("pattern", "left"),
        [("set/ant/1.png", 5), ("set/ant/*.png", 4), ("**/3.png", 4), ("set/*/deep", 4), ("set/bee/2.png", 5)],
    )
    def test_patterns(self, pattern: str, left: int, folder: Path) -> None:
        root = folder.parent
        catalog = scan_valid(folder, match_files(root, [pattern], "exclude"), root)
        assert len(catalog.images) == left
        assert len(catalog.excluded) == 6 - left

    def test_a_name_with_brackets_is_a_name(self, folder: Path) -> None:
        path = (folder / "ant" / "1.png").rename(folder / "ant" / "photo[1].png")
        assert match_files(folder, ["ant/photo[1].png"], "exclude") == {path}

    def test_problems_can_be_excluded(self, folder: Path) -> None:
        (folder / "ant" / "notes.txt").write_text("no image")
        (folder / "readme.md").write_text("no image")
        excluded = match_files(folder, ["**/*.txt", "readme.md"], "exclude")
        assert len(scan_valid(folder, excluded).images) == 6

    def test_all_patterns_without_a_match_are_named(self, folder: Path) -> None:
        with pytest.raises(DataError) as raised:
            match_files(folder, ["ant/11.png", "2.png", "*.gif", "../set/ant/1.png", "/etc/passwd", ""], "exclude")
        message = str(raised.value)
        assert "'ant/11.png' matches no file; did you mean 'ant/1.png'?" in message
        assert message.count("matches no file") == 6

    def test_a_name_without_its_folder_is_completed(self, folder: Path) -> None:
        with pytest.raises(DataError, match=r"'3\.png' matches no file; did you mean 'ant/deep/er/3\.png'"):
            match_files(folder, ["3.png"], "exclude")

    def test_a_whole_class_can_be_left_out_but_not_emptied(self, folder: Path, write_image) -> None:
        write_image(folder / "cat" / "1.png", "cat")
        assert scan_valid(folder, match_files(folder, ["bee"], "exclude")).classes == ("ant", "cat")
        with pytest.raises(DataError, match="without images: 'bee'"):
            scan_valid(folder, match_files(folder, ["bee/*"], "exclude"))
        (folder / "b\x07").mkdir()
        with pytest.raises(DataError, match=r"(?s)unprintable characters: b\\x07; .*images: 'b\\x07', 'bee'"):
            scan_valid(folder, match_files(folder, ["bee/*"], "exclude"))

    def test_links_and_folders_with_problems_can_be_excluded(self, folder: Path) -> None:
        (folder / "ant" / "gone.png").symlink_to("nothing.png")
        (folder / "ant" / "circle").symlink_to("circle")
        (folder / "bee" / "out").symlink_to("/etc")
        (folder / "cat").mkdir()
        names = ["ant/gone.png", "ant/circle", "bee/out", "cat"]
        catalog = scan_folder(folder, match_files(folder, names, "exclude"))
        assert not catalog.problems
        assert not catalog.class_errors()
        assert len(catalog.images) == 6


class TestLinks:
    """Links are followed inside the dataset and rejected if they leave it or are circular."""

    def test_inside(self, folder: Path) -> None:
        (folder / "ant" / "link.png").symlink_to(folder / "ant" / "1.png")
        (folder / "cat").symlink_to(folder / "bee", target_is_directory=True)
        assert [each.label for each in scan_valid(folder).images] == ["ant"] * 4 + ["bee"] * 3 + ["cat"] * 3

    @pytest.mark.parametrize(
        ("link", "target", "message"),
        [
            ("ant/link.png", "/etc/passwd", "to /etc/passwd, outside the dataset"),
            ("ant/link", "..", "loop"),
            ("ant/link", ".", "loop"),
            ("ant/link", "link", "loop|target does not exist"),
            ("ant/link.png", "nothing.png", "target does not exist"),
            ("ant/link", "/tmp", "outside the dataset"),
        ],
    )
    def test_refused(self, link: str, target: str, message: str, folder: Path) -> None:
        (folder / link).symlink_to(target)
        with pytest.raises(DataError, match=f"{link}: is (a|part of a) symbolic link .*({message})"):
            scan_valid(folder)

    def test_two_folders_that_link_each_other(self, folder: Path) -> None:
        (folder / "ant" / "to_bee").symlink_to("../bee")
        (folder / "bee" / "to_ant").symlink_to("../ant")
        with pytest.raises(DataError, match="symbolic link loop"):
            scan_valid(folder)

    def test_a_pipe_is_not_waited_for(self, folder: Path) -> None:
        os.mkfifo(folder / "ant" / "pipe.png")
        with pytest.raises(DataError, match=r"ant/pipe\.png: is neither a file nor a folder"):
            scan_valid(folder)

    def test_the_data_set_itself_may_be_a_link(self, folder: Path) -> None:
        folder.with_name("alias").symlink_to(folder)
        assert len(scan_valid(folder.with_name("alias")).images) == 6


class TestCache:
    """Unchanged files are not read again."""

    def steps(self, folder: Path) -> int:
        steps: list[Step] = []
        scan_valid(folder, progress=steps.append)
        return len(steps)

    def test_only_changed_files_are_read(self, folder: Path, write_image: Callable[[Path, str], None]) -> None:
        assert self.steps(folder) == 6
        assert self.steps(folder) == 0
        write_image(folder / "ant" / "1.png", "another image of the same size")
        assert self.steps(folder) == 1

    def test_files_read_before_an_interruption_are_not_read_again(self, folder: Path) -> None:
        def interrupted(step: Step) -> None:
            if step.done == 4:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            scan_valid(folder, progress=interrupted)
        assert self.steps(folder) == 2

    def test_a_changed_file_has_another_digest_even_with_its_old_time(
        self, folder: Path, write_image: Callable[[Path, str], None]
    ) -> None:
        path, before = folder / "ant" / "1.png", scan_valid(folder).images
        times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
        write_image(path, "another image of the same size")
        os.utime(path, ns=times)
        assert scan_valid(folder).images != before

    @pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"ant/1.png": 3}', b"\xff\xfe", b'{"ant/1.png": []}'])
    def test_a_damaged_cache_is_computed_again(self, damage: bytes, folder: Path) -> None:
        before = scan_valid(folder).images
        (cache_folder() / FILE_NAME).write_bytes(damage)
        assert scan_valid(folder).images == before
        assert self.steps(folder) == 0

    def test_a_file_that_is_not_an_image_is_never_cached_as_one(self, folder: Path) -> None:
        (folder / "ant" / "notes.txt").write_text("no image")
        for _ in range(2):
            with pytest.raises(DataError, match=r"notes\.txt"):
                scan_valid(folder)
        (folder / "ant" / "notes.txt").unlink()
        assert self.steps(folder) == 0


def test_labels_are_composed_unicode(folder: Path) -> None:
    (folder / "bee").rename(folder / "cafe\u0301")
    assert scan_valid(folder).classes == ("ant", "caf\u00e9")


def test_class_map_names_every_difference() -> None:
    def split(*labels: str) -> list[ImageRecord]:
        return [ImageRecord(label, label, "0" * 64) for label in labels]

    assert class_names({"train": split("b", "a", "a"), "test": split("a", "b")}) == ("a", "b")
    with pytest.raises(SplitError) as raised:
        class_names({"train": split("ants", "bees"), "validation": split("ants"), "test": split("ants", "bee", "bees")})
    assert "validation is missing the class 'bees'" in str(raised.value)
    assert "test has the class 'bee', which is not in train; did you mean 'bees'?" in str(raised.value)


def test_a_cache_that_cannot_be_written_to_costs_time_and_nothing_else(folder, isolated, monkeypatch) -> None:
    (isolated / "file").write_text("no folder")
    monkeypatch.setenv("PLATFORM_CACHE", str(isolated / "file" / "cache"))
    assert scan_valid(folder).images


@pytest.mark.parametrize(("pattern", "remedy"), [("**.png", "'**/*.png'"), ("ant/**1.png", "'ant/**/*1.png'")])
def test_two_stars_within_a_part_of_a_pattern_are_refused(tmp_path: Path, pattern: str, remedy: str) -> None:
    with pytest.raises(DataError, match=re.escape(f"write {remedy}")):
        match_files(tmp_path, [pattern], "exclude")


@pytest.mark.parametrize(
    ("name", "pattern", "expected"),
    [
        ("val/metadata.csv", "val", True),
        ("val/metadata.csv", "val/*", True),
        ("metadata.csv", "./metadata.csv", True),
        ("metadata.csv", "*.csv", True),
        ("val/metadata.csv", "*.csv", False),
        ("val/metadata.csv", "**/*.csv", True),
        ("a[1]/metadata.csv", "a[1]/metadata.csv", True),
    ],
)
def test_patterns_match_names_as_they_match_files(name: str, pattern: str, expected: bool, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    assert matches(name, pattern) is expected
    found = match_files(tmp_path, [pattern], "exclude") if expected else frozenset()
    assert (tmp_path / name in found) is expected


def test_repeated_double_stars_match_a_deep_path_at_once(tmp_path: Path) -> None:
    """With one more folder and one more `**`, trying every division of the path would take several times as long."""
    deep, pattern = "/".join(["d"] * 40), "/".join(["**"] * 20)
    assert matches(f"{deep}/a", f"{pattern}/a")
    assert not matches(f"{deep}/a", f"{pattern}/b")
    assert not matches(f"{deep}/a", "/".join(["**/d"] * 20) + "/b")
    (tmp_path / deep).mkdir(parents=True)
    (tmp_path / deep / "a").touch()
    assert match_files(tmp_path, [f"{pattern}/a", f"**/**//{pattern}/d/a"], "exclude") == {tmp_path / deep / "a"}
    assert tmp_path / deep / "a" in match_files(tmp_path, [f"d/{pattern}"], "exclude")


_PARTS = st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=5)


@given(_PARTS, st.lists(st.sampled_from(["**", "*", "a"]), min_size=1, max_size=5))
def test_patterns_match_as_regular_expressions_of_whole_parts(name: list[str], pattern: list[str]) -> None:
    parts = {"**": "(?:[ab]/)*", "*": "[ab]/", "a": "a/"}
    prefixes = ["/".join(name[:length]) + "/" for length in range(1, len(name) + 1)]
    expected = any(re.fullmatch("".join(map(parts.__getitem__, pattern)), prefix) for prefix in prefixes)
    assert matches("/".join(name), "/".join(pattern)) is expected
