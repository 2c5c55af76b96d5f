"""The frozen part runs once, and nobody can tell from the results."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from transfer_platform.data.splits import Splits
from transfer_platform.progress import Step
from transfer_platform.recipe.schema import FoldsConfig, Recipe
from transfer_platform.sources.weights import fetch_weights
from transfer_platform.tensor_store import Store
from transfer_platform.training import trial_trainer
from transfer_platform.training.loop import FitResult

BACKBONE = "efficientnet_lite0"


@pytest.fixture(scope="session")
def few(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty photographs of each class to learn from, ten to test with."""
    folder = tmp_path_factory.mktemp("few")
    for split, count in (("train", 20), ("val", 10)):
        for label in ("ants", "bees"):
            (folder / split / label).mkdir(parents=True)
            for path in sorted((photographs / split / label).glob("*.jpg"))[:count]:
                shutil.copy(path, folder / split / label)
    return folder


def recipe(folder: Path, through: str, **changes: dict[str, object]) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "few",
            "dataset": {"source": str(folder), "image_size": 64, **changes.get("dataset", {})},
            "backbone": {"name": BACKBONE, "freeze_through": through},
            "features": changes.get("features", {}),
            "head": {"dropout": 0.2},
            "training": {"epochs": 3, "batch_size": 8, "precision": "float32", **changes.get("training", {})},
        }
    )


def fitted(
    settings: Recipe, splits: Splits, store: Store | None, told: list[Step] | None = None
) -> FitResult:
    weights = {BACKBONE: fetch_weights(BACKBONE, "default", Path()).path}
    steps = told if told is not None else []
    made = trial_trainer.TrialTrainer(
        splits, weights, torch.device("cpu"), trials=50, store=store, progress=steps.append
    )
    return made.train(settings, lambda _: None)


def computed(steps: list[Step]) -> int:
    """For how many images the frozen part ran."""
    return max((step.total or 0 for step in steps if step.task.startswith("the frozen part")), default=0)


def assert_alike(one: FitResult, other: FitResult) -> None:
    """Equal to the bit: the same tensors were computed, in the same batches."""
    for mine, theirs in zip(one.epochs, other.epochs, strict=True):
        for loss in ("train/loss", "validation/loss"):
            assert mine.metrics[loss] == theirs.metrics[loss]
    assert torch.equal(one.logits, other.logits)


@pytest.fixture
def splits(few: Path, isolated: Path, splits_of) -> Splits:
    return splits_of(few, "train", 0.25, "val")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "features", 10**9)


@pytest.mark.parametrize("through", ["blocks.1", "blocks.4", "all"])
def test_training_from_stored_features_is_training(few, splits, store, through: str) -> None:
    settings, told = recipe(few, through), []
    assert_alike(fitted(settings, splits, store, told), fitted(settings, splits, None))
    assert computed(told) == len(splits.development)


@pytest.mark.parametrize("batch_size", [5, 16])
def test_neither_batch_size_nor_learning_rate_tells_them_apart(few, splits, store, batch_size: int) -> None:
    settings = recipe(few, "blocks.4", training={"batch_size": batch_size, "learning_rate": 1e-2})
    assert_alike(fitted(settings, splits, store), fitted(settings, splits, None))


def test_views_are_the_same_stored_or_not(few, splits, store) -> None:
    settings = recipe(few, "blocks.4", dataset={"augmentation": "medium"}, features={"views": 2})
    told: list[Step] = []
    stored = fitted(settings, splits, store, told)
    assert_alike(stored, fitted(settings, splits, None))
    assert computed(told) == 2 * len(splits.train)
    plain = fitted(recipe(few, "blocks.4"), splits, store)
    assert stored.epochs[-1].metrics["train/loss"] != plain.epochs[-1].metrics["train/loss"]


def test_folds_are_the_same_stored_or_not(few, isolated, store, splits_of) -> None:
    splits = splits_of(few, "train", FoldsConfig(folds=4), "val")
    settings = recipe(few, "all", dataset={"splits": {"validation": {"folds": 4}, "test": "val"}})
    stored = fitted(settings, splits, store)
    assert_alike(stored, fitted(settings, splits, None))
    assert stored.logits.shape == (40, 2)


def test_a_second_study_computes_nothing_and_a_changed_image_itself(few, store, isolated, splits_of) -> None:
    own = isolated / "photographs"
    shutil.copytree(few, own)
    settings = recipe(own, "all")
    fitted(settings, splits_of(own, "train", 0.25, "val"), store)
    again: list[Step] = []
    fitted(settings, splits_of(own, "train", 0.25, "val"), store, again)
    assert computed(again) == 0
    changed = next((own / "train" / "ants").iterdir())
    next((own / "val" / "bees").iterdir()).replace(changed)
    once_more: list[Step] = []
    fitted(settings, splits_of(own, "train", 0.25, "val"), store, once_more)
    assert computed(once_more) == 1


def test_flipped_bytes_are_computed_again(few, splits, store, tmp_path) -> None:
    settings = recipe(few, "all")
    before = fitted(settings, splits, store)
    (segment,) = (tmp_path / "features").rglob("*.rows")
    content = bytearray(segment.read_bytes())
    content[100:5000:7] = bytes(byte ^ 0xFF for byte in content[100:5000:7])
    segment.write_bytes(content)
    told: list[Step] = []
    assert_alike(fitted(settings, splits, store, told), before)
    assert computed(told) >= 1


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of three megabytes without a byte to spare; a plain folder where none can be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    if mounted:
        with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as filler:
            while filler.write(bytes(4096)):
                pass
    yield folder
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _dataset(folder: Path) -> str:
    splits = "{train: train, validation: 0.25, test: val}"
    return f"dataset={{source: {folder}, splits: {splits}, image_size: 64, exclude: []}}"


def run_of(place: object, few: Path, *more: str) -> str:
    overrides = [
        _dataset(few),
        "search.trials=2",
        "training.epochs=2",
        "backbone.freeze_through=blocks.2",
        "promotion=null",
        *more,
    ]
    arguments = [part for override in overrides for part in ("-o", override)]
    out, err = place.run("platform", "run", "ants_bees", *arguments)
    return out + err


def figures(said: str) -> list[float]:
    return [float(figure) for figure in re.findall(r"test/\w+ (\d+\.\d+)", said)]


def test_a_full_disk_changes_nothing_but_the_time(few, workplaces: Callable, full_disk: Path) -> None:
    roomy, full = workplaces("roomy"), workplaces("full")
    full.environment["PLATFORM_CACHE"] = str(full_disk)
    full.environment["PLATFORM_CACHE_LIMIT"] = "100kB"  # so that a plain folder has no room either
    assert "the cache has no room" in (said := run_of(full, few))
    assert figures(said) == figures(run_of(roomy, few))


def test_two_studies_at_once_compute_the_frozen_part_once(few, workplaces: Callable, tmp_path: Path) -> None:
    both = [workplaces("one"), workplaces("other")]
    for place in both:
        place.environment["PLATFORM_CACHE"] = str(tmp_path / "shared")
    arguments = ["platform", "run", "ants_bees", "-o", "search.trials=2", "-o", "training.epochs=1"]
    arguments += ["-o", "promotion=null", "-o", "backbone.freeze_through=blocks.2"]
    arguments += ["-o", _dataset(few)]
    differing = ("seed=1", "head.dropout=0.25")
    processes = [place.start(*arguments, "-o", change) for change, place in zip(differing, both, strict=True)]
    for process in processes:
        _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
    (address,) = (path for path in (tmp_path / "shared" / "features").iterdir() if path.name != ".locks")
    keys = [key for path in address.glob("*.rows") for key in json.loads(_footer(path))["keys"]]
    assert len(keys) == len(set(keys)) == 40, "each photograph was computed by one of the two"


def _footer(segment: Path) -> bytes:
    """What a file of rows says of them, see `store.segment`."""
    content = segment.read_bytes()
    length = int.from_bytes(content[-24:-16], "little")
    return content[-24 - length : -24]


def test_a_trial_does_not_depend_on_those_before_it(few, splits, store, monkeypatch) -> None:
    monkeypatch.setattr(trial_trainer, "CACHED_NETWORKS", 1)
    weights = {BACKBONE: fetch_weights(BACKBONE, "default", Path()).path}
    made = trial_trainer.TrialTrainer(splits, weights, torch.device("cpu"), trials=50, store=store)
    first = made.train(recipe(few, "all"), lambda _: None)
    made.train(recipe(few, "blocks.5"), lambda _: None)  # for which the first network has to go
    again = made.train(recipe(few, "all"), lambda _: None)
    made.train(recipe(few, "all"), lambda _: None)
    once_more = made.train(recipe(few, "all"), lambda _: None)
    assert torch.equal(first.logits, again.logits)
    assert torch.equal(first.logits, once_more.logits)
