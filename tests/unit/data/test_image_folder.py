"""Folders with the metadata files of Hugging Face's ImageFolder, and what `datasets` reads in them."""

from __future__ import annotations

import gc
import json
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from transfer_platform.data.dataset import open_dataset
from transfer_platform.data.splits import Splits
from transfer_platform.errors import DataError
from transfer_platform.inspection.inspection import Inspection
from transfer_platform.inspection.preflight import preflight, require_valid
from transfer_platform.recipe.schema import DatasetConfig, SplitsConfig

WriteImage = Callable[[Path, str], None]
KINDS = ("csv", "jsonl", "parquet")
LABELS = ("ant", "bee") * 10


def write_metadata(file: Path, rows: Sequence[dict[str, object]]) -> Path:
    """Writes a metadata file in the format of its suffix; the first row has all columns."""
    if file.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(list(rows)), file)
    elif file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
        file.write_text("\n".join(lines), encoding="utf-8")
    return file


def listed(folder: Path, first: int = 0, count: int = 20) -> list[dict[str, object]]:
    names = sorted(path.name for path in folder.glob("*.png"))
    return [{"file_name": name, "label": LABELS[(first + place) % 20]} for place, name in enumerate(names[:count])]


@pytest.fixture
def folder(isolated: Path, write_image: WriteImage) -> Path:
    """20 images in one folder without class folders."""
    for number in range(20):
        write_image(isolated / "photos" / f"{number:02}.png", f"image {number}")
    return isolated / "photos"


@pytest.fixture
def divided(isolated: Path, write_image: WriteImage) -> Path:
    """Folders `train` and `test` of 16 and 4 images without class folders."""
    for split, first, count in (("train", 0, 16), ("test", 16, 4)):
        for number in range(first, first + count):
            write_image(isolated / "photos" / split / f"{number:02}.png", f"image {number}")
    return isolated / "photos"


def read(source: str, **options: object) -> tuple[Inspection, Splits | None]:
    return preflight(open_dataset(DatasetConfig.model_validate({"source": source, **options}), Path()))


def splits(source: str, **options: object) -> Splits:
    return require_valid(*read(source, **options))


def notes(source: str, **options: object) -> list[str]:
    return [each.detail for each in read(source, **options)[0].by_kind("manifest")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_metadata_file_is_a_manifest(kind: str, folder: Path) -> None:
    write_metadata(folder / f"metadata.{kind}", listed(folder))
    by_folder = splits("photos", splits={"test": 0.4})
    assert splits(f"photos/metadata.{kind}", splits={"test": 0.4}).fingerprint == by_folder.fingerprint
    for path in folder.glob("*.png"):
        label = LABELS[int(path.stem)]
        (folder.parent / "classes" / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder.parent / "classes" / label)
    assert splits("classes", splits={"test": 0.4}).fingerprint == by_folder.fingerprint


@pytest.mark.parametrize("kind", KINDS)
def test_split_folders_have_metadata_files_of_their_own(kind: str, divided: Path) -> None:
    for split, first in (("train", 0), ("test", 16)):
        write_metadata(divided / split / f"metadata.{kind}", listed(divided / split, first))
    made = splits("photos")
    assert {split: len(images) for split, images in made.by_name.items()} == {"train": 12, "validation": 4, "test": 4}
    assert {image.path.parent.name for image in made.test} == {"test"}
    assert f"the images listed in test/metadata.{kind} are in test" in notes("photos")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # `datasets` leaves files open
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_images_and_labels_as_datasets_reads(kind: str, divided: Path) -> None:
    datasets = pytest.importorskip("datasets")
    for split, first in (("train", 0), ("test", 16)):
        write_metadata(divided / split / f"metadata.{kind}", listed(divided / split, first))
    loaded = datasets.load_dataset("imagefolder", data_dir=str(divided), cache_dir=str(divided.parent / "hf"))
    gc.collect()
    made = splits("photos")
    for split, images in (("train", made.development), ("test", made.test)):
        rows = loaded[split].cast_column("image", datasets.Image(decode=False))
        theirs = {(Path(row["image"]["path"]).name, row["label"]) for row in rows}
        assert {(image.path.name, image.label) for image in images} == theirs


def test_one_metadata_file_may_list_the_files_of_split_folders(divided: Path) -> None:
    rows = [
        {"file_name": f"{split}/{row['file_name']}", "label": row["label"]}
        for split, first in (("train", 0), ("test", 16))
        for row in listed(divided / split, first)
    ]
    write_metadata(divided / "metadata.csv", rows)
    assert {image.path.parent.name for image in splits("photos").test} == {"test"}
    assert "splits taken from the folders of the images: test, train" in notes("photos")


def test_the_only_subfolder_of_an_archive_is_read(folder: Path) -> None:
    write_metadata(folder / "metadata.csv", listed(folder))
    archive = shutil.make_archive("photos", "zip", folder.parent, folder.name)
    assert len(splits(archive, splits={"test": 0.4}).classes) == 2


def test_files_that_the_metadata_does_not_list_are_counted(folder: Path) -> None:
    write_metadata(folder / "metadata.csv", listed(folder, count=18))
    (folder / "README.md").write_text("# Photos")
    assert notes("photos", splits={"test": 0.4}) == [
        "3 files are not listed in the metadata and not used (for example, 18.png)"
    ]


def test_a_column_of_the_metadata_groups_the_images(folder: Path) -> None:
    rows = [{**row, "patient": f"P{place // 2}"} for place, row in enumerate(listed(folder))]
    write_metadata(folder / "metadata.jsonl", rows)
    made = splits("photos", group_by="patient", splits={"test": 0.4})
    assert not {image.group for image in made.test} & {image.group for image in made.development}


def test_class_folders_with_captions_remain_class_folders(isolated: Path, write_image: WriteImage) -> None:
    for number, label in enumerate(LABELS):
        write_image(isolated / "photos" / label / f"{number}.png", f"image {number}")
    write_metadata(isolated / "photos/metadata.csv", [{"file_name": "ant/0.png", "text": "an ant"}])
    made = splits("photos", exclude=["metadata.csv"], splits={"test": 0.4})
    assert made.classes == ("ant", "bee")


def test_excluded_metadata_is_not_used(isolated: Path, write_image: WriteImage) -> None:
    for number, label in enumerate(LABELS):
        write_image(isolated / "photos" / label / f"{number}.png", f"image {number}")
    write_metadata(isolated / "photos/metadata.csv", [{"file_name": "ant/0.png", "label": "insect"}])
    for pattern in ("metadata.csv", "*.csv"):
        assert splits("photos", exclude=[pattern], splits={"test": 0.4}).classes == ("ant", "bee")


UNRELATED = {
    "metadata.csv": (
        "Kamera;Größe\nA;3\n".encode("latin-1"),
        "file_name,label\nant/0.png,ant\n".encode("utf-16"),
        b"file_name;label\nant/0.png;ant\n",
        b"path,label\nant/0.png,ant\n",
        b'id,"te"xt\n1,"a\n',
        b"x" * 200_000,
        b"",
        bytes(range(256)),
    ),
    "metadata.jsonl": (b"\xff\xfe\n", b'{"file_name": "ant/0.png"}\n{', b""),
}


@pytest.mark.parametrize(("name", "content"), [(name, content) for name in UNRELATED for content in UNRELATED[name]])
def test_a_file_without_both_columns_is_not_metadata_and_is_named(name, content, isolated, write_image) -> None:
    for number, label in enumerate(LABELS):
        write_image(isolated / "photos" / label / f"{number}.png", f"image {number}")
    (isolated / "photos" / name).write_bytes(content)
    [error] = read("photos")[0].errors
    assert (error.kind, error.files) == ("outside the class folders", (isolated / "photos" / name,))
    assert error.detail.startswith("is not used, because it does not have the columns 'file_name' and 'label'")
    assert splits("photos", exclude=[name], splits={"test": 0.4}).classes == ("ant", "bee")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.csv", "file_name,label\nant/0.png,grün\n".encode("latin-1"), "is not valid UTF-8 .at byte 28."),
        ("metadata.csv", b'file_name,label\nant/0.png,"a"nt\n', "check its quotation marks"),
        ("metadata.csv", b"file_name,label\n", "has no rows"),
        ("metadata.csv", b"file_name,label\nant/gone.png,\n", "has 2 errors"),
        ("metadata.csv", b"file_name,label,label\nant/0.png,a,b\n", "column occurs 2 times"),
        ("metadata.parquet", b"PAR1", "is corrupt or not a Parquet file"),
    ],
)
def test_errors_of_a_metadata_file_name_the_way_back_to_class_folders(
    name, content, message, isolated, write_image
) -> None:
    for number, label in enumerate(LABELS):
        write_image(isolated / "photos" / label / f"{number}.png", f"image {number}")
    (isolated / "photos" / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{message}.* list (this|the) file in dataset.exclude"):
        read("photos")
    assert splits("photos", exclude=[name], splits={"test": 0.4}).classes == ("ant", "bee")


def test_errors_name_the_file_and_the_line(divided: Path) -> None:
    for split, first in (("train", 0), ("test", 16)):
        write_metadata(divided / split / "metadata.jsonl", listed(divided / split, first))
    with (divided / "test" / "metadata.jsonl").open("a") as file:
        file.write('{"file_name": "16.png", "label": "ant"}\n\n{"file_name": "a.png"\n[1]\n{"label": "bee"}\n')
        file.write('{"file_name": "gone.png", "label": null}\n')
        file.write("[" * 100_000 + "\n")
    with pytest.raises(DataError) as raised:
        read("photos")
    lines = str(raised.value).splitlines()
    assert lines[0] == f"the manifest {divided} has 7 errors; correct them, or list the file in dataset.exclude:"
    for line, (number, text) in zip(
        lines[1:],
        [
            (5, "test/16.png is already listed in test/metadata.jsonl, line 1"),
            (7, "is not valid JSON: Expecting ',' delimiter"),
            (8, "is not a JSON object (example: "),
            (9, "its 'path' is empty"),
            (10, "its 'label' is empty"),
            (10, "test/gone.png: the file does not exist"),
            (11, "is not valid JSON"),
        ],
        strict=True,
    ):
        assert line.startswith(f"  test/metadata.jsonl, line {number}: {text}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/etc/hostname", "line 2: /etc/hostname is absolute, which is not allowed in a .* metadata file"),
        ("../secret.png", r"line 2: \.\./secret\.png points outside the manifest's folder"),
        ("link.png", "line 2: link.png is a link to a target outside the dataset"),
    ],
)
def test_metadata_cannot_list_files_outside_of_its_folder(name: str, message: str, folder: Path) -> None:
    shutil.copy(folder / "00.png", folder.parent / "secret.png")
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    write_metadata(folder / "metadata.csv", [{"file_name": name, "label": "ant"}, *listed(folder)])
    with pytest.raises(DataError, match=message):
        read("photos", splits={"test": 0.4})


@pytest.mark.parametrize("below", ["", "images"])
@pytest.mark.parametrize("wrong_row", [False, True])
def test_the_archive_of_missing_images_is_named(below: str, wrong_row: bool, folder: Path) -> None:
    rows = [{**row, "file_name": f"{below}/{row['file_name']}".strip("/")} for row in listed(folder)]
    with zipfile.ZipFile(folder / "images.ZIP", "w") as archive:
        for path in folder.glob("*.png"):
            archive.write(path, f"{below}/{path.name}")
            path.unlink()
    write_metadata(folder / "metadata.jsonl", [*rows, *[{"file_name": "", "label": "ant"}] * wrong_row])
    name, problem = (
        rows[0]["file_name"],
        "images.ZIP is an archive, and archives inside a folder are not read; unpack it",
    )
    if wrong_row:
        with pytest.raises(DataError) as raised:
            read("photos")
        message = str(raised.value)
    else:
        found = read("photos")[0]
        message = "\n".join(found.line(error) for error in found.errors)
    assert f"{name}: the file does not exist; {problem}" in message
    with zipfile.ZipFile(folder / "images.ZIP") as archive:
        archive.extractall(folder)
    if not wrong_row:
        assert not read("photos", splits={"test": 0.4})[0].errors


def test_a_similar_file_name_is_suggested_rather_than_an_archive(folder: Path) -> None:
    (folder / "images.zip").touch()
    write_metadata(folder / "metadata.jsonl", [*listed(folder), {"file_name": "03_.png", "label": "ant"}])
    found, _ = read("photos")
    assert ["did you mean '03.png'?" in found.line(error) for error in found.by_kind("missing")] == [True]


def test_two_metadata_files_in_one_folder_are_ambiguous(folder: Path) -> None:
    for kind in ("csv", "jsonl"):
        write_metadata(folder / f"metadata.{kind}", listed(folder))
    with pytest.raises(DataError, match=r"contains metadata\.csv and metadata\.jsonl; keep only one of them"):
        read("photos")


def test_a_split_folder_without_metadata_is_named(divided: Path) -> None:
    write_metadata(divided / "train" / "metadata.csv", listed(divided / "train"))
    with pytest.raises(DataError, match=r"has train/metadata\.csv, but no metadata file .* exists in test; add one"):
        read("photos")


def test_the_column_path_takes_precedence_and_case_does_not_matter(folder: Path) -> None:
    rows = listed(folder)
    write_metadata(
        folder / "a.csv", [{"path": row["file_name"], "file_name": "x", "label": row["label"]} for row in rows]
    )
    write_metadata(folder / "b.csv", [{"File_Name": row["file_name"], "Label": row["label"]} for row in rows])
    options = {"splits": SplitsConfig(test=0.4)}
    assert splits("photos/a.csv", **options).fingerprint == splits("photos/b.csv", **options).fingerprint
