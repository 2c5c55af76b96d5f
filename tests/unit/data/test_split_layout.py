"""Splits that a recipe leaves unset, resolved by the names of real-world folders and by manifest rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from transfer_platform.data import dataset as dataset_module
from transfer_platform.data.dataset import open_dataset
from transfer_platform.data.split_layout import ResolvedSplits
from transfer_platform.errors import SplitError
from transfer_platform.recipe.resolve import study_identity
from transfer_platform.recipe.schema import BackboneConfig, DatasetConfig, FoldsConfig, Recipe, SplitsConfig

WriteImage = Callable[[Path, str], None]


@pytest.fixture
def folders(isolated: Path, write_image: WriteImage) -> Callable[..., DatasetConfig]:
    """Writes class folders of ten images each below `photos`; returns the section of a recipe for them."""

    def make(*names: str, **splits: object) -> DatasetConfig:
        for name in names:
            for number in range(10):
                write_image(isolated / "photos" / name / f"{number}.png", f"{name}{number}")
        return DatasetConfig(source="photos", splits=SplitsConfig.model_validate(splits))

    return make


def resolve(config: DatasetConfig) -> ResolvedSplits:
    return open_dataset(config, Path()).resolved_splits


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
def test_folders_are_identified_by_their_names(names, expected, folders) -> None:
    resolved = resolve(folders(*names))
    assert (resolved.train, resolved.validation, resolved.test) == expected


def test_messages_name_the_choices_and_the_unused_folders(folders, isolated, write_image) -> None:
    dataset = folders(*classes("train", "val", "test", "validation"), "ant")
    write_image(isolated / "photos" / "dev" / "1.png", "no class")
    assert resolve(dataset).messages == (
        "dataset.splits.train: using train (matched by name)",
        "dataset.splits.validation: using validation (matched by name)",
        "dataset.splits.test: using test (matched by name)",
        "not used: val (not assigned to a split)",
        "not used: ant (not a split name)",
        "not used: dev (contains no class folders)",
    )


def test_splits_of_the_recipe_take_precedence(folders) -> None:
    names = classes("train", "val", "test")
    resolved = resolve(folders(*names, train="train", validation=0.5, test=0.1))
    assert (resolved.split_specs, resolved.messages) == ({"train": "train", "validation": 0.5, "test": 0.1}, ())
    resolved = resolve(folders(validation={"folds": 3}))
    assert (resolved.train, resolved.validation, resolved.test) == ("train", FoldsConfig(folds=3), "test")
    resolved = resolve(folders(validation="test"))
    assert (resolved.validation, resolved.test) == ("test", "val")
    resolved = resolve(folders(train="test"))
    assert (resolved.train, resolved.validation, resolved.test) == ("test", 0.2, "val")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("ant/train", "ant/val", "bee/train", "bee/val"), "move <class>/train to train/<class>"),
        (classes("one/train", "two/train"), "splits.train is ambiguous because several folders match: one/train, two"),
        (classes("photos", "test"), "no sibling folder has the name of a training split"),
        (("train", "test"), "train in .* contain no class folders; in each of them, move the images of each class"),
        (("ant/val", "ant/test", "bee/val", "bee/test"), r"inside class folders \(ant/test, ant/val, b"),
        (classes("2021", "2022"), r"2021, 2022 in .* contain subfolders with the same names \(ant, bee\)"),
        (classes("train", "val", "dev"), "splits.validation is ambiguous because several folders match: dev, val"),
    ],
)
def test_ambiguous_folders_are_rejected_with_a_remedy(names, message, folders) -> None:
    with pytest.raises(SplitError, match=message):
        resolve(folders(*names))


def test_a_class_that_a_split_lacks_is_an_error_not_another_layout(folders) -> None:
    dataset = folders(*classes("train"), "test/ant")
    with pytest.raises(SplitError, match="test is missing the class 'bee'"):
        open_dataset(dataset, Path()).split()


def test_links_that_leave_the_source_are_not_splits(folders, tmp_path, write_image) -> None:
    for name in ("outside/ant/1.png", "outside/bee/1.png"):
        write_image(tmp_path / name, name)
    dataset = folders("ant", "bee")
    Path("photos/train").symlink_to(tmp_path / "outside")
    Path("photos/circle").symlink_to("circle")
    assert resolve(dataset).train == "."


def test_unset_and_spelled_out_splits_are_the_same_study(folders) -> None:
    names = classes("train", "val")
    unset = Recipe(name="x", dataset=folders(*names), backbone=BackboneConfig(name="efficientnet_lite0"))
    spelled = unset.model_copy(update={"dataset": folders(train="train", validation=0.2, test="val")})
    dataset = open_dataset(unset.dataset, Path())
    resolved = unset.model_copy(update={"dataset": dataset.resolved_config})
    assert study_identity(resolved) == study_identity(spelled)
    assert len(dataset.split_messages) == 3
    assert dataset.split_messages[-1].startswith("dataset.splits.test: using val (the only held-out folder")
    again = open_dataset(spelled.dataset, Path())
    assert again.resolved_config is spelled.dataset
    assert again.split_messages == ()


def test_other_fractions_need_no_second_scan(folders) -> None:
    names = classes("train", "val")
    dataset = open_dataset(folders(*names), Path())
    for specs in ({"validation": 0.5}, {"validation": FoldsConfig(folds=2)}):
        changed = dataset.with_splits(**specs)
        assert changed.catalogs is dataset.catalogs
        opened = open_dataset(folders(**specs), Path())
        assert changed.resolved_config == opened.resolved_config
        assert (changed.split().fingerprint, changed.split().folds) == (
            opened.split().fingerprint,
            opened.split().folds,
        )


def test_the_rows_of_a_manifest_decide(folders) -> None:
    folders("ant", "bee")
    rows = [f"photos/{label}/{i}.png,{label},{'dev' if i < 3 else 'train'}"
            for label in ("ant", "bee") for i in range(10)]  # fmt: skip
    Path("photos.csv").write_text("\n".join(["path,label,split", *rows]))
    resolved = resolve(DatasetConfig(source="photos.csv"))
    assert (resolved.train, resolved.validation, resolved.test) == ("train", "validation", 0.2)
    assert resolved.messages == (
        "dataset.splits.test: using 0.2 (held out from train, because no manifest row is assigned to this split)",
    )


def test_a_manifest_is_fetched_and_parsed_once(folders, monkeypatch) -> None:
    folders("ant", "bee")
    rows = [f"photos/{label}/{number}.png,{label}" for label in ("ant", "bee") for number in range(10)]
    Path("photos.csv").write_text("\n".join(["path,label", *rows]))
    calls = []
    for name in ("open_manifest", "read_manifest"):
        original = getattr(dataset_module, name)
        monkeypatch.setattr(
            dataset_module, name, lambda *a, name=name, original=original: calls.append(name) or original(*a)
        )
    assert open_dataset(DatasetConfig(source="photos.csv"), Path()).split().test
    assert calls == ["open_manifest", "read_manifest"]
