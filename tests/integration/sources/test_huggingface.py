"""Hugging Face datasets, created and saved by its own library and read without a network."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image as Pillow

from transfer_platform.data.catalog import scan_folder
from transfer_platform.errors import SourceError
from transfer_platform.paths import cache_folder
from transfer_platform.progress import Step
from transfer_platform.sources.open import open_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
# Read when the library is imported, which the tests below do.
os.environ.update(OFFLINE)

import datasets  # noqa: E402
import pyarrow.parquet  # noqa: E402
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value  # noqa: E402


@pytest.fixture(autouse=True)
def _no_bars(isolated: Path) -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def image(shade: int, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Pillow.new("RGB", (9, 7), (shade, 40, 90)).save(buffer, kind)
    return buffer.getvalue()


IMAGES = [image(10), image(20, "PNG"), image(30, "BMP"), image(40, "WEBP")]
NAMES = ["cat", "dog/wolf"]


def table(contents: Sequence[bytes | None] = IMAGES, **columns: tuple[Any, list[Any]]) -> Dataset:
    """A column `image` and, by default, a column `label`."""
    others = columns or {"label": (ClassLabel(names=NAMES), [0, 1, 1, 0])}
    values = {name: values for name, (_, values) in others.items()}
    features = {name: feature for name, (feature, _) in others.items()}
    images = [content and {"bytes": content, "path": None} for content in contents]
    rows = {"image": images, **values}
    return Dataset.from_dict(rows, features=Features({"image": Image(), **features}))


def written(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


EXPECTED = {
    "cat/000000.jpg": IMAGES[0],
    "dog-wolf/000001.png": IMAGES[1],
    "dog-wolf/000002.bmp": IMAGES[2],
    "cat/000003.webp": IMAGES[3],
}
REVERSED = {
    "cat/000000.webp": IMAGES[3],
    "dog-wolf/000001.bmp": IMAGES[2],
    "dog-wolf/000002.png": IMAGES[1],
    "cat/000003.jpg": IMAGES[0],
}


def under(split: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{split}/{name}": content for name, content in files.items()}


def test_a_saved_set_keeps_its_splits_and_its_bytes(isolated: Path) -> None:
    splits = {"train": table(), "validation": table(IMAGES[::-1]), "extra_test": table()}
    DatasetDict(splits).save_to_disk("pets")
    steps: list[Step] = []
    folder = open_source("huggingface:./pets", isolated, progress=steps.append)
    assert folder.is_relative_to(cache_folder() / "huggingface")
    assert written(folder) == (under("train", EXPECTED) | under("validation", REVERSED) | under("extra_test", EXPECTED))
    assert Step("writing ./pets validation", 4, 4, "images") in steps
    assert scan_folder(folder / "train").classes == ("cat", "dog-wolf")
    assert not list(folder.glob(".*"))


def test_a_set_saved_without_splits_is_one_folder(isolated: Path) -> None:
    table().save_to_disk("pets")
    assert written(open_source("huggingface:./pets", isolated)) == EXPECTED


def test_a_folder_of_parquet_files(isolated: Path) -> None:
    Path("pets/data").mkdir(parents=True)
    table().to_parquet("pets/data/train-00000-of-00001.parquet")
    table(IMAGES[::-1]).to_parquet("pets/data/test-00000-of-00001.parquet")
    folder = open_source(f"huggingface:{isolated / 'pets'}", Path("/"))
    assert written(folder) == under("train", EXPECTED) | under("test", REVERSED)


def test_images_that_the_table_only_names(isolated: Path) -> None:
    """`datasets` reads a folder of class folders too, and keeps paths instead of bytes."""
    for split in ("train", "test"):
        for name, content in {"cat/a.jpg": IMAGES[0], "dog/b.png": IMAGES[1]}.items():
            file = Path("pets", split, name)
            file.parent.mkdir(parents=True)
            file.write_bytes(content)
    folder = open_source("huggingface:./pets", isolated)
    once = {"cat/000000.jpg": IMAGES[0], "dog/000001.png": IMAGES[1]}
    assert written(folder) == under("train", once) | under("test", once)


def test_a_file_elsewhere_on_this_machine_is_not_read(isolated: Path) -> None:
    Path("secret.jpg").write_bytes(IMAGES[0])
    Path("pets").mkdir()
    rows = {"image": [{"bytes": None, "path": str(isolated / "secret.jpg")}], "label": ["cat"]}
    kinds = Features({"image": {"bytes": Value("binary"), "path": Value("string")}, "label": Value("string")})
    stored = Dataset.from_dict(rows, features=kinds).cast_column("image", Image())
    # Written without the library's own care, which would put the bytes of named files into the table.
    pyarrow.parquet.write_table(stored.data.table, "pets/train.parquet")
    with pytest.raises(SourceError, match=r"refers to the file .*secret\.jpg, which is outside the dataset"):
        open_source("huggingface:./pets?label=label", isolated)


def test_it_is_written_once_and_again_when_the_folder_changes(isolated: Path) -> None:
    table().save_to_disk("pets")
    first = open_source("huggingface:./pets", isolated)
    before = (first / "cat" / "000000.jpg").stat().st_mtime_ns
    assert open_source("huggingface:./pets", isolated) == first
    assert (first / "cat" / "000000.jpg").stat().st_mtime_ns == before
    Path("pets").rename("older")
    table(IMAGES[::-1]).save_to_disk("pets")
    assert written(open_source("huggingface:./pets", isolated)) == REVERSED


CLASSES = ClassLabel(names=NAMES)


def test_columns_are_chosen_if_several_fit(isolated: Path) -> None:
    table(fine=(CLASSES, [0, 1, 1, 0]), coarse=(ClassLabel(names=["animal", "thing"]), [0, 1, 0, 1])).save_to_disk(
        "pets"
    )
    with pytest.raises(
        SourceError, match=r"columns fine and coarse contain classes; choose one, for example \?label=fine"
    ):
        open_source("huggingface:./pets", isolated)
    assert {path.name for path in open_source("huggingface:./pets?label=coarse", isolated).iterdir()} == {
        "animal",
        "thing",
    }
    assert written(open_source("huggingface:./pets?label=fine", isolated)) == EXPECTED


def test_images_are_chosen_if_several_columns_have_them(isolated: Path) -> None:
    other = [{"bytes": content, "path": None} for content in IMAGES[::-1]]
    table(label=(CLASSES, [0, 1, 1, 0]), mask=(Image(), other)).save_to_disk("pets")
    with pytest.raises(
        SourceError, match=r"columns image and mask contain images; choose one, for example \?image=image"
    ):
        open_source("huggingface:./pets", isolated)
    assert written(open_source("huggingface:./pets?image=mask", isolated)) == REVERSED


def test_plain_values_are_classes_if_they_are_chosen(isolated: Path) -> None:
    table(kind=(Value("string"), ["cat", "dog/wolf", "dog/wolf", "cat"])).save_to_disk("pets")
    with pytest.raises(SourceError, match=r"cannot tell which column contains classes: .*kind \(string\)"):
        open_source("huggingface:./pets", isolated)
    assert written(open_source("huggingface:./pets?label=kind", isolated)) == EXPECTED


def test_splits_without_labels_are_left_out_by_name(isolated: Path) -> None:
    splits = {"train": table(), "test": table(label=(CLASSES, [-1] * 4))}
    DatasetDict(splits).save_to_disk("pets")
    with pytest.raises(SourceError, match=r"row 0 of split 'test' has no class \(label is -1\); .*\?splits=train"):
        open_source("huggingface:./pets", isolated)
    assert not [path for path in (cache_folder() / "huggingface").iterdir() if path.is_dir()]
    assert written(open_source("huggingface:./pets?splits=train", isolated)) == under("train", EXPECTED)


def test_a_row_without_an_image_is_an_error(isolated: Path) -> None:
    table([IMAGES[0], None, *IMAGES[2:]]).save_to_disk("pets")
    with pytest.raises(SourceError, match=r"huggingface:\./pets: row 1 of split '\.' has no image"):
        open_source("huggingface:./pets", isolated)


def test_damaged_files_are_reported(isolated: Path) -> None:
    table().save_to_disk("pets")
    (file,) = Path("pets").glob("*.arrow")
    content = file.read_bytes()
    for damaged in (content[: len(content) // 2], b"x" * 1000):
        file.write_bytes(damaged)
        with pytest.raises(SourceError, match=r"huggingface:\./pets"):
            open_source("huggingface:./pets", isolated)


def test_files_in_the_cache_of_the_library_are_read(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset of the Hub whose table names downloaded files; the download alone is left out."""
    hub = isolated / "hub"
    snapshot = hub / "datasets--owner--pets" / "snapshots" / ("0" * 40)
    for name, content in {"cat/a.jpg": IMAGES[0], "dog/b.png": IMAGES[1]}.items():
        (snapshot / "train" / name).parent.mkdir(parents=True)
        (snapshot / "train" / name).write_bytes(content)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    loaded = datasets.load_dataset(str(snapshot), cache_dir=str(isolated / "hf"))
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config, revision: loaded)
    folder = open_source("huggingface:owner/pets", isolated)
    assert written(folder) == {"train/cat/000000.jpg": IMAGES[0], "train/dog/000001.png": IMAGES[1]}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("./petz", r"there is no folder .*/petz; did you mean 'pets'\?"),
        ("./pets?splits=trian", r"there is no split 'trian'; available: train; did you mean 'train'\?"),
        (
            "./pets?label=lable",
            r"there is no column 'lable'; available: image \(.*\), label \(int64\); did you mean 'label'\?",
        ),
        ("./pets?image=label", r"column 'label' does not contain images; .*: image \(.*\), label \(int64\)"),
        ("./pets?label=image", r"column 'image' does not contain classes"),
        ("./pets?lable=x", r"unknown option 'lable'; expected huggingface:OWNER/NAME.*; did you mean 'label'\?"),
        ("./pets?label", r"'label' does not have the form OPTION=VALUE; expected huggingface:OWNER/NAME"),
        ("a/b/c", r"'a/b/c' is not a dataset name; expected huggingface:OWNER/NAME"),
        ("./empty", r"empty cannot be read as a dataset"),
        ("owner/pets", r"owner/pets: cannot be loaded: .*(?s:.)*save_to_disk.*huggingface:\./FOLDER"),
        ("pets", r"the current folder contains 'pets'.*use huggingface:\./pets"),
    ],
)
def test_what_cannot_be_opened(source: str, message: str, isolated: Path) -> None:
    DatasetDict({"train": table()}).save_to_disk("pets")
    Path("empty").mkdir()
    with pytest.raises(SourceError, match=message):
        open_source(f"huggingface:{source}", isolated)


def test_without_the_extra_it_says_what_to_install(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(SourceError, match=r"pip install --upgrade 'transfer-platform\[huggingface\]'"):
        open_source("huggingface:owner/pets", isolated)


def test_a_library_that_runs_code_of_datasets_is_refused(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "__version__", "3.6.0")
    with pytest.raises(SourceError, match=r"`datasets` 3\.6\.0 is not supported .* version 4 or later is required"):
        open_source("huggingface:owner/pets", isolated)


def test_what_is_written_is_opened_without_the_library(
    isolated: Path, modules_to_open: Callable[[str], set[str]]
) -> None:
    table().save_to_disk("pets")
    open_source("huggingface:./pets", isolated)
    assert not {"torch", "datasets", "pyarrow", "pandas"} & modules_to_open("huggingface:./pets")
