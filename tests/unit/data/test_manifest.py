"""Datasets listed in a manifest: equal to folders, and every error of the table."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from transfer_platform.data.dataset import open_dataset
from transfer_platform.data.manifest import read_manifest
from transfer_platform.data.splits import Splits
from transfer_platform.errors import DataError, SourceError, SplitError
from transfer_platform.inspection.inspection import Inspection
from transfer_platform.inspection.preflight import preflight, require_valid
from transfer_platform.progress import Step
from transfer_platform.recipe.schema import DatasetConfig, FoldsConfig, SplitsConfig

WriteImage = Callable[[Path, str], None]
Row = Sequence[object]
TEST = SplitsConfig(test=0.4)


@pytest.fixture
def folder(isolated: Path, write_image: WriteImage) -> Path:
    """Ten images each of ants and bees, as class folders."""
    for label in ("ant", "bee"):
        for number in range(10):
            write_image(isolated / "set" / label / f"{number}.png", f"{label}{number}")
    return isolated / "set"


def rows(folder: Path) -> list[list[object]]:
    """A path, relative to the folder above, and a label for each image."""
    return [[path.relative_to(folder.parent).as_posix(), path.parent.name] for path in sorted(folder.glob("*/*"))]


def table(file: Path, rows: Sequence[Row], head: Row = ("path", "label")) -> Path:
    """Writes a manifest in the format of its suffix."""
    if file.suffix == ".parquet":
        columns = {str(name): [row[place] for row in rows] for place, name in enumerate(head)}
        parquet.write_table(pa.table(columns), file)
    else:
        comma = "," if file.suffix == ".csv" else "\t"
        file.write_text("".join(comma.join(map(str, row)) + "\n" for row in (head, *rows)), encoding="utf-8")
    return file


def listed(name: str = "photos.csv", **options: Any) -> DatasetConfig:
    return DatasetConfig(source=name, **{"splits": TEST, **options})


def read(base: Path, name: str = "photos.csv", **options: Any) -> Splits:
    return require_valid(*preflight(open_dataset(listed(name, **options), base)))


def inspected(base: Path, name: str = "photos.csv", **options: Any) -> Inspection:
    return preflight(open_dataset(listed(name, **options), base))[0]


@pytest.mark.parametrize("name", ["photos.csv", "photos.tsv", "photos.parquet", "PHOTOS.CSV"])
def test_the_same_images_as_folders_and_as_a_manifest_are_the_same_data(name: str, folder: Path, splits_of) -> None:
    base = folder.parent
    (base / "lists").mkdir()
    table(base / "lists" / name.lower(), [[f"../{path}", label] for path, label in rows(folder)])
    (base / "lists" / name.lower()).rename(base / "lists" / name)
    from_folders = splits_of(folder, ".", 0.2, 0.4)
    from_manifest = read(base, f"lists/{name}")
    assert from_manifest.fingerprint == from_folders.fingerprint
    assert from_manifest.classes == from_folders.classes
    assert [each.path for each in from_manifest.development] == [each.path for each in from_folders.development]
    deal = {"validation": {"folds": 3}, "test": 0.4}
    from_manifest = read(base, f"lists/{name}", splits=SplitsConfig.model_validate(deal))
    from_folders = splits_of(folder, ".", FoldsConfig(folds=3), 0.4)
    assert (from_manifest.folds, from_manifest.fingerprint) == (from_folders.folds, from_folders.fingerprint)


def test_order_names_and_other_columns_do_not_matter(folder: Path) -> None:
    base, entries = folder.parent, rows(folder)
    table(base / "photos.csv", entries)
    before = read(base)
    for number, (path, _) in enumerate(entries):
        (base / str(path)).rename(base / f"{number}.png")
    shuffled = [[label, "x,y", f"{number}.png"] for number, (_, label) in enumerate(entries)][::-1]
    table(base / "photos.tsv", shuffled, ["label", "note", "path"])
    assert read(base, "photos.tsv").fingerprint == before.fingerprint


def test_the_column_split_says_which_image_is_which(folder: Path) -> None:
    base, words = folder.parent, ["Train"] * 6 + ["val"] * 2 + ["TEST"] * 2
    table(base / "photos.csv", [[*row, word] for row, word in zip(rows(folder), words * 2, strict=True)],
          ["path", "label", "split"])  # fmt: skip
    found, splits = preflight(open_dataset(DatasetConfig(source="photos.csv"), base))
    assert {role: len(images) for role, images in splits.by_name.items()} == {
        "train": 12, "validation": 4, "test": 4
    }  # fmt: skip
    assert {path.path.name for path in splits.validation} == {"6.png", "7.png"}
    assert sorted(each.detail for each in found.by_kind("manifest")) == [
        "the split 'TEST' in 4 rows is interpreted as test",
        "the split 'Train' in 12 rows is interpreted as train",
        "the split 'val' in 4 rows is interpreted as validation",
    ]


def test_what_the_manifest_lacks_is_a_fraction_or_folds(folder: Path) -> None:
    base = folder.parent
    for words, splits, sizes in (
        (["train"] * 8 + ["test"] * 2, {}, {"train": 12, "validation": 4, "test": 4}),
        (["train"] * 8 + ["test"] * 2, {"validation": {"folds": 4}}, {"train": 16, "test": 4}),
    ):
        entries = [[*row, word] for row, word in zip(rows(folder), words * 2, strict=True)]
        table(base / "photos.csv", entries, ["path", "label", "split"])
        made = read(base, splits=SplitsConfig.model_validate(splits))
        assert {role: len(images) for role, images in made.by_name.items()} == sizes
    assert made.fold_count == 4
    table(base / "photos.csv", [[*row, "train" if i % 5 else "dev"] for i, row in enumerate(rows(folder))],
          ["path", "label", "split"])  # fmt: skip
    made = read(base)
    assert len(made.validation) == 4
    assert made.test


@pytest.mark.parametrize(
    ("splits", "words", "message"),
    [
        ({"test": "test"}, None, "no row is assigned to test; .* set dataset.splits.test to a fraction"),
        ({"test": "photos/test"}, None, "is set to the folder 'photos/test', but a manifest has no folders"),
        ({"train": "photos", "test": 0.2}, None, "dataset.splits.train is set to the folder 'photos', but"),
        ({"validation": "val", "test": 0.2}, None, "dataset.splits.validation is set to the folder 'val', but"),
        ({"test": 0.3}, ["train", "test"], "test is 0.3, but the manifest has test rows"),
        (
            {"validation": {"folds": 3}, "test": 0.3},
            ["train", "val"],
            r"is {folds: 3}, but the manifest has validation rows",
        ),
        ({"validation": 0.3, "test": 0.3}, ["train", "val"], "is 0.3, but the manifest has validation rows"),
        ({"test": 0.3}, ["val", "val"], "no row is assigned to train"),
    ],
)
def test_splits_that_do_not_fit_the_manifest(splits, words, message: str, folder: Path) -> None:
    entries = rows(folder)
    head = ["path", "label", "split"] if words else ["path", "label"]
    if words:
        entries = [[*row, words[place % 2]] for place, row in enumerate(entries)]
    table(folder.parent / "photos.csv", entries, head)
    with pytest.raises(SplitError, match=message):
        read(folder.parent, splits=SplitsConfig.model_validate(splits))


def test_every_wrong_row_is_named_at_once_with_its_line(folder: Path) -> None:
    base = folder.parent
    (base / "photos.csv").write_text(
        "path,label,split\n"
        "set/ant/0.png,ant,train\n"
        "set/ant/1.png,,train\n"
        ",ant,train\n"
        '"set/ant/2.png","ant","tarin"\n'
        "set/ant/../ant/0.png,ant,test\n"
        "\n"
        '"set/ant/3.png","a\nb",train\n'
        "set/ant/4.png,ant\n"
        "set/ant/44.png,ant,test\n"
        "set\\ant\\5.png,ant,test\n"
        "ftp://host/a.png,ant,test\n"
    )
    with pytest.raises(DataError) as raised:
        read(base)
    message = str(raised.value)
    assert message.startswith(f"the manifest {base / 'photos.csv'} has 8 errors:\n")
    for line in (
        "line 3: its 'label' is empty",
        "line 4: its 'path' is empty",
        "line 5: its split is 'tarin', but must be train, validation or test; did you mean 'train'?",
        "line 6: set/ant/../ant/0.png is already listed in photos.csv, line 2",
        "line 10: has 2 cells, but the header has 3",
        "line 11: set/ant/44.png: the file does not exist; did you mean '4.png'?",
        "line 12: set\\\\ant\\\\5.png: the file does not exist; use / to separate folders",
        "line 13: ftp://host/a.png cannot be fetched; supported schemes: https://, http://, s3://",
    ):
        assert f"\n  photos.csv, {line}" in message.replace("\\", "\\\\")


def test_twenty_wrong_rows_are_named_and_the_rest_counted(folder: Path) -> None:
    table(folder.parent / "photos.csv", [[path, ""] for path, _ in rows(folder)] + [["", "x"]] * 3)
    with pytest.raises(DataError, match=r"^the manifest .* has 23 errors:(.|\n)*line 21: .*\n  ... and 3 more$"):
        read(folder.parent)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Paths,Labels\na,b\n", "no 'path' column; did you mean 'Paths'.*no 'label' column.*'Paths', 'Labels'; cells"),
        ("path;label\na;b\n", "separated by semicolons; save it with commas"),
        ("path,label,label\na,b,c\n", "the 'label' column occurs 2 times"),
        ("path,label\n", "has no rows below the header"),
        ("", "its columns are none"),
        ("path,label\ncaf\xe9.png,a\n", r"is not valid UTF-8 \(at byte 14\); save it as UTF-8"),
        ('path,label\n"a.png,b\n', "cannot be read: unexpected end of data"),
    ],
)
def test_tables_that_are_not_manifests(content: str, message: str, isolated: Path) -> None:
    (isolated / "photos.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        read(isolated)


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"no parquet"])
def test_a_damaged_parquet_file(damage: bytes, isolated: Path) -> None:
    (isolated / "photos.parquet").write_bytes(damage)
    with pytest.raises(DataError, match="is corrupt or not a Parquet file"):
        read(isolated, "photos.parquet")


def test_parquet_columns_are_read_as_text(folder: Path) -> None:
    base, entries = folder.parent, rows(folder)
    labels = pa.array([int(label == "bee") for _, label in entries])
    paths = pa.array([path for path, _ in entries]).dictionary_encode()
    parquet.write_table(pa.table({"path": paths, "label": labels}), base / "photos.parquet")
    assert read(base, "photos.parquet").classes == ("0", "1")
    labels = pa.array([[label] for _, label in entries])
    parquet.write_table(pa.table({"path": paths, "label": labels}), base / "photos.parquet")
    with pytest.raises(DataError, match=r"'label' .* has the type list<.*, but must contain text or numbers"):
        read(base, "photos.parquet")
    with pytest.raises(DataError, match=r"no 'label' column"):
        read(base, table(base / "other.parquet", entries, ["path", "lable"]).name)
    with pytest.raises(DataError, match=r"photos.parquet, row 1: its 'label' is empty"):
        read(base, table(base / "photos.parquet", [[entries[0][0], None], *entries[1:]]).name)


def test_the_byte_order_mark_of_excel_and_normalized_labels(folder: Path) -> None:
    entries = [[path, " cafe\u0301 " if label == "ant" else label] for path, label in rows(folder)]
    file = table(folder.parent / "photos.csv", entries)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert read(folder.parent).classes == ("bee", "caf\u00e9")


def test_absolute_paths_and_links_of_a_local_manifest(folder: Path, splits_of) -> None:
    base = folder.parent
    (base / "elsewhere").mkdir()
    (base / "elsewhere" / "link.png").symlink_to(folder / "ant" / "0.png")
    entries = [[folder.parent / str(path), label] for path, label in rows(folder)]
    entries[0][0] = "link.png"
    table(base / "elsewhere" / "photos.csv", entries)
    assert read(base, "elsewhere/photos.csv").fingerprint == splits_of(folder, ".", 0.2, 0.4).fingerprint


def test_bad_files_are_reported_like_those_of_folders(folder: Path) -> None:
    base = folder.parent
    (folder / "ant" / "0.png").write_bytes(b"")
    (folder / "ant" / "1.png").write_bytes((folder / "ant" / "1.png").read_bytes()[:60])
    (folder / "ant" / "2.png").write_text("no image")
    (folder / "ant" / "3.png").unlink()
    os.mkfifo(folder / "ant" / "3.fifo")
    entries = [*rows(folder), ["set/ant/3.png", "ant"], ["gone/1.png", "bee"]]
    table(base / "photos.csv", entries)
    found = inspected(base)
    assert [(each.kind, found.line(each)) for each in found.errors] == [
        ("missing", "gone/1.png: the file does not exist (photos.csv, line 23)"),
        ("missing", "set/ant/3.png: the file does not exist; did you mean '9.png'? (photos.csv, line 22)"),
        ("empty", "set/ant/0.png: it is empty (0 bytes) (photos.csv, line 2)"),
        ("unsupported format", f"set/ant/2.png: {_detail(found, 'unsupported format')}"),
        ("damaged", f"set/ant/1.png: {_detail(found, 'damaged')}"),
        ("special file", "set/ant/3.fifo: it is a folder, a pipe or a device, not a file (photos.csv, line 5)"),
    ]
    with pytest.raises(DataError, match=r"6 errors in .*; nothing was trained"):
        read(base)
    found, splits = preflight(open_dataset(listed(on_bad_image="skip"), base))
    assert len(found.quarantine) == 6
    assert sum(map(len, splits.by_name.values())) == 16
    found, splits = preflight(open_dataset(listed(exclude=("set/ant/[0-3].*", "gone")), base))
    assert len(found.by_kind("excluded")) == 6
    assert sum(map(len, splits.by_name.values())) == 16


def _detail(found: Inspection, kind: str) -> str:
    [finding] = found.by_kind(kind)
    assert "(photos.csv, line " in finding.detail
    return finding.detail


class TestExclusion:
    """Patterns name rows."""

    @pytest.mark.parametrize(
        ("pattern", "left"),
        [
            ("set/ant/1.png", 19), ("set/ant/*.png", 10), ("**/3.png", 18), ("set/*/3.png", 18),
            ("set/ant", 10), ("set/ant/", 10), ("*/ant", 10), ("set/**/[1-3].png", 14), ("set/bee/?.png", 10),
        ],
    )  # fmt: skip
    def test_patterns(self, pattern: str, left: int, folder: Path) -> None:
        table(folder.parent / "photos.csv", rows(folder))
        source = open_dataset(listed(exclude=(pattern,)), folder.parent)
        assert len(source.catalogs["train"].images) == left
        assert len(source.catalogs["train"].excluded) == 20 - left

    def test_a_name_with_brackets_is_a_name(self, folder: Path) -> None:
        (folder / "ant" / "0.png").rename(folder / "ant" / "photo[1].png")
        table(folder.parent / "photos.csv", rows(folder))
        [excluded] = open_dataset(listed(exclude=("set/ant/photo[1].png",)), folder.parent).catalogs["train"].excluded
        assert excluded.name == "photo[1].png"

    def test_all_patterns_without_a_row_are_named(self, folder: Path) -> None:
        table(folder.parent / "photos.csv", rows(folder))
        with pytest.raises(DataError) as raised:
            read(folder.parent, exclude=("set/ant/11.png", "1.png", "*.gif", "set/a"))
        assert str(raised.value).count("matches no row") == 4
        assert "'1.png' matches no row; did you mean 'set/ant/1.png'?" in str(raised.value)

    def test_a_class_of_which_nothing_is_left(self, folder: Path) -> None:
        table(folder.parent / "photos.csv", rows(folder))
        with pytest.raises(DataError, match="must list at least two classes, but lists only one: 'ant'"):
            read(folder.parent, exclude=("set/bee",))

    def test_copies_in_two_splits_can_be_allowed(self, folder: Path) -> None:
        base = folder.parent
        (folder / "bee" / "9.png").write_bytes((folder / "bee" / "0.png").read_bytes())
        entries = [[*row, "test" if place % 10 > 7 else "train"] for place, row in enumerate(rows(folder))]
        table(base / "photos.csv", entries, ["path", "label", "split"])
        with pytest.raises(DataError, match="duplicate across splits"):
            read(base, splits=SplitsConfig())
        assert read(base, splits=SplitsConfig(), allow_duplicates=("set/bee/9.png",)).test


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("aaaa", "must list at least two classes, but lists only one: 'a'"),
        ("a\x07a\x07", "labels with unprintable characters: \\\\x07"),
    ],
)
def test_labels_that_do_not_make_classes(labels: str, message: str, folder: Path) -> None:
    entries = [[path, labels[place % 4]] for place, (path, _) in enumerate(rows(folder))]
    table(folder.parent / "photos.csv", entries)
    with pytest.raises(DataError, match=message):
        read(folder.parent)


@pytest.mark.parametrize("name", ["photos.csv", "photos.parquet"])
def test_weights_belong_to_the_training_images_and_their_fingerprint(name, folder: Path) -> None:
    base, head = folder.parent, ["path", "label", "weight"]
    table(base / name, rows(folder))
    plain = read(base, name)
    table(base / name, [[*row, 1] for row in rows(folder)], head)
    assert read(base, name).fingerprints == plain.fingerprints
    table(base / name, [[*row, 0.5 + place / 10] for place, row in enumerate(rows(folder))], head)
    weighted = read(base, name)
    order = [path.relative_to(base).as_posix() for path in sorted(folder.glob("*/*"))]
    for image in weighted.train:
        place = order.index(image.path.relative_to(base).as_posix())
        assert image.weight == pytest.approx(0.5 + place / 10)
    same = [role for role, digest in plain.fingerprints.items() if weighted.fingerprints[role] == digest]
    assert same == ["validation", "test"], "weights of held-out images are not used"
    assert [each.detail for each in inspected(base, name).by_kind("manifest")] == [
        "the 'weight' column sets the loss weights of the training images, which range from 0.5 to 2.4"
    ]


@pytest.mark.parametrize("name", ["photos.csv", "photos.parquet"])
def test_the_columns_may_be_written_in_any_case(name: str, folder: Path) -> None:
    base, words = folder.parent, ["train"] * 8 + ["test"] * 2
    entries = [[*row, word] for row, word in zip(rows(folder), words * 2, strict=True)]
    table(base / name, entries, ["Path", "LABEL", "Split"])
    made = read(base, name, splits=SplitsConfig())
    assert {role: len(images) for role, images in made.by_name.items()} == {"train": 12, "validation": 4, "test": 4}


def test_a_column_with_names_of_splits_is_reported(folder: Path) -> None:
    words = ["train"] * 8 + ["test"] * 2
    entries = [[*row, word] for row, word in zip(rows(folder), words * 2, strict=True)]
    table(folder.parent / "photos.csv", entries, ["path", "label", "partition"])
    assert [each.detail for each in inspected(folder.parent).by_kind("manifest")] == [
        "the 'partition' column contains split names but is not used; to use it, rename it to 'split'"
    ]


def test_wrong_weights_are_named_with_their_lines(folder: Path) -> None:
    words = ["1", "0", "-1", "nan", "inf", "heavy", "", " 2 "]
    splits = ["train"] * 7 + ["test"]
    entries = [[*row, split, word] for row, split, word in zip(rows(folder), splits, words, strict=False)]
    entries += [[*row, "test", ""] for row in rows(folder)[8:]]
    table(folder.parent / "photos.csv", entries, ["path", "label", "split", "weight"])
    with pytest.raises(DataError) as caught:
        read(folder.parent, splits=SplitsConfig())
    lines = [line.strip() for line in str(caught.value).splitlines() if "its weight" in line]
    assert lines == [
        f"photos.csv, line {number}: its weight is {word!r}, but must be a number above 0"
        for number, word in enumerate(words[1:7], 3)
    ]


def test_a_checksum_and_a_missing_manifest(folder: Path) -> None:
    file = table(folder.parent / "photos.csv", rows(folder))
    assert read(folder.parent, sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    with pytest.raises(SourceError, match=r"expected 0000"):
        read(folder.parent, sha256="0" * 64)
    with pytest.raises(SourceError, match=r"'fotos.csv' was not found: .* did you mean 'photos.csv'"):
        read(folder.parent, "fotos.csv")


def test_a_file_that_a_disk_does_not_give_is_never_skipped(folder: Path) -> None:
    """Of /proc/self/mem the first byte cannot be read: the system's answer is an I/O error."""
    table(folder.parent / "photos.csv", [["/proc/self/mem", "ant"], *rows(folder)])
    for choice in ("fail", "skip"):
        with pytest.raises(DataError, match=r"(?s)not read \(1\).*self/mem: it could not be read: Input"):
            read(folder.parent, on_bad_image=choice)


def test_a_path_with_a_nul_is_a_wrong_row(folder: Path) -> None:
    pairs = [*rows(folder), ["a\0b.png", "ant"]]
    columns = {"path": [path for path, _ in pairs], "label": [label for _, label in pairs]}
    parquet.write_table(pa.table(columns), folder.parent / "photos.PARQUET")
    with pytest.raises(DataError, match=r"photos\.PARQUET, row \d+: a\\x00b\.png contains a NUL character"):
        read(folder.parent, "photos.PARQUET")


def test_useless_patterns_of_both_fields_are_named_at_once(folder: Path) -> None:
    table(folder.parent / "photos.csv", rows(folder))
    for name in ("photos.csv", folder.name):
        with pytest.raises(DataError) as raised:
            read(folder.parent, name, exclude=["no.png"], allow_duplicates=["none.png"])
        for field, pattern in (("exclude", "no.png"), ("allow_duplicates", "none.png")):
            assert re.search(rf"dataset\.{field} must match .*\n  '{pattern}' matches no", str(raised.value))


def test_a_folder_may_be_called_like_a_manifest(folder: Path) -> None:
    folder.rename(folder.with_name("photos.csv"))
    assert read(folder.parent, splits=SplitsConfig(train=".", test=0.4)).train


def test_read_files_are_not_read_again(folder: Path) -> None:
    table(folder.parent / "photos.csv", rows(folder))
    for expected in (20, 0):
        steps: list[Step] = []
        open_dataset(listed(), folder.parent, steps.append)
        assert [step.task for step in steps] == ["reading photos.csv"] * expected


class TestGroups:
    """`dataset.group_by`, from the column to the splits."""

    HEAD = ("path", "label", "patient", "split")

    def test_groups_stay_on_one_side(self, folder: Path) -> None:
        entries = [[*row, f"P{place % 10}"] for place, row in enumerate(rows(folder))]
        table(folder.parent / "photos.csv", entries, self.HEAD[:3])
        splits = read(folder.parent, group_by="patient")
        sides = [{each.group for each in images} for images in splits.by_name.values()]
        assert len(sides) == 3
        assert sum(map(len, sides)) == len(set.union(*sides)) == 10

    def test_folds_of_groups_are_part_of_the_fingerprint(self, folder: Path) -> None:
        entries = [[*row, f"P{place % 10}"] for place, row in enumerate(rows(folder))]
        table(folder.parent / "photos.csv", entries, self.HEAD[:3])
        deal = SplitsConfig.model_validate({"validation": {"folds": 2}, "test": 0.4})
        splits = read(folder.parent, group_by="patient", splits=deal)
        folds = [
            {each.group for each, fold in zip(splits.train, splits.folds, strict=True) if fold == number}
            for number in range(2)
        ]
        assert all(folds)
        assert not folds[0] & folds[1]
        first = next(iter(folds[0]))
        moved = [1 if each.group == first else fold for each, fold in zip(splits.train, splits.folds, strict=True)]
        assert replace(splits, folds=tuple(moved)).fingerprint != splits.fingerprint
        assert replace(splits).fingerprint == splits.fingerprint

    def test_a_group_in_two_given_splits_is_an_error(self, folder: Path) -> None:
        base = folder.parent
        entries = [
            [*row, f"P{place % 10 // 2}", "test" if place % 10 == 9 else "train"]
            for place, row in enumerate(rows(folder))
        ]
        table(base / "photos.csv", entries, self.HEAD)
        found = inspected(base, group_by="patient", splits=SplitsConfig())
        [error] = found.errors
        assert error.kind == "group across splits"
        assert error.detail == "images in group 'P4': 2 in train and 2 in test"
        assert len(error.files) == 4
        with pytest.raises(SplitError, match=r"1 group is in more .* \(dataset.group_by\):\n  'P4': train and test"):
            open_dataset(listed(group_by="patient", splits=SplitsConfig()), base).split()
        assert not inspected(base, splits=SplitsConfig()).errors

    @pytest.mark.parametrize(
        ("column", "message"),
        [
            ("patients", r"no 'patients' column \(dataset.group_by\); did you mean 'patient'\?.*'path', 'label'"),
            ("patient", r"photos.csv, line 2: its 'patient' is empty"),
        ],
    )
    def test_a_column_that_is_not_there_or_has_gaps(self, column: str, message: str, folder: Path) -> None:
        entries = [[*row, f"P{place}" if place else ""] for place, row in enumerate(rows(folder))]
        table(folder.parent / "photos.csv", entries, self.HEAD[:3])
        with pytest.raises(DataError, match=message):
            read(folder.parent, group_by=column)

    def test_folders_have_no_columns(self, folder: Path) -> None:
        with pytest.raises(
            DataError, match=r"requires a manifest with a .patient. column, but the source set is not a manifest"
        ):
            read(folder.parent, "set", group_by="patient", splits=SplitsConfig(train=".", test=0.4))


def test_a_path_through_a_link_and_up_again_is_the_file_that_it_names(folder: Path, tmp_path: Path) -> None:
    base, elsewhere = folder.parent, tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    (folder / "ant" / "0.png").rename(elsewhere / "0.png")
    (base / "link").symlink_to(elsewhere / "deep")
    table(base / "photos.csv", [["link/../0.png", "ant"], *rows(folder)])
    assert {image.path.parent.name for image in read(base).train} <= {"ant", "bee", "elsewhere"}
    assert (elsewhere / "0.png").resolve() in {image.path for images in read(base).by_name.values() for image in images}


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ('["ant", "bee"]', 'its \'label\' is ["ant", "bee"], but must be text or a number'),
        ('{"name": "ant"}', 'its \'label\' is {"name": "ant"}, but must be text or a number'),
        ('"\\ud83d"', "which contains an unpaired surrogate"),
    ],
)
def test_json_values_that_are_no_labels_are_errors_of_their_line(tmp_path: Path, label: str, reason: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(f'{{"path": "a.png", "label": {label}, "boxes": [1, 2]}}\n{{"path": "b.png", "label": 1}}\n')
    manifest = read_manifest(file)
    assert [row.label for row in manifest.rows] == ["1"]
    [(number, error)] = manifest.errors
    assert number == 1
    assert reason in error


def test_equal_numbers_in_json_are_one_class(tmp_path: Path) -> None:
    """As in Parquet; texts and other values stay as they are written."""
    labels = ["1", "1.0", "1e0", "-0.0", "1.5", "true", '"1.0"', "1e20", "9007199254740993"]
    file = tmp_path / "a.jsonl"
    file.write_text("".join(f'{{"path": "{row}.png", "label": {label}}}\n' for row, label in enumerate(labels)))
    expected = ["1", "1", "1", "0", "1.5", "true", "1.0", "1e+20", "9007199254740993"]
    assert [row.label for row in read_manifest(file).rows] == expected
    parquet.write_table(pa.table({"path": ["a", "b", "c"], "label": [1.0, 0.0, 1.5]}), tmp_path / "a.parquet")
    assert [row.label for row in read_manifest(tmp_path / "a.parquet").rows] == ["1", "0", "1.5"]
