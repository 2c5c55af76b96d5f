"""Folders as people have them: which of them teaches and which is held out, where the recipe does not say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from transfer_platform.data.dataset import scan_dataset, split_dataset
from transfer_platform.data.split_layout import resolve_recipe_splits, resolve_splits
from transfer_platform.errors import SplitError
from transfer_platform.recipe.resolve import study_identity
from transfer_platform.recipe.schema import BackboneConfig, DatasetConfig, FoldsConfig, Recipe, SplitsConfig

WriteImage = Callable[[Path, str], None]


@pytest.fixture
def folders(isolated: Path, write_image: WriteImage) -> Callable[..., DatasetConfig]:
    """Makes class folders of ten images each below `photos`, and the section of a recipe for it."""

    def make(*names: str, **splits: object) -> DatasetConfig:
        for name in names:
            for number in range(10):
                write_image(isolated / "photos" / name / f"{number}.png", f"{name}{number}")
        return DatasetConfig(source="photos", splits=SplitsConfig.model_validate(splits))

    return make


def classes(*splits: str) -> tuple[str, ...]:
    return tuple(f"{split}/{label}" for split in splits for label in ("ant", "bee"))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("ant", "bee"), (".", 0.2, 0.2)),
        (classes("train", "test"), ("train", 0.2, "test")),
        (classes("train", "val"), ("train", 0.2, "val")),
        (classes("train", "valid", "test"), ("train", "valid", "test")),
        (classes("train", "validation", "test"), ("train", "validation", "test")),
        (classes("train", "validate"), ("train", 0.2, "validate")),
        (classes("Training", "VAL", "Testing"), ("Training", "VAL", "Testing")),
        (classes("train2017", "val2017"), ("train2017", 0.2, "val2017")),
        (classes("training_set", "test_set"), ("training_set", 0.2, "test_set")),
        (classes("train"), ("train", 0.2, 0.2)),
        (classes("set/train", "set/dev", "set/test"), ("set/train", "set/dev", "set/test")),
        (classes("train/train", "test/test"), ("train/train", 0.2, "test/test")),
        (classes("photographs"), ("photographs", 0.2, 0.2)),
        (classes("train", "val", "valid", "validation"), ("train", "validation", 0.2)),
    ],
)
def test_folders_are_recognised_by_their_names(names, expected, folders) -> None:
    found = resolve_splits(folders(*names), Path())
    assert (found.train, found.validation, found.test) == expected


def test_what_was_recognised_is_said_and_what_is_not_read_too(folders, isolated, write_image) -> None:
    dataset = folders(*classes("train", "val", "test", "validation"), "ant")
    write_image(isolated / "photos" / "dev" / "1.png", "no class")
    assert resolve_splits(dataset, Path()).messages == (
        "recognised: train is train, by its name",
        "recognised: validation is validation, by its name",
        "recognised: test is test, by its name",
        "not read: val, as no split is that folder",
        "not read: ant, as no split is called so",
        "not read: dev, as it holds no class folders",
    )


def test_what_the_recipe_says_stands(folders) -> None:
    names = classes("train", "val", "test")
    found = resolve_splits(folders(*names, train="train", validation=0.5, test=0.1), Path())
    assert (found.split_specs, found.messages) == ({"train": "train", "validation": 0.5, "test": 0.1}, ())
    found = resolve_splits(folders(validation={"folds": 3}), Path())
    assert (found.train, found.validation, found.test) == ("train", FoldsConfig(folds=3), "test")
    found = resolve_splits(folders(validation="test"), Path())
    assert (found.validation, found.test) == ("test", "val")
    found = resolve_splits(folders(train="test"), Path())
    assert (found.train, found.validation, found.test) == ("test", 0.2, "val")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("ant/train", "ant/val", "bee/train", "bee/val"), "move <class>/train to train/<class>"),
        (classes("one/train", "two/train"), "several folders could be dataset.splits.train: one/train, two"),
        (
            classes("photos", "test"),
            "beside it no folder of class folders with a usual name for what teaches",
        ),
        (("train", "test"), "train in .* hold no class folders; in each of them put the images of a class"),
        (
            ("ant/val", "ant/test", "bee/val", "bee/test"),
            r"inside of its class folders \(ant/test, ant/val, b",
        ),
        (classes("2021", "2022"), r"2021, 2022 in .* hold folders of the same names \(ant, bee\)"),
        (classes("train", "val", "dev"), "several folders could be dataset.splits.validation: dev, val"),
    ],
)
def test_folders_that_do_not_tell_are_refused_with_what_to_do(names, message, folders) -> None:
    with pytest.raises(SplitError, match=message):
        resolve_splits(folders(*names), Path())


def test_a_class_that_a_split_lacks_is_an_error_not_another_layout(folders) -> None:
    dataset = folders(*classes("train"), "test/ant")
    with pytest.raises(SplitError, match="test lacks the class 'bee'"):
        split_dataset(scan_dataset(dataset, Path()), dataset)


def test_links_out_of_the_source_are_no_layout(folders, tmp_path, write_image) -> None:
    for name in ("outside/ant/1.png", "outside/bee/1.png"):
        write_image(tmp_path / name, name)
    dataset = folders("ant", "bee")
    Path("photos/train").symlink_to(tmp_path / "outside")
    Path("photos/circle").symlink_to("circle")
    assert resolve_splits(dataset, Path()).train == "."


def test_omitted_and_spelled_out_are_the_same_study(folders) -> None:
    names = classes("train", "val")
    omitted = Recipe(name="x", dataset=folders(*names), backbone=BackboneConfig(name="efficientnet_lite0"))
    spelled = omitted.model_copy(update={"dataset": folders(train="train", validation=0.2, test="val")})
    said: list[str] = []
    assert study_identity(resolve_recipe_splits(omitted, Path(), say=said.append)) == study_identity(spelled)
    assert said[-1].startswith("recognised: test is val, the only folder that is held out")
    assert resolve_recipe_splits(spelled, Path(), say=said.append) is spelled
    assert len(said) == 3


def test_manifests_are_taken_at_their_word(folders) -> None:
    folders("ant", "bee")
    rows = [f"photos/{label}/{i}.png,{label},{'dev' if i < 3 else 'train'}"
            for label in ("ant", "bee") for i in range(10)]  # fmt: skip
    Path("photos.csv").write_text("\n".join(["path,label,split", *rows]))
    found = resolve_splits(DatasetConfig(source="photos.csv"), Path())
    assert (found.train, found.validation, found.test) == ("train", "validation", 0.2)
    assert found.messages == ("recognised: test is 0.2, a fraction of train, as no row's split is that",)
