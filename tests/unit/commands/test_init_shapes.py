"""`platform init` on folders of many shapes: a recipe that can be run, or a sentence that says what is missing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from folder_shapes import RUNS, Write, write_classes

from transfer_platform.commands.init import write_first_recipe
from transfer_platform.data.dataset import open_dataset
from transfer_platform.data.splits import Splits
from transfer_platform.errors import DataError, TransferError
from transfer_platform.inspection.preflight import preflight, require_valid
from transfer_platform.recipe.load import load_recipe


@pytest.fixture
def write(isolated: Path, write_image: Callable[[Path, str], None]) -> Write:
    """Writes an image below `photos`; its content depends on its name."""

    def make(name: str) -> None:
        write_image(isolated / "photos" / name, name)

    return make


def splits_of(recipe: Path) -> Splits:
    return require_valid(*preflight(open_dataset(load_recipe(recipe).dataset, recipe.parent)))


@pytest.mark.parametrize("shape", RUNS, ids=lambda shape: shape.__name__)
def test_a_recipe_is_written_whose_splits_have_every_class(shape, write) -> None:
    source = shape(write) or "photos"
    splits = splits_of(write_first_recipe(source).file)
    assert len(splits.classes) >= 2
    for images in (splits.train, splits.test):
        assert {image.label for image in images} == set(splits.classes)


def nothing(write: Write) -> None:
    Path("photos").mkdir()


def one_class(write: Write) -> None:
    write_classes(write, "ant")


def images_without_classes(write: Write) -> None:
    for number in range(9):
        write(f"{number}.png")


def one_image_in_every_class(write: Write) -> None:
    write_classes(write, *map(str, range(40)), images=1)


def two_images_in_every_class(write: Write) -> None:
    write_classes(write, *map(str, range(4)), images=2)


def links_that_lead_out(write: Write) -> None:
    for label in ("ant", "bee"):
        Path("photos", label).mkdir(parents=True)
        Path("photos", label, "0.png").symlink_to("/etc/hostname")


def class_folders_that_are_links(write: Write) -> None:
    Path("photos").mkdir()
    for label in ("ant", "bee"):
        Path("elsewhere", label).mkdir(parents=True)
        Path("photos", label).symlink_to(Path("elsewhere", label).absolute())


def links_to_a_disk_that_is_not_mounted(write: Write) -> None:
    for label in ("ant", "bee"):
        Path("photos", label).mkdir(parents=True)
        Path("photos", label, "0.png").symlink_to(Path("/not/mounted", label))


def a_class_of_empty_files(write: Write) -> None:
    for number in range(9):
        write(f"ant/{number}.png")
        Path("photos/bee").mkdir(exist_ok=True)
        Path("photos/bee", f"{number}.png").touch()


def copies_of_one_image(write: Write) -> None:
    for label in ("ant", "bee"):
        write(f"{label}/0.png")
        content = Path("photos", label, "0.png").read_bytes()
        for number in range(1, 9):
            Path("photos", label, f"{number}.png").write_bytes(content)


def a_test_folder_that_is_a_copy_of_train(write: Write) -> None:
    for label in ("ant", "bee"):
        for number in range(9):
            write(f"train/{label}/{number}.png")
    shutil.copytree("photos/train", "photos/test")


def a_name_that_is_not_text(write: Write) -> None:
    for label in ("ant", "bee"):
        for number in range(9):
            write(f"{label}/{number}.png")
    write("b\nd/0.png")


REFUSED = {
    a_test_folder_that_is_a_copy_of_train: "duplicate across splits (18), for example train/ant/5.png, test/ant/5.png",
    a_name_that_is_not_text: "class folder names with unprintable characters",
    nothing: "must contain at least two class folders, but has none",
    one_class: "must contain at least two class folders, but has only one: 'ant'",
    images_without_classes: "must contain at least two class folders, but has none",
    one_image_in_every_class: "needs distinct images in both train and test, but there is only one for '0'",
    two_images_in_every_class: "validation has no images: no class has two distinct images outside the test split",
    links_that_lead_out: "ant/0.png: is a symbolic link to /etc/hostname, outside the dataset",
    class_folders_that_are_links: "link leading out (2), for example ant: is a symbolic link to",
    links_to_a_disk_that_is_not_mounted: "ant/0.png: is a symbolic link whose target does not exist",
    a_class_of_empty_files: "bee/0.png: it is empty (0 bytes)",
    copies_of_one_image: "there is only one for 'ant', 'bee'",
}


@pytest.mark.parametrize(("shape", "message"), REFUSED.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_folder_that_cannot_be_used_is_refused_with_one_sentence(shape, message, write) -> None:
    shape(write)
    with pytest.raises(TransferError) as raised:
        write_first_recipe("photos")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert str(Path("photos").absolute()) in str(raised.value)
    assert isinstance(raised.value, DataError)
    assert not list(Path().glob("*.yaml"))
